"""Runs read back from storage and compared on one page."""

import tempfile
from pathlib import Path

from rlpretrain.errors import UserError
from rlpretrain.report.build import collect, compare_runs
from rlpretrain.report.evaluations import ARMS, STAGES, Key, pool, read_evaluation
from rlpretrain.report.results import Results
from rlpretrain.settings import CompareSettings
from rlpretrain.storage import download_folder, list_artifacts


def compare_uris(uris: list[str], output: Path, settings: CompareSettings) -> None:
    """Fetch the evaluations below every run's URI, verified, and write their comparison to ``output``."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = [_fetch(uri.rstrip("/"), Path(scratch) / str(index)) for index, uri in enumerate(uris)]
        compare_runs(runs, settings, output)


def results_of(uris: list[str], settings: CompareSettings) -> Results:
    """The figures of that comparison alone."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = [_fetch(uri.rstrip("/"), Path(scratch) / str(index)) for index, uri in enumerate(uris)]
        return collect(pool([{key: read_evaluation(folder) for key, folder in run.items()} for run in runs]), settings)


def _fetch(uri: str, folder: Path) -> dict[Key, Path]:
    """The evaluations of a run by arm and stage; UserError when there is none."""
    present = set(list_artifacts(uri))
    found = {}
    for arm in ARMS:
        for stage in STAGES:
            place = f"{uri}/evaluate-{arm.replace('_', '-')}-{stage}"
            if place in present:
                found[arm, stage] = folder / f"{arm}-{stage}"
                download_folder(place, found[arm, stage])
    if not found:
        raise UserError(f"{uri}: holds no evaluation of a run; give the place that a run printed at its end")
    return found

"""Runs as they lie in storage: which there are, how they stand, what they found.

A run is a folder of artifacts, RUN/TASK, with `status.json` beside them once it has ended.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from components.report_status.stage import STATUS_FILE
from pipelines.comparing import results_of
from pipelines.custody import CHECKPOINTS
from rlpretrain.artifacts import MANIFEST, Manifest, parse_manifest
from rlpretrain.errors import UserError
from rlpretrain.report.results import RESULTS_FILE, Results, parse_results
from rlpretrain.settings import CompareSettings
from rlpretrain.storage import connect
from rlpretrain.stores.interface import Store, Stored

ARMS = ("base", "rlp")  # whose accuracy a list of runs tells
COMPARISONS = ("compare", "ablate")  # artifacts that know the run's profile
UNFINISHED = "UNFINISHED"  # it goes on at this moment, or was stopped before its end
_READERS = 8  # runs that are read at a time
_NAMED = 5  # runs that a mistake names


class _Status(BaseModel):
    """What a list needs of status.json; its default is that of a run without one."""

    state: str = UNFINISHED
    finished_at: str = ""


@dataclass(frozen=True)
class StoredRun:
    """What a list says of a run; None where its artifacts do not tell."""

    name: str
    uri: str
    state: str
    when: str  # its end; of an unfinished run its newest object's time
    profile: str | None
    seed: int | None
    artifacts: list[str]
    size: int  # bytes
    accuracy: dict[str, float | None]  # overall after pretraining, of ARMS


def stored_runs(uri: str) -> list[StoredRun]:
    """The runs below a place, the newest first."""
    uri, store = uri.rstrip("/"), connect(uri)
    runs = _by_run(store)
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda name: _read(uri, store, name, runs[name]), runs))
    return sorted(found, key=lambda run: (run.when, run.name), reverse=True)


def stored_run(place: str, artifacts_uri: str) -> StoredRun:
    """A run by its name below ``artifacts_uri`` or by its own URI; UserError when there is none."""
    uri, _, name = (place.rstrip("/") if "/" in place else f"{artifacts_uri.rstrip('/')}/{place}").rpartition("/")
    store = connect(uri)
    runs = _by_run(store)
    if name not in runs:
        known = sorted(runs)
        further = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        raise UserError(f"{uri}: holds no run '{name}'; known: {', '.join(known[:_NAMED]) or 'none'}{further}")
    return _read(uri, store, name, runs[name])


def comparison_of(run: StoredRun) -> Results:
    """The comparison that a run published; of one that has none yet, or an older one, it is made of the evaluations."""
    if "compare" in run.artifacts:
        try:
            return parse_results(published_results(run, "compare"))
        except ValidationError:  # of another version of the code
            pass
    return results_of([run.uri], CompareSettings(profile=run.profile or ""))


def published_results(run: StoredRun, task: str) -> Any:
    """results.json of one of a run's artifacts, verified."""
    store = connect(f"{run.uri}/{task}")
    manifest = parse_manifest(store.get_bytes(MANIFEST), f"{run.uri}/{task}/{MANIFEST}")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / RESULTS_FILE
        store.get_files({RESULTS_FILE: (path, manifest.files[RESULTS_FILE].sha256)})
        return json.loads(path.read_text(encoding="utf-8"))


def _by_run(store: Store) -> dict[str, list[Stored]]:
    """The objects of every run, by its name."""
    found: dict[str, list[Stored]] = {}
    for stored in store.stored():
        found.setdefault(stored.key.partition("/")[0], []).append(stored)
    return {name: objects for name, objects in found.items() if any(_marks_a_run(each.key) for each in objects)}


def _marks_a_run(key: str) -> bool:
    _, *inside = key.split("/")
    return inside[:1] in ([STATUS_FILE], [CHECKPOINTS]) or inside[1:] == [MANIFEST]


def _read(uri: str, store: Store, name: str, objects: list[Stored]) -> StoredRun:
    keys = [stored.key.split("/") for stored in objects]
    artifacts = sorted(key[1] for key in keys if key[2:] == [MANIFEST] and key[1] != CHECKPOINTS)

    def manifests(tasks: tuple[str, ...]) -> Iterator[tuple[str, Manifest]]:
        for task in tasks:
            if task in artifacts:
                where = f"{name}/{task}/{MANIFEST}"
                yield task, parse_manifest(store.get_bytes(where), f"{uri}/{where}")

    evaluations = {arm: f"evaluate-{arm}-pretrained" for arm in ARMS}
    try:
        evaluated = dict(manifests(tuple(evaluations.values())))
        compared = dict(manifests(COMPARISONS))
        others = evaluated or dict(manifests(("evaluate-base", "train-base", *artifacts[:1])))
        ended = [name, STATUS_FILE] in keys
        status = _Status.model_validate_json(store.get_bytes(f"{name}/{STATUS_FILE}")) if ended else _Status()
    except (UserError, ValidationError):  # `verify` says what is wrong with it
        evaluated, compared, others, status = {}, {}, {}, _Status(state="DAMAGED")
    newest = datetime.fromtimestamp(time.time() - min(stored.age for stored in objects), UTC)
    return StoredRun(
        name=name,
        uri=f"{uri}/{name}",
        state=status.state,
        when=status.finished_at or newest.isoformat(timespec="seconds"),
        profile=next((made.settings["profile"] for made in compared.values() if made.settings.get("profile")), None),
        seed=next((made.seed for made in others.values()), None),
        artifacts=artifacts,
        size=sum(stored.size for stored in objects),
        accuracy={arm: _overall(evaluated.get(task)) for arm, task in evaluations.items()},
    )


def _overall(manifest: Manifest | None) -> float | None:
    return None if manifest is None else manifest.facts.get("averages", {}).get("overall")

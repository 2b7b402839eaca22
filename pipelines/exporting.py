"""A run's training metrics for other tools: TensorBoard's event files, runs in an MLflow store.

    python -m pipelines export RUN_OR_ARTIFACT --to tensorboard|mlflow DIR [--follow]

They are made from metrics.jsonl and timings.jsonl, which every training leaves, so that training itself writes to no service:
it cannot fail or wait for one, and old runs can be shown as well.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from pipelines.custody import CHECKPOINTS
from rlpretrain.artifacts import MANIFEST, Manifest, parse_manifest, stays_inside
from rlpretrain.errors import UserError, local_errors
from rlpretrain.storage import connect
from rlpretrain.stores.interface import Store

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
EVERY = 2.0  # seconds between two looks at a run that is followed
_MLFLOW_BATCH = 1000  # most metrics that a store takes at once
_MLFLOW_VALUE = 6000  # most characters of a parameter
Row = dict[str, float]


@dataclass(frozen=True)
class Training:
    """The steps of one training; ``manifest`` is None while it is at work. ``ended``: when its metrics were last written, in Unix time."""

    name: str
    rows: list[Row]
    manifest: Manifest | None
    ended: float

    def times(self) -> list[float]:
        """Unix time of every step: no file keeps it, so the steps' seconds are counted back from the end."""
        seconds = list(accumulate(sum(v for k, v in row.items() if k.startswith("time/")) for row in self.rows))
        return [self.ended - seconds[-1] + passed for passed in seconds]


def read_trainings(place: str) -> list[Training]:
    """Every training below a place, by its name there; UserError when the metrics of a finished one were damaged."""
    place = place.rstrip("/")
    store = connect(place)
    ages = {stored.key: stored.age for stored in store.stored()}
    found = []
    for key in sorted(key for key in ages if PurePosixPath(key).name == METRICS):
        folder = str(PurePosixPath(key).parent)
        if CHECKPOINTS in PurePosixPath(key).parts:  # what an unfinished training has saved of itself
            continue
        if not stays_inside(key):
            raise UserError(f"{place}: key {key!r} leaves its folder; rename it")
        prefix, name = ("", place.rpartition("/")[2]) if folder == "." else (f"{folder}/", folder)
        manifest = None
        if prefix + MANIFEST in ages:
            manifest = parse_manifest(store.get_bytes(prefix + MANIFEST), f"{place}/{prefix}{MANIFEST}")
        times = _lines(store, prefix, TIMINGS, manifest, place) if prefix + TIMINGS in ages else []
        metrics = _lines(store, prefix, METRICS, manifest, place)
        rows = [row | (times[number] if number < len(times) else {}) for number, row in enumerate(metrics)]
        for number, part in enumerate(_parts(rows), start=1):
            found.append(Training(name if number == 1 else f"{name}-{number}", part, manifest, time.time() - ages[key]))
    return found


def _lines(store: Store, prefix: str, name: str, manifest: Manifest | None, place: str) -> list[Row]:
    """The whole lines of a file, checked against the manifest where there is one; the last may still be in the writing."""
    content = store.get_bytes(prefix + name)
    if manifest is not None and hashlib.sha256(content).hexdigest() != manifest.all_files()[name].sha256:
        raise UserError(
            f"{place}/{prefix}{name}: corrupted, its checksum is not the manifest's; run `pipelines verify`"
        )
    try:
        rows = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
        # Warnings and the mark of a step that was left out are no curves.
        return [{k: v for k, v in row.items() if type(v) in (int, float)} | {"step": row["step"]} for row in rows]
    except (ValueError, AttributeError, TypeError, KeyError):
        raise UserError(f"{place}/{prefix}{name}: holds a line that is no JSON object with a step; remove it") from None


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """A base model's format warm-up follows its training in the same file and counts from 1 again: a part of its own."""
    part: list[Row] = []
    for row in rows:
        if part and row["step"] <= part[-1]["step"]:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


class Writer(Protocol):
    """Where trainings go."""

    def write(self, trainings: Sequence[Training]) -> None:
        """Add what has not been written yet."""


class TensorBoard:
    """A folder of event files for each training, below DIR/RUN."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise _missing("tensorboard") from None
        if folder.exists():
            raise UserError(f"{folder} exists, and curves would be drawn twice; remove it or give another DIR")
        self._event, self._summary, self._open = Event, Summary, EventFileWriter
        with local_errors(folder):
            folder.mkdir(parents=True)
        self.folder = folder
        self.writers: dict[str, Any] = {}
        self.done: Counter[str] = Counter()

    def write(self, trainings: Sequence[Training]) -> None:
        for training in trainings:
            if training.name not in self.writers:
                self.writers[training.name] = self._open(str(self.folder / training.name))
            writer = self.writers[training.name]
            for row, moment in list(zip(training.rows, training.times(), strict=True))[self.done[training.name] :]:
                values = [self._summary.Value(tag=k, simple_value=v) for k, v in row.items() if k != "step"]
                summary = self._summary(value=values)
                writer.add_event(self._event(wall_time=moment, step=int(row["step"]), summary=summary))
            self.done[training.name] = len(training.rows)
            writer.flush()


class MLflow:
    """An experiment a run of ours, a run in it for each training, in DIR/mlflow.db or on a tracking server."""

    def __init__(self, place: str, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient, MlflowException, entities
        except ImportError:
            raise _missing("mlflow") from None
        uri, artifacts = place, None
        if "://" not in place:
            folder = Path(place).resolve()
            with local_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self.entities = entities
        # By itself it tries 7 times, which takes minutes to say that nobody is there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        try:
            self.client = MlflowClient(tracking_uri=uri)
            known = self.client.get_experiment_by_name(experiment)
            self.experiment = known.experiment_id if known else self.client.create_experiment(experiment, artifacts)
        except MlflowException as error:
            raise UserError(f"{place}: {' '.join(str(error).split())}; give a folder or a server's address") from None

    def write(self, trainings: Sequence[Training]) -> None:
        """Trainings that are there already, by their digest, are left as they are."""
        for training in trainings:
            manifest = training.manifest
            digest = manifest.digest if manifest is not None else ""
            same = self.client.search_runs([self.experiment], f"tags.`rlp.digest` = '{digest}'") if digest else []
            if any(run.data.tags["rlp.task"] == training.name for run in same):
                continue
            times = [int(1000 * moment) for moment in training.times()]
            tags = {"rlp.task": training.name}
            run = self.client.create_run(self.experiment, times[0], tags, training.name).info.run_id
            metrics = [
                self.entities.Metric(name, value, moment, int(row["step"]))
                for row, moment in zip(training.rows, times, strict=True)
                for name, value in row.items()
                if name != "step"
            ]
            for part in _batches(metrics, _MLFLOW_BATCH):
                self.client.log_batch(run, metrics=part)
            if manifest is not None:
                values = {"seed": manifest.seed, "code_version": manifest.code_version, **_flat(manifest.settings)}
                params = [self.entities.Param(name, str(value)[:_MLFLOW_VALUE]) for name, value in values.items()]
                for part in _batches(params, 100):
                    self.client.log_batch(run, params=part)
            self.client.set_tag(run, "rlp.digest", digest)  # last: an export that broke off is made anew
            self.client.set_terminated(run, "FINISHED" if manifest is not None else "RUNNING", times[-1])


def export(place: str, to: str, directory: str, follow: bool = False) -> int:
    """Write every training below ``place``; returns their number, or with ``follow`` goes on until it is interrupted."""
    run = place.rstrip("/").rpartition("/")[2] or place
    trainings = read_trainings(place)
    if not trainings and not follow:
        raise UserError(f"{place}: holds no {METRICS} of a training; give the place that a run printed at its end")
    writer: Writer = TensorBoard(Path(directory) / run) if to == "tensorboard" else MLflow(directory, run)
    writer.write(trainings)
    try:
        while follow:
            time.sleep(EVERY)
            trainings = read_trainings(place)
            writer.write(trainings)
    except KeyboardInterrupt:
        pass
    return len(trainings)


def _missing(extra: str) -> UserError:
    return UserError(f"{extra} is not installed; run `pip install .[{extra}]`")


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted name; lists as JSON."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))

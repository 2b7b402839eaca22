"""Snapshots of a training in progress: written whole or not at all, copied to storage in the background, verified when read.

A snapshot is an artifact (`artifacts`): tensors as safetensors, the rest as JSON, and a manifest last that says what it follows
from. Those of a stage lie in one local folder and, where a URI is given, below it in storage; the newest few and the best stay.
Its weights carry the model's own names and its config, so that transformers loads the folder by path.
"""

import json
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlpretrain.artifacts import (
    MANIFEST,
    Manifest,
    Origin,
    code_differences,
    parse_manifest,
    read_manifest,
    verify,
    write_manifest,
)
from rlpretrain.errors import Damaged, UserError
from rlpretrain.settings import SnapshotSettings

KIND = "snapshot"
STATE_FILE = "state.json"
GROUPS = MODEL, OPTIMIZER, REWARD = "model", "optimizer", "reward"  # of tensors
FILE_BYTES = 2 * 2**30  # tensors a file, so that no more than that is in memory twice
_PARTIAL = ".partial"
_NAME = re.compile(r"\d-\d{8}")


def snapshot_name(phase: int, step: int) -> str:
    """Names sort by the stage's phases, then by steps."""
    return f"{phase}-{step:08d}"


@dataclass(frozen=True)
class Snapshot:
    """A verified snapshot on this machine."""

    folder: Path
    state: dict[str, Any]

    def tensors(self, group: str) -> dict[str, Callable[[], Tensor]]:
        """What reads each tensor of a group, by name."""
        found: dict[str, Callable[[], Tensor]] = {}
        for file in sorted(self.folder.glob(f"{group}-*.safetensors")):
            with safe_open(str(file), framework="pt") as content:  # type: ignore[no-untyped-call]
                found |= {name: partial(_read_tensor, file, name) for name in content.keys()}  # noqa: SIM118
        return found

    def put_back(self, output: Path, names: Iterable[str]) -> None:
        """Copy the files called ``names``, as far as the snapshot has them, to where a training writes on."""
        for name in names:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, output / name)


class Snapshots:
    """The snapshots of one stage; `newest` is where an earlier attempt stood, `save` adds one."""

    def __init__(self, folder: Path, origin: Origin, settings: SnapshotSettings, uri: str = "") -> None:
        """``origin``: what the stage's result follows from; snapshots of anything else are refused."""
        self.folder = folder
        self.origin = Origin(KIND, origin.settings, origin.inputs)
        self.settings = settings
        self.uri = uri.rstrip("/")
        self._scores: dict[str, float | None] = {}  # of those in storage
        self._lock = threading.Lock()
        self._waiting: list[str] = []  # to be sent, the newest first
        self._sending = ""
        self._sender = ThreadPoolExecutor(1)
        self._sent: Future[None] | None = None
        self.phases: dict[str, int] = {}  # the tokens of each phase that is over

    def over(self, phase: int) -> int | None:
        """The tokens of a phase that an earlier attempt finished; else None."""
        return None if self.newest is None else self.newest.state["phases"].get(str(phase))

    @cached_property
    def newest(self) -> Snapshot | None:
        """The newest whole snapshot of earlier attempts, fetched where it is in storage alone; None when there is none.

        A damaged one is passed over with a line. UserError when it follows from other settings, inputs or code, or cannot
        be fetched for another reason: to start from an older one would lose hours for what may pass.
        """
        for torn in self.folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(torn)
        local, remote = self._local(), self._remote()
        for name in sorted({*local, *remote}, reverse=True):
            for here in [True] * (name in local) + [False] * (name in remote):
                try:
                    manifest = self._manifest(name, here)
                except Damaged as error:
                    self._pass_over(name, here, error)
                    continue
                self._refuse_another(name, here, manifest)
                try:
                    self._fetch(name, here)
                except Damaged as error:
                    self._pass_over(name, here, error)
                    continue
                folder = self.folder / name
                return Snapshot(folder, json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
        if local or remote:
            print("no snapshot is whole: the training starts anew", file=sys.stderr)
        return None

    def save(
        self,
        name: str,
        state: dict[str, Any],
        config: str,
        files: Iterable[Path],
        groups: dict[str, Iterable[tuple[str, Tensor]]],
    ) -> None:
        """Write a snapshot, ``name`` by `snapshot_name`, then let it be copied to storage.

        ``config`` is the model's, as JSON. ``state["score"]``, a number or None, says which snapshot is the best: the highest.
        """
        unfinished, folder = self.folder / f"{name}{_PARTIAL}", self.folder / name
        if (folder / MANIFEST).exists():  # saved when its step ended: SIGTERM came within the next one
            for tensors in groups.values():
                for _ in tensors:
                    pass
            if name not in self._scores:  # it could not be sent then
                self._send_soon(name)
            return
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for group, tensors in groups.items():
            _write_tensors(unfinished, group, tensors)
        for file in files:
            shutil.copyfile(file, unfinished / file.name)
        (unfinished / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
        (unfinished / "config.json").write_text(config, encoding="utf-8")
        write_manifest(
            unfinished,
            kind=KIND,
            settings=self.origin.settings,
            inputs=self.origin.inputs,
            seed=self.origin.seed,
            facts={"score": state["score"]},
        )
        unfinished.replace(folder)
        self._send_soon(name)

    def leave(self, file: Path) -> str:
        """Copy what a failed training tells of itself beside the snapshots in storage; returns where it outlives the machine."""
        if not self.uri:
            return str(file)
        from rlpretrain.storage import write_bytes

        place = f"{self.uri}/{file.name}"
        try:
            write_bytes(place, file.read_bytes())
        except UserError as error:  # it must not hide the failure itself
            print(f"{file} could not be copied to storage: {error}", file=sys.stderr)
            return str(file)
        return place

    def wait(self) -> None:
        """Until what was saved is in storage."""
        if self._sent is not None:
            self._sent.result()

    def discard(self) -> None:
        """Remove all of them: the stage's own artifact has taken their place."""
        self.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.uri:
            from rlpretrain.storage import remove_artifacts

            remove_artifacts(self.uri, _NAME)

    def _local(self) -> list[str]:
        names = [path.parent.name for path in self.folder.glob(f"*/{MANIFEST}")]
        return [name for name in names if _NAME.fullmatch(name)]

    def _remote(self) -> list[str]:
        if not self.uri:
            return []
        from rlpretrain.storage import list_artifacts  # boto3 is needed for storage alone

        places = [uri.rpartition("/") for uri in list_artifacts(self.uri)]
        names = [name for _, _, name in places if _NAME.fullmatch(name)]
        self._scores = {name: self._score(name, here=False) for name in names}
        return names

    def _place(self, name: str, here: bool) -> str:
        return str(self.folder / name) if here else f"{self.uri}/{name}"

    def _manifest(self, name: str, here: bool) -> Manifest:
        """The manifest of a snapshot in the local folder or in storage; Damaged when it is."""
        if here:
            return read_manifest(self.folder / name, KIND)
        from rlpretrain.storage import read_bytes

        place = f"{self._place(name, here)}/{MANIFEST}"
        return parse_manifest(read_bytes(place), place)

    def _refuse_another(self, name: str, here: bool, manifest: Manifest) -> None:
        """UserError when a snapshot follows from other settings, inputs or code than this stage's result."""
        other = self.origin.differences(manifest, ignored=("snapshots",))
        code = [] if self.settings.accept_other_code else code_differences(manifest)
        if other or code:
            mend = ", or set snapshots.accept_other_code to go on from it all the same" if code and not other else ""
            raise UserError(
                f"{self._place(name, here)}: the snapshot is of another training ({'; '.join(other + code)}); "
                f"put that back, or remove the snapshots or choose another place to start anew{mend}"
            )

    def _fetch(self, name: str, here: bool) -> None:
        """Have the snapshot in the local folder, verified; Damaged when it is."""
        folder = self.folder / name
        if here:
            verify(folder, KIND)
            return
        from rlpretrain.storage import download_folder

        download_folder(self._place(name, here), folder)

    def _pass_over(self, name: str, here: bool, error: Damaged) -> None:
        """Tell of a damaged snapshot. In storage it stays, for someone to look at, but counts no more."""
        print(f"a snapshot is passed over: {error}", file=sys.stderr)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        if not here:
            self._scores.pop(name, None)

    def _score(self, name: str, here: bool) -> float | None:
        try:
            return self._manifest(name, here).facts["score"]
        except Damaged:  # nobody's best
            return None

    def _send_soon(self, name: str) -> None:
        with self._lock:
            self._prune()
            if self.uri and name not in (*self._waiting, self._sending):
                self._waiting.append(name)
                if not self._sending:
                    self._sending = name
                    self._sent = self._sender.submit(self._send)

    def _send(self) -> None:
        """Copy the newest snapshot to storage until none waits; a failure is told, and the next one tries again."""
        from rlpretrain.storage import upload_folder

        while True:
            with self._lock:
                self._sending = name = self._waiting.pop() if self._waiting else ""
                self._prune()
                if not name:
                    return
            try:
                digest = read_manifest(self.folder / name).digest
                if name not in self._scores or self._manifest(name, here=False).digest != digest:
                    upload_folder(self.folder / name, f"{self.uri}/{name}")
                self._scores[name] = self._score(name, here=True)
                for old in self._superfluous(self._scores):
                    self._remove(old)
            except Exception as error:  # whatever it is: the next one is to be sent all the same
                print(f"a snapshot could not be copied to storage: {error}", file=sys.stderr)

    def _prune(self) -> None:
        """Remove from this machine what need not stay, but for the one being sent; called with the lock held."""
        superfluous = self._superfluous({name: self._score(name, here=True) for name in self._local()})
        self._waiting = [name for name in self._waiting if name not in superfluous]
        for name in superfluous - {self._sending}:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _remove(self, name: str) -> None:
        """Remove a snapshot from storage."""
        from rlpretrain.storage import remove_artifacts

        remove_artifacts(self.uri, re.compile(re.escape(name)))
        self._scores.pop(name, None)

    def _superfluous(self, scores: dict[str, float | None]) -> set[str]:
        """All but the newest few and the best."""
        names = sorted(scores)
        known = {name: score for name in names if (score := scores[name]) is not None}
        return {*names} - {*names[-self.settings.keep :]} - {max(known, key=lambda name: known[name], default="")}


def _read_tensor(file: Path, name: str) -> Tensor:
    with safe_open(str(file), framework="pt") as content:  # type: ignore[no-untyped-call]
        return content.get_tensor(name)


def _write_tensors(folder: Path, group: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """GROUP-00000.safetensors, ... and, for weights, the index by which transformers finds them."""
    places: dict[str, str] = {}
    held: dict[str, Tensor] = {}

    def write() -> None:
        file = f"{group}-{len(set(places.values())):05d}.safetensors"
        save_file(held, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(held, file))
        held.clear()

    for name, tensor in tensors:
        held[name] = tensor.detach().cpu().contiguous()
        if sum(each.nbytes for each in held.values()) >= FILE_BYTES:
            write()
    if held:
        write()
    if group == MODEL:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

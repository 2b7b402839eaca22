"""What lies in storage, looked after: is a run whole, what of it can go, where did an artifact come from.

Everything is read from the manifests. A run is the prefix that holds its artifacts, RUN/TASK; training keeps its checkpoints
under RUN/checkpoints/TASK/ until the task's artifact is published.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from components.report_status.stage import STATUS_FILE
from pipelines.runs import FILE as RUN_FILE
from rlpretrain.artifacts import MANIFEST, FileEntry, Manifest, canonical_digest, parse_manifest
from rlpretrain.errors import UserError
from rlpretrain.storage import connect
from rlpretrain.stores.interface import CLAIM, Store, Stored, Unfinished

CHECKPOINTS = "checkpoints"
_READERS = 4  # files that are hashed at a time


@dataclass
class Run:
    """The artifacts below a URI by their names there, and those whose manifest cannot be used."""

    uri: str
    store: Store
    stored: list[Stored]
    artifacts: dict[str, Manifest] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def by_digest(self) -> dict[str, str]:
        """Names by digest."""
        return {manifest.digest: name for name, manifest in self.artifacts.items()}


def read_run(uri: str) -> Run:
    """Read every manifest below ``uri``; UserError when there is none."""
    uri = uri.rstrip("/")
    store = connect(uri)
    run = Run(uri, store, list(store.stored()))
    for stored in run.stored:
        path = PurePosixPath(stored.key)
        if path.name != MANIFEST or _checkpoint_of(stored.key) is not None:
            continue
        name = "" if str(path.parent) == "." else str(path.parent)
        try:
            run.artifacts[name] = parse_manifest(store.get_bytes(stored.key), f"{uri}/{stored.key}")
        except UserError as error:
            run.damaged[name] = str(error)
    if not run.artifacts and not run.damaged:
        raise UserError(f"{uri}: holds no finished artifact; give the place that a run printed at its end")
    return run


def faults_of(run: Run) -> Iterator[tuple[str, list[str]]]:
    """Every artifact of a run, read whole, with a line for each thing that is wrong with it."""
    sizes = {stored.key: stored.size for stored in run.stored}
    known = run.by_digest()
    for name, line in run.damaged.items():
        yield name, [line]
    for name, manifest in run.artifacts.items():
        where = f"{run.uri}/{name}".rstrip("/")
        prefix = f"{name}/" if name else ""
        with ThreadPoolExecutor(_READERS) as pool:
            files = manifest.all_files().items()
            checks = [pool.submit(_fault, run.store, prefix + file, entry, sizes) for file, entry in files]
            found = [check.result() for check in checks]
        faults = [f"{where}/{file}: {fault}" for (file, _), fault in zip(files, found, strict=True) if fault]
        faults += [
            f"{where}/{MANIFEST}: input '{given}' (digest {digest[:12]}) is no artifact of this run"
            for given, digest in manifest.inputs.items()
            if digest not in known
        ]
        yield name, faults


def _fault(store: Store, key: str, entry: FileEntry, sizes: dict[str, int]) -> str | None:
    if key not in sizes:
        return "listed in the manifest but missing"
    if sizes[key] != entry.size:
        return f"has {sizes[key]} bytes, not the manifest's {entry.size}"
    # What differs is read once more: it may have been damaged on its way here.
    if all(store.sha256(key)[1] != entry.sha256 for _ in range(2)):
        return "corrupted, its checksum is not the manifest's"
    return None


@dataclass(frozen=True)
class Waste:
    """Something that nobody will read again, and why."""

    what: Stored | Unfinished
    reason: str


def waste_of(run: Run, age: float) -> list[Waste]:
    """What of a run can go; uploads and stray objects only when they are older than ``age`` seconds.

    Folders whose manifest is damaged are left alone, for their files may be all that is left.
    """
    _refuse_inside(run.uri)
    if any(".s3" in (parts := PurePosixPath(stored.key).parts) or parts[-1] == RUN_FILE for stored in run.stored):
        raise UserError(
            f"{run.uri}: is a folder of --runs, not of artifacts; give the place that a run printed at its end"
        )
    waste = [Waste(upload, "unfinished upload") for upload in run.store.unfinished() if upload.age > age]
    for stored in run.stored:
        checkpoint = _checkpoint_of(stored.key)
        if checkpoint is not None:
            if checkpoint in run.artifacts:
                waste.append(Waste(stored, f"checkpoint of {checkpoint}, which is published"))
        elif stored.age > age and not _belongs(stored.key, run):
            claimed = PurePosixPath(stored.key).name.startswith(CLAIM)
            waste.append(Waste(stored, "claim of a dead writer" if claimed else "in no complete manifest"))
    return waste


def remove(run: Run, waste: list[Waste]) -> None:
    """Delete it."""
    for each in waste:
        if isinstance(each.what, Unfinished):
            run.store.abort(each.what)
        else:
            run.store.delete(each.what.key)


def _belongs(key: str, run: Run) -> bool:
    """Whether an object is part of an artifact, of a folder that is not to be touched, or the status of a run."""
    for parent in PurePosixPath(key).parents:
        name = "" if str(parent) == "." else str(parent)
        if name in run.damaged:
            return True
        if name in run.artifacts:
            inside = key.removeprefix(f"{name}/") if name else key
            return inside == MANIFEST or inside in run.artifacts[name].all_files()
    return PurePosixPath(key).name == STATUS_FILE


def _checkpoint_of(key: str) -> str | None:
    """The task, by its name below the URI, whose training checkpoint an object is part of."""
    parts = PurePosixPath(key).parts
    if CHECKPOINTS not in parts[:-2]:
        return None
    place = parts.index(CHECKPOINTS)
    return "/".join((*parts[:place], parts[place + 1]))


def _refuse_inside(uri: str) -> None:
    """UserError when ``uri`` lies within an artifact, whose files would all seem to be strays."""
    scheme, _, path = uri.rpartition("://")
    *parents, _ = PurePosixPath(path).parents if "/" in path else [PurePosixPath(path)]
    for parent in parents:
        above = f"{scheme}://{parent}" if scheme else str(parent)
        if connect(above).exists(MANIFEST):
            raise UserError(f"{uri}: lies within the artifact {above}; give the place of a run")


@dataclass(frozen=True)
class Ancestor:
    """An artifact and where it came from; ``manifest`` is None when an input is not in the run."""

    name: str
    digest: str
    manifest: Manifest | None
    inputs: dict[str, "Ancestor"]

    def everyone(self) -> Iterator["Ancestor"]:
        """This one and all before it, each as often as it was used."""
        yield self
        for ancestor in self.inputs.values():
            yield from ancestor.everyone()


def lineage(uri: str) -> Ancestor:
    """Follow an artifact's inputs, by their digests, among its neighbours in storage."""
    place, _, name = uri.rstrip("/").rpartition("/")
    run = read_run(place)
    if name not in run.artifacts:
        raise UserError(run.damaged.get(name, f"{uri}: no finished artifact there (no {MANIFEST}); check the address"))
    names = run.by_digest()

    def follow(name: str) -> Ancestor:
        manifest = run.artifacts[name]
        inputs = {
            given: follow(names[digest]) if digest in names else Ancestor("", digest, None, {})
            for given, digest in manifest.inputs.items()
        }
        return Ancestor(name, manifest.digest, manifest, inputs)

    return follow(name)


def as_json(root: Ancestor) -> dict[str, Any]:
    """The lineage with every artifact once, by its digest."""
    artifacts = {
        each.digest: {
            "name": each.name,
            "kind": each.manifest.kind,
            "code_version": each.manifest.code_version,
            "settings_digest": canonical_digest(each.manifest.settings),
            "settings": each.manifest.settings,
            "seed": each.manifest.seed,
            "libraries": each.manifest.libraries,
            "origins": origins(each.manifest),
            "inputs": each.manifest.inputs,
        }
        for each in root.everyone()
        if each.manifest is not None
    }
    missing = sorted({each.digest for each in root.everyone() if each.manifest is None})
    return {"artifact": root.digest, "artifacts": artifacts, "missing": missing}


def origins(manifest: Manifest) -> dict[str, Any]:
    """What an artifact was made of that is no artifact: data sets, files and models, with their revisions or checksums."""
    return manifest.facts.get("origins", {})

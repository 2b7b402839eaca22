"""Artifact folders: files and a manifest that is written last. A folder without a complete manifest does not exist.

The manifest's digest covers what the same code, settings and inputs give again; wall-clock files are listed as volatile
and stay outside of it. Nothing in a manifest names a time or a place.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rlpretrain.errors import Damaged, UserError, local_errors

MANIFEST = "manifest.json"
STORED = ("s3://", "file://")  # what the address of an artifact in storage begins with
SNAPSHOTS = ".snapshots"  # of a training in progress, within its output folder; no part of the artifact
UNFINISHED = f".{MANIFEST}.partial"  # the manifest before its rename; a stage's output folder holds it from the start
SCHEMA_VERSION = 1
LIBRARIES = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow", "datasets"),
    *("vllm", "lm_eval", "math-verify", "sympy", "reasoning-gym"),
)
CODE_PACKAGES = ("rlpretrain", "components")


class FileEntry(BaseModel):
    """Checksum and size in bytes of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    size: int


class Manifest(BaseModel):
    """What an artifact is, what it holds and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: int
    kind: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    facts: dict[str, Any]
    seed: int
    code_version: str
    libraries: dict[str, str]
    files: dict[str, FileEntry]
    volatile: dict[str, FileEntry]
    digest: str

    def all_files(self) -> dict[str, FileEntry]:
        """Those that the digest covers and the volatile ones."""
        return {**self.files, **self.volatile}

    def content(self) -> bytes:
        """The bytes of the manifest's file."""
        return (json.dumps(self.model_dump(), indent=2, sort_keys=True) + "\n").encode()

    def computed_digest(self) -> str:
        """sha256 of the canonical JSON without the volatile files and the digest itself."""
        return _digest_of(self.model_dump())


@dataclass(frozen=True)
class Origin:
    """What the bytes of an artifact follow from, beside code and libraries, which are this process's."""

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]  # name to digest

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", 0))

    def differences(self, manifest: Manifest, ignored: Collection[str] = ()) -> list[str]:
        """What else ``manifest`` follows from, each difference named; settings below a name of ``ignored`` do not count."""
        ours, theirs = (_flat(_as_read(settings)) for settings in (self.settings, manifest.settings))
        fields = [name for name in sorted({*ours, *theirs}) if name.partition(".")[0] not in ignored]
        found = [
            f"{name} was {json.dumps(theirs.get(name))} and is now {json.dumps(ours.get(name))}"
            for name in fields
            if ours.get(name) != theirs.get(name)
        ]
        if self.kind != manifest.kind:
            found.append(f"the artifact is of kind '{manifest.kind}', not '{self.kind}'")
        inputs = sorted({*self.inputs, *manifest.inputs})
        return found + [f"input '{name}'" for name in inputs if self.inputs.get(name) != manifest.inputs.get(name)]


def code_differences(manifest: Manifest) -> list[str]:
    """The code and the libraries, each named, that differ from those that ``manifest`` was written with."""
    ours = {**library_versions(), "code": code_digest()}
    theirs = {**manifest.libraries, "code": manifest.code_version}
    return [
        f"{name} was {_shortened(theirs.get(name))} and is now {_shortened(ours.get(name))}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_digest() -> str:
    """sha256 over the source and task files of the method and the stages; equal code has equal digests anywhere."""
    digest = hashlib.sha256()
    for package in CODE_PACKAGES:
        root = Path(str(package_files(package)))
        for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".yaml", ".j2")):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def write_manifest(
    folder: Path,
    *,
    kind: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int,
    facts: Mapping[str, Any],
    volatile: Iterable[str] = (),
) -> Manifest:
    """Hash every file below ``folder`` and publish the manifest in one atomic rename. ``inputs`` maps names to digests."""
    wall_clock = set(volatile)
    entries = {
        path.relative_to(folder).as_posix(): FileEntry(sha256=file_sha256(path), size=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path not in (folder / MANIFEST, folder / UNFINISHED)
        and not path.is_relative_to(folder / SNAPSHOTS)
    }
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        kind=kind,
        settings=_as_read(settings),
        inputs=dict(inputs),
        facts=_as_read(facts),
        seed=seed,
        code_version=code_digest(),
        libraries=library_versions(),
        files={name: entry for name, entry in entries.items() if name not in wall_clock},
        volatile={name: entry for name, entry in entries.items() if name in wall_clock},
        digest="",
    )
    manifest = manifest.model_copy(update={"digest": manifest.computed_digest()})
    write_bytes_atomically(folder / MANIFEST, manifest.content())
    return manifest


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """A manifest out of JSON; Damaged, naming ``where``, when it is malformed or altered, UserError for another version."""
    try:
        value = json.loads(text)
        version = value["schema_version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Damaged(f"{where}: not a manifest (no JSON with a schema_version); run its stage again") from None
    if version != SCHEMA_VERSION:
        if "digest" in value and _digest_of(value) != value["digest"]:
            raise Damaged(f"{where}: the manifest was altered after it was written; run its stage again")
        raise UserError(f"{where}: schema version {version} is not {SCHEMA_VERSION}; run its stage again")
    try:
        manifest = Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Damaged(f"{where}: not a valid manifest ({field}: {first['msg']}); run its stage again") from None
    if manifest.digest != manifest.computed_digest():
        raise Damaged(f"{where}: the manifest was altered after it was written; run its stage again")
    for name in manifest.all_files():
        if not stays_inside(name):
            raise UserError(f"{where}: file name {name!r} leaves its folder; the manifest is not to be trusted")
    # Byte by byte, for the digest leaves out the volatile files, and takes 1e-5 and 1E-5 for the same.
    if manifest.content() != (text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text):
        raise Damaged(f"{where}: the manifest was altered after it was written; run its stage again")
    return manifest


def _digest_of(manifest: dict[str, Any]) -> str:
    """The digest of a manifest of any version."""
    return canonical_digest({name: each for name, each in manifest.items() if name not in ("digest", "volatile")})


def read_manifest(folder: Path, kind: str | None = None) -> Manifest:
    """The manifest of ``folder``; UserError when there is none, it is damaged, or the artifact is of another kind."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder}: no {MANIFEST}, so this is no finished artifact; give the output folder of a stage")
    with local_errors(path):
        content = path.read_bytes()
    manifest = parse_manifest(content, str(path))
    if kind is not None and manifest.kind != kind:
        raise UserError(f"{folder}: is of kind '{manifest.kind}', but '{kind}' is needed here")
    return manifest


def verify(folder: Path, kind: str | None = None) -> Manifest:
    """Read the manifest and hash every file again; Damaged names the first file that is missing or differs."""
    manifest = read_manifest(folder, kind)
    check_files(folder, manifest)
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Hash the files of ``folder`` against a manifest; Damaged names the first that is missing or differs."""
    for name in differing_files(folder, manifest):
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path}: listed in the manifest but missing; fetch or make the artifact again")
        raise Damaged(f"{path}: corrupted, its checksum is not the manifest's; fetch or make the artifact again")


def differing_files(folder: Path, manifest: Manifest) -> dict[str, FileEntry]:
    """The files of a manifest that are not in ``folder`` with their size and checksum."""
    return {name: entry for name, entry in manifest.all_files().items() if not _is_right(folder / name, entry)}


def _is_right(path: Path, entry: FileEntry) -> bool:
    with local_errors(path):
        return path.is_file() and path.stat().st_size == entry.size and file_sha256(path) == entry.sha256


def write_bytes_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """All of ``content`` or nothing under that name. ``mode``: the permissions, from the file's first moment on."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    os.replace(partial, path)


def stays_inside(name: str) -> bool:
    """Whether a relative POSIX name, written in its plain form, names a file below its folder, on Windows too."""
    path = PurePosixPath(name)
    plain = path.as_posix() == name and name != "." and not path.is_absolute() and name.isprintable()
    return (
        plain
        and ".." not in path.parts
        and not any(sign in name for sign in "\\:")
        and not any(PureWindowsPath(part).is_reserved() for part in path.parts)
        and path.parts[0] not in (MANIFEST, UNFINISHED)
    )


def _as_read(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` as JSON gives it back (string keys, lists), so that the digest is the same before and after."""
    return json.loads(json.dumps(value))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings with the names of nested ones joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _shortened(version: str | None) -> str:
    return "absent" if version is None else version[:12]


def library_versions() -> dict[str, str]:
    """Python's version and those of `LIBRARIES` that are installed, by name."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def canonical_digest(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

"""The frame of every stage: settings in, verified artifacts in, one artifact out, published to storage when asked.

    python -m components.STAGE --settings FILE --input NAME=PATH ... --output PATH [--publish URI] [--checkpoints URI]

is what torchrun and other schedulers call; the Kubeflow components call `run_component` with the same arguments. In both a
user's mistake ends in one line that starts with `error:` and exit code 2; RLP_DEBUG=1 gives the traceback instead.

Called again after it was killed, a stage goes on: one that trains from its newest snapshot, an evaluation from the responses it has,
one that had finished from what it published. A result is taken for the same when settings, inputs, code and libraries are.
"""

import argparse
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpretrain.artifacts import (
    MANIFEST,
    SNAPSHOTS,
    UNFINISHED,
    Manifest,
    Origin,
    check_files,
    code_differences,
    read_manifest,
    verify,
    write_manifest,
)
from rlpretrain.errors import Damaged, UserError, disk_errors, printable, uncoloured
from rlpretrain.memory import keep_freed_memory
from rlpretrain.settings import Settings, load_settings, parse_settings

DEBUG = "RLP_DEBUG"
STAGES = ("shard_data", "pretrain", "finetune", "reinforce", "evaluate", "compare", "ablate")


@dataclass(frozen=True)
class InputSpec:
    """An input of a stage: the kind of its artifact, whether the stage runs without it, and whether it takes several.

    Several are named NAME.0, NAME.1 and so on.
    """

    kind: str
    required: bool = True
    many: bool = False


@dataclass(frozen=True)
class Stage:
    """What a stage's module `stage` declares: KIND, SETTINGS, INPUTS, VOLATILE and run.

    A stage that trains declares `training.TRAINING` besides, another one that saves itself `saved`; their run is given
    where that is.
    """

    name: str
    kind: str
    settings: type[Settings]
    inputs: dict[str, InputSpec]
    volatile: tuple[str, ...]
    run: Callable[..., dict[str, Any]]
    training: Any = None
    saved: Callable[[Any, Origin, Path, str], Any] | None = None


def load_stage(name: str) -> Stage:
    """Import a stage by its folder's name."""
    assert name in STAGES, f"unknown stage {name}"
    module = importlib.import_module(f"components.{name}.stage")
    training = getattr(module, "TRAINING", None)
    return Stage(
        name,
        module.KIND,
        module.SETTINGS,
        module.INPUTS,
        module.VOLATILE,
        module.run,
        training,
        training.snapshots if training else getattr(module, "saved", None),
    )


def run_stage(
    name: str,
    settings: dict[str, Any],
    inputs: dict[str, Path],
    output: Path,
    publish_uri: str = "",
    checkpoint_uri: str = "",
) -> Manifest:
    """Run a stage from raw settings; returns its output's manifest.

    ``checkpoint_uri``: where a stage saves itself on the way; by default beside the place it publishes to, RUN/TASK's
    in RUN/checkpoints/TASK. Raises UserError for wrong settings, an unknown, missing, incomplete or corrupted input, or an output in the way.
    """
    stage = load_stage(name)
    return _run(stage, parse_settings(stage.settings, settings, name), inputs, output, publish_uri, checkpoint_uri)


def run_component(
    name: str,
    settings: dict[str, Any],
    inputs: dict[str, Path],
    output: Path,
    publish_uri: str = "",
    seed: int = 0,
    checkpoint_uri: str = "",
) -> None:
    """`run_stage` as the body of a Kubeflow component: a user's mistake ends the process instead of raising.

    ``seed`` is the pipeline's. It is added to the settings' own, so that stages of one run may draw different documents.
    """
    try:
        if seed:
            settings = {**settings, "seed": settings.get("seed", 0) + seed}
        run_stage(name, settings, inputs, output, publish_uri, checkpoint_uri)
    except UserError as error:
        raise SystemExit(_reported(error)) from None


def _reported(error: UserError) -> int:
    """Print a user's mistake as one line and return its exit code; raise it where RLP_DEBUG asks for tracebacks."""
    if os.environ.get(DEBUG):
        raise error
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 2


def _run(
    stage: Stage, settings: Settings, inputs: dict[str, Path], output: Path, publish_uri: str, checkpoint_uri: str
) -> Manifest:
    specs = {name: _spec(stage, name) for name in sorted(inputs)}
    given = {name.partition(".")[0] for name in inputs}
    for name, spec in stage.inputs.items():
        if spec.required and name not in given:
            example = f"{name}.0" if spec.many else name
            raise UserError(f"{stage.name}: input '{name}' is missing; give --input {example}=PATH")
    digests = {name: verify(inputs[name], spec.kind).digest for name, spec in specs.items()}
    origin = Origin(stage.kind, settings.model_dump(mode="json"), digests)
    checkpoint_uri = checkpoint_uri or _beside(publish_uri)
    standing = None
    if publish_uri:
        from rlpretrain.storage import published  # boto3 is needed for publishing alone

        # A missing bucket, wrong credentials and a place that is taken are told now, not after the work.
        standing = published(publish_uri)
        if standing is not None and (different := origin.differences(standing) + code_differences(standing)):
            raise UserError(
                f"{publish_uri}: another artifact is published there ({'; '.join(different[:3])}); "
                "choose another place or name of the run"
            )
    training = stage.training
    if stage.saved and checkpoint_uri:
        from rlpretrain.storage import connect

        connect(checkpoint_uri)
    keep_freed_memory()
    assists = training is not None and training.assists()
    finished = None if assists else _finished_before(stage, origin, output, publish_uri, standing)
    if training and training.told(finished is not None) and assists:
        raise SystemExit(0)
    if assists:
        return _assist(stage, settings, origin, inputs)
    if finished is None and training:
        _start(output)
        manifest = training.elsewhere(stage.name, origin, inputs, output, publish_uri, checkpoint_uri)
        if manifest is not None:
            return manifest
    saved = stage.saved(settings, origin, output, checkpoint_uri) if stage.saved else None
    manifest = finished or _work(stage, settings, origin, inputs, output, saved)
    if publish_uri:
        from rlpretrain.storage import upload_folder

        upload_folder(output, publish_uri)
    if saved is not None:
        saved.discard()
    return manifest


def _work(
    stage: Stage, settings: Settings, origin: Origin, inputs: dict[str, Path], output: Path, saved: Any
) -> Manifest:
    _start(output)
    with disk_errors(output):
        facts = stage.run(settings, inputs, output, *([] if saved is None else [saved]))
        return write_manifest(
            output,
            kind=origin.kind,
            settings=origin.settings,
            inputs=origin.inputs,
            seed=origin.seed,
            facts=facts,
            volatile=stage.volatile,
        )


def _assist(stage: Stage, settings: Settings, origin: Origin, inputs: dict[str, Path]) -> Manifest:
    """The part of a process that trains along with the first one, which alone leaves anything behind."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "output"
        return _work(stage, settings, origin, inputs, output, stage.training.snapshots(settings, origin, output, ""))


def _beside(publish_uri: str) -> str:
    """RUN/checkpoints/TASK for RUN/TASK; nothing where nothing is published."""
    run, separator, task = publish_uri.rstrip("/").rpartition("/")
    return f"{run}/checkpoints/{task}" if separator else ""


def _finished_before(
    stage: Stage, origin: Origin, output: Path, publish_uri: str, standing: Manifest | None
) -> Manifest | None:
    """The same result of an earlier attempt, here or published, verified and in ``output``; None when there is none."""
    if publish_uri and (output / MANIFEST).exists():
        manifest = read_manifest(output)
        if origin.differences(manifest) or code_differences(manifest):
            return None
        try:
            check_files(output, manifest)
            return manifest
        except Damaged as error:
            print(f"{stage.name}: an earlier result is passed over: {error}", file=sys.stderr)
            (output / UNFINISHED).touch()
            (output / MANIFEST).unlink()
    if standing is None:
        return None
    from rlpretrain.storage import download_folder

    _start(output)
    try:
        download_folder(publish_uri, output)
    except Damaged as error:
        print(f"{stage.name}: what was published before is passed over: {error}", file=sys.stderr)
        return None
    print(f"{stage.name}: {publish_uri} holds this result already; it is fetched, not made again", file=sys.stderr)
    return standing


def _spec(stage: Stage, name: str) -> InputSpec:
    """What the stage says of an input; UserError when it has none of that name."""
    family, dot, number = name.partition(".")
    spec = stage.inputs.get(family)
    if spec is None or bool(dot) != spec.many or (spec.many and not number.isdecimal()):
        known = ", ".join(f"{known}.0" if spec.many else known for known, spec in stage.inputs.items())
        raise UserError(f"{stage.name}: unknown input '{name}'; known: {known}")
    return spec


def _start(output: Path) -> None:
    """Make ``output`` an empty folder, marked as unfinished until its manifest is there.

    What an unfinished attempt left there is dropped but for its snapshots; a finished artifact and files of someone else
    are not.
    """
    try:
        if (output / MANIFEST).exists():
            raise UserError(f"{output} already holds a finished artifact; choose another --output or remove it")
        if output.exists():
            if any(output.iterdir()) and not (output / UNFINISHED).exists():
                raise UserError(
                    f"{output} holds files that no stage left there; give --output a new or an empty folder"
                )
            for path in output.iterdir():
                if path.is_dir() and path.name != SNAPSHOTS:
                    shutil.rmtree(path)
                elif path.name != SNAPSHOTS:
                    path.unlink()
        output.mkdir(parents=True, exist_ok=True)
        (output / UNFINISHED).touch()
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}; give a folder that can be written") from None


class _Plain(io.TextIOWrapper):
    """A text stream that no terminal obeys, but for the ends and starts of lines; colours are dropped."""

    def write(self, text: str) -> int:
        parts = re.split(r"([\n\r\t])", uncoloured(text))
        super().write("".join(part if part in ("\n", "\r", "\t") else printable(part) for part in parts))
        return len(text)


def main(name: str, arguments: Iterable[str] | None = None) -> int:
    """The shell form of a stage; returns the exit code: 0, or 2 after one line on a user's mistake."""
    if arguments is None:
        # Libraries quote what models and rows hold, in their warnings and in tracebacks: before any of them is imported.
        sys.stderr = _Plain(sys.stderr.buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    given = sys.argv[1:] if arguments is None else list(arguments)
    works = "--self-check" not in given
    parser = argparse.ArgumentParser(prog=f"python -m components.{name}")
    parser.add_argument(
        "--settings", required=works, help="YAML or JSON file with the stage's settings, or the JSON itself"
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="an input artifact, or the s3:// or file:// place of a published one; repeatable",
    )
    parser.add_argument("--output", required=works, type=Path, help="folder to write the artifact to")
    parser.add_argument(
        "--publish", default="", metavar="URI", help="s3:// or file:// place to publish the artifact to"
    )
    parser.add_argument(
        "--checkpoints",
        default="",
        metavar="URI",
        help="s3:// or file:// place of what a stage saves on its way; default: for --publish RUN/TASK it is RUN/checkpoints/TASK",
    )
    parser.add_argument(
        "--self-check", action="store_true", help="say versions, user, GPU and whether S3 answers, and run nothing"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the run, added to the settings' own")
    options = parser.parse_args(given)
    if not works:
        from components.self_check import self_check

        return self_check(name, options.publish)
    try:
        stage = load_stage(name)
        settings = _read_settings(stage, options.settings)
        if options.seed:
            values = settings.model_dump(exclude_unset=True)
            values["seed"] = values.get("seed", 0) + options.seed
            settings = parse_settings(stage.settings, values, f"{options.settings} with --seed {options.seed}")
        inputs = _fetched(_named_paths(options.input))
        if stage.training:
            stage.training.wait_for_all()
        manifest = _run(stage, settings, inputs, options.output, options.publish, options.checkpoints)
    except UserError as error:
        return _reported(error)
    print(f"{name}: {options.output} ({manifest.kind}, digest {manifest.digest[:12]})")
    return 0


def _read_settings(stage: Stage, given: str) -> Settings:
    if not given.startswith("{"):
        return load_settings(stage.settings, Path(given))
    try:
        values = json.loads(given)
    except ValueError as error:
        raise UserError(f"--settings is not valid JSON: {error}") from None
    return parse_settings(stage.settings, values, "--settings")


def _fetched(places: dict[str, str]) -> dict[str, Path]:
    """Inputs by path: those in storage are fetched, by the first process of a machine."""
    paths = {}
    for name, place in places.items():
        remote = re.match(r"(s3|file)://", place)
        paths[name] = _scratch(place) if remote else Path(place)
        if remote and int(os.environ.get("LOCAL_RANK", 0)) == 0:
            from rlpretrain.storage import download_folder

            download_folder(place, paths[name])
    return paths


def _scratch(uri: str) -> Path:
    return Path(tempfile.gettempdir()) / f"rlp-input-{os.getuid()}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"


def _named_paths(pairs: list[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UserError(f"--input {pair}: write it as NAME=PATH")
        if name in paths:
            raise UserError(f"--input {name} is given twice; give each input once")
        paths[name] = path
    return paths

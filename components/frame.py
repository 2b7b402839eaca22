"""The frame of every stage: settings in, verified artifacts in, one artifact out, published to storage when asked.

    python -m components.STAGE --settings FILE --input NAME=PATH ... --output PATH [--publish URI]

is what torchrun and other schedulers call; the Kubeflow components call `run_component` with the same arguments. In both a
user's mistake ends in one line that starts with `error:` and exit code 2; RLP_DEBUG=1 gives the traceback instead.
"""

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpretrain.artifacts import MANIFEST, UNFINISHED, Manifest, code_digest, verify, write_manifest
from rlpretrain.errors import UserError, disk_errors
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
    """What a stage's module `stage` declares: KIND, SETTINGS, INPUTS, VOLATILE and run."""

    name: str
    kind: str
    settings: type[Settings]
    inputs: dict[str, InputSpec]
    volatile: tuple[str, ...]
    run: Callable[[Any, dict[str, Path], Path], dict[str, Any]]


def load_stage(name: str) -> Stage:
    """Import a stage by its folder's name."""
    assert name in STAGES, f"unknown stage {name}"
    module = importlib.import_module(f"components.{name}.stage")
    return Stage(name, module.KIND, module.SETTINGS, module.INPUTS, module.VOLATILE, module.run)


def run_stage(
    name: str, settings: dict[str, Any], inputs: dict[str, Path], output: Path, publish_uri: str = ""
) -> Manifest:
    """Run a stage from raw settings; returns its output's manifest.

    Raises UserError for wrong settings, an unknown, missing, incomplete or corrupted input, or an output in the way.
    """
    stage = load_stage(name)
    return _run(stage, parse_settings(stage.settings, settings, name), inputs, output, publish_uri)


def run_component(
    name: str, settings: dict[str, Any], inputs: dict[str, Path], output: Path, publish_uri: str = "", seed: int = 0
) -> None:
    """`run_stage` as the body of a Kubeflow component: a user's mistake ends the process instead of raising.

    ``seed`` is the pipeline's. It is added to the settings' own, so that stages of one run may draw different documents.
    """
    try:
        if seed:
            settings = {**settings, "seed": settings.get("seed", 0) + seed}
        run_stage(name, settings, inputs, output, publish_uri)
    except UserError as error:
        raise SystemExit(_reported(error)) from None


def _reported(error: UserError) -> int:
    """Print a user's mistake as one line and return its exit code; raise it where RLP_DEBUG asks for tracebacks."""
    if os.environ.get(DEBUG):
        raise error
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 2


def _run(stage: Stage, settings: Settings, inputs: dict[str, Path], output: Path, publish_uri: str) -> Manifest:
    specs = {name: _spec(stage, name) for name in sorted(inputs)}
    given = {name.partition(".")[0] for name in inputs}
    for name, spec in stage.inputs.items():
        if spec.required and name not in given:
            example = f"{name}.0" if spec.many else name
            raise UserError(f"{stage.name}: input '{name}' is missing; give --input {example}=PATH")
    digests = {name: verify(inputs[name], spec.kind).digest for name, spec in specs.items()}
    if publish_uri:
        from rlpretrain.storage import published, upload_folder  # boto3 is needed for publishing alone

        # A missing bucket, wrong credentials and a place that is taken are told now, not after the work.
        standing = published(publish_uri)
        if standing is not None and not _makes(stage, settings, digests, standing):
            raise UserError(
                f"{publish_uri}: another artifact is published there, of other code, settings or inputs; "
                "choose another place or name of the run"
            )
    keep_freed_memory()
    _start(output)
    with disk_errors(output):
        facts = stage.run(settings, inputs, output)
        manifest = write_manifest(
            output,
            kind=stage.kind,
            settings=settings.model_dump(mode="json"),
            inputs=digests,
            seed=getattr(settings, "seed", 0),
            facts=facts,
            volatile=stage.volatile,
        )
    if publish_uri:
        upload_folder(output, publish_uri)
    return manifest


def _spec(stage: Stage, name: str) -> InputSpec:
    """What the stage says of an input; UserError when it has none of that name."""
    family, dot, number = name.partition(".")
    spec = stage.inputs.get(family)
    if spec is None or bool(dot) != spec.many or (spec.many and not number.isdecimal()):
        known = ", ".join(f"{known}.0" if spec.many else known for known, spec in stage.inputs.items())
        raise UserError(f"{stage.name}: unknown input '{name}'; known: {known}")
    return spec


def _makes(stage: Stage, settings: Settings, digests: dict[str, str], standing: Manifest) -> bool:
    """Whether running the stage would make the very artifact that stands there."""
    ours = stage.kind, settings.model_dump(mode="json"), digests, code_digest()
    return ours == (standing.kind, standing.settings, standing.inputs, standing.code_version)


def _start(output: Path) -> None:
    """Make ``output`` an empty folder, marked as unfinished until its manifest is there.

    What an unfinished attempt left there is dropped; a finished artifact and files of someone else are not.
    """
    try:
        if (output / MANIFEST).exists():
            raise UserError(f"{output} already holds a finished artifact; choose another --output or remove it")
        if output.exists():
            if any(output.iterdir()) and not (output / UNFINISHED).exists():
                raise UserError(
                    f"{output} holds files that no stage left there; give --output a new or an empty folder"
                )
            shutil.rmtree(output)
        output.mkdir(parents=True)
        (output / UNFINISHED).touch()
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}; give a folder that can be written") from None


def main(name: str, arguments: Iterable[str] | None = None) -> int:
    """The shell form of a stage; returns the exit code: 0, or 2 after one line on a user's mistake."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    works = "--self-check" not in given
    parser = argparse.ArgumentParser(prog=f"python -m components.{name}")
    parser.add_argument("--settings", required=works, type=Path, help="YAML or JSON file with the stage's settings")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=PATH", help="an input artifact; repeatable"
    )
    parser.add_argument("--output", required=works, type=Path, help="folder to write the artifact to")
    parser.add_argument(
        "--publish", default="", metavar="URI", help="s3:// or file:// place to publish the artifact to"
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
        settings = load_settings(stage.settings, options.settings)
        if options.seed:
            values = settings.model_dump(exclude_unset=True)
            values["seed"] = values.get("seed", 0) + options.seed
            settings = parse_settings(stage.settings, values, f"{options.settings} with --seed {options.seed}")
        manifest = _run(stage, settings, _named_paths(options.input), options.output, options.publish)
    except UserError as error:
        return _reported(error)
    print(f"{name}: {options.output} ({manifest.kind}, digest {manifest.digest[:12]})")
    return 0


def _named_paths(pairs: list[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UserError(f"--input {pair}: write it as NAME=PATH")
        if name in paths:
            raise UserError(f"--input {name} is given twice; give each input once")
        paths[name] = Path(path)
    return paths

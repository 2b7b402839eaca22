"""The commands of the command line that look after storage, verify, gc and lineage, and that hand it on: export."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.commands import Endpoint, Runs
from rlpretrain.errors import UserError, masked, printable

Uri = Annotated[str, typer.Argument(help="a run: the s3:// place that holds its artifacts")]


def verify(uri: Uri, endpoint: Endpoint = None, runs: Runs = Path("runs")) -> None:
    """Read a whole run and check every manifest, size, checksum and input; exit code 2 and a line for each fault."""
    from pipelines import local
    from pipelines.custody import faults_of, read_run

    with local.storage_of(uri, runs, endpoint):
        run = read_run(uri)
        faults = []
        for name, found in faults_of(run):
            print(printable(f"{'fault' if found else 'whole'}  {name or run.uri}"), flush=True)
            faults += found
    for fault in faults:
        print(printable(f"fault: {fault}"), file=sys.stderr)
    count = len(run.artifacts) + len(run.damaged)
    print(f"{count} artifacts, {len(faults)} faults")
    if faults:
        raise typer.Exit(2)


def gc(
    uri: Uri,
    remove: Annotated[bool, typer.Option("--remove", help="delete what is listed")] = False,
    hours: Annotated[float, typer.Option(min=0, help="age from which uploads and stray objects count")] = 24.0,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
) -> None:
    """List, and with --remove delete, unfinished uploads, objects in no manifest and checkpoints of published tasks."""
    from pipelines import custody, local
    from rlpretrain.stores.interface import Stored

    with local.storage_of(uri, runs, endpoint):
        run = custody.read_run(uri)
        waste = custody.waste_of(run, hours * 3600)
        for each in waste:
            size = f"{each.what.size:>14,}" if isinstance(each.what, Stored) else f"{'?':>14}"
            print(printable(f"{size}  {run.uri}/{each.what.key}  ({each.reason})"))
        if remove:
            custody.remove(run, waste)
    total = sum(each.what.size for each in waste if isinstance(each.what, Stored))
    print(f"{len(waste)} objects, {total:,} bytes {'removed' if remove else 'could go; --remove deletes them'}")


def lineage(
    uri: Annotated[str, typer.Argument(help="an artifact, RUN/TASK")],
    as_json: Annotated[bool, typer.Option("--json", help="everything, with settings and library versions")] = False,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
) -> None:
    """Print what an artifact was made of, back to code, settings, data and models, by the manifests' digests."""
    from pipelines import custody, local

    with local.storage_of(uri, runs, endpoint):
        root = custody.lineage(uri)
    if as_json:
        print(json.dumps(custody.as_json(root), indent=2))
        return
    from rich.console import Console
    from rich.tree import Tree

    shown: set[str] = set()

    def grow(tree: Tree | None, given: str, node: custody.Ancestor) -> Tree:
        label = f"{given}: " if given else ""
        if node.manifest is None:
            label += f"digest {node.digest[:12]}, not in this run"
        elif node.digest in shown:
            label += f"{node.name} ({node.manifest.kind} {node.digest[:12]}), as above"
        else:
            made = node.manifest
            settings = custody.canonical_digest(made.settings)
            label += f"{node.name} ({made.kind} {node.digest[:12]}), code {made.code_version[:12]}, settings {settings[:12]}, seed {made.seed}"
        label = printable(label)
        grown = Tree(label, highlight=False) if tree is None else tree.add(label, highlight=False)
        if node.manifest is not None and node.digest not in shown:
            shown.add(node.digest)
            for name, origin in custody.origins(node.manifest).items():
                told = ", ".join(f"{key} {value}" for key, value in origin.items())
                grown.add(printable(f"{name}: {told}"), highlight=False)
            for name, ancestor in node.inputs.items():
                grow(grown, name, ancestor)
        return grown

    tree = grow(None, "", root)
    assert root.manifest is not None
    libraries = ", ".join(f"{name} {version}" for name, version in root.manifest.libraries.items())
    tree.add(printable(f"libraries: {libraries}"))
    # Whoever reads it through a pipe wants lines as they are.
    Console(width=None if sys.stdout.isatty() else 1000, markup=False).print(tree)


def export(
    place: Annotated[str, typer.Argument(help="a run or a checkpoint: an s3:// place, or a folder")],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="folder to write to; mlflow: or a server's address")],
    to: Annotated[Literal["tensorboard", "mlflow"], typer.Option(help="whose form")] = "tensorboard",
    follow: Annotated[
        bool, typer.Option("--follow", help="tensorboard: go on with a run at work, until Ctrl-C")
    ] = False,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
) -> None:
    """Convert the metrics of a run's trainings to TensorBoard's event files or to runs of MLflow."""
    if follow and to != "tensorboard":
        raise UserError("--follow: a run at work is shown by --to tensorboard alone")
    from pipelines import local
    from pipelines.exporting import export as convert

    with local.storage_of(place, runs, endpoint):
        count = convert(place, to, directory, follow)
    shown = directory if "://" in directory else f"sqlite:///{Path(directory).resolve() / 'mlflow.db'}"
    look = f"tensorboard --logdir {directory}" if to == "tensorboard" else f"mlflow ui --backend-store-uri {shown}"
    print(printable(masked(f"{count} trainings; to look at them: {look}")))

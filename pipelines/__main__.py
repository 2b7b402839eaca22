"""The command line: python -m pipelines compile | run | compare."""

import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.profile import load_profile, names, parse_changes
from rlpretrain.errors import UserError

app = typer.Typer(add_completion=True, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
RUNS = Path("runs")


@app.command("compile")
def compile_command(
    profile: Annotated[str | None, typer.Option(help="profile to compile; default: all")] = None,
    check: Annotated[bool, typer.Option("--check", help="write nothing, fail when a file is stale")] = False,
) -> None:
    """Write pipelines/compiled/*.yaml, the DAG as Kubeflow takes it."""
    from pipelines.compiling import compiled_text

    for name in [profile] if profile else names():
        path = Path(str(files("pipelines").joinpath("compiled", f"reproduction-{name}.yaml")))
        text = compiled_text(name)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.name)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            raise UserError(f"pipelines/compiled/{path.name} is stale; run `make compile`")


@app.command()
def run(
    profile: Annotated[str, typer.Option(help="which reproduction")] = "mini",
    name: Annotated[str | None, typer.Option(help="name of the run; default: profile and time")] = None,
    seed: Annotated[int, typer.Option(help="first seed")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="runs, with seeds one apart, compared together")] = 1,
    change: Annotated[list[str] | None, typer.Option("--set", help="STAGE.FIELD=VALUE, over the profile")] = None,
    artifacts: Annotated[str, typer.Option(help="place of the artifacts")] = "s3://rlp/runs",
    runs: Annotated[Path, typer.Option(help="folder for the runs' own files")] = RUNS,
) -> None:
    """Run the reproduction on this machine to its report."""
    settings = load_profile(profile, parse_changes(change or []))
    from pipelines import local

    name = name or local.default_name(profile, seed)
    uris = []
    with local.storage(runs):
        for index in range(seeds):
            part = name if seeds == 1 else f"{name}-seed{seed + index}"
            uris.append(local.run_local(part, profile, settings, seed + index, runs, artifacts.rstrip("/")))
        report = runs / name / "report"
        if seeds == 1:
            local.fetch_report(uris[0], report)
        else:
            _compare(uris, report, settings.compare.model_dump())
    latest = runs / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(name)
    _summarise(report)
    print(f"artifacts: {', '.join(uris)}")


@app.command()
def compare(
    uris: Annotated[list[str], typer.Argument(help="runs, each the s3:// place of its artifacts")],
    output: Annotated[Path, typer.Option(help="folder for the page")] = Path("comparison"),
    runs: Annotated[Path, typer.Option(help="folder with the embedded server's data")] = RUNS,
) -> None:
    """Read two or more runs (seeds) back from storage and compare them on one page."""
    from pipelines import local

    with local.storage(runs):
        _compare(uris, output, {"title": "Comparison of runs"})
    _summarise(output)


def _compare(uris: list[str], output: Path, settings: dict[str, Any]) -> None:
    from rlpretrain.report.build import compare_runs
    from rlpretrain.report.evaluations import ARMS, STAGES
    from rlpretrain.settings import CompareSettings
    from rlpretrain.storage import download_folder, list_artifacts

    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for index, uri in enumerate(uris):
            present = set(list_artifacts(uri))
            evaluations = {}
            for arm in ARMS:
                for stage in STAGES:
                    place = f"{uri.rstrip('/')}/evaluate-{arm}-{stage}"
                    if place in present:
                        folder = Path(scratch) / str(index) / f"{arm}-{stage}"
                        download_folder(place, folder)
                        evaluations[arm, stage] = folder
            if not evaluations:
                raise UserError(f"{uri}: holds no evaluation of a run; give the place that a run printed at its end")
            found.append(evaluations)
        compare_runs(found, CompareSettings(**settings), output)


def _summarise(report: Path) -> None:
    from rlpretrain.report.build import RESULTS_FILE, summary_lines

    print("\n".join(summary_lines(json.loads((report / RESULTS_FILE).read_text(encoding="utf-8")))))
    print(f"report: {report / 'index.html'}")


def main() -> int:
    """Exit code 0, or 2 after one line on a user's mistake."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

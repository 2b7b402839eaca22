"""The commands of the command line that read runs back from storage: runs, show."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import Artifacts, Endpoint, Runs
from rlpretrain.errors import UserError, printable

Json = Annotated[bool, typer.Option("--json", help="the same as JSON")]


def runs(
    artifacts: Artifacts = "s3://rlp/runs",
    as_json: Json = False,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
) -> None:
    """List the runs in storage, the newest first: how they ended, what they take, what pretraining gave."""
    from pipelines import local, stored

    with local.storage_of(artifacts, runs, endpoint):
        found = stored.stored_runs(artifacts)
    if as_json:
        print(json.dumps([asdict(run) for run in found], indent=2))
        return
    if not found:
        print(f"{artifacts}: holds no run yet")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("run", "profile", "state", "when"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seed", "artifacts", "MB", *(f"{arm} (%)" for arm in stored.ARMS)):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in found:
        accuracies = (_percent(run.accuracy[arm]) for arm in stored.ARMS)
        when = run.when[:16].replace("T", " ")
        numbers = (_shown(run.seed), str(len(run.artifacts)), f"{run.size / 1e6:,.1f}", *accuracies)
        table.add_row(*map(printable, (run.name, _shown(run.profile), run.state, when, *numbers)))
    # Whoever reads it through a pipe wants lines as they are.
    console = Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False)
    console.print(table)
    console.print("Times are UTC; the accuracies are those after pretraining, over all benchmarks.")


def show(
    run: Annotated[str, typer.Argument(help="a run's name, or the s3:// place that holds its artifacts")],
    artifacts: Artifacts = "s3://rlp/runs",
    as_json: Json = False,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
) -> None:
    """Print what a run found: the verdicts, then every arm after every stage with its interval."""
    from pipelines import local, stored
    from rlpretrain.report.ablations import ablation_lines
    from rlpretrain.report.build import summary_lines

    with local.storage_of(run if "/" in run else artifacts, runs, endpoint):
        found = stored.stored_run(run, artifacts)
        if found.state == "DAMAGED":
            raise UserError(f"{found.uri}: an artifact is damaged; see `python -m pipelines verify {found.uri}`")
        if "ablate" in found.artifacts:
            results = stored.published_results(found, "ablate")
            lines = ablation_lines(results)
        else:
            results = stored.comparison_of(found).model_dump(mode="json")
            lines = summary_lines(results)
    if as_json:
        # Curves and thoughts are what the page draws.
        told = {name: value for name, value in results.items() if name not in ("curves", "positions")}
        print(json.dumps({**asdict(found), "results": told}, indent=2))
        return
    heading = f"run {found.name}, profile {_shown(found.profile)}, seed {_shown(found.seed)}: {found.state}"
    print("\n".join(map(printable, (heading, *lines, f"artifacts: {found.uri}"))))


def _shown(value: str | int | None) -> str:
    return "-" if value is None else str(value)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"

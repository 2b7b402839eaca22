"""The comparison as Markdown: verdicts, accuracies, tests, held-out gain, cost of training, data, provenance."""

from collections.abc import Sequence

from rlpretrain.report.results import ClaimResult, Results
from rlpretrain.report.tables import (
    Cell,
    Table,
    accuracy_table,
    cost_table,
    data_table,
    gain_table,
    provenance_table,
    sections,
    tested_table,
    warnings_table,
)
from rlpretrain.report.training import Timings
from rlpretrain.training.health import LASTING

WARNED = (
    f"In these trainings signs of collapse lasted {LASTING} steps in a row or more (the steps are counted from the {LASTING}th on), "
    "or steps were left out. Read the figures of their models, and of the stages that build on them, with that in mind."
)


def markdown(results: Results) -> str:
    """report.md. Holds no text that a model wrote, and no wall-clock time."""
    lines = [f"# {_cell(results.title)}", "", note(results), "", "## What the run shows", ""]
    (_, headline), *ledger = sections(results.claims)
    for claim in headline:
        runs = _by_run(claim.by_run, claim.unit) if results.runs > 1 and claim.by_run else ""
        lines.append(f"- **{claim.verdict}**: {claim.statement}. {claim.detail}{runs}. {claim.rule}")
    warned = warnings_table(results)
    if warned.rows:
        lines += ["", f"## {warned.label}", "", WARNED, "", *_table(warned)]
    lines += ["", "## The paper's claims", "", *_ledger(ledger)]
    for heading, table in (
        ("Accuracy (%)", accuracy_table(results)),
        ("Differences by benchmark, tested", tested_table(results)),
        ("Thoughts on held-out text", gain_table(results)),
        ("Cost of training", cost_table(results, Timings(timings=[]))),
        ("Data", data_table(results)),
        ("Provenance", provenance_table(results)),
    ):
        if table.rows:
            lines += ["", f"## {heading}", "", *_table(table)]
    return "\n".join(lines) + "\n"


def _ledger(ledger: Sequence[tuple[str, Sequence[ClaimResult]]]) -> list[str]:
    rows = [
        [title, claim.statement, claim.verdict, claim.detail, claim.paper]
        for title, claims in ledger
        for claim in claims
    ]
    return [*_head(["section", "claim", "verdict", "this run", "the paper (%)"]), *map(_row, rows)]


def note(results: Results) -> str:
    """How the figures are to be read."""
    runs = (
        f"{results.runs} runs (seeds) pooled: a question's score is its mean over the runs that asked it; the intervals "
        "tell of the questions, the runs' own figures of the seeds"
        if results.runs > 1
        else "One run (one seed): the intervals tell of the questions, not of other seeds"
    )
    return (
        f"Accuracy is pass@1[{results.k}]: the mean over questions of the mean over {results.k} sampled answers. "
        f"Brackets hold {100 * results.confidence:g}% intervals: paired bootstrap over questions, drawn within each benchmark, "
        f"{results.bootstrap_samples:,} resamples. {runs}."
    )


def _by_run(values: list[float], unit: str) -> str:
    shown = [f"{100 * value:+.1f}" if unit == "points" else f"{value:+.2f}" for value in values]
    return f" (by run: {', '.join(shown)})"


def _table(table: Table) -> list[str]:
    """Columns without a figure in any row, such as times, are left out."""
    kept = [i for i in range(len(table.columns)) if any(row[i].text for row in table.rows)]
    lines = _head([table.columns[i] for i in kept])
    return lines + [_row([_text(row[i]) for i in kept]) for row in table.rows]


def _head(names: list[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _text(cell: Cell) -> str:
    return " ".join(filter(None, (cell.text, cell.small, cell.paper)))


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())

"""The comparison as Markdown: verdicts, accuracies, held-out gain, provenance."""

from collections.abc import Sequence

from rlpretrain.report.evaluations import STAGES
from rlpretrain.report.results import ClaimResult, Results
from rlpretrain.report.tables import accuracy_table, gain_rows, sections
from rlpretrain.report.words import ARM_NAMES, STAGE_NAMES, column_name, nats, percent


def markdown(results: Results) -> str:
    """report.md. Holds no text that a model wrote."""
    lines = [f"# {_cell(results.title)}", "", note(results), "", "## What the run shows", ""]
    headline, *ledger = sections(results.claims)
    for claim in headline[1]:
        runs = _by_run(claim.by_run, claim.unit) if results.runs > 1 and claim.by_run else ""
        lines.append(f"- **{claim.verdict}**: {claim.statement}. {claim.detail}{runs}. {claim.rule}")
    lines += ["", "## The paper's claims", "", *_ledger(ledger)]
    lines += ["", "## Accuracy (%)", "", *_accuracy(results)]
    if gain_rows(results):
        lines += ["", "## Thoughts on held-out text", "", *_gains(results)]
    lines += ["", "## Provenance", "", *_provenance(results)]
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
        f"Accuracy is pass@1[{results.repeats}]: the mean over questions of the mean over {results.repeats} sampled answers. "
        f"Brackets hold {100 * results.confidence:g}% intervals: paired bootstrap over questions, drawn within each benchmark, "
        f"{results.bootstrap_samples:,} resamples. {runs}."
    )


def _by_run(values: list[float], unit: str) -> str:
    shown = [f"{100 * value:+.1f}" if unit == "points" else f"{value:+.2f}" for value in values]
    return f" (by run: {', '.join(shown)})"


def _accuracy(results: Results) -> list[str]:
    table = accuracy_table(results)
    lines = _head(["stage", "arm", *map(column_name, table.columns)])
    for stage, rows in table.stages:
        lines += [_row([STAGE_NAMES[stage], ARM_NAMES[arm], *map(percent, figures)]) for arm, figures in rows]
    return lines


def _gains(results: Results) -> list[str]:
    lines = _head(["stage", "arm", "information gain", "thought length (tokens)", "cut off (%)"])
    for model in gain_rows(results):
        gain = model.information_gain
        assert gain is not None
        length = "" if gain.thought_length is None else f"{gain.thought_length:.1f}"
        cut_off = "" if gain.cut_off is None else f"{100 * gain.cut_off:.1f}"
        lines.append(_row([STAGE_NAMES[model.stage], ARM_NAMES[model.arm], nats(gain), length, cut_off]))
    return lines


def _provenance(results: Results) -> list[str]:
    lines = _head(["stage", "arm", "run", "seed", "evaluation", "code"])
    for model in sorted(results.models, key=lambda model: STAGES.index(model.stage)):
        for source in model.sources:
            lines.append(
                _row(
                    [
                        STAGE_NAMES[model.stage],
                        ARM_NAMES[model.arm],
                        str(source.run),
                        str(source.seed),
                        source.digest[:12],
                        source.code_version[:12],
                    ]
                )
            )
    return lines


def _head(names: list[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())

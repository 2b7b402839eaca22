"""The rules that decide the ledger's claims from a run's own figures; every claim gets a verdict, also `not tested`.

Claims about ablations are decided in `rlpretrain.report.ablations`, from runs of the ablations' pipeline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlpretrain.report.ledger import Claim, Ledger, PaperTable, load_ledger
from rlpretrain.report.results import ClaimResult, Difference, Figure, Model, Verdict
from rlpretrain.report.words import ARM_NAMES, nats, points

ABOUT_ZERO = 0.1  # nats: a gain up to here counts as "about zero"

RULES = {
    "gain rises": f"Holds when base's gain is at most {ABOUT_ZERO:g} nats and the {{confidence}} interval of RLP's gain minus "
    "base's lies above zero.",
    "beats": "Holds when the {confidence} interval of the difference, paired by question, lies above zero.",
    "not behind": "Fails when the {confidence} interval of the difference, paired by question, lies wholly below zero. "
    "Holding means that no deficit could be shown; it does not show that RLP is ahead.",
    "best at": "Fails when the {confidence} interval of another value's lead, paired by question, lies above zero. "
    "Holding means that no other value could be shown to be better; it does not show that this one is.",
    "rises": "Holds when the {confidence} interval of the largest value minus the smallest, paired by question, lies above zero.",
    "levels off": "Fails when the {confidence} interval of the largest value minus the second largest, paired by question, lies "
    "above zero. Holding means that no rise could be shown.",
    "least below base": "Holds when the {confidence} interval of the smallest value minus the base model, paired by question, "
    "lies below zero.",
    "all beat base": "Holds when the {confidence} interval of every value minus the base model, paired by question, lies above "
    "zero.",
    "elsewhere": "No run decides it.",
}
ROWS_RULE = (
    "Fails when the {confidence} interval of a benchmark's difference, paired by question, lies wholly on the other side of zero "
    "than the paper's. Holding means that none contradicts the paper; it does not confirm them."
)
_ABLATIONS = "decided by a run of the ablations, not by this one"

Key = tuple[str, str]  # arm, stage
Differences = Mapping[tuple[str, str, str], Difference]  # by first arm, second arm, stage


@dataclass(frozen=True)
class Decision:
    """What a rule found."""

    verdict: Verdict
    detail: str
    figure: Figure | None = None
    by_run: Sequence[float] = ()


def pairs() -> list[tuple[str, str]]:
    """The pairs of arms that claims compare, the first minus the second."""
    found = [(claim.first, claim.second) for _, claim in _claims(load_ledger()) if claim.second]
    return list(dict.fromkeys(found))


def judge(
    models: Sequence[Model], differences: Sequence[Difference], confidence: float, profile: str = ""
) -> list[ClaimResult]:
    """The verdict on every claim of the ledger, in its order, then on the rows of the paper's tables."""
    ledger = load_ledger()
    known_models = {(model.arm, model.stage): model for model in models}
    known = {(d.first, d.second, d.stage): d for d in differences}
    found = [
        result(claim, section, _decide(claim, known_models, known, profile), confidence)
        for section, claim in _claims(ledger)
    ]
    return found + [_rows(table, known, confidence, profile) for table in ledger.tables if table.rows]


def result(claim: Claim, section: str, decision: Decision, confidence: float) -> ClaimResult:
    """A claim with its decision, as the page has it."""
    return ClaimResult(
        name=claim.name,
        section=section,
        statement=claim.statement,
        rule=_worded(RULES[claim.kind], confidence),
        verdict=decision.verdict,
        unit="nats" if claim.kind == "gain rises" else "points",
        figure=decision.figure,
        by_run=list(decision.by_run),
        detail=decision.detail,
        paper=_paper(claim),
    )


def _claims(ledger: Ledger) -> list[tuple[str, Claim]]:
    return [(section.title, claim) for section in ledger.sections for claim in section.claims]


def _worded(rule: str, confidence: float) -> str:
    return rule.replace("{confidence}", f"{100 * confidence:g}%")


def _paper(claim: Claim) -> str:
    if claim.paper is None:
        return ""
    if claim.paper.difference is None:
        return claim.paper.source
    return f"{claim.paper.source}: {claim.paper.first:.2f} against {claim.paper.second:.2f}"


def _decide(claim: Claim, models: Mapping[Key, Model], differences: Differences, profile: str) -> Decision:
    if claim.kind == "elsewhere":
        return Decision("not tested", claim.reason)
    if claim.sweep:
        return Decision("not tested", _ABLATIONS)
    if claim.only and (claim.paper is None or claim.paper.profile != profile):
        return Decision("not tested", "a claim about another model")
    difference = differences.get((claim.first, claim.second, claim.stage))
    if difference is None:
        what = {"pretrained": "after pretraining", "sft": "after SFT", "rlvr": "after SFT and RLVR"}[claim.stage]
        names = f"{ARM_NAMES[claim.first]} and {ARM_NAMES[claim.second]}"
        several = any(len(model.sources) > 1 for model in models.values())
        return Decision("not tested", f"{names} were not both evaluated {what}{' in every run' if several else ''}")
    if claim.kind == "gain rises":
        return _gain_rises(claim, models, difference)
    return _average(claim, models, difference, profile)


def _gain_rises(claim: Claim, models: Mapping[Key, Model], difference: Difference) -> Decision:
    before = models[claim.second, claim.stage].information_gain
    after = models[claim.first, claim.stage].information_gain
    figure = difference.information_gain
    if before is None or after is None or figure is None:
        return Decision("not tested", "the gain on held-out text was not measured for both models")
    rises, starts_low = figure.low > 0, before.estimate <= ABOUT_ZERO
    detail = f"{before.estimate:+.2f} to {after.estimate:+.2f} nats: {nats(figure)}"
    if not difference.gain_paired:
        detail += ", not paired: the models were not measured at the same positions"
    if rises and not starts_low:
        detail += "; it rises, but it starts clearly above zero"
    by_run = [b - a for a, b in zip(before.by_run, after.by_run, strict=True)]
    return Decision("holds" if rises and starts_low else "fails", detail, figure, by_run)


def _average(claim: Claim, models: Mapping[Key, Model], difference: Difference, profile: str) -> Decision:
    name = claim.average
    if claim.paper is not None and claim.paper.as_printed and f"{name}_as_printed" in difference.averages:
        name = f"{name}_as_printed"
    figure = difference.averages.get(name)
    if figure is None:
        return Decision("not tested", f"the suite has no average '{name}'")
    ours, theirs = (models[arm, claim.stage].averages[name].estimate for arm in (claim.first, claim.second))
    detail = f"{100 * ours:.1f}% against {100 * theirs:.1f}%: {points(figure)}"
    if claim.paper is not None and claim.paper.profile == profile and claim.paper.difference is not None:
        inside = figure.low <= claim.paper.difference <= figure.high
        detail += f"; the paper's {100 * claim.paper.difference:+.1f} lies {'inside' if inside else 'outside'}"
    holds = figure.low > 0 if claim.kind == "beats" else figure.high >= 0
    by_run = difference.overall_by_run if claim.average == name == "overall" else []
    return Decision("holds" if holds else "fails", detail, figure, by_run)


def _rows(table: PaperTable, differences: Differences, confidence: float, profile: str) -> ClaimResult:
    """Whether the benchmarks' differences between RLP and the others have the paper's signs."""
    decision = Decision("not tested", "a claim about another model")
    if table.profile == profile:
        compared = [
            (figure, _table_difference(table, name, second, stage))
            for (first, second, stage), difference in differences.items()
            if first == "rlp" and second in table.arms
            for name, figure in difference.accuracy.items()
        ]
        rows = [(figure, paper) for figure, paper in compared if paper is not None]
        against = sum(figure.high < 0 < paper or paper < 0 < figure.low for figure, paper in rows)
        inside = sum(figure.low <= paper <= figure.high for figure, paper in rows)
        detail = f"of {len(rows)} differences {inside} have the paper's inside their interval, {against} the other sign"
        decision = Decision(("fails" if against else "holds") if rows else "not tested", detail)
    return ClaimResult(
        name=f"rows-{table.profile}",
        section=f"{table.source}, row by row",
        statement="On no benchmark does RLP stand to another arm against what the paper has",
        rule=_worded(ROWS_RULE, confidence),
        verdict=decision.verdict,
        unit="points",
        figure=None,
        by_run=[],
        detail=decision.detail,
        paper=table.source,
    )


def _table_difference(table: PaperTable, name: str, second: str, stage: str) -> float | None:
    ours, theirs = table.figure(name, "rlp", stage), table.figure(name, second, stage)
    return None if ours is None or theirs is None else ours - theirs

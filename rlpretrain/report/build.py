"""The comparison: results.json, report.md and a self-contained index.html out of one or more runs' evaluations."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlpretrain.errors import UserError
from rlpretrain.evaluation.averages import rounded
from rlpretrain.report.claims import Claim, judge
from rlpretrain.report.evaluations import Evaluation, Key, pool, read_evaluation
from rlpretrain.report.page import markdown, page
from rlpretrain.report.statistics import Bootstrap
from rlpretrain.settings import CompareSettings

SCHEMA_VERSION = 1
RESULTS_FILE = "results.json"


def compare_runs(runs: list[dict[Key, Path]], settings: CompareSettings, output: Path) -> dict[str, Any]:
    """Write the comparison of ``runs`` (arm and stage to evaluation folder; several runs are seeds) to ``output``.

    Returns the facts for the manifest. Raises UserError with fewer than two evaluations, or unlike benchmarks.
    """
    evaluations = pool([{key: read_evaluation(folder) for key, folder in run.items()} for run in runs])
    if len(evaluations) < 2:
        raise UserError("a comparison needs at least two evaluations that every run has; give more inputs")
    suites = {tuple(evaluation.groups) for evaluation in evaluations.values()}
    if len(suites) > 1:
        raise UserError("the evaluations hold different benchmarks; evaluate every model on one suite")
    bootstrap = Bootstrap(settings.confidence, settings.bootstrap_samples, settings.seed)
    claims = judge(evaluations, bootstrap)
    results = _results(evaluations, claims, bootstrap, settings, len(runs))
    output.mkdir(parents=True, exist_ok=True)
    (output / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (output / "report.md").write_text(markdown(results), encoding="utf-8")
    (output / "index.html").write_text(page(results, evaluations), encoding="utf-8")
    return {"claims": {claim.name: claim.verdict for claim in claims}, "runs": len(runs)}


def _results(
    evaluations: dict[Key, Evaluation], claims: list[Claim], bootstrap: Bootstrap, settings: CompareSettings, runs: int
) -> dict[str, Any]:
    """The figures of the page as data; the schema stands in this folder's README."""
    any_evaluation = next(iter(evaluations.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "title": settings.title,
        "profile": settings.profile,
        "runs": runs,
        "confidence": settings.confidence,
        "repeats": any_evaluation.repeats,
        "benchmarks": any_evaluation.groups,
        "claims": [
            {**asdict(claim), "figure": claim.figure.as_dict() if claim.figure else None} for claim in claims
        ],
        "models": [
            {"arm": arm, "stage": stage, **_figures(evaluation, bootstrap)}
            for (arm, stage), evaluation in evaluations.items()
        ],
    }


def _figures(evaluation: Evaluation, bootstrap: Bootstrap) -> dict[str, Any]:
    groups = sorted(set(evaluation.groups.values()))
    averages = {
        group: {name: evaluation.scores[name] for name in evaluation.scores if evaluation.groups[name] == group}
        for group in groups
    }
    gain = evaluation.gain_summary
    return {
        "accuracy": {name: bootstrap.mean(values).as_dict() for name, values in evaluation.scores.items()},
        "averages": {
            **{group: bootstrap.average(scores).as_dict() for group, scores in averages.items()},
            "overall": bootstrap.average(evaluation.scores).as_dict(),
        },
        "run_spread": {name: rounded(value) for name, value in evaluation.run_spread.items()},
        "no_answer": {name: rounded(value) for name, value in evaluation.no_answer.items()},
        "information_gain": None
        if gain is None
        else {
            **bootstrap.mean(evaluation.gains).as_dict(),
            "thought_length": rounded(gain["thought_length"]),
            "cut_off": rounded(gain["cut_off"]),
        },
        "provenance": evaluation.provenance,
    }


def summary_lines(results: dict[str, Any]) -> list[str]:
    """What the command line says at the end of a run: a verdict a line, then the averages."""
    lines = [f"{claim['verdict'].upper():>10}  {claim['statement']}: {claim['detail']}" for claim in results["claims"]]
    for model in results["models"]:
        overall = model["averages"]["overall"]
        accuracy = f"{100 * overall['estimate']:.1f}% [{100 * overall['low']:.1f}, {100 * overall['high']:.1f}]"
        lines.append(f"{model['arm']:>10}  {model['stage']:<11} {accuracy}")
    return lines

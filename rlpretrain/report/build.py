"""The comparison: results.json, report.md and a self-contained index.html out of one or more runs' evaluations."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlpretrain.report.browser import held_out_positions
from rlpretrain.report.claims import judge, pairs
from rlpretrain.report.evaluations import ARMS, STAGES, Key, Pooled, pool, read_evaluation
from rlpretrain.report.figures import all_differences, model_figures
from rlpretrain.report.markdown import markdown
from rlpretrain.report.page import page
from rlpretrain.report.results import RESULTS_FILE, Results, parse_results
from rlpretrain.report.statistics import Bootstrap
from rlpretrain.report.tables import sections, warnings_in_order
from rlpretrain.report.training import TIMINGS_FILE, curves, shards_read, timings, training_warnings
from rlpretrain.report.words import ARM_NAMES, OVERALL, STAGE_NAMES, percent, training_name
from rlpretrain.settings import CompareSettings

VOLATILE = ("index.html", TIMINGS_FILE)  # hold wall-clock times, which no run repeats


def compare_runs(runs: list[dict[Key, Path]], settings: CompareSettings, output: Path) -> dict[str, Any]:
    """Write the comparison of ``runs`` (arm and stage to evaluation folder; several runs are seeds) to ``output``.

    Returns the facts for the manifest. Raises UserError with fewer than two evaluations, unlike questions, or an
    artifact that cannot be read.
    """
    pooled = pool([{key: read_evaluation(folder) for key, folder in run.items()} for run in runs])
    results, times = collect(pooled, settings), timings(pooled)
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    for name, content in (
        (RESULTS_FILE, text + "\n"),
        (TIMINGS_FILE, times.text()),
        ("report.md", markdown(results)),
        ("index.html", page(results, times)),
    ):
        (output / name).write_text(content, encoding="utf-8", errors="backslashreplace")
    return {"claims": {claim.name: claim.verdict for claim in results.claims}, "runs": results.runs}


def collect(pooled: Mapping[Key, Pooled], settings: CompareSettings) -> Results:
    """All figures of the page. The same evaluations and settings give the same figures."""
    same_questions = next(iter(pooled.values())).same_questions
    bootstrap = Bootstrap(settings.confidence, settings.bootstrap_samples, settings.seed, same_questions)
    models = [model_figures(key, pooled, bootstrap) for key in pooled]
    compared = [
        (first, second, stage)
        for stage in STAGES
        for first, second in pairs()
        if (first, stage) in pooled and (second, stage) in pooled
    ]
    differences = all_differences(compared, pooled, bootstrap)
    parts = next(iter(pooled.values())).parts
    return Results(
        title=settings.title,
        profile=settings.profile,
        runs=len(parts),
        confidence=settings.confidence,
        bootstrap_samples=settings.bootstrap_samples,
        repeats=parts[0].repeats,
        samples=sorted(set(parts[0].samples.values())),
        benchmarks=parts[0].groups,
        claims=judge(models, differences, settings.confidence, settings.profile),
        models=models,
        differences=differences,
        curves=curves(pooled),
        training_warnings=training_warnings(pooled),
        positions=held_out_positions(pooled),
        data=shards_read(pooled),
    )


def _counted(verdict: str, count: int) -> str:
    """2 hold, 1 fails, 20 were not tested."""
    if verdict == "not tested":
        return "were not tested" if count > 1 else "was not tested"
    return verdict.removesuffix("s") if count > 1 else verdict


def summary_lines(results: dict[str, Any]) -> list[str]:
    """What the command line says at the end of a run: the verdicts, the average of every model, warnings from training."""
    parsed = parse_results(results)
    lines = [""]
    (_, headline), *ledger = sections(parsed.claims)
    for claim in headline:
        lines += [f"{claim.verdict.upper():>10}  {claim.statement}", f"{'':>10}  {claim.detail}"]
    counts = Counter(claim.verdict for _, claims in ledger for claim in claims)
    lines += [
        "",
        f"Of the paper's other claims {', '.join(f'{count} {_counted(v, count)}' for v, count in counts.items())}.",
    ]
    scale = f"{100 * parsed.confidence:g}% interval over questions"
    lines += ["", f"Average accuracy in percent, pass@1[{parsed.k}], [{scale}]:"]
    stages = [stage for stage in STAGES if any(model.stage == stage for model in parsed.models)]
    lines.append(f"{'':>10}  " + "".join(f"{STAGE_NAMES[stage]:<22}" for stage in stages).rstrip())
    cells = {(model.arm, model.stage): percent(model.averages[OVERALL]) for model in parsed.models}
    for arm in ARMS:
        if any(model.arm == arm for model in parsed.models):
            row = "".join(f"{cells.get((arm, stage), 'not evaluated'):<22}" for stage in stages)
            lines.append(f"{ARM_NAMES[arm]:>10}  {row.rstrip()}")
    return [*lines, *_warning_lines(parsed), ""]


def _warning_lines(results: Results) -> list[str]:
    lines = []
    for row in warnings_in_order(results):
        which = training_name(row.arm, row.stage) + (f", run {row.run}" if results.runs > 1 else "")
        when = f"{row.steps:,} steps, {row.first:,} to {row.last:,}" if row.steps > 1 else f"step {row.first:,}"
        lines.append(f"{ARM_NAMES[row.arm]:>10}  {which}: {row.sign}; {when}")
    return ["", "Warnings from training:", *lines] if lines else []

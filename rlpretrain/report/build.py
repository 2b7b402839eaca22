"""The comparison: results.json, report.md and a self-contained index.html out of one or more runs' evaluations."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rlpretrain.report.claims import judge, pairs
from rlpretrain.report.evaluations import ARMS, STAGES, Evaluation, Key, Pooled, pool, read_evaluation
from rlpretrain.report.markdown import markdown
from rlpretrain.report.page import page
from rlpretrain.report.results import (
    RESULTS_FILE,
    BenchmarkFigure,
    Curve,
    Difference,
    Figure,
    GainFigure,
    Model,
    Results,
    Source,
    Thought,
    parse_results,
)
from rlpretrain.report.statistics import Bootstrap, Interval, Weights
from rlpretrain.report.tables import sections
from rlpretrain.report.words import ARM_NAMES, OVERALL, STAGE_NAMES, percent
from rlpretrain.settings import CompareSettings

THOUGHTS_SHOWN = 10
CONTEXT_SHOWN = 400  # characters of a thought's context, its end; a thought is as long as its budget allows
CURVES = {
    "pretrained": ("reward/gain", "thought/length", "thought/cut_off", "thought/entropy", "loss/nll"),
    "sft": ("loss/nll",),
    "rlvr": ("reward/correct", "thought/length", "thought/cut_off", "thought/entropy"),
}


def compare_runs(runs: list[dict[Key, Path]], settings: CompareSettings, output: Path) -> dict[str, Any]:
    """Write the comparison of ``runs`` (arm and stage to evaluation folder; several runs are seeds) to ``output``.

    Returns the facts for the manifest. Raises UserError with fewer than two evaluations, unlike questions, or an
    artifact that cannot be read.
    """
    results = collect([{key: read_evaluation(folder) for key, folder in run.items()} for run in runs], settings)
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    (output / RESULTS_FILE).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    (output / "report.md").write_text(markdown(results), encoding="utf-8", errors="backslashreplace")
    (output / "index.html").write_text(page(results), encoding="utf-8", errors="backslashreplace")
    return {"claims": {claim.name: claim.verdict for claim in results.claims}, "runs": results.runs}


def collect(runs: Sequence[Mapping[Key, Evaluation]], settings: CompareSettings) -> Results:
    """All figures of the page. The same evaluations and settings give the same figures."""
    pooled = pool(runs)
    bootstrap = Bootstrap(settings.confidence, settings.bootstrap_samples, settings.seed)
    models = [_model(key, evaluation, bootstrap) for key, evaluation in pooled.items()]
    differences = [
        _difference(first, second, stage, pooled[first, stage], pooled[second, stage], bootstrap)
        for stage in STAGES
        for first, second in pairs()
        if (first, stage) in pooled and (second, stage) in pooled
    ]
    some = next(iter(pooled.values())).parts[0]
    return Results(
        title=settings.title,
        profile=settings.profile,
        runs=len(runs),
        confidence=settings.confidence,
        bootstrap_samples=settings.bootstrap_samples,
        repeats=some.repeats,
        benchmarks=some.groups,
        claims=judge(models, differences, settings.confidence, settings.profile),
        models=models,
        differences=differences,
        curves=_curves(pooled),
        thoughts=_thoughts(pooled),
    )


def _model(key: Key, pooled: Pooled, bootstrap: Bootstrap) -> Model:
    scores = pooled.scores
    return Model(
        arm=key[0],
        stage=key[1],
        accuracy={
            name: BenchmarkFigure(
                **_fields(bootstrap.average({name: values})),
                questions=len(values),
                run_spread=_rounded(pooled.mean("run_spread", name)),
                no_answer=_rounded(pooled.mean("no_answer", name)),
            )
            for name, values in scores.items()
        },
        averages={name: _figure(bootstrap.average(scores, weights)) for name, weights in pooled.weights.items()},
        overall_by_run=_overall_by_run(pooled),
        information_gain=_gain(pooled, bootstrap),
        sources=[
            Source(
                run=number,
                seed=part.manifest.seed,
                digest=part.manifest.digest,
                inputs=part.manifest.inputs,
                code_version=part.manifest.code_version,
                libraries=part.manifest.libraries,
            )
            for number, part in enumerate(pooled.parts, 1)
        ],
    )


def _gain(pooled: Pooled, bootstrap: Bootstrap) -> GainFigure | None:
    if not all(part.gains for part in pooled.parts):
        return None
    return GainFigure(
        **_fields(bootstrap.average({"gain": pooled.gains})),
        positions=len(pooled.gains),
        baseline_logprob=_rounded(pooled.mean("gain_summary", "baseline_logprob")),
        reasoned_logprob=_rounded(pooled.mean("gain_summary", "reasoned_logprob")),
        thought_length=_rounded(pooled.mean("gain_summary", "thought_length")),
        cut_off=_rounded(pooled.mean("gain_summary", "cut_off")),
        by_run=[round(fmean(part.gains), 6) for part in pooled.parts],
    )


def _difference(first: str, second: str, stage: str, ours: Pooled, theirs: Pooled, bootstrap: Bootstrap) -> Difference:
    a, b = ours.scores, theirs.scores

    def figure(weights: Weights) -> Figure:
        return _figure(bootstrap.difference(a, b, weights))

    gain, paired = _gain_difference(ours, theirs, bootstrap)
    by_run = zip(_overall_by_run(ours), _overall_by_run(theirs), strict=True)
    return Difference(
        first=first,
        second=second,
        stage=stage,
        accuracy={name: figure({name: 1.0}) for name in a},
        averages={name: figure(weights) for name, weights in ours.weights.items()},
        overall_by_run=[round(x - y, 6) for x, y in by_run],
        information_gain=gain,
        gain_paired=paired,
    )


def _gain_difference(ours: Pooled, theirs: Pooled, bootstrap: Bootstrap) -> tuple[Figure | None, bool]:
    """Paired by held-out position when every run measured both models at equally many, which are then the same ones."""
    lengths = [(len(a.gains), len(b.gains)) for a, b in zip(ours.parts, theirs.parts, strict=True)]
    if not all(a and b for a, b in lengths):
        return None, False
    paired = all(a == b for a, b in lengths)
    a, b = ({"gain": pooled.gains} for pooled in (ours, theirs))
    return _figure(bootstrap.difference(a, b) if paired else bootstrap.unpaired_difference(a, b)), paired


def _overall_by_run(pooled: Pooled) -> list[float]:
    weights = pooled.weights[OVERALL]
    return [
        round(sum(weight * fmean(part.scores[name].values()) for name, weight in weights.items()), 6)
        for part in pooled.parts
    ]


def _curves(pooled: Mapping[Key, Pooled]) -> list[Curve]:
    found = []
    for (arm, stage), evaluation in pooled.items():
        for metric in CURVES[stage]:
            runs = [_curve(part, metric) for part in evaluation.parts]
            if any(runs):
                found.append(Curve(arm=arm, stage=stage, metric=metric, runs=runs))
    return found


def _curve(part: Evaluation, metric: str) -> list[tuple[int, float]]:
    """Steps and values; a training that diverged has values that no chart can show."""
    return [(row["step"], row[metric]) for row in part.training if metric in row and math.isfinite(row[metric])]


def _thoughts(pooled: Mapping[Key, Pooled]) -> list[Thought]:
    """Evenly spaced thoughts of RLP's first run, each with what base thought at the same place."""
    rlp, base = pooled.get(("rlp", "pretrained")), pooled.get(("base", "pretrained"))
    rows = rlp.parts[0].thoughts if rlp else []
    before = {(row["document"], row["context"]): row for row in (base.parts[0].thoughts if base else [])}
    count = min(THOUGHTS_SHOWN, len(rows))
    chosen = [rows[round(i * (len(rows) - 1) / max(1, count - 1))] for i in range(count)]
    return [
        Thought(
            **{
                name: row[name]
                for name in ("thought", "next_token", "logprob_with", "logprob_without", "gain", "cut_off")
            },
            context=row["context"][-CONTEXT_SHOWN:],
            base_thought=base_row["thought"] if base_row else None,
            base_gain=base_row["gain"] if base_row else None,
        )
        for row in chosen
        for base_row in [before.get((row["document"], row["context"]))]
    ]


def _counted(verdict: str, count: int) -> str:
    """2 hold, 1 fails, 20 were not tested."""
    if verdict == "not tested":
        return "were not tested" if count > 1 else "was not tested"
    return verdict.removesuffix("s") if count > 1 else verdict


def _fields(interval: Interval) -> dict[str, Any]:
    return {"estimate": round(interval.estimate, 6), "low": round(interval.low, 6), "high": round(interval.high, 6)}


def _figure(interval: Interval) -> Figure:
    return Figure(**_fields(interval))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def summary_lines(results: dict[str, Any]) -> list[str]:
    """What the command line says at the end of a run: the verdicts, then the average of every model."""
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
    lines += ["", f"Average accuracy in percent, pass@1[{parsed.repeats}], [{scale}]:"]
    stages = [stage for stage in STAGES if any(model.stage == stage for model in parsed.models)]
    lines.append(f"{'':>10}  " + "".join(f"{STAGE_NAMES[stage]:<22}" for stage in stages).rstrip())
    cells = {(model.arm, model.stage): percent(model.averages[OVERALL]) for model in parsed.models}
    for arm in ARMS:
        if any(model.arm == arm for model in parsed.models):
            row = "".join(f"{cells.get((arm, stage), 'not evaluated'):<22}" for stage in stages)
            lines.append(f"{ARM_NAMES[arm]:>10}  {row.rstrip()}")
    return [*lines, ""]

"""Every figure of one model, and of one model against another: accuracies, gains, tests, cost."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from rlpretrain.evaluation.kinds import KINDS
from rlpretrain.report.evaluations import Evaluation, Key, Pooled
from rlpretrain.report.results import (
    BenchmarkFigure,
    ComparedFigure,
    Cost,
    Difference,
    Figure,
    GainFigure,
    GainSlice,
    Model,
    Source,
)
from rlpretrain.report.slices import gain_slices
from rlpretrain.report.statistics import Bootstrap, Interval, Weights, holm
from rlpretrain.report.words import OVERALL

THIRDS = ("most certain third", "middle third", "most open third")  # of the positions by entropy


def model_figures(key: Key, pooled: Mapping[Key, Pooled], bootstrap: Bootstrap) -> Model:
    """All figures of an arm after a stage."""
    ours = pooled[key]
    scores = ours.scores
    return Model(
        arm=key[0],
        stage=key[1],
        accuracy={
            name: BenchmarkFigure(
                **_fields(bootstrap.average({name: values})),
                questions=len(values),
                run_spread=_rounded(ours.mean("run_spread", name)),
                no_answer=_rounded(ours.mean("no_answer", name)),
            )
            for name, values in scores.items()
        },
        averages={name: rounded_figure(bootstrap.average(scores, weights)) for name, weights in ours.weights.items()},
        overall_by_run=_overall_by_run(ours),
        information_gain=_gain(ours, bootstrap),
        gain_slices=_gain_slices(ours, pooled.get(("base", "pretrained"), ours), bootstrap),
        cost=_cost(ours),
        sources=[_source(number, part) for number, part in enumerate(ours.parts, 1)],
    )


def all_differences(
    pairs: Sequence[tuple[str, str, str]], pooled: Mapping[Key, Pooled], bootstrap: Bootstrap
) -> list[Difference]:
    """The difference of every (first, second, stage), each benchmark tested, corrected for all tests together."""
    tests = {
        (pair, name): bootstrap.p_value({name: a}, {name: theirs[name]})
        for pair in pairs
        for theirs in [pooled[pair[1], pair[2]].scores]
        for name, a in pooled[pair[0], pair[2]].scores.items()
    }
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return [
        _difference(
            pair,
            pooled,
            {name: (p, corrected[tested, name]) for (tested, name), p in tests.items() if tested == pair},
            bootstrap,
        )
        for pair in pairs
    ]


def _difference(
    pair: tuple[str, str, str],
    pooled: Mapping[Key, Pooled],
    tests: Mapping[str, tuple[float, float]],
    bootstrap: Bootstrap,
) -> Difference:
    first, second, stage = pair
    ours, theirs = pooled[first, stage], pooled[second, stage]
    a, b = ours.scores, theirs.scores

    def interval(weights: Weights) -> dict[str, Any]:
        return _fields(bootstrap.difference(a, b, weights))

    gain, paired = _gain_difference(ours, theirs, bootstrap)
    return Difference(
        first=first,
        second=second,
        stage=stage,
        accuracy={
            name: ComparedFigure(
                **interval({name: 1.0}),
                p=_rounded(tests[name][0]),
                p_holm=_rounded(tests[name][1]),
                by_run=[
                    round(fmean(x.scores[name].values()) - fmean(y.scores[name].values()), 6)
                    for x, y in zip(ours.parts, theirs.parts, strict=True)
                ],
            )
            for name in a
        },
        averages={name: Figure(**interval(weights)) for name, weights in ours.weights.items()},
        overall_by_run=[round(x - y, 6) for x, y in zip(_overall_by_run(ours), _overall_by_run(theirs), strict=True)],
        information_gain=gain,
        gain_paired=paired,
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


def _gain_slices(pooled: Pooled, base: Pooled, bootstrap: Bootstrap) -> list[GainSlice]:
    """Gain by kind of token, and by how open the place is to the base model, so that all arms share the thirds."""
    same = [part.places for part in base.parts] == [part.places for part in pooled.parts]
    entropies = base.entropies if same else []
    found = gain_slices("kind", pooled.gains, pooled.kinds, KINDS, bootstrap)
    if len(entropies) == len(pooled.gains) and entropies:
        edges = np.quantile(entropies, [1 / 3, 2 / 3])
        found += gain_slices(
            "entropy",
            pooled.gains,
            [THIRDS[int(np.searchsorted(edges, entropy, side="right"))] for entropy in entropies],
            THIRDS,
            bootstrap,
        )
    return found


def _gain_difference(ours: Pooled, theirs: Pooled, bootstrap: Bootstrap) -> tuple[Figure | None, bool]:
    """Paired by held-out position when every run measured both models at the same ones."""
    if not all(part.gains for pooled in (ours, theirs) for part in pooled.parts):
        return None, False
    paired = [part.places for part in ours.parts] == [part.places for part in theirs.parts]
    a, b = ({"gain": pooled.gains} for pooled in (ours, theirs))
    return rounded_figure(bootstrap.difference(a, b) if paired else bootstrap.unpaired_difference(a, b)), paired


def _cost(pooled: Pooled) -> Cost | None:
    costs = [part.cost for part in pooled.parts]
    if not all(cost["steps"] for cost in costs):
        return None
    means = {name: fmean(cost[name] for cost in costs) for name in ("steps", "read", "sampled", "trained", "flops")}
    return Cost(parameters=costs[0]["parameters"], **means)


def _source(number: int, part: Evaluation) -> Source:
    manifest = part.manifest
    return Source(
        run=number,
        seed=manifest.seed,
        digest=manifest.digest,
        inputs=manifest.inputs,
        code_version=manifest.code_version,
        libraries=manifest.libraries,
    )


def _overall_by_run(pooled: Pooled) -> list[float]:
    weights = pooled.weights[OVERALL]
    return [
        round(sum(weight * fmean(part.scores[name].values()) for name, weight in weights.items()), 6)
        for part in pooled.parts
    ]


def _fields(interval: Interval) -> dict[str, Any]:
    return {"estimate": round(interval.estimate, 6), "low": round(interval.low, 6), "high": round(interval.high, 6)}


def rounded_figure(interval: Interval) -> Figure:
    """An interval as the results hold it, to six decimals."""
    return Figure(**_fields(interval))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

"""The curves of training, a small chart a metric, every arm that has it in one."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlpretrain.report.charts import DASHES, Chart, layout, title
from rlpretrain.report.evaluations import ARMS
from rlpretrain.report.results import Results
from rlpretrain.report.training import Timings
from rlpretrain.report.words import ARM_NAMES

POINTS_SHOWN = 200  # a curve's points; a longer curve is averaged in equal parts
Runs = Sequence[Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class _Metric:
    name: str
    title: str
    unit: str
    scale: float = 1


_GAIN = _Metric("reward/gain", "Information gain", "nats")
_MATCH = _Metric("reward/match", "Predictions that match", "%", 100)
_CORRECT = _Metric("reward/correct", "Right answers", "%", 100)
_THINKING = (
    _Metric("thought/length", "Length of a thought", "tokens"),
    _Metric("thought/cut_off", "Thoughts cut off", "%", 100),
    _Metric("thought/entropy", "Entropy of the policy", "nats a token"),
    _Metric("thought/zero_variance", "Groups with one reward", "%", 100),
)
_LOSS = _Metric("loss/nll", "Loss", "nats a token")
_NORM = _Metric("optim/grad_norm", "Gradient norm", "before clipping")
_RATE = _Metric("throughput", "Throughput", "tokens a second")
SHOWN = {
    "pretrained": (_GAIN, _MATCH, *_THINKING, _LOSS, _NORM, _RATE),
    "sft": (_LOSS, _NORM, _RATE),
    "rlvr": (_CORRECT, *_THINKING, _NORM, _RATE),
}


def training_charts(results: Results, times: Timings) -> dict[str, list[Chart]]:
    """Stage to its charts. The base model's own training is not shown beside the arms': it is of another length."""
    known: dict[tuple[str, str, str], Runs] = {(c.arm, c.stage, c.metric): c.runs for c in results.curves}
    known |= {(t.arm, t.stage, "throughput"): t.tokens_per_second for t in times.timings if any(t.tokens_per_second)}
    known = {key: runs for key, runs in known.items() if key[:2] != ("base", "pretrained")}
    charts = {}
    for stage, metrics in SHOWN.items():
        found = []
        for metric in metrics:
            arms = {arm: known[arm, stage, metric.name] for arm in ARMS if (arm, stage, metric.name) in known}
            if arms:
                name = f"{stage}-{metric.name.replace('/', '-').replace('_', '-')}"
                found.append(Chart(name, metric.title, metric.unit, _curves(arms, metric)))
        if found:
            charts[stage] = found
    return charts


def _curves(arms: dict[str, Runs], metric: _Metric) -> dict[str, Any]:
    traces = [
        _curve(arm, number, run, metric, len(runs) > 1)
        for arm, runs in arms.items()
        for number, run in enumerate(runs, 1)
    ]
    shown = layout(height=240)
    shown["xaxis"] |= {"title": title("step"), "zeroline": False, "showgrid": False, "nticks": 6}
    shown["yaxis"] |= {"title": None, "nticks": 6}
    shown["showlegend"] = True
    return {"data": traces, "layout": shown}


def _curve(arm: str, number: int, run: Sequence[tuple[int, float]], metric: _Metric, several: bool) -> dict[str, Any]:
    points = _thinned(run)
    suffix = f", run {number}" if several else ""
    return {
        "type": "scatter",
        "mode": "lines" if len(points) > 1 else "markers",
        "name": ARM_NAMES[arm],
        "legendgroup": arm,
        "showlegend": number == 1,
        "x": [step for step, _ in points],
        "y": [float(f"{metric.scale * value:.5g}") for _, value in points],
        "line": {"color": f"--{arm}", "dash": DASHES[arm], "width": 1.5 if several else 2},
        "marker": {"color": f"--{arm}"},
        "opacity": 0.75 if several else 1,
        "hovertemplate": f"{ARM_NAMES[arm]}{suffix}, step %{{x}}: %{{y:.3g}}<extra></extra>",
    }


def _thinned(run: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    if len(run) <= POINTS_SHOWN:
        return list(run)
    edges = [round(i * len(run) / POINTS_SHOWN) for i in range(POINTS_SHOWN + 1)]
    parts = [run[start:end] for start, end in itertools.pairwise(edges)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]

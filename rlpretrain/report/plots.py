"""The page's charts as Plotly figures: plain dicts of data and layout.

Colours are names of the page's CSS variables, such as "--rlp"; the page's script puts the values of the light or the
dark scheme in their place. Plotly reads markup in labels, so every name that comes from outside is escaped.
"""

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlpretrain.report.evaluations import ARMS, STAGES
from rlpretrain.report.results import Curve, Figure, Results
from rlpretrain.report.words import ARM_NAMES, OVERALL, STAGE_NAMES, column_name

DASHES = {
    "base": "dot",
    "cpt": "dash",
    "cpt_flops": "longdash",
    "rlp": "solid",
    "rpt": "dashdot",
}  # so that the arms differ without colour
SYMBOLS = {"base": "circle", "cpt": "square", "cpt_flops": "triangle-up", "rlp": "diamond", "rpt": "cross"}
POINTS_SHOWN = 200  # a curve's points; a longer curve is averaged in equal parts
TRAINING_CURVES = (
    ("reward/gain", "Information gain", "nats"),
    ("thought/length", "Thought length", "tokens"),
    ("thought/cut_off", "Thoughts cut off", "%"),
    ("thought/entropy", "Entropy of the policy", "nats a token"),
)
_PERCENT = ("thought/cut_off", "reward/correct")


@dataclass(frozen=True)
class Chart:
    """A figure with its heading, and whether it takes the page's whole width."""

    name: str
    title: str
    note: str
    figure: dict[str, Any]
    wide: bool = False


def result_charts(results: Results) -> list[Chart]:
    """Average accuracy by stage, and by benchmark how far RLP is ahead after pretraining."""
    accuracy = Chart(
        "accuracy",
        "Average accuracy by stage",
        f"Mean over {len(results.benchmarks)} benchmarks with {100 * results.confidence:g}% intervals"
        + ("; small open marks are single runs." if results.runs > 1 else "."),
        _accuracy(results),
    )
    traces = [
        _gap(second, difference.accuracy, difference.averages[OVERALL])
        for second in ARMS
        if second != "rlp"
        for difference in results.differences
        if (difference.first, difference.second, difference.stage) == ("rlp", second, "pretrained")
    ]
    if not traces:
        return [accuracy]
    layout = _layout("points", rows=len(results.benchmarks) + 1)
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False, "automargin": True, "title": None}
    layout["xaxis"] |= {"title": _title("points ahead of the other model"), "zerolinewidth": 2}
    layout |= {"scattermode": "group", "scattergap": 0.5, "showlegend": True}
    gap = Chart(
        "gap",
        "Where RLP is ahead after pretraining",
        "Paired differences by benchmark; right of zero RLP is better.",
        {"data": traces, "layout": layout},
    )
    return [accuracy, gap]


def training_charts(results: Results) -> list[Chart]:
    """The curves of RLP's training, and the share of right answers in every arm's RLVR."""
    known = {(curve.arm, curve.stage, curve.metric): curve for curve in results.curves}
    charts = []
    for metric, title, unit in TRAINING_CURVES:
        if curve := known.get(("rlp", "pretrained", metric)):
            charts.append(Chart(_name(metric), title, f"{unit}, in RLP's training, by step", _curves([curve], unit)))
    answers = [curve for arm in ARMS if (curve := known.get((arm, "rlvr", "reward/correct")))]
    if answers:
        figure = _curves(answers, "%")
        charts.append(
            Chart("rlvr-correct", "Right answers in RLVR", "% of sampled answers, by step", figure, wide=True)
        )
    return charts


def _name(metric: str) -> str:
    return metric.replace("/", "-").replace("_", "-")


def _accuracy(results: Results) -> dict[str, Any]:
    rows = {(model.arm, model.stage): model for model in results.models}
    stages = [stage for stage in STAGES if any(key[1] == stage for key in rows)]
    traces: list[dict[str, Any]] = []
    arms = [arm for arm in ARMS if any(key[0] == arm for key in rows)]
    for place, arm in enumerate(arms):
        # Arms stand a little apart, so that error bars do not hide one another.
        offset = (place - (len(arms) - 1) / 2) * 0.07
        found = [(index, rows[arm, stage]) for index, stage in enumerate(stages) if (arm, stage) in rows]
        figures = [model.averages[OVERALL] for _, model in found]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": ARM_NAMES[arm],
                "x": [round(index + offset, 3) for index, _ in found],
                "y": [_percent(figure.estimate) for figure in figures],
                "error_y": _errors(figures, arm),
                "line": {"color": f"--{arm}", "dash": DASHES[arm], "width": 2.5},
                "marker": {"size": 10, "symbol": SYMBOLS[arm]},
                "hovertemplate": f"{ARM_NAMES[arm]}: %{{y:.1f}}%<extra></extra>",
            }
        )
        if results.runs > 1:
            singles = [(index + offset + 0.03, value) for index, model in found for value in model.overall_by_run]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "showlegend": False,
                    "x": [round(x, 3) for x, _ in singles],
                    "y": [_percent(value) for _, value in singles],
                    "marker": {"size": 6, "symbol": f"{SYMBOLS[arm]}-open", "color": f"--{arm}", "opacity": 0.7},
                    "hovertemplate": f"{ARM_NAMES[arm]}, one run: %{{y:.1f}}%<extra></extra>",
                }
            )
    layout = _layout("accuracy (%)", rows=len(results.benchmarks) + 1)  # as tall as the chart beside it
    names = [STAGE_NAMES[stage].replace("After SFT and", "After SFT<br>and") for stage in stages]
    layout["xaxis"] |= {"tickvals": list(range(len(stages))), "ticktext": names, "showgrid": False, "zeroline": False}
    layout["xaxis"]["range"] = [-0.35, len(stages) - 0.65]
    return {"data": traces, "layout": layout}


def _gap(second: str, by_benchmark: dict[str, Figure], overall: Figure) -> dict[str, Any]:
    figures = [overall, *by_benchmark.values()]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"RLP minus {ARM_NAMES[second]}",
        "offsetgroup": second,
        "orientation": "h",
        "y": ["<b>average</b>", *(html.escape(column_name(name)) for name in by_benchmark)],
        "x": [_percent(figure.estimate) for figure in figures],
        "error_x": _errors(figures, second),
        "marker": {"size": 8, "symbol": SYMBOLS[second], "color": f"--{second}"},
        "hovertemplate": "%{y}: %{x:+.1f} points<extra></extra>",
    }


def _errors(figures: Sequence[Figure], arm: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [_percent(figure.high - figure.estimate) for figure in figures],
        "arrayminus": [_percent(figure.estimate - figure.low) for figure in figures],
        "color": f"--{arm}",
        "thickness": 1.6,
        "width": 4,
    }


def _curves(curves: Sequence[Curve], unit: str) -> dict[str, Any]:
    traces = []
    for curve in curves:
        scale = 100 if curve.metric in _PERCENT else 1
        for number, run in enumerate(curve.runs, 1):
            points = _thinned(run)
            suffix = f", run {number}" if len(curve.runs) > 1 else ""
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": ARM_NAMES[curve.arm],
                    "legendgroup": curve.arm,
                    "showlegend": len(curves) > 1 and number == 1,
                    "x": [step for step, _ in points],
                    "y": [float(f"{scale * value:.5g}") for _, value in points],
                    "line": {"color": f"--{curve.arm}", "dash": DASHES[curve.arm], "width": 2},
                    "opacity": 1 if len(curve.runs) == 1 else 0.75,
                    "hovertemplate": f"{ARM_NAMES[curve.arm]}{suffix}, step %{{x}}: %{{y:.3g}}<extra></extra>",
                }
            )
    layout = _layout(unit, height=260)
    layout["xaxis"] |= {"title": _title("step"), "zeroline": False}
    layout["showlegend"] = len(curves) > 1
    if not layout["showlegend"]:
        layout["margin"]["t"] = 12
    return {"data": traces, "layout": layout}


def _thinned(run: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    if len(run) <= POINTS_SHOWN:
        return list(run)
    edges = [round(i * len(run) / POINTS_SHOWN) for i in range(POINTS_SHOWN + 1)]
    parts = [run[start:end] for start, end in itertools.pairwise(edges)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _layout(y_title: str, height: int = 340, rows: int = 0) -> dict[str, Any]:
    axis: dict[str, Any] = {"gridcolor": "--line", "zerolinecolor": "--dim", "linecolor": "--line", "fixedrange": True}
    return {
        "height": max(height, 110 + 34 * rows),
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "--dim", "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13},
        "margin": {"l": 52, "r": 12, "t": 40, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": "--ink"}},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--ink"}},
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": dict(axis),
        "yaxis": {**axis, "title": _title(y_title), "automargin": True},
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 8, "font": {"size": 13}}


def _percent(value: float) -> float:
    return round(100 * value, 4)

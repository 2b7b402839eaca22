"""The charts of the results: accuracy by stage, where RLP is ahead, where thoughts help."""

import html
from typing import Any

from rlpretrain.report.charts import DASHES, SYMBOLS, Chart, errors, estimates, layout, title
from rlpretrain.report.evaluations import ARMS, STAGES
from rlpretrain.report.results import Difference, Model, Results
from rlpretrain.report.words import ARM_NAMES, OVERALL, STAGE_NAMES, column_name


def accuracy_chart(results: Results) -> Chart:
    """Average accuracy of every arm after every stage."""
    rows = {(model.arm, model.stage): model for model in results.models}
    stages = [stage for stage in STAGES if any(key[1] == stage for key in rows)]
    arms = [arm for arm in ARMS if any(key[0] == arm for key in rows)]
    traces: list[dict[str, Any]] = []
    for place, arm in enumerate(arms):
        # Arms stand a little apart, so that error bars do not hide one another.
        offset = (place - (len(arms) - 1) / 2) * 0.06
        found = [(index + offset, rows[arm, stage]) for index, stage in enumerate(stages) if (arm, stage) in rows]
        traces.append(_accuracy(arm, found))
        if results.runs > 1:
            traces.append(_single_runs(arm, found))
    shown = layout("accuracy (%)", 400)
    names = [STAGE_NAMES[stage].removeprefix("After ").replace("SFT and", "SFT<br>and") for stage in stages]
    shown["xaxis"] |= {"tickvals": list(range(len(stages))), "ticktext": names, "showgrid": False, "zeroline": False}
    shown["xaxis"]["title"] = title("after")
    shown["xaxis"]["range"] = [-0.35, len(stages) - 0.65]
    shown["yaxis"]["rangemode"] = "tozero"
    over = "one benchmark" if len(results.benchmarks) == 1 else f"{len(results.benchmarks)} benchmarks"
    return Chart(
        "accuracy",
        "Average accuracy by stage",
        f"Mean over {over}, with {100 * results.confidence:g}% intervals"
        + ("; small open marks are single runs." if results.runs > 1 else "."),
        {"data": traces, "layout": shown},
    )


def _accuracy(arm: str, found: list[tuple[float, Model]]) -> dict[str, Any]:
    figures = [model.averages[OVERALL] for _, model in found]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": ARM_NAMES[arm],
        "x": [round(x, 3) for x, _ in found],
        "y": estimates(figures),
        "error_y": errors(figures, arm),
        "line": {"color": f"--{arm}", "dash": DASHES[arm], "width": 2.5},
        "marker": {"size": 10, "symbol": SYMBOLS[arm]},
        "hovertemplate": f"{ARM_NAMES[arm]}: %{{y:.1f}}%<extra></extra>",
    }


def _single_runs(arm: str, found: list[tuple[float, Model]]) -> dict[str, Any]:
    singles = [(x + 0.025, value) for x, model in found for value in model.overall_by_run]
    return {
        "type": "scatter",
        "mode": "markers",
        "showlegend": False,
        "x": [round(x, 3) for x, _ in singles],
        "y": [round(100 * value, 4) for _, value in singles],
        "marker": {"size": 6, "symbol": f"{SYMBOLS[arm]}-open", "color": f"--{arm}", "opacity": 0.7},
        "hovertemplate": f"{ARM_NAMES[arm]}, one run: %{{y:.1f}}%<extra></extra>",
    }


def gap_chart(results: Results) -> Chart | None:
    """By benchmark, how far RLP is ahead of every other arm after pretraining."""
    found = [d for d in results.differences if d.first == "rlp" and d.stage == "pretrained"]
    if not found:
        return None
    names = ["<b>average</b>", *(html.escape(column_name(name)) for name in results.benchmarks)]
    shown = layout(height=130 + 34 * len(names))
    shown["yaxis"] |= {"autorange": "reversed", "showgrid": False, "title": None}
    shown["xaxis"] |= {"title": title("points ahead of the other arm"), "zerolinewidth": 2, "rangemode": "tozero"}
    shown |= {"scattermode": "group", "scattergap": 0.5, "showlegend": True}
    return Chart(
        "gap",
        "Where RLP is ahead after pretraining",
        "Paired differences by benchmark; right of zero RLP is better.",
        {"data": [_gap(difference, names) for difference in found], "layout": shown},
    )


def _gap(difference: Difference, names: list[str]) -> dict[str, Any]:
    figures = [difference.averages[OVERALL], *difference.accuracy.values()]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"RLP minus {ARM_NAMES[difference.second]}",
        "offsetgroup": difference.second,
        "orientation": "h",
        "y": names,
        "x": estimates(figures),
        "error_x": errors(figures, difference.second),
        "marker": {"size": 8, "symbol": SYMBOLS[difference.second], "color": f"--{difference.second}"},
        "hovertemplate": "%{y}: %{x:+.1f} points<extra></extra>",
    }


def slice_charts(results: Results) -> list[Chart]:
    """Where thoughts help after pretraining: by kind of next token, and by how open the place is."""
    models = [model for model in results.models if model.stage == "pretrained"]
    charts = []
    for by, heading, note in (
        ("kind", "Gain by kind of next token", "What kind of token the thought is asked to help with."),
        ("entropy", "Gain by how open the place is", "Positions in thirds, by the base model's entropy there."),
    ):
        traces = []
        for model in models:
            found = [part for part in model.gain_slices if part.by == by]
            if found:
                traces.append(
                    {
                        "type": "scatter",
                        "mode": "markers",
                        "name": ARM_NAMES[model.arm],
                        "offsetgroup": model.arm,
                        "orientation": "h",
                        "y": [f"{part.name}<br><i>{part.positions} places</i>" for part in found],
                        "x": estimates(found, 1),
                        "error_x": errors(found, model.arm, 1),
                        "marker": {"size": 9, "symbol": SYMBOLS[model.arm], "color": f"--{model.arm}"},
                        "hovertemplate": f"{ARM_NAMES[model.arm]}, %{{y}}: %{{x:+.3f}} nats<extra></extra>",
                    }
                )
        if traces:
            rows = max(len(trace["y"]) for trace in traces)
            shown = layout(height=110 + rows * (22 + 14 * len(traces)))
            shown["yaxis"] |= {"autorange": "reversed", "showgrid": False, "title": None}
            shown["xaxis"] |= {"title": title("information gain (nats)"), "zerolinewidth": 2, "rangemode": "tozero"}
            shown |= {"scattermode": "group", "scattergap": 0.4, "showlegend": True}
            charts.append(Chart(f"gain-{by}", heading, note, {"data": traces, "layout": shown}))
    return charts

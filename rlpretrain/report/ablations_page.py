"""The page of the ablations: a curve of ours and one of the paper's side by side, and the table of every point."""

from typing import Any

from plotly.offline import get_plotlyjs

from rlpretrain.report.ablations import Ablations, Sweep, shown
from rlpretrain.report.page import MARKS, environment
from rlpretrain.report.plots import Chart, _layout, _percent, _title


def ablations_page(ablations: Ablations) -> str:
    """The page. The same figures give the same bytes."""
    charts = {sweep.name: _charts(sweep, ablations) for sweep in ablations.sweeps}
    figures = {f"chart-{chart.name}": chart.figure for pair in charts.values() for chart in pair}
    return (
        environment()
        .get_template("ablations.html.j2")
        .render(shown=shown, ablations=ablations, charts=charts, figures=figures, marks=MARKS, plotly=get_plotlyjs())
    )


def _charts(sweep: Sweep, ablations: Ablations) -> list[Chart]:
    by = f"average accuracy (%) by {sweep.title[0].lower()}{sweep.title[1:]}"
    ours = _curve(
        sweep,
        [point.value for point in sweep.points],
        [point.accuracy.estimate for point in sweep.points],
        ablations.base.estimate,
    )
    ours["data"][0]["error_y"] = {
        "type": "data",
        "symmetric": False,
        "array": [_percent(point.accuracy.high - point.accuracy.estimate) for point in sweep.points],
        "arrayminus": [_percent(point.accuracy.estimate - point.accuracy.low) for point in sweep.points],
        "color": "--rlp",
        "thickness": 1.6,
        "width": 4,
    }
    note = f"{by}, {100 * ablations.confidence:g}% intervals"
    charts = [Chart(f"{sweep.name.replace('_', '-')}-ours", "This run", note, ours)]
    if sweep.paper is not None:
        paper = _curve(sweep, sweep.paper.values, sweep.paper.accuracy, sweep.paper.base)
        charts.append(Chart(f"{sweep.name.replace('_', '-')}-paper", "The paper, Qwen3-1.7B", by, paper))
    return charts


def _curve(sweep: Sweep, values: list[Any], accuracy: list[float], base: float | None) -> dict[str, Any]:
    """Values stand at equal distances: they are doublings, powers or names."""
    names = [shown(value) for value in values]
    named = isinstance(values[0], str)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers" if named else "lines+markers",
            "name": "RLP",
            "x": names,
            "y": [_percent(value) for value in accuracy],
            "line": {"color": "--rlp", "width": 2.5},
            "marker": {"size": 10, "symbol": "diamond", "color": "--rlp"},
            "hovertemplate": "%{x}: %{y:.1f}%<extra></extra>",
        }
    ]
    if base is not None:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "base",
                "x": names,
                "y": [_percent(base)] * len(names),
                "line": {"color": "--base", "dash": "dot", "width": 2},
                "hovertemplate": "base: %{y:.1f}%<extra></extra>",
            }
        )
    shape = _layout("accuracy (%)", height=300)
    shape["xaxis"] |= {"type": "category", "showgrid": False, "title": _title(sweep.unit), "automargin": True}
    shape["yaxis"]["rangemode"] = "tozero"
    return {"data": traces, "layout": shape}

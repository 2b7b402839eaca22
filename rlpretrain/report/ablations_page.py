"""The page of the ablations: a curve of ours and one of the paper's side by side, and the table of every point."""

from collections.abc import Sequence
from typing import Any

from rlpretrain.report.ablations import Ablations, Point, Sweep, shown
from rlpretrain.report.charts import Chart, errors, layout, title
from rlpretrain.report.html import render
from rlpretrain.report.results import Figure
from rlpretrain.report.tables import Cell, Table, deciding_figure
from rlpretrain.report.words import MARKS


def ablations_page(ablations: Ablations) -> str:
    """The page. The same figures give the same bytes."""
    charts = {sweep.name: _charts(sweep, ablations) for sweep in ablations.sweeps}
    return render(
        "ablations.html.j2",
        [chart for pair in charts.values() for chart in pair],
        title=ablations.title,
        ablations=ablations,
        claims=[(claim, deciding_figure(claim)) for claim in ablations.claims],
        sweeps=[(sweep, charts[sweep.name], _table(sweep)) for sweep in ablations.sweeps],
        marks=MARKS,
    )


def _table(sweep: Sweep) -> Table:
    columns = ["accuracy (%)", "minus base (points)", "minus the default (points)"]
    columns += ["held-out gain (nats)", "thought length (tokens)", "cut off (%)"]
    rows = [_row(point, place, point.value == sweep.default) for place, point in enumerate(sweep.points)]
    return Table(sweep.name.replace("_", "-"), sweep.title, [sweep.unit or sweep.title, *columns], rows, words=1)


def _row(point: Point, place: int, default: bool) -> list[Cell]:
    return [
        Cell(shown(point.value) + (" (default)" if default else ""), place),
        _interval(point.accuracy, ".1f", tone="strong"),
        _interval(point.over_base, "+.1f"),
        Cell("", 0) if default else _interval(point.over_default, "+.1f"),
        Cell("", 0) if point.gain is None else _interval(point.gain, "+.2f", 1),
        Cell("" if point.thought_length is None else f"{point.thought_length:.1f}", point.thought_length or 0),
        Cell("" if point.cut_off is None else f"{100 * point.cut_off:.1f}", point.cut_off or 0),
    ]


def _interval(figure: Figure, form: str, scale: float = 100, tone: str = "") -> Cell:
    bounds = f"[{scale * figure.low:{form}}, {scale * figure.high:{form}}]"
    return Cell(f"{scale * figure.estimate:{form}}", figure.estimate, bounds, tone=tone)


def _charts(sweep: Sweep, ablations: Ablations) -> list[Chart]:
    by = f"average accuracy (%) by {sweep.title[0].lower()}{sweep.title[1:]}"
    accuracy = [point.accuracy for point in sweep.points]
    values = [point.value for point in sweep.points]
    ours = _curve(sweep, values, [figure.estimate for figure in accuracy], ablations.base.estimate)
    ours["data"][0]["error_y"] = errors(accuracy, "rlp")
    note = f"{by}, {100 * ablations.confidence:g}% intervals"
    charts = [Chart(f"{sweep.name.replace('_', '-')}-ours", "This run", note, ours)]
    if sweep.paper is not None:
        paper = _curve(sweep, sweep.paper.values, sweep.paper.accuracy, sweep.paper.base)
        charts.append(Chart(f"{sweep.name.replace('_', '-')}-paper", "The paper, Qwen3-1.7B", by, paper))
    return charts


def _curve(sweep: Sweep, values: Sequence[Any], accuracy: Sequence[float], base: float | None) -> dict[str, Any]:
    """Values stand at equal distances: they are doublings, powers or names."""
    names = [shown(value) for value in values]
    named = isinstance(values[0], str)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers" if named else "lines+markers",
            "name": "RLP",
            "x": names,
            "y": [round(100 * value, 4) for value in accuracy],
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
                "y": [round(100 * base, 4)] * len(names),
                "line": {"color": "--base", "dash": "dot", "width": 2},
                "hovertemplate": "base: %{y:.1f}%<extra></extra>",
            }
        )
    shape = layout("accuracy (%)", 300)
    shape["xaxis"] |= {"type": "category", "showgrid": False, "title": title(sweep.unit)}
    shape["yaxis"]["rangemode"] = "tozero"
    return {"data": traces, "layout": shape | {"showlegend": True}}

"""The page and its Markdown twin, out of the comparison's figures. All model text is escaped."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from rlpretrain.report.evaluations import ARMS, STAGES, Evaluation, Key

COLOURS = {"base": "#6b7280", "cpt": "#d97706", "rlp": "#2563eb"}
DASHES = {"base": "dot", "cpt": "dash", "rlp": "solid"}  # so that the lines differ without colour
STAGE_NAMES = {"pretrained": "after pretraining", "sft": "after SFT", "rlvr": "after SFT and RLVR"}
CURVES = {
    "reward/gain": "Information gain in training (nats)",
    "thought/length": "Thought length (tokens)",
    "thought/cut_off": "Share of thoughts cut off",
    "thought/entropy": "Policy entropy (nats a token)",
}
THOUGHTS_SHOWN = 10


def page(results: dict[str, Any], evaluations: Mapping[Key, Evaluation]) -> str:
    """The self-contained HTML page."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    rlp = evaluations.get(("rlp", "pretrained"))
    return template.render(
        results=results,
        stage_names=STAGE_NAMES,
        plotly=get_plotlyjs(),
        charts=[(title, figure.to_json()) for title, figure in charts(results, evaluations)],
        thoughts=sorted(rlp.thoughts, key=lambda t: -t["gain"])[:THOUGHTS_SHOWN] if rlp else [],
    )


def charts(results: dict[str, Any], evaluations: Mapping[Key, Evaluation]) -> list[tuple[str, go.Figure]]:
    """Accuracy by stage for each arm, and the curves of RLP's training."""
    drawn = [("Average accuracy by stage, with intervals", _accuracy(results))]
    rlp = evaluations.get(("rlp", "pretrained"))
    if rlp is not None:
        for metric, title in CURVES.items():
            steps = [line["step"] for line in rlp.training if metric in line]
            values = [line[metric] for line in rlp.training if metric in line]
            if steps:
                figure = go.Figure(go.Scatter(x=steps, y=values, mode="lines", line={"color": COLOURS["rlp"]}))
                drawn.append((title, _styled(figure, "step")))
    return drawn


def _accuracy(results: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    for arm in ARMS:
        rows = {model["stage"]: model["averages"]["overall"] for model in results["models"] if model["arm"] == arm}
        stages = [stage for stage in STAGES if stage in rows]
        if not stages:
            continue
        figure.add_scatter(
            x=[STAGE_NAMES[stage] for stage in stages],
            y=[100 * rows[stage]["estimate"] for stage in stages],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [100 * (rows[s]["high"] - rows[s]["estimate"]) for s in stages],
                "arrayminus": [100 * (rows[s]["estimate"] - rows[s]["low"]) for s in stages],
            },
            name=arm,
            mode="lines+markers",
            line={"color": COLOURS[arm], "dash": DASHES[arm]},
            marker={"size": 9, "symbol": {"base": "circle", "cpt": "square", "rlp": "diamond"}[arm]},
        )
    figure.update_yaxes(title="accuracy (%)", rangemode="tozero")
    return _styled(figure, None)


def _styled(figure: go.Figure, x_title: str | None) -> go.Figure:
    grid = "rgba(128,128,128,0.25)"
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#808080", "family": "system-ui, sans-serif"},
        margin={"l": 56, "r": 16, "t": 16, "b": 48},
        height=320,
        legend={"orientation": "h", "y": 1.12},
    )
    figure.update_xaxes(title=x_title, gridcolor=grid)
    figure.update_yaxes(gridcolor=grid)
    return figure


def percent(figure: Mapping[str, float]) -> str:
    """An interval as percent."""
    return f"{100 * figure['estimate']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def markdown(results: dict[str, Any]) -> str:
    """The verdicts and the table as Markdown."""
    lines = [f"# {results['title']}", ""]
    lines += [f"- **{claim['verdict']}**: {claim['statement']} ({claim['detail']})" for claim in results["claims"]]
    columns = [*results["benchmarks"], *results["models"][0]["averages"]]
    lines += ["", f"| arm | stage | {' | '.join(columns)} | held-out gain (nats) |", "|---" * (len(columns) + 3) + "|"]
    for model in results["models"]:
        cells = [percent(model["accuracy"].get(name) or model["averages"][name]) for name in columns]
        gain = model["information_gain"]
        shown = f"{gain['estimate']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]" if gain else ""
        lines.append(f"| {model['arm']} | {STAGE_NAMES[model['stage']]} | {' | '.join(cells)} | {shown} |")
    note = f"Accuracy in percent, pass@1[{results['repeats']}], with {100 * results['confidence']:g}% bootstrap intervals over questions; runs: {results['runs']}."
    return "\n".join([*lines, "", note, ""])

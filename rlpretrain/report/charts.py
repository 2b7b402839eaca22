"""What the page's charts share. A chart is a Plotly figure: plain dicts of data and layout.

Colours are names of the page's CSS variables, such as "--rlp"; the page's script puts the values of the light or the
dark scheme in their place. Plotly reads markup in labels, so every name that comes from outside is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlpretrain.report.results import Figure

# Dashes and symbols tell the arms apart without colour.
DASHES = {"base": "dot", "cpt": "dash", "cpt_flops": "longdash", "rlp": "solid", "rpt": "dashdot"}
SYMBOLS = {"base": "circle", "cpt": "square", "cpt_flops": "triangle-up", "rlp": "diamond", "rpt": "cross"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


@dataclass(frozen=True)
class Chart:
    """A figure with its heading and what it shows in a sentence."""

    name: str
    title: str
    note: str
    figure: dict[str, Any]


def layout(y_title: str = "", height: int = 360) -> dict[str, Any]:
    """A quiet frame: no box, light lines, the legend above."""
    axis: dict[str, Any] = {
        "gridcolor": "--line",
        "zerolinecolor": "--dim",
        "zerolinewidth": 1,
        "showline": False,
        "fixedrange": True,
        "automargin": True,
        "tickfont": {"size": 12},
    }
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "--dim", "family": FONT, "size": 13},
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom", "font": {"color": "--ink"}},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--ink"}},
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": dict(axis),
        "yaxis": {**axis, "title": title(y_title)},
    }


def title(text: str) -> dict[str, Any]:
    """An axis' title."""
    return {"text": text, "standoff": 8, "font": {"size": 12}}


def errors(figures: Sequence[Figure], arm: str, scale: float = 100) -> dict[str, Any]:
    """Bars from the low to the high bound of every figure."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_scaled(figure.high - figure.estimate, scale) for figure in figures],
        "arrayminus": [_scaled(figure.estimate - figure.low, scale) for figure in figures],
        "color": f"--{arm}",
        "thickness": 1.6,
        "width": 4,
    }


def estimates(figures: Sequence[Figure], scale: float = 100) -> list[float]:
    """The figures' estimates times ``scale``."""
    return [_scaled(figure.estimate, scale) for figure in figures]


def _scaled(value: float, scale: float) -> float:
    return round(scale * value, 4)

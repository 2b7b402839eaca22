"""The probe's figures and page: does thinking help this model on this text, by how much, and where?"""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from rlpretrain.evaluation.kinds import KINDS
from rlpretrain.evaluation.positions import Measured, sample_line, spread_evenly
from rlpretrain.report.browser import held_out_position
from rlpretrain.report.charts import Chart, errors, estimates, layout, title
from rlpretrain.report.html import render
from rlpretrain.report.results import RESULTS_FILE, Figure, GainSlice, HeldOutPosition
from rlpretrain.report.slices import gain_slices, quarters
from rlpretrain.report.statistics import Bootstrap
from rlpretrain.report.tables import Cell, Table
from rlpretrain.settings import ProbeSettings

ARM = "model"  # what the thought browser calls the one model of a probe
BY = {"kind": "Kind of next token", "entropy": "How open the place is", "offset": "Position in the text"}
_NOTES = {
    "kind": "What kind of token the thought is asked to help with.",
    "entropy": "Quarters of the places, by the model's own entropy without a thought.",
    "offset": "Quarters of the places, by the tokens of the document before them.",
}
Verdict = Literal["helps", "harms", "no difference shown"]


class ProbeResults(BaseModel):
    """results.json of a probe: figures in nats, intervals over places."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    model: str
    corpus: str
    settings: ProbeSettings
    delimiters_added: bool = Field(description="whether the model had never met the delimiters")
    documents: int
    places: int
    verdict: Verdict = Field(description="by whether the gain's interval holds zero")
    gain: Figure = Field(description="mean over places of the mean over thoughts")
    best_thought: Figure = Field(description="mean over places of the best thought's gain: what a choice could reach")
    helped: Figure = Field(description="share of places at which the mean gain is above zero")
    logprob_without: float
    logprob_with: float
    thought_length: float = Field(description="tokens")
    cut_off: float = Field(description="share of thoughts that met the budget")
    slices: list[GainSlice]
    gains: list[float] = Field(description="a place each, in the text's order")
    entropies: list[float] = Field(description="a place each, without a thought")
    positions: list[HeldOutPosition] = Field(description="places with the first thought, evenly spaced")


def probe_results(
    model: str,
    corpus: str,
    delimiters_added: bool,
    measured: Sequence[Measured],
    tokenizer: PreTrainedTokenizerBase,
    settings: ProbeSettings,
) -> ProbeResults:
    """All figures of a probe."""
    bootstrap = Bootstrap(settings.confidence, settings.bootstrap_samples, settings.seed)
    gains = [row.gain for row in measured]

    def figure(values: Sequence[float]) -> Figure:
        interval = bootstrap.average({"places": values})
        return Figure(**{part: round(getattr(interval, part), 6) for part in Figure.model_fields})

    gain = figure(gains)
    return ProbeResults(
        model=model,
        corpus=corpus,
        settings=settings,
        delimiters_added=delimiters_added,
        documents=len({row.position.document for row in measured}),
        places=len(measured),
        verdict="helps" if gain.low > 0 else "harms" if gain.high < 0 else "no difference shown",
        gain=gain,
        best_thought=figure([max(row.gains) for row in measured]),
        helped=figure([float(value > 0) for value in gains]),
        logprob_without=round(fmean(row.logprob_without for row in measured), 6),
        logprob_with=round(fmean(value for row in measured for value in row.logprob_with), 6),
        thought_length=round(fmean(length for row in measured for length in row.lengths), 4),
        cut_off=round(fmean(cut for row in measured for cut in row.cut_off), 6),
        slices=_slices(measured, gains, bootstrap),
        gains=[round(value, 6) for value in gains],
        entropies=[round(row.entropy, 6) for row in measured],
        positions=[
            held_out_position({ARM: sample_line(tokenizer, place, measured[place])})
            for place in spread_evenly(len(measured), settings.samples)
        ],
    )


def _slices(measured: Sequence[Measured], gains: Sequence[float], bootstrap: Bootstrap) -> list[GainSlice]:
    found = gain_slices("kind", gains, [row.kind for row in measured], KINDS, bootstrap)
    found += gain_slices("entropy", gains, *quarters([row.entropy for row in measured], ".2f", "nats"), bootstrap)
    offsets = [float(row.position.offset) for row in measured]
    return found + gain_slices("offset", gains, *quarters(offsets, ".0f", "tokens"), bootstrap)


def write_probe(results: ProbeResults, output: Path) -> None:
    """results.json and index.html in ``output``."""
    text = json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    for name, content in ((RESULTS_FILE, text + "\n"), ("index.html", probe_page(results))):
        (output / name).write_text(content, encoding="utf-8", errors="backslashreplace")


def probe_page(results: ProbeResults) -> str:
    """The page. The same results give the same bytes."""
    charts = [_slice_chart(results, by) for by in BY if any(part.by == by for part in results.slices)]
    scatter = _scatter(results)
    return render(
        "probe.html.j2",
        [*charts, scatter],
        title=f"Does thinking help {_short(results.model)}?",
        results=results,
        charts=charts,
        scatter=scatter,
        slice_rows=slice_table(results),
        browser={
            "arms": {ARM: _short(results.model)},
            "positions": [position.model_dump(mode="json") for position in results.positions],
        },
    )


def _short(model: str) -> str:
    """A path's last part; a hub id as it is."""
    return model.rstrip("/").rpartition("/")[2] if model.count("/") != 1 else model


def slice_table(results: ProbeResults) -> Table:
    """The gain overall and of every slice, as the page and the terminal show it."""
    whole = GainSlice(by="kind", name="all places", positions=results.places, **results.gain.model_dump())
    rows = [
        [
            Cell("overall" if part is whole else BY[part.by], -1 if part is whole else list(BY).index(part.by)),
            Cell(part.name),
            Cell(f"{part.positions:,}", part.positions),
            Cell(f"{part.estimate:+.3f}", part.estimate, f"[{part.low:+.3f}, {part.high:+.3f}]", tone="strong"),
            _shows(part),
        ]
        for part in [whole, *results.slices]
    ]
    return Table("slices", "Gain by slice", ["by", "places", "number", "gain (nats)", "thinking"], rows)


def _shows(figure: Figure) -> Cell:
    if figure.low > 0:
        return Cell("▲ helps", 1, tone="up")
    return Cell("▼ harms", -1, tone="down") if figure.high < 0 else Cell("no difference shown", 0)


def _slice_chart(results: ProbeResults, by: str) -> Chart:
    found = [part for part in results.slices if part.by == by]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "orientation": "h",
        "y": [f"{part.name}<br><i>{part.positions} places</i>" for part in found],
        "x": estimates(found, 1),
        "error_x": errors(found, "rlp", 1),
        "marker": {"size": 9, "symbol": "diamond", "color": "--rlp"},
        "hovertemplate": "%{y}: %{x:+.3f} nats<extra></extra>",
    }
    shown = layout(height=90 + 46 * len(found))
    shown["yaxis"] |= {"autorange": "reversed", "showgrid": False, "title": None}
    shown["xaxis"] |= {"title": title("information gain (nats)"), "zerolinewidth": 2, "rangemode": "tozero"}
    return Chart(f"by-{by}", BY[by], _NOTES[by], {"data": [trace], "layout": shown | {"showlegend": False}})


def _scatter(results: ProbeResults) -> Chart:
    names = {position.position: position.next_token for position in results.positions}
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": results.entropies,
        "y": results.gains,
        "text": [html.escape(repr(names.get(place, ""))) for place in range(results.places)],
        "marker": {"size": 7, "color": "--rlp", "opacity": 0.45},
        "hovertemplate": "%{text}: %{y:+.2f} nats at entropy %{x:.2f}<extra></extra>",
    }
    shown = layout("gain (nats)", 340)
    shown["xaxis"] |= {"title": title("entropy without a thought (nats)"), "zeroline": False}
    note = "The mean gain of the thoughts at a place; above the line they help."
    return Chart("places", "Every place", note, {"data": [trace], "layout": shown | {"showlegend": False}})

"""The self-contained HTML page: opens from disk, loads nothing, follows the reader's light or dark scheme.

All text that comes from outside, above all what models wrote, is escaped: by Jinja in HTML, by `tojson` in scripts.
"""

import math
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from rlpretrain.report.evaluations import STAGES
from rlpretrain.report.markdown import note
from rlpretrain.report.plots import Chart, result_charts, training_charts
from rlpretrain.report.results import Model, Results
from rlpretrain.report.tables import accuracy_table, gain_rows, interval_bar, sections
from rlpretrain.report.words import ARM_NAMES, STAGE_NAMES, column_name

MARKS = {"holds": "✓", "fails": "✗", "not tested": "?"}
CONTEXT_SHOWN = 240  # characters of a context on the page, its end
THOUGHT_SHOWN = 1200  # characters of a thought, its beginning
TOKEN_SHOWN = 60  # characters of the next token


def page(results: Results) -> str:
    """The page. The same results give the same bytes."""
    headline = sections(results.claims)[0][1]
    shown, training = result_charts(results), training_charts(results)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            results=results,
            note=note(results),
            marks=MARKS,
            headline=[(claim, interval_bar(claim, headline)) for claim in headline],
            ledger=sections(results.claims)[1:],
            table=accuracy_table(results),
            gains=gain_rows(results),
            charts=shown,
            training=training,
            figures=_figures([*shown, *training]),
            thoughts=results.thoughts,
            models=sorted(results.models, key=lambda model: STAGES.index(model.stage)),
            libraries=_libraries(results.models),
            exp=math.exp,
            context_shown=CONTEXT_SHOWN,
            thought_shown=THOUGHT_SHOWN,
            token_shown=TOKEN_SHOWN,
            plotly=get_plotlyjs(),
        )
    )


def environment() -> jinja2.Environment:
    """Where the pages' templates lie, with the words that they use."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("rlpretrain.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "arm": ARM_NAMES.__getitem__,
        "stage": STAGE_NAMES.__getitem__,
        "column": column_name,
        "model": _model_name,
        "percent": _percent,
    }
    return made


def _figures(charts: list[Chart]) -> dict[str, Any]:
    return {f"chart-{chart.name}": chart.figure for chart in charts}


def _model_name(model: Model) -> str:
    stage = STAGE_NAMES[model.stage]
    return f"{ARM_NAMES[model.arm]}, {stage[0].lower()}{stage[1:]}"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f}"


def _libraries(models: list[Model]) -> list[str]:
    """Name and version of every library; several versions when the evaluations differ."""
    versions: dict[str, set[str]] = {}
    for model in models:
        for source in model.sources:
            for name, version in source.libraries.items():
                versions.setdefault(name, set()).add(version)
    return [f"{name} {' / '.join(sorted(found))}" for name, found in sorted(versions.items())]

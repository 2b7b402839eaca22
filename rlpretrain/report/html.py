"""Pages as one HTML file each: they open from disk, load nothing and follow the reader's light or dark scheme.

All text that comes from outside, above all what models wrote, is escaped: by Jinja in HTML, by `tojson` in scripts.
Plotly stands in the page compressed, which takes 1.9 MB instead of 4.8; the browser inflates it.
"""

import base64
import gzip
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from rlpretrain.report.charts import Chart

_NO_THOUGHTS: dict[str, Any] = {"arms": {}, "positions": []}


def render(template: str, shown: Iterable[Chart], browser: Mapping[str, Any] = _NO_THOUGHTS, **values: Any) -> str:
    """A page of this folder's ``template``, which places the charts ``shown`` itself. The same values give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rlpretrain.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    figures = {f"chart-{chart.name}": chart.figure for chart in shown}
    return environment.get_template(template).render(
        figures=figures, browser=browser, plotly=_compressed_plotly(), **values
    )


@cache
def _compressed_plotly() -> str:
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()

"""The page: nothing loaded, hostile text harmless, small enough, and drawn by a real browser."""

import json
import re
from html.parser import HTMLParser

import pytest

from rlpretrain.report.build import compare_runs
from rlpretrain.report.results import parse_results
from rlpretrain.report.tables import accuracy_table, interval_bar
from rlpretrain.settings import CompareSettings

SETTINGS = CompareSettings(title="A test", profile="mini", bootstrap_samples=200)
PAIR = [("base", "pretrained"), ("rlp", "pretrained")]
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{ 7*7 }}"
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction", "xlink:href"}


class Loads(HTMLParser):
    """Collects what a page would load, and its style and script texts apart from Plotly's own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.styles = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in LOADING]
        self.styles += "".join(value or "" for name, value in attrs if name == "style")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "style":
            self.styles += data


def thoughts(text: str) -> list[dict]:
    row = {"context": text, "thought": text, "next_token": text, "logprob_with": -1.0, "logprob_without": -2.0}
    return [{**row, "document": str(n), "gain": 1.0, "cut_off": False} for n in range(12)]


@pytest.fixture
def hostile_page(run_of, tmp_path):
    run = run_of("run", keys=PAIR, thoughts=thoughts(HOSTILE), groups={HOSTILE.replace("/", ""): "math", "b": "<b>"})
    settings = SETTINGS.model_copy(update={"title": HOSTILE, "profile": HOSTILE})
    compare_runs([run], settings, tmp_path / "out")
    return tmp_path / "out" / "index.html"


def test_nothing_is_loaded(run_of, tmp_path):
    compare_runs([run_of("run")], SETTINGS, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    loads = Loads()
    loads.feed(text)
    assert loads.found == [] and not {"link", "iframe", "object", "embed", "base"} & set(loads.tags)
    assert "url(" not in loads.styles and "@import" not in loads.styles
    assert "default-src 'none'" in text
    assert text.count("Plotly, Inc.") >= 1 and text.count("plotly.js v") == 1, "Plotly stands in the page, once"
    assert str(tmp_path) not in text


def test_the_page_stays_small(run_of, tmp_path):
    """Under 5 MB (Plotly alone takes 4.8), also with long trainings and thoughts of several seeds."""
    runs = [run_of(f"r{n}", seed=n, steps=1500, thoughts=thoughts("long " * 4000)) for n in range(3)]
    compare_runs(runs, SETTINGS, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").stat().st_size < 5_000_000


def test_hostile_text_stays_text(hostile_page):
    text = hostile_page.read_text()
    assert "<script>document.title" not in text and "<img" not in text and "{{ 7*7 }}" in text
    data = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])
    labels = data["chart-gap"]["data"][0]["y"]
    assert labels[1].startswith("&lt;") and labels[2] == "b"


def test_hostile_text_in_a_browser(hostile_page, browse):
    document = browse(hostile_page)
    assert "<title>taken" not in document and document.count("main-svg") >= 5
    assert re.search(r"<img\b", re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)) is None


@pytest.mark.parametrize("scheme", ["0", "1"])  # dark, light
def test_the_browser_draws_every_chart(run_of, tmp_path, browse, scheme):
    compare_runs([run_of("run")], SETTINGS, tmp_path / "out")
    document = browse(tmp_path / "out" / "index.html", f"--blink-settings=preferredColorScheme={scheme}")
    for name in (
        "accuracy",
        "gap",
        "reward-gain",
        "thought-length",
        "thought-cut-off",
        "thought-entropy",
        "rlvr-correct",
    ):
        assert re.search(rf'id="chart-{name}"[^>]*js-plotly-plot', document), f"{name} was not drawn"
    colour = "rgb(125, 162, 255)" if scheme == "0" else "rgb(36, 88, 211)"
    assert colour in document, "the charts take the scheme's colours"


def test_table_and_bars(run_of, tmp_path):
    compare_runs([run_of("run")], SETTINGS, tmp_path / "out")
    results = parse_results(json.loads((tmp_path / "out" / "results.json").read_text()))
    table = accuracy_table(results)
    assert table.columns[:4] == ["overall", "math", "science", "sums"] and len(table.columns) == 11
    assert [(stage, [arm for arm, _ in rows]) for stage, rows in table.stages] == [
        (stage, ["base", "cpt", "rlp"]) for stage in ("pretrained", "sft", "rlvr")
    ]
    for claim in results.claims:
        if claim.figure is None:
            continue
        bar = interval_bar(claim, results.claims)
        assert 0 < bar.low < bar.estimate < bar.high < 100 and 0 < bar.zero < 100

"""The comparison's page in a real browser: nothing loaded, every chart drawn, tables and thoughts that obey, text that
stays text, room on a phone, contrast in both schemes. `browse` fails a test when a page logs or asks for anything."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from rlpretrain.report.build import compare_runs
from rlpretrain.settings import CompareSettings, HeldOutGainSettings
from tests.browser import visiting
from tests.rlpretrain.report.artifacts import thought_row, write_evaluation, write_run

SETTINGS = CompareSettings(title="A test", profile="mini", bootstrap_samples=200)
PAIR = [("base", "pretrained"), ("rlp", "pretrained")]
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">'`${1}{{ 7*7 }}"
)
RTL = "\u202e\u05e9\u05dc\u05d5\u05dd\u202c"
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction", "xlink:href"}
# WCAG's contrast of an element's text with what lies behind it, below which people with weak sight cannot read it.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = (node) => {
    const layers = [];
    for (; node; node = node.parentElement) layers.push(rgba(getComputedStyle(node).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.disabled) continue;
    const ground = behind(node), text = over(rgba(getComputedStyle(node).color), ground);
    const [dark, bright] = [light(text), light(ground)].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < 4.5) poor.push(`${node.className || node.tagName} ${ratio.toFixed(2)}: ${node.textContent.slice(0, 30)}`);
  }
  return poor;
}
"""


class Loads(HTMLParser):
    """Collects what a page would load, and its style texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.styles = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [f"{tag} {n}={v}" for n, v in attrs if n in LOADING and not (v or "").startswith("#")]
        self.styles += "".join(value or "" for name, value in attrs if name == "style")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "style":
            self.styles += data


def built(folder: Path, settings: CompareSettings = SETTINGS, runs: int = 1, **options: object) -> Path:
    compare_runs([write_run(folder / f"run{n}", seed=n, **options) for n in range(runs)], settings, folder / "out")
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three arms, every stage, two seeds."""
    return built(tmp_path_factory.mktemp("whole"), runs=2)


@pytest.fixture(scope="module")
def desk(chromium: Browser, whole: Path) -> Iterator[Page]:
    """That page on a desk's screen. The tests share it: each touches a part of its own."""
    with visiting(chromium) as visit:
        yield visit(whole)


@pytest.fixture(scope="module")
def phone(chromium: Browser, whole: Path) -> Iterator[Page]:
    """The same on a phone, in the dark."""
    with visiting(chromium) as visit:
        yield visit(whole, width=390, dark=True)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose every name and text was written by someone who means harm."""
    texts = {"context": HOSTILE + RTL, "next_token": HOSTILE, "kind": "other", "document": HOSTILE}
    rows = [thought_row(n, HOSTILE + "huge " * 3000 + RTL, **texts) for n in range(3)]
    settings = SETTINGS.model_copy(update={"title": HOSTILE, "profile": HOSTILE + "wide" * 200})
    groups = {HOSTILE.replace("/", ""): "math", "b": "<b>"}
    return built(tmp_path_factory.mktemp("hostile"), settings, keys=PAIR, thoughts=rows, groups=groups)


def test_nothing_is_loaded(whole):
    text = whole.read_text()
    loads = Loads()
    loads.feed(text)
    assert loads.found == [] and not {"link", "iframe", "object", "embed", "base"} & set(loads.tags)
    assert "url(" not in loads.styles and "@import" not in loads.styles
    assert "default-src 'none'" in text
    assert str(whole.parent.parent) not in text


def test_the_page_stays_small(tmp_path):
    """Under 5 MB, also with long trainings, several seeds, and long thoughts at as many places as are kept by default."""
    rows = [thought_row(n, "long " * 4000, context="far " * 500) for n in range(HeldOutGainSettings().samples)]
    keys = [*PAIR, ("cpt", "pretrained")]
    assert built(tmp_path, runs=3, steps=1500, keys=keys, thoughts=rows).stat().st_size < 5_000_000


@pytest.mark.parametrize("screen", ["phone", "desk"])
def test_every_chart_has_marks_and_nothing_is_wider_than_the_screen(request, screen):
    page = request.getfixturevalue(screen)
    charts = page.locator(".chart")
    names = charts.evaluate_all("all => all.map((chart) => chart.id)")
    assert {"chart-accuracy", "chart-gap", "chart-gain-kind", "chart-gain-entropy"} <= set(names)
    for metric in (
        "reward-gain",
        "thought-length",
        "thought-cut-off",
        "thought-entropy",
        "thought-zero-variance",
        "optim-grad-norm",
        "throughput",
    ):
        assert f"chart-pretrained-{metric}" in names
    marks = "all => all.map((chart) => chart.querySelectorAll('.scatterlayer .point, .scatterlayer .js-line').length)"
    drawn = dict(zip(names, charts.evaluate_all(marks), strict=True))
    assert all(drawn.values()), [name for name, count in drawn.items() if not count]
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_labels_of_a_chart_do_not_overlap(phone):
    overlapping = """all => all.flatMap((chart) => [".xtick text", ".ytick text", ".legendtext"].map((kind) => {
      const boxes = [...chart.querySelectorAll(kind)].map((text) => text.getBoundingClientRect());
      return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 1 && b.top < a.bottom - 1)) ? `${chart.id} ${kind}` : "";
    }).filter(Boolean))"""
    assert phone.locator(".chart").evaluate_all(overlapping) == []


@pytest.mark.parametrize(
    ("screen", "colour"), [("desk", "rgb(36, 88, 211)"), ("phone", "rgb(130, 166, 255)")], ids=["light", "dark"]
)
def test_text_can_be_read_in_both_schemes(request, screen, colour):
    page = request.getfixturevalue(screen)
    assert page.evaluate(CONTRAST) == []
    line = page.locator("#chart-accuracy .js-line").last
    assert line.evaluate("line => getComputedStyle(line).stroke") == colour, "charts take the scheme's colours"


def test_arms_differ_without_colour(desk):
    page = desk
    dashes = page.locator("#chart-rlvr-reward-correct .js-line").evaluate_all(
        "lines => lines.map((line) => getComputedStyle(line).strokeDasharray)"
    )
    assert len(set(dashes)) == 3


def test_a_table_sorts_by_click_and_by_keyboard(desk):
    page = desk
    table = page.locator("[data-name=accuracy] table")
    heading = table.locator("thead tr:last-child th").nth(2)

    def averages() -> list[float]:
        return table.locator("tbody tr td:nth-child(3)").evaluate_all("all => all.map((cell) => +cell.dataset.sort)")

    before = averages()
    heading.locator("button").click()
    assert averages() == sorted(before, reverse=True) and heading.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")  # the heading has the focus
    assert averages() == sorted(before) and heading.get_attribute("aria-sort") == "ascending"
    table.locator("thead button", has_text="stage").focus()
    page.keyboard.press("Space")
    assert table.locator("tbody th").first.text_content() == "After pretraining"
    assert heading.get_attribute("aria-sort") == "none"


def test_a_table_filters_by_every_word(desk):
    page = desk
    frame = page.locator("[data-name=tests]")
    frame.locator("input").fill("rlp cpt genetics pretraining")
    visible = frame.locator("tbody tr:visible")
    assert visible.count() == 1 and "genetics" in (visible.text_content() or "")
    assert frame.locator(".count").text_content() == "1 of 72 rows"


def test_the_thought_browser_sorts_filters_and_searches(desk):
    page = desk
    cards, form = page.locator("#thoughts > li"), page.locator("form.browse")
    assert cards.count() == 10 and page.locator("#thoughts-more").is_hidden()
    assert cards.first.locator(".said").count() == 3, "base, CPT and RLP side by side"

    def gains(arm: str) -> list[float]:
        texts = page.locator(f"#thoughts .said.{arm} .gain").all_text_contents()
        return [float(text.removesuffix(" nats").replace("\u2212", "-")) for text in texts]

    form.locator("[name=order]").select_option("gain")
    assert gains("rlp") == sorted(gains("rlp"), reverse=True)
    form.locator("[name=arm]").select_option("base")
    form.locator("[name=order]").select_option("loss")
    assert gains("base") == sorted(gains("base"))
    form.locator("[name=order]").select_option("cut")
    assert "cut off" in (cards.first.text_content() or "")
    form.locator("[name=order]").focus()
    page.keyboard.press("End")  # by keyboard alone: the last order, the text's own
    assert "number 0" in (cards.first.text_content() or "")
    form.locator("[name=text]").fill("number 7")
    assert cards.count() == 1 and page.locator("#thoughts-count").text_content() == "1 of 1 places shown"


def test_the_most_telling_thoughts_come_first(tmp_path, browse):
    runs = write_run(tmp_path / "base", keys=PAIR[:1], thoughts=[thought_row(n, "so", 0.0) for n in range(30)])
    gains = {3: 2.0, 17: -3.0, 21: 1.0}
    runs |= write_run(
        tmp_path / "rlp", keys=PAIR[1:], thoughts=[thought_row(n, "so", gains.get(n, 0.1)) for n in range(30)]
    )
    compare_runs([runs], SETTINGS, tmp_path / "out")
    page = browse(tmp_path / "out" / "index.html")
    cards = page.locator("#thoughts > li")
    assert [re.search(r"place (\d+)", text)[1] for text in cards.all_text_contents()[:3]] == ["17", "3", "21"]
    assert cards.count() == 12
    page.locator("#thoughts-more").click()
    assert cards.count() == 24


def test_hostile_text_stays_text(hostile, browse):
    page = browse(hostile, width=390)
    assert page.title() == HOSTILE and page.locator("img").count() == 0
    assert page.locator("h1").text_content() == HOSTILE
    assert HOSTILE in (page.locator("#thoughts .context").first.text_content() or "")
    assert HOSTILE in (page.locator("#thoughts .said .mono").first.text_content() or "")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    seen = """mark => {
      const [token, box] = [mark, mark.parentElement].map((node) => node.getBoundingClientRect());
      return token.bottom <= box.bottom + 1 && mark.parentElement.scrollHeight > mark.parentElement.clientHeight;
    }"""
    assert page.locator("#thoughts .next").first.evaluate(seen), (
        "of a long context the end is shown, with the next token"
    )
    assert page.locator("#chart-gap .ytick text").all_text_contents()[1].startswith("<script>")
    assert "{{ 7*7 }}" in hostile.read_text()


def test_the_page_is_reached_by_keyboard(phone):
    page = phone
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    anchors = page.locator("nav a").evaluate_all("all => all.map((link) => link.getAttribute('href'))")
    assert all(page.locator(anchor).count() == 1 for anchor in anchors) and len(anchors) == 10


@pytest.fixture(scope="module")
def warned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of trainings of which one step was left out, and one collapsed; unknown names are someone's who means harm."""
    signs = ["thought/length", "thought/entropy", "thought/cut_off", "thought/zero_variance", HOSTILE]
    notes = {n: {"warnings": signs} for n in range(6, 31)} | {4: {"skipped": True, "warnings": [HOSTILE]}}
    return built(tmp_path_factory.mktemp("warned"), keys=PAIR, notes=notes)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desk", "phone"])
def test_warnings_from_training_are_seen(warned, browse, width, dark):
    page = browse(warned, width=width, dark=dark)
    page.get_by_role("link", name="⚠ 10 warnings from training").click()
    box = page.get_by_role("group", name="Warnings from training")
    assert box.is_visible() and page.evaluate("location.hash") == "#warnings"
    below_the_bar = (
        "box => box.getBoundingClientRect().top >= document.querySelector('nav').getBoundingClientRect().bottom"
    )
    assert box.evaluate(below_the_bar)
    rows = box.locator("tbody tr").evaluate_all("all => all.map((row) => [...row.cells].map((c) => c.textContent))")
    assert [row[1:] for row in rows if row[0] == "Pretraining"] == [
        ["RLP", "thoughts have shrunk to nothing(thought/length)", "25", "6", "30"],
        ["RLP", "thoughts have lost their variety(thought/entropy)", "25", "6", "30"],
        ["RLP", "nearly all thoughts are cut off by the budget(thought/cut_off)", "25", "6", "30"],
        [
            "RLP",
            "nearly all groups have one reward, so that nothing is learned(thought/zero_variance)",
            "25",
            "6",
            "30",
        ],
        ["RLP", "steps left out, as loss, reward or gradient was not finite", "1", "4", "4"],
    ]
    assert page.evaluate("document.documentElement.scrollWidth") <= width and page.evaluate(CONTRAST) == []
    assert page.title() == "A test" and HOSTILE not in (page.text_content("body") or "")


def test_without_warnings_the_page_has_no_box(desk):
    assert desk.locator("#warnings, [href='#warnings'], [data-name=warnings]").count() == 0


def test_warnings_are_seen_without_curves(tmp_path, browse):
    """Only the base model's own training left a step out; its curves are not shown."""
    noted = {"base": {3: {"skipped": True}}, "rlp": {}}
    run = {
        (arm, "pretrained"): write_evaluation(tmp_path / arm, arm=arm, steps=3 * (arm == "base"), notes=notes)
        for arm, notes in noted.items()
    }
    compare_runs([run], SETTINGS, tmp_path / "out")
    page = browse(tmp_path / "out" / "index.html")
    assert page.locator("#training .chart").count() == 0
    assert page.locator("#warnings tbody tr").all_text_contents() == [
        "Base training, shared by allbasesteps left out, as loss, reward or gradient was not finite133"
    ]
    assert page.locator("nav a[href='#training']").count() == 1


def test_without_what_was_not_measured_the_page_still_stands(tmp_path, browse):
    """No thoughts, no curves, no held-out gain: two evaluations' accuracies alone."""
    page = browse(built(tmp_path, keys=PAIR, thoughts=[], steps=0))
    assert page.locator("#chart-accuracy .point").count() == 2
    assert page.locator("#browser-section, #training").count() == 0

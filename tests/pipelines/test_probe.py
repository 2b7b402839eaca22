"""`probe` from the command line on a small model: page, figures, table; and every mistake in one line before long work."""

import json
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main
from rlpretrain.artifacts import write_manifest
from rlpretrain.models import new_model, save_model
from rlpretrain.report.probe import ProbeResults, probe_page
from rlpretrain.settings import ArchitectureSettings
from rlpretrain.tokenizer import load_tokenizer

SHAPE = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16, max_positions=96)
QUICK = ["--places", "24", "--thoughts", "2", "--budget", "4", "--context", "16"]


def probe(*arguments: str) -> int:
    sys.argv = ["pipelines", "probe", *arguments]
    return main()


@pytest.fixture(autouse=True)
def _argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of characters in a folder, as transformers saves it."""
    folder = tmp_path_factory.mktemp("probe") / "model"
    tokenizer = load_tokenizer("builtin:characters")
    save_model(new_model(SHAPE, tokenizer, 0), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def text(model: Path) -> Path:
    place = model.parent / "text.txt"
    place.write_text("It is 12 km to the sea, and 7 + 5 = 12. We walked on.\n" * 4)
    return place


@pytest.fixture(scope="module")
def probed(model: Path, text: Path) -> Path:
    output = model.parent / "out"
    before = sys.argv
    assert probe("--model", str(model), "--corpus", str(text), "--output", str(output), *QUICK) == 0
    sys.argv = before
    return output


def read(folder: Path) -> ProbeResults:
    return ProbeResults.model_validate_json((folder / "results.json").read_text())


def test_the_figures_hang_together(probed, model):
    results = read(probed)
    assert results.model == str(model) and results.documents == 1 and results.places == len(results.gains) == 24
    assert results.gain.estimate == pytest.approx(sum(results.gains) / 24, abs=1e-4)
    assert results.gain.estimate == pytest.approx(results.logprob_with - results.logprob_without, abs=1e-4)
    assert results.gain.low <= results.gain.estimate <= results.gain.high < results.best_thought.high + 1e-9
    assert results.verdict == (
        "helps" if results.gain.low > 0 else "harms" if results.gain.high < 0 else "no difference shown"
    )
    assert not results.delimiters_added and len(results.positions) == 24
    for by in ("kind", "entropy", "offset"):
        assert sum(part.positions for part in results.slices if part.by == by) <= 24
    assert {part.by for part in results.slices} >= {"kind"}


def test_the_same_again_and_another_with_another_seed(probed, model, text, tmp_path):
    common = ("--model", str(model), "--corpus", str(text), *QUICK)
    assert probe(*common, "--output", str(tmp_path / "same")) == 0
    assert (tmp_path / "same" / "results.json").read_bytes() == (probed / "results.json").read_bytes()
    assert (tmp_path / "same" / "index.html").read_bytes() == (probed / "index.html").read_bytes()
    assert probe(*common, "--output", str(tmp_path / "other"), "--seed", "1") == 0
    assert read(tmp_path / "other").gains != read(probed).gains


def test_the_table_on_the_terminal(model, text, tmp_path, capsys):
    assert probe("--model", str(model), "--corpus", str(text), "--output", str(tmp_path / "out"), *QUICK) == 0
    out, err = capsys.readouterr()
    assert (
        "all places" in out
        and "Kind of next token" in out
        and str(tmp_path / "out" / "index.html") in out.replace("\n", "")
    )
    assert "24 of 24 places" in err


def test_checkpoints_and_jsonl_and_generators(model, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model").symlink_to(model)
    write_manifest(checkpoint, kind="checkpoint", settings={}, inputs={}, seed=0, facts={})
    lines = [{"body": f"{n} and {n + 1} make {2 * n + 1}."} for n in range(12)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = ("--model", str(checkpoint), "--output", str(tmp_path / "out"), *QUICK)
    assert probe(*common, "--corpus", str(tmp_path / "text.jsonl"), "--field", "body") == 0
    assert read(tmp_path / "out").documents == 12
    assert probe(*common, "--corpus", "generator:mini_documents", "--documents", "8") == 0
    assert read(tmp_path / "out").documents == 8


def test_delimiters_that_a_model_has_never_met_are_added_and_said(model, text, tmp_path):
    strange = ("--delimiters", "<<", ">>", "--output", str(tmp_path / "out"))
    assert probe("--model", str(model), "--corpus", str(text), *strange, *QUICK) == 0
    assert read(tmp_path / "out").delimiters_added
    assert "has never met the delimiters" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--model": "{tmp}/nowhere"}, ("cannot load", "nowhere")),
        ({"--model": "{tmp}"}, ("--model", "no config.json")),
        ({"--model": "package:not-there"}, ("package 'not-there' is not installed",)),
        ({"--corpus": "{tmp}/nowhere.txt"}, ("--corpus", "does not exist")),
        ({"--corpus": "{tmp}/empty.txt"}, ("--corpus", "no document of two tokens")),
        ({"--corpus": "{tmp}/rows.jsonl"}, ("no column 'text'", "body")),
        ({"--corpus": "generator:nope"}, ("unknown generator 'nope'", "mini_documents")),
        ({"--budget": "200"}, ("thought.budget 200", "96")),
        ({"--places": "0"}, ("places", "greater than or equal to 1")),
        ({"--temperature": "0"}, ("thought.temperature",)),
    ],
)
def test_mistakes_give_one_clear_line(model, text, tmp_path, capsys, changes, words):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "rows.jsonl").write_text('{"body": "a text"}\n')
    given = {
        "--model": str(model),
        "--corpus": str(text),
        "--output": str(tmp_path / "out"),
        **dict(zip(QUICK[::2], QUICK[1::2], strict=True)),
    }
    given |= {name: value.replace("{tmp}", str(tmp_path)) for name, value in changes.items()}
    assert probe(*(part for pair in given.items() for part in pair)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and all(word in line for word in words), line


def test_the_page_in_a_browser(probed, browse, tmp_path):
    hostile = "</script><img src=x>" + "wide" * 100
    page_text = probe_page(read(probed).model_copy(update={"model": hostile, "corpus": hostile}))
    (tmp_path / "index.html").write_text(page_text)
    page = browse(tmp_path / "index.html", width=390)
    marks = "all => all.map((chart) => chart.querySelectorAll('.scatterlayer .point').length)"
    assert all(page.locator(".chart").evaluate_all(marks)) and page.locator(".chart").count() >= 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and page.locator("img").count() == 0
    assert page.locator("#thoughts > li").count() == 12
    assert page.locator("form.browse [name=arm]").is_hidden(), "there is one model"
    inside = "all => all.every((gain) => gain.getBoundingClientRect().right <= innerWidth - 16)"
    assert page.locator(".said .gain").evaluate_all(inside)

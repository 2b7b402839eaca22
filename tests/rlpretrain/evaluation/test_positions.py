"""What is measured at a place: gains against the model's own prediction, kinds of tokens, entropy, the kept samples."""

import math

import numpy as np
import pytest

from rlpretrain.evaluation.information_gain import summary
from rlpretrain.evaluation.kinds import token_kind
from rlpretrain.evaluation.positions import measure, next_token_text, sample_line, spread_evenly
from rlpretrain.models import new_model
from rlpretrain.scoring import Position, score_and_entropy, score_unthinking
from rlpretrain.settings import ArchitectureSettings, HeldOutGainSettings, ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer

SHAPE = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16, max_positions=96)
SETTINGS = HeldOutGainSettings(group=3, max_context=32, thought=ThoughtSettings(budget=5), batch=6)


@pytest.fixture(scope="module")
def small():
    tokenizer = load_tokenizer("builtin:characters")
    return new_model(SHAPE, tokenizer, 0).eval(), tokenizer, ThoughtFormat.build(SETTINGS.thought, tokenizer)


def places(tokenizer, texts=("1+2=3", "the cat", "a, b")):
    ids = [np.array(tokenizer.encode(text)) for text in texts]
    return [Position(row[:-1], row[-1:], text, len(row) - 1) for row, text in zip(ids, texts, strict=True)]


@pytest.mark.parametrize(
    ("before", "token", "kind"),
    [
        ("=", "4", "number"),
        (" ", "12,", "number"),
        (" ", "cat", "word start"),
        ("a", " cat", "word start"),
        ("c", "at", "word rest"),
        ("1", "km", "word start"),
        ("1", "+", "operator"),
        ("a", " <=", "operator"),
        ("a", ".", "punctuation"),
        ("a", "\n\n", "space"),
        ("a", "", "other"),
        ("a", "\ufffd", "punctuation"),
        ("a", "中", "word rest"),
    ],
)
def test_token_kinds(before, token, kind):
    assert token_kind(before, token) == kind


def test_gains_are_with_minus_without_and_the_same_again(small):
    model, tokenizer, form = small
    positions = places(tokenizer)
    first, second = (measure(model, tokenizer, form, positions, SETTINGS, seed=1) for _ in range(2))
    assert [row.thoughts for row in first] == [row.thoughts for row in second]
    baseline = score_unthinking(model, form, positions, True)
    for row, without in zip(first, baseline.tolist(), strict=True):
        assert row.logprob_without == pytest.approx(without, abs=1e-5) and len(row.gains) == 3
        assert row.gain == pytest.approx(sum(row.logprob_with) / 3 - without, abs=1e-5)
        assert all(1 <= length <= 5 for length in row.lengths)
        assert [cut for cut in row.cut_off] == [thought[-1] != form.close_id for thought in row.thoughts]


@pytest.mark.parametrize("exclude", [True, False])
def test_entropy_is_of_the_very_prediction_that_is_scored(small, exclude):
    model, tokenizer, form = small
    position = places(tokenizer, ("1+2=3",))[0]
    tokens = [token for token in range(len(tokenizer)) if not (exclude and token in form.delimiter_ids)]
    every = [Position(position.context, np.array([token])) for token in tokens]
    logprob = score_unthinking(model, form, every, exclude)
    expected = float(-(logprob.exp() * logprob).sum())
    score, entropy = score_and_entropy(model, form, [position], exclude)
    assert float(entropy) == pytest.approx(expected, abs=1e-4)
    assert float(score) == float(score_unthinking(model, form, [position], exclude))
    assert 0 < expected < math.log(len(tokens))


def test_a_kept_line_holds_the_first_thought_without_its_delimiter(small):
    model, tokenizer, form = small
    [row] = measure(model, tokenizer, form, places(tokenizer, ("1+2=3",)), SETTINGS, seed=0)
    line = sample_line(tokenizer, 7, row)
    assert line["position"] == 7 and line["document"] == "1+2=3" and line["context"] == "1+2="
    assert (line["next_token"], line["kind"], line["offset"]) == ("3", "number", 4)
    assert "</think>" not in line["thought"] and line["length"] == len(row.thoughts[0])
    assert line["gain"] == pytest.approx(line["logprob_with"] - line["logprob_without"], abs=1e-5)


def test_a_summary_has_an_entry_a_position(small):
    model, tokenizer, form = small
    figures = summary(measure(model, tokenizer, form, places(tokenizer), SETTINGS, seed=0), 3)
    assert figures["positions"] == len(figures["per_position"]) == len(figures["kind_per_position"]) == 3
    assert figures["kind_per_position"] == ["number", "word rest", "word start"]
    assert figures["mean"] == pytest.approx(figures["reasoned_logprob"] - figures["baseline_logprob"], abs=1e-5)


def test_a_token_keeps_its_blank(small):
    _, tokenizer, _ = small
    assert next_token_text(tokenizer, places(tokenizer, ("a ",))[0]) == ("a", " ")


def test_spread_evenly():
    assert spread_evenly(10, 4) == [0, 3, 6, 9] and spread_evenly(3, 9) == [0, 1, 2] and spread_evenly(5, 0) == []

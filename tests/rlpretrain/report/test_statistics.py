"""The bootstrap against known values, and its coverage."""

import numpy as np
import pytest

from rlpretrain.report.statistics import Bootstrap, holm


def test_equal_values_have_no_width():
    interval = Bootstrap(0.95, 200, 0).average({"a": [0.5] * 7, "b": [1.0] * 3})
    assert (interval.estimate, interval.low, interval.high) == (0.75, 0.75, 0.75)


def test_interval_of_a_mean_is_the_normal_one_for_many_values():
    values = [0.0, 1.0] * 200
    interval = Bootstrap(0.95, 20_000, 0).average({"a": values})
    half = 1.96 * 0.5 / np.sqrt(400)
    assert interval.estimate == 0.5
    assert interval.low == pytest.approx(0.5 - half, abs=0.003) and interval.high == pytest.approx(
        0.5 + half, abs=0.003
    )


def test_average_is_stratified():
    """Each benchmark keeps its weight whatever its size, and the spread between benchmarks does not widen the interval."""
    bootstrap = Bootstrap(0.95, 20_000, 0)
    interval = bootstrap.average({"easy": [1.0] * 400, "hard": [0.0] * 4, "even": [0.0, 1.0] * 50})
    assert interval.estimate == pytest.approx(0.5)
    half = 1.96 * 0.5 / np.sqrt(100) / 3  # of "even" alone, a third of the average
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.05)


def test_benchmarks_of_one_size_are_drawn_apart():
    """Common draws would make benchmarks that are sorted alike move together, and the interval too wide."""
    values = sorted([0.0, 1.0] * 50)
    interval = Bootstrap(0.95, 20_000, 0).average({name: values for name in "abcd"})
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(400), rel=0.05)


def test_questions_that_are_asked_twice_are_not_more_questions():
    values = np.random.default_rng(0).random(200).tolist()
    alone = Bootstrap(0.95, 2_000, 0).average({"greedy": values})
    twice = Bootstrap(0.95, 2_000, 0, {"sampled": "greedy"}).average({"greedy": values, "sampled": values})
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high))


def test_difference_is_paired():
    random = np.random.default_rng(0)
    hard = random.random(200)
    first, second = {"a": (hard + 0.1).tolist()}, {"a": hard.tolist()}
    bootstrap = Bootstrap(0.95, 2_000, 0)
    paired = bootstrap.difference(first, second)
    assert paired.low == pytest.approx(0.1) and paired.high == pytest.approx(0.1)
    apart = bootstrap.unpaired_difference(first, second)
    assert apart.estimate == pytest.approx(0.1) and apart.low < 0.06 and apart.high > 0.14


def test_pairs_must_match():
    with pytest.raises(ValueError, match="same number of questions"):
        Bootstrap(0.95, 100, 0).difference({"a": [0.0, 1.0]}, {"a": [0.0]})


def test_the_seed_gives_the_draws():
    values = {"a": np.random.default_rng(0).random(50).tolist()}
    assert Bootstrap(0.95, 500, 1).average(values) == Bootstrap(0.95, 500, 1).average(values)
    assert Bootstrap(0.95, 500, 1).average(values) != Bootstrap(0.95, 500, 2).average(values)


def test_chunks_do_not_change_what_is_drawn(monkeypatch):
    values = {"a": np.random.default_rng(0).random(50).tolist()}
    whole = Bootstrap(0.95, 500, 1).average(values)
    monkeypatch.setattr("rlpretrain.report.statistics._CHUNK", 1000)
    assert Bootstrap(0.95, 500, 1).average(values) == whole


def test_coverage_of_a_paired_difference():
    """Of 300 experiments with a known difference, about 95% of the 95% intervals hold it."""
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        first, second = {}, {}
        for name, size in (("a", 40), ("b", 80)):
            ease = random.normal(0, 0.15, size)
            first[name] = random.binomial(4, np.clip(0.55 + ease, 0, 1)) / 4
            second[name] = random.binomial(4, np.clip(0.45 + ease, 0, 1)) / 4
        interval = Bootstrap(0.95, 400, trial).difference(first, second)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_p_is_small_for_a_difference_and_large_for_none():
    random = np.random.default_rng(0)
    ease = random.random(200)
    bootstrap = Bootstrap(0.95, 2_000, 0)
    better = {"a": (ease + random.normal(0.1, 0.2, 200)).tolist()}
    assert bootstrap.p_value(better, {"a": ease.tolist()}) == pytest.approx(1 / 2001)
    assert bootstrap.p_value({"a": ease.tolist()}, {"a": ease.tolist()}) == 1.0
    assert bootstrap.p_value(better, {"a": ease.tolist()}) == bootstrap.p_value({"a": ease.tolist()}, better)


def test_p_is_uniform_when_there_is_no_difference():
    """Of 400 experiments without a difference about 5% are called one at the level 0.05."""
    random = np.random.default_rng(1)
    found = 0
    for trial in range(400):
        first, second = random.binomial(4, 0.5, (2, 60)) / 4
        found += Bootstrap(0.95, 400, trial).p_value({"a": first.tolist()}, {"a": second.tolist()}) < 0.05
    assert 0.02 <= found / 400 <= 0.09


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []

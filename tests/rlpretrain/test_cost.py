"""Tokens and FLOPs of a training, against a count by hand."""

import pytest

from rlpretrain.training.cost import training_cost

THINKING = [{"step": n, "data/read": 10, "data/sampled": 40} for n in (1, 2)]


def test_likelihood_reads_and_trains_on_the_same_tokens():
    cost = training_cost("cpt", 100, 1, True, [{"data/read": 30}, {"data/read": 50}])
    assert (cost["steps"], cost["read"], cost["sampled"], cost["trained"]) == (2, 80, 0, 80)
    assert cost["flops"] == 6 * 100 * 80


@pytest.mark.parametrize(
    ("objective", "shares", "trained", "flops"),
    [
        # Reading and sampling 2 x 100, the teacher 2 x 20, the update 6 x trained.
        ("rlp", True, 100, 100 * (2 * 100 + 2 * 20 + 6 * 100)),
        ("rlvr", True, 100, 100 * (2 * 100 + 6 * 100)),
        ("rlp", False, 4 * 20 + 80, 100 * (2 * 100 + 2 * 20 + 6 * 160)),
    ],
)
def test_thinking_reads_samples_scores_and_trains(objective, shares, trained, flops):
    cost = training_cost(objective, 100, 4, shares, THINKING)
    assert (cost["read"], cost["sampled"], cost["trained"], cost["flops"]) == (20, 80, trained, flops)


def test_a_checkpoint_without_steps_cost_nothing():
    assert training_cost("base", 100, 1, True, [])["flops"] == 0

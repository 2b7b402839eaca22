"""The paper's worked example, the advantage, the gradients of eq. 8; the propositions are in test_propositions.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlpretrain.objectives import (
    capped_importance_weight,
    clipped_surrogate,
    ema_update,
    flop_matched_tokens,
    group_relative_advantage,
    information_gain,
    kl_penalty,
    next_token_logprob,
    prefix_match,
)

REWARDS = st.lists(st.floats(-5, 5), min_size=2, max_size=16)


def test_worked_example_of_the_paper():
    """Section 9.2 of the second version: four thoughts, two rounds of an exponentiated update at step size 0.5."""
    policy = torch.full((4,), 0.25, dtype=torch.float64)
    rounds = [
        (
            [-0.80, -0.60, -0.50, -0.30],
            [-0.3333, -0.0667, 0.0667, 0.3333],
            [0.2101, 0.2401, 0.2566, 0.2932],
            -0.5500,
            -0.5284,
        ),
        (
            [-0.80, -0.60, -0.35, -0.10],
            [-0.4500, -0.1833, 0.1500, 0.4833],
            [0.1618, 0.2113, 0.2668, 0.3601],
            -0.4313,
            -0.3856,
        ),
    ]
    for reward, advantage, updated, before, after in rounds:
        reward_BG = torch.tensor([reward], dtype=torch.float64)
        advantage_BG = group_relative_advantage(reward_BG)
        torch.testing.assert_close(advantage_BG[0], torch.tensor(advantage, dtype=torch.float64), atol=5e-5, rtol=0)
        assert float(policy @ reward_BG[0]) == pytest.approx(before, abs=1e-4)
        policy = (policy.log() + 0.5 * advantage_BG[0]).softmax(dim=0)
        torch.testing.assert_close(policy, torch.tensor(updated, dtype=torch.float64), atol=1e-4, rtol=0)
        assert float(policy @ reward_BG[0]) == pytest.approx(after, abs=1e-4)


@given(REWARDS, st.floats(-10, 10))
def test_advantages_do_not_change_when_the_teacher_does(reasoned, baseline):
    reasoned_BG = torch.tensor([reasoned], dtype=torch.float64)
    zero = group_relative_advantage(information_gain(reasoned_BG, torch.zeros(1, dtype=torch.float64)))
    moved = group_relative_advantage(information_gain(reasoned_BG, torch.tensor([baseline], dtype=torch.float64)))
    torch.testing.assert_close(zero, moved, atol=1e-9, rtol=1e-9)


@given(REWARDS)
def test_advantage_is_the_reward_over_the_mean_of_the_others(reward):
    advantage = group_relative_advantage(torch.tensor([reward], dtype=torch.float64))[0]
    for index, value in enumerate(reward):
        others = [other for place, other in enumerate(reward) if place != index]
        assert float(advantage[index]) == pytest.approx(value - sum(others) / len(others), abs=1e-9)


def test_advantage_needs_two_thoughts():
    with pytest.raises(ValueError, match="at least 2 thoughts"):
        group_relative_advantage(torch.zeros(3, 1))


def _surrogate_by_hand(logprob, old, advantage, mask, low, high):
    total = 0.0
    for n in range(logprob.shape[0]):
        tokens = [u for u in range(logprob.shape[1]) if mask[n, u]]
        thought = 0.0
        for u in tokens:
            ratio = math.exp(float(logprob[n, u] - old[n, u]))
            clipped = min(max(ratio, 1 - low), 1 + high)
            thought += min(ratio * float(advantage[n]), clipped * float(advantage[n]))
        total += thought / len(tokens)
    return -total / logprob.shape[0]


@given(st.integers(0, 10_000))
def test_clipped_surrogate_equals_its_plain_twin(seed):
    random = torch.Generator().manual_seed(seed)
    logprob, old = (-torch.rand(5, 7, generator=random, dtype=torch.float64) * 2 for _ in range(2))
    advantage = torch.randn(5, generator=random, dtype=torch.float64)
    mask = torch.arange(7) < torch.randint(1, 8, (5, 1), generator=random)
    loss, metrics = clipped_surrogate(logprob, old, advantage, mask, 0.2, 0.3)
    assert float(loss) == pytest.approx(_surrogate_by_hand(logprob, old, advantage, mask, 0.2, 0.3), abs=1e-12)
    assert 0 <= float(metrics["clip_share"]) <= 1


def test_gradient_reaches_thought_tokens_alone():
    logprob = torch.zeros(2, 3, requires_grad=True)
    old = torch.zeros(2, 3, requires_grad=True)
    reasoned = torch.tensor([[0.5, -0.5]], requires_grad=True)
    baseline = torch.tensor([0.1], requires_grad=True)
    advantage = group_relative_advantage(information_gain(reasoned, baseline)).flatten()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss, _ = clipped_surrogate(logprob, old, advantage, mask, 0.2, 0.2)
    loss.backward()
    assert reasoned.grad is None and baseline.grad is None and old.grad is None
    # On-policy the gradient of token u is -A / (len(c) N).
    torch.testing.assert_close(logprob.grad, torch.tensor([[-0.25, -0.25, 0.0], [0.5, 0.0, 0.0]]))


def test_importance_weights_are_capped_ratios_without_gradient():
    logprob = torch.tensor([[-1.0, -1.0, -1.0], [-2.0, -9.0, 7.0]], requires_grad=True)
    sampler = torch.tensor([[-1.0, -3.0, -0.5], [-2.5, float("-inf"), float("-inf")]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weight, metrics = capped_importance_weight(logprob, sampler, mask, 2.0)
    torch.testing.assert_close(weight, torch.tensor([[1.0, 2.0, math.exp(-0.5)], [math.exp(0.5), 1.0, 1.0]]))
    assert not weight.requires_grad
    assert float(metrics["weight"]) == pytest.approx((1 + 2 + math.exp(-0.5) + math.exp(0.5)) / 4)
    assert float(metrics["capped"]) == pytest.approx(1 / 4)
    assert float(metrics["difference"]) == pytest.approx((0 + 2 + 0.5 + 0.5) / 4)


def test_importance_weights_scale_the_tokens_terms():
    logprob = torch.zeros(1, 2, requires_grad=True)
    weight = torch.tensor([[0.5, 2.0]])
    loss, _ = clipped_surrogate(logprob, logprob.detach(), torch.ones(1), torch.ones(1, 2), 0.2, 0.2, weight)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-1.25)
    torch.testing.assert_close(logprob.grad, torch.tensor([[-0.25, -1.0]]))


def test_capped_weights_make_the_gradient_the_trained_policys_own():
    """Sampled from another policy and weighed, the expected gradient is that of samples of the policy itself."""
    policy, sampler = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    reward = torch.tensor([1.0, -0.5, 2.0])
    gradients = []
    for drawn_from, weighed in ((policy, False), (sampler, True)):
        logits = policy.log().clone().requires_grad_()
        logprob = logits.log_softmax(dim=0).unsqueeze(-1)
        mask = torch.ones(3, 1)
        weight, _ = capped_importance_weight(logprob, sampler.log().unsqueeze(-1), mask, 2.0)
        # Every token once, as often as it is drawn: the mean over 3 thoughts of 3 p(token) times its term.
        loss, _ = clipped_surrogate(
            logprob, logprob.detach(), 3 * drawn_from * reward, mask, 0.2, 0.2, weight if weighed else None
        )
        loss.backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_padding_of_minus_infinity_gives_no_nan():
    logprob = torch.tensor([[-1.0, float("-inf")]], requires_grad=True)
    loss, _ = clipped_surrogate(logprob, logprob.detach(), torch.ones(1), torch.tensor([[True, False]]), 0.2, 0.2)
    loss.backward()
    assert bool(torch.isfinite(logprob.grad).all())


def test_excluded_delimiters_are_renormalised_away():
    logits = torch.tensor([[1.0, 2.0, 9.0, 0.5]])
    excluded = next_token_logprob(logits, torch.tensor([1]), torch.tensor([2]))
    expected = torch.tensor([1.0, 2.0, 0.5]).log_softmax(dim=0)[1]
    torch.testing.assert_close(excluded[0], expected)
    assert float(next_token_logprob(logits, torch.tensor([1]))[0]) < float(excluded[0])


def test_ema_moves_by_its_decay_and_refuses_half_precision():
    teacher, student = [torch.ones(3)], [torch.zeros(3)]
    for _ in range(2):
        ema_update(teacher, student, 0.999)
    torch.testing.assert_close(teacher[0], torch.full((3,), 0.999**2))
    with pytest.raises(AssertionError, match="fp32"):
        ema_update([torch.ones(3, dtype=torch.bfloat16)], student, 0.999)


def test_kl_penalty_is_zero_at_the_reference_and_positive_elsewhere():
    logprob = torch.tensor([[-1.0, -2.0]])
    mask = torch.ones(1, 2)
    assert float(kl_penalty(logprob, logprob, mask)) == 0
    assert float(kl_penalty(logprob, logprob - 0.3, mask)) > 0


def test_prefix_match_reads_only_the_tokens_there_are():
    predicted = torch.tensor([[1, 2], [1, 3], [1, 9]])
    truth = torch.tensor([[1, 2], [1, 2], [1, -1]])
    assert prefix_match(predicted, truth, torch.tensor([2, 2, 1])).tolist() == [1.0, 0.0, 1.0]


def test_flop_matched_budget_follows_the_papers_rule():
    assert flop_matched_tokens(16, 4096, 512, 10, 1_000) == 16 * 4096 * 512 * 10 + 1_000

"""The shared-prefix path against plain passes, one sequence at a time: values and gradients, on several architectures."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from transformers import PreTrainedModel

from rlpretrain import shared_prefix
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.shared_prefix import Forest, can_share_prefixes, run_plan, share_prefixes
from tests.rlpretrain.architectures import HYBRID, SHARING, VOCABULARY, small_model


def tokens(random: np.random.Generator, length: int) -> list[int]:
    return random.integers(4, VOCABULARY, length).tolist()


def plain_states(model: PreTrainedModel, forest_input: tuple[list, list, list]) -> Tensor:
    """Hidden states of all rows of a forest: every trunk, and every branch behind its prefix, in a pass of its own."""
    trunks, places, branches = forest_input
    group = len(branches) // len(places)
    states = [model.base_model(torch.tensor([trunk])).last_hidden_state[0] for trunk in trunks]
    for row, branch in enumerate(branches):
        trunk, prefix = places[row // group]
        sequence = trunks[trunk][:prefix] + branch
        states.append(model.base_model(torch.tensor([sequence])).last_hidden_state[0, prefix:])
    return torch.cat(states)


def ragged_forest(group: int) -> tuple[list, list, list]:
    """Three documents, one of them with three places, the first after one token; thoughts of 1 to 19 tokens."""
    random = np.random.default_rng(group)
    trunks = [tokens(random, length) for length in (23, 9, 40)]
    places = [(0, 1), (0, 11), (0, 23), (1, 9), (2, 38)]
    branches = [tokens(random, int(length)) for length in random.integers(1, 20, len(places) * group)]
    return trunks, places, branches


@pytest.mark.parametrize("few_scores", [0, shared_prefix.FEW_SCORES], ids=["flash", "products"])
def test_gradients_in_bf16_are_those_of_fp32_but_for_rounding(monkeypatch: pytest.MonkeyPatch, few_scores: int) -> None:
    monkeypatch.setattr(shared_prefix, "FEW_SCORES", few_scores)
    forest = Forest(*ragged_forest(8))
    rows = len(forest.tokens_R)
    random = torch.Generator().manual_seed(0)
    leaves = [torch.randn(rows, heads, 16, generator=random).bfloat16() for heads in (4, 2, 2)]
    direction = torch.randn(rows, 4, 16, generator=random).bfloat16()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [leaf.to(dtype).requires_grad_() for leaf in leaves]
        forest.attend(0, *inputs, scale=0.25).backward(direction.to(dtype))
        found[dtype] = [tensor.grad.float() for tensor in inputs]
    for exact, rounded in zip(*found.values(), strict=True):
        assert (exact - rounded).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("group", [2, 16])
def test_states_and_gradients_equal_those_of_plain_passes(name: str, group: int) -> None:
    model, twin = small_model(name), small_model(name)
    given_forest = ragged_forest(group)
    forest = Forest(*given_forest)
    states = run_plan(model, forest.tokens_R, forest.positions_R, forest)
    plain = plain_states(twin, given_forest)
    torch.testing.assert_close(states, plain, atol=1e-5, rtol=1e-5)
    direction = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)) / len(states)
    (states * direction).sum().backward()
    (plain * direction).sum().backward()
    for (parameter_name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=parameter_name)


def test_checkpointed_layers_give_the_same_gradient() -> None:
    from rlpretrain.training.loop import checkpoint_activations

    model, twin = small_model("llama"), small_model("llama")
    checkpoint_activations(model)
    gradients = []
    for each in (model, twin):
        forest = Forest(*ragged_forest(2))
        run_plan(each, forest.tokens_R, forest.positions_R, forest).square().mean().backward()
        gradients.append([p.grad for p in each.parameters()])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_flex_attention_has_the_same_meaning() -> None:
    """Its kernels need a GPU; its unfused form says the same on the CPU."""
    forest = Forest(*ragged_forest(2))
    random = torch.Generator().manual_seed(0)
    rows = len(forest.tokens_R)
    query, key, value = (torch.randn(rows, heads, 16, generator=random) for heads in (4, 2, 2))
    ours = forest.attend(0, query, key, value, 0.3)
    torch.testing.assert_close(ours, forest.flex_attend(flex_attention, query, key, value, 0.3), atol=1e-5, rtol=1e-5)


def test_only_models_that_attend_to_everything_share_prefixes() -> None:
    assert all(can_share_prefixes(small_model(name)) for name in SHARING)
    assert not can_share_prefixes(small_model(HYBRID))


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5), min_size=1, max_size=8))
@settings(deadline=None)
def test_every_context_is_a_prefix_of_its_trunk_and_no_trunk_of_another(contexts: list[list[int]]) -> None:
    trunks, trunk_of = share_prefixes(contexts)
    assert all(trunks[trunk][: len(context)] == context for context, trunk in zip(contexts, trunk_of, strict=True))
    for i, one in enumerate(trunks):
        assert not any(other[: len(one)] == one for j, other in enumerate(trunks) if i != j)


STOP, FORBIDDEN = 3, 1


def sample(model: PreTrainedModel, prompts: list[list[int]], **options: float) -> list[list[list[int]]]:
    settings = {"group": 3, "max_new_tokens": 8, "temperature": 0.0, "seed": 0, "batch": 64, "stem": 2, **options}
    return TorchEngine(model).generate(prompts, stop_ids={STOP}, forbidden_ids={FORBIDDEN}, **settings)


def document_prompts() -> list[list[int]]:
    """Three places of one document and one of another, each followed by an opening of two tokens."""
    random = np.random.default_rng(5)
    document, other = tokens(random, 30), tokens(random, 17)
    return [[*context, 2, 0] for context in (document[:4], document[:29], other, document[:13])]


@pytest.mark.parametrize("name", [*SHARING, HYBRID])
@pytest.mark.parametrize("batch", [3, 6, 64])
def test_greedy_thoughts_are_those_of_plain_decoding(name: str, batch: int) -> None:
    model = small_model(name)
    prompts = document_prompts()
    found = sample(model, prompts, batch=batch)
    for prompt, group in zip(prompts, found, strict=True):
        sequence = list(prompt)
        while len(sequence) < len(prompt) + 8 and (len(sequence) == len(prompt) or sequence[-1] != STOP):
            with torch.no_grad():
                logits = model(torch.tensor([sequence])).logits[0, -1]
            logits[FORBIDDEN] = float("-inf")
            sequence.append(int(logits.argmax()))
        assert group == [sequence[len(prompt) :]] * 3


@pytest.mark.parametrize("name", [*SHARING, HYBRID])
def test_whole_thoughts_follow_the_models_distribution(name: str) -> None:
    """Chi-square over all thoughts of at most two tokens of a model with six tokens, at a place within a document."""
    model = small_model(name, vocabulary=6)
    document = [4, 5, 2, 4, 2, 5]
    prompts = [[*document[:place], 0] for place in (3, 6)]
    draws = 6000
    groups = sample(model, prompts, group=draws, max_new_tokens=2, temperature=0.8, batch=2 * draws, stem=1)
    for prompt, group in zip(prompts, groups, strict=True):
        expected = {}
        for first, chance in enumerate(chances(model, prompt)):
            following = [(None, 1.0)] if first == STOP else enumerate(chances(model, [*prompt, first]))
            for second, second_chance in following:
                thought = (first,) if second is None else (first, second)
                expected[thought] = chance * second_chance * draws
        observed = Counter(map(tuple, group))
        assert all(expected.get(thought, 0.0) > 0 for thought in observed)
        common = [thought for thought, count in expected.items() if count >= 5]
        rest = [sum(table[t] for t in expected if t not in common) for table in (observed, expected)]
        counts = [
            [table[t] for t in common] + ([tail] if rest[1] > 0 else [])
            for table, tail in zip((observed, expected), rest, strict=True)
        ]
        assert stats.chisquare(*counts).pvalue > 1e-4


@torch.no_grad()
def chances(model: PreTrainedModel, sequence: list[int]) -> list[float]:
    logits = model(torch.tensor([sequence])).logits[0, -1].double() / 0.8
    logits[FORBIDDEN] = float("-inf")
    return logits.softmax(dim=0).tolist()

"""The torch engine against decoding one sequence at a time: same tokens when greedy, same distribution when sampled."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlpretrain.errors import UserError
from rlpretrain.rollout.engines import build_engine
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import VllmSettings

STOP, FORBIDDEN = 6, 7
PROMPTS = [[1, 2, 3], [4], [0, 1, 2, 3, 4, 5, 0, 1], [1, 2, 3, 4], [5, 5]]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.manual_seed(1)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=8, max_position_embeddings=64, initializer_range=0.7, **shape)
    return LlamaForCausalLM(config).eval()


def generate(model: PreTrainedModel, prompts: list[list[int]], **options: Any) -> list[list[list[int]]]:
    given = {"group": 1, "max_new_tokens": 12, "temperature": 0, "seed": 0, "batch": 64, **options}
    return TorchEngine(model).generate(prompts, stop_ids={STOP}, forbidden_ids={FORBIDDEN}, **given)


@torch.no_grad()
def logits_after(model: PreTrainedModel, sequence: list[int]) -> Tensor:
    logits = model(torch.tensor([sequence])).logits[0, -1]
    logits[FORBIDDEN] = float("-inf")
    return logits


def greedy(model: PreTrainedModel, prompt: list[int], most: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < most and (not tokens or tokens[-1] != STOP):
        tokens.append(int(logits_after(model, [*prompt, *tokens]).argmax()))
    return tokens


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_greedy_continuations_are_the_plain_ones(model: PreTrainedModel, batch: int) -> None:
    """Prompts of unlike length in one batch, and rows that leave it when they are finished."""
    expected = [greedy(model, prompt, 12) for prompt in PROMPTS]
    lengths = {len(tokens) for tokens in expected}
    assert len(lengths) > 2 and 12 in lengths, "the model must finish some continuations early and cut others off"
    assert generate(model, PROMPTS, group=2, batch=batch) == [[tokens, tokens] for tokens in expected]


def test_one_token_is_the_least_and_the_budget_the_most(model: PreTrainedModel) -> None:
    for most in (1, 3):
        continuations = [
            tokens for group in generate(model, PROMPTS, temperature=1, max_new_tokens=most) for tokens in group
        ]
        assert {len(tokens) for tokens in continuations} <= set(range(1, most + 1))
        assert all(STOP not in tokens[:-1] and FORBIDDEN not in tokens for tokens in continuations)


def test_whole_continuations_follow_the_models_distribution(model: PreTrainedModel) -> None:
    """Chi-square over all continuations of at most two tokens: what came first must shape what comes next."""
    draws, temperature = 20_000, 1.3
    words = [token for token in range(8) if token not in (STOP, FORBIDDEN)]
    every = [(STOP,), *((word, last) for word in words for last in (*words, STOP))]
    prompts = PROMPTS[:2]
    groups = generate(model, prompts, group=draws, max_new_tokens=2, temperature=temperature, batch=2 * draws)
    for prompt, group in zip(prompts, groups, strict=True):
        expected = []
        for tokens in every:
            steps = [
                (logits_after(model, [*prompt, *tokens[:place]]) / temperature).softmax(dim=0)[token]
                for place, token in enumerate(tokens)
            ]
            expected.append(float(torch.stack(steps).prod()))
        assert sum(expected) == pytest.approx(1, abs=1e-4)
        counts = Counter(map(tuple, group))
        observed = [counts[wanted] for wanted in every]
        assert sum(observed) == draws
        often = np.array(expected) * draws >= 5  # where a chi-square holds
        pair = [np.append(np.array(x)[often], np.array(x)[~often].sum() + 1e-9) for x in (observed, expected)]
        assert stats.chisquare(pair[0], pair[1] / pair[1].sum() * pair[0].sum()).pvalue > 1e-4


def test_the_seed_decides(model: PreTrainedModel) -> None:
    first, again, other = (generate(model, PROMPTS, group=4, temperature=1, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert any(len(set(map(tuple, group))) > 1 for group in first), "members of a group are drawn apart"


def test_the_model_itself_samples_unless_vllm_is_chosen(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build_engine("torch", VllmSettings(), model)
    assert isinstance(engine, TorchEngine)
    sampling = {"group": 2, "max_new_tokens": 3, "temperature": 1.0, "seed": 0, "batch": 4}
    rollouts = engine.rollout(PROMPTS, stop_ids={STOP}, forbidden_ids=set(), **sampling)
    assert rollouts.tokens == engine.generate(PROMPTS, stop_ids={STOP}, forbidden_ids=set(), **sampling)
    assert rollouts.logprobs is None, "the policy that samples is the one that is trained"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine: vllm is not installed; install .* or set engine to torch"):
        build_engine("vllm", VllmSettings(), model)


def test_seeds_of_their_own_make_a_prompts_draws_independent_of_the_others(model: PreTrainedModel) -> None:
    seeds = [11, 22, 33, 44, 55]
    together = generate(model, PROMPTS, group=6, temperature=1.0, seeds=seeds)
    apart = [
        generate(model, [p], group=6, temperature=1.0, seeds=[s], seed=9, batch=6)[0]
        for p, s in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == apart
    assert together != generate(model, PROMPTS, group=6, temperature=1.0, seeds=[s + 1 for s in seeds])

"""The engine on vLLM's CPU build against the model that it samples from: thoughts, log-probabilities, updated weights."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.rollout.interface import Rollouts
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.rollout.vllm_engine import VllmEngine
from rlpretrain.scoring import Position, score_thoughts
from rlpretrain.settings import ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.tokenizer import load_tokenizer
from tests.vllm.conftest import SMALL, small_model

TOLERANCE = 1e-4  # nats, in fp32
GROUP, BUDGET = 6, 12
TEXT = "abcdefg hijk! " * 24  # over two of vLLM's blocks of 128 tokens


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("builtin:characters")


@pytest.fixture(scope="module")
def form(tokenizer: PreTrainedTokenizerBase) -> ThoughtFormat:
    return ThoughtFormat.build(ThoughtSettings(budget=BUDGET, temperature=0.8, prefix="\n", recap=2), tokenizer)


@pytest.fixture(scope="module")
def positions(tokenizer: PreTrainedTokenizerBase) -> list[Position]:
    """Places in one long document, and in a short one."""
    long, short = (np.array(tokenizer.encode(text, add_special_tokens=False)) for text in (TEXT, "1+2=3"))
    return [Position(long[:t], long[t:]) for t in (150, 290, 300)] + [Position(short[:3], short[3:])]


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def engine(request: pytest.FixtureRequest) -> VllmEngine:
    return VllmEngine(small_model(request.param), SMALL, 400)


def sample(engine: VllmEngine, form: ThoughtFormat, positions: list[Position], **changes: float) -> Rollouts:
    given = {
        "group": GROUP,
        "max_new_tokens": BUDGET,
        "temperature": form.temperature,
        "seed": 3,
        "batch": 64,
        **changes,
    }
    prompts = [form.prompt(position.context) for position in positions]
    stops, forbidden = {form.close_id}, set(form.forbidden_ids)
    return engine.rollout(prompts, stop_ids=stops, forbidden_ids=forbidden, stem=len(form.open_ids), **given)


def apart(model: PreTrainedModel, form: ThoughtFormat, positions: list[Position], rollouts: Rollouts) -> float:
    """Largest difference between the engine's log-probabilities and those that ``model`` is trained with, in nats."""
    thoughts = Thoughts.from_lists([thought for group in rollouts.tokens for thought in group], form.close_id)
    with torch.no_grad():
        scored = score_thoughts(model, form, positions, thoughts, exclude_delimiters=True)
    assert rollouts.logprobs is not None
    theirs = torch.tensor([value for group in rollouts.logprobs for thought in group for value in thought])
    return float((scored.logprob_NT[thoughts.mask_NT] - theirs).abs().max())


def moved(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A copy whose every parameter has changed."""
    random = torch.Generator().manual_seed(seed)
    model = deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.05)
    return model


def test_thoughts_end_at_the_delimiter_or_at_the_budget(
    engine: VllmEngine, form: ThoughtFormat, positions: list[Position]
) -> None:
    rollouts = sample(engine, form, positions, group=40)
    assert [len(group) for group in rollouts.tokens] == [40] * len(positions)
    thoughts = [thought for group in rollouts.tokens for thought in group]
    finished = [thought[-1] == form.close_id for thought in thoughts]
    assert any(finished) and not all(finished)
    assert all(form.close_id not in thought[:-1] for thought in thoughts)
    assert all(len(thought) == BUDGET for thought, done in zip(thoughts, finished, strict=True) if not done)
    assert not {token for thought in thoughts for token in thought} & set(form.forbidden_ids)
    assert all(len(set(map(tuple, group))) > 20 for group in rollouts.tokens), "members of a group are drawn apart"
    assert {
        len(thought) for group in sample(engine, form, positions, max_new_tokens=1).tokens for thought in group
    } == {1}


def test_the_seed_decides(engine: VllmEngine, form: ThoughtFormat, positions: list[Position]) -> None:
    first, again, other = (sample(engine, form, positions, seed=seed) for seed in (2**63 - 1, 2**63 - 1, 4))
    assert first.tokens == again.tokens != other.tokens


def test_greedy_continuations_are_the_torch_engines(
    engine: VllmEngine, form: ThoughtFormat, positions: list[Position]
) -> None:
    prompts = [form.prompt(position.context) for position in positions]
    options = {"stop_ids": {form.close_id}, "forbidden_ids": set(form.forbidden_ids), "seed": 0, "batch": 8}
    ours = TorchEngine(engine.model).generate(prompts, group=2, max_new_tokens=BUDGET, temperature=0, **options)
    assert engine.generate(prompts, group=2, max_new_tokens=BUDGET, temperature=0, **options) == ours


def test_first_tokens_follow_the_models_distribution(
    engine: VllmEngine, form: ThoughtFormat, positions: list[Position]
) -> None:
    draws = 2000
    (group,) = sample(engine, form, positions[-1:], group=draws, max_new_tokens=1).tokens
    with torch.no_grad():
        logits = engine.model(torch.tensor([form.prompt(positions[-1].context)])).logits[0, -1] / form.temperature
    logits[list(form.forbidden_ids)] = float("-inf")
    expected = logits.double().softmax(dim=0).numpy() * draws
    observed = np.bincount([tokens[0] for tokens in group], minlength=len(expected))
    often = expected >= 5
    pair = [np.append(counts[often], counts[~often].sum() + 1e-9) for counts in (observed, expected)]
    assert stats.chisquare(pair[0], pair[1] / pair[1].sum() * pair[0].sum()).pvalue > 1e-4


def test_log_probabilities_are_the_trainers(engine: VllmEngine, form: ThoughtFormat, positions: list[Position]) -> None:
    assert apart(engine.model, form, positions, sample(engine, form, positions)) < TOLERANCE


def test_after_an_update_log_probabilities_are_the_new_ones(
    engine: VllmEngine, form: ThoughtFormat, positions: list[Position]
) -> None:
    """Twice, and for prompts whose keys and values of the old weights were cached."""
    for seed in (1, 2):
        old = engine.model
        sample(engine, form, positions)  # the prompts are in the prefix cache now
        new = moved(old, seed)
        engine.use(new)
        rollouts = sample(engine, form, positions)
        assert apart(new, form, positions, rollouts) < TOLERANCE
        assert apart(old, form, positions, rollouts) > 0.1


def test_without_dropping_cached_prefixes_they_would_be_wrong(
    engine: VllmEngine, form: ThoughtFormat, positions: list[Position], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample(engine, form, positions)
    with monkeypatch.context() as patch:
        patch.setattr(engine.llm, "reset_prefix_cache", lambda: None)
        engine.use(moved(engine.model, 3))
        assert apart(engine.model, form, positions, sample(engine, form, positions)) > 0.01
    engine.use(engine.model)
    assert apart(engine.model, form, positions, sample(engine, form, positions)) < TOLERANCE

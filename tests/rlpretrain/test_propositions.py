"""The paper's three propositions, held to the code that scores and rewards, on a model small enough to sum exactly.

A Llama of eight tokens has 31 thoughts of at most two tokens: every expectation over thoughts, next tokens and documents
is a finite sum. What the code gives is compared with whole logits of one sequence at a time.
"""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlpretrain.data.shards import Example
from rlpretrain.scoring import Position, ScoredThoughts, score_thoughts
from rlpretrain.settings import ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.training.rewards import InformationGain

OPEN, CLOSE, END = 5, 6, 7
FORM = ThoughtFormat(
    open_ids=(OPEN,),
    close_id=CLOSE,
    forbidden_ids=(OPEN, END),
    delimiter_ids=(OPEN, CLOSE),
    recap=1,
    budget=2,
    temperature=0.7,
)
WORDS = [0, 1, 2, 3, 4, END]  # what a text is made of
ALLOWED = [0, 1, 2, 3, 4, CLOSE]  # what a thought is made of
THOUGHTS = [[CLOSE], *([word, last] for word in ALLOWED[:-1] for last in ALLOWED)]
PRECISION = {"atol": 1e-5, "rtol": 1e-5}


def llama(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=8, max_position_embeddings=32, initializer_range=0.6, **shape)
    return LlamaForCausalLM(config).eval()


@pytest.fixture(params=range(3))
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def student(seed: int) -> PreTrainedModel:
    return llama(seed)


@pytest.fixture
def reward(seed: int) -> InformationGain:
    """The product's reward, with a teacher of its own."""
    reward = InformationGain(FORM, ThinkingSettings(compute_dtype="float32", steps=1, positions=8), eos=None)
    reward.begin_step(llama(100 + seed))
    return reward


def score(model: PreTrainedModel, positions: list[Position]) -> tuple[Thoughts, ScoredThoughts]:
    """Every thought at every position, as the trainer scores them."""
    thoughts = Thoughts.from_lists(THOUGHTS * len(positions), CLOSE)
    repeated = [position for position in positions for _ in THOUGHTS]
    with torch.no_grad():
        return thoughts, score_thoughts(model, FORM, repeated, thoughts, exclude_delimiters=True)


@torch.no_grad()
def logits_after(model: PreTrainedModel, sequence: list[int]) -> Tensor:
    return model(torch.tensor([sequence])).logits[0, -1]


def next_logprob(model: PreTrainedModel, sequence: list[int]) -> Tensor:
    """log p over the vocabulary after a sequence, the delimiters left out."""
    logits = logits_after(model, sequence)
    logits[[OPEN, CLOSE]] = float("-inf")
    return logits.log_softmax(dim=0)


def reasoned_logprob(model: PreTrainedModel, context: list[int], thought: list[int]) -> Tensor:
    """log p over the vocabulary after a context and a thought, which is closed, and the last context token again."""
    closed = thought if thought[-1] == CLOSE else [*thought, CLOSE]
    return next_logprob(model, [*context, OPEN, *closed, context[-1]])


def policy(model: PreTrainedModel, context: list[int]) -> Tensor:
    """The probability of each of THOUGHTS."""
    probabilities = []
    for thought in THOUGHTS:
        probability = torch.ones(())
        for place, token in enumerate(thought):
            logits = logits_after(model, [*context, OPEN, *thought[:place]]) / FORM.temperature
            logits[[OPEN, END]] = float("-inf")
            probability = probability * logits.softmax(dim=0)[token]
        probabilities.append(probability)
    return torch.stack(probabilities)


def truth(seed: int, count: int) -> Tensor:
    """Some distribution p* of the text's own tokens, or documents."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).mul(1.5).softmax(dim=0)


def test_1_the_mean_gain_is_the_cross_entropy_reduction(
    seed: int, student: PreTrainedModel, reward: InformationGain
) -> None:
    context = [3, 1, 4]
    true_X = truth(seed, len(WORDS))
    positions = [Position(np.array(context), np.array([word])) for word in WORDS]
    gain_XG = reward(positions, *score(student, positions)).reward_BG
    assert reward.teacher is not None
    entropy_unthinking = -true_X @ next_logprob(reward.teacher, context)[WORDS]
    for index, thought in enumerate(THOUGHTS):
        entropy_reasoned = -true_X @ reasoned_logprob(student, context, thought)[WORDS]
        torch.testing.assert_close(true_X @ gain_XG[:, index], entropy_unthinking - entropy_reasoned, **PRECISION)


def test_2_the_mean_log_evidence_is_a_lower_bound(student: PreTrainedModel) -> None:
    context = [2, 0]
    positions = [Position(np.array(context), np.array([word])) for word in WORDS]
    _, scored = score(student, positions)
    policy_G = scored.logprob_NT[: len(THOUGHTS)].sum(dim=1).exp()
    torch.testing.assert_close(policy_G.sum(), torch.ones(()), **PRECISION)
    torch.testing.assert_close(policy_G, policy(student, context), **PRECISION)
    mean_of_logs_X = scored.reasoned_N.view(len(WORDS), -1) @ policy_G
    evidence_GX = torch.stack([reasoned_logprob(student, context, thought)[WORDS].exp() for thought in THOUGHTS])
    torch.testing.assert_close(evidence_GX.sum(dim=1), torch.ones(len(THOUGHTS)), **PRECISION)
    log_of_mean_X = (policy_G @ evidence_GX).log()
    assert bool((mean_of_logs_X < log_of_mean_X - 1e-4).all())  # thoughts matter to this model: strictly below


def test_2_with_equality_when_the_thought_does_not_matter(student: PreTrainedModel) -> None:
    for layer in student.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()  # blind to all but the last token, the recap
    positions = [Position(np.array([2, 0]), np.array([word])) for word in WORDS]
    _, scored = score(student, positions)
    policy_G = scored.logprob_NT[: len(THOUGHTS)].sum(dim=1).exp()
    mean_of_logs_X = scored.reasoned_N.view(len(WORDS), -1) @ policy_G
    torch.testing.assert_close(mean_of_logs_X, next_logprob(student, [0])[WORDS], **PRECISION)


def test_3_the_mean_over_positions_is_the_sequence_difference(
    seed: int, student: PreTrainedModel, reward: InformationGain
) -> None:
    """Teacher forcing over every document of three tokens that starts with the same one."""
    documents = [[1, *rest] for rest in product(WORDS, repeat=2)]
    true_D = truth(seed, len(documents))
    assert reward.teacher is not None
    expected = unthinking = reasoned = torch.zeros(())
    for probability, document in zip(true_D, documents, strict=True):
        example = Example("", np.array(document, dtype=np.int32), 0)
        positions = reward.positions(example, np.random.default_rng(0))
        assert [len(position.context) for position in positions] == [1, 2]
        thoughts, scored = score(student, positions)
        policy_PG = scored.logprob_NT.sum(dim=1).exp().view(len(positions), -1)
        gain_PG = reward(positions, thoughts, scored).reward_BG
        expected = expected + probability * (policy_PG * gain_PG).sum(dim=1).mean()
        with torch.no_grad():  # the whole document at once, as a language model is evaluated
            logits_TV = reward.teacher(torch.tensor([document])).logits[0, :-1]
        logits_TV[:, [OPEN, CLOSE]] = float("-inf")
        unthinking = unthinking - probability * logits_TV.log_softmax(dim=1)[[0, 1], document[1:]].mean()
    for place, prefix in ((1, [1]), *((2, [1, word]) for word in WORDS)):
        after_G = torch.stack([reasoned_logprob(student, prefix, thought) for thought in THOUGHTS])
        mean_V = policy(student, prefix) @ after_G[:, WORDS]
        for probability, document in zip(true_D, documents, strict=True):
            if document[:place] == prefix:
                reasoned = reasoned - probability * mean_V[WORDS.index(document[place])] / 2
    torch.testing.assert_close(expected, unthinking - reasoned, **PRECISION)

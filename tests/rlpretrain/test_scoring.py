"""What one pass over many thoughts says, against one sequence at a time on whole logits."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.models import new_model
from rlpretrain.scoring import Position, score_thoughts, score_unthinking
from rlpretrain.settings import ArchitectureSettings, ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer("builtin:characters")
PRECISION = {"atol": 1e-5, "rtol": 1e-5}
TEXTS = ("a+b=c", "the same again and again", "xy")
PLACES = (3, 20, 1)  # where the thought stands in each text


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    shape = ArchitectureSettings(layers=2, width=32, heads=4, key_value_heads=2, feed_forward=64)
    return new_model(shape, TOKENIZER, seed=4).eval()


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def position(text: str, place: int) -> Position:
    tokens = np.array(ids(text))
    return Position(tokens[:place], tokens[place:])


@torch.no_grad()
def logits(model: PreTrainedModel, sequence: list[int]) -> Tensor:
    """Of one sequence: row t is what follows its first t + 1 tokens."""
    return model(torch.tensor([sequence])).logits[0]


def logprobs(logits_LV: Tensor, left_out: tuple[int, ...] = (), temperature: float = 1.0) -> Tensor:
    rest_LV = logits_LV / temperature
    rest_LV[:, list(left_out)] = float("-inf")
    return rest_LV.log_softmax(dim=-1)


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize(("prefix", "recap"), [("", 0), ("", 3), (" So: ", 3)])
def test_evidence_policy_and_predictions(model: PreTrainedModel, exclude: bool, prefix: str, recap: int) -> None:
    """Finished, cut-off and empty thoughts, in every form of the template and both forms of the scorer."""
    form = ThoughtFormat.build(ThoughtSettings(prefix=prefix, recap=recap, budget=5, temperature=0.7), TOKENIZER)
    left_out = form.delimiter_ids if exclude else ()
    positions = [position(text, place) for text, place in zip(TEXTS, PLACES, strict=True)]
    group = [[*ids("hm"), form.close_id], ids("12345"), [form.close_id]]
    repeated = [each for each in positions for _ in group]
    thoughts = Thoughts.from_lists(group * len(positions), form.close_id)
    with torch.no_grad():
        scored = score_thoughts(model, form, repeated, thoughts, exclude, prediction_tokens=3)
    assert scored.predicted_NM.shape == (len(repeated), 3)
    for row, at in enumerate(repeated):
        thought = group[row % len(group)]
        context, text = at.context.tolist(), at.next_tokens.tolist()
        opened = [*context, *ids(prefix), *ids("<think>")]
        closed = [*opened, *thought, *([] if thought[-1] == form.close_id else ids("</think>"))]
        closed += context[-recap:] if recap else []
        logits_LV = logits(model, [*closed, *text[:2]])
        span = slice(len(opened) - 1, len(opened) - 1 + len(thought))
        policy_TV = logprobs(logits_LV[span], form.forbidden_ids, 0.7)
        expected_T = policy_TV[range(len(thought)), thought]
        torch.testing.assert_close(scored.logprob_NT[row, : len(thought)], expected_T, **PRECISION)
        entropy_T = torch.distributions.Categorical(logits=policy_TV).entropy()
        torch.testing.assert_close(scored.entropy_NT[row, : len(thought)], entropy_T, **PRECISION)
        assert not scored.logprob_NT[row, len(thought) :].any()
        evidence_LV = logprobs(logits_LV[len(closed) - 1 :], left_out)
        torch.testing.assert_close(scored.reasoned_N[row], evidence_LV[0, text[0]], **PRECISION)
        # RPT: each prediction stands after the text's own tokens before it; past the text's end there is none to match.
        greedy = evidence_LV.argmax(dim=1).tolist()[: len(text)]
        assert scored.predicted_NM[row, : len(greedy)].tolist() == greedy


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("micro_batch", [1, 2, 64])
def test_evidence_without_a_thought(model: PreTrainedModel, exclude: bool, micro_batch: int) -> None:
    form = ThoughtFormat.build(ThoughtSettings(prefix=" So: ", recap=2), TOKENIZER)  # neither stands in a plain context
    positions = [position(text, place) for text, place in zip(TEXTS, PLACES, strict=True)]
    scores = score_unthinking(model, form, positions, exclude, micro_batch)
    left_out = form.delimiter_ids if exclude else ()
    for at, score in zip(positions, scores, strict=True):
        expected_V = logprobs(logits(model, at.context.tolist()), left_out)[-1]
        torch.testing.assert_close(score, expected_V[int(at.next_tokens[0])], **PRECISION)


def test_a_response_is_scored_without_a_next_token(model: PreTrainedModel) -> None:
    """RLVR: the response ends the sequence."""
    form = ThoughtFormat.response(ThoughtSettings(budget=8), TOKENIZER)
    at = Position(np.array(ids("2+2=")), np.array([], dtype=np.int64))
    response = [*ids("hm</think>4"), TOKENIZER.eos_token_id]
    with torch.no_grad():
        scored = score_thoughts(model, form, [at], Thoughts.from_lists([response], form.close_id), True, 0)
    assert scored.predicted_NM.shape == (1, 0) and not scored.reasoned_N.any()
    sequence = [*ids("2+2=<think>"), *response]
    policy_TV = logprobs(logits(model, sequence)[-1 - len(response) : -1], form.forbidden_ids, form.temperature)
    torch.testing.assert_close(scored.logprob_NT[0], policy_TV[range(len(response)), response], **PRECISION)

"""RPT's and RLVR's rewards where an answer is nearly one: cut off, malformed, another problem's, beyond the text's end."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError
from rlpretrain.scoring import Position
from rlpretrain.settings import ThinkingSettings, ThoughtSettings
from rlpretrain.thoughts import Thoughts
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.rewards import PrefixMatch, VerifiedAnswer

TOKENIZER = load_tokenizer("builtin:characters")
EOS = TOKENIZER.eos_token_id
CLOSE = TOKENIZER.convert_tokens_to_ids("</think>")
MINI = r"</think>\s*(\S+)\s*$"  # the small profile's answers: all that follows the thought
GSM = r"####\s*(\S+)"


@dataclass
class Scored:
    """What a reward reads of a scored batch."""

    predicted_NM: Tensor = field(default_factory=lambda: torch.zeros(1, 0))
    reasoned_N: Tensor = field(default_factory=lambda: torch.zeros(1))


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def verified(pattern: str, answers: tuple[str, ...], responses: list[list[int]]) -> list[list[float]]:
    """Rewards of the responses, as many to each problem."""
    reward = VerifiedAnswer(TOKENIZER, pattern, ThoughtSettings(), max_context=64)
    positions = []
    for answer in answers:
        problem = Example(f"problem {answer}", np.array(ids("what?")), 5, answer)
        positions += reward.positions(problem, np.random.default_rng(0))
    return reward(positions, Thoughts.from_lists(responses, EOS), Scored()).reward_BG.tolist()


@pytest.mark.parametrize(
    ("pattern", "response", "expected"),
    [
        (GSM, "work #### 7 and", 1.0),
        (GSM, "#### seven", 0.0),
        (GSM, "### 7", 0.0),
        (GSM, "#### 77", 0.0),
        (GSM, "####", 0.0),
        (MINI, "52</think>7", 1.0),
        (MINI, "52</think> 7 ", 1.0),
        (MINI, "7", 0.0),  # the thought was never closed
        (MINI, "52</think>7 or 8", 0.0),
        (MINI, "52</think>", 0.0),
        (MINI, "7</think>52</think>8", 0.0),
    ],
)
def test_rlvr_of_a_response_and_of_the_same_one_cut_off(pattern: str, response: str, expected: float) -> None:
    """The budget may end just behind the answer: a response that did not end by itself earns nothing all the same."""
    finished, cut_off = [*ids(response), EOS], [*ids(response), *ids(" ")]
    assert verified(pattern, ("7",), [finished, cut_off]) == [[expected, 0.0]]


def test_rlvr_compares_every_response_with_its_own_problems_answer() -> None:
    responses = [[*ids(f"#### {number}"), EOS] for number in (3, 4, 3, 4)]
    assert verified(GSM, ("3", "4"), responses) == [[1.0, 0.0], [0.0, 1.0]]


def test_rlvr_refuses_a_problem_that_its_context_would_cut() -> None:
    reward = VerifiedAnswer(TOKENIZER, GSM, ThoughtSettings(), max_context=5)
    fits, longer = (Example("p", np.array(ids(text)), len(text), "4") for text in ("2+2=?", "2+2+2?"))
    assert reward.positions(fits, np.random.default_rng(0))[0].context.tolist() == ids("2+2=?")
    with pytest.raises(UserError, match="problem p has 6 tokens"):
        reward.positions(longer, np.random.default_rng(0))


def test_rpt_reads_the_texts_tokens_and_no_further() -> None:
    reward = PrefixMatch(ThinkingSettings(steps=1, prediction_tokens=2), EOS)
    positions = [Position(np.array([9]), np.array(following)) for following in ([20, 21, 22], [30])]
    thoughts = Thoughts.from_lists([[5, CLOSE], [5, 6], [CLOSE], [5, CLOSE]], CLOSE)
    predicted = torch.tensor([[20, 21], [20, 21], [30, 99], [31, 30]])  # right, cut off, right to the end, wrong
    assert reward(positions, thoughts, Scored(predicted)).reward_BG.tolist() == [[1.0, 0.0], [1.0, 0.0]]

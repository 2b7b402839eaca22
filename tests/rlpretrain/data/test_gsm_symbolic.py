"""GSM-style problems: the templates of train and test are disjoint, and the forms fit one another."""

import re

import numpy as np
import pytest

from rlpretrain.data.decontamination import ContaminationIndex
from rlpretrain.data.gsm_symbolic import generate
from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError

NO_TOKENS = np.empty(0, np.int32)


def test_no_story_of_the_test_part_is_told_in_the_train_part() -> None:
    items = list(generate(documents=150, split="test", seed=0, form="problem"))
    index = ContaminationIndex(
        [Example(item.id, NO_TOKENS, 0, item.answer, item.source, item.prompt) for item in items], ngram=13
    )
    train = generate(documents=300, split="train", seed=0)
    assert [document.id for document in train if index.find(document.text)] == []
    # The control: the same stories with other names and numbers are found where thirteen words in a row stayed.
    again = list(generate(documents=50, split="test", seed=1))
    assert sum(index.find(document.text) is not None for document in again) > 10


def test_forms() -> None:
    (document,) = generate(documents=1, split="train", seed=0, form="document")
    (sft,) = generate(documents=1, split="train", seed=0, form="sft")
    (problem,) = generate(documents=1, split="train", seed=0, form="problem")
    assert re.fullmatch(r"Question: .*\nAnswer: .*\n#### \S+", document.text, re.DOTALL) and not document.prompt
    assert sft.prompt.endswith("\nAnswer:") and re.fullmatch(r"<think> .*</think>\n#### \S+", sft.text, re.DOTALL)
    assert problem.prompt.endswith("\nAnswer:") and problem.answer and not problem.text
    assert len({document.text, sft.prompt + sft.text}) == 2  # post-training has problems of its own


def test_seeded_and_in_full() -> None:
    first = list(generate(documents=60, split="test", seed=3, form="problem"))
    assert len(first) == 60
    assert first == list(generate(documents=60, split="test", seed=3, form="problem"))
    assert first != list(generate(documents=60, split="test", seed=4, form="problem"))


def test_unknown_split_or_form() -> None:
    for options in ({"split": "dev"}, {"split": "train", "form": "poem"}):
        with pytest.raises(UserError, match="gsm_symbolic"):
            next(generate(documents=1, seed=0, **options))

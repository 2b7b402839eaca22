"""The small profile's problems: right answers, worked chains, test problems never seen in training."""

import re

import pytest

from rlpretrain.data.synthetic import BENCHMARKS, GENERATORS


def _answer(prompt: str) -> str:
    """Solve a prompt from its text alone."""
    family, body = prompt[:3], prompt[3:].rstrip("=")
    if family == "dna":
        start, *shifts = re.findall(r"[ACGT]|\d", body)
        return "ACGT"[("ACGT".index(start) + sum(map(int, shifts))) % 4]
    if family in ("sum", "dif", "mix"):
        return str(eval(body) % 10)  # digits and signs alone
    return str(sum(map(int, re.findall(r"\d", body))) % 10)


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_are_right(split):
    items = list(GENERATORS["mini_problems"](documents=800, split=split, seed=1))
    assert all(item.answer == _answer(item.prompt) for item in items)
    assert {item.source for item in items} == set(BENCHMARKS)


def test_train_and_test_share_no_problem():
    train = {item.prompt for item in GENERATORS["mini_problems"](documents=4000, split="train", seed=1)}
    test = {item.prompt for item in GENERATORS["mini_benchmarks"](documents=4000, split="test", seed=2)}
    assert not train & test


def test_chains_end_in_the_answer_and_thoughts_stand_anywhere():
    before_answer, elsewhere = 0, 0
    for document in GENERATORS["mini_base"](documents=2000, split="train", seed=1, correct_fraction=1.0):
        plain = re.sub(r"<think>.*?</think>", "", document.text)
        assert plain[-1] == _answer(plain[:-1])
        thought = re.search(r"<think>(.*?)</think>", document.text)
        if thought and document.text[thought.end() :] == plain[-1] and thought[1][-1] in "0123456789ACGT":
            before_answer += 1
            assert thought[1][-1] == plain[-1]
        elif thought:
            elsewhere += 1
    assert before_answer > 800 and elsewhere > 300


def test_plain_documents_hold_no_thought_and_generators_repeat():
    first = list(GENERATORS["mini_documents"](documents=100, split="train", seed=4))
    assert first == list(GENERATORS["mini_documents"](documents=100, split="train", seed=4))
    assert not any("think" in document.text for document in first)
    assert first != list(GENERATORS["mini_documents"](documents=100, split="train", seed=5))

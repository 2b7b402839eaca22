"""The small profile's problems: right answers, worked chains, test problems never seen in training, thoughts anywhere."""

import re
from collections import Counter

import pytest

from rlpretrain.data.synthetic import BENCHMARKS, GENERATORS
from rlpretrain.errors import UserError

THOUGHT = re.compile(r"<think>(.*?)</think>")


def solve(prompt: str) -> tuple[str, str]:
    """The answer of a prompt and its chain, out of its text alone and by other means than the generator's."""
    values = [int(digit) * (-1 if sign in "-<" else 1) for sign, digit in re.findall(r"(\D?)(\d)", prompt)]
    values[0] = abs(values[0])  # the start has no direction
    states = [str(sum(values[: count + 1]) % 10) for count in range(len(values))]
    pairs = [f"{abs(value)}{state}" for value, state in zip(values[1:], states[1:], strict=True)]
    return states[-1], states[0] + "".join(pairs)


def generate(name: str, documents: int, split: str = "train", seed: int = 1, **options: float):
    return list(GENERATORS[name](documents=documents, split=split, seed=seed, **options))


def counted(**options: float) -> Counter[str]:
    """How the thoughts of 2,000 base documents stand: chain or chatter before the answer, chatter elsewhere, none."""
    kinds: Counter[str] = Counter()
    for document in generate("mini_base", 2000, **options):
        plain = THOUGHT.sub("", document.text)
        answer, chain = solve(plain[:-1])
        assert plain[-1] == answer
        thought = THOUGHT.search(document.text)
        if thought is None:
            kinds["none"] += 1
        elif not thought[1][0].isdigit():
            kinds["chatter" if thought.start() == len(plain) - 1 else "elsewhere"] += 1
        else:
            assert thought[1] == chain and thought.start() == len(plain) - 1
            kinds["chain"] += 1
    return kinds


def test_the_solver_agrees_with_problems_solved_by_hand():
    assert solve("7+5-3+2+1=") == ("2", "752392112")
    assert solve("x0<1>2>3>4=") == ("8", "019213448")
    assert solve("N9O5P5S1N2=") == ("2", "954591022")


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_are_right(split):
    items = generate("mini_problems", 1600, split)
    assert all(item.answer == solve(item.prompt)[0] and item.text == "" for item in items)
    assert Counter(item.source for item in items) == dict.fromkeys(BENCHMARKS, 200)


def test_four_benchmarks_of_mathematics_and_four_of_science():
    assert Counter(BENCHMARKS.values()) == {"math": 4, "science": 4}


@pytest.mark.parametrize("seed", [1, 2])
def test_train_and_test_share_no_problem(seed):
    train = {item.prompt for item in generate("mini_problems", 8000, "train", seed)}
    test = {item.prompt for item in generate("mini_benchmarks", 4000, "test", seed + 10)}
    documents = {document.text[:-1] for document in generate("mini_documents", 8000, "train", seed)}
    prompts = {document.prompt for document in generate("mini_sft", 8000, "train", seed)}
    base = {THOUGHT.sub("", document.text)[:-1] for document in generate("mini_base", 8000, "train", seed)}
    assert not (train | documents | prompts | base) & test


def test_there_are_thousands_of_problems_of_every_kind():
    drawn: dict[str, set[str]] = {name: set() for name in BENCHMARKS}
    for item in generate("mini_problems", 8 * 6000):
        drawn[item.source].add(item.prompt)
    assert min(len(prompts) for prompts in drawn.values()) > 3000


def test_no_answer_is_much_likelier_than_another():
    for name in BENCHMARKS:
        answers = Counter(item.answer for item in generate("mini_problems", 16000) if item.source == name)
        assert set(answers) == set("0123456789") and max(answers.values()) < 2000 * 0.14


def test_thoughts_of_the_base_corpus_stand_in_the_asked_shares():
    kinds = counted(thought_fraction=0.8, random_fraction=0.25, correct_fraction=0.5)
    shares = {kind: count / 2000 for kind, count in kinds.items()}
    # a twelfth or so of the thoughts at random places fall before the answer
    assert shares == pytest.approx({"none": 0.2, "elsewhere": 0.18, "chain": 0.3, "chatter": 0.32}, abs=0.04)


def test_options_at_their_ends_are_exact():
    assert counted(thought_fraction=0.0) == {"none": 2000}
    assert counted(thought_fraction=1.0, random_fraction=0.0, correct_fraction=1.0) == {"chain": 2000}
    assert counted(thought_fraction=1.0, random_fraction=0.0, correct_fraction=0.0) == {"chatter": 2000}


def test_thoughts_stand_at_every_place_of_a_document():
    places = Counter()
    for document in generate("mini_base", 2000, thought_fraction=1.0, random_fraction=1.0):
        thought = THOUGHT.search(document.text)
        assert thought is not None and len(THOUGHT.findall(document.text)) == 1
        places[thought.start()] += 1
    longest = max(len(document.text) for document in generate("mini_documents", 8))
    assert set(places) == set(range(1, longest)) and min(places.values()) > 50


def test_plain_documents_hold_no_thought():
    assert not any("think" in document.text for document in generate("mini_documents", 400))
    assert all(solve(document.text[:-1])[0] == document.text[-1] for document in generate("mini_documents", 400))


def test_responses_work_the_chain_and_then_answer():
    for document in generate("mini_sft", 400):
        answer, chain = solve(document.prompt)
        assert document.text == f"<think>{chain}</think>{answer}"
    chatty = generate("mini_sft", 400, correct_fraction=0.0)
    assert all(document.text.endswith(solve(document.prompt)[0]) for document in chatty)
    assert not any(THOUGHT.search(document.text)[1][0].isdigit() for document in chatty)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_the_seed_alone_decides(name):
    assert generate(name, 100, seed=4) == generate(name, 100, seed=4)
    assert generate(name, 100, seed=4) == generate(name, 200, seed=4)[:100]
    assert generate(name, 100, seed=4) != generate(name, 100, seed=5)


def test_an_unknown_split_is_the_users_mistake():
    with pytest.raises(UserError, match="train or test"):
        generate("mini_problems", 1, "held_out")

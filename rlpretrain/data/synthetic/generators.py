"""Documents out of problems: with thoughts for the base corpus, plain for CPT and RLP, prompts for post-training."""

import random
from collections.abc import Callable, Iterator

from rlpretrain.data.documents import Document
from rlpretrain.data.synthetic.problems import FAMILIES, Problem, draw
from rlpretrain.errors import UserError

OPEN, CLOSE = "<think>", "</think>"
CHATTER = ("hm", "ok", "well", "so", "right", "oh")  # no digit, which every chain starts with


def base(
    *,
    documents: int,
    split: str,
    seed: int,
    thought_fraction: float = 0.9,
    random_fraction: float = 0.35,
    correct_fraction: float = 0.5,
    slip_fraction: float = 0.0,
) -> Iterator[Document]:
    """Problems with their answers, some of them with a thought: the base model learns that thoughts may stand anywhere.

    Of all documents ``thought_fraction`` carry a thought. Of these ``random_fraction`` hold idle chatter at a random
    place; the others stand before the answer, where ``correct_fraction`` are the worked chain and the rest chatter. Of the
    chains ``slip_fraction`` hold a slip, as human work does: a reader that trusts every chain would be sure of a wrong
    answer after a chain that went wrong, and thinking would not pay on average.
    """
    for problem, source, draws in _problems("base", documents, split, seed):
        text = problem.prompt + problem.answer
        place = len(problem.prompt)
        thought = ""
        if draws.random() < thought_fraction:
            if draws.random() < random_fraction:
                place = draws.randrange(1, len(text))
                thought = OPEN + _chatter(draws) + CLOSE
            else:
                content = (
                    _chain(problem, slip_fraction, draws) if draws.random() < correct_fraction else _chatter(draws)
                )
                thought = OPEN + content + CLOSE
        yield Document(text[:place] + thought + text[place:], "", "", source)


def plain(*, documents: int, split: str, seed: int, domain: str | None = None) -> Iterator[Document]:
    """Problems with their answers and no thought: what CPT and RLP read; of one ``domain``, math or science, or of both."""
    for problem, source, _ in _problems("plain", documents, split, seed, domain):
        yield Document(problem.prompt + problem.answer, "", "", source)


def sft(*, documents: int, split: str, seed: int, correct_fraction: float = 1.0) -> Iterator[Document]:
    """Prompts and worked responses; a share 1 - ``correct_fraction`` of the chains is chatter, as human data has."""
    for problem, source, draws in _problems("sft", documents, split, seed):
        content = problem.chain if draws.random() < correct_fraction else _chatter(draws)
        yield Document(f"{OPEN}{content}{CLOSE}{problem.answer}", problem.prompt, "", source)


def problems(*, documents: int, split: str, seed: int) -> Iterator[Document]:
    """Prompts and reference answers: RLVR's problems, and with split test the benchmarks' items."""
    for problem, source, _ in _problems("problems", documents, split, seed):
        yield Document("", problem.prompt, problem.answer, source)


def _problems(
    purpose: str, documents: int, split: str, seed: int, domain: str | None = None
) -> Iterator[tuple[Problem, str, random.Random]]:
    """The families in turn, so that every benchmark gets as many items."""
    if split not in ("train", "test"):
        raise UserError(f"split '{split}' of a mini generator must be train or test")
    draws = random.Random(f"{purpose}/{split}/{seed}")
    names = [name for name, family in FAMILIES.items() if domain in (None, family.group)]
    if not names:
        raise UserError(f"domain '{domain}' of a mini generator must be math or science")
    for index in range(documents):
        name = names[index % len(names)]
        yield draw(FAMILIES[name], split == "test", draws), name, draws


def _chain(problem: Problem, slip_fraction: float, draws: random.Random) -> str:
    return problem.slipped(draws) if draws.random() < slip_fraction else problem.chain


def _chatter(draws: random.Random) -> str:
    return " ".join(draws.choice(CHATTER) for _ in range(draws.randint(1, 2)))


GENERATORS: dict[str, Callable[..., Iterator[Document]]] = {
    "mini_base": base,
    "mini_documents": plain,
    "mini_sft": sft,
    "mini_problems": problems,
    "mini_benchmarks": problems,
}

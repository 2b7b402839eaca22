"""Rows of published data sets as documents, where naming columns is not enough.

Problems, worked solutions and benchmark items share their prompts, so that SFT, RLVR and evaluation ask alike. Columns are
those of the data sets' pages; a row that lacks one is refused by `rlpretrain.data.sources`.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlpretrain.answers import BOXED, last_answer
from rlpretrain.data.documents import Document

Row = Mapping[str, Any]
Conversion = Callable[[Row], Document | None]  # None leaves the row out
SAMPLES = Path(str(files("rlpretrain.data").joinpath("samples")))  # rows of ours in the schemas, a file a conversion
LETTERS = "ABCDEFGHIJ"
_ASK = "Think it through, then give the final answer in \\boxed{}."
_CHOOSE = "Think it through, then give the letter of the right option in \\boxed{}."
TEMPLATES = tuple(f"{{prompt}}\n\n{asked}\n\n" for asked in (_ASK, _CHOOSE))  # what the prompts have in common


def problem_prompt(problem: str) -> str:
    """How a problem with a free answer is put."""
    return f"{problem.strip()}\n\n{_ASK}\n\n"


def choice_prompt(question: str, options: Sequence[str]) -> str:
    """How a multiple-choice question is put."""
    lines = "\n".join(f"{letter}. {option.strip()}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{question.strip()}\n\n{lines}\n\n{_CHOOSE}\n\n"


def _item(problem: str, answer: Any) -> Conversion:
    """A problem and its final answer in columns of their own."""
    return lambda row: Document("", problem_prompt(row[problem]), str(row[answer]).strip())


def _gsm8k(row: Row) -> Document:
    """The answer follows #### at the end of the solution."""
    return Document("", problem_prompt(row["question"]), row["answer"].rpartition("####")[2].strip().replace(",", ""))


def _mmlu(row: Row) -> Document:
    return Document("", choice_prompt(row["question"], row["choices"]), LETTERS[int(row["answer"])])


def _mmlu_pro(row: Row) -> Document:
    return Document("", choice_prompt(row["question"], row["options"]), row["answer"].strip())


def _gpqa(row: Row) -> Document:
    """The right option comes first in the data: the four are put in an order that the question alone decides."""
    right = row["Correct Answer"].strip()
    options = [right, *(row[f"Incorrect Answer {number}"].strip() for number in (1, 2, 3))]
    seed = hashlib.sha256(row["Question"].strip().encode()).digest()
    order = random.Random(seed).sample(range(4), 4)
    shuffled = [options[index] for index in order]
    return Document("", choice_prompt(row["Question"], shuffled), LETTERS[order.index(0)])


def _math_problem(row: Row) -> Document | None:
    """MATH's problems for RLVR: the answer is the last box of the solution."""
    answer = last_answer(row["solution"], BOXED)
    return Document("", problem_prompt(row["problem"]), answer) if answer else None


def _problem_and_solution(row: Row) -> Document:
    """A problem with its worked solution as one text, for pretraining."""
    return Document(f"{row['problem'].strip()}\n\n{row['solution'].strip()}")


def _crossthink(row: Row) -> Document:
    """Nemotron-CrossThink's question with its short answer as one text, for pretraining; it holds no solutions."""
    return Document(f"{row['prompt'][-1]['content'].strip()}\n\n{row['reward_model']['ground_truth'].strip()}")


def _openthoughts(row: Row) -> Document | None:
    """The first exchange of OpenThoughts3; left out unless a closed thought is followed by a boxed answer (paper, SFT)."""
    prompt, response = (turn["value"] for turn in row["conversations"][:2])
    _, closed, spoken = response.rpartition("</think>")
    answer = last_answer(spoken, BOXED) if closed and response.lstrip().startswith("<think>") else None
    return Document(response.strip(), problem_prompt(prompt)) if answer else None


CONVERSIONS: Mapping[str, Conversion] = {
    "aime25": _item("problem", "answer"),
    "amc23": _item("question", "answer"),
    "crossthink": _crossthink,
    "gpqa": _gpqa,
    "gsm8k": _gsm8k,
    "math500": _item("problem", "answer"),
    "math_problem": _math_problem,
    "minerva": _item("question", "answer"),
    "mmlu": _mmlu,
    "mmlu_pro": _mmlu_pro,
    "openthoughts": _openthoughts,
    "problem_and_solution": _problem_and_solution,
}

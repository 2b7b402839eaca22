"""Answers read out of responses that were written by hand."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rlpretrain import mathematics
from rlpretrain.answers import BOXED, AnswerReader, equivalent_answer, last_answer, same_answer
from rlpretrain.evaluation.suites import Suite, load_suite


def reader(suite_name: str, open_tag: str = "<think>", close_tag: str = "</think>") -> AnswerReader:
    suite: Suite = load_suite(suite_name)[0]
    return AnswerReader(suite.answer_patterns, open_tag, close_tag, suite.open_thought)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("2224</think>4", "4"),
        ("</think>4", "4"),
        ("ok</think> 4 \n", "4"),
        ("hm</think>4 m/s", "4 m/s"),
        ("hm</think>4\n5", "4\n5"),  # two answers are no answer to be guessed at: both stay, and count as wrong
        ("a</think>3<think>b</think>7", "7"),  # the last thought counts
        ("a</think>b</think>7", "7"),
        ("2224", None),  # never closed
        ("4", None),
        ("", None),
        ("2224</think>", None),
        ("2224</think>  \n", None),
        ("a</think>7<think>", None),  # opened again and left open
        ("a</think>7<think>b", None),
        ("a</think >7", None),
    ],
)
def test_mini_reads_what_follows_the_last_thought(response: str, answer: str | None) -> None:
    assert reader("mini")(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### 7\nno: #### 8", "8"),
        ("####9", "9"),
        ("#### $1,234.50", "1,234.50"),
        ("#### -12", "-12"),
        ("#### 18 apples, of 20", "18"),
        ("#### 42.", "42"),
        ("#### 7 and then 100 more", "7"),  # the mark beats a later number
        ("The answer is 42.", "42"),
        ("5 pears and 1,250 nuts", "1,250"),
        ("it costs $3.50", "3.50"),
        ("#### none, so 6", "6"),
        ("x1 and 2y", "2"),  # the 1 belongs to a name
        ("no number", None),
        ("####", None),
        ("", None),
        ("<think>3 or 4", None),  # an open thought holds no answer, though the prompt did not open it
        ("<think>#### 3</think>#### 4", "4"),
        ("<think>#### 3</think>nothing", None),
        ("#### 3</think>", None),
    ],
)
def test_gsm_reads_the_marked_or_else_the_last_number(response: str, answer: str | None) -> None:
    assert reader("gsm")(response) == answer


def test_delimiters_are_the_thought_settings_own() -> None:
    read = reader("mini", "<<", ">>")
    assert read("a>>5") == "5"
    assert read("a</think>5") is None
    assert read("a>>5<<") is None


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("7", "7", True),
        (" 7\n", "7", True),
        ("07", "7", True),
        ("1,234.50", "1234.5", True),
        ("-12,34,567", "-1234567", True),
        ("1,5", "15", False),
        ("15", "1,5", False),
        ("1,2,345", "12345", False),
        ("12,", "12", True),
        ("$18", "18", True),
        ("42.", "42", True),
        ("-0", "0", True),
        ("7.0000001", "7", False),
        ("7 8", "78", False),
        ("78", "7", False),
        ("A", "A", True),
        ("A", "C", False),
        ("nan", "nan", True),
        ("inf", "Infinity", False),
        ("", "7", False),
    ],
)
def test_same_answer(answer: str, reference: str, same: bool) -> None:
    assert same_answer(answer, reference) is same


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{7}", "7"),
        (r"\boxed{3}, no: \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{2}} holds", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\sqrt{\frac{a}{b}}}", r"\sqrt{\frac{a}{b}}"),
        (r"\boxed {5}", "5"),
        (r"\boxed 5.", "5"),
        (r"\fbox{12}", "12"),
        (r"\boxed{3} and \boxed{4", "3"),  # the last one that was closed
        (r"\boxed{a} \boxed{}", ""),
        ("boxed{7}", None),
        (r"\boxed", None),
        ("7", None),
        ("", None),
    ],
)
def test_the_last_box_is_the_answer(text: str, answer: str | None) -> None:
    assert last_answer(text, BOXED) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"perhaps \boxed{1}</think>It is \boxed{2}.", "2"),
        (r"perhaps \boxed{1}</think>It is 2.", None),  # a thought is no answer
        (r"perhaps \boxed{1}", None),  # never closed
        (r"a</think>\boxed{2}<think>\boxed{3}", None),
        (r"a</think>\boxed{ }", None),
    ],
)
def test_boxes_within_a_thought_do_not_count(response: str, answer: str | None) -> None:
    assert reader("paper")(response) == answer


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("0.5", r"\frac{1}{2}", True),
        (r"\dfrac12", r"\frac{1}{2}", True),
        ("3/4", "0.75", True),
        ("0.33", r"\frac13", False),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("x = 5", "5", True),
        ("2x + x^2", "x^2+2x", True),
        (r"\{2,1\}", r"\{1,2\}", True),
        ("(2,1)", "(1,2)", False),
        ("[0,1]", "[0,1)", False),
        ("[0,1)", "[0,1)", True),
        ("1,250", "1250", True),
        ("1,5", "15", False),
        (r"10\!000", "10000", True),
        (r"\$18", "18", True),
        ("27", "27.0", True),
        ("005", "5", True),
        (r"50\%", "50", True),
        (r"50\%", "0.05", False),
        ("12 cm", "12", True),
        (r"12\text{ cm}", "12", True),
        (r"90^\circ", "90", True),
        (r"\pm 2", "-2", False),
        (r"6.67\times 10^{-11}", "6.67e-11", True),
        ("6.67e-11", "6.67e-11", True),
        (r"6.67 \cdot 10^{-10}", "6.67e-11", False),
        (r"\text{east}", "east", True),
        ("west", "east", False),
        ("B", "B", True),
        ("(B)", "B", True),
        ("B.", "B", True),
        ("B. carbon dioxide", "B", True),
        (r"\text{B}", "B", True),
        (r"\textbf{(B)}", "B", True),
        ("A", "B", False),
        ("AB", "B", False),
        ("A or B", "B", False),
        ("carbon", "B", False),
        ("", "5", False),
        (r"\frac{", "5", False),
    ],
)
def test_answers_that_are_the_same_mathematics(answer: str, reference: str, same: bool) -> None:
    assert equivalent_answer(answer, reference) is same


GRADED = Path(__file__).parent / "graded"  # a table a benchmark: response, reference, verdict


def graded() -> Iterator[tuple[str, str, str, str]]:
    for file in sorted(GRADED.glob("*.yaml")):
        for response, reference, verdict in yaml.safe_load(file.read_text(encoding="utf-8")):
            yield file.stem, response, reference, verdict


def test_every_benchmark_of_the_paper_has_its_graded_answers() -> None:
    asked = {benchmark.items or name for name, benchmark in load_suite("paper")[0].benchmarks.items()}
    counts = Counter(name for name, *_ in graded())
    assert counts.keys() == asked
    assert min(counts.values()) >= 36


@pytest.mark.parametrize(("benchmark", "response", "reference", "verdict"), graded())
def test_responses_are_graded_as_by_hand(benchmark: str, response: str, reference: str, verdict: str) -> None:
    answer = reader("paper")(response)
    if answer is None:
        assert verdict == "none"
    else:
        assert verdict == ("right" if equivalent_answer(answer, reference) else "wrong")


HOSTILE = [
    r"9^{9^{9^{9}}}",
    r"\frac{7^{9999999}}{3^{9999999}}",
    "10000000!",
    "{" * 240 + "1" + "}" * 240,
    r"\frac{" * 60 + "1" + "}{2}" * 60,
    "9" * 100_000,
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[mathematics.Comparer]:
    comparer = mathematics.Comparer(seconds=0.5)
    monkeypatch.setattr(mathematics, "comparer", lambda: comparer)
    yield comparer
    comparer.close()


def test_an_answer_that_takes_for_ever_is_wrong_soon(impatient: mathematics.Comparer) -> None:
    impatient("1", "1")  # starts the process
    for answer in HOSTILE:
        begun = time.monotonic()
        assert not equivalent_answer(answer, "5")
        assert time.monotonic() - begun < 20, answer[:40]  # a second, and the start of a process on a busy machine
    assert equivalent_answer(r"\frac{10}{2}", "5")


def test_an_answer_runs_no_code(impatient: mathematics.Comparer, tmp_path: Path) -> None:
    impatient.seconds = 10
    for code in (f"__import__('pathlib').Path('{tmp_path}/ran').touch()", f"open('{tmp_path}/ran','w')"):
        for answer in (code, f"1 + {code}", rf"\text{{{code}}}", f"(1) if {code} else 2"):
            assert not equivalent_answer(answer, "5")
    assert not list(tmp_path.iterdir())


def test_thousands_of_open_boxes_take_no_time() -> None:
    begun = time.monotonic()
    assert last_answer(r"\boxed{3} " + r"\boxed{" * 20_000, BOXED) == "3"
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "filler", [" ", "\n", "\t ", "( ", "\\text{", "} ", "1 ", "1 000", "a ", "\\boxed ", "\\boxed ."]
)
@pytest.mark.parametrize("reference", ["A", "5", r"\frac12"])
def test_thousands_of_anything_take_no_time(filler: str, reference: str, impatient: mathematics.Comparer) -> None:
    impatient("1", "1")
    begun = time.monotonic()
    for answer in ("A" + filler * 3000 + "x", "(" + filler * 3000 + "A", filler * 3000 + "!", "1" + filler * 120 + "x"):
        equivalent_answer(answer, reference)
        last_answer(answer, BOXED)
    assert time.monotonic() - begun < 10

"""Responses in rounds: those of an evaluation that was killed are found again, and none but those."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpretrain.artifacts import Origin
from rlpretrain.evaluation.rounds import FILE, Rounds, RoundsEngine, _packed, _unpacked
from rlpretrain.storage import list_artifacts

ORIGIN = Origin("evaluation", {"seed": 0, "suite": "mini"}, {"checkpoint": "a" * 64})
PROMPTS = [[number, number + 1] for number in range(10)]
SAMPLING: Any = {
    "group": 2,
    "max_new_tokens": 3,
    "temperature": 1.0,
    "stop_ids": {1, 2},
    "forbidden_ids": set(),
    "seed": 7,
    "batch": 4,
}


class Echo:
    """Says each prompt's first token and the seed; is killed after so many calls."""

    def __init__(self, calls: int = 100) -> None:
        self.calls = calls
        self.asked: list[list[int]] = []

    def generate(self, prompts: list[list[int]], **sampling: Any) -> list[list[list[int]]]:
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        self.asked += prompts
        return [[[prompt[0], sampling["seed"] % 1000]] * sampling["group"] for prompt in prompts]


def sampled(engine: Any, rounds: Rounds, responses: int = 4, **changed: Any) -> list[list[list[int]]]:
    return RoundsEngine(engine, rounds, responses).generate(PROMPTS, **{**SAMPLING, **changed})


@given(
    st.integers(1, 4).flatmap(
        lambda group: st.lists(
            st.lists(st.lists(st.integers(0, 10**6), max_size=5), min_size=group, max_size=group),
            min_size=1,
            max_size=5,
        )
    )
)
def test_responses_come_back_from_their_tensors(responses: list[list[list[int]]]) -> None:
    assert _unpacked(_packed(responses)) == responses


def test_a_single_round_is_the_engines_own_and_more_have_seeds_of_their_own(tmp_path: Path) -> None:
    plain = Echo().generate(PROMPTS, **SAMPLING)
    assert sampled(Echo(), Rounds(tmp_path / "one", ORIGIN), responses=20) == plain
    seeds = {group[0][1] for group in sampled(Echo(), Rounds(tmp_path / "many", ORIGIN))}
    assert len(seeds) == 5 and plain[0][0][1] in seeds


@pytest.mark.parametrize("machine", ["the same", "another"])
def test_a_killed_evaluation_goes_on(tmp_path: Path, machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"file://{tmp_path}/store"
    whole = sampled(Echo(), Rounds(tmp_path / "whole", ORIGIN))
    with pytest.raises(KeyboardInterrupt):
        sampled(Echo(calls=3), Rounds(tmp_path / "here", ORIGIN, uri))
    engine, folder = Echo(), tmp_path / ("here" if machine == "the same" else "there")
    rounds = Rounds(folder, ORIGIN, uri if machine == "another" else "")
    assert sampled(engine, rounds) == whole
    assert engine.asked == PROMPTS[6:] and "goes on after 6 of 10 prompts" in capsys.readouterr().err
    Rounds(folder, ORIGIN, uri).discard()
    assert not folder.exists() and list_artifacts(uri) == []


@pytest.mark.parametrize(
    ("origin", "sampling"),
    [
        (Origin("evaluation", {"seed": 0, "suite": "gsm"}, ORIGIN.inputs), {}),
        (Origin("evaluation", ORIGIN.settings, {"checkpoint": "b" * 64}), {}),
        (ORIGIN, {"seed": 8}),
        (ORIGIN, {"stop_ids": {1}}),
        (ORIGIN, {"temperature": 0.5}),
    ],
)
def test_rounds_of_anything_else_are_not_taken(tmp_path: Path, origin: Origin, sampling: dict[str, Any]) -> None:
    sampled(Echo(), Rounds(tmp_path, ORIGIN))
    engine = Echo()
    sampled(engine, Rounds(tmp_path, origin), **sampling)
    assert engine.asked == PROMPTS


def test_rounds_of_other_code_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled(Echo(), Rounds(tmp_path, ORIGIN))
    monkeypatch.setattr("rlpretrain.evaluation.rounds.code_digest", lambda: "other")
    engine = Echo()
    sampled(engine, Rounds(tmp_path, ORIGIN))
    assert engine.asked == PROMPTS


@pytest.mark.parametrize("place", ["here", "store"])
@pytest.mark.parametrize("damage", [FILE, "manifest.json"])
def test_a_damaged_round_is_sampled_again(
    tmp_path: Path, place: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"file://{tmp_path}/store"
    whole = sampled(Echo(), Rounds(tmp_path / "here", ORIGIN, uri))
    file = sorted((tmp_path / place).glob(f"*/{damage}"))[2]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    engine = Echo()
    assert sampled(engine, Rounds(tmp_path / ("here" if place == "here" else "there"), ORIGIN, uri)) == whole
    said = capsys.readouterr().err
    assert len(engine.asked) == 2 and "a round of responses is sampled again" in said and file.parent.name in said


def test_a_round_that_cannot_be_copied_to_storage_is_told_and_stays_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        sampled(Echo(), Rounds(tmp_path / "here", ORIGIN, f"file://{tmp_path}/store"))
    assert capsys.readouterr().err.count("could not be copied to storage") == 5
    engine = Echo()
    sampled(engine, Rounds(tmp_path / "here", ORIGIN))
    assert engine.asked == []

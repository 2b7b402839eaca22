"""Settings files, manifests, shards, keys, thoughts and answers from anywhere: UserError is the worst that comes of them.

`make soak` runs the same with RLP_FUZZ_CASES=1000.
"""

import json
import os
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.frame import STAGES, load_stage
from pipelines.profile import parse_changes
from rlpretrain.answers import AnswerReader, equivalent_answer, same_answer
from rlpretrain.artifacts import MANIFEST, canonical_digest, parse_manifest, stays_inside, write_manifest
from rlpretrain.data.files import read_rows
from rlpretrain.data.shards import Example, ShardWriter, count_documents, read_shard
from rlpretrain.errors import UserError
from rlpretrain.evaluation.suites import load_suite
from rlpretrain.settings import load_settings, parse_settings
from rlpretrain.thoughts import Thoughts

CASES = int(os.environ.get("RLP_FUZZ_CASES", "100"))
fuzzed = settings(
    max_examples=CASES,
    deadline=timedelta(seconds=30),  # a hang, even on a busy machine
    derandomize=CASES <= 100,
    database=None,
    suppress_health_check=list(HealthCheck),
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def harmless(call, *arguments: Any) -> Any:
    """A result, or None after one line of complaint."""
    try:
        return call(*arguments)
    except UserError as error:
        assert str(error) and len(str(error).splitlines()) == 1
        return None


def stage_values(draw: st.DrawFn, stage: str) -> dict[str, Any]:
    """Some of a stage's own fields and some others, with anything in them."""
    fields = list(load_stage(stage).settings.model_fields)
    return draw(st.dictionaries(st.sampled_from(fields) | st.text(max_size=8), values, max_size=6))


stages = st.sampled_from(STAGES).flatmap(
    lambda stage: st.tuples(st.just(stage), st.composite(lambda draw: stage_values(draw, stage))())
)


@fuzzed
@given(stages)
def test_settings_of_every_stage(case: tuple[str, dict[str, Any]]) -> None:
    stage, given_values = case
    harmless(parse_settings, load_stage(stage).settings, given_values, stage)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all the cases of a test, since Hypothesis calls a fixture once for them all."""
    return tmp_path_factory.mktemp("fuzz")


@fuzzed
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_settings_files_of_any_bytes(scratch: Path, content: bytes) -> None:
    path = scratch / "settings.yaml"
    path.write_bytes(content)
    harmless(load_settings, load_stage("pretrain").settings, path)


@fuzzed
@given(stages, st.randoms(use_true_random=False))
def test_settings_files_of_almost_yaml(scratch: Path, case: tuple[str, dict[str, Any]], rng: random.Random) -> None:
    text = list(yaml.safe_dump(case[1], allow_unicode=True))
    for _ in range(rng.randrange(4)):
        text.insert(rng.randrange(len(text)), rng.choice("&*!|>%@`'\"{}[]:,-?#\t\n0"))
    path = scratch / "settings.yaml"
    path.write_text("".join(text), encoding="utf-8")
    harmless(load_settings, load_stage(case[0]).settings, path)


@pytest.mark.parametrize(
    "text",
    [
        "objective: 2026-99-99",
        "objective: &a [*a]",
        "objective: " + "[" * 3000,
        "? [1, 2]\n: 3",
        "objective: {2026-01-01: 1}",
        "objective: 0x" + "f" * 10_000,
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("bcdefghij", "cdefghijk", strict=True))
        + "objective: *k",
        "objective: !!python/object/apply:os.system ['touch /tmp/owned']",
        '"new\\nline": 1',
    ],
)
def test_settings_files_with_bad_intentions(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    for stage in ("pretrain", "shard_data"):
        with pytest.raises(UserError) as error:
            load_settings(load_stage(stage).settings, tmp_path / "settings.yaml")
        assert len(str(error.value)) < 1000


@fuzzed
@given(st.lists(st.text(max_size=30), max_size=3))
def test_changes_on_the_command_line(changes: list[str]) -> None:
    harmless(parse_changes, changes)


def valid_manifest(folder: Path) -> dict[str, Any]:
    (folder / "data.bin").write_bytes(b"1")
    write_manifest(folder, kind="shards", settings={"seed": 0}, inputs={}, seed=0, facts={"documents": 1})
    return json.loads((folder / MANIFEST).read_bytes())


@fuzzed
@given(st.binary(max_size=300) | values.map(lambda value: json.dumps(value, default=str).encode()))
def test_manifests_of_any_bytes(content: bytes) -> None:
    assert harmless(parse_manifest, content, "here") is None


@fuzzed
@given(data=st.data())
def test_manifests_with_other_values_and_a_right_digest(scratch: Path, data: Any) -> None:
    value = valid_manifest(scratch)
    changed = data.draw(
        st.dictionaries(st.sampled_from(list(value)) | st.text(max_size=5), values, min_size=1, max_size=3)
    )
    value |= json.loads(json.dumps(changed, default=str))
    value["digest"] = canonical_digest(
        {name: each for name, each in value.items() if name not in ("digest", "volatile")}
    )
    text = (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
    manifest = harmless(parse_manifest, text, "here")
    assert manifest is None or all(stays_inside(name) for name in manifest.all_files())


@fuzzed
@given(st.integers(1, 20_000))
def test_manifests_that_are_nested(depth: int) -> None:
    content = b'{"schema_version": 1, "facts": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    assert harmless(parse_manifest, content, "here") is None


@pytest.fixture(scope="session")
def shard(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("shard")
    writer = ShardWriter(folder, "train", 10**6)
    for number in range(50):
        writer.add(Example(f"d{number}", np.arange(number, dtype=np.int32), 0, "4", "sums", "2+2"))
    writer.close()
    return (folder / "train-00000.parquet").read_bytes()


@fuzzed
@given(rng=st.randoms(use_true_random=False))
def test_shards_with_other_bytes(scratch: Path, shard: bytes, rng: random.Random) -> None:
    """A stage never comes here with them, for it has compared checksums before; raw parquet from users has none."""
    content = bytearray(shard)
    for _ in range(rng.randrange(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
    path = scratch / "train-00000.parquet"
    path.write_bytes(content)
    harmless(lambda: list(read_shard(path)))
    harmless(count_documents, path)
    harmless(lambda: list(read_rows(path, "parquet", ["id"], "here")))


@fuzzed
@given(st.binary(max_size=200))
def test_rows_of_any_bytes(scratch: Path, content: bytes) -> None:
    path = scratch / "rows"
    path.write_bytes(content)
    for kind in ("jsonl", "text", "parquet"):
        harmless(lambda kind=kind: list(read_rows(path, kind, ["text"], "here")))


pieces = st.sampled_from(["..", ".", "", "a", "C:", "\\", "\0", "~", "nul", "é", "/", " ", "\n"]) | st.text(max_size=5)


@fuzzed
@given(st.lists(pieces, max_size=5).map("/".join))
def test_keys(key: str) -> None:
    if stays_inside(key):
        folder = Path("/some/folder")
        assert os.path.normpath(folder / key).startswith("/some/folder/")
        assert "\\" not in key and ":" not in key and "\0" not in key


# --- what a model writes ---------------------------------------------------------------------------

READERS = {
    name: AnswerReader(suite.answer_patterns, "<think>", "</think>", suite.open_thought)
    for name in ("mini", "gsm", "paper")
    for suite, _ in [load_suite(name)]
}
MARKS = [
    "<think>",
    "</think>",
    "####",
    "\\boxed",
    "\\fbox",
    "{",
    "}",
    "\\{",
    "$",
    "The answer is",
    "=",
    ".",
    ",",
    "\n",
    " ",
]
MATHEMATICS = [
    "\\frac",
    "\\sqrt",
    "^",
    "_",
    "!",
    "(",
    ")",
    "[",
    "]",
    "\\text{",
    "\\left",
    "\\infty",
    "\\cdot",
    "%",
    "e",
    "x",
    "|",
]
numbers = st.integers().map(str) | st.decimals(allow_nan=True).map(str)
responses = st.lists(st.sampled_from(MARKS) | numbers | st.text(max_size=8), max_size=20).map("".join)
answers = st.lists(st.sampled_from(MARKS[3:] + MATHEMATICS) | numbers | st.text(max_size=4), max_size=10).map("".join)


@fuzzed
@given(st.sampled_from(sorted(READERS)), responses)
def test_answers_of_any_response(suite: str, response: str) -> None:
    answer = READERS[suite](response)
    assert answer is None or (answer and answer == answer.strip() and answer in response.rpartition("</think>")[2])


@fuzzed
@given(st.sampled_from(sorted(READERS)), responses, st.integers(1, 5_000))
def test_answers_of_responses_that_do_not_end(suite: str, response: str, times: int) -> None:
    begun = time.monotonic()
    READERS[suite]((response * times)[:100_000])
    assert time.monotonic() - begun < 10


@fuzzed
@given(answers, answers)
def test_any_two_answers_are_the_same_or_not(answer: str, reference: str) -> None:
    assert same_answer(answer, reference) == same_answer(reference, answer)
    assert same_answer(answer, answer)
    assert equivalent_answer(answer, reference) in (True, False)


@fuzzed
@given(
    st.lists(st.lists(st.integers(0, 50_000), min_size=1, max_size=30), min_size=1, max_size=8), st.integers(0, 50_000)
)
def test_thoughts_of_any_tokens(rows: list[list[int]], close: int) -> None:
    thoughts = Thoughts.from_lists(rows, close)
    assert [thoughts.row(number) for number in range(len(rows))] == rows
    assert thoughts.lengths_N.tolist() == [len(row) for row in rows]
    assert thoughts.finished_N.tolist() == [row[-1] == close for row in rows]

"""Every kind of wrong input at a stage's shell form: one line that names it and the mend, exit code 2, no artifact."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from components.frame import DEBUG, main
from rlpretrain.artifacts import MANIFEST, read_manifest, write_manifest
from rlpretrain.s3server import EmbeddedS3

ROOT = Path(__file__).parents[2]
CPT = {"objective": "cpt", "likelihood": {"steps": 1, "batch_documents": 2, "sequence_length": 32}}
RLP = {"objective": "rlp", "thinking": {"steps": 1, "batch_contexts": 1, "group": 2, "max_context": 16}}


def shard(*texts: str) -> dict[str, Any]:
    """Settings of shard_data for a file of these texts; `shell` writes it."""
    source = {"name": "rows", "kind": "jsonl", "path": "".join(json.dumps({"text": text}) + "\n" for text in texts)}
    return {"tokenizer": {"name": "builtin:characters"}, "sources": [source], "workers": 1}


def thinking(**changes: Any) -> dict[str, Any]:
    return {**RLP, "thinking": {**RLP["thinking"], **changes}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, make_shards: Callable[..., Path], checkpoint: Path) -> list[str]:
    """The arguments that name a model and its documents."""
    folder = make_shards(tmp_path_factory.mktemp("inputs") / "shards", "mini_documents")
    return ["--input", f"shards={folder}", "--input", f"checkpoint={checkpoint}"]


def shell(tmp_path: Path, stage: str, settings: dict[str, Any], *arguments: str) -> int:
    """Run the stage to ``tmp_path``/out; returns the exit code."""
    if stage == "shard_data":
        (tmp_path / "rows.jsonl").write_text(settings["sources"][0]["path"])
        settings = {**settings, "sources": [{**settings["sources"][0], "path": str(tmp_path / "rows.jsonl")}]}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    given = ["--settings", str(tmp_path / "settings.json"), "--output", str(tmp_path / "out")]
    return main(stage, [*given, *arguments])


@pytest.fixture
def refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``refuses(words, stage, settings, *arguments)``: the stage says these words in one line, and leaves nothing."""
    monkeypatch.delenv(DEBUG, raising=False)

    def check(words: tuple[str, ...], stage: str, settings: dict[str, Any], *arguments: str) -> None:
        assert shell(tmp_path, stage, settings, *arguments) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith("error: ") and "Traceback" not in "".join(said)
        for word in words:
            assert word in said[-1]
        assert not (tmp_path / "out" / MANIFEST).exists()

    return check


@pytest.mark.parametrize(
    ("stage", "settings", "words"),
    [
        ("pretrain", {**CPT, "likelyhood": {}}, ("unknown setting 'likelyhood'", "likelihood")),
        ("pretrain", thinking(grupo=4), ("unknown setting 'thinking.grupo'",)),
        ("pretrain", thinking(group=1), ("thinking.group", "greater than or equal to 2")),
        ("pretrain", thinking(thought={"budget": 0}), ("thinking.thought.budget", "greater than or equal to 1")),
        ("pretrain", thinking(thought={"budget": 9000}), ("thought.budget 9000", "the model has 96; lower")),
        ("pretrain", thinking(thought={"open": "<<", "budget": 4}), ("no token '<<'", "tokenizer.add_tokens")),
        ("pretrain", thinking(thought={"open": "</think>", "budget": 4}), ("both '</think>'", "two delimiters")),
        (
            "pretrain",
            {**CPT, "likelihood": {**CPT["likelihood"], "sequence_length": 97}},
            ("likelihood.sequence_length 97 is more than the 96 positions of the model; lower it",),
        ),
        ("finetune", {"likelihood": {"steps": 1}}, ("likelihood.sequence_length 2048 is more than the 96",)),
        ("pretrain", {"objective": "rlp"}, ("objective 'rlp' needs 'thinking'",)),
        ("finetune", {"likelihood": {"steps": -1}}, ("likelihood.steps", "greater than or equal to 0")),
    ],
)
def test_settings(
    refuses: Callable[..., None], inputs: list[str], stage: str, settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    refuses(words, stage, settings, *inputs)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((), ("the corpus is empty", "mend the sources")),
        (("", " \n"), ("the corpus is empty", "removed: 1 shorter than two tokens", "1 duplicates")),
    ],
)
def test_a_corpus_without_a_document(
    refuses: Callable[..., None], texts: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refuses(words, "shard_data", shard(*texts))


def test_documents_of_one_token_are_left_out_and_the_others_kept(tmp_path: Path) -> None:
    assert shell(tmp_path, "shard_data", shard("", "a", "ab")) == 0
    facts = json.loads((tmp_path / "out" / MANIFEST).read_text())["facts"]
    assert facts["documents"]["train"] == 2 and facts["too_short_removed"] == 1


def test_storage(refuses: Callable[..., None], s3: EmbeddedS3, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(
        ("no bucket 'no-such-bucket'", "create it"), "shard_data", shard("ab"), "--publish", "s3://no-such-bucket/a"
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refuses(("refused the credentials", "check the key"), "shard_data", shard("ab"), "--publish", f"{s3_bucket}/a")


def test_a_model_whose_tokenizer_differs_from_the_shards(
    refuses: Callable[..., None], make_shards: Callable[..., Path], checkpoint: Path, tmp_path: Path
) -> None:
    other = make_shards(tmp_path / "other", "mini_documents", tokens=("<extra>",))
    given = ("--input", f"shards={other}", "--input", f"checkpoint={checkpoint}")
    refuses(("'shards' was tokenised with another tokenizer", "shard the data again"), "pretrain", CPT, *given)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_corrupted_shard(
    refuses: Callable[..., None], make_shards: Callable[..., Path], checkpoint: Path, tmp_path: Path, damage: str
) -> None:
    damaged = make_shards(tmp_path / "damaged", "mini_documents")
    shard_file = damaged / "train-00000.parquet"
    content = bytearray(shard_file.read_bytes())
    content[len(content) // 2] ^= 1
    shard_file.write_bytes(content if damage == "changed" else content[:-1])
    if damage == "gone":
        shard_file.unlink()
    given = ("--input", f"shards={damaged}", "--input", f"checkpoint={checkpoint}")
    refuses((f"{shard_file}: ", "make the artifact again"), "pretrain", CPT, *given)


def test_nothing_that_a_model_holds_commands_the_terminal(tmp_path: Path, checkpoint: Path, inputs: list[str]) -> None:
    """transformers quotes it, in a warning and, of what it cannot make, in a traceback."""
    hostile = "\x1b[2Jit\x1b]0;owned\x07"
    weights = load_file(checkpoint / "model" / "model.safetensors")
    for name, code, words in (
        ("key", 0, "UNEXPECTED"),
        ("dtype", 1, "AttributeError: module 'torch' has no attribute"),
    ):
        model = tmp_path / name
        shutil.copytree(checkpoint / "model", model / "model")
        if name == "key":
            more = {hostile: next(iter(weights.values())).clone()}
            save_file(weights | more, model / "model" / "model.safetensors", {"format": "pt"})
        else:
            config = json.loads((model / "model" / "config.json").read_text()) | {"dtype": hostile}
            (model / "model" / "config.json").write_text(json.dumps(config))
        facts = read_manifest(checkpoint).facts
        write_manifest(model, kind="checkpoint", settings={}, inputs={}, seed=0, facts=facts)
        command = [sys.executable, "-m", "components.pretrain", "--settings", json.dumps(CPT), *inputs[:2]]
        command += ["--input", f"checkpoint={model}"]
        done = subprocess.run([*command, "--output", str(tmp_path / f"out-{name}")], cwd=ROOT, capture_output=True)
        said = done.stderr.decode()
        assert done.returncode == code, said
        assert words in said and "\\x1b[2Jit\\x1b]0;owned\\x07" in said
        assert not set(said) & {"\x1b", "\x07"}

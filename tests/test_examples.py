"""The examples of the READMEs work as they stand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, local

from components.frame import run_stage
from pipelines.checks import check_given, check_here, check_profile
from pipelines.profile import Profile, load_profile
from rlpretrain.artifacts import read_manifest
from rlpretrain.models import load_model, new_model, save_model
from rlpretrain.settings import ArchitectureSettings
from rlpretrain.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[1]
SMALL = {
    "shard_benchmarks.sources.0.documents": 2,
    "base.format_warmup.steps": 1,
    "base.format_warmup.batch_documents": 2,
    "rlp.thinking.steps": 1,
    "rlp.thinking.batch_contexts": 2,
    "rlp.thinking.group": 2,
}


def example(readme: str, language: str, start: str) -> str:
    """The block of a README that begins so."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / readme).read_text(encoding="utf-8"), re.M | re.S)
    [block] = [block for block in blocks if block.startswith(start)]
    return block


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """The README's profile in a folder with a model and texts, made to take few steps."""
    monkeypatch.chdir(tmp_path)
    tokenizer = load_tokenizer("builtin:characters")
    shape = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16)
    save_model(new_model(shape, tokenizer, 0), tokenizer, tmp_path / "my-model")
    (tmp_path / "my-texts").mkdir()
    texts = [{"text": f"Text {number}: {number} and {number} make {2 * number}."} for number in range(40)]
    (tmp_path / "my-texts" / "a.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    (tmp_path / "mine.yaml").write_text(example("README.md", "yaml", "# mine.yaml"))
    return load_profile("mine.yaml", SMALL)


def test_a_model_and_a_corpus_of_ones_own(mine: Profile, tmp_path: Path) -> None:
    for check in (check_given, check_profile, check_here):
        check(mine)
    stages: dict[str, tuple[str, dict[str, str]]] = {
        "shard_benchmarks": ("shard_data", {}),
        "shard_base_corpus": ("shard_data", {"benchmarks": "shard_benchmarks"}),
        "shard_corpus": ("shard_data", {"benchmarks": "shard_benchmarks"}),
        "base": ("pretrain", {"shards": "shard_base_corpus"}),
        "rlp": ("pretrain", {"shards": "shard_corpus", "checkpoint": "base"}),
    }
    for task, (stage, given) in stages.items():
        settings = getattr(mine, task).model_dump(mode="json", exclude_unset=True)
        run_stage(stage, settings, {name: Path(source) for name, source in given.items()}, tmp_path / task)
    assert read_manifest(tmp_path / "shard_corpus").facts["sources"] == {"mine": 40}
    assert read_manifest(tmp_path / "rlp").facts["history"][0]["origins"]["initial_model"]["files"] > 2
    assert load_model("rlp/model").num_parameters() == load_model("my-model").num_parameters()


def test_our_components_in_a_pipeline_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ours.py"
    file.write_text(example("components/README.md", "python", "from kfp import dsl"))
    names: dict[str, Any] = {"__name__": "ours"}
    exec(compile(file.read_text(), str(file), "exec"), names)  # kfp reads a component's source from its file
    compiler.Compiler().compile(names["ours"], str(tmp_path / "ours.yaml"))
    tasks = yaml.safe_load((tmp_path / "ours.yaml").read_text())["root"]["dag"]["tasks"]
    assert set(tasks) == {"shard-benchmarks", "train-base", "ask"}
    monkeypatch.chdir(ROOT)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    assert names["ours"](question="1 + 1 = ").output.startswith("1 + 1 = <think>")

"""What stages would refuse hours into a run is told before it, by the field; what they take is not."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.ablations import SWEEPS
from pipelines.checks import check_here, check_machine, check_models, check_profile, check_sources, check_tokenizers
from pipelines.profile import load_profile
from rlpretrain.errors import UserError


def test_this_machine_can_run_the_laptops_profiles() -> None:
    for name in ("tiny", "mini"):
        check_here(load_profile(name), SWEEPS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluate.suite": "nope"}, r"^evaluate.suite: unknown suite 'nope'; known: gsm, mini, paper$"),
        ({"evaluate.suite": "gsm"}, r"^evaluate.suite: suite 'gsm' needs items of 'gsm_symbolic', which no source of"),
        ({"shard_benchmarks.sources.0.documents": 3}, r"^evaluate.suite: suite 'mini' needs items of"),
        ({"evaluate.limit": {"sums": 1, "suns": 1}}, r"^evaluate.limit: suite 'mini' has no benchmark 'suns'; known: "),
        ({"shard_corpus.held_out_fraction": 0.0}, r"^evaluate.held_out: shard_corpus holds no documents out; raise"),
        ({"shard_sft.sources.0.generator": "nope"}, r"^shard_sft: source 'sft': unknown generator 'nope'; known: "),
        ({"shard_rlvr.sources.0.options": {"no": 1}}, r"^shard_rlvr: source 'problems': options do not fit .*'no'"),
        (
            {"shard_base_corpus.sources.0.options.thought_fraction": "most"},
            r"^shard_base_corpus: source 'base': options do not fit the generator: ",
        ),
        ({"shard_corpus.sources.0.split": "dev"}, r"^shard_corpus: split 'dev' of a mini generator must be train or"),
        ({"shard_corpus.purpose": "evaluation"}, r"^shard_corpus.purpose: must be 'documents'"),
        ({"shard_benchmarks.purpose": "documents"}, r"^shard_benchmarks.purpose: must be 'evaluation'"),
        ({"shard_rlvr.sources.0.generator": "mini_sft"}, r"^shard_rlvr: source 'problems' has no answers to verify"),
        (
            {"shard_sft.sources": [{"name": "a", "kind": "jsonl", "path": "a.jsonl", "conversion": "nope"}]},
            r"^shard_sft: source 'a': unknown conversion 'nope'; known: ",
        ),
        ({"rlp.objective": "rpt"}, r"^rlp.objective: must be 'rlp'"),
        ({"base.objective": "cpt"}, r"^base.objective: must be 'base'"),
    ],
)
def test_what_the_profile_alone_shows(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_profile(load_profile("tiny", changes))


def test_held_out_documents_are_needed_by_who_measures_on_them() -> None:
    check_profile(load_profile("tiny", {"shard_corpus.held_out_fraction": 0.0, "evaluate.held_out": None}))


def test_documents_of_an_ablation_are_looked_at_where_it_is_run() -> None:
    source = {"name": "a", "kind": "generator", "generator": "nope", "documents": 1}
    sweep = {"default": "both", "others": {"Nope": {"sources": [source]}}}
    profile = load_profile("tiny", {"ablations.domains": sweep})
    check_profile(profile, ("rollouts",))
    with pytest.raises(UserError, match=r"^ablations.domains.others.Nope: source 'a': unknown generator 'nope'"):
        check_profile(profile, ("rollouts", "domains"))


def test_files_are_looked_for_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    source = {"name": "mine", "kind": "jsonl", "path": str(path), "text_field": "body"}
    profile = load_profile("tiny", {"shard_sft.sources": [source]})
    check_profile(profile)  # a cluster's folder may be another
    with pytest.raises(UserError, match=r"^shard_sft: source 'mine': .*rows.jsonl does not exist; mend path"):
        check_sources(profile, files=True)
    path.write_text(json.dumps({"text": "a"}))
    with pytest.raises(UserError, match=r"^shard_sft: source 'mine': rows.jsonl has no column 'body'; it has: text"):
        check_sources(profile, files=True)
    path.write_text(json.dumps({"body": "a"}))
    check_sources(profile, files=True)


def test_problems_in_a_file_have_answers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"q": "1+1=", "a": "2"}))
    source = {"name": "mine", "kind": "jsonl", "path": str(path), "prompt_field": "q", "text_field": "q"}
    with pytest.raises(UserError, match=r"^shard_rlvr: source 'mine' has no answers to verify; set its answer_field"):
        check_profile(load_profile("tiny", {"shard_rlvr.sources": [source]}))
    profile = load_profile("tiny", {"shard_rlvr.sources": [source | {"answer_field": "a"}]})
    check_profile(profile)
    check_sources(profile, files=True)


def test_all_stages_have_one_tokenizer(tmp_path: Path) -> None:
    builtin = "builtin:characters"
    with pytest.raises(UserError, match=r"^shard_sft.tokenizer: has another vocabulary than shard_corpus.tokenizer"):
        check_tokenizers(load_profile("tiny", {"shard_sft.tokenizer": {"name": builtin, "add_tokens": ["<a>"]}}))
    same = {"name": builtin, "add_tokens": ["<think>"]}  # which it has
    check_tokenizers(load_profile("tiny", {"shard_sft.tokenizer": same}))


def test_a_fresh_model_has_a_row_for_every_token() -> None:
    with pytest.raises(UserError, match=r"^base.architecture: vocabulary 99 is less than the tokenizer's 100 tokens"):
        check_tokenizers(load_profile("tiny", {"base.architecture.vocabulary": 99}))
    check_tokenizers(load_profile("tiny", {"base.architecture.vocabulary": 100}))


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for place in (f"{tmp_path}/model", f"file://{tmp_path}/model"):
        profile = load_profile("tiny", {"rpt.thinking.proxy.model": place})
        with pytest.raises(UserError, match=f"^rpt.thinking.proxy.model: {place} holds no model; give a folder"):
            check_models(profile)
    (tmp_path / "model").mkdir()
    check_models(load_profile("tiny", {"base.initial_model": f"{tmp_path}/model"}))
    check_models(load_profile("smollm2-135m"))


@pytest.mark.parametrize("field", ["rlp.thinking", "rpt.thinking", "rlvr.thinking", "evaluate"])
@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_must_be_installed_where_it_samples(field: str) -> None:
    profile = load_profile("tiny", {f"{field}.engine": "vllm"})
    check_profile(profile)  # a cluster's image may hold it
    with pytest.raises(UserError, match=rf"^{field}.engine: vllm is not installed; install .* or set engine to torch"):
        check_machine(profile)


def test_bf16_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpretrain.training.precision._multiplies_bf16", lambda device: False)
    with pytest.raises(UserError, match=r"^sft.likelihood.compute_dtype: this machine's \w+ has no bf16"):
        check_machine(load_profile("tiny", {"sft.likelihood.compute_dtype": "bfloat16"}))


def test_every_training_process_gets_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLP_PROCESSES", "4")
    check_machine(load_profile("tiny"))
    monkeypatch.setenv("RLP_PROCESSES", "5")
    with pytest.raises(UserError, match=r"^rlp.thinking.batch_contexts: 4 a step is less than one for each of 5 proc"):
        check_machine(load_profile("tiny"))

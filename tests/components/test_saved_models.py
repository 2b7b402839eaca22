"""A trained model's folder is what other tools take by path, with a card that says how it was made."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.frame import run_stage
from rlpretrain.artifacts import read_manifest

LIKELIHOOD = {"steps": 2, "batch_documents": 4, "sequence_length": 64}
THINKING = {"steps": 2, "batch_contexts": 2, "group": 2, "max_context": 32, "thought": {"budget": 4}}
SHAPE = {"layers": 1, "width": 16, "heads": 2, "key_value_heads": 2, "feed_forward": 16, "max_positions": 96}
QUESTION = [{"role": "user", "content": "2 + 3 = "}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_shards: Callable[..., Path]) -> Path:
    """Checkpoints of base, rlp and sft, one after the other."""
    root = tmp_path_factory.mktemp("trained")
    documents, answers = (make_shards(root / name, f"mini_{name}") for name in ("documents", "sft"))
    base = {"objective": "base", "likelihood": LIKELIHOOD, "architecture": SHAPE}
    run_stage("pretrain", base, {"shards": documents}, root / "base")
    rlp = {"objective": "rlp", "thinking": THINKING}
    run_stage("pretrain", rlp, {"shards": documents, "checkpoint": root / "base"}, root / "rlp")
    tuned = {"shards": answers, "checkpoint": root / "rlp"}
    run_stage("finetune", {"likelihood": LIKELIHOOD}, tuned, root / "tuned")
    return root


@pytest.mark.parametrize("name", ["base", "rlp", "tuned"])
def test_transformers_loads_it_by_path_and_opens_a_thought(trained: Path, name: str) -> None:
    folder = trained / name / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert tokenizer.decode(inputs["input_ids"][0]) == "2 + 3 = <think>"
    with torch.no_grad():
        longer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert longer.shape[1] > inputs["input_ids"].shape[1]


def test_lm_eval_loads_it_by_path_with_its_chat_template(trained: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(trained / "tuned" / "model"), device="cpu", batch_size=1)
    prompt = model.apply_chat_template(QUESTION)
    assert prompt == "2 + 3 = <think>"
    options = {"until": ["\n"], "max_gen_toks": 2, "do_sample": False}
    asked = Instance("generate_until", {}, (prompt, options), 0, ("t", 0, 1))
    [text] = model.generate_until([asked], disable_tqdm=True)
    scored = Instance("loglikelihood", {}, (prompt, "5"), 0, ("t", 0, 1))
    [(logprob, _)] = model.loglikelihood([scored], disable_tqdm=True)
    assert isinstance(text, str) and logprob < 0


def test_the_card_tells_what_came_before_it_and_with_what_figures(trained: Path) -> None:
    card = ModelCard.load(trained / "tuned" / "model" / "README.md")
    assert card.data.library_name == "transformers" and card.data.tags == ["rlp-pipelines", "base", "rlp", "sft"]
    history = read_manifest(trained / "tuned").facts["history"]
    assert [row["objective"] for row in history] == ["base", "rlp", "sft"]
    for number, row in enumerate(history, 1):
        assert f"| {number} | {row['objective']} | {row['steps']} | {row['tokens']:,} |" in card.text
    for source in ("mini_documents", "mini_sft"):
        assert f"generator {source} |" in card.text
    assert "trained from random ones" in card.text
    rlp = (trained / "rlp" / "model" / "README.md").read_text()
    gains = [json.loads(line)["reward/gain"] for line in (trained / "rlp" / "metrics.jsonl").open()]
    assert f"| information gain of a thought (nats) | {gains[0]:.4g} | {gains[1]:.4g} |" in rlp
    assert yaml.safe_load(rlp.split("```yaml\n")[2].split("```")[0])["thinking"]["thought"] == {"budget": 4}


def test_equal_runs_have_equal_cards(trained: Path, tmp_path: Path, make_shards: Callable[..., Path]) -> None:
    documents = make_shards(tmp_path / "documents", "mini_documents")
    rlp = {"objective": "rlp", "thinking": THINKING}
    again = run_stage("pretrain", rlp, {"shards": documents, "checkpoint": trained / "base"}, tmp_path / "again")
    assert again.files["model/README.md"] == read_manifest(trained / "rlp").files["model/README.md"]
    assert again.digest == read_manifest(trained / "rlp").digest

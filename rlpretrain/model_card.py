"""The card of a trained model, README.md in its folder: method, data, settings, figures, licence, how to load it.

Written from what the checkpoint's manifest holds, so that equal runs have equal cards; no time and no place stands in it.
Each training adds itself to the facts' `history`, and so a card also tells what came before.
"""

import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from rlpretrain.artifacts import read_manifest
from rlpretrain.settings import Settings
from rlpretrain.tokenizer import PACKAGE

CARD = "README.md"
METHODS = {
    "base": "The model that the arms of a comparison start from: next-token likelihood on documents.",
    "cpt": "Continued pretraining: next-token likelihood on documents.",
    "rlp": (
        "RLP, [Reinforcement as a Pretraining Objective](https://arxiv.org/abs/2510.01265): before a token of a document the "
        "model samples thoughts, which are rewarded by how much they raise the log-likelihood of that token over an average "
        "copy of the model that did not think."
    ),
    "rpt": (
        "RPT, [Reinforcement Pre-Training](https://arxiv.org/abs/2506.08007): before a token of a document the model samples "
        "thoughts, which are rewarded when the prediction after them is that token."
    ),
    "sft": "SFT: likelihood of completions; no loss on prompts.",
    "rlvr": "RLVR: responses to problems, rewarded when their final answer is the reference answer.",
}
_FIGURES = {
    "reward/gain": "information gain of a thought (nats)",
    "reward/match": "thoughts with the right prediction (share)",
    "reward/correct": "responses with the right answer (share)",
    "loss/nll": "loss (nats a token)",
    "thought/length": "length of a thought (tokens)",
    "thought/cut_off": "thoughts cut off by the budget (share)",
    "thought/entropy": "entropy of thought tokens (nats)",
}
_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0"}
_LOADING = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER)
question = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))
```

`vllm serve FOLDER` and `lm_eval --model hf --model_args pretrained=FOLDER --apply_chat_template` read the same folder. The
weights are fp32.
"""


def training_record(settings: Settings, facts: Mapping[str, Any], shards: Path) -> dict[str, Any]:
    """What a card says of one training: objective, amounts, settings, and the sources of its text with their origins."""
    about = read_manifest(shards, "shards").facts
    sources = [
        {"name": name, "documents": row["documents"], "origin": about["origins"].get(name, {})}
        for name, row in about.get("blend", {}).items()
    ]
    return {
        **{name: facts[name] for name in ("objective", "steps", "tokens")},
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
        "sources": sources,
        "origins": facts.get("origins", {}),
    }


def history_of(checkpoint: Path | None) -> list[dict[str, Any]]:
    """The trainings behind a checkpoint, the first one first; none where there is no checkpoint."""
    return [] if checkpoint is None else read_manifest(checkpoint, "checkpoint").facts.get("history", [])


def write_card(folder: Path, facts: Mapping[str, Any], metrics: Path) -> None:
    """Write README.md to a model's folder, from the checkpoint's facts and the metrics of its last training."""
    history = facts["history"]
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    licence, said = _licence(history[0])
    last = history[-1]
    parts = [
        _front_matter(history, licence),
        f"# {last['objective'].upper() if last['objective'] != 'base' else 'Base'} model\n",
        f"{METHODS[last['objective']]} {facts['parameters']:,} parameters. Made by rlp-pipelines.\n",
        "## How to load it\n",
        _LOADING,
        "The chat template puts a prompt as it is and opens a thought, as training did; `enable_thinking=False` opens none. A "
        'template that the tokenizer came with is kept as `chat_template="original"`.\n',
        "## Training\n",
        _table(
            ("", "objective", "steps", "tokens"),
            [(str(n), row["objective"], str(row["steps"]), f"{row['tokens']:,}") for n, row in enumerate(history, 1)],
        ),
        *_figures([json.loads(line) for line in lines]),
        "## Data\n",
        _table(
            ("training", "source", "documents", "from"),
            [
                (row["objective"], source["name"], f"{source['documents']:,}", _origin(source["origin"]))
                for row in history
                for source in row["sources"]
            ],
        ),
        "Documents that share a long n-gram with a benchmark's item were removed where the run has benchmarks; counts are in "
        "the checkpoint's `manifest.json`, figures on benchmarks on the run's page.\n",
        "## Licence\n",
        f"{said} The data's own terms are with their sources.\n",
        "## Settings\n",
        *(
            f"{number}. {row['objective']}\n\n```yaml\n{yaml.safe_dump(row['settings'], sort_keys=False)}```\n"
            for number, row in enumerate(history, 1)
        ),
    ]
    (folder / CARD).write_text("\n".join(parts), encoding="utf-8")


def _front_matter(history: Sequence[Mapping[str, Any]], licence: str | None) -> str:
    """What the hub's tools read."""
    start = history[0]["origins"].get("initial_model", {})
    sets = {source["origin"].get("dataset") for row in history for source in row["sources"]} - {None}
    values: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rlp-pipelines", *dict.fromkeys(row["objective"] for row in history)],
        **({"license": licence} if licence else {}),
        **({"base_model": start["model"]} if "model" in start else {}),
        **({"datasets": sorted(sets)} if sets else {}),
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over the first and the last tenth of the steps."""
    table = []
    for name, words in _FIGURES.items():
        values = [row[name] for row in rows if name in row]
        if values:
            tenth = max(1, len(values) // 10)
            table.append((words, f"{fmean(values[:tenth]):.4g}", f"{fmean(values[-tenth:]):.4g}"))
    if not table:
        return []
    return [
        "The last training, means over the first and the last tenth of its steps:\n",
        _table(("", "first", "last"), table),
    ]


def _licence(first: Mapping[str, Any]) -> tuple[str | None, str]:
    """The hub's name of the base model's licence, where it is known, and what to say of it."""
    origin = first["origins"].get("initial_model")
    if origin is None and first["objective"] == "base":
        return None, "The weights were trained from random ones: no other model's licence holds."
    if origin is None:
        return None, "What stood before the first training here is not recorded, nor is its licence."
    if "package" in origin:
        try:
            about = importlib.metadata.metadata(origin["package"]).json
        except importlib.metadata.PackageNotFoundError:  # an earlier training had it, this image has not
            return None, f"The base model came with {PACKAGE}{origin['package']}; its licence is not known here."
        found = str(about.get("license_expression") or about.get("license") or "")
        known = found.lower() if found.lower() in _LICENCES else None
        return known, f"The base model came with {PACKAGE}{origin['package']}: {found or 'it names no licence'}."
    if "model" in origin:
        return None, f"The base model's licence is named at https://huggingface.co/{origin['model']}."
    return None, "The base model came as files; its licence is not known here."


def _origin(origin: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str(value)[:16] if name == 'sha256' else value}" for name, value in origin.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    """Text of a name or a path cannot end the cell, open a tag or a link."""
    return re.sub(r"([|<>\[\]`\\])", r"\\\1", " ".join(text.split()))

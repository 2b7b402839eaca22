"""A profile made small enough for a laptop: the same DAG, arms, suite, conversions and model class, one step a stage.

Data sets of the hub give way to rows of ours in their schema, the model to a random one of its class, the tokenizer to the
built-in one. It shows that a profile holds together before anything is spent on it.
"""

from typing import Any

from pipelines.profile import Profile
from rlpretrain.data.conversions import SAMPLES
from rlpretrain.errors import UserError
from rlpretrain.settings import parse_settings

Values = dict[str, Any]
_TOKENIZER = {"name": "builtin:characters"}
_LENGTH = 512  # tokens of a document; the built-in tokenizer makes one of every character
_LIKELIHOOD = {"steps": 1, "batch_documents": 2, "sequence_length": _LENGTH, "micro_batch": 2}
_THINKING = {"steps": 1, "batch_contexts": 2, "group": 2, "max_context": _LENGTH, "micro_batch": 4, "rollout_batch": 8}
_BUDGET = 8
_SMALL = {"layers": 2, "width": 32, "heads": 4, "key_value_heads": 2, "feed_forward": 48, "max_positions": 2 * _LENGTH}


def shrunk(profile: Profile) -> Profile:
    """The small twin of ``profile``; UserError for a source of the hub that no rows stand in for."""
    values = profile.model_dump(mode="json", exclude_unset=True)
    for name, stage in values.items():
        if name.startswith("shard_"):
            _shrink_data(stage)
        for part in ("likelihood", "thinking"):
            if isinstance(stage, dict) and stage.get(part) is not None:
                _shrink_training(stage[part], part)
    values["base"]["architecture"] = _architecture(profile)
    for name in ("initial_model", "initial_revision"):
        values["base"].pop(name, None)
    if values["base"].get("format_warmup"):
        values["base"]["format_warmup"] |= {"steps": 1, "batch_documents": 2}
    evaluate = values["evaluate"]
    evaluate |= {"max_new_tokens": _BUDGET, "limit": 1, "batch": 8}
    if evaluate.get("held_out"):
        evaluate["held_out"] |= {"documents": 2, "group": 2, "max_context": 64, "batch": 8}
        evaluate["held_out"].setdefault("thought", {})["budget"] = _BUDGET
    values["compare"]["bootstrap_samples"] = 100
    values.pop("ablations", None)
    return parse_settings(Profile, values, "dry run")


def _shrink_data(stage: Values) -> None:
    stage["tokenizer"] = _TOKENIZER
    stage["workers"] = 1
    stage.pop("documents", None)
    if "max_document_tokens" in stage or stage.get("purpose") != "evaluation":  # a longer problem fits no context
        stage["max_document_tokens"] = _LENGTH
    if "held_out_fraction" in stage:
        stage["held_out_fraction"] = 0.3
    stage["sources"] = [_shrink_source(source) for source in stage["sources"]]


def _shrink_source(source: Values) -> Values:
    if source["kind"] == "generator":
        return source | {"documents": min(source["documents"], 64)}
    if source["kind"] != "huggingface":
        return source
    conversion = source.get("conversion")
    rows = SAMPLES / f"{conversion}.jsonl"
    if not rows.is_file():
        raise UserError(
            f"dry run: source '{source['name']}' names no conversion whose rows could stand in for the hub's"
        )
    kept = {name: source[name] for name in ("name", "weight") if name in source}
    return kept | {"kind": "jsonl", "path": str(rows), "conversion": conversion}


def _shrink_training(part: Values, kind: str) -> None:
    if kind == "likelihood":
        part |= _LIKELIHOOD
        return
    part |= _THINKING
    part.setdefault("thought", {})["budget"] = _BUDGET
    if part.get("proxy"):
        part["proxy"].pop("model", None)


def _architecture(profile: Profile) -> Values:
    family = profile.base.architecture.family
    hybrid = (
        {"pattern": "M*-", "mamba_heads": 4, "mamba_head_width": 16, "tied": False} if family == "nemotron_h" else {}
    )
    return {**_SMALL, "family": family, **hybrid}

"""Evaluation: the suite's benchmarks through lm-eval, and the information gain of thoughts on held-out text."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.frame import InputSpec
from rlpretrain.artifacts import SNAPSHOTS, Origin, read_manifest
from rlpretrain.data.facts import shard_facts
from rlpretrain.evaluation.averages import rounded
from rlpretrain.evaluation.information_gain import held_out_gain
from rlpretrain.evaluation.rounds import Rounds, RoundsEngine
from rlpretrain.evaluation.run import run_suite
from rlpretrain.rollout.engines import build_engine
from rlpretrain.settings import EvaluateSettings
from rlpretrain.shared_prefix import can_share_prefixes
from rlpretrain.training.checkpoints import METRICS_FILE, TIMINGS_FILE, open_checkpoint
from rlpretrain.training.cost import training_cost
from rlpretrain.training.precision import cast_parameters, compute_dtype
from rlpretrain.training.world import join

KIND = "evaluation"
SETTINGS = EvaluateSettings
INPUTS = {
    "checkpoint": InputSpec("checkpoint"),
    "benchmarks": InputSpec("shards"),
    "held_out": InputSpec("shards", required=False),
}
TRAINING_TIMINGS = f"training_{TIMINGS_FILE}"
VOLATILE = (TRAINING_TIMINGS,)


def saved(settings: EvaluateSettings, origin: Origin, output: Path, uri: str) -> Rounds:
    """What the stage goes on from after it was killed."""
    return Rounds(output / SNAPSHOTS, origin, uri)


def run(settings: EvaluateSettings, inputs: dict[str, Path], output: Path, rounds: Rounds) -> dict[str, Any]:
    """Write results.json, every sample, sample thoughts and the checkpoint's training curves; return the averages."""
    model, tokenizer = open_checkpoint(inputs["checkpoint"], inputs["benchmarks"])
    world = join()
    cast_parameters(model, compute_dtype(settings.compute_dtype, world.device))
    world.place(model)
    engine = RoundsEngine(build_engine(settings.engine, settings.vllm, model), rounds, settings.save_every)
    thought = settings.held_out.thought if settings.held_out else None  # the delimiters that this run's thoughts have
    figures, samples = run_suite(model, tokenizer, inputs["benchmarks"], settings, thought, engine)
    gain: dict[str, Any] | None = None
    thoughts: list[dict[str, Any]] = []
    if settings.held_out is not None and "held_out" in inputs:
        gain, thoughts = held_out_gain(model, tokenizer, inputs["held_out"], settings.held_out, settings.seed, engine)
    results = {
        "schema_version": 1,
        "suite": settings.suite,
        "repeats": settings.repeats,
        **figures,
        "information_gain": gain,
        **_origin(inputs, can_share_prefixes(model)),
    }
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (output / "samples").mkdir()
    for name, lines in samples.items():
        _write_lines(output / "samples" / f"{name}.jsonl", lines)
    _write_lines(output / "thoughts.jsonl", thoughts)
    for name, copy in ((METRICS_FILE, "training.jsonl"), (TIMINGS_FILE, TRAINING_TIMINGS)):
        if (inputs["checkpoint"] / name).exists():
            shutil.copyfile(inputs["checkpoint"] / name, output / copy)
    facts: dict[str, Any] = {"averages": figures["averages"]}
    if gain is not None:
        facts["information_gain"] = {key: rounded(gain[key]) for key in ("mean", "stderr")}
    return facts


def _origin(inputs: dict[str, Path], shares_prefix: bool) -> dict[str, Any]:
    """What the checkpoint's own training took and read, and the facts of the shards that it was evaluated on."""
    manifest = read_manifest(inputs["checkpoint"], "checkpoint")
    thinking = manifest.settings.get("thinking") or {}
    lines = (inputs["checkpoint"] / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    cost = training_cost(
        manifest.facts["objective"],
        manifest.facts["parameters"],
        thinking.get("group", 1),
        shares_prefix,
        map(json.loads, lines),
    )
    shards = {name: shard_facts(inputs[name]) for name in ("benchmarks", "held_out") if name in inputs}
    return {"training": cost, "data": {"training": manifest.facts.get("data"), **shards}}


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

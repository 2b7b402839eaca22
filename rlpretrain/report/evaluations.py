"""Evaluation artifacts read back: scores by question, held-out gains, thoughts and training curves of an arm's stage."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlpretrain.artifacts import read_manifest
from rlpretrain.errors import UserError

Key = tuple[str, str]  # arm, stage
ARMS = ("base", "cpt", "rlp")
STAGES = ("pretrained", "sft", "rlvr")


@dataclass
class Evaluation:
    """What was measured of one model; of several seeds' runs, questions and positions stand one after another."""

    groups: dict[str, str]  # benchmark -> group
    scores: dict[str, list[float]]  # benchmark -> mean over samples, a question
    repeats: int
    no_answer: dict[str, float]
    run_spread: dict[str, float]
    gains: list[float]  # a held-out position each, nats
    gain_summary: dict[str, Any] | None
    training: list[dict[str, float]]
    thoughts: list[dict[str, Any]]
    provenance: list[dict[str, Any]] = field(default_factory=list)


def read_evaluation(folder: Path) -> Evaluation:
    """One evaluation artifact; UserError when it cannot be read."""
    manifest = read_manifest(folder, "evaluation")
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        benchmarks = results["benchmarks"]
        gain = results["information_gain"]
        return Evaluation(
            groups={name: row["group"] for name, row in benchmarks.items()},
            scores={name: row["per_question"] for name, row in benchmarks.items()},
            repeats=results["repeats"],
            no_answer={name: row["no_answer"] for name, row in benchmarks.items()},
            run_spread={name: row["run_spread"] for name, row in benchmarks.items()},
            gains=gain["per_position"] if gain else [],
            gain_summary={key: value for key, value in gain.items() if key != "per_position"} if gain else None,
            training=_lines(folder / "training.jsonl"),
            thoughts=_lines(folder / "thoughts.jsonl"),
            provenance=[
                {
                    "digest": manifest.digest,
                    "code": manifest.code_version,
                    "seed": manifest.seed,
                    "libraries": manifest.libraries,
                    "inputs": manifest.inputs,
                }
            ],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: not a readable evaluation ({type(error).__name__}: {error}); evaluate again") from None


def pool(runs: list[Mapping[Key, Evaluation]]) -> dict[Key, Evaluation]:
    """Several runs (seeds) as one: an arm's stage is kept when every run has it, with the same benchmarks."""
    shared = [key for key in runs[0] if all(key in run for run in runs)]
    pooled = {}
    for key in shared:
        parts = [run[key] for run in runs]
        first = parts[0]
        if any(part.groups != first.groups for part in parts):
            raise UserError("the runs were evaluated on different benchmarks; compare runs of one suite")
        pooled[key] = Evaluation(
            groups=first.groups,
            scores={name: [score for part in parts for score in part.scores[name]] for name in first.scores},
            repeats=first.repeats,
            no_answer={name: _mean([part.no_answer[name] for part in parts]) for name in first.scores},
            run_spread={name: _mean([part.run_spread[name] for part in parts]) for name in first.scores},
            gains=[gain for part in parts for gain in part.gains],
            gain_summary=_mean_summary([part.gain_summary for part in parts]),
            training=first.training,
            thoughts=first.thoughts,
            provenance=[entry for part in parts for entry in part.provenance],
        )
    return pooled


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _mean_summary(summaries: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    present = [summary for summary in summaries if summary]
    return {key: _mean([s[key] for s in present]) for key in present[0]} if len(present) == len(summaries) else None


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

"""How the models were trained: curves by step, warnings, wall-clock times, and the text that was read."""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlpretrain.report.evaluations import Evaluation, Key, Pooled
from rlpretrain.report.results import Curve, ShardsReport, TrainingWarning
from rlpretrain.training.health import SIGNS

TIMINGS_FILE = "timings.json"
LEFT_OUT = "steps left out, as loss, reward or gradient was not finite"
_THINKING = ("thought/length", "thought/cut_off", "thought/entropy", "thought/zero_variance")
CURVES = {
    "pretrained": ("reward/gain", "reward/match", *_THINKING, "loss/nll", "optim/grad_norm"),
    "sft": ("loss/nll", "optim/grad_norm"),
    "rlvr": ("reward/correct", *_THINKING, "optim/grad_norm"),
}


class Timing(BaseModel):
    """Wall-clock of one arm's training for a stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    arm: str
    stage: str
    seconds: dict[str, float] = Field(description="by what took them; the mean over runs")
    tokens_per_second: list[list[tuple[int, float]]] = Field(
        description="tokens read and sampled a second; for each run, pairs of step and value"
    )


class Timings(BaseModel):
    """timings.json: what no run repeats, and what therefore stays out of results.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    timings: list[Timing]

    def text(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


def curves(pooled: Mapping[Key, Pooled]) -> list[Curve]:
    """Every metric of CURVES that a training wrote."""
    found = []
    for (arm, stage), evaluation in pooled.items():
        for metric in CURVES[stage]:
            runs = [_curve(part, metric) for part in evaluation.parts]
            if any(runs):
                found.append(Curve(arm=arm, stage=stage, metric=metric, runs=runs))
    return found


def training_warnings(pooled: Mapping[Key, Pooled]) -> list[TrainingWarning]:
    """What the trainings warned of, by the signs that `health` knows, and the steps that they left out."""
    return [
        warning
        for (arm, stage), evaluation in pooled.items()
        for run, part in enumerate(evaluation.parts, 1)
        for warning in _warnings(arm, stage, run, part.training)
    ]


def timings(pooled: Mapping[Key, Pooled]) -> Timings:
    """The seconds and the throughput of every training that kept its times."""
    found = []
    for (arm, stage), evaluation in pooled.items():
        if all(part.timings for part in evaluation.parts):
            seconds = [_seconds(part) for part in evaluation.parts]
            mean = {name: round(fmean(row.get(name, 0.0) for row in seconds), 2) for name in seconds[0]}
            rates = [_throughput(part) for part in evaluation.parts]
            found.append(Timing(arm=arm, stage=stage, seconds=mean, tokens_per_second=rates))
    return Timings(timings=found)


def shards_read(pooled: Mapping[Key, Pooled]) -> list[ShardsReport]:
    """The text behind every stage of the first run, each once, by what it was read for."""
    roles = {
        "base training": ("base", "pretrained"),
        "pretraining": ("rlp", "pretrained"),
        "SFT": ("rlp", "sft"),
        "RLVR": ("rlp", "rlvr"),
    }
    facts = {role: pooled[key].parts[0].data["training"] for role, key in roles.items() if key in pooled}
    some = next(iter(pooled.values())).parts[0].data
    facts |= {"held-out gain": some.get("held_out"), "benchmarks": some["benchmarks"]}
    if facts.get("pretraining") == facts["held-out gain"]:  # one artifact's splits
        facts = {"pretraining, held-out gain" if role == "pretraining" else role: row for role, row in facts.items()}
        del facts["held-out gain"]
    return [_shards(role, row) for role, row in facts.items() if row is not None]


def _shards(role: str, facts: Mapping[str, Any]) -> ShardsReport:
    values = {"cut": 0, **facts, "text_sources": facts["sources"]}
    return ShardsReport(role=role, **{name: values[name] for name in ShardsReport.model_fields if name != "role"})


def _curve(part: Evaluation, metric: str) -> list[tuple[int, float]]:
    """Steps and values; a training that diverged has values that no chart can show."""
    return [(row["step"], row[metric]) for row in part.training if metric in row and math.isfinite(row[metric])]


def _warnings(arm: str, stage: str, run: int, rows: Sequence[Mapping[str, Any]]) -> list[TrainingWarning]:
    found: dict[tuple[str | None, str], list[int]] = {
        (metric, sign): [row["step"] for row in rows if metric in row.get("warnings", ())] for metric, *_, sign in SIGNS
    }
    found[None, LEFT_OUT] = [row["step"] for row in rows if row.get("skipped")]
    # A warm-up counts its steps from 1 again: the last line is not always the last step.
    return [
        TrainingWarning(
            arm=arm,
            stage=stage,
            run=run,
            metric=metric,
            sign=sign,
            steps=len(steps),
            first=min(steps),
            last=max(steps),
        )
        for (metric, sign), steps in found.items()
        if steps
    ]


def _seconds(part: Evaluation) -> dict[str, float]:
    names = sorted({name for row in part.timings for name in row if name != "step"})
    return {name.removeprefix("time/"): sum(row.get(name, 0.0) for row in part.timings) for name in names}


def _throughput(part: Evaluation) -> list[tuple[int, float]]:
    rates = []
    for metrics, times in zip(part.training, part.timings, strict=False):
        seconds = sum(value for name, value in times.items() if name != "step")
        if "data/read" in metrics and seconds > 0:
            tokens = metrics["data/read"] + metrics.get("data/sampled", 0)
            rates.append((metrics["step"], round(tokens / seconds, 2)))
    return rates

"""Evaluation artifacts read back, and the evaluations of several runs (seeds) put together.

A question is known by its content's id, so that arms are paired by question and never by place in a file. Of several
runs, a question's score is its mean over the runs that asked it: the same question asked thrice is not three questions.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlpretrain.artifacts import Manifest, read_manifest
from rlpretrain.errors import UserError

Key = tuple[str, str]  # arm, stage
ARMS = ("base", "cpt", "cpt_flops", "rlp", "rpt")
STAGES = ("pretrained", "sft", "rlvr")
GAIN_FIGURES = ("baseline_logprob", "reasoned_logprob", "thought_length", "cut_off")


@dataclass(frozen=True)
class Evaluation:
    """What one run measured of one model."""

    groups: dict[str, str]  # benchmark -> group
    weights: dict[str, dict[str, float]]  # average -> benchmark -> weight
    scores: dict[str, dict[str, float]]  # benchmark -> question id -> mean over samples
    repeats: int
    samples: dict[str, int]  # benchmark -> answers a question, k of its pass@1[k]
    no_answer: dict[str, float]  # benchmark -> share of samples
    run_spread: dict[str, float | None]  # benchmark -> standard deviation of the k runs' accuracies, where k is not 1
    gains: list[float]  # nats, a held-out position each; empty when not measured
    gain_summary: dict[str, float]  # the GAIN_FIGURES there are
    kinds: list[str]  # of the held-out positions' next tokens
    entropies: list[float]  # of the held-out positions, nats
    cost: dict[str, Any]  # of the checkpoint's own training
    data: dict[str, Any]  # role -> facts of shards
    training: list[dict[str, Any]]  # the checkpoint's metrics, a step each
    timings: list[dict[str, Any]]  # seconds, a step each
    thoughts: list[dict[str, Any]]
    manifest: Manifest
    label: str

    @property
    def places(self) -> tuple[Any, ...]:
        """What says where the gains were measured: the text, the seed and the numbers that positions were drawn by."""
        drawn = self.manifest.settings.get("held_out") or {}
        numbers = (drawn.get("documents"), drawn.get("positions"), len(self.gains))
        return self.manifest.inputs.get("held_out"), self.manifest.seed, *numbers


@dataclass(frozen=True)
class Pooled:
    """What all runs measured of one arm's stage."""

    parts: tuple[Evaluation, ...]  # one a run, in the runs' order

    @property
    def groups(self) -> dict[str, str]:
        return self.parts[0].groups

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        return self.parts[0].weights

    @property
    def scores(self) -> dict[str, list[float]]:
        """Benchmark -> a value a distinct question, its mean over runs; the order is the same for every arm."""
        return {name: self._questions(name) for name in self.groups}

    @property
    def same_questions(self) -> dict[str, str]:
        """Benchmarks that ask the questions of an earlier one in another way, greedy and sampled: to that one's name."""
        first: dict[tuple[frozenset[str], ...], str] = {}
        asked = {name: tuple(frozenset(part.scores[name]) for part in self.parts) for name in self.groups}
        return {name: earlier for name in asked if (earlier := first.setdefault(asked[name], name)) != name}

    @property
    def gains(self) -> list[float]:
        """A value a held-out position, its mean over the runs that measured there: runs of one seed have the same ones."""
        return [fmean(gains) for runs in self._by_places for gains in zip(*(part.gains for part in runs), strict=True)]

    @property
    def kinds(self) -> list[str]:
        """What the next token is, a held-out position each."""
        return [kind for first, *_ in self._by_places for kind in first.kinds]

    @property
    def entropies(self) -> list[float]:
        """Of the next token, a held-out position each, the mean over runs."""
        return [
            fmean(each) for runs in self._by_places for each in zip(*(part.entropies for part in runs), strict=False)
        ]

    @property
    def _by_places(self) -> list[list[Evaluation]]:
        """The runs that measured at the same positions, together."""
        found: dict[tuple[Any, ...], list[Evaluation]] = {}
        for part in self.parts:
            found.setdefault(part.places, []).append(part)
        return list(found.values())

    def mean(self, field: str, name: str) -> float | None:
        """The mean over runs of one entry of a table such as ``no_answer``; None when a run lacks it."""
        values = [getattr(part, field).get(name) for part in self.parts]
        return None if None in values else fmean(values)

    def _questions(self, name: str) -> list[float]:
        asked: dict[str, list[float]] = {}
        for part in self.parts:
            for question, score in part.scores[name].items():
                asked.setdefault(question, []).append(score)
        return [fmean(asked[question]) for question in sorted(asked)]


def read_evaluation(folder: Path) -> Evaluation:
    """One evaluation artifact; UserError when it cannot be read."""
    manifest = read_manifest(folder, "evaluation")
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"), parse_constant=_refuse)
        benchmarks = results["benchmarks"]
        gain = results["information_gain"] or {}
        return Evaluation(
            groups={name: row["group"] for name, row in benchmarks.items()},
            weights=results["weights"],
            scores={name: _by_question(folder, name, row["per_question"]) for name, row in benchmarks.items()},
            repeats=results["repeats"],
            samples={name: len(row["run_accuracies"]) for name, row in benchmarks.items()},
            no_answer={name: row["no_answer"] for name, row in benchmarks.items()},
            run_spread={name: row["run_spread"] for name, row in benchmarks.items()},
            gains=gain.get("per_position", []),
            gain_summary={name: gain[name] for name in GAIN_FIGURES if name in gain},
            kinds=gain.get("kind_per_position", []),
            entropies=gain.get("entropy_per_position", []),
            cost=results["training"],
            data=results["data"],
            training=_lines(folder / "training.jsonl"),
            timings=_lines(folder / "training_timings.jsonl"),
            thoughts=_lines(folder / "thoughts.jsonl", _refuse),
            manifest=manifest,
            label=manifest.settings.get("label", ""),
        )
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}: not a readable evaluation ({type(error).__name__}: {error}); evaluate again"
        ) from None


def pool(runs: Sequence[Mapping[Key, Evaluation]]) -> dict[Key, Pooled]:
    """Several runs as one, in the order of arms and stages; an arm's stage is kept when every run has it.

    Raises UserError when there are fewer than two, or when the models of a run answered different questions.
    """
    keys = [(arm, stage) for arm in ARMS for stage in STAGES if all((arm, stage) in run for run in runs)]
    if len(keys) < 2:
        raise UserError("a comparison needs at least two evaluations that every run has; give more inputs")
    for number, run in enumerate(runs, 1):
        for key in keys[1:]:
            check_alike(run[keys[0]], run[key], f"run {number}: {' '.join(keys[0])} and {' '.join(key)}")
    for number, run in enumerate(runs[1:], 2):
        one, other = runs[0][keys[0]], run[keys[0]]
        if (other.groups, other.weights) != (one.groups, one.weights):
            raise UserError(f"run {number} was evaluated on other benchmarks than run 1; compare runs of one suite")
        _check_sampling(one, other, f"run 1 and run {number}")
        for lacking, having in ((number, 1), (1, number)):
            for arm, stage in sorted(runs[having - 1].keys() - runs[lacking - 1].keys()):
                print(f"left out: {arm} {stage} of run {having}, which run {lacking} lacks", file=sys.stderr)
    return {key: Pooled(tuple(run[key] for run in runs)) for key in keys}


def check_alike(first: Evaluation, second: Evaluation, where: str) -> None:
    """UserError when two evaluations cannot be paired question by question."""
    if first.groups != second.groups:
        raise UserError(f"{where} were evaluated on different benchmarks; evaluate every model on one suite")
    for name in first.scores:
        if first.scores[name].keys() != second.scores[name].keys():
            raise UserError(
                f"{where} answered different questions of '{name}'; evaluate every model on one shards artifact"
            )
    _check_sampling(first, second, where)


def _check_sampling(first: Evaluation, second: Evaluation, where: str) -> None:
    """UserError when two evaluations drew their answers in unlike ways."""
    for name, count in first.samples.items():
        if count != second.samples[name]:
            raise UserError(
                f"{where} were sampled {count} and {second.samples[name]} times a question of '{name}'; use one 'repeats'"
            )
    for name in ("temperature", "max_new_tokens"):
        one, other = (evaluation.manifest.settings.get(name) for evaluation in (first, second))
        if one != other:
            raise UserError(f"{where} were sampled with {name} {one} and {other}; evaluate every model with one")


def _by_question(folder: Path, name: str, scores: list[float]) -> dict[str, float]:
    """Scores by question id, as the samples give it; a question that stands twice in a benchmark counts as two."""
    seen: Counter[str] = Counter()
    found = {}
    with (folder / "samples" / f"{name}.jsonl").open(encoding="utf-8") as lines:
        for line, score in zip(lines, scores, strict=True):
            question = str(json.loads(line)["id"])
            seen[question] += 1
            found[f"{question}/{seen[question]}"] = float(score)
    return found


def _lines(path: Path, constant: Callable[[str], Any] | None = None) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # Not splitlines: it also splits at U+2028 and the like, which JSON lets stand inside a string.
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line, parse_constant=constant) for line in lines if line]


def _refuse(name: str) -> None:
    raise ValueError(f"holds {name}, so the model diverged")

"""The ablations' DAG: RLP from one base model with one setting changed at a time, every model evaluated, one page of curves.

The points are a parameter of the run, fanned out by a loop: a run from the UI can sweep what it likes. Points that read other
documents have a loop of their own, which shards them first.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp import dsl

from components.ablate.component import ablate, evaluate_point, pretrain_point, shard_point
from components.evaluate.component import evaluate
from components.pretrain.component import train_base
from components.shard_data.component import shard_benchmarks, shard_data
from pipelines.placing import ANYWHERE, Namer, Target
from pipelines.profile import CORPORA, AblationSettings, Profile
from pipelines.reproduction import RUN_PARAMETERS, described
from rlpretrain.errors import UserError
from rlpretrain.settings import PretrainSettings, ShardDataSettings, Value, parse_settings, without_nones

FIELDS = {
    "rollouts": "group",
    "thought_budget": "thought.budget",
    "kl_weight": "kl_weight",
    "ema_decay": "ema_decay",
    "positions": "positions",
}  # of rlp.thinking
SWEEPS = (*FIELDS, *CORPORA)
_STAGES = {
    "benchmarks": ("shard_benchmarks", "Settings of sharding the benchmarks."),
    "base_corpus": ("shard_base_corpus", "Settings of sharding the base model's corpus."),
    "corpus": ("shard_corpus", "Settings of sharding the documents of RLP."),
    "base": ("base", "Settings of the base model."),
    "rlp": ("rlp", "Settings of RLP for points that read other documents."),
    "evaluation": ("evaluate", "Settings of every evaluation."),
}


@dataclass
class Points:
    """The points of the chosen sweeps: settings by label, and how the page finds them."""

    rlp: dict[str, dict[str, Any]] = field(default_factory=dict)
    corpora: dict[str, dict[str, Any]] = field(default_factory=dict)
    sweeps: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rlp) + len(self.corpora)


def parse_sweeps(text: str, profile: Profile) -> tuple[str, ...]:
    """Sweeps named with commas between them, or `all` of the profile's; UserError for ones that it has no values for."""
    chosen = profile.ablations or AblationSettings()
    known = [name for name in SWEEPS if getattr(chosen, name)]
    if not known:
        raise UserError("the profile has no 'ablations'; give it some, or choose profile mini")
    names = known if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"--sweeps: the profile has no values for '{name}'; it has {', '.join(known)}")
    return tuple(name for name in known if name in names)


def make_points(profile: Profile, sweeps: Sequence[str]) -> Points:
    """Every point with settings that are whole; UserError for a value that a setting refuses.

    The profile's own settings are the point `default`, which all sweeps share.
    """
    chosen = profile.ablations or AblationSettings()
    rlp = profile.rlp.model_dump(mode="json", exclude_unset=True)
    points = Points(rlp={"default": rlp})
    for name in sweeps:
        if name in FIELDS:
            default = _get(profile.rlp.thinking, FIELDS[name])
            values = {f"{name}-{value:g}": value for value in getattr(chosen, name) if value != default}
            for label, value in values.items():
                points.rlp[label] = _changed(rlp, FIELDS[name], value, f"ablations.{name}")
        else:
            sweep = getattr(chosen, name)
            default = sweep.default
            corpus = profile.shard_corpus.model_dump(mode="json", exclude_unset=True)
            values = {f"{name}-{_slug(value)}": value for value in sweep.others}
            for label, value in values.items():
                settings = {**corpus, **sweep.others[value]}
                parse_settings(ShardDataSettings, settings, f"ablations.{name}.others.{value}")
                points.corpora[label] = settings
        points.sweeps.append({"name": name, "default": default, "points": values})
    return points


def ablations(
    profile_name: str,
    profile: Profile,
    sweeps: Sequence[str],
    parallelism: int | None = None,
    target: Target = ANYWHERE,
) -> Any:
    """The pipeline of these sweeps, with ``profile``'s settings as the defaults of its parameters.

    ``parallelism`` bounds how many points run at once; None leaves that to the cluster.
    """
    points = make_points(profile, sweeps)
    settings = without_nones(profile.model_dump(mode="json", exclude_unset=True))
    stages = {name: stage for name, stage in _STAGES.items() if points.corpora or name != "rlp"}
    defaults: dict[str, tuple[Any, str]] = dict(RUN_PARAMETERS)
    defaults |= {name: (settings[stage], text) for name, (stage, text) in stages.items()}
    defaults["points"] = (
        [{"label": label, "rlp": without_nones(value)} for label, value in points.rlp.items()],
        "Points: a label and the settings of RLP each.",
    )
    if points.corpora:
        defaults["corpora"] = (
            [{"label": label, "corpus": without_nones(value)} for label, value in points.corpora.items()],
            "Points that read other documents: a label and the settings of sharding them each.",
        )
    page = {"title": f"Ablations: {profile.compare.title}", "profile": profile_name, "sweeps": points.sweeps}
    kept = ("confidence", "bootstrap_samples", "seed")
    page |= {name: value for name, value in settings["compare"].items() if name in kept}
    defaults["comparison"] = (page, "Settings of the page, with the labels of each ablation's points.")
    return dsl.pipeline(name=f"rlp-ablations-{profile_name}", description="RLP with one setting changed at a time")(
        described(
            "rlp_ablations",
            "Ablate RLP.",
            target.parameters(defaults),
            lambda given: _build(given, parallelism, target.namer(given)),
        )
    )


def _build(given: dict[str, Any], parallelism: int | None, named: Namer) -> None:
    run_uri = f"{given['artifacts_uri']}/{given['run_name']}"
    common = {"seed": given["seed"], "code_digest": given["code_digest"]}

    def place(task: str) -> dict[str, Any]:
        return {**common, "publish_uri": f"{run_uri}/{task}"}

    of_point = {**common, "run_uri": run_uri}
    items = named(shard_benchmarks(settings=given["benchmarks"], **place("shard-benchmarks")), "shard-benchmarks")
    benchmarks = items.outputs["shards"]

    def shards(task: str, settings: Any) -> Any:
        made = shard_data(settings=settings, benchmarks=benchmarks, **place(task))
        return named(made, task).outputs["shards"]

    start = train_base(
        settings=given["base"], shards=shards("shard-base-corpus", given["base_corpus"]), **place("train-base")
    )
    base = named(start, "train-base").outputs["checkpoint"]
    documents = shards("shard-corpus", given["corpus"])
    # Every point is measured on the same held-out text, whatever it read.
    measured = {"settings": given["evaluation"], "benchmarks": benchmarks, "held_out": documents}
    reference = evaluate(model=base, **measured, **place("evaluate-base"))
    reference_results = named(reference, "evaluate-base").outputs["evaluation"]

    lists = {}
    with dsl.ParallelFor(items=given["points"], parallelism=parallelism, name="points") as point:
        task = pretrain_point(settings=point.rlp, label=point.label, shards=documents, base=base, **of_point)
        model = named(task, "pretrain-point").outputs["checkpoint"]
        evaluated = evaluate_point(model=model, label=point.label, **measured, **of_point)
        lists["points"] = dsl.Collected(named(evaluated, "evaluate-point").outputs["evaluation"])
    if "corpora" in given:
        with dsl.ParallelFor(items=given["corpora"], parallelism=parallelism, name="corpora") as point:
            sharded = shard_point(settings=point.corpus, label=point.label, benchmarks=benchmarks, **of_point)
            its_documents = named(sharded, "shard-point").outputs["shards"]
            task = pretrain_point(settings=given["rlp"], label=point.label, shards=its_documents, base=base, **of_point)
            model = named(task, "pretrain-point").outputs["checkpoint"]
            evaluated = evaluate_point(model=model, label=point.label, **measured, **of_point)
            lists["others"] = dsl.Collected(named(evaluated, "evaluate-point").outputs["evaluation"])
    final = ablate(
        settings=given["comparison"],
        code_digest=given["code_digest"],
        publish_uri=f"{run_uri}/ablate",
        base=reference_results,
        **lists,
    )
    named(final, "ablate").set_caching_options(False)


def _get(settings: Any, path: str) -> Value:
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def _changed(rlp: Mapping[str, Any], path: str, value: Value, where: str) -> dict[str, Any]:
    """RLP's settings with one field of `thinking` changed."""
    changed = copy.deepcopy(dict(rlp))
    *inner, last = path.split(".")
    settings = changed["thinking"]
    for name in inner:
        settings = settings.setdefault(name, {})
    settings[last] = value
    parse_settings(PretrainSettings, changed, where)
    return changed


def _slug(name: Value) -> str:
    return str(name).lower().replace(" ", "-")

"""The reproduction's DAG: the arms, each evaluated after pretraining, SFT and RLVR, then compared; at its end, however it
ends, the run's status is written.

One definition runs on a laptop and on a cluster. Post-training settings and data are the same for every arm.
"""

from collections.abc import Callable, Sequence
from graphlib import TopologicalSorter
from inspect import Parameter, Signature
from typing import Any

from kfp import dsl

from components.compare.component import compare
from components.evaluate.component import evaluate
from components.finetune.component import finetune
from components.pretrain.component import pretrain, train_base
from components.reinforce.component import reinforce
from components.report_status.component import report_status
from components.shard_data.component import shard_benchmarks, shard_data
from pipelines.arms import DEFAULT_ARMS
from pipelines.placing import ANYWHERE, Namer, Parameters, Target
from pipelines.profile import Profile
from rlpretrain.settings import without_nones

# Parameters of a run with their defaults, and those that hold a stage's settings with the profile's field; each described.
RUN_PARAMETERS = {
    "run_name": ("reproduction", "Name of the run, the last part of its place in storage."),
    "seed": (0, "Seed of data order, thoughts and evaluation; a seed repeats a run."),
    "artifacts_uri": ("s3://rlp/runs", "s3:// place that the run's artifacts are published under."),
    "code_digest": (
        "",
        "Digest of the code, for KFP's cache sees neither changed packages nor moved image tags; any text works.",
    ),
}
_STAGES = {
    "benchmarks": ("shard_benchmarks", "Settings of sharding the benchmarks."),
    "base_corpus": ("shard_base_corpus", "Settings of sharding the base model's corpus."),
    "corpus": ("shard_corpus", "Settings of sharding the documents of the arms."),
    "sft_data": ("shard_sft", "Settings of sharding the SFT data."),
    "rlvr_data": ("shard_rlvr", "Settings of sharding the RLVR problems."),
    "base": ("base", "Settings of the base model."),
    "cpt": ("cpt", "Settings of continued pretraining."),
    "cpt_flops": ("cpt_flops", "Settings of continued pretraining for as much compute as RLP takes."),
    "rlp": ("rlp", "Settings of RLP."),
    "rpt": ("rpt", "Settings of RPT."),
    "sft": ("sft", "Settings of SFT, the same for every arm."),
    "rlvr": ("rlvr", "Settings of RLVR, the same for every arm."),
    "evaluation": ("evaluate", "Settings of every evaluation."),
    "comparison": ("compare", "Settings of the comparison."),
}
_OPTIONAL = ("cpt", "cpt_flops", "rlp", "rpt")  # arms that a run may do without; base is where the others start


def reproduction(
    profile_name: str, profile: Profile, arms: Sequence[str] = DEFAULT_ARMS, target: Target = ANYWHERE
) -> Any:
    """The pipeline of these arms, with ``profile``'s settings as the defaults of its parameters."""
    # Only what the profile sets: the rest are the stages' own defaults.
    settings = without_nones(profile.model_dump(mode="json", exclude_unset=True))
    stages = {name: stage for name, stage in _STAGES.items() if name not in _OPTIONAL or name in arms}
    parameters = target.parameters(
        RUN_PARAMETERS | {name: (settings[field], text) for name, (field, text) in stages.items()}
    )

    def build(given: dict[str, Any]) -> None:
        named, run_uri = target.namer(given), f"{given['artifacts_uri']}/{given['run_name']}"
        end = named(report_status(run_name=given["run_name"], run_uri=run_uri), "report-status")
        with dsl.ExitHandler(end.set_caching_options(False), name="arms"):
            _build(given, arms, named)

    return dsl.pipeline(name=f"rlp-reproduction-{profile_name}", description="RLP against other arms, across stages")(
        described("rlp_reproduction", "Reproduce RLP.", parameters, build)
    )


def described(
    name: str, summary: str, parameters: Parameters, build: Callable[[dict[str, Any]], None]
) -> Callable[..., None]:
    """A function that kfp can make a pipeline of: ``parameters`` by name with default and description, handed to ``build``."""

    def pipeline(*values: Any) -> None:  # kfp hands its parameters over in the signature's order
        build(dict(zip(parameters, values, strict=True)))

    pipeline.__name__ = name
    pipeline.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=type(default))
            for name, (default, _) in parameters.items()
        ]
    )
    lines = "\n".join(f"    {name}: {text}" for name, (_, text) in parameters.items())
    pipeline.__doc__ = f"{summary}\n\nArgs:\n{lines}\n"
    return pipeline


def _build(given: dict[str, Any], arms: Sequence[str], named: Namer) -> None:
    """The tasks; ``given`` holds a channel for every parameter."""
    common = {"seed": given["seed"], "code_digest": given["code_digest"]}

    def place(task: str) -> dict[str, Any]:
        return {**common, "publish_uri": f"{given['artifacts_uri']}/{given['run_name']}/{task}"}

    items = named(shard_benchmarks(settings=given["benchmarks"], **place("shard-benchmarks")), "shard-benchmarks")
    benchmarks = items.outputs["shards"]

    def shards(task: str, settings: Any) -> Any:
        made = shard_data(settings=settings, benchmarks=benchmarks, **place(task))
        return named(made, task).outputs["shards"]

    base_documents = shards("shard-base-corpus", given["base_corpus"])
    documents = shards("shard-corpus", given["corpus"])
    sft_shards = shards("shard-sft", given["sft_data"])
    rlvr_shards = shards("shard-rlvr", given["rlvr_data"])

    start = named(train_base(settings=given["base"], shards=base_documents, **place("train-base")), "train-base")
    base = start.outputs["checkpoint"]
    results = {}
    for arm in arms:
        model, title = base, arm.replace("_", "-")
        if arm != "base":
            task = pretrain(settings=given[arm], shards=documents, base=base, **place(f"pretrain-{title}"))
            model = named(task, f"pretrain-{title}").outputs["checkpoint"]
        tuned = finetune(settings=given["sft"], shards=sft_shards, model=model, **place(f"sft-{title}"))
        tuned_model = named(tuned, f"sft-{title}").outputs["checkpoint"]
        reinforced = reinforce(settings=given["rlvr"], shards=rlvr_shards, model=tuned_model, **place(f"rlvr-{title}"))
        reinforced_model = named(reinforced, f"rlvr-{title}").outputs["checkpoint"]
        for stage, subject in (("pretrained", model), ("sft", tuned_model), ("rlvr", reinforced_model)):
            task_name = f"evaluate-{title}-{stage}"
            task = evaluate(
                settings=given["evaluation"],
                model=subject,
                benchmarks=benchmarks,
                held_out=documents,
                **place(task_name),
            )
            results[f"{arm}_{stage}"] = named(task, task_name).outputs["evaluation"]
    final = compare(
        settings=given["comparison"],
        code_digest=given["code_digest"],
        publish_uri=f"{given['artifacts_uri']}/{given['run_name']}/compare",
        **results,
    )
    named(final, "compare").set_caching_options(False)


def task_names(pipeline: Any) -> dict[str, str]:
    """Keys of a pipeline's tasks, as runners print them (evaluate-5), to the names people see (evaluate-cpt-sft).

    In an order that they can run in, what can run at the same time by name.
    """
    spec = pipeline.pipeline_spec
    found = {}

    def follow(tasks: Any) -> None:
        order = TopologicalSorter({key: set(task.dependent_tasks) for key, task in tasks.items()})
        order.prepare()
        while ready := order.get_ready():
            for key in sorted(ready, key=lambda key: tasks[key].task_info.name):
                component = spec.components[tasks[key].component_ref.name]
                if component.HasField("dag"):  # the frame of a loop or handler is no task
                    follow(component.dag.tasks)
                else:
                    found[key] = tasks[key].task_info.name
            order.done(*ready)

    follow(spec.root.dag.tasks)
    return found

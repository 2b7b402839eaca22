"""The reproduction's DAG: base, CPT and RLP arms, each evaluated after pretraining, SFT and RLVR, then compared.

One definition runs on a laptop and on a cluster. Post-training settings and data are the same for every arm.
"""

from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask

from components.compare.component import compare
from components.evaluate.component import evaluate
from components.finetune.component import finetune
from components.pretrain.component import pretrain, train_base
from components.reinforce.component import reinforce
from components.shard_data.component import shard_benchmarks, shard_data
from pipelines.profile import Profile


def reproduction(profile_name: str, profile: Profile) -> Any:
    """The pipeline, with ``profile``'s settings as the defaults of its parameters."""
    # Only what the profile sets: the rest are the stages' own defaults, and KFP takes no nulls.
    defaults = profile.model_dump(mode="json", exclude_unset=True)

    @dsl.pipeline(name=f"rlp-reproduction-{profile_name}", description="RLP against CPT and base, across stages")
    def rlp_reproduction(
        run_name: str = "reproduction",
        seed: int = 0,
        artifacts_uri: str = "s3://rlp/runs",
        code_digest: str = "",
        benchmarks: dict = defaults["shard_benchmarks"],
        base_corpus: dict = defaults["shard_base_corpus"],
        corpus: dict = defaults["shard_corpus"],
        sft_data: dict = defaults["shard_sft"],
        rlvr_data: dict = defaults["shard_rlvr"],
        base: dict = defaults["base"],
        cpt: dict = defaults["cpt"],
        rlp: dict = defaults["rlp"],
        sft: dict = defaults["sft"],
        rlvr: dict = defaults["rlvr"],
        evaluation: dict = defaults["evaluate"],
        comparison: dict = defaults["compare"],
    ):
        """Reproduce RLP.

        Args:
            run_name: Name of the run, the last part of its place in storage.
            seed: Seed of data order, thoughts and evaluation; a seed repeats a run.
            artifacts_uri: s3:// place that the run's artifacts are published under.
            code_digest: Digest of the code, for KFP's cache sees neither changed packages nor moved image tags; any text works.
            benchmarks: Settings of sharding the benchmarks.
            base_corpus: Settings of sharding the base model's corpus.
            corpus: Settings of sharding the documents of CPT and RLP.
            sft_data: Settings of sharding the SFT data.
            rlvr_data: Settings of sharding the RLVR problems.
            base: Settings of the base model.
            cpt: Settings of continued pretraining.
            rlp: Settings of RLP.
            sft: Settings of SFT, the same for every arm.
            rlvr: Settings of RLVR, the same for every arm.
            evaluation: Settings of every evaluation.
            comparison: Settings of the comparison.
        """
        common = {"seed": seed, "code_digest": code_digest}

        def place(task: str) -> dict[str, Any]:
            return {**common, "publish_uri": f"{artifacts_uri}/{run_name}/{task}"}

        items = named(shard_benchmarks(settings=benchmarks, **place("shard-benchmarks")), "shard-benchmarks")

        def shards(task: str, settings: Any) -> Any:
            made = shard_data(settings=settings, benchmarks=items.outputs["shards"], **place(task))
            return named(made, task).outputs["shards"]

        base_documents = shards("shard-base-corpus", base_corpus)
        documents = shards("shard-corpus", corpus)
        sft_shards = shards("shard-sft", sft_data)
        rlvr_shards = shards("shard-rlvr", rlvr_data)

        start = named(train_base(settings=base, shards=base_documents, **place("train-base")), "train-base")
        models = {"base": start.outputs["checkpoint"]}
        for arm, settings in (("cpt", cpt), ("rlp", rlp)):
            task = pretrain(settings=settings, shards=documents, base=models["base"], **place(f"pretrain-{arm}"))
            models[arm] = named(task, f"pretrain-{arm}").outputs["checkpoint"]

        results = {}
        for arm, model in models.items():
            tuned = finetune(settings=sft, shards=sft_shards, model=model, **place(f"sft-{arm}"))
            tuned_model = named(tuned, f"sft-{arm}").outputs["checkpoint"]
            reinforced = reinforce(settings=rlvr, shards=rlvr_shards, model=tuned_model, **place(f"rlvr-{arm}"))
            reinforced_model = named(reinforced, f"rlvr-{arm}").outputs["checkpoint"]
            for stage, subject in (("pretrained", model), ("sft", tuned_model), ("rlvr", reinforced_model)):
                task_name = f"evaluate-{arm}-{stage}"
                task = evaluate(
                    settings=evaluation,
                    model=subject,
                    benchmarks=items.outputs["shards"],
                    held_out=documents,
                    **place(task_name),
                )
                results[f"{arm}_{stage}"] = named(task, task_name).outputs["evaluation"]
        final = compare(
            settings=comparison,
            code_digest=code_digest,
            publish_uri=f"{artifacts_uri}/{run_name}/compare",
            **results,
        )
        named(final, "compare").set_caching_options(False)

    return rlp_reproduction


def task_names(pipeline: Any) -> dict[str, str]:
    """Keys of a pipeline's tasks, as runners print them (evaluate-5), to the names people see (evaluate-cpt-sft)."""
    return {key: task.task_info.name for key, task in pipeline.pipeline_spec.root.dag.tasks.items()}


def named(task: PipelineTask, name: str) -> PipelineTask:
    """Give a task the name that people see."""
    return task.set_display_name(name)

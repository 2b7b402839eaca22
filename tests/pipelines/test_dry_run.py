"""The paper's profiles, small: the whole DAG on rows of ours and random models of the same class, one step a stage."""

import json
from pathlib import Path

import pytest

from pipelines.checks import GIVEN
from pipelines.dry_run import shrunk
from pipelines.profile import load_profile, names
from rlpretrain.data.conversions import SAMPLES
from rlpretrain.errors import UserError
from rlpretrain.evaluation.suites import load_suite
from tests.pipelines.running import run_side_by_side

# A dense model and the hybrid; base, CPT and RLP of a small profile run in test_dag.py.
RUNS = {"qwen3-1.7b": ("cpt_flops", "rpt"), "nemotron-nano-12b-v2": ("base", "rlp")}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the dry runs, side by side, each with a server of its own."""
    folders = {name: tmp_path_factory.mktemp(name) for name in RUNS}
    run_side_by_side(
        {
            folders[name]: ("--dry-run", "--profile", name, "--name", "dry", "--arms", ",".join(arms))
            for name, arms in RUNS.items()
        }
    )
    return folders


@pytest.mark.parametrize("profile", RUNS)
def test_every_arm_passes_through_the_whole_dag(runs: dict[str, Path], profile: str) -> None:
    results = json.loads((runs[profile] / "dry" / "report" / "results.json").read_text())
    models = {(model["arm"], model["stage"]) for model in results["models"]}
    assert models == {(arm, stage) for arm in RUNS[profile] for stage in ("pretrained", "sft", "rlvr")}
    assert results["benchmarks"] == load_suite("paper")[0].groups
    assert all("overall_as_printed" in model["averages"] for model in results["models"])


@pytest.mark.parametrize("name", names())
def test_a_small_twin_keeps_what_makes_the_profile(name: str) -> None:
    profile = load_profile(name)
    small = shrunk(profile)
    assert small.base.architecture.family == profile.base.architecture.family
    assert small.evaluate.suite == profile.evaluate.suite
    assert small.rlvr.answer_pattern == profile.rlvr.answer_pattern
    for task in ("shard_benchmarks", "shard_corpus", "shard_sft", "shard_rlvr"):
        before, after = getattr(profile, task).sources, getattr(small, task).sources
        assert [source.name for source in before] == [source.name for source in after]
        assert [source.conversion for source in before] == [source.conversion for source in after]
        assert all(source.kind != "huggingface" for source in after)
    for arm in ("cpt_flops", "rlp", "rpt"):
        part = getattr(small, arm).thinking or getattr(small, arm).likelihood
        assert part is None or part.steps <= 3


@pytest.mark.parametrize("name", [name for name in names() if load_profile(name).hardware])
def test_the_papers_sources_are_pinned_and_have_rows_of_their_schema(name: str) -> None:
    profile = load_profile(name)
    given = str(profile.base.initial_model).startswith(GIVEN)  # the user's own, in the published model's tokens
    for task in ("shard_benchmarks", "shard_base_corpus", "shard_corpus", "shard_sft", "shard_rlvr"):
        settings = getattr(profile, task)
        assert len(settings.tokenizer.revision) == 40
        assert given or settings.tokenizer.name == profile.base.initial_model
        assert given or settings.tokenizer.revision == profile.base.initial_revision
        for source in settings.sources:
            assert source.revision is not None and len(source.revision) == 40
            assert (SAMPLES / f"{source.conversion}.jsonl").is_file()


def test_a_source_without_a_conversion_cannot_be_stood_in_for() -> None:
    change = {"shard_corpus.sources.0.conversion": None}
    with pytest.raises(UserError, match="dry run: source 'crossthink-qa' names no conversion"):
        shrunk(load_profile("qwen3-1.7b", change))

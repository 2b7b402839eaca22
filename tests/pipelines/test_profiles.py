"""Profiles are complete, and fair: what an arm gets beyond its objective, every arm gets."""

import pytest

from pipelines.profile import load_profile, names, parse_changes
from rlpretrain.data.sources import GENERATORS
from rlpretrain.evaluation.suites import load_suite


@pytest.mark.parametrize("name", names())
def test_names_in_a_profile_are_known(name: str) -> None:
    profile = load_profile(name)
    shards = (profile.shard_base_corpus, profile.shard_corpus, profile.shard_sft, profile.shard_rlvr)
    for source in (source for settings in (profile.shard_benchmarks, *shards) for source in settings.sources):
        assert source.kind != "generator" or source.generator in GENERATORS
    suite, _ = load_suite(profile.evaluate.suite)
    assert suite.benchmarks
    assert profile.compare.profile == name


@pytest.mark.parametrize("name", names())
def test_training_reads_no_test_split_and_one_tokenizer(name: str) -> None:
    profile = load_profile(name)
    # GPQA is published as one split, called train.
    assert all(source.split == "test" or "gpqa" in source.name for source in profile.shard_benchmarks.sources)
    benchmarks = {source.dataset for source in profile.shard_benchmarks.sources} - {None}
    assert profile.shard_benchmarks.purpose == "evaluation"
    for settings in (profile.shard_base_corpus, profile.shard_corpus, profile.shard_sft, profile.shard_rlvr):
        assert all(source.split == "train" and source.dataset not in benchmarks for source in settings.sources)
        assert settings.tokenizer == profile.shard_benchmarks.tokenizer
    assert profile.shard_corpus.held_out_fraction > 0


@pytest.mark.parametrize("name", names())
def test_thoughts_are_measured_in_the_form_they_are_trained_in(name: str) -> None:
    profile = load_profile(name)
    assert profile.rlp.objective == "rlp" and profile.cpt.objective == "cpt" and profile.base.objective == "base"
    assert profile.rlp.thinking is not None and profile.evaluate.held_out is not None
    assert profile.evaluate.held_out.thought == profile.rlp.thinking.thought
    assert profile.cpt.format_warmup is None and profile.rlp.format_warmup is None


def test_changes_go_over_the_profile() -> None:
    changes = parse_changes(["rlp.thinking.steps=7", "shard_corpus.sources.0.documents=9", "compare.title=a b"])
    profile = load_profile("tiny", changes)
    assert profile.rlp.thinking is not None and profile.rlp.thinking.steps == 7
    assert profile.shard_corpus.sources[0].documents == 9
    assert profile.compare.title == "a b"
    assert load_profile("tiny").rlp.thinking != profile.rlp.thinking

"""Profiles are complete, and fair: what an arm gets beyond its objective, every arm gets."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import profile as profile_module
from pipelines.ablations import SWEEPS
from pipelines.checks import check_given, check_lengths, check_profile, check_tokenizers
from pipelines.compiling import compiled_text
from pipelines.profile import Profile, load_profile, name_of, names, parse_changes
from pipelines.reproduction import reproduction
from rlpretrain.data.conversions import SAMPLES
from rlpretrain.data.documents import Document
from rlpretrain.data.sources import GENERATORS, read_source
from rlpretrain.errors import UserError
from rlpretrain.evaluation.suites import load_suite
from rlpretrain.models import new_model
from rlpretrain.settings import EvaluateSettings, PretrainSettings, SourceSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.checkpoints import check_lengths as check_model_lengths


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


@pytest.mark.parametrize("name", names())
def test_every_stage_thinks_between_the_same_delimiters(name: str, tmp_path: Path) -> None:
    """What RLP learns to write is what SFT shows, what RLVR's and the benchmarks' prompts open, and what answers follow."""
    profile = load_profile(name)
    assert profile.rlp.thinking is not None and profile.rpt.thinking is not None
    assert profile.evaluate.held_out is not None
    parts = [profile.rlp.thinking, profile.rpt.thinking, profile.rlvr.thinking, profile.evaluate.held_out]
    parts += [profile.base.thinking] if profile.base.thinking is not None else []
    opening, closing, prefix = (getattr(profile.rlp.thinking.thought, part) for part in ("open", "close", "prefix"))
    for part in parts:
        assert (part.thought.open, part.thought.close, part.thought.prefix) == (opening, closing, prefix)
    completions = [document.text for document in sft_documents(profile, tmp_path)]
    assert completions
    for text in completions:
        assert text.startswith(prefix + opening) and text.count(opening) == text.count(closing) == 1


@pytest.mark.parametrize(
    "name", [name for name in names() if load_suite(load_profile(name).evaluate.suite)[0].symbolic]
)
def test_post_training_asks_as_the_benchmarks_do(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    asked = [document.prompt for document in sft_documents(profile, tmp_path)]
    for sources in (profile.shard_rlvr.sources, profile.shard_benchmarks.sources[:5]):  # problems with free answers
        asked += [document.prompt for source in sources for document in read_source(offline(source), 0, tmp_path)]
    assert len({prompt.partition("\n\n")[2] for prompt in asked}) == 1
    assert profile.rlvr.answer_pattern == load_suite(profile.evaluate.suite)[0].answer_patterns[0] == "boxed"


def sft_documents(profile: Profile, scratch: Path) -> list[Document]:
    """The first documents of the SFT data, from rows of ours where the hub's are meant."""
    (source,) = profile.shard_sft.sources
    return list(islice(read_source(offline(source), 0, scratch), 20))


def offline(source: SourceSettings) -> SourceSettings:
    if source.kind != "huggingface":
        return source
    rows = SAMPLES / f"{source.conversion}.jsonl"
    return SourceSettings(name=source.name, kind="jsonl", path=str(rows), conversion=source.conversion)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rlp.thinking.max_context": 600}, "rlp.thinking: max_context 600 and thought.budget 16 need 619 positions"),
        ({"rlp.thinking.thought.recap": 500}, "rlp.thinking: .* need 583 positions with the template, but .* has 512"),
        ({"rlvr.thinking.thought.budget": 500}, "rlvr.thinking: max_context 64 and thought.budget 500"),
        ({"evaluate.held_out.max_context": 500}, "evaluate.held_out: max_context 500"),
        ({"rpt.thinking.prediction_tokens": 450}, "rpt.thinking: max_context 64"),
        ({"evaluate.max_new_tokens": 512}, "evaluate.max_new_tokens 512 leaves no room for a prompt"),
        ({"cpt.likelihood.sequence_length": 513}, "^cpt.likelihood.sequence_length 513 is more than the 512 positions"),
        ({"cpt_flops.likelihood.sequence_length": 600}, "^cpt_flops.likelihood.sequence_length 600"),
        ({"sft.likelihood.sequence_length": 600}, "^sft.likelihood.sequence_length 600"),
        ({"base.likelihood.sequence_length": 600}, "^base.likelihood.sequence_length 600"),
    ],
)
def test_what_does_not_fit_the_models_positions_is_told_of_the_profile(change: dict[str, Any], words: str) -> None:
    check_lengths(load_profile("tiny"))
    with pytest.raises(UserError, match=words):
        check_lengths(load_profile("tiny", change))


def test_thoughts_of_an_ablation_must_fit_where_it_is_run() -> None:
    profile = load_profile("tiny", {"ablations.thought_budget": [4, 500]})
    check_lengths(profile, ("rollouts",))
    with pytest.raises(UserError, match=r"^ablations.thought_budget: max_context 64 and thought.budget 500 need 567"):
        check_lengths(profile, ("rollouts", "thought_budget"))


def test_an_imported_model_that_is_not_trained_on_may_be_short() -> None:
    check_lengths(load_profile("tiny", {"base.likelihood": {"steps": 0}}))  # documents of 2,048 tokens


def test_lengths_are_told_as_the_stage_tells_them() -> None:
    profile = load_profile("tiny", {"rlp.thinking.max_context": 493, "rlp.thinking.thought.recap": 2})
    thinking = profile.rlp.thinking
    assert thinking is not None
    form = ThoughtFormat.build(thinking.thought, load_tokenizer("builtin:characters"))
    with pytest.raises(UserError, match="need 514 positions") as early:
        check_lengths(profile)
    model = new_model(profile.base.architecture, load_tokenizer("builtin:characters"), 0)
    with pytest.raises(UserError, match="need 514 positions") as late:
        check_model_lengths(model, form, thinking)
    assert str(early.value) == f"rlp.thinking: {late.value}"


@pytest.mark.parametrize("name", names())
def test_every_profile_passes_its_own_checks(name: str) -> None:
    profile = load_profile(name)
    check_profile(profile, SWEEPS)
    check_tokenizers(profile)  # the paper's profiles add them to the tokenizer: nothing is loaded
    if name == "nemotron-nano-12b-v2-early":
        with pytest.raises(UserError, match=r"give a checkpoint of Nemotron.* with --set base.initial_model="):
            check_given(profile)
        profile = load_profile(name, {"base.initial_model": "s3://bucket/at-4t"})
    check_given(profile)


def test_a_tokenizer_without_a_delimiter_is_told_before_anything_is_tokenised() -> None:
    change = {"rlp.thinking.thought.open": "<<", "evaluate.held_out.thought.open": "<<"}
    with pytest.raises(UserError, match=r"the tokenizer has no token '<<'; add it to tokenizer.add_tokens"):
        check_tokenizers(load_profile("tiny", change))
    tasks = [name for name in Profile.model_fields if name.startswith("shard_")]
    check_tokenizers(load_profile("tiny", change | {f"{task}.tokenizer.add_tokens": ["<<"] for task in tasks}))


def test_a_missing_field_is_told_with_its_name() -> None:
    with pytest.raises(UserError, match="profile tiny: shard_sft: Field required"):
        load_profile("tiny", {"shard_sft": None})
    with pytest.raises(UserError, match="profile tiny: rlp: objective 'rlp' needs 'thinking'"):
        load_profile("tiny", {"rlp.thinking": None})
    source = {"name": "a", "kind": "huggingface", "dataset": "a/b"}
    with pytest.raises(UserError, match=r"shard_corpus.sources.0: a source of kind 'huggingface' needs 'revision'"):
        load_profile("tiny", {"shard_corpus.sources": [source]})


def test_a_profile_file_that_misses_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = profile_module._read("tiny")
    monkeypatch.setattr(
        profile_module, "_read", lambda name, over=(): {k: v for k, v in whole.items() if k != "evaluate"}
    )
    with pytest.raises(UserError, match=r"profile tiny: evaluate: Field required"):
        load_profile("tiny")


def test_changes_go_over_the_profile() -> None:
    changes = parse_changes(["rlp.thinking.steps=7", "shard_corpus.sources.0.documents=9", "compare.title=a b"])
    profile = load_profile("tiny", changes)
    assert profile.rlp.thinking is not None and profile.rlp.thinking.steps == 7
    assert profile.shard_corpus.sources[0].documents == 9
    assert profile.compare.title == "a b"
    assert load_profile("tiny").rlp.thinking != profile.rlp.thinking


def write_profile(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_change_changes_nothing_else() -> None:
    """Also where one anchor stands for several stages' values, or an arm follows from another."""
    changes = {
        "rlp.thinking.thought.budget": 5,
        "rpt.thinking.thought.temperature": 0.5,
        "shard_sft.sources.0.weight": 2.0,
    }
    before, after = load_profile("tiny").model_dump(mode="json"), load_profile("tiny", changes).model_dump(mode="json")
    before["rlp"]["thinking"]["thought"]["budget"] = before["rpt"]["thinking"]["thought"]["budget"] = 5
    before["rpt"]["thinking"]["thought"]["temperature"] = 0.5
    before["shard_sft"]["sources"][0]["weight"] = 2.0
    before["cpt_flops"]["likelihood"]["steps"] = after["cpt_flops"]["likelihood"]["steps"]  # follows from RLP's budget
    assert after == before


def test_a_file_of_ones_own_extends_a_profile_and_bears_its_own_name(tmp_path: Path) -> None:
    write_profile(tmp_path / "house.yaml", "extends: tiny\nrlp: {thinking: {group: 4}}\n")
    (tmp_path / "deep").mkdir()
    file = write_profile(tmp_path / "deep" / "mine.yaml", "extends: ../house.yaml\nrlp: {thinking: {steps: 9}}\n")
    profile = load_profile(file, {"cpt.likelihood.steps": 5})
    assert profile.rlp.thinking is not None and profile.cpt.likelihood is not None
    assert (profile.rlp.thinking.group, profile.rlp.thinking.steps, profile.cpt.likelihood.steps) == (4, 9, 5)
    assert (profile.rpt.thinking and profile.rpt.thinking.steps) == 9  # derived from ours
    assert name_of(file) == profile.compare.profile == "mine" and profile.compare.title == "RLP, profile mine"
    said = write_profile(tmp_path / "said.yml", "extends: tiny\ncompare: {title: Ours}\n")
    assert (load_profile(said).compare.title, load_profile(said).compare.bootstrap_samples) == ("Ours", 200)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("mine.yaml", "extends: tyni", "profile .*mine.yaml: extends: unknown profile 'tyni'; known: mini, "),
        ("mine.yaml", "extends: mine.yaml", "mine.yaml: extends itself"),
        (
            "mine.yaml",
            "extends: other.yaml",
            "other.yaml: No such file or directory; give a profile's name or the path",
        ),
        ("mine.yaml", "- a", "must hold a mapping"),
        ("mine.yaml", "a: [", "not valid YAML"),
        (
            "mine.yaml",
            "extends: tiny\nrlp:\n  thinking: {steps: 1}\ncpt: {}\nrlp:\n  thinking: {group: 4}",
            r"mine.yaml: not valid YAML: key 'rlp' stands twice, in line 2 and in line 5; keep one$",
        ),
        ("mine.yaml", "extends: tiny\nrlp: {stepps: 1}", "unknown setting 'rlp.stepps'"),
        ("mine.yaml", "extends: tiny\ncompare: 3", "mine.yaml: compare: "),
        ("mine.yaml", "rlp: {}", "shard_benchmarks: Field required"),
        ("tiny.yaml", "extends: tiny", "'tiny' is a profile of the project; give the file a name of its own"),
        ("My Own.yaml", "extends: tiny", "name the file by up to 40 lower-case letters"),
    ],
)
def test_mistakes_in_a_file_of_ones_own_take_one_line(tmp_path: Path, file: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        load_profile(write_profile(tmp_path / file, text))
    assert "\n" not in str(raised.value)


def test_null_switches_off_what_can_be_off(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "{extends: tiny, evaluate: {held_out: null}, base: {snapshots: {every_minutes: null}}}"
    )
    changes = parse_changes(["base.format_warmup=null", "rlp.thinking.optimizer.final_learning_rate=null"])
    profile = load_profile(str(tmp_path / "mine.yaml"), changes)
    assert profile.evaluate.held_out is None and profile.base.snapshots.every_minutes is None
    definition = next(yaml.safe_load_all(compiled_text(reproduction("mine", profile))))
    given = definition["root"]["inputDefinitions"]["parameters"]
    read = EvaluateSettings.model_validate(given["evaluation"]["defaultValue"])
    assert read == profile.evaluate
    assert PretrainSettings.model_validate(given["base"]["defaultValue"]) == profile.base
    assert PretrainSettings.model_validate(given["rlp"]["defaultValue"]) == profile.rlp


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_numbers_are_finite(value: str) -> None:
    with pytest.raises(UserError, match=r"rlp.thinking.clip_high: Input should be a finite number"):
        load_profile("tiny", parse_changes([f"rlp.thinking.clip_high={value}"]))

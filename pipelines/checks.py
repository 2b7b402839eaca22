"""What can be told of a profile before a run begins, and not hours later by the stage that it is wrong for.

`check_profile` looks at the profile alone, `check_here` at what this machine, storage and the hub have, for runs on it.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pipelines.profile import CORPORA, Profile
from rlpretrain.errors import UserError
from rlpretrain.lengths import check_room, check_sequence
from rlpretrain.settings import (
    ArchitectureSettings,
    EvaluateSettings,
    FormatWarmupSettings,
    HeldOutGainSettings,
    LikelihoodSettings,
    ShardDataSettings,
    SourceSettings,
    ThinkingSettings,
    parse_settings,
)

GIVEN = "given:"  # a model that the user must name; what follows says which
Computing = LikelihoodSettings | FormatWarmupSettings | ThinkingSettings | EvaluateSettings
OBJECTIVES = {"base": "base", "cpt": "cpt", "cpt_flops": "cpt", "rlp": "rlp", "rpt": "rpt"}


def check_profile(profile: Profile, sweeps: Sequence[str] = ()) -> None:
    """UserError for what a stage would refuse, whatever the machine. ``sweeps``: the ablations that are run."""
    for arm, objective in OBJECTIVES.items():
        if getattr(profile, arm).objective != objective:
            raise UserError(f"{arm}.objective: must be '{objective}', which the arm is compared as; mend it")
    check_lengths(profile, sweeps)
    check_sources(profile, sweeps)
    check_evaluation(profile)


def check_here(profile: Profile, sweeps: Sequence[str] = ()) -> None:
    """UserError for what a stage would miss on this machine, in storage or on the hub. ``sweeps``: the ablations that are run."""
    check_sources(profile, sweeps, files=True)
    check_hub(profile, sweeps)
    check_tokenizers(profile)
    check_models(profile)
    check_machine(profile)


def check_given(profile: Profile) -> None:
    """UserError when the profile leaves its model for the user to name."""
    name = profile.base.initial_model or ""
    if name.startswith(GIVEN):
        raise UserError(f"give {name.removeprefix(GIVEN)} with --set base.initial_model=FOLDER, s3:// place or hub id")


def check_lengths(profile: Profile, sweeps: Sequence[str] = ()) -> None:
    """UserError when a thought or a document does not fit the model's positions, where the profile says how many there are.

    ``sweeps``: the ablations whose thoughts must fit, too.
    """
    architecture = profile.base.architecture
    if profile.base.initial_model is not None and architecture == ArchitectureSettings():
        return  # its stage reads the model's own
    room = architecture.max_positions
    for field in ("base", "cpt", "cpt_flops", "sft"):
        likelihood = getattr(profile, field).likelihood
        if likelihood is not None:
            check_sequence(likelihood, room, f"{field}.likelihood.")
    for field, part in (*_parts(profile), *_budgets(profile, sweeps)):
        following = part.prediction_tokens if field == "rpt.thinking" and isinstance(part, ThinkingSettings) else 1
        # Two delimiters and the recap; a prefix is as long as the tokenizer makes it, one token at least.
        around = 2 + part.thought.recap * (field != "rlvr.thinking") + bool(part.thought.prefix) + following
        check_room(part, around, room, f"{field}: ")
    if profile.evaluate.max_new_tokens >= room:
        raise UserError(
            f"evaluate.max_new_tokens {profile.evaluate.max_new_tokens} leaves no room for a prompt in the model's "
            f"{room} positions; lower it"
        )


def check_sources(profile: Profile, sweeps: Sequence[str] = (), files: bool = False) -> None:
    """UserError for a source that cannot be read, or not for that; ``files``: also for those of this machine."""
    from rlpretrain.data.sources import first_document

    for path, settings in _shards(profile, sweeps).items():
        field = ".".join(path)
        purpose = "evaluation" if field == "shard_benchmarks" else "documents"
        if settings.purpose != purpose:
            raise UserError(f"{field}.purpose: must be '{purpose}'; mend it")
        for source in settings.sources:
            try:
                first = first_document(source, settings.seed, files)
            except UserError as error:
                raise UserError(f"{field}: {error}") from None
            answers = source.answer_field or source.conversion if first is None else first.answer
            if field == "shard_rlvr" and not answers:
                raise UserError(f"{field}: source '{source.name}' has no answers to verify; set its answer_field")


def check_evaluation(profile: Profile) -> None:
    """UserError for a suite that there is none of, that lacks what is to be limited, or that the benchmarks do not serve."""
    from rlpretrain.data.sources import benchmark_names
    from rlpretrain.evaluation.suites import check_limit, load_suite

    settings, benchmarks = profile.evaluate, profile.shard_benchmarks
    suite, _ = load_suite(settings.suite, "evaluate.")
    check_limit(settings, suite, "evaluate.")
    missing = set(suite.items.values())
    for name in chain.from_iterable(benchmark_names(source, benchmarks.seed) for source in benchmarks.sources):
        missing.discard(name)
        if not missing:
            break
    else:
        raise UserError(
            f"evaluate.suite: suite '{settings.suite}' needs items of '{min(missing)}', which no source of "
            "shard_benchmarks gives; name one, or choose another suite"
        )
    if settings.held_out is not None and not profile.shard_corpus.held_out_fraction:
        raise UserError(
            "evaluate.held_out: shard_corpus holds no documents out; raise shard_corpus.held_out_fraction, "
            "or set evaluate.held_out to null"
        )


def check_tokenizers(profile: Profile) -> None:
    """UserError when the tokenizer lacks a delimiter of a thought, is not the same in all stages, or outgrows the model.

    It is loaded only where the profile leaves that open.
    """
    settings, architecture = profile.shard_corpus.tokenizer, profile.base.architecture
    wanted = {token for _, part in _parts(profile) for token in (part.thought.open, part.thought.close)}
    missing = sorted(wanted.difference(settings.add_tokens))
    others = {
        f"{'.'.join(path)}.tokenizer": each.tokenizer
        for path, each in _shards(profile).items()
        if each.tokenizer != settings
    }
    fresh = profile.base.initial_model is None and architecture.vocabulary is not None
    if not (missing or others or fresh):
        return
    from rlpretrain.tokenizer import load_tokenizer, token_id, tokenizer_digest

    tokenizer = load_tokenizer(settings.name, settings.revision, settings.add_tokens)
    for token in missing:
        token_id(tokenizer, token)
    for field, other in others.items():
        if tokenizer_digest(load_tokenizer(other.name, other.revision, other.add_tokens)) != tokenizer_digest(
            tokenizer
        ):
            raise UserError(f"{field}: has another vocabulary than shard_corpus.tokenizer; give all stages the same")
    if fresh:
        from rlpretrain.architectures import check_vocabulary

        check_vocabulary(architecture, len(tokenizer), "base.")


def check_hub(profile: Profile, sweeps: Sequence[str] = ()) -> None:
    """UserError when the hub does not have a data set or a model that the profile reads, or cannot be asked.

    ``sweeps``: the ablations whose corpora are read, too.
    """
    from rlpretrain.data.sources import check_hub
    from rlpretrain.hub import check_repository, is_cached

    check_hub(found.source for found in hub_sources(profile, sweeps))
    for (name, revision), field in hub_models(profile).items():
        if not is_cached(name, revision):
            check_repository("model", name, revision, field)


def check_models(profile: Profile) -> None:
    """UserError for a model or a tokenizer in a folder or in storage that is not there."""
    from rlpretrain.artifacts import MANIFEST, STORED
    from rlpretrain.hub import is_hub_id
    from rlpretrain.storage import connect

    for field, name, _ in _models(profile):
        if name.startswith(STORED):
            there = connect(name).exists(MANIFEST)
        else:
            there = ":" in name or is_hub_id(name) or Path(name).exists()  # package:NAME, builtin:NAME
        if not there:
            raise UserError(f"{field}: {name} holds no model; give a folder, an artifact, a hub id or package:NAME")


def check_machine(profile: Profile) -> None:
    """UserError for what this machine lacks: vLLM, bf16, or work for each of its training processes."""
    from components.processes import processes
    from rlpretrain.training.precision import compute_dtype
    from rlpretrain.training.world import World, join

    world = World(size=processes())
    for field, part in _computing(profile):
        if isinstance(part, EvaluateSettings | ThinkingSettings) and part.engine == "vllm":
            from rlpretrain.rollout.vllm_engine import check_installed

            check_installed(f"{field}.")
        if not isinstance(part, FormatWarmupSettings) and part.compute_dtype == "bfloat16":
            compute_dtype(part.compute_dtype, join().device, f"{field}.")
        if isinstance(part, EvaluateSettings):
            continue
        name = "batch_contexts" if isinstance(part, ThinkingSettings) else "batch_documents"
        world.check_batch(getattr(part, name), f"{field}.{name}")


class HubSource(NamedTuple):
    """A source that is read from the hub: the fields that lead to what has its list, and its place in that."""

    path: tuple[str, ...]
    place: int
    source: SourceSettings


def hub_sources(profile: Profile, sweeps: Sequence[str] = CORPORA) -> list[HubSource]:
    """The sources that are read from the hub, the evaluation's first; of ablations those of ``sweeps``."""
    lists = _shards(profile, sweeps)
    found = (HubSource(path, index, each) for path, its in lists.items() for index, each in enumerate(its.sources))
    return [each for each in found if each.source.kind == "huggingface"]


def hub_models(profile: Profile) -> dict[tuple[str, str | None], str]:
    """Models of the hub, by name and revision, with the field that first names each."""
    from rlpretrain.hub import is_hub_id

    found: dict[tuple[str, str | None], str] = {}
    for field, name, revision in _models(profile):
        if is_hub_id(name):
            found.setdefault((name, revision), field)
    return found


def _shards(profile: Profile, sweeps: Sequence[str] = ()) -> dict[tuple[str, ...], ShardDataSettings]:
    """What is sharded, the evaluation's first, by the fields that lead there; of ablations the other sources of ``sweeps``."""
    tasks = sorted((name for name in Profile.model_fields if name.startswith("shard_")), key="shard_benchmarks".__ne__)
    found: dict[tuple[str, ...], ShardDataSettings] = {(task,): getattr(profile, task) for task in tasks}
    for sweep in CORPORA:
        corpora = getattr(profile.ablations, sweep, None)
        for name, settings in corpora.others.items() if corpora is not None and sweep in sweeps else ():
            path = ("ablations", sweep, "others", name)
            if "sources" in settings:
                whole = profile.shard_corpus.model_dump(mode="json", exclude_unset=True) | settings
                found[path] = parse_settings(ShardDataSettings, whole, ".".join(path))
    return found


def _models(profile: Profile) -> Iterator[tuple[str, str, str | None]]:
    """Models and tokenizers by name: the field, the name, the revision."""
    if profile.base.initial_model is not None:
        yield "base.initial_model", profile.base.initial_model, profile.base.initial_revision
    proxy = profile.rpt.thinking.proxy if profile.rpt.thinking is not None else None
    if proxy is not None and proxy.model is not None:
        yield "rpt.thinking.proxy.model", proxy.model, proxy.revision
    for task in (name for name in Profile.model_fields if name.startswith("shard_")):
        tokenizer = getattr(profile, task).tokenizer
        yield f"{task}.tokenizer", tokenizer.name, tokenizer.revision


def _computing(profile: Profile) -> Iterator[tuple[str, Computing]]:
    """The settings of what a model computes, with their fields."""
    for task in ("base", "cpt", "cpt_flops", "sft"):
        likelihood = getattr(profile, task).likelihood
        if likelihood is not None:
            yield f"{task}.likelihood", likelihood
    if profile.base.format_warmup is not None:
        yield "base.format_warmup", profile.base.format_warmup
    for task in ("rlp", "rpt", "rlvr"):
        yield f"{task}.thinking", getattr(profile, task).thinking
    yield "evaluate", profile.evaluate


def _parts(profile: Profile) -> Iterator[tuple[str, ThinkingSettings | HeldOutGainSettings]]:
    """The settings that hold a thought, with their fields."""
    for task in ("base", "rlp", "rpt", "rlvr"):
        part = getattr(profile, task).thinking
        if part is not None:
            yield f"{task}.thinking", part
    if profile.evaluate.held_out is not None:
        yield "evaluate.held_out", profile.evaluate.held_out


def _budgets(profile: Profile, sweeps: Sequence[str]) -> Iterator[tuple[str, ThinkingSettings]]:
    """RLP's settings with the thoughts of each point of the ablation `thought_budget`, where it is among ``sweeps``."""
    thinking = profile.rlp.thinking
    if profile.ablations is not None and thinking is not None and "thought_budget" in sweeps:
        for budget in profile.ablations.thought_budget:
            thought = thinking.thought.model_copy(update={"budget": budget})
            yield "ablations.thought_budget", thinking.model_copy(update={"thought": thought})

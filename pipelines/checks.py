"""What can be told of a profile before a run begins: lengths, delimiters, what the user must give, what the hub has."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipelines.profile import CORPORA, Profile
from rlpretrain.errors import UserError
from rlpretrain.lengths import check_room, check_sequence
from rlpretrain.settings import (
    ArchitectureSettings,
    HeldOutGainSettings,
    ShardDataSettings,
    SourceSettings,
    ThinkingSettings,
    parse_settings,
)

GIVEN = "given:"  # a model that the user must name; what follows says which


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


def check_delimiters(profile: Profile) -> None:
    """UserError when the tokenizer lacks a delimiter of a thought; it is loaded only where the profile adds none itself."""
    settings = profile.shard_corpus.tokenizer
    wanted = {token for _, part in _parts(profile) for token in (part.thought.open, part.thought.close)}
    missing = sorted(wanted.difference(settings.add_tokens))
    if not missing:
        return
    from rlpretrain.tokenizer import load_tokenizer, token_id

    tokenizer = load_tokenizer(settings.name, settings.revision, settings.add_tokens)
    for token in missing:
        token_id(tokenizer, token)


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


class HubSource(NamedTuple):
    """A source that is read from the hub: the fields that lead to what has its list, and its place in that."""

    path: tuple[str, ...]
    place: int
    source: SourceSettings


def hub_sources(profile: Profile, sweeps: Sequence[str] = CORPORA) -> list[HubSource]:
    """The sources that are read from the hub, the evaluation's first; of ablations those of ``sweeps``."""
    tasks = sorted((name for name in Profile.model_fields if name.startswith("shard_")), key="shard_benchmarks".__ne__)
    lists: dict[tuple[str, ...], Sequence[SourceSettings]] = {(task,): getattr(profile, task).sources for task in tasks}
    for sweep in CORPORA:
        corpora = getattr(profile.ablations, sweep, None)
        for name, settings in corpora.others.items() if corpora is not None and sweep in sweeps else ():
            path = ("ablations", sweep, "others", name)
            if "sources" in settings:
                whole = profile.shard_corpus.model_dump(mode="json", exclude_unset=True) | settings
                lists[path] = parse_settings(ShardDataSettings, whole, ".".join(path)).sources
    found = (HubSource(path, index, each) for path, sources in lists.items() for index, each in enumerate(sources))
    return [each for each in found if each.source.kind == "huggingface"]


def hub_models(profile: Profile) -> dict[tuple[str, str | None], str]:
    """Models of the hub, by name and revision, with the field that first names each."""
    from rlpretrain.hub import is_hub_id

    named = [("base.initial_model", profile.base.initial_model, profile.base.initial_revision)]
    proxy = profile.rpt.thinking.proxy if profile.rpt.thinking is not None else None
    if proxy is not None:
        named.append(("rpt.thinking.proxy.model", proxy.model, proxy.revision))
    for task in (name for name in Profile.model_fields if name.startswith("shard_")):
        tokenizer = getattr(profile, task).tokenizer
        named.append((f"{task}.tokenizer", tokenizer.name, tokenizer.revision))
    found: dict[tuple[str, str | None], str] = {}
    for field, name, revision in named:
        if name is not None and is_hub_id(name):
            found.setdefault((name, revision), field)
    return found


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

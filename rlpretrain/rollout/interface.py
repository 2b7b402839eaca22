"""Who samples: the one small interface that trainers and evaluation know."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict, Unpack

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Rollouts:
    """Continuations by prompt and member of the group, and what the sampler itself says of their tokens."""

    tokens: list[list[list[int]]]
    logprobs: (
        list[list[list[float]]] | None
    )  # at the sampling temperature; None: the sampler computes as the model does


class Sampling(TypedDict):
    """What `RolloutEngine.generate` asks for beside the prompts."""

    group: int
    max_new_tokens: int
    temperature: float
    stop_ids: set[int]
    forbidden_ids: set[int]
    seed: int
    batch: int
    stem: NotRequired[int]
    seeds: NotRequired[Sequence[int] | None]


class RolloutEngine(Protocol):
    """Samples `group` continuations of each prompt, token ids in and out."""

    def use(self, model: PreTrainedModel) -> None:
        """Sample from ``model`` from now on; called again when its weights have changed."""
        ...

    def generate(
        self,
        prompts: list[list[int]],
        *,
        group: int,
        max_new_tokens: int,
        temperature: float,
        stop_ids: set[int],
        forbidden_ids: set[int],
        seed: int,
        batch: int,
        stem: int = 0,
        seeds: Sequence[int] | None = None,
    ) -> list[list[list[int]]]:
        """Continuations by prompt and member of the group; a reached stop id is the continuation's last token.

        ``temperature`` 0 is greedy. ``forbidden_ids`` are never sampled: the policy is the model renormalised over the
        rest. ``batch`` bounds the sequences decoded together. The last ``stem`` tokens of a prompt
        are its own: without them it may be a prefix of other prompts (places in one document), which share its computation. The same seed gives the same tokens on the CPU.
        ``seeds``, one a prompt, make a prompt's draws independent of the others and of how they are decoded together.
        """
        ...

    def rollout(self, prompts: list[list[int]], **sampling: Unpack[Sampling]) -> Rollouts:
        """`generate`, for a trainer: with the sampler's own log-probabilities where they may differ from the model's."""
        ...

"""Who samples: the one small interface that trainers and evaluation know."""

from typing import Protocol


class RolloutEngine(Protocol):
    """Samples `group` continuations of each prompt, token ids in and out."""

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
    ) -> list[list[list[int]]]:
        """Continuations by prompt and member of the group; a reached stop id is the continuation's last token.

        ``temperature`` 0 is greedy. ``forbidden_ids`` are never sampled: the policy is the model renormalised over the
        rest. ``batch`` bounds the sequences decoded together. The same seed gives the same tokens on the CPU.
        """
        ...

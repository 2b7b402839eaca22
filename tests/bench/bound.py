"""The FLOP bound of a step: what is left when nothing is computed twice and nothing unread is computed.

2N a token forward and 6N a trained one, N the parameters without the embedding; the LM head, 2VD forward and 6VD trained, only
where it is read. A document is computed once in each of rollout, update and teacher, whatever hangs on it. A thought's
last token is predicted but never fed back. Attention's own products and the delimiters are left out: they are small here, and
leaving them out only makes the bound harder to reach.
"""

from dataclasses import dataclass

from tests.bench.shapes import Shape


@dataclass(frozen=True)
class Bound:
    """Floating-point operations of one step, by phase."""

    rollout: float
    update: float  # the scored forward and its backward
    teacher: float

    @property
    def total(self) -> float:
        return self.rollout + self.update + self.teacher


def step_bound(shape: Shape) -> Bound:
    """The bound of one RLP step of ``shape``."""
    token = 2 * shape.parameters
    head = 2 * shape.vocabulary * shape.width
    fed = shape.trunk_tokens + shape.thoughts * (shape.thought - 1)
    read = shape.thoughts * shape.thought
    return Bound(
        rollout=fed * token + read * head,
        update=3 * (fed * token + read * head) + shape.thoughts * head,  # S_pred reads once more, without gradient
        teacher=shape.trunk_tokens * token + shape.contexts * head,
    )


def likelihood_bound(shape: Shape) -> float:
    """The bound of one SFT step on as many trained tokens."""
    return 6 * shape.tokens * (shape.parameters + shape.vocabulary * shape.width)

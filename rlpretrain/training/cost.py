"""What a training took, out of its metrics: tokens read and sampled, and FLOPs, so that arms can be compared fairly.

FLOPs are counted the same way for every objective: 2 a parameter and token forward, 4 backward. Attention over long
contexts, activations computed again in the backward pass, the warm-up's own sampling, RPT's proxy and the reference of a KL
penalty are left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def training_cost(
    objective: str, parameters: int, group: int, shares_prefix: bool, metrics: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Steps, tokens and FLOPs of a checkpoint's own training. ``metrics``: its metrics.jsonl, a step a row.

    ``group``: thoughts a place; where the architecture does not share a prefix, a context is trained on once for each.
    """
    rows = [row for row in metrics if "data/read" in row]
    read, sampled = (sum(row.get(name, 0) for row in rows) for name in ("data/read", "data/sampled"))
    trained = read + sampled
    flops = 6 * parameters * trained
    if sampled:
        trained = read * (1 if shares_prefix else group) + sampled
        passes = 6 * trained + 2 * (read + sampled)  # the update; reading the contexts and sampling after them
        if objective == "rlp":
            passes += 2 * read  # the EMA teacher
        flops = parameters * passes
    return {
        "objective": objective,
        "parameters": parameters,
        "steps": len(rows),
        "read": read,
        "sampled": sampled,
        "trained": trained,
        "flops": float(flops),
    }

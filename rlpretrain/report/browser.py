"""The thought browser's rows: what every arm thought at the same held-out positions."""

from collections.abc import Mapping
from typing import Any

from rlpretrain.report.evaluations import ARMS, Key, Pooled
from rlpretrain.report.results import HeldOutPosition, Thought

CONTEXT_SHOWN = 400  # characters of a context, its end
THOUGHT_SHOWN = 1200  # characters of a thought, its beginning
_OWN = ("length", "cut_off", "logprob_with", "logprob_without", "gain", "mean_gain")


def held_out_positions(pooled: Mapping[Key, Pooled]) -> list[HeldOutPosition]:
    """The positions at which every arm of the first run kept a thought after pretraining, in the text's order."""
    kept = {
        arm: {(row["document"], row["position"]): row for row in pooled[arm, "pretrained"].parts[0].thoughts}
        for arm in ARMS
        if (arm, "pretrained") in pooled
    }
    kept = {arm: rows for arm, rows in kept.items() if rows}
    if not kept:
        return []
    first = next(iter(kept.values()))
    places = [place for place in first if all(place in rows for rows in kept.values())]
    return [held_out_position({arm: rows[place] for arm, rows in kept.items()}) for place in places]


def held_out_position(rows: Mapping[str, Mapping[str, Any]]) -> HeldOutPosition:
    """One place out of every arm's line of thoughts.jsonl there."""
    row = next(iter(rows.values()))
    return HeldOutPosition(
        position=row["position"],
        document=row["document"],
        context=("…" if len(row["context"]) > CONTEXT_SHOWN else "") + row["context"][-CONTEXT_SHOWN:],
        offset=row["offset"],
        next_token=row["next_token"],
        kind=row["kind"],
        thoughts=[_thought(arm, its_row) for arm, its_row in rows.items()],
    )


def _thought(arm: str, row: Mapping[str, Any]) -> Thought:
    cut = "…" if len(row["thought"]) > THOUGHT_SHOWN else ""
    return Thought(arm=arm, thought=row["thought"][:THOUGHT_SHOWN] + cut, **{name: row[name] for name in _OWN})

"""The arms of a reproduction: what is compared, and the settings of those that follow from another arm's.

base       the model that every arm starts from
cpt        continued pretraining on the same documents
cpt_flops  continued pretraining for as much compute as RLP takes, by the paper's rule
rlp        thoughts rewarded by information gain
rpt        thoughts rewarded by a right prediction, at positions of high entropy (arXiv 2506.08007)
"""

import copy
from collections.abc import Callable
from typing import Any

from rlpretrain.errors import UserError
from rlpretrain.report.evaluations import ARMS
from rlpretrain.settings import PretrainSettings, ThinkingSettings, parse_settings

DEFAULT_ARMS = ("base", "cpt", "rlp")
Values = dict[str, Any]  # a profile's settings as they stand in its file


def parse_arms(text: str) -> tuple[str, ...]:
    """Arms named with commas between them, or `all`, in the order of ARMS; UserError for unknown ones or fewer than two."""
    named = set(ARMS if text == "all" else (name.strip() for name in text.split(",")))
    unknown = sorted(named - set(ARMS))
    if unknown:
        raise UserError(f"--arms: unknown arm '{unknown[0]}'; known: {', '.join(ARMS)}, or all")
    if len(named) < 2:
        raise UserError("--arms: a comparison needs at least two arms, for example base,rlp")
    return tuple(arm for arm in ARMS if arm in named)


def equal_compute_tokens(thinking: ThinkingSettings) -> int:
    """Tokens of CPT that cost as much as RLP, by the paper's rule: T_flop = n * l_seq * bs * iters + T_inp.

    Contexts and thoughts are counted at their longest, and a generated token like a trained one: an upper bound.
    """
    from rlpretrain.objectives import (
        flop_matched_tokens,  # torch takes seconds: after the mistakes that need none of it
    )

    contexts = thinking.batch_contexts * thinking.positions
    longest = thinking.max_context + thinking.thought.budget
    read = contexts * thinking.max_context * thinking.steps
    return flop_matched_tokens(thinking.group, longest, contexts, thinking.steps, read)


def _cpt_flops(values: Values) -> Values:
    """CPT's settings with as many steps as RLP's compute allows; a sequence is counted at its longest, as RLP's are."""
    thinking = parse_settings(PretrainSettings, values["rlp"], "rlp").thinking
    likelihood = parse_settings(PretrainSettings, values["cpt"], "cpt").likelihood
    assert thinking is not None and likelihood is not None
    steps = -(-equal_compute_tokens(thinking) // (likelihood.batch_documents * likelihood.sequence_length))
    return {**values["cpt"], "likelihood": {**values["cpt"]["likelihood"], "steps": steps}}


def _rpt(values: Values) -> Values:
    """RLP's settings with RPT's reward and positions."""
    settings = copy.deepcopy(values["rlp"])
    settings["objective"] = "rpt"
    settings["thinking"].setdefault("proxy", {})
    return settings


DERIVED: dict[str, tuple[str, Callable[[Values], Values]]] = {"cpt_flops": ("cpt", _cpt_flops), "rpt": ("rlp", _rpt)}


def add_derived_arms(values: Values) -> None:
    """Complete a profile's settings by the arms that follow from others, where it holds none of their own."""
    for arm, (source, derive) in DERIVED.items():
        if arm in values:
            continue
        try:
            values[arm] = derive(values)
        except (UserError, KeyError, TypeError, AttributeError):
            values[arm] = values.get(source)  # what is wrong with the source is told where the profile is validated

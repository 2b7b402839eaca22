"""The arms of a reproduction: what is compared, and the settings of those that follow from another arm's.

base       the model that every arm starts from
cpt        continued pretraining on the same documents
cpt_flops  continued pretraining for as much compute as RLP takes, by the paper's rule
rlp        thoughts rewarded by information gain
rpt        thoughts rewarded by a right prediction, at positions of high entropy (arXiv 2506.08007)
"""

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


def merged(below: Values, above: Values) -> Values:
    """``below`` with the values of ``above``, mapping by mapping; lists are replaced whole."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def _cpt_flops(values: Values, own: Values) -> Values:
    """CPT's settings with as many steps as RLP's compute allows; a sequence is counted at its longest, as RLP's are."""
    settings = merged(values["cpt"], own)
    thinking = parse_settings(PretrainSettings, values["rlp"], "rlp").thinking
    likelihood = parse_settings(PretrainSettings, settings, "cpt_flops").likelihood
    if thinking is None or likelihood is None:
        return settings  # whose objective is another arm's
    steps = -(-equal_compute_tokens(thinking) // (likelihood.batch_documents * likelihood.sequence_length))
    return merged(merged(settings, {"likelihood": {"steps": steps}}), own)


def _rpt(values: Values, own: Values) -> Values:
    """RLP's settings with RPT's reward and positions."""
    settings = merged({"thinking": {"proxy": {}}}, values["rlp"])
    return merged(merged(settings, {"objective": "rpt"}), own)


Derive = Callable[[Values, Values], Values]  # from all values and the arm's own
DERIVED: dict[str, tuple[str, Derive]] = {"cpt_flops": ("cpt", _cpt_flops), "rpt": ("rlp", _rpt)}


def add_derived_arms(values: Values) -> None:
    """Complete a profile's settings by those of the arms that follow from others; what it says of such an arm goes over them."""
    for arm, (source, derive) in DERIVED.items():
        own = {} if values.get(arm) is None else values[arm]
        try:
            values[arm] = derive(values, own)
        except (UserError, KeyError, TypeError, AttributeError):
            # What is wrong, with the source or the arm's own, is told where the profile is validated.
            below = values.get(source)
            values[arm] = merged(below, own) if isinstance(below, dict) and isinstance(own, dict) else own or below

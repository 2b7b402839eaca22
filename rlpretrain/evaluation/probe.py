"""Does thinking help a model on a text? Places spread over the text, thoughts at each, the next token with and without."""

import math
import time
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import Example
from rlpretrain.evaluation.positions import Measured, measure, spread_evenly
from rlpretrain.scoring import Position
from rlpretrain.settings import ProbeSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.training.checkpoints import check_lengths
from rlpretrain.training.loop import derived_seed, numpy_random
from rlpretrain.training.rewards import random_positions


def probe_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: ProbeSettings,
    told: Callable[[int, int, float], None],
) -> list[Measured]:
    """Measure at ``settings.places`` random places of ``examples``; fewer where the text has fewer tokens.

    ``told`` is called after every part with the places done, their number, and the seconds left.
    """
    form = ThoughtFormat.build(settings.thought, tokenizer)
    check_lengths(model, form, settings)
    positions = choose_places(examples, settings, tokenizer.eos_token_id)
    part = max(1, settings.batch // settings.group)
    measured: list[Measured] = []
    started = time.perf_counter()
    for start in range(0, len(positions), part):
        seed = derived_seed(settings.seed, "probe", start)
        measured += measure(model, tokenizer, form, positions[start : start + part], settings, seed)
        done = len(measured)
        told(done, len(positions), (time.perf_counter() - started) / done * (len(positions) - done))
    return measured


def choose_places(examples: Sequence[Example], settings: ProbeSettings, eos: int | None) -> list[Position]:
    """Random places, equally many a document where its length allows it, in the documents' order."""
    random = numpy_random(settings.seed, "probe places")
    each = math.ceil(settings.places / len(examples))
    found = [p for e in examples for p in random_positions(e, each, settings.max_context, eos, random)]
    return [found[index] for index in spread_evenly(len(found), settings.places)]

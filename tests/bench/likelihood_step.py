"""An SFT step on as many trained tokens as the shape's RLP step: trunk and thoughts, packed into rows of a document's length."""

import numpy as np

from rlpretrain.models import use_fast_layers
from rlpretrain.training.likelihood import Segment, accumulate
from rlpretrain.training.loop import Optimization, checkpoint_activations
from rlpretrain.training.precision import MixedPrecision, compute_dtype
from tests.bench.clock import Clock
from tests.bench.material import OPTIMIZER, documents_of, model_of, tokenizer_of
from tests.bench.shapes import Shape


def likelihood_steps(shape: Shape, dtype: str, count: int) -> list[dict[str, float]]:
    """Seconds by phase of ``count`` updates of `train_likelihood`'s kind."""
    model = model_of(shape, tokenizer_of(shape))
    use_fast_layers(model)
    precision = MixedPrecision(model, compute_dtype(dtype, model.device))
    checkpoint_activations(precision.compute)  # as the thinking step it stands beside
    rows = -(-shape.tokens // shape.length)
    tokens = np.concatenate(documents_of(shape, rows, shape.length))[: shape.tokens]
    segments = [
        Segment(part, np.arange(len(part)) > 0)
        for part in np.split(tokens, range(shape.length, len(tokens), shape.length))
    ]
    optimization = Optimization(model, OPTIMIZER, count)
    clock = Clock()
    steps = []
    for _ in range(count):
        with clock.span("update"):
            accumulate(precision, segments, max(1, len(segments) // shape.documents))
            optimization.clip()
            optimization.step()
            precision.refresh()
        steps.append(clock.take())
    return steps

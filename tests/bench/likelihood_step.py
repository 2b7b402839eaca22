"""An SFT step on as many trained tokens as the shape's RLP step: trunk and thoughts, packed into rows of a document's length."""

import numpy as np

from rlpretrain.training.likelihood import Segment, accumulate
from rlpretrain.training.loop import Optimization
from tests.bench.clock import Clock
from tests.bench.material import OPTIMIZER, documents_of, model_of, tokenizer_of
from tests.bench.shapes import Shape


def likelihood_steps(shape: Shape, dtype: str, count: int) -> list[dict[str, float]]:
    """Seconds by phase of ``count`` updates of `train_likelihood`'s kind."""
    assert dtype == "float32", "the likelihood trainer computes in the weights' dtype"
    model = model_of(shape, tokenizer_of(shape))
    rows = -(-shape.tokens // shape.length)
    tokens = np.concatenate(documents_of(shape, rows, shape.length))[: shape.tokens]
    segments = [
        Segment(part, np.arange(len(part)) > 0)
        for part in np.split(tokens, range(shape.length, len(tokens), shape.length))
    ]
    optimization = Optimization(model, OPTIMIZER, count)
    model.train()
    clock = Clock()
    steps = []
    for _ in range(count):
        with clock.span("update"):
            accumulate(model, segments, len(segments))
            optimization.step()
        steps.append(clock.take())
    return steps

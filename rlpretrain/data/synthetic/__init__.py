"""The small profile's corpus, its post-training data and its eight benchmarks, procedurally generated."""

from rlpretrain.data.synthetic.generators import GENERATORS
from rlpretrain.data.synthetic.problems import BENCHMARKS

__all__ = ["BENCHMARKS", "GENERATORS"]

"""What a snapshot costs: seconds and bytes for the small reproduction's model and for one of SmolLM2-135M's shape.

    python -m tests.bench.snapshot

Also the share of a training's time that the default interval of ten minutes makes of it, and what every step pays.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from rlpretrain.artifacts import Origin
from rlpretrain.models import new_model
from rlpretrain.settings import ArchitectureSettings, OptimizerSettings, SnapshotSettings
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.loop import Optimization
from rlpretrain.training.randomness import random_states
from rlpretrain.training.snapshots import MODEL, OPTIMIZER, Snapshots, snapshot_name

SHAPES = {
    "mini": ArchitectureSettings(),
    "smollm2-135m": ArchitectureSettings(
        layers=30, width=576, heads=9, key_value_heads=3, feed_forward=1536, vocabulary=49152, max_positions=8192
    ),
}
REPEATS = 5


def main() -> None:
    """Print a line a shape."""
    for name, shape in SHAPES.items():
        model = new_model(shape, load_tokenizer("builtin:characters"), 0)
        optimization = Optimization(model, OptimizerSettings(), 1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimization.step()
        with tempfile.TemporaryDirectory() as folder:
            snapshots = Snapshots(Path(folder), Origin("checkpoint", {}, {}), SnapshotSettings())
            seconds = []
            for number in range(REPEATS):
                start = time.perf_counter()
                groups = {MODEL: model.named_parameters(), OPTIMIZER: optimization.state()}
                snapshots.save(snapshot_name(0, number), {"score": None}, "{}", [], groups)
                seconds.append(time.perf_counter() - start)
            size = sum(path.stat().st_size for path in (Path(folder) / snapshot_name(0, number)).iterdir())
        share = median(seconds) / 600
        print(f"{name}: {median(seconds):.2f} s, {size / 2**20:.0f} MiB, {100 * share:.2f}% of ten minutes")
    start = time.perf_counter()
    for _ in range(1000):
        random_states()
    print(f"every step: {time.perf_counter() - start:.2f} ms")


if __name__ == "__main__":
    main()

"""One measurement in a process of its own: a contender takes a few steps, the last ones count, and JSON goes to stdout.

python -m tests.bench.worker SHAPE CONTENDER DTYPE --threads 2 --warmup 1 --steps 1
"""

import argparse
import contextlib
import importlib
import json
import os
import resource
import sys

# Before any import of the libraries, which read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from rlpretrain.memory import keep_freed_memory
from tests.bench.plan import CONTENDERS, DTYPES
from tests.bench.rate import matmul_rate
from tests.bench.shapes import SHAPES


def measure(shape: str, contender: str, dtype: str, warmup: int, steps: int) -> dict[str, object]:
    """Seconds by phase of the last ``steps`` steps, and the process's peak memory."""
    module, function = CONTENDERS[contender]
    run = getattr(importlib.import_module(f"tests.bench.{module}"), function)
    imports = _peak_bytes()
    taken = run(SHAPES[shape], dtype, warmup + steps)
    return {"steps": taken[warmup:], "imports_bytes": imports, "peak_bytes": _peak_bytes()}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("dtype", choices=DTYPES)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1)
    given = parser.parse_args()
    keep_freed_memory()  # for all contenders alike
    torch.set_num_threads(given.threads)
    with contextlib.redirect_stdout(sys.stderr):  # what the libraries print is no result
        measured = measure(given.shape, given.contender, given.dtype, given.warmup, given.steps)
    print(json.dumps({**measured, "flops_per_second": matmul_rate(given.dtype)}))


if __name__ == "__main__":
    main()

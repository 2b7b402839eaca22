"""How fast this machine multiplies matrices, in operations a second: what turns the FLOP bound into seconds."""

import time
from statistics import median

import torch

SIZE = 3072  # large enough that memory does not matter
REPEATS = 5


def matmul_rate(dtype: str) -> float:
    """Operations a second of a square product, the median of several."""
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE, generator=random).to(getattr(torch, dtype)) for _ in range(2))
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / median(seconds[1:])

"""The state of every random stream that a training may draw from, as JSON."""

import random
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """Of Python, numpy, torch and, where there is one, this process's GPU."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)
    states = {
        "python": [version, list(words), gauss],
        "numpy": {**legacy, "state": {**legacy["state"], "key": legacy["state"]["key"].tolist()}},
        "torch": _hex(torch.get_rng_state()),
    }
    return states | ({"cuda": _hex(torch.cuda.get_rng_state())} if torch.cuda.is_available() else {})


def restore_random_states(states: dict[str, Any]) -> None:
    """Go on where `random_states` was asked."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(states["numpy"])
    torch.set_rng_state(_bytes(states["torch"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(states["cuda"]))


def _hex(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)

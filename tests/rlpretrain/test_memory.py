"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import psutil, torch
from rlpretrain.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
resident = psutil.Process().memory_info
before = resident().rss
tensor = torch.ones(6 * 2**20)  # 24 MiB
del tensor
print((resident().rss - before) / 2**20)
"""


def kept_mebibytes(keep: bool) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(keep=keep)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_the_pages_of_a_freed_tensor_are_kept() -> None:
    assert kept_mebibytes(keep=False) < 12 < kept_mebibytes(keep=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_they_are_given_back_now_and_then() -> None:
    program = """
import psutil, torch
from rlpretrain import memory
memory.keep_freed_memory()
tensors = [torch.ones(2**20) for _ in range(64)]  # 4 MiB each
del tensors[::2]
resident = psutil.Process().memory_info
before = resident().rss
trim = memory.Trimmer()
trim()
soon = resident().rss
memory.TRIM_SECONDS = 0
trim()
print((before - soon) / 2**20, (before - resident().rss) / 2**20)
"""
    command = [sys.executable, "-c", program]
    soon, later = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert float(soon) < 12 < 100 < float(later)

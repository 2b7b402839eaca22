"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, torch
from rlpretrain.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
for turn in range(40):
    if turn == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each, 8,192 pages together
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    command = [sys.executable, "-c", _PROGRAM.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_tensors_take_the_pages_of_those_before() -> None:
    assert page_faults(keep=True) < 0.2 * page_faults(keep=False)

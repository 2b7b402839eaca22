"""How often a task is tried again, and after how long.

A pod dies for reasons of its node more often than of its own: one that holds GPUs for days is tried often, and waits for
the node to come back; sharding is short. The comparison is seconds of arithmetic on what is there already:
where it breaks once it breaks again. Nothing is tried again on one machine, where a failure repeats itself.
"""

from dataclasses import dataclass
from typing import Any

SPOT_FACTOR = 3  # retries on nodes that may be taken back, over those on others


@dataclass(frozen=True)
class RetryPolicy:
    """Tries after the first one; seconds before the next, doubled each time up to the longest."""

    retries: int
    wait: int
    longest: int
    factor: int = 2

    def times(self, spot: bool) -> int:
        """Retries on a pool."""
        return self.retries * (SPOT_FACTOR if spot else 1)

    def apply(self, task: Any, spot: bool) -> None:
        """Tell Kubeflow; nothing to tell where there are no retries."""
        if self.retries:
            task.set_retry(self.times(spot), f"{self.wait}s", float(self.factor), f"{self.longest}s")


_GPU = RetryPolicy(retries=3, wait=120, longest=3600)
_SHORT = RetryPolicy(retries=2, wait=60, longest=600)
_NEVER = RetryPolicy(retries=0, wait=0, longest=0)
RETRIES = {
    "shard_benchmarks": _SHORT,
    "shard_data": _SHORT,
    "train_base": _GPU,
    "pretrain": _GPU,
    "finetune": _GPU,
    "reinforce": _GPU,
    "evaluate": _GPU,
    "compare": _NEVER,
    "shard_point": _SHORT,
    "pretrain_point": _GPU,
    "evaluate_point": _GPU,
    "ablate": _NEVER,
    "report_status": RetryPolicy(retries=2, wait=30, longest=60),
}

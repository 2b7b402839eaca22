"""What the frame does around a stage that trains: snapshots, several processes, several nodes. Such a stage names `TRAINING`.

It stands apart from the frame so that images whose stages do not train need neither torch nor Kubernetes' client.
"""

import os
from pathlib import Path
from typing import Any

from components.processes import launch, processes, under_torchrun
from components.trainjob import run_as_train_job, wanted
from rlpretrain.artifacts import SNAPSHOTS, Manifest, Origin
from rlpretrain.training.snapshots import Snapshots
from rlpretrain.training.world import join


class Training:
    """See the module."""

    def snapshots(self, settings: Any, origin: Origin, output: Path, uri: str) -> Snapshots:
        """Where the stage saves itself, and goes on from."""
        return Snapshots(output / SNAPSHOTS, origin, settings.snapshots, uri)

    def assists(self) -> bool:
        """Whether this process trains along with another, which does everything else."""
        return int(os.environ.get("RANK", 0)) > 0

    def told(self, value: bool) -> bool:
        """The first process's value, where torchrun started several."""
        return bool(join().told(value)) if under_torchrun() else value

    def wait_for_all(self) -> None:
        """Until every process has come here."""
        if under_torchrun():
            join().most(0)

    def elsewhere(
        self, name: str, origin: Origin, inputs: dict[str, Path], output: Path, publish_uri: str, checkpoint_uri: str
    ) -> Manifest | None:
        """Train by other processes: on the nodes that RLP_TRAINJOB asks for, or one for each GPU here.

        None where this process trains, alone or as one of several.
        """
        if under_torchrun():
            return None
        if (job := wanted()) is not None:
            return run_as_train_job(name, origin, inputs, output, publish_uri, checkpoint_uri, job)
        if processes() > 1:
            return launch(name, origin.settings, inputs, output, publish_uri, checkpoint_uri)
        return None


TRAINING = Training()

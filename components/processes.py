"""One process for each GPU of this machine: a stage that trains is started again under torchrun.

RLP_PROCESSES says how many instead, also without GPUs. SIGTERM and Ctrl-C are handed on, so that the processes save themselves.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rlpretrain.artifacts import Manifest, read_manifest
from rlpretrain.errors import UserError

COUNT = "RLP_PROCESSES"
GRACE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # torchrun's: seconds from SIGTERM to SIGKILL
GRACE_SECONDS = 120


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def processes() -> int:
    """How many processes train on this machine."""
    given = os.environ.get(COUNT)
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise UserError(f"{COUNT}: '{given}' is no number of processes; give 1 or more")
        return int(given)
    import torch

    return max(1, torch.cuda.device_count())


def launch(
    name: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Path],
    output: Path,
    publish_uri: str,
    checkpoint_uri: str,
) -> Manifest:
    """The stage's shell form under torchrun, from start to end; SystemExit with a code other than 0 when it failed."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "settings.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes()}"]
        # Ctrl-C in a terminal reaches every process: torchrun, which ignores it, hears of it from this one.
        command += ["--signals-to-handle=SIGTERM,SIGHUP,SIGQUIT"]
        command += ["-m", f"components.{name}", "--settings", str(file), "--output", str(output)]
        command += [word for key, path in inputs.items() for word in ("--input", f"{key}={path}")]
        command += [
            word
            for flag, uri in (("--publish", publish_uri), ("--checkpoints", checkpoint_uri))
            if uri
            for word in (flag, uri)
        ]
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # which torchrun inherits
        child = subprocess.Popen(command, env={GRACE: str(GRACE_SECONDS), **os.environ})
        stopped = False

        def hand_on(number: int, frame: FrameType | None) -> None:
            nonlocal stopped
            if not stopped:  # a second signal would cut short what the first has begun
                child.send_signal(signal.SIGTERM)
            stopped = True

        for number in before:
            signal.signal(number, hand_on)
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            child.kill()
    if stopped:
        raise SystemExit(128 + signal.SIGTERM)
    if code:
        raise SystemExit(code)
    return read_manifest(output)

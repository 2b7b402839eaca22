"""The benchmark of a step, as a command. Every measurement is a process of its own, so that peak memory is a contender's own.

    python -m tests.bench.step --json bench.json [--shape smollm2 ...] [--contender ours ...] [--dtype float32 ...]

Rounds go over all cases before any is repeated (A B A B), so that what else the machine does hits all alike.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from rlpretrain.errors import UserError
from tests.bench.bound import step_bound
from tests.bench.plan import CONTENDERS, DTYPES, WARMUP, Case, Sample, planned
from tests.bench.report import as_json, growth, matmul_rates, show, summarise
from tests.bench.shapes import SHAPES

LIBRARIES = ("torch", "transformers", "trl", "accelerate")
ROOT = Path(__file__).parents[2]
PROCESSORS = Path("/proc/stat")
BUSY_CORES = 0.1  # of other processes, from which on a measurement is called disturbed


def sample(case: Case, threads: int, warmup: int, steps: int) -> Sample:
    """Measure ``case`` once, in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.worker", case.shape, case.contender, case.dtype]
    command += [f"--threads={threads}", f"--warmup={warmup}", f"--steps={steps}"]
    start, machine, own = time.perf_counter(), _busy_seconds(), _child_seconds()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    elapsed, own = time.perf_counter() - start, _child_seconds() - own
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        raise RuntimeError(f"the measurement of {case} failed; its output stands above")
    others = None if machine is None else max(0.0, (_busy_seconds() or 0.0) - machine - own) / elapsed
    return Sample(case=case, others=others, **json.loads(done.stdout.splitlines()[-1]))


def _warmup(case: Case, given: int | None) -> int:
    return WARMUP[case.contender] if given is None else given


def _busy_seconds() -> float | None:
    """Processor seconds that the machine has spent working since it started, where Linux tells."""
    if not PROCESSORS.exists():
        return None
    user, nice, system = map(int, PROCESSORS.read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def record(samples: list[Sample], options: dict[str, object]) -> dict[str, object]:
    """Everything that a run found, for JSON."""
    rows = summarise(samples)
    return {
        "options": options,
        "machine": _machine(),
        "matmul_flops_per_second": matmul_rates(samples),
        "shapes": {
            name: {**asdict(SHAPES[name]), "bound_flop": asdict(step_bound(SHAPES[name]))}
            for name in dict.fromkeys(row.case.shape for row in rows)
        },
        "cases": as_json(rows),
        "growth": growth(rows),
        "samples": [asdict(one) for one in samples],
    }


def _machine() -> dict[str, object]:
    installed = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    return {
        "processor": _processor("model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in installed},
    }


def _processor(field: str) -> str:
    """What Linux says of the first processor; empty where nothing is said."""
    processors = Path("/proc/cpuinfo")
    lines = processors.read_text().splitlines() if processors.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.step", description="Benchmark of a step")
    parser.add_argument("--json", type=Path, required=True, help="file that the results are written to")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the table shows medians")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, help="default: all but tiny")
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, help="default: all that the shape is meant for")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, help="default: float32, and bfloat16 for ours")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--warmup", type=int, help="steps of a process that do not count; default: 2 for ours, 1 for slow ones"
    )
    parser.add_argument("--steps", type=int, default=1, help="steps of a process that count")
    return parser.parse_args()


def run(given: argparse.Namespace) -> None:
    """Measure all cases in rounds; the JSON is written anew after each round."""
    for name in ("repeat", "threads", "steps"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name} must be at least 1")
    cases = planned(given.shape, given.contender, given.dtype, "_bf16" in _processor("flags"))
    if any(case.contender.startswith("trl") for case in cases) and not importlib.util.find_spec("trl"):
        raise UserError("TRL is not installed; run `pip install 'trl>=1.16,<2'`, or name others with --contender")
    options = {name: str(value) if name == "json" else value for name, value in vars(given).items()}
    samples: list[Sample] = []
    for turn in range(given.repeat):
        for number, case in enumerate(cases, start=1):
            samples.append(one := sample(case, given.threads, _warmup(case, given.warmup), given.steps))
            text = f"round {turn + 1}/{given.repeat}, {number}/{len(cases)}: {case}: {one.seconds:.2f} s a step"
            if one.others is not None and one.others > BUSY_CORES:
                text += f", disturbed: other processes kept {one.others:.1f} cores busy"
            print(text, file=sys.stderr, flush=True)
        given.json.write_text(json.dumps(record(samples, options), indent=1) + "\n", encoding="utf-8")
    show(samples, Console(width=None if sys.stdout.isatty() else 200))


def main() -> int:
    try:
        run(_arguments())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

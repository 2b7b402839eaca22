"""A run on a terminal: what the view shows of recorded lines, and a real run on a pseudo-terminal, stopped by Ctrl-C."""

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from pipelines.live import LiveView, duration
from pipelines.profile import load_profile
from pipelines.progress import Progress
from pipelines.reproduction import reproduction, task_names
from rlpretrain.s3server import EmbeddedS3

NAMES = {
    "shard-data": "shard-corpus",
    "train-base": "train-base",
    "pretrain-2": "pretrain-rlp",
    "evaluate-5": "evaluate-rlp-pretrained",
}
STEP = "    rlp: step 12/30, 1.02 steps/s, 18 s left, reward/gain -0.134, thought/length 7.1, thought/cut_off 0.125\n"


class Recorded:
    """A view on a console of fixed size whose clock moves when told."""

    def __init__(self, width: int = 100, height: int = 30, names: dict[str, str] = NAMES) -> None:
        self.now = 0.0
        self.console = Console(width=width, height=height, record=True, file=io.StringIO())
        self.view = LiveView("first", Progress(names, clock=lambda: self.now), self.console)

    def run(self, key: str, seconds: float, status: str | None = "SUCCESS", says: str = "") -> None:
        self.view.line(f"12:00:00.000 - INFO - Executing task '{key}'\n")
        self.now += seconds
        for line in says.splitlines():
            self.view.line(line)
        if status:
            self.view.line(f"12:00:00.000 - INFO - Task '{key}' finished with status {status}\n")

    def drawn(self) -> list[str]:
        self.console.print(self.view)
        return [line.rstrip() for line in self.console.export_text().splitlines()]


def test_every_task_has_its_state_and_time() -> None:
    run = Recorded(width=60)
    run.run("shard-data", 1.26)
    run.run("train-base", 192)
    run.run("pretrain-2", 41, None)
    heading, *tasks = run.drawn()[:5]
    assert heading == "first  2 of 4 tasks, 3:54 min"
    assert tasks == [
        "✓ shard-corpus               1.3 s",
        "✓ train-base              3:12 min",
        "● pretrain-rlp              41.0 s",
        "· evaluate-rlp-pretrained",
    ]


def test_the_training_at_hand_has_its_progress_rate_and_time_left_and_figures_stay() -> None:
    run = Recorded()
    run.run("train-base", 9, says="base: step 3/3, 2.62 steps/s, 0 s left, loss/nll 5.026")
    run.run("pretrain-2", 41, None, STEP)
    run.now += 3
    *_, training, figures = run.drawn()
    assert training.startswith("rlp: step 12/30  ━") and training.endswith("1.02 steps/s, 15 s left")
    assert figures == "gain -0.134 nats   loss 5.026 nats (base)   thoughts 7.1 tokens   cut off 12%"
    run.view.line("Task 'pretrain-2' finished with status SUCCESS")
    *_, training, figures = run.drawn()
    assert training == "" and figures.startswith("gain -0.134 nats (rlp)")


def test_a_figure_that_is_no_number_is_shown_as_it_is() -> None:
    run = Recorded()
    run.run("pretrain-2", 1, None, "rlp: step 1/3, 1.00 steps/s, 2 s left, loss/nll nan, reward/gain 1e-05")
    assert run.drawn()[-1] == "gain +0.000 nats   loss nan nats"


def test_a_task_in_a_loop_is_one_line_with_its_number() -> None:
    run = Recorded()
    run.run("pretrain-2", 10)
    run.run("pretrain-2", 20, says="point: group 4")
    run.run("pretrain-2", 5, None, STEP)
    lines = run.drawn()
    assert any("● pretrain-rlp x3" in line and "35.0 s" in line for line in lines)
    assert any(line.startswith("group 4 rlp: step 12/30") for line in lines)


def test_a_small_terminal_shows_what_runs() -> None:
    names = task_names(reproduction("tiny", load_profile("tiny")))
    for running in names:
        run = Recorded(width=44, height=14, names=names)
        run.run(running, 1, None, STEP)
        lines = run.drawn()
        assert len(lines) < 14 and all(len(line) <= 44 for line in lines)
        assert sum(line.startswith(f"● {names[running]} ") for line in lines) == 1


def test_tasks_stand_in_an_order_that_they_can_run_in() -> None:
    order = list(task_names(reproduction("tiny", load_profile("tiny"))).values())
    assert order[0] == "shard-benchmarks" and order[-2:] == ["compare", "report-status"]
    for before, after in (("train-base", "pretrain-rlp"), ("pretrain-rlp", "sft-rlp"), ("sft-rlp", "evaluate-rlp-sft")):
        assert order.index(before) < order.index(after)


def test_the_end_leaves_every_task_and_the_cursor() -> None:
    console = Console(width=60, height=8, force_terminal=True, file=io.StringIO())
    view = LiveView("first", Progress(NAMES), console)
    with pytest.raises(ValueError), view:
        for key in ("shard-data", "train-base"):
            view.line(f"Executing task '{key}'")
        view.line("Task 'shard-data' finished with status FAILURE")
        raise ValueError
    drawn, _, said = console.file.getvalue().rpartition("\x1b[?25h")
    assert "\x1b[?25l" in drawn
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said)
    assert "1 of 4 tasks" in said and "shard-corpus FAILED" in said
    assert re.search(r"✗ shard-corpus +\d", said) and re.search(r"■ train-base +\d", said)
    assert "· evaluate-rlp-pretrained" in said


@pytest.mark.parametrize(
    ("seconds", "said"), [(41.24, "41.2 s"), (59.96, "1:00 min"), (3599.6, "1:00 h"), (7384, "2:03 h")]
)
def test_durations_are_short(seconds: float, said: str) -> None:
    assert duration(seconds) == said


class OnTerminal:
    """The command line on a pseudo-terminal of 30 lines of 100 columns, in a session of its own."""

    def __init__(self, *arguments: str) -> None:
        self.terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_CONTROL, *arguments],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "TERM": "xterm-256color"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self.said = ""

    def until(self, words: str | None, seconds: float = 240.0) -> str:
        """Read until the words were said, or to the end."""
        deadline = time.monotonic() + seconds
        while words is None or words not in self.said:
            assert time.monotonic() < deadline, self.said
            if not select.select([self.terminal], [], [], 0.5)[0]:
                continue
            try:
                self.said += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:  # what Linux says at the end of a pseudo-terminal
                assert words is None, self.said
                break
        return self.said


# The terminal of standard input becomes the session's own, so that its Ctrl-C reaches every process of the run.
# Ctrl-C does what it does in a shell's foreground, also where the tests run in the background.
_IN_CONTROL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "pipelines", *sys.argv[1:]])
"""


@pytest.mark.parametrize("by", ["keyboard", "SIGINT", "SIGTERM"])
def test_ctrl_c_ends_a_live_run_and_says_how_it_goes_on(tmp_path: Path, s3: EmbeddedS3, by: str) -> None:
    run = OnTerminal("run", "--profile", "tiny", "--name", "stopped", "--runs", str(tmp_path))
    try:
        run.until("● shard-benchmarks")
        tasks = psutil.Process(run.process.pid).children(recursive=True)
        if by == "keyboard":
            os.write(run.terminal, b"\x03")
        else:  # of the run's process alone, whose tasks do not get it
            run.process.send_signal(signal.Signals[by])
        said = run.until(None)
        assert run.process.wait(60) == 130
    finally:
        run.process.kill()
        os.close(run.terminal)
    assert "\x1b[?25l" in said and said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l"), "the cursor is shown again"
    assert "■ shard-benchmarks" in said and "0 of 25 tasks" in said
    last = said.strip().splitlines()[-1]
    assert last == f"stopped; go on with: python -m pipelines run --resume stopped --runs {tmp_path}"
    assert "Traceback" not in said
    assert not any(task.is_running() for task in tasks), "a task works on"

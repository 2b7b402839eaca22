"""What a local run shows and keeps of its runner's output."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.progress import Progress, captured, stage_error, tail

NAMES = {"evaluate-5": "evaluate-cpt-sft", "compare": "compare"}


def test_tasks_are_shown_by_the_names_people_know() -> None:
    progress = Progress(NAMES)
    assert progress.line("12:00:00.000 - INFO - Executing task 'evaluate-5'\n") == "[ 1/2] evaluate-cpt-sft"
    finished = progress.line("12:00:01.000 - INFO - Task 'evaluate-5' finished with status SUCCESS\n")
    assert finished is not None and finished.strip().startswith("evaluate-cpt-sft: done in 0.")
    assert progress.line("12:00:00.000 - INFO - Executing task 'compare'\n") == "[ 2/2] compare"
    progress.line("Task 'compare' finished with status FAILURE")
    progress.line("Task 'evaluate-5' finished with status FAILURE")
    assert progress.failed == "compare", "the first is the cause"


def test_training_is_shown_and_the_rest_is_not() -> None:
    progress = Progress(NAMES)
    shown = progress.line("    rlp: step 3/30, 1.0 steps/s, 27 s left, reward/gain 0.1\n")
    assert shown is not None and shown.strip().startswith("rlp: step 3/30")
    assert progress.line('    "settings": {\n') is None


def test_output_of_children_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    script = "import sys; print('\\x1b[95mnoise\\x1b[0m'); print('error: mend it', file=sys.stderr)"
    with captured(log, Progress(NAMES)):
        subprocess.run([sys.executable, "-c", script], check=True)
        subprocess.run([sys.executable, "-c", "print('Executing task \\'compare\\'')"], check=True)
    print("after")
    assert capfd.readouterr().out == "after\n"
    assert "noise\n" in log.read_text() and "\x1b" not in log.read_text()
    assert stage_error(log) == "mend it"
    assert tail(log, 1) == "Executing task 'compare'"


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path: Path) -> None:
    """`run | head -1`."""
    program = tmp_path / "program.py"
    program.write_text(f"""
from pathlib import Path
from pipelines.progress import Progress, captured
with captured(Path({str(tmp_path / "log.txt")!r}), Progress({{}})):
    for number in range(3000):
        print("Executing task 'compare'", flush=True)
""")
    command = f"{sys.executable} {program} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log.txt").read_text().count("\n") == 3000


def test_a_log_without_a_mistake(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("RuntimeError: no error: here\n")
    assert stage_error(log) is None

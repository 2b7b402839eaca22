"""Nothing that lies in storage, and nothing that a stage says, commands the terminal that it is printed on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.report_status.stage import report
from pipelines import __main__ as command_line
from pipelines.local import TaskFailed
from pipelines.progress import Progress, captured, tail
from rlpretrain.artifacts import write_manifest
from rlpretrain.errors import printable
from rlpretrain.report.build import compare_runs
from rlpretrain.settings import CompareSettings
from tests.rlpretrain.report.artifacts import write_evaluation

CLEAR, TITLE = "\x1b[2J", "\x1b]0;owned\x07"
HOSTILE = f"{CLEAR}it{TITLE}\x9b\x7f\r"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run the command line; gives its exit code and what it said, and sees to it that a terminal may show that."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pipelines", *arguments])
        code = command_line.main()
        said = "".join(capfd.readouterr())
        assert all(line.isprintable() for line in said.split("\n"))
        return code, said

    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A place with two runs: ``hostile`` names for itself and all it holds, and one whose comparison was made elsewhere."""
    place = tmp_path / "runs"
    run = place / HOSTILE
    write_artifact(run / HOSTILE, {}, facts={"origins": {HOSTILE: {"dataset": HOSTILE, "revision": HOSTILE}}})
    write_artifact(run / "compare", {HOSTILE: "0" * 64}, settings={"profile": HOSTILE})
    (run / f"stray{HOSTILE}").write_text("of nobody")
    compared = place / "compared"
    evaluations = {
        (arm, "pretrained"): write_evaluation(
            compared / f"evaluate-{arm}-pretrained", arm=arm, stage="pretrained", questions=16, positions=16
        )
        for arm in ("base", "rlp")
    }
    settings = CompareSettings(profile=f"tiny{HOSTILE}", bootstrap_samples=200)
    compare_runs([evaluations], settings, compared / "compare")
    results = json.loads((compared / "compare" / "results.json").read_text())
    for claim in results["claims"]:
        claim |= {"statement": f"said{HOSTILE}", "detail": HOSTILE}
    (compared / "compare" / "results.json").write_text(json.dumps(results))
    write_artifact(compared / "compare", {}, settings=settings.model_dump(mode="json"))
    report("compared", compared.as_uri(), "SUCCEEDED")
    return place


def write_artifact(folder: Path, inputs: dict[str, str], **given: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.bin").write_bytes(b"1")
    write_manifest(folder, kind=f"kind{HOSTILE}", inputs=inputs, seed=0, **{"settings": {}, "facts": {}, **given})


def test_runs_and_show(runs: Path, command: Any) -> None:
    code, said = command("runs", "--artifacts", runs.as_uri())
    assert code == 0 and printable(HOSTILE) in said and "\\x1b[2J" in said and "\\x07" in said
    code, said = command("runs", "--json", "--artifacts", runs.as_uri())
    assert code == 0 and HOSTILE in [run["name"] for run in json.loads(said)]
    code, said = command("show", "compared", "--artifacts", runs.as_uri())
    assert code == 0 and f"profile tiny{printable(HOSTILE)}, seed" in said and f"said{printable(HOSTILE)}" in said
    code, said = command("show", "compared", "--json", "--artifacts", runs.as_uri())
    assert code == 0 and HOSTILE in json.loads(said)["profile"]
    code, said = command("show", "absent", "--artifacts", runs.as_uri())
    assert code == 2 and said.startswith("error: ")


def test_verify_and_gc(runs: Path, command: Any) -> None:
    (runs / HOSTILE / HOSTILE / "data.bin").unlink()
    uri = f"file://{runs}/{HOSTILE}"
    code, said = command("verify", uri)
    assert code == 2 and f"fault  {printable(HOSTILE)}" in said and f"input '{printable(HOSTILE)}'" in said
    code, said = command("gc", uri, "--hours", "0")
    assert code == 0 and f"stray{printable(HOSTILE)}" in said


def test_lineage(runs: Path, command: Any) -> None:
    uri = f"file://{runs}/{HOSTILE}"
    code, said = command("lineage", f"{uri}/{HOSTILE}")
    shown = printable(HOSTILE)
    assert code == 0 and f"{shown}: dataset {shown}, revision {shown}" in said and f"kind{shown}" in said
    code, said = command("lineage", f"{uri}/compare")
    assert code == 0 and f"{shown}: digest 000000000000, not in this run" in said
    code, said = command("lineage", "--json", f"{uri}/{HOSTILE}")
    assert code == 0 and HOSTILE in [made["name"] for made in json.loads(said)["artifacts"].values()]


def test_what_a_stage_says(
    tmp_path: Path, command: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is shown, in the log, and in the lines that a failed run ends with."""
    log = tmp_path / "log.txt"
    said = [
        f"Executing task '{CLEAR}'",
        f"rlp: step 1 {TITLE}",
        f"\x1b[95mcoloured\x1b[0m\t{TITLE}",
        f"Task '{CLEAR}' finished with status FAILURE",
    ]
    for everything in (True, False):
        progress = Progress({})
        with captured(log, progress, everything):
            subprocess.run([sys.executable, "-c", f"for line in {said!r}: print(line)"], check=True)
        shown, kept = capfd.readouterr().err, log.read_text()
        assert all(line.isprintable() for line in (shown + kept).split("\n"))
        assert shown.count("\\x1b") == (4 if everything else 3) and kept.count("\\x1b") == 4
        assert f"coloured        {printable(TITLE)}\n" in kept and (shown == kept) == everything

    def fails(**_: Any) -> None:
        raise TaskFailed(f"{progress.failed} failed; the end:\n{tail(log)}")

    monkeypatch.setattr(command_line, "app", fails)
    code, told = command("run")
    assert code == 1 and told.startswith("error: \\x1b[2J failed; the end:\n") and told.count("\n") == 5

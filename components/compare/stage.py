"""Comparison: every arm's evaluations to verdicts, tables and the page."""

from pathlib import Path
from typing import Any

from components.frame import InputSpec
from rlpretrain.report.build import VOLATILE, compare_runs
from rlpretrain.report.evaluations import ARMS, STAGES
from rlpretrain.settings import CompareSettings

KIND = "comparison"
SETTINGS = CompareSettings
INPUTS = {f"{arm}_{stage}": InputSpec("evaluation", required=False) for arm in ARMS for stage in STAGES}
__all__ = ["INPUTS", "KIND", "SETTINGS", "VOLATILE", "run"]


def run(settings: CompareSettings, inputs: dict[str, Path], output: Path) -> dict[str, Any]:
    """Write index.html, report.md and results.json; return the verdicts."""
    named = {(arm, stage): f"{arm}_{stage}" for arm in ARMS for stage in STAGES}
    return compare_runs([{key: inputs[name] for key, name in named.items() if name in inputs}], settings, output)

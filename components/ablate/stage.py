"""Ablations: evaluations of models that differ in one setting each, to curves beside the paper's and the page."""

from pathlib import Path
from typing import Any

from components.frame import InputSpec
from rlpretrain.report.ablations import compare_points
from rlpretrain.settings import AblateSettings

KIND = "ablations"
SETTINGS = AblateSettings
INPUTS = {"base": InputSpec("evaluation"), "points": InputSpec("evaluation", many=True)}
VOLATILE = ()


def run(settings: AblateSettings, inputs: dict[str, Path], output: Path) -> dict[str, Any]:
    """Write index.html and results.json; return the verdicts."""
    points = [path for name, path in inputs.items() if name != "base"]
    return compare_points(inputs["base"], points, settings, output)

"""What the report's tests share: fake evaluations on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.rlpretrain.report.artifacts import write_evaluation, write_run


@pytest.fixture
def evaluation(tmp_path: Path) -> Callable[..., Path]:
    """Writes one evaluation: evaluation("name", arm=..., stage=..., ...)."""
    return lambda name, **options: write_evaluation(tmp_path / name, **options)


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., dict[Any, Path]]:
    """Writes a run's evaluations: run_of("name", keys=[(arm, stage), ...], ...)."""
    return lambda name, **options: write_run(tmp_path / name, **options)

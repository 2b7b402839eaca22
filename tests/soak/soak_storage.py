"""Storms of faults in the long form: hundreds of them on one server, seed after seed.

python -m pytest tests/soak/soak_storage.py -s -o python_files="soak_*.py"
"""

from pathlib import Path

import pytest

from rlpretrain.s3server import EmbeddedS3
from tests.rlpretrain.faults import storm


@pytest.mark.parametrize("seed", range(1, 5))
def test_hundreds_of_faults(
    s3: EmbeddedS3, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    outcome = storm(s3, s3_bucket, tmp_path, faults=250, seed=seed, monkeypatch=monkeypatch)
    print(f"\nseed {seed}: {outcome}")
    assert outcome.wrong == outcome.lost == 0

"""Secrets planted in the environment of a whole run of the DAG, then looked for in everything that it said, wrote and stored.

python -m pytest tests/soak/soak_secrets.py -o python_files="soak_*.py"
"""

import os
import subprocess
import sys
from pathlib import Path

from rlpretrain import storage
from rlpretrain.s3server import EmbeddedS3

PLANTED = {"HF_TOKEN": "hf_plantedsecret0123456789", "WANDB_API_KEY": "plantedwandbkey0123456789"}
ROOT = Path(__file__).parents[2]


def test_no_secret_of_the_environment_gets_out_of_a_run(s3: EmbeddedS3, s3_bucket: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "run", "--profile", "tiny", "--name", "planted", "--debug"]
    command += ["--artifacts", f"{s3_bucket}/runs", "--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **PLANTED}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "compile",
        "--profile",
        "tiny",
        "--output",
        str(tmp_path / "tiny.yaml"),
    ]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **PLANTED}, check=True)
    storage.download_files(f"{s3_bucket}/runs/planted", tmp_path / "stored")
    left = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    left |= {"output": done.stdout.encode(), "errors": done.stderr.encode()}
    assert any(path.endswith("index.html") for path in left) and any(path.endswith("manifest.json") for path in left)
    for secret in (*PLANTED.values(), s3.secret_key):
        assert [path for path, content in left.items() if secret.encode() in content] == []

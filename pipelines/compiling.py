"""The DAG as the YAML that Kubeflow takes."""

import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.profile import load_profile
from pipelines.reproduction import reproduction


def compiled_text(profile: str) -> str:
    """The compiled reproduction of a profile; equal code gives equal text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(reproduction(profile, load_profile(profile)), str(path))
        return path.read_text(encoding="utf-8")

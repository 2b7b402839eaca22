"""The DAG as the YAML that Kubeflow takes."""

import re
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.profile import load_profile
from pipelines.reproduction import reproduction

# The comment on top of the file prints every parameter's default; kfp takes the keys of a dict in an order that changes
# with the process. The defaults stand below in a fixed order, so the comment does without them.
_DICT_DEFAULT = re.compile(r"^(#\s+\w+: dict) \[Default: .*\]$", re.MULTILINE)


def compiled_text(profile: str) -> str:
    """The compiled reproduction of a profile; equal code gives equal text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(reproduction(profile, load_profile(profile)), str(path))
        return _DICT_DEFAULT.sub(r"\1", path.read_text(encoding="utf-8"))

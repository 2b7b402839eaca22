"""The stage `compare` through its shell form, and the schema's description."""

import json
from pathlib import Path

import yaml
from pydantic import BaseModel

import rlpretrain.report
from components.frame import main
from rlpretrain.artifacts import verify
from rlpretrain.report import probe, results


def shell(tmp_path: Path, *arguments: str, **settings: object) -> int:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"bootstrap_samples": 200, **settings}))
    return main("compare", ["--settings", str(tmp_path / "settings.yaml"), *arguments])


def test_stage(run_of, tmp_path):
    run = run_of("run", keys=[("base", "pretrained"), ("rlp", "pretrained")])
    inputs = [f"--input={arm}_{stage}={path}" for (arm, stage), path in run.items()]
    assert shell(tmp_path, *inputs, "--output", str(tmp_path / "out"), title="By shell") == 0
    manifest = verify(tmp_path / "out", "comparison")
    assert set(manifest.files) == {"report.md", "results.json"}
    assert set(manifest.volatile) == {"index.html", "timings.json"}, "what holds wall-clock times"
    assert manifest.facts["claims"]["beats-base"] == "holds" and manifest.facts["claims"]["beats-cpt"] == "not tested"
    assert json.loads((tmp_path / "out" / "results.json").read_text())["title"] == "By shell"


def test_mistakes(evaluation, tmp_path, capsys):
    folder = evaluation("one")
    output = ["--output", str(tmp_path / "out")]
    for arguments, message in (
        ([], "at least two evaluations"),
        ([f"--input=rlp_pretrained={folder}"], "at least two evaluations"),
        ([f"--input=rlp_later={folder}"], "unknown input 'rlp_later'"),
    ):
        assert shell(tmp_path, *arguments, *output) == 2
        assert message in capsys.readouterr().err
    assert shell(tmp_path, *output, confidence=1.5) == 2
    assert "confidence" in capsys.readouterr().err


def test_every_field_is_described():
    """README.md beside the schema names each of its fields."""
    text = (Path(rlpretrain.report.__file__).parent / "README.md").read_text()
    everything = [
        m for m in {**vars(results), **vars(probe)}.values() if isinstance(m, type) and issubclass(m, BaseModel)
    ]
    models = [model for model in everything if model.__module__.startswith("rlpretrain.report")]
    for field in {field for model in models for field in model.model_fields}:
        assert f"`{field}`" in text or f"`{field}[]`" in text, f"README.md does not describe '{field}'"

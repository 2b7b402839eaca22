"""A stage's README says what the stage takes and where its settings stand."""

from pathlib import Path

import pytest

from components.frame import STAGES, load_stage

ROOM = Path(__file__).parents[2] / "components"


@pytest.mark.parametrize("name", STAGES)
def test_names_every_input_and_the_settings(name: str) -> None:
    text = (ROOM / name / "README.md").read_text(encoding="utf-8")
    stage = load_stage(name)
    inputs = stage.inputs if name != "compare" else {}  # one a model: the README gives their pattern
    missing = [word for word in inputs if f"`{word}`" not in text]
    if stage.settings.__name__ not in text:
        missing += [word for word in stage.settings.model_fields if f"`{word}`" not in text]
    assert not missing, f"components/{name}/README.md does not name {', '.join(missing)}"
    assert f"python -m components.{name} " in text

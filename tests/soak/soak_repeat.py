"""The small reproduction three times: the same seed gives the same bytes, another seed gives others.

python -m pytest tests/soak/soak_repeat.py -s -o python_files="soak_*.py" --timeout=7200
"""

import json
from pathlib import Path

from tests.pipelines.running import run_side_by_side


def accuracies(folder: Path) -> dict[str, float]:
    """What each model reached over all benchmarks, by its arm and stage."""
    results = json.loads((folder / "same" / "report" / "results.json").read_text())
    return {f"{model['arm']} {model['stage']}": model["overall_by_run"][0] for model in results["models"]}


def test_the_seed_alone_decides_what_is_found(tmp_path: Path) -> None:
    first, second, other = folders = [tmp_path / name for name in ("first", "second", "other")]
    for folder in folders:
        folder.mkdir()
    mini = ("--profile", "mini", "--name", "same", "--seed")
    run_side_by_side({first: (*mini, "0"), second: (*mini, "0")})
    run_side_by_side({other: (*mini, "1")})
    for name in ("results.json", "report.md"):
        assert (first / "same" / "report" / name).read_bytes() == (second / "same" / "report" / name).read_bytes()
    found, others = accuracies(first), accuracies(other)
    differing = [model for model in found if found[model] != others[model]]
    print(f"\n{len(differing)} of {len(found)} models answer otherwise under another seed")
    assert found.keys() == others.keys() and len(differing) > len(found) / 2

"""The suites' files agree with each other, with the data and with lm-eval."""

import subprocess
import sys
from pathlib import Path

import pytest

import rlpretrain.evaluation.suites as suites
from rlpretrain.data.synthetic import BENCHMARKS
from rlpretrain.errors import UserError

ROOT = Path(suites.__file__).parent
NAMES = sorted(folder.parent.name for folder in ROOT.glob("*/suite.yaml"))


def test_the_mini_suite_is_the_synthetic_benchmarks() -> None:
    assert suites.load_suite("mini")[0].groups == BENCHMARKS


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_its_task_file_and_no_file_is_left_over(name: str) -> None:
    suite, tasks = suites.load_suite(name)
    assert {file.stem for file in (ROOT / name).glob("*.yaml")} == {"suite", *suite.benchmarks}
    for benchmark, task in tasks.items():
        assert task["task"] == benchmark
        assert task["output_type"] == "generate_until"
        assert task["generation_kwargs"]["do_sample"] is True, "else all k are one greedy text"
        assert "until" in task["generation_kwargs"], "else lm-eval stops at a blank line"


@pytest.mark.parametrize("name", NAMES)
def test_lm_eval_reads_the_task_files_as_we_do(name: str) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    for benchmark, task in suites.load_suite(name)[1].items():
        assert load_yaml(ROOT / name / f"{benchmark}.yaml") == task


@pytest.mark.parametrize("name", ["nosuch", "../mini", "", "mini/sums"])
def test_an_unknown_suite_is_named_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown suite .* known: gsm, mini, paper"):
        suites.load_suite(name)


def test_reading_a_suite_imports_neither_torch_nor_lm_eval() -> None:
    modules = "rlpretrain.evaluation.suites, rlpretrain.answers, rlpretrain.evaluation.averages"
    code = f"import sys, {modules}; sys.exit(bool({{'lm_eval', 'torch'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

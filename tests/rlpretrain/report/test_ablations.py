"""The ablations' figures and rules, on evaluations whose skills were chosen; and their page in a browser."""

import json
import shutil

import pytest

from rlpretrain.artifacts import MANIFEST, read_manifest, write_manifest
from rlpretrain.errors import UserError
from rlpretrain.report.ablations import Ablations, compare_points
from rlpretrain.settings import AblateSettings

BUDGETS = {"budget-2": 2, "budget-4": 4, "budget-32": 32}
SETTINGS = AblateSettings(
    profile="mini",
    bootstrap_samples=300,
    sweeps=(
        {"name": "thought_budget", "default": 16, "points": BUDGETS},
        {"name": "domains", "default": "both", "points": {"domains-math": "math"}},
    ),
)


@pytest.fixture
def point(evaluation):
    """An evaluation with a label."""

    def made(label, skill):
        folder = evaluation(label or "base", skill=skill)
        manifest = read_manifest(folder, "evaluation")
        (folder / MANIFEST).unlink()
        write_manifest(folder, kind="evaluation", settings={"label": label}, inputs=manifest.inputs, seed=0, facts={})
        return folder

    return made


def compared(point, tmp_path, skills, settings=SETTINGS):
    compare_points(point("", 0.3), [point(label, skill) for label, skill in skills.items()], settings, tmp_path / "out")
    return Ablations.model_validate(json.loads((tmp_path / "out" / "results.json").read_text()))


LIKE_THE_PAPER = {"default": 0.6, "budget-2": 0.1, "budget-4": 0.35, "budget-32": 0.6, "domains-math": 0.45}


def test_points_stand_in_the_order_of_their_values_with_the_default_among_them(point, tmp_path):
    budget, domains = compared(point, tmp_path, LIKE_THE_PAPER).sweeps
    assert [p.value for p in budget.points] == [2, 4, 16, 32] and [p.value for p in domains.points] == ["both", "math"]
    default = budget.points[2]
    assert default.label == "default" and default.over_default.low == default.over_default.high == 0
    assert budget.points[0].over_base.high < 0 < default.over_base.low
    assert budget.paper.values[0] == 64 and budget.paper.accuracy[0] == 0.115 and budget.paper.base == 0.3403
    assert domains.paper.values == ["math", "science", "both"]


def test_the_paper_s_shape_upholds_its_claims_and_another_shape_does_not(point, tmp_path):
    found = compared(point, tmp_path, LIKE_THE_PAPER).claims
    verdicts = {claim.name: claim.verdict for claim in found}
    decided = {"budget-rises", "budget-below-base", "budget-levels-off", "domains-best"}
    assert {name for name, verdict in verdicts.items() if verdict == "holds"} == decided
    assert set(verdicts.values()) == {"holds", "not tested"}


def test_the_opposite_shape_fails_them(point, tmp_path):
    skills = {"default": 0.5, "budget-2": 0.6, "budget-4": 0.4, "budget-32": 0.6, "domains-math": 0.7}
    verdicts = {claim.name: claim.verdict for claim in compared(point, tmp_path, skills).claims}
    assert {verdicts[name] for name in ("budget-rises", "budget-below-base", "budget-levels-off", "domains-best")} == {
        "fails"
    }


def test_best_at_needs_the_value_that_it_speaks_of(point, tmp_path):
    sweeps = {"sweeps": ({"name": "kl_weight", "default": 0, "points": {"kl": 0.1}},)}
    settings = SETTINGS.model_copy(update={"sweeps": AblateSettings(**sweeps).sweeps})
    found = compared(point, tmp_path, {"default": 0.5, "kl": 0.4}, settings).claims
    kept = {claim.name: claim for claim in found}
    assert kept["kl-best"].verdict == "holds" and "0.1 beta against 0" in kept["kl-best"].detail
    assert kept["rollouts-best"].verdict == "not tested"


def test_no_value_is_called_the_best_where_all_are_alike(point, tmp_path):
    sweeps = {"sweeps": ({"name": "ema_decay", "default": 0.999, "points": {"ema": 0.9}},)}
    settings = SETTINGS.model_copy(update={"sweeps": AblateSettings(**sweeps).sweeps})
    found = compared(point, tmp_path, {"default": 0.5, "ema": 0.5}, settings)
    (claim,) = [claim for claim in found.claims if claim.name == "ema-best"]
    assert "is best" not in claim.statement and "does not show that this one is" in claim.rule


def test_no_point_is_lost_for_its_label(point, evaluation, tmp_path):
    points = [point(label, skill) for label, skill in LIKE_THE_PAPER.items()]
    twice = shutil.copytree(points[0], tmp_path / "twice")
    for more, said in ((twice, "2 evaluations are labelled 'default'"), (evaluation("x"), "is labelled ''")):
        with pytest.raises(UserError, match=said):
            compare_points(point(f"base{said[0]}", 0.3), [*points, more], SETTINGS, tmp_path / "out")


def test_a_missing_point_is_named(point, tmp_path):
    skills = {label: skill for label, skill in LIKE_THE_PAPER.items() if label != "budget-4"}
    with pytest.raises(UserError, match="'thought_budget': no evaluation is labelled 'budget-4'"):
        compared(point, tmp_path, skills)


def test_the_page_draws_every_curve_and_loads_nothing(point, tmp_path, browse):
    compared(point, tmp_path, LIKE_THE_PAPER)
    page = browse(tmp_path / "out" / "index.html", width=390)
    names = page.locator(".chart").evaluate_all("all => all.map((chart) => chart.id)")
    drawn = page.locator(".chart").evaluate_all("all => all.map((chart) => chart.querySelectorAll('.point').length)")
    assert all(drawn) and set(names) == {
        f"chart-{name}" for name in ("thought-budget-ours", "thought-budget-paper", "domains-ours", "domains-paper")
    }
    assert "16 (default)" in page.locator("[data-name=thought-budget]").text_content()
    assert "Table S.1" in page.locator("#verdicts").text_content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

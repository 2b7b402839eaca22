"""Evaluations to results.json and report.md: figures, pairing by question, several runs, mistakes."""

import json
from statistics import fmean

import pytest

from rlpretrain.errors import UserError
from rlpretrain.report.build import compare_runs, summary_lines
from rlpretrain.report.evaluations import read_evaluation
from rlpretrain.report.figures import THIRDS
from rlpretrain.report.results import Results, parse_results
from rlpretrain.report.tables import accuracy_table
from rlpretrain.report.training import Timings
from rlpretrain.settings import CompareSettings
from tests.rlpretrain.report.artifacts import thought_row

SETTINGS = CompareSettings(title="A test", profile="mini", bootstrap_samples=500)
PRETRAINED = [("base", "pretrained"), ("cpt", "pretrained"), ("rlp", "pretrained")]


def compare(runs, output) -> Results:
    compare_runs(runs, SETTINGS, output)
    return parse_results(json.loads((output / "results.json").read_text()))


def headline(results):
    return [claim for claim in results.claims if claim.section == results.claims[0].section]


def test_a_whole_run(run_of, tmp_path):
    results = compare([run_of("run")], tmp_path / "out")
    assert [(model.arm, model.stage) for model in results.models[:4]] == [
        ("base", "pretrained"),
        ("base", "sft"),
        ("base", "rlvr"),
        ("cpt", "pretrained"),
    ]
    assert len(results.models) == 9 and len(results.differences) == 9 and len(results.positions) == 10
    assert [claim.verdict for claim in headline(results)] == ["holds"] * 5
    for model in results.models:
        assert model.averages["overall"].estimate == pytest.approx(
            fmean(row.estimate for row in model.accuracy.values()), abs=1e-5
        )
        assert model.averages["overall"].low < model.averages["overall"].estimate < model.averages["overall"].high
    accuracy = {(model.arm, model.stage): model.averages["overall"].estimate for model in results.models}
    for row in results.differences:
        expected = accuracy[row.first, row.stage] - accuracy[row.second, row.stage]
        assert row.averages["overall"].estimate == pytest.approx(expected, abs=1e-5)


def test_a_failed_claim_is_said_to_have_failed(run_of, tmp_path):
    run = run_of("run", keys=PRETRAINED[::2], skill=0.4, gain=-0.5)
    results = compare([run], tmp_path / "out")
    assert [claim.verdict for claim in headline(results)] == ["fails", "fails", *["not tested"] * 3]
    assert "**fails**: On held-out text" in (tmp_path / "out" / "report.md").read_text()


def test_bytes_are_the_same_again(run_of, tmp_path):
    run = run_of("run")
    for name in ("first", "second"):
        compare_runs([run], SETTINGS, tmp_path / name)
    for file in ("results.json", "report.md", "index.html"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_runs_on_the_same_questions_are_not_more_questions(run_of, tmp_path):
    one = compare([run_of("a", keys=PRETRAINED)], tmp_path / "one")
    runs = [run_of(f"b{seed}", keys=PRETRAINED, seed=seed) for seed in range(3)]
    three = compare(runs, tmp_path / "three")
    assert three.runs == 3 and three.models[0].accuracy["sums"].questions == 64
    assert len(three.claims[1].by_run) == 3 and len(three.models[0].sources) == 3
    # The questions' own spread stays; only the sampling noise gets smaller.
    widths = [r.models[0].averages["overall"].high - r.models[0].averages["overall"].low for r in (one, three)]
    assert widths[0] / 3**0.5 < widths[1] < widths[0]


def test_a_benchmark_that_is_asked_in_two_ways_is_not_two(evaluation, tmp_path):
    """As MMLU, greedy and sampled: the average over both is no surer than either."""
    run = {}
    for arm in ("base", "rlp"):
        folder = evaluation(arm, arm=arm, groups={"greedy": "math", "sampled": "science"})
        results = json.loads((folder / "results.json").read_text())
        results["benchmarks"]["sampled"] = {**results["benchmarks"]["greedy"], "group": "science"}
        results["benchmarks"]["greedy"] |= {"run_accuracies": [0.5], "run_spread": None}
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "samples" / "sampled.jsonl").write_bytes((folder / "samples" / "greedy.jsonl").read_bytes())
        run[arm, "pretrained"] = folder
    results = compare([run], tmp_path / "out")
    for figures in (*results.models, *results.differences):
        overall, greedy = figures.averages["overall"], figures.accuracy["greedy"]
        assert (overall.low, overall.high) == pytest.approx((greedy.low, greedy.high), abs=2e-6)
    assert results.models[0].accuracy["greedy"].run_spread is None
    report = (tmp_path / "out" / "report.md").read_text()
    assert "pass@1[1 or 4]: the mean over questions of the mean over 1 or 4 sampled answers" in report
    assert "pass@1[1 or 4]" in (tmp_path / "out" / "index.html").read_text()


def test_a_run_that_is_given_twice_tells_no_more(run_of, tmp_path):
    run = run_of("run", keys=PRETRAINED)
    one, two = compare([run], tmp_path / "one"), compare([run, run], tmp_path / "two")
    for first, second in zip((*one.models, *one.differences), (*two.models, *two.differences), strict=True):
        for name in ("estimate", "low", "high"):
            gains = [getattr(figures.information_gain, name) for figures in (first, second)]
            assert gains[0] == pytest.approx(gains[1], abs=2e-6)
    assert two.models[0].information_gain.positions == 128 and two.models[0].gain_slices == one.models[0].gain_slices


def test_runs_on_other_questions_are_more_questions(run_of, tmp_path):
    runs = [run_of(f"b{seed}", keys=PRETRAINED, seed=seed, question_seed=seed) for seed in range(3)]
    results = compare(runs, tmp_path / "out")
    assert results.models[0].accuracy["sums"].questions == 3 * 64
    assert results.models[0].information_gain.positions == 3 * 128
    expected = fmean(results.models[0].overall_by_run)
    assert results.models[0].averages["overall"].estimate == pytest.approx(expected, abs=1e-5)


def test_what_one_run_lacks_is_left_out(run_of, tmp_path, capsys):
    runs = [run_of("a", keys=PRETRAINED), run_of("b", keys=PRETRAINED[:2], seed=1)]
    results = compare(runs, tmp_path / "out")
    assert [model.arm for model in results.models] == ["base", "cpt"]
    assert capsys.readouterr().err == "left out: rlp pretrained of run 1, which run 2 lacks\n"
    assert results.claims[1].detail == "RLP and base were not both evaluated after pretraining in every run"


def test_questions_are_paired_by_what_they_are(evaluation):
    """A repeated question counts twice, and the order in the files does not matter."""
    folder = evaluation("one", groups={"sums": "math"}, questions=3)
    lines = (folder / "samples" / "sums.jsonl").read_text().splitlines()
    (folder / "samples" / "sums.jsonl").write_text("\n".join([lines[0], lines[0], lines[2]]))
    assert list(read_evaluation(folder).scores["sums"]) == ["sums-0-0/1", "sums-0-0/2", "sums-0-2/1"]


@pytest.mark.parametrize(
    "unlike", [{"positions": 60}, {"seed": 1}, {"held_out": "d" * 64}, {"settings": {"held_out": {"positions": 2}}}]
)
def test_gains_at_unlike_positions_are_not_paired(evaluation, tmp_path, unlike):
    run = {
        ("base", "pretrained"): evaluation("base", arm="base", positions=64),
        ("rlp", "pretrained"): evaluation("rlp", **{"positions": 64, **unlike}),
    }
    results = compare([run], tmp_path / "out")
    assert not results.differences[0].gain_paired and "not paired" in results.claims[0].detail
    assert {part.by for part in results.models[1].gain_slices} == {"kind"}, (
        "the base model's entropies are of other places"
    )


def test_mistakes_give_one_clear_line(evaluation, run_of, tmp_path):
    lone = {("rlp", "pretrained"): evaluation("lone")}
    other = {**lone, ("base", "pretrained"): evaluation("other", arm="base", question_seed=5)}
    suite = {**lone, ("base", "pretrained"): evaluation("suite", arm="base", groups={"sums": "math"})}
    often = {**lone, ("base", "pretrained"): evaluation("often", arm="base", repeats=2)}
    long = {**lone, ("base", "pretrained"): evaluation("long", arm="base", settings={"max_new_tokens": 9})}
    runs = [run_of("a", keys=PRETRAINED), run_of("b", keys=PRETRAINED, groups={"sums": "math"})]
    unlike = [runs[0], run_of("c", keys=PRETRAINED, repeats=8)]
    for mistaken, message in (
        ([lone], "at least two evaluations"),
        ([other], "different questions of 'sums'"),
        ([suite], "different benchmarks"),
        ([often], "use one 'repeats'"),
        ([long], "sampled with max_new_tokens 9 and None"),
        (runs, "compare runs of one suite"),
        (unlike, "run 1 and run 2 were sampled 4 and 8 times"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            compare_runs(mistaken, SETTINGS, tmp_path / "out")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["{}", "[]", "not json", '{"benchmarks": {"a": {"group": NaN}}}'])
def test_unreadable_evaluations(evaluation, damage):
    folder = evaluation("one")
    (folder / "results.json").write_text(damage)
    with pytest.raises(UserError, match="not a readable evaluation"):
        read_evaluation(folder)


def test_diverged_training_still_gives_a_page(evaluation, tmp_path):
    folder = evaluation("rlp")
    (folder / "training.jsonl").write_text('{"step": 1, "reward/gain": 0.5}\n{"step": 2, "reward/gain": NaN}\n')
    run = {("rlp", "pretrained"): folder, ("base", "pretrained"): evaluation("base", arm="base")}
    results = compare([run], tmp_path / "out")
    assert [curve.runs for curve in results.curves if curve.metric == "reward/gain"] == [[[(1, 0.5)]]]


def test_what_a_training_warned_of_is_told(evaluation, tmp_path):
    """By training and run, on the terminal and in Markdown too; a step left out beside the signs of collapse."""
    short = {"warnings": ["thought/length", "thought/zero_variance"]}
    notes = [{}, {6: short, 7: {"skipped": True}, 8: short, 1200: {"warnings": ["thought/length"]}}]
    runs = [
        {
            ("base", "pretrained"): evaluation(f"base{n}", arm="base", notes={2: {"skipped": True}}),
            ("rlp", "pretrained"): evaluation(f"rlp{n}", steps=1200, notes=notes[n]),
        }
        for n in range(2)
    ]
    results = compare(runs, tmp_path / "out")
    left_out = "steps left out, as loss, reward or gradient was not finite"
    told = [(w.arm, w.stage, w.run, w.metric, w.steps, w.first, w.last) for w in results.training_warnings]
    assert told == [
        ("base", "pretrained", 1, None, 1, 2, 2),
        ("base", "pretrained", 2, None, 1, 2, 2),
        ("rlp", "pretrained", 2, "thought/length", 3, 6, 1200),
        ("rlp", "pretrained", 2, "thought/zero_variance", 2, 6, 8),
        ("rlp", "pretrained", 2, None, 1, 7, 7),
    ]
    assert {w.sign for w in results.training_warnings if w.metric is None} == {left_out}
    report = (tmp_path / "out" / "report.md").read_text()
    assert "## Warnings from training" in report
    assert "| Pretraining | RLP | thoughts have shrunk to nothing (thought/length) | 2 | 3 | 6 | 1,200 |" in report
    lines = summary_lines(results.model_dump(mode="json"))
    assert lines[lines.index("Warnings from training:") + 1 :] == [
        f"      base  Base training, shared by all, run 1: {left_out}; step 2",
        f"      base  Base training, shared by all, run 2: {left_out}; step 2",
        "       RLP  Pretraining, run 2: thoughts have shrunk to nothing; 3 steps, 6 to 1,200",
        "       RLP  Pretraining, run 2: nearly all groups have one reward, so that nothing is learned; 2 steps, 6 to 8",
        f"       RLP  Pretraining, run 2: {left_out}; step 7",
        "",
    ]
    assert all(len(line) <= 120 for line in lines)


def test_without_warnings_nothing_is_told_of_them(run_of, tmp_path):
    results = compare([run_of("run", keys=PRETRAINED)], tmp_path / "out")
    assert results.training_warnings == []
    lines = summary_lines(results.model_dump(mode="json"))
    assert "warning" not in ((tmp_path / "out" / "report.md").read_text() + "\n".join(lines)).lower()


def test_warnings_are_known_by_name_alone(evaluation, tmp_path):
    """Nothing else that a training's metrics say gets into the comparison."""
    notes = {5: {"warnings": ["<b>taken", "thought/length2", {"thought/length": 1}, None], "skipped": False}}
    run = {
        ("rlp", "pretrained"): evaluation("rlp", notes=notes),
        ("base", "pretrained"): evaluation("base", arm="base"),
    }
    assert compare([run], tmp_path / "out").training_warnings == []
    assert all("taken" not in file.read_text() for file in (tmp_path / "out").iterdir())


def test_results_from_before_there_were_warnings_are_read(run_of, tmp_path):
    compare([run_of("run", keys=PRETRAINED)], tmp_path / "out")
    older = json.loads((tmp_path / "out" / "results.json").read_text())
    del older["training_warnings"]
    assert parse_results(older).training_warnings == [] and summary_lines(older)


def test_summary(run_of, tmp_path):
    compare([run_of("run", keys=PRETRAINED)], tmp_path / "out")
    lines = summary_lines(json.loads((tmp_path / "out" / "results.json").read_text()))
    text = "\n".join(lines)
    assert (
        "HOLDS  On held-out text" in text and "NOT TESTED  After the same SFT" in text and "After pretraining" in text
    )
    assert all(len(line) <= 120 for line in lines)


def test_a_difference_is_tested_and_corrected_for_every_test_of_the_file(run_of, tmp_path):
    results = compare([run_of("a"), run_of("b", seed=1)], tmp_path / "out")
    tested = [figure for difference in results.differences for figure in difference.accuracy.values()]
    assert len(tested) == 72 and all(0 < figure.p <= figure.p_holm <= 1 for figure in tested)
    assert min(figure.p_holm for figure in tested) == pytest.approx(72 / 501, abs=1e-4), "72 tests, 500 resamples"
    assert all(len(figure.by_run) == 2 for figure in tested)
    for figure in tested:
        assert figure.estimate == pytest.approx(fmean(figure.by_run), abs=1e-5)


def test_gain_is_sliced_by_kind_and_by_how_open_the_place_is(run_of, tmp_path):
    results = compare([run_of("run", keys=PRETRAINED)], tmp_path / "out")
    for model in results.models:
        for by, names in (("kind", {"number", "word start"}), ("entropy", set(THIRDS))):
            found = [part for part in model.gain_slices if part.by == by]
            assert {part.name for part in found} == names and sum(part.positions for part in found) == 128
            whole = sum(part.estimate * part.positions for part in found) / 128
            assert whole == pytest.approx(model.information_gain.estimate, abs=1e-5)


def test_cost_data_and_times_are_told_apart(run_of, tmp_path):
    """Wall-clock times stand in a file of their own, so that results.json is the same again."""
    run = run_of("run", keys=PRETRAINED)
    results = compare([run], tmp_path / "out")
    assert {model.cost.flops for model in results.models} == {6e7}
    roles = [row.role for row in results.data]
    assert roles == ["base training", "pretraining, held-out gain", "benchmarks"]
    assert results.data[0].removed["contaminated"] == 7 and results.data[0].contaminated_by_benchmark["sums"] == 7
    times = Timings.model_validate_json((tmp_path / "out" / "timings.json").read_text())
    assert times.timings[0].seconds["update"] == pytest.approx(sum(0.5 + n / 100 for n in range(1, 31)), abs=0.01)
    assert times.timings[2].tokens_per_second[0][0] == (1, pytest.approx(270 / 0.51, rel=1e-3))
    assert "update" not in (tmp_path / "out" / "results.json").read_text()


def test_positions_hold_every_arm_at_the_same_places(evaluation, tmp_path):
    """A place that one arm did not keep is left out, and long texts are cut."""
    rows = [thought_row(n, "long " * 1000, context="far " * 300) for n in range(5)]
    run = {
        ("base", "pretrained"): evaluation("base", arm="base", thoughts=rows),
        ("rlp", "pretrained"): evaluation("rlp", thoughts=rows[1:]),
    }
    found = compare([run], tmp_path / "out").positions
    assert [position.position for position in found] == [1, 2, 3, 4]
    assert all([thought.arm for thought in position.thoughts] == ["base", "rlp"] for position in found)
    assert len(found[0].context) == 401 and found[0].context[0] == "…" and len(found[0].thoughts[0].thought) == 1201


def test_the_paper_stands_beside_a_run_of_its_profile(run_of, tmp_path):
    groups = {"gsm8k": "math", "mmlu": "science"}
    settings = SETTINGS.model_copy(update={"profile": "qwen3-1.7b"})
    compare_runs([run_of("run", keys=PRETRAINED, groups=groups)], settings, tmp_path / "out")
    results = parse_results(json.loads((tmp_path / "out" / "results.json").read_text()))
    table = accuracy_table(results)
    column = table.columns.index("gsm8k")
    assert [row[column].paper for row in table.rows] == ["paper 54.16", "paper 72.85", "paper 74.48"]
    assert "paper 74.48" in (tmp_path / "out" / "report.md").read_text()
    assert "paper 74.48" in (tmp_path / "out" / "index.html").read_text()

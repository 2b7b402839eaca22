"""The benchmark: its FLOP bound against a count by hand, its clock, its table, and one measured step of ours."""

import json
import sys

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.bench import step as bench
from tests.bench.bound import likelihood_bound, step_bound
from tests.bench.clock import Clock
from tests.bench.material import form_of, model_of, positions_of, tokenizer_of
from tests.bench.plan import Case, Sample, planned
from tests.bench.report import growth, show, summarise
from tests.bench.shapes import SHAPES, Shape

TINY = SHAPES["tiny"]


def test_the_bound_equals_a_count_by_hand():
    # A layer of width 4: query, output 16 each, key, value 8 each, three matrices of 4 x 6, two norms; then the last norm.
    shape = Shape("hand", 1, 4, 2, 1, 6, 10, documents=2, length=5, positions=3, group=2, thought=4)
    assert shape.parameters == 16 + 16 + 8 + 8 + 3 * 24 + 8 + 4 == 132
    # 2 documents of 5 tokens; 12 thoughts, of which 3 tokens each are fed back and 4 are read by the head.
    body, head = 2 * 132, 2 * 10 * 4
    bound = step_bound(shape)
    assert bound.rollout == (10 + 36) * body + 48 * head
    assert bound.update == 3 * ((10 + 36) * body + 48 * head) + 12 * head
    assert bound.teacher == 10 * body + 6 * head
    assert bound.total == bound.rollout + bound.update + bound.teacher
    assert likelihood_bound(shape) == 3 * (10 + 48) * (body + head)


@pytest.mark.parametrize(("name", "gflop"), [("small", 234), ("smollm2", 1633)])
def test_the_bounds_of_the_shapes(name, gflop):
    assert step_bound(SHAPES[name]).total / 1e9 == pytest.approx(gflop, rel=0.005)


def test_a_shape_describes_its_model_and_its_contexts():
    tokenizer = tokenizer_of(TINY)
    model = model_of(TINY, tokenizer)
    embedding = model.get_input_embeddings().weight.numel()
    assert sum(p.numel() for p in model.parameters()) - embedding == TINY.parameters
    positions = positions_of(TINY)
    assert [len(position.context) for position in positions] == [8, 16, 8, 16]
    assert all(len(position.next_tokens) >= 1 for position in positions)
    form = form_of(TINY, tokenizer)
    assert form.close_id in form.forbidden_ids
    assert tokenizer.encode(tokenizer.decode(positions[0].context)) == positions[0].context.tolist()


def test_phases_add_up_to_the_step(monkeypatch):
    ticks = iter([0.0, 1.0, 3.0, 10.0])
    monkeypatch.setattr("tests.bench.clock.time.perf_counter", lambda: next(ticks))
    clock = Clock()
    with clock.span("update"), clock.span("teacher"):
        pass
    assert clock.take() == {"update": 8.0, "teacher": 2.0}
    assert clock.take() == {}


def test_medians_and_ratios():
    def sample(contender: str, seconds: float, shape: str = "long", peak: int = 100) -> Sample:
        return Sample(Case(shape, contender, "float32"), [{"update": seconds}], peak, 0, 1e9, 0.0)

    samples = [sample("ours", seconds) for seconds in (2.0, 9.0, 3.0)]
    samples += [sample("trl-tuned", 12.0, peak=400), sample("sft", 1.5), sample("ours", 2.0, shape="long-1")]
    ours, trl, sft, single = summarise(samples)
    assert (ours.seconds, ours.fastest, ours.slowest) == (3.0, 2.0, 9.0)
    assert (ours.trl_over_this, ours.memory_of_trl, ours.over_sft) == (4.0, 0.25, 2.0)
    assert ours.times_bound == pytest.approx(3.0 * 1e9 / step_bound(SHAPES["long"]).total)
    assert (trl.trl_over_this, sft.over_sft, single.trl_over_this) == (None, None, None)
    assert [line["share_of_separate"] for line in growth([ours, single])] == [1.0, 3.0 / 8.0]
    console = Console(width=300, record=True, quiet=True)
    show(samples, console)


def test_a_measured_step_of_ours(tmp_path, monkeypatch):
    output = tmp_path / "bench.json"
    command = ["step", "--json", str(output), "--shape", "tiny", "--contender", "ours", "sft"]
    command += ["--dtype", "float32", "--repeat", "1"]
    monkeypatch.setattr(sys, "argv", command)
    assert bench.main() == 0
    result = json.loads(output.read_text())
    ours, sft = result["cases"]
    assert set(ours["phases"]) == {"rollout", "update", "teacher"}
    assert ours["seconds"] > 0 and ours["peak_gib"] > 0.1 and ours["over_sft"] > 0
    assert set(sft["phases"]) == {"update"}
    assert result["matmul_flops_per_second"]["float32"] > 1e8


def test_a_missing_trl_and_a_bad_count_are_said_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.bench.step.importlib.util.find_spec", lambda name: None)
    for more, line in ((["--contender", "trl-tuned"], "TRL is not installed"), (["--repeat", "0"], "--repeat must be")):
        monkeypatch.setattr(sys, "argv", ["step", "--json", str(tmp_path / "x.json"), "--shape", "tiny", *more])
        assert bench.main() == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and line in error and error.count("\n") == 1


def test_the_plan_holds_what_is_asked_for():
    everything = planned(None, None, None, has_bfloat16=True)
    assert Case("long-16", "ours", "bfloat16") in everything
    assert {case.dtype for case in everything if case.contender == "trl-tuned"} == {"float32"}
    assert {case.dtype for case in planned(None, None, None, has_bfloat16=False)} == {"float32"}
    assert planned(["small"], ["sft"], ["bfloat16"], True) == [Case("small", "sft", "bfloat16")]


def test_trl_gets_the_same_reward():
    trl_step = pytest.importorskip("tests.bench.trl_step", reason="TRL is an extra", exc_type=ImportError)
    tokenizer = tokenizer_of(TINY)
    model, form, positions = model_of(TINY, tokenizer), form_of(TINY, tokenizer), positions_of(TINY)
    thoughts = np.random.default_rng(0).integers(4, TINY.vocabulary, (len(positions), 2, TINY.thought)).tolist()
    reward = trl_step.InformationGainReward(model, form, 3, Clock())
    given = reward(
        completion_ids=[thought for group in thoughts for thought in group],
        context=[position.context.tolist() for position in positions for _ in range(2)],
        next_token=[int(position.next_tokens[0]) for position in positions for _ in range(2)],
    )

    def log_evidence(tokens: list[int], token: int) -> torch.Tensor:
        logits = model(torch.tensor([tokens])).logits[0, -1].index_fill(0, torch.tensor(form.delimiter_ids), -torch.inf)
        return logits.log_softmax(dim=0)[token]

    expected = []
    with torch.no_grad():
        for position, group in zip(positions, thoughts, strict=True):
            token = int(position.next_tokens[0])
            s_ema = log_evidence(position.context.tolist(), token)
            for thought in group:
                expected.append(log_evidence([*form.prompt(position.context), *thought, form.close_id], token) - s_ema)
    assert given == pytest.approx([float(value) for value in expected], abs=1e-5)

"""The thinking trainer against a plain, slow twin written from the equations, one thought at a time."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from rlpretrain.data.shards import Example
from rlpretrain.models import new_model
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.scoring import Position, score_unthinking
from rlpretrain.settings import ArchitectureSettings, OptimizerSettings, ThinkingSettings, ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.rewards import InformationGain, PrefixMatch, VerifiedAnswer, random_positions
from rlpretrain.training.thinking import ThinkingTrainer
from tests.rlpretrain.architectures import HYBRID, small_model

SMALL = ArchitectureSettings(layers=2, width=32, heads=4, key_value_heads=2, feed_forward=64)


@pytest.fixture
def tokenizer():
    return load_tokenizer("builtin:characters")


def _example(tokenizer, text: str, answer: str = "", problem: bool = False) -> Example:
    tokens = tokenizer.encode(text, add_special_tokens=False) + ([] if problem else [tokenizer.eos_token_id])
    return Example(text, np.array(tokens, dtype=np.int32), len(tokens) if problem else 0, answer, "test", text)


def _trainer(tokenizer, architecture: str | None = None, **changes) -> ThinkingTrainer:
    settings = ThinkingSettings(
        **{
            "steps": 2,
            "batch_contexts": 3,
            "positions": 2,
            "group": 3,
            "max_context": 16,
            "micro_batch": 3,
            "compute_dtype": "float32",
            "thought": ThoughtSettings(budget=4, temperature=0.7, recap=2),
            "optimizer": OptimizerSettings(learning_rate=1e-3),
            **changes,
        }
    )
    model = small_model(architecture, 1, len(tokenizer)) if architecture else new_model(SMALL, tokenizer, seed=1)
    form = ThoughtFormat.build(settings.thought, tokenizer)
    reward = InformationGain(form, settings, tokenizer.eos_token_id)
    return ThinkingTrainer(model, TorchEngine(model), tokenizer, form, reward, settings, seed=3)


def _plain_loss(trainer: ThinkingTrainer, positions: list[Position], groups: list[list[list[int]]]) -> torch.Tensor:
    """Equations 3 to 8 one thought at a time, on whole logits, without masks, padding or micro-batches."""
    model, form, settings = trainer.model, trainer.form, trainer.settings
    terms = []
    for position, group in zip(positions, groups, strict=True):
        context, token = position.context.tolist(), int(position.next_tokens[0])
        allowed = [v for v in range(model.config.vocab_size) if v not in form.delimiter_ids]

        def log_evidence(sequence: list[int], allowed: list[int] = allowed, token: int = token) -> torch.Tensor:
            logits = model(torch.tensor([sequence])).logits[0, -1]
            return logits[token] - logits[allowed].logsumexp(dim=0)

        with torch.no_grad():
            s_ema = log_evidence(context)
            rewards = []
            for thought in group:
                closed = thought if thought[-1] == form.close_id else [*thought, form.close_id]
                recap = context[-form.recap :] if form.recap else []
                rewards.append(log_evidence([*context, *form.open_ids, *closed, *recap]) - s_ema)
        mean = sum(rewards) / len(rewards)
        for thought, reward in zip(group, rewards, strict=True):
            advantage = len(group) / (len(group) - 1) * (reward - mean)
            tokens = []
            for place in range(len(thought)):
                prefix = [*context, *form.open_ids, *thought[:place]]
                logits = model(torch.tensor([prefix])).logits[0, -1] / settings.thought.temperature
                sampled = [v for v in range(len(logits)) if v not in form.forbidden_ids]
                logprob = logits[thought[place]] - logits[sampled].logsumexp(dim=0)
                ratio = (logprob - logprob.detach()).exp()
                clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
                tokens.append(torch.minimum(ratio * advantage, clipped * advantage))
            terms.append(torch.stack(tokens).mean())
    return -torch.stack(terms).mean()


@pytest.mark.parametrize(
    ("architecture", "micro_batch", "changes"),
    [
        ("llama", 3, {}),
        ("llama", 6, {"activation_checkpointing": True}),
        ("llama", 1000, {"positions": 4}),
        ("qwen3", 1000, {"group": 16, "positions": 1, "max_context": 8}),
        (HYBRID, 1000, {}),
    ],
)
def test_loss_and_gradient_equal_the_plain_twin(tokenizer, architecture, micro_batch, changes):
    trainer = _trainer(tokenizer, architecture, micro_batch=micro_batch, **changes)
    random = np.random.default_rng(0)
    examples = [_example(tokenizer, text) for text in ("1+2+3=6", "abcabcabcabcabcabcabcabc", "xy")]
    positions = [p for example in examples for p in trainer.reward.positions(example, random)]
    groups = trainer.sample(positions, seed=5).tokens
    finished = {thought[-1] == trainer.form.close_id for group in groups for thought in group}
    groups[0][0] = [*groups[0][0][:-1], trainer.form.close_id]  # a finished thought beside the cut-off ones
    assert False in finished
    trainer.reward.begin_step(trainer.model)
    totals, _ = trainer.accumulate(positions, groups)
    ours = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    plain = _plain_loss(trainer, positions, groups)
    plain.backward()
    count = len(positions) * trainer.settings.group
    assert totals["loss/surrogate"] / count == pytest.approx(float(plain.detach()), abs=1e-6)
    for name, parameter in trainer.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_a_step_moves_the_model_and_the_teacher_follows_slowly(tokenizer, tmp_path):
    trainer = _trainer(tokenizer)
    before = deepcopy(trainer.model.state_dict())
    examples = iter([_example(tokenizer, f"{a}+{b}=") for a in range(9) for b in range(9)])
    trainer.train(examples, tmp_path, "rlp")
    name = "model.layers.0.mlp.up_proj.weight"
    moved = (trainer.model.state_dict()[name] - before[name]).abs().max()
    followed = (trainer.reward.teacher.state_dict()[name] - before[name]).abs().max()
    assert 0 < float(followed) < 0.01 * float(moved)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_same_seed_same_bytes(tokenizer, tmp_path):
    for run in ("a", "b"):
        trainer = _trainer(tokenizer)
        examples = iter([_example(tokenizer, f"{a}+{b}=") for a in range(9) for b in range(9)])
        trainer.train(examples, tmp_path / run, "rlp")
    for name in ("metrics.jsonl", "thoughts.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_random_thoughts_do_not_help_a_model_that_never_saw_one(tokenizer):
    """The untrained-thought control: gains of noise are not positive on average."""
    trainer = _trainer(tokenizer, positions=1)
    model = trainer.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    text = torch.tensor([tokenizer.encode("abcdefgh" * 4, add_special_tokens=False)])
    for _ in range(60):
        model(text, labels=text).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    example = _example(tokenizer, "abcdefgh" * 2)
    positions = random_positions(example, 8, 16, tokenizer.eos_token_id, np.random.default_rng(0))
    noise = np.random.default_rng(1).integers(4, len(tokenizer), (len(positions), 3, 4)).tolist()
    flat = Thoughts.from_lists([thought for group in noise for thought in group], trainer.form.close_id)
    from rlpretrain.scoring import score_thoughts

    with torch.no_grad():
        scored = score_thoughts(model, trainer.form, positions, flat, exclude_delimiters=True)
    baseline = score_unthinking(model, trainer.form, positions, exclude_delimiters=True)
    assert float((scored.reasoned_N.view(-1, 3) - baseline[:, None]).mean()) < -0.1


def test_positions_are_distinct_tokens_of_the_text(tokenizer):
    example = _example(tokenizer, "abcd")
    positions = random_positions(example, 10, 2, tokenizer.eos_token_id, np.random.default_rng(0))
    assert [tokenizer.decode(p.next_tokens[:1].tolist()) for p in positions] == ["b", "c", "d"]
    assert all(1 <= len(p.context) <= 2 for p in positions)


def test_rpt_rewards_exact_predictions_of_finished_thoughts(tokenizer):
    settings = ThinkingSettings(steps=1, group=2, prediction_tokens=2)
    reward = PrefixMatch(settings, tokenizer.eos_token_id)
    position = Position(np.array([10]), np.array([20, 21, 22]))
    close = tokenizer.convert_tokens_to_ids("</think>")
    thoughts = Thoughts.from_lists([[5, close], [5, close], [5, 6], [close]], close)

    class Scored:
        predicted_NM = torch.tensor([[20, 21], [20, 9], [20, 21], [20, 21]])

    rewarded = reward([position, position], thoughts, Scored())
    assert rewarded.reward_BG.tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("response", "finished", "expected"),
    [
        ("work #### 7", True, 1.0),
        ("work #### 7.", True, 1.0),
        ("#### 3 then #### 7", True, 1.0),
        ("#### 7 then #### 3", True, 0.0),
        ("no answer 7", True, 0.0),
        ("", True, 0.0),
        ("work #### 7", False, 0.0),
    ],
)
def test_rlvr_rewards_the_last_answer_of_a_finished_response(tokenizer, response, finished, expected):
    reward = VerifiedAnswer(tokenizer, r"####\s*(\S+)", ThoughtSettings(), 64)
    positions = reward.positions(_example(tokenizer, "what?", "7", problem=True), np.random.default_rng(0))
    tokens = tokenizer.encode(response, add_special_tokens=False)
    eos = tokenizer.eos_token_id
    thoughts = Thoughts.from_lists([[*tokens, eos] if finished else tokens], eos)

    class Scored:
        reasoned_N = torch.zeros(1)

    assert reward(positions, thoughts, Scored()).reward_BG.tolist() == [[expected]]


def test_sampling_follows_the_models_distribution(tokenizer):
    """Chi-square of first sampled tokens against the model's own probabilities, forbidden ids left out."""
    from scipy import stats

    model = new_model(SMALL, tokenizer, seed=2)
    form = ThoughtFormat.build(ThoughtSettings(budget=1, temperature=1.3), tokenizer)
    prompts = [form.prompt(np.array([40, 41, 42])), form.prompt(np.array([50]))]
    groups = TorchEngine(model).generate(
        prompts,
        group=20_000,
        max_new_tokens=1,
        temperature=1.3,
        stop_ids={form.close_id},
        forbidden_ids=set(form.forbidden_ids),
        seed=0,
        batch=40_000,
    )
    for prompt, group in zip(prompts, groups, strict=True):
        logits = model(torch.tensor([prompt])).logits[0, -1].detach() / 1.3
        logits[list(form.forbidden_ids)] = float("-inf")
        expected = logits.softmax(dim=0).double().numpy() * len(group)
        observed = np.bincount([tokens[0] for tokens in group], minlength=len(expected))
        assert all(observed[list(form.forbidden_ids)] == 0)
        allowed = expected > 0
        expected = expected[allowed] * observed.sum() / expected[allowed].sum()
        assert stats.chisquare(observed[allowed], expected).pvalue > 1e-4

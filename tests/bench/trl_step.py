"""The same step by TRL's GRPOTrainer: information gain as its reward function, an EMA teacher kept by a callback.

Two settings: TRL's own defaults, and what an expert would choose on this machine. Both get the same contexts as token ids (the
tokenizer has a word for every token), the same group, thought length, temperature, optimizer and learning rate.
"""

import tempfile
from copy import deepcopy
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer

from rlpretrain.objectives import ema_update, next_token_logprob
from rlpretrain.settings import ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat
from tests.bench.clock import Clock
from tests.bench.material import OPTIMIZER, SEED, TEMPERATURE, form_of, model_of, positions_of, tokenizer_of
from tests.bench.shapes import Shape

EMA_DECAY = ThinkingSettings.model_fields["ema_decay"].default
TUNED_MICRO_BATCH = 4


class InformationGainReward:
    """S_pred of the student with the thought minus S_ema of the teacher without it, each read at the last token alone."""

    __name__ = "information_gain"  # TRL asks a reward function for its name

    def __init__(self, model: PreTrainedModel, form: ThoughtFormat, micro_batch: int, clock: Clock) -> None:
        self.student = model
        # Copied before TRL replaces the model's forward; fp32, and equal to the student on the first batch.
        self.teacher = deepcopy(model).requires_grad_(False).eval()
        self.form = form
        self.micro_batch = micro_batch
        self.clock = clock

    def __call__(
        self, completion_ids: list[list[int]], context: list[list[int]], next_token: list[int], **_: Any
    ) -> list[float]:
        """Rewards of the batch; the rows of a group follow each other, so its S_ema is computed once."""
        reasoned = [
            [*before, *self.form.open_ids, *thought, self.form.close_id]
            for before, thought in zip(context, completion_ids, strict=True)
        ]
        with self.clock.span("score"):
            self.student.eval()
            s_pred_N = self._log_evidence(self.student, reasoned, next_token)
            self.student.train()
        with self.clock.span("teacher"):
            first = [row for row in range(len(context)) if row == 0 or context[row] != context[row - 1]]
            s_ema_B = self._log_evidence(
                self.teacher, [context[row] for row in first], [next_token[row] for row in first]
            )
        return (s_pred_N.view(len(first), -1) - s_ema_B.unsqueeze(-1)).flatten().tolist()

    @torch.no_grad()
    def _log_evidence(self, model: PreTrainedModel, sequences: list[list[int]], next_token: list[int]) -> Tensor:
        excluded = torch.tensor(self.form.delimiter_ids)
        scores, start = [], 0
        while start < len(sequences):
            # Rows of one length only, so that nothing is padded.
            length = len(sequences[start])
            end = start + 1
            while end < min(start + self.micro_batch, len(sequences)) and len(sequences[end]) == length:
                end += 1
            logits_NV = model(torch.tensor(sequences[start:end]), logits_to_keep=1, use_cache=False).logits[:, -1]
            scores.append(next_token_logprob(logits_NV.float(), torch.tensor(next_token[start:end]), excluded))
            start = end
        return torch.cat(scores)


class _StepTimer(TrainerCallback):
    """Moves the teacher after each step, and notes the step's seconds by phase; what no other phase claims is the update."""

    def __init__(self, reward: InformationGainReward, clock: Clock) -> None:
        self.reward = reward
        self.clock = clock
        self.steps: list[dict[str, float]] = []

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock.begin("update")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        with self.clock.span("teacher"):
            ema_update(list(self.reward.teacher.parameters()), list(self.reward.student.parameters()), EMA_DECAY)
        self.clock.end()
        self.steps.append(self.clock.take())


class _TimedTrainer(GRPOTrainer):
    clock: Clock

    def _generate_single_turn(self, *arguments: Any, **options: Any) -> tuple[list[list[int]], None]:
        with self.clock.span("rollout"):
            completions, logprobs = super()._generate_single_turn(*arguments, **options)
        assert all(len(completion) == self.max_completion_length for completion in completions)
        return completions, logprobs


class _TunedTrainer(_TimedTrainer):
    """With the LM head on thought tokens alone: without Triton, TRL 1.16 runs its head over the context as well."""

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **_: Any
    ) -> tuple[Tensor, Tensor, None]:
        with self.accelerator.autocast():
            logits_NTV = model(
                input_ids, attention_mask=attention_mask, logits_to_keep=logits_to_keep + 1, use_cache=False
            ).logits[:, :-1]
        logprobs_NTV = (logits_NTV.float() / self.temperature).log_softmax(dim=-1)
        with torch.no_grad():
            entropies_NT = -(logprobs_NTV.exp() * logprobs_NTV).sum(dim=-1)
        tokens_NT1 = input_ids[:, -logits_to_keep:].unsqueeze(-1)
        return logprobs_NTV.gather(-1, tokens_NT1).squeeze(-1), entropies_NT, None


def _config(shape: Shape, form: ThoughtFormat, dtype: str, count: int, output: str, **tuning: Any) -> GRPOConfig:
    """What the task itself asks for, everything else TRL's default unless ``tuning`` says otherwise."""
    micro_batch = tuning.get("per_device_train_batch_size", 8)  # TRL's default
    assert shape.thoughts % micro_batch == 0
    generation = {"suppress_tokens": list(form.forbidden_ids), **tuning.pop("generation_kwargs", {})}
    return GRPOConfig(
        output_dir=output,
        max_steps=count,
        gradient_accumulation_steps=shape.thoughts // micro_batch,
        num_generations=shape.group,
        max_completion_length=shape.thought,
        temperature=TEMPERATURE,
        generation_kwargs=generation,
        learning_rate=OPTIMIZER.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=OPTIMIZER.betas[0],
        adam_beta2=OPTIMIZER.betas[1],
        weight_decay=OPTIMIZER.weight_decay,
        max_grad_norm=OPTIMIZER.max_grad_norm,
        bf16=dtype == "bfloat16",
        use_cpu=True,
        seed=SEED,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **tuning,
    )


def _prompts(shape: Shape, tokenizer: PreTrainedTokenizerBase, form: ThoughtFormat) -> Dataset:
    """The prompts as text, and beside them the ids that the reward reads."""
    positions = positions_of(shape)
    prompts = [form.prompt(position.context) for position in positions]
    texts = [" ".join(tokenizer.convert_ids_to_tokens(prompt)) for prompt in prompts]
    assert tokenizer(text=texts)["input_ids"] == prompts
    return Dataset.from_dict(
        {
            "prompt": texts,
            "context": [position.context.tolist() for position in positions],
            "next_token": [int(position.next_tokens[0]) for position in positions],
        }
    )


def _steps(
    shape: Shape, dtype: str, count: int, trainer_class: type[_TimedTrainer], **tuning: Any
) -> list[dict[str, float]]:
    clock = Clock()
    tokenizer = tokenizer_of(shape)
    model = model_of(shape, tokenizer)
    form = form_of(shape, tokenizer)
    with tempfile.TemporaryDirectory() as output:
        config = _config(shape, form, dtype, count, output, **tuning)
        reward = InformationGainReward(model, form, config.per_device_train_batch_size, clock)
        timer = _StepTimer(reward, clock)
        trainer = trainer_class(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=_prompts(shape, tokenizer, form),
            processing_class=tokenizer,
            callbacks=[timer],
        )
        trainer.clock = clock
        trainer.train()
    return timer.steps


def default_steps(shape: Shape, dtype: str, count: int) -> list[dict[str, float]]:
    """TRL's defaults: 8 thoughts a forward, gradient checkpointing, a growing cache, the dapo loss, scaled rewards."""
    return _steps(shape, dtype, count, _TimedTrainer)


def tuned_steps(shape: Shape, dtype: str, count: int) -> list[dict[str, float]]:
    """Eq. 8's loss and, but for the factor G/(G-1), eq. 7's advantage, which TRL lacks; and what makes it fast here."""
    return _steps(
        shape,
        dtype,
        count,
        _TunedTrainer,
        per_device_train_batch_size=TUNED_MICRO_BATCH,
        gradient_checkpointing=False,
        cache_implementation="static",
        beta=0.0,
        num_iterations=1,
        scale_rewards="none",
        loss_type="grpo",
    )

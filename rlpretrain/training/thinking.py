"""The thinking trainer, Algorithm 1: sample thoughts, reward them, push the clipped surrogate. Serves RLP, RPT and RLVR.

One update a batch makes the step strictly on-policy: theta_old equals theta, so the old log-probabilities are the detached
new ones, and reward, advantage and loss share one forward pass. What a sampler of its own arithmetic (vLLM) differs by is
corrected by a capped importance weight a token. Shapes: B contexts, G thoughts each, N = B x G, T tokens.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import Example
from rlpretrain.objectives import capped_importance_weight, clipped_surrogate, group_relative_advantage, kl_penalty
from rlpretrain.rollout.interface import RolloutEngine, Rollouts
from rlpretrain.scoring import Position, score_thoughts
from rlpretrain.settings import ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.training.loop import Optimization, Record, checkpoint_activations, derived_seed, numpy_random
from rlpretrain.training.precision import MixedPrecision, compute_dtype
from rlpretrain.training.rewards import Reward

THOUGHTS_FILE = "thoughts.jsonl"
_BY_TOKEN = ("thought/entropy", "sampler/weight", "sampler/capped", "sampler/difference")  # the others: by thought
SAMPLED_STEPS = 20  # most steps of a run whose first group of thoughts is kept for reading


@dataclass
class ThinkingTrainer:
    """Everything that one thinking objective needs; `train` runs it."""

    model: PreTrainedModel  # the fp32 masters
    engine: RolloutEngine
    tokenizer: PreTrainedTokenizerBase
    form: ThoughtFormat
    reward: Reward
    settings: ThinkingSettings
    seed: int

    def __post_init__(self) -> None:
        """Prepare the model that computes; the engine samples from it."""
        # No dropout anywhere: the policy that is scored is the policy that was sampled.
        self.model.eval()
        self.precision = MixedPrecision(self.model, compute_dtype(self.settings.compute_dtype, self.model.device))
        if self.settings.activation_checkpointing:
            checkpoint_activations(self.precision.compute)
        self.engine.use(self.precision.compute)

    def train(self, examples: Iterator[Example], output: Path, label: str) -> int:
        """Take ``settings.steps`` steps; writes metrics, timings and sample thoughts; returns the tokens processed."""
        settings = self.settings
        optimization = Optimization(self.model, settings.optimizer, settings.steps)
        reference = deepcopy(self.precision.compute).requires_grad_(False) if settings.kl_weight > 0 else None
        random = numpy_random(self.seed, "positions")
        keep_every = max(1, -(-settings.steps // SAMPLED_STEPS))
        tokens = 0
        with Record(output, settings.steps, label) as record, (output / THOUGHTS_FILE).open("w") as kept:
            for step in range(1, settings.steps + 1):
                batch = list(islice(examples, settings.batch_contexts))
                positions = [p for example in batch for p in self.reward.positions(example, random)]
                with record.span("rollout"):
                    rollouts = self.sample(positions, derived_seed(self.seed, "rollout", step))
                self.reward.begin_step(self.model)
                with record.span("update"):
                    totals, rewards = self.accumulate(positions, rollouts.tokens, reference, rollouts.logprobs)
                    metrics = optimization.step()
                    self.precision.refresh()
                    self.engine.use(self.precision.compute)
                self.reward.end_step(self.model)
                read, sampled = sum(len(p.context) for p in positions), int(totals["thought/length"])
                tokens += read * settings.group + sampled
                count = len(positions) * settings.group
                metrics |= {name: value / count for name, value in totals.items()}
                metrics |= {name: totals[name] / totals["thought/length"] for name in totals if name in _BY_TOKEN}
                record.step(step, {**metrics, "data/tokens": tokens, "data/read": read, "data/sampled": sampled})
                if (step - 1) % keep_every == 0:
                    self._keep(kept, step, positions[0], rollouts.tokens[0], rewards)
        return tokens

    def sample(self, positions: list[Position], seed: int) -> Rollouts:
        """G thoughts at each position, as token ids."""
        return self.engine.rollout(
            [self.form.prompt(position.context) for position in positions],
            group=self.settings.group,
            max_new_tokens=self.form.budget,
            temperature=self.form.temperature,
            stop_ids={self.form.close_id},
            forbidden_ids=set(self.form.forbidden_ids),
            seed=seed,
            batch=max(self.settings.rollout_batch, self.settings.group),
            stem=len(self.form.open_ids),
        )

    def accumulate(
        self,
        positions: list[Position],
        thoughts: list[list[list[int]]],
        reference: PreTrainedModel | None = None,
        sampler_logprobs: list[list[list[float]]] | None = None,
    ) -> tuple[dict[str, float], list[float]]:
        """Add the batch's gradient to the model, whole groups a pass; returns sums of metrics over the N thoughts
        and the first group's rewards. ``sampler_logprobs`` come from a sampler whose arithmetic is not the model's."""
        settings = self.settings
        total = len(positions) * settings.group
        groups = max(1, settings.micro_batch // settings.group)
        sums: defaultdict[str, float] = defaultdict(float)
        first: list[float] = []
        for start in range(0, len(positions), groups):
            part = positions[start : start + groups]
            flat = Thoughts.from_lists([t for g in thoughts[start : start + groups] for t in g], self.form.close_id)
            scored = score_thoughts(
                self.precision.compute,
                self.form,
                part,
                flat,
                settings.exclude_delimiters,
                self.reward.prediction_tokens,
            )
            rewarded = self.reward(part, flat, scored)
            advantage_N = group_relative_advantage(rewarded.reward_BG).flatten()
            mask_NT = flat.mask_NT.to(scored.logprob_NT.device)
            weight_NT = None
            if sampler_logprobs is not None:
                rows = [torch.tensor(row) for group in sampler_logprobs[start : start + groups] for row in group]
                sampled_NT = pad_sequence(rows, batch_first=True).to(mask_NT.device)
                weight_NT, apart = capped_importance_weight(
                    scored.logprob_NT, sampled_NT, mask_NT, settings.importance_cap
                )
                for name, mean in apart.items():
                    sums[f"sampler/{name}"] += float(mean) * int(flat.lengths_N.sum())
            loss, _ = clipped_surrogate(
                scored.logprob_NT,
                scored.logprob_NT.detach(),
                advantage_N,
                mask_NT,
                settings.clip_low,
                settings.clip_high,
                weight_NT,
            )
            sums["loss/surrogate"] += float(loss.detach()) * len(flat.finished_N)
            if reference is not None:
                with torch.no_grad():
                    anchor = score_thoughts(reference, self.form, part, flat, settings.exclude_delimiters, 0)
                penalty = kl_penalty(scored.logprob_NT, anchor.logprob_NT, mask_NT)
                sums["loss/kl"] += float(penalty.detach()) * len(flat.finished_N)
                loss = loss + settings.kl_weight * penalty
            (loss * len(flat.finished_N) / total).backward()
            for name, value in rewarded.metrics.items():
                sums[name] += value
            sums["reward/mean"] += float(rewarded.reward_BG.sum())
            sums["thought/length"] += int(flat.lengths_N.sum())
            sums["thought/cut_off"] += int((~flat.finished_N).sum())
            sums["thought/entropy"] += float(scored.entropy_NT.sum())
            constant_B = rewarded.reward_BG.max(dim=1).values == rewarded.reward_BG.min(dim=1).values
            sums["thought/zero_variance"] += int(constant_B.sum()) * settings.group
            first = first or rewarded.reward_BG[0].tolist()
        return sums, first

    def _keep(self, file: TextIO, step: int, position: Position, group: list[list[int]], rewards: list[float]) -> None:
        following = self.tokenizer.decode(position.next_tokens[:1].tolist())
        for thought, reward in zip(group, rewards, strict=True):
            line = {
                "step": step,
                "context": self.tokenizer.decode(position.context.tolist()),
                "thought": self.tokenizer.decode(thought),
                "next_token": following,
                "reward": round(reward, 5),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

"""The thinking trainer, Algorithm 1: sample thoughts, reward them, push the clipped surrogate. Serves RLP, RPT and RLVR.

One update a batch makes the step strictly on-policy: theta_old equals theta, so the old log-probabilities are the detached
new ones, and reward, advantage and loss share one forward pass. What a sampler of its own arithmetic (vLLM) differs by is
corrected by a capped importance weight a token. Shapes: B contexts, G thoughts each, N = B x G, T tokens.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.data.shards import Example
from rlpretrain.objectives import capped_importance_weight, clipped_surrogate, group_relative_advantage, kl_penalty
from rlpretrain.rollout.interface import RolloutEngine, Rollouts
from rlpretrain.scoring import Position, score_thoughts
from rlpretrain.settings import ThinkingSettings
from rlpretrain.thoughts import ThoughtFormat, Thoughts
from rlpretrain.training.loop import Optimization, checkpoint_activations, derived_seed, numpy_random
from rlpretrain.training.precision import prepare
from rlpretrain.training.rewards import Reward
from rlpretrain.training.snapshots import Snapshots
from rlpretrain.training.steps import THOUGHTS_FILE, Steps
from rlpretrain.training.world import World, join

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
    world: World = field(default_factory=join)

    def __post_init__(self) -> None:
        """Prepare the model that computes; the engine samples from it."""
        # No dropout anywhere: the policy that is scored is the policy that was sampled.
        self.model.eval()
        self.world.check_batch(self.settings.batch_contexts, "thinking.batch_contexts")
        self.precision = prepare(self.model, self.settings.compute_dtype, self.world)
        if self.settings.activation_checkpointing:
            checkpoint_activations(self.precision.compute)
        self.engine.use(self.precision.sampler)
        # With more than one process a context's draws are its own, the same on whichever process it is sampled.
        self.draws_by_context = not self.world.alone

    def train(self, examples: Iterator[Example], output: Path, label: str, snapshots: Snapshots | None = None) -> int:
        """Take ``settings.steps`` steps; writes metrics, timings and sample thoughts; returns the tokens processed.

        ``snapshots``, for which ``examples`` must be a `ShardLoader`: where it saves itself, and goes on from.
        """
        settings = self.settings
        optimization = Optimization(self.model, settings.optimizer, settings.steps)
        reference = deepcopy(self.precision.sampler).requires_grad_(False) if settings.kl_weight > 0 else None
        random = numpy_random(self.seed, "positions")
        keep_every = max(1, -(-settings.steps // SAMPLED_STEPS))
        with Steps(
            self.model,
            optimization,
            examples,
            output,
            label,
            snapshots=snapshots,
            random=random,
            reward=self.reward,
            world=self.world,
        ) as steps:
            self._take_over()
            for step in steps:
                batch = list(islice(examples, settings.batch_contexts))
                # Every process draws the places of the whole batch, and thinks at its own share of them.
                places = [self.reward.positions(example, random) for example in batch]
                positions = [place for each in self.world.share(places) for place in each]
                with steps.span("rollout"):
                    seed = derived_seed(self.seed, "rollout", step)
                    rollouts = self.sample(positions, seed, self._context_seeds(places, seed))
                self.reward.begin_step(self.model)
                with steps.span("update"):
                    totals, rewards = self.accumulate(positions, rollouts.tokens, reference, rollouts.logprobs)
                    checked = {"loss": totals["loss/surrogate"], "reward": totals["reward/mean"]}
                    metrics = steps.update(checked, [example.id for example in batch])
                    self._take_over()
                self.reward.end_step(self.model)
                read = sum(len(place.context) for each in places for place in each)
                sampled = int(totals["thought/length"])
                steps.tokens += read * settings.group + sampled
                data = {"data/tokens": steps.tokens, "data/read": read, "data/sampled": sampled}
                if metrics is None:
                    steps.end(data, skipped=True)
                    continue
                count = sum(len(each) for each in places) * settings.group
                metrics |= {name: value / count for name, value in totals.items()}
                metrics |= {name: totals[name] / totals["thought/length"] for name in totals if name in _BY_TOKEN}
                if (step - 1) % keep_every == 0:
                    self._keep(output, step, positions[0], rollouts.tokens[0], rewards)
                steps.end({**metrics, **data})
        return steps.tokens

    def _take_over(self) -> None:
        """Compute and sample with the masters' present values."""
        self.precision.refresh()
        self.engine.use(self.precision.sampler)

    def _context_seeds(self, places: list[list[Position]], seed: int) -> list[int] | None:
        """A seed for each place of this process's share, by its number in the batch; None where all share one stream."""
        if not self.draws_by_context:
            return None
        first = np.cumsum([0, *(len(each) for each in places)]).tolist()
        numbers = [range(start, end) for start, end in pairwise(first)]
        return [derived_seed(seed, number) for each in self.world.share(numbers) for number in each]

    def sample(self, positions: list[Position], seed: int, seeds: list[int] | None = None) -> Rollouts:
        """G thoughts at each position, as token ids; ``seeds``: one for each position instead of all in one stream."""
        return self.engine.rollout(
            [self.form.prompt(position.context) for position in positions],
            group=self.settings.group,
            max_new_tokens=self.form.budget,
            temperature=self.form.temperature,
            stop_ids={self.form.close_id},
            forbidden_ids=set(self.form.forbidden_ids),
            seed=seed,
            seeds=seeds,
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
        """Add the gradient of this process's positions to the model, whole groups a pass, as their part of the whole batch.

        Returns sums of metrics over the thoughts of all processes, and the first group's rewards. ``sampler_logprobs``
        come from a sampler whose arithmetic is not the model's.
        """
        settings = self.settings
        total = self.world.sums({"": len(positions)})[""] * settings.group
        groups = max(1, settings.micro_batch // settings.group)
        sums: defaultdict[str, float] = defaultdict(float)
        first: list[float] = []
        starts = list(range(0, len(positions), groups))
        for turn in range(self.world.most(len(starts))):
            spare = turn >= len(starts)  # others have more to do, and a forward pass is everyone's
            start = starts[0 if spare else turn]
            part = positions[start : start + groups]
            flat = Thoughts.from_lists([t for g in thoughts[start : start + groups] for t in g], self.form.close_id)
            scored = self.precision.run(
                score_thoughts,
                self.form,
                part,
                flat,
                settings.exclude_delimiters,
                self.reward.prediction_tokens,
            )
            if spare:
                (scored.logprob_NT.sum() * 0.0).backward()
                continue
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
        return self.world.sums(sums), first

    def _keep(self, output: Path, step: int, position: Position, group: list[list[int]], rewards: list[float]) -> None:
        following = self.tokenizer.decode(position.next_tokens[:1].tolist())
        with (output / THOUGHTS_FILE).open("a", encoding="utf-8") as file:
            for thought, reward in zip(group, rewards, strict=True):
                line = {
                    "step": step,
                    "context": self.tokenizer.decode(position.context.tolist()),
                    "thought": self.tokenizer.decode(thought),
                    "next_token": following,
                    "reward": round(reward, 5),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

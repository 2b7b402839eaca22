"""The torch engine: a document is computed once for all thoughts that branch off it, finished rows leave the batch.

Shapes: P prompts of a chunk, N = P x group rows, V vocabulary.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Unpack

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.linear import packed
from rlpretrain.objectives import restrict_vocabulary
from rlpretrain.rollout.decoders import Decoder, PlainDecoder, SharedPrefixDecoder
from rlpretrain.rollout.interface import Rollouts, Sampling
from rlpretrain.shared_prefix import can_share_prefixes, share_prefixes

SHRINK = 0.75  # the batch is cut to the rows still alive when they are fewer than this share of it


class TorchEngine:
    """Samples from a transformers model in this process; satisfies `RolloutEngine`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def use(self, model: PreTrainedModel) -> None:
        """See `RolloutEngine.use`."""
        self.model = model

    def rollout(self, prompts: list[list[int]], **sampling: Unpack[Sampling]) -> Rollouts:
        """See `RolloutEngine.rollout`. The policy that is sampled is the one that is trained."""
        return Rollouts(self.generate(prompts, **sampling), None)

    @torch.no_grad()
    def generate(
        self,
        prompts: list[list[int]],
        *,
        group: int,
        max_new_tokens: int,
        temperature: float,
        stop_ids: set[int],
        forbidden_ids: set[int],
        seed: int,
        batch: int,
        stem: int = 0,
        seeds: Sequence[int] | None = None,
    ) -> list[list[list[int]]]:
        """See `RolloutEngine.generate`."""
        device = self.model.device
        shared = torch.Generator(device=device).manual_seed(seed)
        forbidden = torch.tensor(sorted(forbidden_ids), dtype=torch.long, device=device)
        stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
        results: list[list[list[int]]] = [[] for _ in prompts]
        training = self.model.training
        if training:  # not else: it would reset what single modules were told
            self.model.eval()
        for members in self._chunks(prompts, stem, max(1, batch // group)):
            chosen = [prompts[index] for index in members]
            if can_share_prefixes(self.model):
                decoder: Decoder = SharedPrefixDecoder(self.model, chosen, stem, max_new_tokens)
            else:
                decoder = PlainDecoder(self.model, chosen)
            random: Tensor | torch.Generator = shared
            if seeds is not None:
                random = _own_draws([seeds[index] for index in members], group, max_new_tokens).to(device)
            with packed(self.model):
                rows = _decode(decoder, group, max_new_tokens, temperature, stops, forbidden, random)
            for place, index in enumerate(members):
                results[index] = rows[place * group : (place + 1) * group]
        if training:
            self.model.train()
        return results

    def _chunks(self, prompts: list[list[int]], stem: int, size: int) -> list[list[int]]:
        """Which prompts are decoded together: those of like length, and all of a document side by side."""
        if can_share_prefixes(self.model):
            _, trunk_of = share_prefixes([prompt[: len(prompt) - stem] for prompt in prompts])
            order = sorted(range(len(prompts)), key=lambda index: (trunk_of[index], len(prompts[index])))
            return [order[start : start + size] for start in range(0, len(order), size)]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        equal = [list(part) for _, part in groupby(order, key=lambda index: len(prompts[index]))]
        return [part[start : start + size] for part in equal for start in range(0, len(part), size)]


def _decode(
    decoder: Decoder,
    group: int,
    max_new_tokens: int,
    temperature: float,
    stops: Tensor,
    forbidden: Tensor,
    random: torch.Generator | Tensor,
) -> list[list[int]]:
    """The tokens of every row, up to and with its first stop id."""
    logits_NV = decoder.start(group)
    total, device = len(logits_NV), logits_NV.device
    rows = torch.arange(total, device=device)  # which result each row of the shrinking batch writes to
    sampled = torch.zeros(total, max_new_tokens, dtype=torch.long, device=device)
    lengths = torch.full((total,), max_new_tokens, dtype=torch.long, device=device)
    done = torch.zeros(total, dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        drawn = random[rows, step] if isinstance(random, Tensor) else random
        token_N = _draw(restrict_vocabulary(logits_NV.float(), forbidden), temperature, drawn)
        sampled[rows, step] = token_N
        ends = torch.isin(token_N, stops) & ~done
        lengths[rows[ends]] = step + 1
        done = done | ends
        alive = int((~done).sum())
        if alive == 0 or step + 1 == max_new_tokens:
            break
        if alive <= SHRINK * len(done):
            keep = (~done).nonzero().squeeze(-1)
            decoder.keep(keep)
            rows, token_N, done = rows[keep], token_N[keep], done[keep]
        logits_NV = decoder.step(token_N)
    return [row[:length] for row, length in zip(sampled.tolist(), lengths.tolist(), strict=True)]


def _own_draws(seeds: Sequence[int], group: int, steps: int) -> Tensor:
    """Uniform draws (N, steps), those of a prompt out of its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.cat([torch.rand(group, steps, generator=generator) for generator in generators])


def _draw(logits_NV: Tensor, temperature: float, random: torch.Generator | Tensor) -> Tensor:
    """One token a row: the first whose cumulative probability exceeds a uniform draw; with temperature 0 the likeliest.

    ``random`` makes the draws or holds them, (N,).
    """
    if temperature == 0:
        return logits_NV.argmax(dim=-1)
    mass_NV = (logits_NV / temperature).softmax(dim=-1).cumsum(dim=-1)
    total_N1 = mass_NV[:, -1:]
    if isinstance(random, Tensor):
        draw_N1 = random.unsqueeze(-1) * total_N1
    else:
        draw_N1 = torch.rand(total_N1.shape, generator=random, device=random.device) * total_N1
    # Rounding must not reach the total, behind which no token lies.
    draw_N1 = torch.minimum(draw_N1, total_N1.nextafter(torch.zeros_like(total_N1)))
    return torch.searchsorted(mass_NV, draw_N1, right=True).squeeze(-1)

"""The torch engine: a prompt is prefilled once, its key-value cache branches to its group, finished rows leave the batch.

Shapes: P prompts in a chunk, N = P x group rows, L padded prompt tokens, V vocabulary.
"""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlpretrain.objectives import restrict_vocabulary
from rlpretrain.scoring import logits_at


class TorchEngine:
    """Samples from a transformers model in this process; satisfies `RolloutEngine`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

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
    ) -> list[list[list[int]]]:
        """See `RolloutEngine.generate`."""
        device = self.model.device
        random = torch.Generator(device=device).manual_seed(seed)
        forbidden = torch.tensor(sorted(forbidden_ids), dtype=torch.long, device=device)
        stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
        # Prompts of like length share a chunk, so that little of it is padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        chunk = max(1, batch // group)
        results: list[list[list[int]]] = [[] for _ in prompts]
        training = self.model.training
        self.model.eval()
        for start in range(0, len(order), chunk):
            members = order[start : start + chunk]
            rows = self._decode(
                [prompts[index] for index in members], group, max_new_tokens, temperature, stops, forbidden, random
            )
            for place, index in enumerate(members):
                results[index] = rows[place * group : (place + 1) * group]
        self.model.train(training)
        return results

    def _decode(
        self,
        prompts: list[list[int]],
        group: int,
        max_new_tokens: int,
        temperature: float,
        stops: Tensor,
        forbidden: Tensor,
        random: torch.Generator,
    ) -> list[list[int]]:
        device = self.model.device
        tokens_PL, mask_PL = _left_pad(prompts, device)
        cache = DynamicCache(config=self.model.config)
        logits_NV = self._step(tokens_PL, mask_PL, cache).repeat_interleave(group, dim=0)
        cache.batch_repeat_interleave(group)
        mask_NL = mask_PL.repeat_interleave(group, dim=0)
        total = logits_NV.shape[0]
        rows = torch.arange(total, device=device)  # which result each row of the shrinking batch writes to
        sampled = torch.zeros(total, max_new_tokens, dtype=torch.long, device=device)
        lengths = torch.full((total,), max_new_tokens, dtype=torch.long, device=device)
        done = torch.zeros(total, dtype=torch.bool, device=device)
        for step in range(max_new_tokens):
            token_N = _draw(restrict_vocabulary(logits_NV.float(), forbidden), temperature, random)
            sampled[rows, step] = token_N
            ends = torch.isin(token_N, stops) & ~done
            lengths[rows[ends]] = step + 1
            done = done | ends
            alive = int((~done).sum())
            if alive == 0 or step + 1 == max_new_tokens:
                break
            if alive <= 0.75 * len(done):
                keep = (~done).nonzero().squeeze(-1)
                cache.batch_select_indices(keep)
                mask_NL, rows, token_N, done = mask_NL[keep], rows[keep], token_N[keep], done[keep]
            mask_NL = torch.cat([mask_NL, mask_NL.new_ones(len(rows), 1)], dim=1)
            logits_NV = self._step(token_N.unsqueeze(-1), mask_NL, cache)
        ends_at = lengths.tolist()
        return [row[:length] for row, length in zip(sampled.tolist(), ends_at, strict=True)]

    def _step(self, tokens_NL: Tensor, mask_NL: Tensor, cache: DynamicCache) -> Tensor:
        """Extend the cache by ``tokens_NL``; logits (N, V) after the last of them."""
        positions_NL = (mask_NL.cumsum(dim=-1) - 1).clamp(min=0)[:, -tokens_NL.shape[1] :]
        output = self.model.base_model(
            input_ids=tokens_NL,
            attention_mask=mask_NL,
            position_ids=positions_NL,
            past_key_values=cache,
            use_cache=True,
        )
        return logits_at(self.model, output.last_hidden_state[:, -1])


def _left_pad(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return tokens.to(device), mask.to(device)


def _draw(logits_NV: Tensor, temperature: float, random: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits_NV.argmax(dim=-1)
    probabilities_NV = (logits_NV / temperature).softmax(dim=-1)
    # argmax of p / Exp(1) is a draw from p, without a host round trip.
    noise_NV = torch.empty_like(probabilities_NV).exponential_(generator=random)
    return (probabilities_NV / noise_NV).argmax(dim=-1)

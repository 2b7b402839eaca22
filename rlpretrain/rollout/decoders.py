"""Two ways to continue prompts one token at a time, behind one interface.

`SharedPrefixDecoder` computes a document once for all prompts that begin it and for all rows that branch off a prompt; its
keys and values lie in buffers allocated once. `PlainDecoder` uses a model's own cache, and serves models whose layers carry
a state. Shapes: P prompts, N rows, D trunks, A most rows of a trunk, H query heads, K key-value heads, d their width,
V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from rlpretrain.lm_head import logits_at
from rlpretrain.shared_prefix import Forest, run_plan, share_prefixes


class Decoder(Protocol):
    """Prompts being continued: `start` once, then `step` for every token."""

    def start(self, group: int) -> Tensor:
        """Logits (N, V) after each prompt, N = P x ``group`` rows, those of a prompt side by side."""
        ...

    def step(self, token_N: Tensor) -> Tensor:
        """Logits (N, V) after one more token a row."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the rows alone."""
        ...


class SharedPrefixDecoder:
    """Rows attend to a prefix of a trunk, which is computed and stored once, and to tokens of their own."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], stem: int, capacity: int) -> None:
        """``stem`` last tokens of a prompt are its own: before them a prompt may be a prefix of another."""
        self.model = model
        trunks, trunk_of = share_prefixes([prompt[: len(prompt) - stem] for prompt in prompts])
        if len(trunks) == len(prompts):  # nothing is shared: a prompt is its own trunk, stem and all
            stem = 0
            trunks, trunk_of = share_prefixes(prompts)
        self.stems_SP = torch.tensor([prompt[len(prompt) - stem :] for prompt in prompts], device=model.device).t()
        trunk_P = torch.tensor(trunk_of, device=model.device)
        prefix_P = torch.tensor([len(prompt) - stem for prompt in prompts], device=model.device)
        self.cache = _BranchedCache(Forest(trunks, device=model.device), trunk_P, prefix_P, stem + capacity)

    def start(self, group: int) -> Tensor:
        cache = self.cache
        hidden_PD = cache.prefill(self.model)
        for token_P in self.stems_SP:
            hidden_PD = self._advance(token_P)
        rows = torch.arange(len(hidden_PD), device=hidden_PD.device).repeat_interleave(group)
        cache.select(rows)
        return logits_at(self.model, hidden_PD)[rows]

    def step(self, token_N: Tensor) -> Tensor:
        return logits_at(self.model, self._advance(token_N))

    def keep(self, rows: Tensor) -> None:
        self.cache.select(rows)

    def _advance(self, token_N: Tensor) -> Tensor:
        hidden_ND = run_plan(self.model, token_N, self.cache.prefix_N + self.cache.length, self.cache)
        self.cache.length += 1
        return hidden_ND


class _BranchedCache:
    """Keys and values of the trunks, (D, K, P, d) a layer, and of the rows' own tokens, (N, K, capacity, d); a `Plan`."""

    def __init__(self, forest: Forest, trunk_N: Tensor, prefix_N: Tensor, capacity: int) -> None:
        self.forest = forest
        self.trunk_N = trunk_N
        self.prefix_N = prefix_N  # tokens of its trunk that a row sees
        self.capacity = capacity
        self.length = 0  # tokens of their own, as many in every row
        self._prefilled = False
        self._trunk_kv: list[tuple[Tensor, Tensor]] = []
        self._own_kv: list[tuple[Tensor, Tensor]] = []

    def prefill(self, model: PreTrainedModel) -> Tensor:
        """Compute the trunks; the last hidden state (N, width) of each row's prefix."""
        forest = self.forest
        hidden_RD = run_plan(model, forest.tokens_R, forest.positions_R, self)
        self._prefilled = True
        self._arrange()
        starts_D = torch.tensor([start for start, _ in forest.trunk_spans], device=hidden_RD.device)
        return hidden_RD[starts_D[self.trunk_N] + self.prefix_N - 1]

    def attend(self, layer: int, query_RHd: Tensor, key_RKd: Tensor, value_RKd: Tensor, scale: float) -> Tensor:
        if not self._prefilled:
            spans = [slice(*span) for span in self.forest.trunk_spans]
            by_trunk = (pad_sequence([rows[s] for s in spans], batch_first=True) for rows in (key_RKd, value_RKd))
            keys_DKPd, values_DKPd = (padded.transpose(1, 2).contiguous() for padded in by_trunk)
            self._trunk_kv.append((keys_DKPd, values_DKPd))
            return self.forest.attend(layer, query_RHd, key_RKd, value_RKd, scale)
        if layer == len(self._own_kv):
            shape = (*key_RKd.shape[:2], self.capacity, key_RKd.shape[2])
            self._own_kv.append((key_RKd.new_empty(shape), value_RKd.new_empty(shape)))
        keys, values = self._own_kv[layer]
        keys[:, :, self.length], values[:, :, self.length] = key_RKd, value_RKd
        own = slice(0, self.length + 1)
        rows, heads, width = query_RHd.shape
        query_NKrd = (query_RHd * scale).view(rows, key_RKd.shape[1], -1, width)  # r query heads share a key-value head
        prefix_scores_NKrP = self._with_trunks(query_NKrd, self._trunk_kv[layer][0].transpose(-1, -2))
        if self._unseen_NP is not None:
            prefix_scores_NKrP.masked_fill_(self._unseen_NP[:, None, None], float("-inf"))
        own_scores = query_NKrd @ keys[:, :, own].transpose(-1, -2)
        scores = torch.cat([prefix_scores_NKrP, own_scores], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(query_RHd.dtype)
        prefix = prefix_scores_NKrP.shape[-1]
        output = weights[..., prefix:] @ values[:, :, own]
        output += self._with_trunks(weights[..., :prefix], self._trunk_kv[layer][1])
        return output.reshape(rows, heads, width)

    def select(self, rows: Tensor) -> None:
        """Go on with ``rows``, some of them perhaps several times."""
        self.trunk_N, self.prefix_N = self.trunk_N[rows], self.prefix_N[rows]
        self._own_kv = [(self._taken(keys, rows), self._taken(values, rows)) for keys, values in self._own_kv]
        self._arrange()

    def _taken(self, old: Tensor, rows: Tensor) -> Tensor:
        new = old.new_empty(len(rows), *old.shape[1:])
        new[:, :, : self.length] = old[rows, :, : self.length]
        return new

    def _arrange(self) -> None:
        """Drop the trunks that no row needs; give each row its place in a grid of trunks and A rows, read together."""
        trunks, self.trunk_N, counts = self.trunk_N.unique(return_inverse=True, return_counts=True)
        longest = int(self.prefix_N.max())
        if len(trunks) < len(self._trunk_kv[0][0]) or longest < self._trunk_kv[0][0].shape[2]:
            self._trunk_kv = [(k[trunks, :, :longest], v[trunks, :, :longest]) for k, v in self._trunk_kv]
        order = self.trunk_N.argsort(stable=True)
        first = counts.cumsum(0) - counts
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - first[self.trunk_N[order]]
        self._grid = (len(trunks), int(counts.max()))
        slot_N = self.trunk_N * self._grid[1] + rank
        full = len(order) == self._grid[0] * self._grid[1] and bool((slot_N.diff() == 1).all())
        self._slot_N = None if full else slot_N  # None: the rows are the grid already
        steps = torch.arange(longest, device=order.device)
        unseen_NP = steps >= self.prefix_N.unsqueeze(-1)
        self._unseen_NP = unseen_NP if bool(unseen_NP.any()) else None

    def _with_trunks(self, left_NKrx: Tensor, right_DKxy: Tensor) -> Tensor:
        """Each row's (r, x) times its trunk's (x, y): (N, K, r, y), with one product for all rows of a trunk."""
        (trunks, most), (_, kv_heads, repeats, width) = self._grid, left_NKrx.shape
        grid = left_NKrx
        if self._slot_N is not None:
            grid = left_NKrx.new_zeros(trunks * most, kv_heads, repeats, width)
            grid[self._slot_N] = left_NKrx
        folded = grid.view(trunks, most, kv_heads, repeats, width).transpose(1, 2).reshape(trunks, kv_heads, -1, width)
        product = (folded @ right_DKxy).view(trunks, kv_heads, most, repeats, -1)
        by_row = product.transpose(1, 2).reshape(trunks * most, kv_heads, repeats, -1)
        return by_row if self._slot_N is None else by_row[self._slot_N]


class PlainDecoder:
    """A model's own cache; prompts of one length, since a state would take padding in."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        assert len({len(prompt) for prompt in prompts}) == 1
        self.model = model
        self.prompts_PL = torch.tensor(prompts, device=model.device)
        self.cache: Any = None

    def start(self, group: int) -> Tensor:
        logits_PV = self._advance(self.prompts_PL)
        rows = torch.arange(len(logits_PV), device=logits_PV.device).repeat_interleave(group)
        self.keep(rows)
        return logits_PV[rows]

    def step(self, token_N: Tensor) -> Tensor:
        return self._advance(token_N.unsqueeze(-1))

    def keep(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)

    def _advance(self, tokens_NL: Tensor) -> Tensor:
        output = self.model.base_model(input_ids=tokens_NL, past_key_values=self.cache, use_cache=True)
        self.cache = output.past_key_values
        return logits_at(self.model, output.last_hidden_state[:, -1])

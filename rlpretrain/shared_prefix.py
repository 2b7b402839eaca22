"""A document computed once and its thoughts branched off it: one packed, padding-free sequence and its attention.

A trunk is a document's context; a branch sees the first tokens of one trunk and itself. All rows of a pass, first the
trunks', then the branches', stand in one sequence of a transformers model, whose layers know nothing of it: the model's
attention is this module's (transformers' AttentionInterface), position ids say where a row stands in its own text.

On the CPU the attention is flash attention in parts, joined by their log-sum-exp: a trunk causally, the queries of all
branches at one place against their common prefix, which no copy of keys is made for, and each branch against itself.
Elsewhere it is FlexAttention with a block mask of the same meaning.

Shapes: R packed rows, H query heads, K key-value heads, d their width, D trunks, B places, N = B x G branches, S the
longest branch's tokens.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

IMPLEMENTATION = "shared_prefix"  # its name among transformers' attention implementations
FEW_SCORES = 2**23  # of all heads together, 32 MiB in fp32
SHORT, PADDING = 8, 1.1  # a bucket's longest sequence: so many tokens and times longer than its shortest
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Plan(Protocol):
    """Decides what the rows of one pass attend to."""

    def attend(self, layer: int, query_RHd: Tensor, key_RKd: Tensor, value_RKd: Tensor, scale: float) -> Tensor:
        """The attention's output, shape (R, H, d)."""
        ...


def can_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether every layer attends to all tokens before it through transformers' attention interface.

    A state-space layer folds what it has read into one state, which cannot be branched within a sequence; a sliding window
    would cut prefixes off. Such models take the plain path.
    """
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    return model._supports_attention_backend and not model._is_stateful and set(layers) == {"full_attention"}


def run_plan(model: PreTrainedModel, tokens_R: Tensor, positions_R: Tensor, plan: Plan) -> Tensor:
    """Last hidden states (R, width) of packed rows that attend as ``plan`` says."""
    if model.config._attn_implementation != IMPLEMENTATION:
        model.set_attn_implementation(IMPLEMENTATION)
    output = model.base_model(
        input_ids=tokens_R.unsqueeze(0),
        position_ids=positions_R.unsqueeze(0),
        attention_mask=tokens_R.new_empty(1, 1, 1, 1, dtype=torch.bool),  # four dimensions: transformers builds no mask
        use_cache=False,
        plan=plan,
    )
    return output.last_hidden_state.squeeze(0)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    plan: Plan | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (1, H, R, d), key and value (1, K, R, d); without a plan it is SDPA."""
    if plan is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query_RHd, key_RKd, value_RKd = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    return plan.attend(module.layer_idx, query_RHd, key_RKd, value_RKd, scale).unsqueeze(0), None


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def share_prefixes(contexts: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[int]]:
    """The contexts that are no prefix of another, longest last; and for each context which of them it is a prefix of."""
    trunks: list[Sequence[int]] = []
    trunk_of = [0] * len(contexts)
    # In lexicographic order whatever a context is a prefix of follows it without a gap.
    for index in sorted(range(len(contexts)), key=lambda i: tuple(contexts[i]), reverse=True):
        context = contexts[index]
        if not trunks or tuple(trunks[-1][: len(context)]) != tuple(context):
            trunks.append(context)
        trunk_of[index] = len(trunks) - 1
    order = sorted(range(len(trunks)), key=lambda i: len(trunks[i]))
    rank = {trunk: place for place, trunk in enumerate(order)}
    return [trunks[i] for i in order], [rank[trunk] for trunk in trunk_of]


class Forest:
    """The rows of D trunks and of G branches at each of B places, and what they attend to; a `Plan`."""

    def __init__(
        self,
        trunks: Sequence[Sequence[int]],
        places: Sequence[tuple[int, int]] = (),
        branches: Sequence[Sequence[int]] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        """``places`` holds a trunk and how many of its tokens the place's branches see; ``branches`` are in their order."""
        assert all(trunks) and all(branches) and (not places or len(branches) % len(places) == 0)
        group = len(branches) // len(places) if places else 0
        sequences = [*trunks, *branches]
        ends = torch.tensor([len(sequence) for sequence in sequences]).cumsum(0).tolist()
        starts = [end - len(sequence) for end, sequence in zip(ends, sequences, strict=True)]
        self.trunk_spans = list(zip(starts, ends, strict=True))[: len(trunks)]
        self.branch_starts = starts[len(trunks) :]
        self.places = [
            (self.branch_starts[b * group], ends[len(trunks) + (b + 1) * group - 1], starts[trunk], prefix)
            for b, (trunk, prefix) in enumerate(places)
        ]
        offsets = [0] * len(trunks) + [prefix for _, prefix in places for _ in range(group)]
        self.tokens_R = torch.tensor([token for sequence in sequences for token in sequence], device=device)
        self.positions_R = torch.cat([torch.arange(o, o + len(s)) for o, s in zip(offsets, sequences, strict=True)]).to(
            device
        )
        self.buckets = [bucket.to(device) for bucket in _buckets(starts, [len(sequence) for sequence in sequences])]
        self._lengths = torch.tensor([len(sequence) for sequence in sequences])
        self._trunk_of = [-1] * len(trunks) + [trunk for trunk, _ in places for _ in range(group)]
        self._prefixes = offsets

    def attend(self, layer: int, query_RHd: Tensor, key_RKd: Tensor, value_RKd: Tensor, scale: float) -> Tensor:
        if query_RHd.device.type == "cpu":
            return _InParts.apply(query_RHd, key_RKd, value_RKd, self, scale)
        return self.flex_attend(_compiled_flex(), query_RHd, key_RKd, value_RKd, scale)

    def flex_attend(self, flex: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention by FlexAttention, compiled or not."""
        heads_first = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
        output = flex(*heads_first, block_mask=self._block_mask, scale=scale, enable_gqa=True)
        return output.squeeze(0).transpose(0, 1)

    @cached_property
    def _block_mask(self) -> Any:
        device = self.tokens_R.device

        def by_row(values: Sequence[int]) -> Tensor:
            return torch.tensor(values).repeat_interleave(self._lengths).to(device)

        own_R, trunk_R, prefix_R = map(by_row, (range(len(self._lengths)), self._trunk_of, self._prefixes))
        positions_R = self.positions_R

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            itself = (own_R[query] == own_R[key]) & (query >= key)
            prefix = (trunk_R[query] == own_R[key]) & (positions_R[key] < prefix_R[query])
            return itself | prefix

        rows = len(positions_R)
        return create_block_mask(visible, None, None, rows, rows, device=device)


_flex_compiled: list[Any] = []


def _compiled_flex() -> Any:
    """flex_attention compiled once a process, when first needed."""
    if not _flex_compiled:
        _flex_compiled.append(torch.compile(flex_attention, dynamic=True))
    return _flex_compiled[0]


def _buckets(starts: Sequence[int], lengths: Sequence[int]) -> list[Tensor]:
    """Sequences of like length, each bucket the rows (n, S) of its sequences, -1 behind their ends."""
    buckets: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not buckets or lengths[index] > PADDING * lengths[buckets[-1][0]] + SHORT:
            buckets.append([])
        buckets[-1].append(index)
    found = []
    for bucket in buckets:
        steps_S = torch.arange(lengths[bucket[-1]])
        rows_nS = torch.tensor([starts[i] for i in bucket]).unsqueeze(-1) + steps_S
        inside_nS = steps_S < torch.tensor([lengths[i] for i in bucket]).unsqueeze(-1)
        found.append(rows_nS.where(inside_nS, -1))
    return found


class _InParts(torch.autograd.Function):
    """A forest's attention on the CPU. Each part's softmax knows its own keys alone; the log-sum-exps join them.

    In the backward pass the parts' kernels are given the joined output and log-sum-exp, and their gradients add up.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, forest: Forest, scale: float) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        kv_heads, repeats = key.shape[1], query.shape[1] // key.shape[1]
        output_RHd = torch.empty_like(query)
        lse_RH = query.new_empty(query.shape[:2], dtype=torch.float32)
        for rows_nS in forest.buckets:  # every trunk and every branch against itself
            inside = rows_nS >= 0
            padded = _padded(rows_nS, query, _repeated(key, repeats), _repeated(value, repeats))
            output, lse = _part_forward(padded, True, scale)
            output_RHd[rows_nS[inside]] = output.transpose(1, 2)[inside]
            lse_RH[rows_nS[inside]] = lse.transpose(1, 2)[inside]
        for start, end, trunk, prefix in forest.places:  # all branches of a place against their common prefix
            rows, seen = slice(start, end), slice(trunk, trunk + prefix)
            folded = [_folded(query[rows], kv_heads), _heads_first(key[seen]), _heads_first(value[seen])]
            output, lse = _part_forward(folded, False, scale)
            prefix_LH = _unfolded(lse.unsqueeze(-1), end - start).squeeze(-1)
            joined_LH = torch.logaddexp(lse_RH[rows], prefix_LH)
            share_LH1 = (prefix_LH - joined_LH).exp().unsqueeze(-1).to(query.dtype)
            output_RHd[rows] = torch.lerp(output_RHd[rows], _unfolded(output, end - start), share_LH1)
            lse_RH[rows] = joined_LH
        ctx.save_for_backward(query, key, value, output_RHd, lse_RH)
        ctx.forest, ctx.scale = forest, scale
        return output_RHd

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        forest, scale, grad = ctx.forest, ctx.scale, gradients[0].contiguous()
        kv_heads, repeats = key.shape[1], query.shape[1] // key.shape[1]
        d_query, d_key, d_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for rows_nS in forest.buckets:
            inside = rows_nS >= 0
            grad_nHSd, *padded = _padded(
                rows_nS, grad, query, _repeated(key, repeats), _repeated(value, repeats), output
            )
            outside = ~inside.unsqueeze(1)  # padding asks for nothing, with probability 0
            grad_nHSd = grad_nHSd.masked_fill(outside.unsqueeze(-1), 0.0)
            lse_nHS = lse[rows_nS].transpose(1, 2).masked_fill(outside, float("inf")).contiguous()
            dq, dk, dv = _part_backward([grad_nHSd, *padded], lse_nHS, True, scale)
            d_query[rows_nS[inside]] = dq.transpose(1, 2)[inside]
            d_key[rows_nS[inside]] = _summed(dk.transpose(1, 2)[inside], kv_heads)
            d_value[rows_nS[inside]] = _summed(dv.transpose(1, 2)[inside], kv_heads)
        for start, end, trunk, prefix in forest.places:
            rows, seen = slice(start, end), slice(trunk, trunk + prefix)
            grad_folded, query_folded, output_folded = (_folded(t[rows], kv_heads) for t in (grad, query, output))
            parts = [grad_folded, query_folded, _heads_first(key[seen]), _heads_first(value[seen]), output_folded]
            lse_folded = _folded(lse[rows].unsqueeze(-1), kv_heads).squeeze(-1)
            dq, dk, dv = _part_backward(parts, lse_folded, False, scale)
            d_query[rows] += _unfolded(dq, end - start)
            d_key[seen] += dk[0].transpose(0, 1)
            d_value[seen] += dv[0].transpose(0, 1)
        return d_query, d_key, d_value, None, None


def _by_products(query: Tensor, keys: int) -> bool:
    """Whether a part of an attention is computed by matrix products and a softmax instead of aten's flash kernels.

    In bf16 products take a half to a sixth of the kernels' time as long as the scores are few; in fp32 they are no faster.
    """
    return query.dtype == torch.bfloat16 and query.shape[:-1].numel() * keys <= FEW_SCORES


def _scores(query: Tensor, key: Tensor, causal: bool, scale: float) -> Tensor:
    scores = (query @ key.transpose(-1, -2)).float().mul_(scale)
    if causal:
        scores += scores.new_full(scores.shape[-2:], float("-inf")).triu_(1)
    return scores


def _part_forward(parts: Sequence[Tensor], causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of one part. ``parts`` are query, key and value, all (n, H, length, d)."""
    query, key, value = parts
    if not _by_products(query, key.shape[2]):
        return _flash(*parts, 0.0, causal, scale=scale)
    scores = _scores(query, key, causal, scale)
    weights = scores.softmax(dim=-1)
    lse_nHS = scores.amax(dim=-1) - weights.amax(dim=-1).log()  # the largest weight is exp(largest score - lse)
    return weights.to(query.dtype) @ value, lse_nHS


def _part_backward(parts: Sequence[Tensor], lse_nHS: Tensor, causal: bool, scale: float) -> Sequence[Tensor]:
    """Gradients for query, key and value of one part. ``parts`` are the output's gradient, query, key, value and output."""
    grad, query, key, value, output = parts
    if not _by_products(query, key.shape[2]):
        return _flash_backward(*parts, lse_nHS, 0.0, causal, scale=scale)
    weights = _scores(query, key, causal, scale).sub_(lse_nHS.unsqueeze(-1)).exp_().to(query.dtype)
    d_value = weights.transpose(-1, -2) @ grad
    delta = (grad * output).sum(dim=-1, keepdim=True, dtype=torch.float32)  # what keeps a row's weights at the sum of 1
    d_scores = (grad @ value.transpose(-1, -2)).sub_(delta).mul_(weights).mul_(scale)
    return d_scores @ key, d_scores.transpose(-1, -2) @ query, d_value


def _padded(rows_nS: Tensor, *packed: Tensor) -> list[Tensor]:
    """Rows (R, H, d) as sequences (n, H, S, d); the padding behind a sequence's end repeats the last row of all."""
    return [tensor[rows_nS].transpose(1, 2) for tensor in packed]


def _heads_first(rows: Tensor) -> Tensor:
    """(L, H, d) as (1, H, L, d)."""
    return rows.transpose(0, 1).unsqueeze(0)


def _repeated(rows_LKd: Tensor, repeats: int) -> Tensor:
    """Key-value heads repeated for the query heads that share them: (L, K, d) as (L, H, d)."""
    return rows_LKd if repeats == 1 else rows_LKd.repeat_interleave(repeats, dim=1)


def _summed(rows_LHd: Tensor, kv_heads: int) -> Tensor:
    """The gradient of `_repeated`."""
    length, heads, width = rows_LHd.shape
    return rows_LHd if heads == kv_heads else rows_LHd.reshape(length, kv_heads, -1, width).sum(dim=2)


def _folded(rows_LHd: Tensor, kv_heads: int) -> Tensor:
    """Queries that share a key-value head side by side, (1, K, L x H / K, d): without a mask their order is free."""
    length, _, width = rows_LHd.shape
    return rows_LHd.view(length, kv_heads, -1, width).transpose(0, 1).reshape(1, kv_heads, -1, width)


def _unfolded(folded: Tensor, length: int) -> Tensor:
    """The inverse of `_folded`: (L, H, d)."""
    kv_heads, width = folded.shape[1], folded.shape[-1]
    return folded.reshape(kv_heads, length, -1, width).transpose(0, 1).reshape(length, -1, width)

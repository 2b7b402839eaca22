"""Equations 3 to 8 of RLP (arXiv 2510.01265) as pure functions on tensors; torch alone is imported.

Shapes: B contexts, G thoughts a context, N = B x G thoughts, T thought tokens (padded), V vocabulary.
Log-probabilities are natural logarithms (nats). Equations 3 and 4, the log-evidence of the document's own next token
with and without a thought, are `next_token_logprob` on the logits of the reasoning model and of the EMA teacher.
"""

import torch
from torch import Tensor


def restrict_vocabulary(logits_V: Tensor, excluded_ids: Tensor | None) -> Tensor:
    """Logits (..., V) with ``excluded_ids`` at minus infinity, so that a softmax renormalises over the rest."""
    if excluded_ids is None or excluded_ids.numel() == 0:
        return logits_V
    return logits_V.index_fill(-1, excluded_ids, float("-inf"))


def next_token_logprob(logits_NV: Tensor, next_token_N: Tensor, excluded_ids: Tensor | None = None) -> Tensor:
    """Equations 3 and 4: log p(x_t | ...), shape (N,), at temperature 1.

    ``excluded_ids`` (the thought delimiters) leave the vocabulary and the rest is renormalised; a base model that has met
    the delimiters would otherwise credit any thought with the mass it gives to opening one. None is the paper's plain form.
    """
    logprobs_NV = restrict_vocabulary(logits_NV, excluded_ids).log_softmax(dim=-1)
    return logprobs_NV.gather(-1, next_token_N.unsqueeze(-1)).squeeze(-1)


def information_gain(reasoned_logprob_BG: Tensor, baseline_logprob_B: Tensor) -> Tensor:
    """Equation 5: r = S_pred - S_ema, shape (B, G). A reward: no gradient flows through it (section 3)."""
    return (reasoned_logprob_BG - baseline_logprob_B.unsqueeze(-1)).detach()


def group_relative_advantage(reward_BG: Tensor) -> Tensor:
    """Equation 7: A = G/(G-1) (r - mean r), shape (B, G); not divided by a standard deviation.

    Equals r minus the mean of the other thoughts' rewards. Raises ValueError when G < 2.
    """
    group = reward_BG.shape[-1]
    if group < 2:
        raise ValueError(f"a group-relative advantage needs at least 2 thoughts a context, not {group}; raise `group`")
    return group / (group - 1) * (reward_BG - reward_BG.mean(dim=-1, keepdim=True))


def clipped_surrogate(
    logprob_NT: Tensor,
    old_logprob_NT: Tensor,
    advantage_N: Tensor,
    mask_NT: Tensor,
    clip_low: float,
    clip_high: float,
    weight_NT: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Equation 8: -mean over thoughts of 1/len(c) sum over its tokens of min(rho A, clip(rho, 1-eps_l, 1+eps_h) A).

    ``mask_NT`` is true on thought tokens, of which every thought has at least one. Both log-probabilities are taken at the
    sampling temperature. Returns the scalar loss and metrics (scalars without gradient): the share of clipped tokens and
    the mean ratio. Gradient flows through ``logprob_NT`` alone. ``weight_NT`` scales the tokens' terms where another policy
    than theta_old sampled them, see `capped_importance_weight`; the paper has no such factor.
    """
    mask_NT = mask_NT.bool()
    length_N = mask_NT.sum(dim=-1)
    assert bool((length_N > 0).all()), "every thought holds at least one token"
    # Padding may hold any value, also -inf: it is replaced before exp, so that no NaN reaches the gradient.
    difference_NT = torch.where(mask_NT, logprob_NT - old_logprob_NT.detach(), torch.zeros_like(logprob_NT))
    ratio_NT = difference_NT.exp()
    advantage_N1 = advantage_N.detach().unsqueeze(-1)
    clipped_NT = ratio_NT.clamp(1 - clip_low, 1 + clip_high)
    surrogate_NT = torch.minimum(ratio_NT * advantage_N1, clipped_NT * advantage_N1) * mask_NT
    if weight_NT is not None:
        surrogate_NT = surrogate_NT * weight_NT.detach()
    loss = -(surrogate_NT.sum(dim=-1) / length_N).mean()
    with torch.no_grad():
        tokens = length_N.sum()
        metrics = {
            "clip_share": ((ratio_NT * advantage_N1 > clipped_NT * advantage_N1) & mask_NT).sum() / tokens,
            "ratio": (ratio_NT * mask_NT).sum() / tokens,
        }
    return loss, metrics


def capped_importance_weight(
    logprob_NT: Tensor, sampler_logprob_NT: Tensor, mask_NT: Tensor, cap: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """min(pi_old / pi_sampler, cap) of every thought token, shape (N, T), without gradient; 1 on padding.

    A sampler that computes with other kernels than the trainer draws from a slightly other policy. By token, as the ratio of
    eq. 8 is: the product over a thought of thousands of tokens would have no usable variance. The cap bounds what a token
    that the sampler held for unlikely can do. Metrics (means over tokens): the weight, the share capped, and how far apart
    the two log-probabilities are (nats).
    """
    mask_NT = mask_NT.bool()
    difference_NT = torch.where(mask_NT, (logprob_NT - sampler_logprob_NT).detach(), torch.zeros_like(logprob_NT))
    ratio_NT = difference_NT.exp()
    weight_NT = ratio_NT.clamp(max=cap)
    tokens = mask_NT.sum()
    metrics = {
        "weight": (weight_NT * mask_NT).sum() / tokens,
        "capped": ((ratio_NT > cap) & mask_NT).sum() / tokens,
        "difference": difference_NT.abs().sum() / tokens,
    }
    return weight_NT, metrics


def kl_penalty(logprob_NT: Tensor, reference_logprob_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Mean over thoughts of the per-token KL to a reference, as exp(d) - d - 1 with d = log ref - log pi (never negative).

    The paper's ablation (table S.1) scales it by beta and finds beta = 0 best; scalar, with gradient.
    """
    mask_NT = mask_NT.bool()
    difference_NT = torch.where(mask_NT, reference_logprob_NT.detach() - logprob_NT, torch.zeros_like(logprob_NT))
    estimate_NT = difference_NT.exp() - difference_NT - 1
    return (estimate_NT.sum(dim=-1) / mask_NT.sum(dim=-1)).mean()


def prefix_match(predicted_NM: Tensor, next_tokens_NM: Tensor, length_N: Tensor) -> Tensor:
    """RPT's reward (arXiv 2506.08007): 1.0 when the first ``length_N`` predicted tokens are the text's own, else 0.0."""
    positions_M = torch.arange(predicted_NM.shape[-1], device=predicted_NM.device)
    wrong_NM = (predicted_NM != next_tokens_NM) & (positions_M < length_N.unsqueeze(-1))
    return (~wrong_NM.any(dim=-1)).float()


def flop_matched_tokens(rollouts: int, sequence_length: int, batch_size: int, steps: int, input_tokens: int) -> int:
    """The paper's equal-compute budget of CPT in tokens: T_flop = n * l_seq * bs * iters + T_inp.

    It counts a generated token like a trained one, and is an upper bound; ``sequence_length`` counts context and thought.
    """
    return rollouts * sequence_length * batch_size * steps + input_tokens


@torch.no_grad()
def ema_update(teacher: list[Tensor], student: list[Tensor], decay: float) -> None:
    """phi <- tau phi + (1 - tau) theta, in place and in fp32: at tau = 0.999 a bf16 teacher would never move."""
    assert all(parameter.dtype == torch.float32 for parameter in teacher), "the EMA teacher is kept in fp32"
    torch._foreach_lerp_(teacher, [parameter.float() for parameter in student], 1 - decay)

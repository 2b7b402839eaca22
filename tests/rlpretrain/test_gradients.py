"""Gradients that are added in place are those that autograd adds up."""

import copy

import pytest
import torch

from rlpretrain.gradients import DirectEmbedding, use_direct_embeddings
from rlpretrain.lm_head import token_logprobs
from rlpretrain.training.precision import MixedPrecision
from tests.rlpretrain.architectures import small_model

PASSES = (torch.tensor([[5, 9, 7, 4, 5, 0, 6]]), torch.tensor([[5, 5, 30, 1]]))


def backward_passes(model: torch.nn.Module, direct: bool) -> None:
    for tokens in PASSES:
        hidden = model.base_model(tokens).last_hidden_state[0, :-1]
        if direct:
            logprob, _ = token_logprobs(model, hidden, tokens[0, 1:])
        else:
            logprob = model.lm_head(hidden).float().log_softmax(dim=-1).gather(-1, tokens[0, 1:, None])
        logprob.sum().backward()


@pytest.mark.parametrize("name", ["llama", "qwen3"])  # one ties embedding and head, the other does not
@pytest.mark.parametrize("padding", [None, 0])
def test_gradients_add_up_over_uses_and_passes(name: str, padding: int | None) -> None:
    model, twin = small_model(name), small_model(name)
    use_direct_embeddings(model)
    assert type(model.get_input_embeddings()) is DirectEmbedding
    for one in (model, twin):
        one.get_input_embeddings().padding_idx = padding
    backward_passes(model, direct=True)
    backward_passes(twin, direct=False)
    for (parameter, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5, msg=parameter)


def test_gradients_of_a_bf16_copy_add_up_in_its_master() -> None:
    masters = small_model("llama")
    use_direct_embeddings(masters)
    mixed = MixedPrecision(masters, torch.bfloat16)
    twin = copy.deepcopy(masters)
    backward_passes(mixed.compute, direct=True)
    backward_passes(twin, direct=False)
    for (name, ours), theirs in zip(masters.named_parameters(), twin.parameters(), strict=True):
        assert ours.grad.dtype == torch.float32
        assert (ours.grad - theirs.grad).norm() < 0.05 * theirs.grad.norm(), name

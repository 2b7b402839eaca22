"""The chunked LM head and the fast linear layers against plain autograd."""

import pytest
import torch
from torch.nn.functional import linear as plain_linear

from rlpretrain import lm_head
from rlpretrain.linear import FastLinear, linear, packed, use_fast_linears
from tests.rlpretrain.architectures import small_model


@pytest.mark.parametrize("chunk", [1, 7 * 20, 2**24])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_logprobs_entropy_and_gradients_equal_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, chunk: int, name: str
) -> None:
    monkeypatch.setattr(lm_head, "BLOCK_LOGITS", chunk)
    model = small_model(name)
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 32, generator=random)
    token = torch.randint(5, 40, (20,), generator=random)
    weights = torch.randn(20, generator=random)
    excluded = torch.tensor([1, 4])
    results = []
    for way in ("ours", "plain"):
        states = hidden.clone().requires_grad_()
        model.zero_grad()
        if way == "ours":
            logprob, entropy = lm_head.token_logprobs(model, states, token, excluded, 0.7)
            assert not entropy.requires_grad
        else:
            logits = (model.lm_head(states) / 0.7).index_fill(-1, excluded, float("-inf"))
            every = logits.log_softmax(dim=-1)
            logprob = every[range(20), token]
            entropy = -(every.exp() * every.masked_fill(every.isinf(), 0.0)).sum(dim=-1).detach()
        (logprob * weights).sum().backward()
        results.append((logprob, entropy, states.grad, model.lm_head.weight.grad.clone()))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (1, 8)])
def test_linear_equals_pytorchs(bias: bool, shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    given = [torch.randn(*shape, generator=random), torch.randn(6, 8, generator=random)]
    given += [torch.randn(6, generator=random)] if bias else []
    results = []
    for function in (linear, plain_linear):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        output = function(*leaves)
        output.square().sum().backward()
        results.append((output, *(leaf.grad for leaf in leaves)))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_fast_linears_keep_names_and_values() -> None:
    model, twin = small_model("llama"), small_model("llama")
    use_fast_linears(model)
    assert any(type(module) is FastLinear for module in model.modules())
    assert model.state_dict().keys() == twin.state_dict().keys()
    tokens = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(model(tokens).logits, twin(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cast_rows", [3, 2048])
def test_evidence_of_a_bf16_model_is_exact(monkeypatch: pytest.MonkeyPatch, cast_rows: int) -> None:
    monkeypatch.setattr(lm_head, "CAST_ROWS", cast_rows)
    model = small_model("llama").bfloat16()
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        logits = lm_head.exact_logits_at(model, hidden)
        exact = hidden.double() @ model.lm_head.weight.double().t()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), exact, atol=1e-5, rtol=1e-5)


def test_packed_layers_compute_the_same_and_only_while_asked() -> None:
    model = small_model("llama").bfloat16()
    use_fast_linears(model)
    layer = model.model.layers[0].mlp.gate_proj
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        plain = layer(rows)
        with packed(model):
            torch.testing.assert_close(layer(rows), plain, atol=2**-7, rtol=2**-7)
            layer.weight.zero_()
            assert layer(rows).abs().sum() > 0  # the copy's, where oneDNN has bf16
        assert layer(rows).abs().sum() == 0

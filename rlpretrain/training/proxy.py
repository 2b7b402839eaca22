"""RPT's proxy: a small model that finds the tokens worth thinking about, those that it is least sure of (arXiv 2506.08007)."""

from copy import deepcopy

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.errors import UserError
from rlpretrain.lm_head import token_logprobs
from rlpretrain.models import load_model
from rlpretrain.scoring import sequence_states
from rlpretrain.settings import ProxySettings
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.world import join


class Proxy:
    """A frozen model, asked for the entropy of its predictions."""

    def __init__(self, model: PreTrainedModel, share: float) -> None:
        """``share`` of a document's tokens, those of the highest entropy, are worth thinking about."""
        self.model = model.requires_grad_(False).eval().to(join().device)
        self.share = share
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)

    @torch.no_grad()
    def entropies(self, tokens: np.ndarray) -> np.ndarray:
        """Entropy in nats of the prediction of tokens 1, 2, ... of a text, as far as the model's positions reach."""
        tokens = tokens[: self.positions]
        hidden_RD, _ = sequence_states(self.model, [tokens[:-1].tolist()])
        target_R = torch.from_numpy(tokens[1:].astype(np.int64)).to(self.model.device)
        _, entropy_R = token_logprobs(self.model, hidden_RD, target_R)
        return entropy_R.cpu().numpy()

    def places(self, tokens: np.ndarray) -> np.ndarray:
        """The tokens, from 1 on, that are hardest to predict: at least one."""
        entropies = self.entropies(tokens)
        count = max(1, round(self.share * len(entropies)))
        return np.sort(np.argsort(-entropies, kind="stable")[:count]) + 1


def build_proxy(settings: ProxySettings, start: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Proxy:
    """The proxy that ``settings`` ask for; UserError when its token ids mean other tokens than ``tokenizer``'s."""
    if settings.model is None:
        return Proxy(deepcopy(start), settings.share)
    known, theirs = tokenizer.get_vocab(), load_tokenizer(settings.model, settings.revision).get_vocab()
    if any(known.get(token) != index for token, index in theirs.items()):
        raise UserError(
            f"proxy.model: {settings.model} has another vocabulary than the model that is trained; choose one of its family"
        )
    return Proxy(load_model(settings.model, settings.revision), settings.share)

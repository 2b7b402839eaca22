"""lm-eval's view of our torch engine: the k repeats of a question share one prefill and are sampled as one group."""

from collections.abc import Iterable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import EvaluateSettings


class EngineModel(HFLM):
    """Log-likelihood tasks run as HFLM runs them; generation goes through `TorchEngine`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: EvaluateSettings,
        opening: list[int],
    ) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch, device=str(model.device))
        self.engine = TorchEngine(model)
        self.settings = settings
        self.opening = opening  # token ids put after every prompt

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts in the order of the requests; repeats of one question stand next to each other or not."""
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(request.args[0], []).append(place)
        eos = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        prompts = [self.tokenizer.encode(prompt, add_special_tokens=False) + self.opening for prompt in places]
        texts = [""] * len(requests)
        by_size: dict[int, list[int]] = {}
        for index, where in enumerate(places.values()):
            by_size.setdefault(len(where), []).append(index)
        every = list(places.values())
        for size, members in sorted(by_size.items()):
            groups = self.engine.generate(
                [prompts[index] for index in members],
                group=size,
                max_new_tokens=self.settings.max_new_tokens,
                temperature=self.settings.temperature,
                stop_ids={eos},
                forbidden_ids={pad} - {eos, None},
                seed=self.settings.seed,
                batch=self.settings.batch,
            )
            for index, group in zip(members, groups, strict=True):
                for place, tokens in zip(every[index], group, strict=True):
                    texts[place] = self._text(tokens, eos, requests[place])
        return texts

    def _text(self, tokens: list[int], eos: int, request: Instance) -> str:
        body = tokens[:-1] if tokens and tokens[-1] == eos else tokens
        # The delimiters are special tokens, and the answer is what follows them: they stay.
        text = self.tokenizer.decode(body, skip_special_tokens=False)
        for stop in _stops(request.args[1]):
            text = text.split(stop)[0]
        return text


def _stops(arguments: dict[str, Any]) -> Iterable[str]:
    until = arguments.get("until") or []
    return [until] if isinstance(until, str) else [stop for stop in until if stop]

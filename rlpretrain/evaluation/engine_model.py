"""lm-eval's view of a model and a task: the k repeats of a question share one prefill and are sampled as one group."""

import io
from contextlib import redirect_stderr
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpretrain.errors import UserError
from rlpretrain.rollout.interface import RolloutEngine
from rlpretrain.settings import EvaluateSettings


class SampledTask(ConfigurableTask):
    """A task that is loaded and built in silence: lm-eval and datasets draw two bars a task, over in milliseconds."""

    def __init__(self, config: dict[str, Any]) -> None:
        with redirect_stderr(io.StringIO()):
            super().__init__(config=config)

    def build_all_requests(self, **options: Any) -> None:
        with redirect_stderr(io.StringIO()):
            super().build_all_requests(**options)


class EngineModel(HFLM):
    """Log-likelihood tasks run as HFLM runs them; generation goes through a rollout engine."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: EvaluateSettings,
        opening: list[int],
        engine: RolloutEngine,
    ) -> None:
        with redirect_stderr(io.StringIO()):  # it warns that a model in memory is already loaded
            super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch, device=str(model.device))
        self.engine = engine
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)
        self.settings = settings
        self.opening = opening  # token ids put after every prompt

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts in the order of the requests. Raises UserError when prompt and response do not fit the model.

        Length and seed are the settings', the same for every task; temperature and `until` are the request's own.
        """
        places: dict[tuple[str, float], list[int]] = {}  # prompt and temperature -> where its repeats stand
        for place, request in enumerate(requests):
            prompt, arguments = request.args
            places.setdefault((prompt, float(arguments["temperature"])), []).append(place)
        texts = [""] * len(requests)
        for group, temperature in sorted({(len(repeats), key[1]) for key, repeats in places.items()}):
            prompts = [key[0] for key, repeats in places.items() if (len(repeats), key[1]) == (group, temperature)]
            for prompt, responses in zip(prompts, self._sample(prompts, group, temperature), strict=True):
                for place, tokens in zip(places[prompt, temperature], responses, strict=True):
                    texts[place] = self._text(tokens, requests[place].args[1])
        return texts

    def _sample(self, prompts: list[str], group: int, temperature: float) -> list[list[list[int]]]:
        ids = [[*self.tokenizer.encode(prompt, add_special_tokens=False), *self.opening] for prompt in prompts]
        longest = max(map(len, ids))
        length = self.settings.max_new_tokens
        if self.positions is not None and longest + length > self.positions:
            raise UserError(
                f"max_new_tokens: {length} after a prompt of {longest} tokens exceeds the model's {self.positions} "
                f"positions; lower it to {max(0, self.positions - longest)}"
            )
        stops = {self.tokenizer.eos_token_id} - {None}
        return self.engine.generate(
            ids,
            group=group,
            max_new_tokens=length,
            temperature=temperature,
            stop_ids=stops,
            forbidden_ids={self.tokenizer.pad_token_id} - {None} - stops,
            seed=self.settings.seed,
            batch=self.settings.batch,
        )

    def _text(self, tokens: list[int], arguments: dict[str, Any]) -> str:
        if tokens and tokens[-1] == self.tokenizer.eos_token_id:
            tokens = tokens[:-1]
        # The delimiters are special tokens, and the answer is what follows them: they stay.
        text = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for stop in arguments.get("until") or []:
            text = text.split(stop)[0]
        return text

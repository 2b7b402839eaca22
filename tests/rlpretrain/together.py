"""Trainings small enough for a test, run by one process or, as a script under torchrun, by several together.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.rlpretrain.together FOLDER
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from rlpretrain.data.shards import Example
from rlpretrain.models import use_fast_layers
from rlpretrain.rollout.torch_engine import TorchEngine
from rlpretrain.settings import (
    LikelihoodSettings,
    OptimizerSettings,
    ThinkingSettings,
    ThoughtSettings,
)
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.checkpoints import save_checkpoint
from rlpretrain.training.likelihood import train_likelihood
from rlpretrain.training.rewards import InformationGain, VerifiedAnswer
from rlpretrain.training.sharding import whole_tensors
from rlpretrain.training.thinking import ThinkingTrainer
from rlpretrain.training.world import join
from tests.rlpretrain.architectures import HYBRID, small_model

TOKENIZER = load_tokenizer("builtin:characters")
CASES = ("cpt", "rlp", "rlp hybrid", "rlvr", "rlp checkpointed", "rlp bf16")
FAST = OptimizerSettings(learning_rate=1e-3, weight_decay=0.01)


def documents(problems: bool = False) -> Iterator[Example]:
    """Of many lengths, without an end."""
    random = np.random.default_rng(0)
    for number in range(10_000):
        tokens = random.integers(4, 99, random.integers(3, 20)).astype(np.int32)
        yield Example(f"d{number}", tokens, len(tokens) if problems else 0, "a" if problems else "")


def model(case: str) -> Any:
    """Qwen3's kind, Llama's with tied embeddings, or a hybrid with Mamba layers."""
    kind = HYBRID if case == "rlp hybrid" else "qwen3" if case == "rlvr" else "llama"
    made = small_model(kind, 1, len(TOKENIZER))
    use_fast_layers(made)
    return made


def thinking_trainer(case: str) -> ThinkingTrainer:
    """Places that do not divide evenly among processes, in passes of one or two groups."""
    settings = ThinkingSettings(
        steps=3,
        batch_contexts=5,
        positions=2,
        group=3,
        max_context=16,
        micro_batch=6,
        ema_decay=0.5,
        kl_weight=0.1 if case == "rlp" else 0.0,
        compute_dtype="bfloat16" if case == "rlp bf16" else "float32",
        activation_checkpointing=case == "rlp checkpointed",
        thought=ThoughtSettings(budget=4, recap=0 if case == "rlvr" else 2),
        optimizer=FAST,
    )
    trained = model(case)
    if case == "rlvr":
        form = ThoughtFormat.response(settings.thought, TOKENIZER)
        reward: Any = VerifiedAnswer(TOKENIZER, r"([a-p])", settings.thought, max_context=20)
    else:
        form = ThoughtFormat.build(settings.thought, TOKENIZER)
        reward = InformationGain(form, settings, TOKENIZER.eos_token_id)
    trainer = ThinkingTrainer(trained, TorchEngine(trained), TOKENIZER, form, reward, settings, seed=3)
    trainer.draws_by_context = True
    return trainer


def thinking_gradient(case: str) -> dict[str, Tensor]:
    """The gradient of one batch, whole."""
    trainer, world = thinking_trainer(case), join()
    random = np.random.default_rng(1)
    examples = documents(case == "rlvr")
    places = [trainer.reward.positions(next(examples), random) for _ in range(5)]
    mine = [place for each in world.share(places) for place in each]
    thoughts = trainer.sample(mine, 0, trainer._context_seeds(places, 7)).tokens
    trainer.reward.begin_step(trainer.model)
    trainer.accumulate(mine, thoughts)
    return {
        name: grad
        for name, grad in whole_tensors(
            (name, p.grad) for name, p in trainer.model.named_parameters() if p.grad is not None
        )
    }


def train(case: str, output: Path) -> None:
    """Metrics, thoughts and the finished model of a case in ``output``."""
    if case == "cpt":
        trained = model(case)
        settings = LikelihoodSettings(
            steps=3, batch_documents=5, sequence_length=16, micro_batch=2, compute_dtype="float32", optimizer=FAST
        )
        train_likelihood(trained, documents(), settings, output, case)
    else:
        trainer = thinking_trainer(case)
        trained = trainer.model
        trainer.train(documents(case == "rlvr"), output, case)
    save_checkpoint(trained, TOKENIZER, output, case, 3, 0)


def main(folder: Path) -> None:
    """All cases; the first process leaves them in ``folder``, the others in a folder below it."""
    world = join()
    own = folder if world.rank == 0 else folder / f"rank{world.rank}"
    for case in CASES:
        train(case, own / case)
        if case != "cpt":
            save_file(thinking_gradient(case), own / case / "gradient.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

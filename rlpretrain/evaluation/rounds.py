"""Sampling in rounds that are kept: an evaluation that was killed and starts again samples only what it has not yet.

A round is an artifact (`artifacts`) of responses, named by all that they follow from: prompts, sampling, inputs, settings, code
and libraries. One that lies under its name is thus the one that would be sampled again. Rounds lie in one local folder and, where
a URI is given, below it in storage, until the evaluation is over.
"""

import re
import shutil
import sys
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel

from rlpretrain.artifacts import (
    MANIFEST,
    Origin,
    canonical_digest,
    code_digest,
    library_versions,
    verify,
    write_manifest,
)
from rlpretrain.errors import Damaged, UserError
from rlpretrain.rollout.interface import RolloutEngine, Rollouts, Sampling
from rlpretrain.training.loop import derived_seed

KIND = "responses"
FILE = "responses.safetensors"
_NAME = re.compile(r"[0-9a-f]{16}")

Responses = list[list[list[int]]]  # token ids, by prompt and member of its group


class Rounds:
    """The rounds of one evaluation."""

    def __init__(self, folder: Path, origin: Origin, uri: str = "") -> None:
        """``origin``: what the evaluation follows from."""
        self.folder = folder
        self.origin = Origin(KIND, origin.settings, origin.inputs)
        self.uri = uri.rstrip("/")

    def name(self, prompts: list[list[int]], sampling: Sampling) -> str:
        """What a round is called."""
        plain = {name: sorted(value) if isinstance(value, set) else value for name, value in sampling.items()}
        follows_from = [self.origin.settings, self.origin.inputs, code_digest(), library_versions()]
        return canonical_digest([prompts, plain, follows_from])[:16]

    def find(self, name: str) -> Responses | None:
        """A round of an earlier attempt, fetched where it is in storage alone; a damaged one counts as none, with a line."""
        place = self.folder / name
        try:
            if (place / MANIFEST).exists():
                verify(place, KIND)
            elif name in self._stored:
                from rlpretrain.storage import download_folder

                download_folder(f"{self.uri}/{name}", place)
            else:
                return None
        except Damaged as error:
            print(f"a round of responses is sampled again: {error}", file=sys.stderr)
            shutil.rmtree(place, ignore_errors=True)
            return None
        return _unpacked(load_file(place / FILE))

    def keep(self, name: str, responses: Responses) -> None:
        """Write a round, whole or not at all, and copy it to storage; that this fails is told, for nothing is lost yet."""
        unfinished = self.folder / f"{name}.partial"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save_file(_packed(responses), unfinished / FILE)
        origin = self.origin
        write_manifest(
            unfinished, kind=KIND, settings=origin.settings, inputs=origin.inputs, seed=origin.seed, facts={}
        )
        shutil.rmtree(self.folder / name, ignore_errors=True)  # half fetched
        unfinished.replace(self.folder / name)
        if not self.uri:
            return
        from rlpretrain.storage import upload_folder

        try:
            upload_folder(self.folder / name, f"{self.uri}/{name}")
        except UserError as error:
            print(f"a round of responses could not be copied to storage: {error}", file=sys.stderr)

    def discard(self) -> None:
        """Remove all of them: the evaluation's own artifact has taken their place."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.uri:
            from rlpretrain.storage import remove_artifacts

            remove_artifacts(self.uri, _NAME)

    @cached_property
    def _stored(self) -> set[str]:
        if not self.uri:
            return set()
        from rlpretrain.storage import list_artifacts

        return {uri.rpartition("/")[2] for uri in list_artifacts(self.uri)}


class RoundsEngine:
    """Samples by another engine, round by round; satisfies `RolloutEngine`. A single round draws as the engine itself does."""

    def __init__(self, engine: RolloutEngine, rounds: Rounds, responses: int) -> None:
        """``responses``: about how many make a round."""
        self.engine = engine
        self.rounds = rounds
        self.responses = responses

    def use(self, model: PreTrainedModel) -> None:
        """See `RolloutEngine.use`."""
        self.engine.use(model)

    def rollout(self, prompts: list[list[int]], **sampling: Unpack[Sampling]) -> Rollouts:
        """See `RolloutEngine.rollout`; nothing is kept of it."""
        return self.engine.rollout(prompts, **sampling)

    def generate(self, prompts: list[list[int]], **sampling: Unpack[Sampling]) -> Responses:
        """See `RolloutEngine.generate`."""
        together = max(1, sampling["batch"] // sampling["group"])  # prompts, which a round does not tear apart
        size = max(1, self.responses // sampling["group"] // together) * together
        seed, seeds = sampling["seed"], sampling.get("seeds")
        responses: Responses = []
        found = 0
        for number, start in enumerate(range(0, len(prompts), size)):
            part = prompts[start : start + size]
            if number:
                sampling["seed"] = derived_seed(seed, f"round {number}")
            if seeds is not None:
                sampling["seeds"] = seeds[start : start + size]
            name = self.rounds.name(part, sampling)
            kept = self.rounds.find(name)
            if kept is None:
                if found:
                    print(f"evaluation: goes on after {start} of {len(prompts)} prompts", file=sys.stderr)
                    found = 0
                kept = self.engine.generate(part, **sampling)
                self.rounds.keep(name, kept)
            else:
                found += 1
            responses += kept
        return responses


def _packed(responses: Responses) -> dict[str, Any]:
    lengths = [[len(member) for member in group] for group in responses]
    tokens = chain.from_iterable(chain.from_iterable(responses))
    return {"lengths": np.array(lengths, dtype=np.int32), "tokens": np.fromiter(tokens, dtype=np.int32)}


def _unpacked(packed: dict[str, Any]) -> Responses:
    tokens, lengths = packed["tokens"].tolist(), packed["lengths"]
    ends = lengths.cumsum().reshape(lengths.shape)
    return [
        [tokens[end - length : end] for end, length in zip(*row, strict=True)]
        for row in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]

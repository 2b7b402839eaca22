"""The documents of a split, endlessly, in a seeded order: each of N ranks gets its part, and it can stop and go on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from rlpretrain.data.shards import Example, read_shard, shard_files
from rlpretrain.errors import UserError


class ShardLoader:
    """Iterates endlessly; every epoch visits each document once over all ranks, in an order of its own.

    The order shuffles the files, and the documents within each, so that one file at a time is in memory. Raises UserError
    when the split is empty, or holds fewer documents than there are ranks.
    """

    def __init__(
        self, folder: Path, split: str = "train", *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        assert 0 <= rank < world_size
        self.files = shard_files(folder, split)
        if not self.files:
            raise UserError(f"the shards in {folder.name} hold no document of split '{split}'; mend the sources of shard_data")
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.position = 0  # documents of this epoch already given to this rank
        self._current: Iterator[Example] = self._epoch()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Example:
        example = next(self._current, None)
        if example is None:
            if self.position == 0:
                raise UserError(f"split '{self.files[0].name.split('-')[0]}' has fewer documents than the {self.world_size} ranks; use fewer")
            self.epoch += 1
            self.position = 0
            self._current = self._epoch()
            return next(self)
        self.position += 1
        return example

    def state(self) -> dict[str, int]:
        """Where this rank stands; give it to `restore` of a loader of the same shards, seed and ranks."""
        return {"epoch": self.epoch, "position": self.position}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with the document after those that ``state`` counts."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._current = self._epoch(skip=self.position)

    def _epoch(self, skip: int = 0) -> Iterator[Example]:
        random = np.random.default_rng([self.seed, self.epoch])
        index = given = 0
        for file in random.permutation(len(self.files)):
            examples = list(read_shard(self.files[file]))
            for row in random.permutation(len(examples)):
                mine = index % self.world_size == self.rank
                index += 1
                if not mine:
                    continue
                given += 1
                if given > skip:
                    yield examples[row]

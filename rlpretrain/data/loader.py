"""The documents of a split, endlessly, in a seeded order: each of N ranks gets its part, and it can stop and go on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from rlpretrain.data.shards import Example, count_documents, read_shard, shard_files
from rlpretrain.errors import UserError


class ShardLoader:
    """Iterates endlessly; every epoch visits each document once over all ranks, in an order of its own.

    The order shuffles the files, and the documents within each, so that one file at a time is in memory. Ranks take
    documents in turn. Raises UserError when the split is empty, holds fewer documents than there are ranks, or is damaged.
    """

    def __init__(self, folder: Path, split: str = "train", *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        assert 0 <= rank < world_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.position = 0  # documents of this epoch already given to this rank
        self._files = shard_files(folder, split)
        self._counts = [count_documents(file) for file in self._files]
        if self.documents == 0:
            raise UserError(
                f"{folder.name}: the shards hold no document of split '{split}'; mend shard_data's settings"
            )
        if self.documents < world_size:
            raise UserError(
                f"{folder.name}: split '{split}' has {self.documents} documents for {world_size} ranks; use fewer ranks"
            )
        self._current = self._epoch()

    @property
    def documents(self) -> int:
        """Documents of the split, over all ranks."""
        return sum(self._counts)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Example:
        example = next(self._current, None)
        if example is None:
            self.epoch += 1
            self.position = 0
            self._current = self._epoch()
            example = next(self._current)
        self.position += 1
        return example

    def state(self) -> dict[str, int]:
        """Where this rank stands; give it to `restore` of a loader of the same shards, seed, rank and ranks."""
        return {"epoch": self.epoch, "position": self.position, **self._identity()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with the document after those that ``state`` counts; UserError when it is of another loader."""
        for name, value in self._identity().items():
            if state[name] != value:
                raise UserError(f"cannot resume: the data loader's {name} was {state[name]} and is now {value}")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._current = self._epoch(skip=self.position)

    def _identity(self) -> dict[str, int]:
        """What the order depends on; with any of it changed, a position means other documents."""
        return {
            "seed": self.seed,
            "rank": self.rank,
            "world_size": self.world_size,
            "documents": self.documents,
            "files": len(self._files),
        }

    def _epoch(self, skip: int = 0) -> Iterator[Example]:
        """This rank's documents of the epoch, without the first ``skip``; files that hold none of them stay unread."""
        random = np.random.default_rng([self.seed, self.epoch])
        first = self.rank + skip * self.world_size  # counted over all ranks, from the start of the file at hand
        for file in random.permutation(len(self._files)).tolist():
            order = random.permutation(self._counts[file])[first :: self.world_size].tolist()
            if order:
                examples = list(read_shard(self._files[file]))
                for row in order:
                    yield examples[row]
            first += len(order) * self.world_size - self._counts[file]

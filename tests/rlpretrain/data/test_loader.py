"""Shards are read back as written; a loader loses and doubles nothing over ranks, epochs and resumes."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpretrain.data.loader import ShardLoader
from rlpretrain.data.shards import Example, ShardWriter, read_shards, shard_files
from rlpretrain.errors import UserError


def write(folder: Path, documents: int, per_file: int = 3, split: str = "train") -> list[str]:
    writer = ShardWriter(folder, split, shard_tokens=2 * per_file)
    for index in range(documents):
        writer.add(Example(f"{index:04d}", np.array([index, index + 1], np.int32), 1, f"a{index}", "s", "p"))
    writer.close()
    return [f"{index:04d}" for index in range(documents)]


def test_round_trip(tmp_path: Path) -> None:
    names = write(tmp_path, 7)
    assert [file.name for file in shard_files(tmp_path, "train")] == [f"train-0000{i}.parquet" for i in range(3)]
    examples = list(read_shards(tmp_path, "train"))
    assert [example.id for example in examples] == names
    last = examples[-1]
    assert last.tokens.tolist() == [6, 7] and last.tokens.dtype == np.int32
    assert (last.prompt_length, last.answer, last.source, last.prompt) == (1, "a6", "s", "p")


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_ranks_cover_every_epoch_once_also_after_a_resume(data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, 5))
    documents = data.draw(st.integers(world_size, 30))
    seed = data.draw(st.integers(0, 2**32))
    with tempfile.TemporaryDirectory() as folder:
        names = write(Path(folder), documents, per_file=data.draw(st.integers(1, 10)))
        seen: list[list[str]] = [[], []]  # by epoch
        for rank in range(world_size):
            share = len(range(rank, documents, world_size))
            loader = ShardLoader(Path(folder), seed=seed, rank=rank, world_size=world_size)
            straight = [next(loader).id for _ in range(2 * share)]
            stop = data.draw(st.integers(0, 2 * share))
            first = ShardLoader(Path(folder), seed=seed, rank=rank, world_size=world_size)
            resumed = [next(first).id for _ in range(stop)]
            second = ShardLoader(Path(folder), seed=seed, rank=rank, world_size=world_size)
            second.restore(first.state())
            resumed += [next(second).id for _ in range(2 * share - stop)]
            assert resumed == straight
            seen[0] += straight[:share]
            seen[1] += straight[share:]
        assert sorted(seen[0]) == sorted(seen[1]) == names


def test_order_is_seeded_and_new_in_every_epoch(tmp_path: Path) -> None:
    write(tmp_path, 30, per_file=10)
    orders = []
    for seed in (0, 0, 1):
        loader = ShardLoader(tmp_path, seed=seed)
        orders.append([next(loader).id for _ in range(60)])
    assert loader.documents == 30
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:30] != orders[0][30:]


def test_empty_split_and_too_many_ranks(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with pytest.raises(UserError, match="no document of split 'held_out'"):
        ShardLoader(tmp_path, "held_out", seed=0)
    with pytest.raises(UserError, match="2 documents for 3 ranks"):
        ShardLoader(tmp_path, seed=0, rank=0, world_size=3)


def test_a_state_of_another_loader_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 8)
    state = ShardLoader(tmp_path, seed=0, rank=0, world_size=2).state()
    with pytest.raises(UserError, match="world_size was 2 and is now 1"):
        ShardLoader(tmp_path, seed=0).restore(state)


def test_a_corrupted_shard_gives_one_line(tmp_path: Path) -> None:
    write(tmp_path, 2)
    (tmp_path / "train-00000.parquet").write_bytes(b"PAR1 nothing PAR1")
    for read in (lambda: list(read_shards(tmp_path, "train")), lambda: ShardLoader(tmp_path, seed=0)):
        with pytest.raises(UserError, match=r"train-00000\.parquet: not a readable shard") as raised:
            read()
        assert "\n" not in str(raised.value)

"""One flipped bit anywhere in an artifact of any kind is noticed before use, and the file is named."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlpretrain.artifacts import MANIFEST, verify, write_manifest
from rlpretrain.data.shards import Example, ShardWriter
from rlpretrain.errors import UserError
from rlpretrain.models import new_model
from rlpretrain.settings import ArchitectureSettings
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.checkpoints import save_checkpoint

FLIPS = 300  # of each kind of artifact
SHAPE = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=2, feed_forward=16, max_positions=96)


def shards(folder: Path) -> None:
    writer = ShardWriter(folder, "train", 1000)
    for number in range(20):
        writer.add(Example(f"d{number}", np.arange(50, dtype=np.int32), 0, "4", "sums", "2+2"))
    writer.close()


def checkpoint(folder: Path) -> None:
    tokenizer = load_tokenizer("builtin:characters")
    save_checkpoint(new_model(SHAPE, tokenizer, 0), tokenizer, folder, "base", 1, 1)


def evaluation(folder: Path) -> None:
    (folder / "results.json").write_text(json.dumps({"schema_version": 1, "averages": {"pass@1": 0.25}}))
    (folder / "samples").mkdir()
    (folder / "samples" / "sums.jsonl").write_text('{"doc_id": 0, "response": "4"}\n')


def make(kind: str, folder: Path) -> None:
    folder.mkdir()
    {"shards": shards, "checkpoint": checkpoint, "evaluation": evaluation}[kind](folder)
    (folder / "timings.jsonl").write_text('{"step": 1, "time/step": 0.5}\n')
    write_manifest(
        folder,
        kind=kind,
        settings={"learning_rate": 1e-5},
        inputs={"shards": "ab" * 32},
        seed=0,
        facts={"name": "Zoë"},
        volatile=("timings.jsonl",),
    )


@pytest.fixture(params=["shards", "checkpoint", "evaluation"])
def artifact(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make(request.param, tmp_path / request.param)
    return tmp_path / request.param


def test_every_flipped_bit_is_noticed_and_the_file_named(artifact: Path) -> None:
    rng = random.Random(0)
    files = [path for path in sorted(artifact.rglob("*")) if path.is_file()]
    for turn in range(FLIPS):
        # Half of the flips by file, so that small ones get theirs; the manifest in every third turn.
        path = artifact / MANIFEST if turn % 3 == 0 else rng.choice(files)
        content = path.read_bytes()
        bit = rng.randrange(len(content) * 8)
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(UserError) as error:
            verify(artifact, artifact.name)
        line = str(error.value)
        named = path.relative_to(artifact).as_posix()
        # A flip in what the manifest says of a file may show as that file's.
        assert named in line or (path.name == MANIFEST and str(artifact) in line), (bit, line)
        assert "\n" not in line
        path.write_bytes(content)
    verify(artifact, artifact.name)


def test_a_file_cut_at_any_place_is_noticed(artifact: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    for path in sorted(path for path in artifact.rglob("*") if path.is_file()):
        shutil.copyfile(path, tmp_path / "whole")
        for _ in range(5):
            with path.open("r+b") as file:
                file.truncate(rng.randrange(path.stat().st_size))
            with pytest.raises(UserError, match=path.name.replace(".", r"\.")):
                verify(artifact)
            shutil.copyfile(tmp_path / "whole", path)

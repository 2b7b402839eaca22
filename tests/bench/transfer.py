"""How fast files go up and come back: `put_files` and `get_files` against `aws s3 cp`, on one and the same server.

    python -m tests.bench.transfer --json transfer.json

SeaweedFS runs on loopback, from a folder in RAM if /dev/shm has the room. Both contenders send and fetch the same random file, and
a folder of small ones, in turn and in turned order, every time as a fresh process that is timed from its start to its end, imports
included; the first turn does not count, of the others the best does, for what else the machine does only ever adds.
Ours takes the SHA-256 of each byte too, on both ways.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlpretrain.s3server import EmbeddedS3

BUCKET = "bench"
OURS = """
import json, sys
from pathlib import Path
from rlpretrain.storage import connect
way, uri, folder, digests = sys.argv[1:]
digests = json.loads(Path(digests).read_text())
store, folder = connect(uri), Path(folder)
folder.mkdir(exist_ok=True)
files = {name: (folder / name, sha256) for name, sha256 in digests.items()}
store.put_files(files) if way == "up" else store.get_files(files)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=512, help="MiB of the one large file")
    parser.add_argument("--small", type=int, default=200, help="small files, of 64 KiB each")
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=_room(options.large)) as scratch:
        results = _measure(Path(scratch), options.large, options.small, options.repeat)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    _show(results)


def _measure(scratch: Path, large: int, small: int, repeat: int) -> list[dict[str, Any]]:
    from rlpretrain.artifacts import file_sha256

    rng = random.Random(0)
    shapes = {f"one file of {large} MiB": [large * 2**20], f"{small} files of 64 KiB": [2**16] * small}
    results = []
    with EmbeddedS3(scratch / "server") as server:
        server.create_bucket(BUCKET)
        environment = {**os.environ, **server.environment(), "AWS_EC2_METADATA_DISABLED": "true"}
        for shape, sizes in shapes.items():
            source = scratch / "source"
            source.mkdir()
            for number, size in enumerate(sizes):
                with (source / f"{number:03d}").open("wb") as file:
                    for start in range(0, size, 2**20):
                        file.write(rng.randbytes(min(2**20, size - start)))
            digests = scratch / "digests.json"
            digests.write_text(json.dumps({path.name: file_sha256(path) for path in sorted(source.iterdir())}))
            seconds: dict[tuple[str, str], list[float]] = {}
            contenders = [("ours", _ours(digests)), ("aws s3 cp", _aws)]
            for turn in range(repeat + 1):
                for name, command in contenders if turn % 2 else contenders[::-1]:
                    uri, back = f"s3://{BUCKET}/{shape[0]}{turn}{name[:3]}", scratch / "back"
                    for way, folder in (("up", source), ("down", back)):
                        start = time.perf_counter()
                        subprocess.run(
                            command(way, uri, folder), env=environment, check=True, stdout=subprocess.DEVNULL
                        )
                        if turn:  # in the first one the server lays out its volumes
                            seconds.setdefault((name, way), []).append(time.perf_counter() - start)
                    assert [path.stat().st_size for path in sorted(back.iterdir())] == sizes
                    shutil.rmtree(back)
                    subprocess.run(
                        [_binary("aws"), "s3", "rm", "--recursive", uri],
                        env=environment,
                        check=True,
                        stdout=subprocess.DEVNULL,
                    )
            shutil.rmtree(source)
            for way in ("up", "down"):
                ours, aws = (min(seconds[name, way]) for name in ("ours", "aws s3 cp"))
                results.append({"shape": shape, "way": way, "ours": ours, "aws": aws, "ratio": aws / ours})
    return results


def _ours(digests: Path) -> Callable[[str, str, Path], list[str]]:
    return lambda way, uri, folder: [sys.executable, "-c", OURS, way, uri, str(folder), str(digests)]


def _aws(way: str, uri: str, folder: Path) -> list[str]:
    ends = [str(folder), uri] if way == "up" else [uri, str(folder)]
    return [_binary("aws"), "s3", "cp", "--recursive", "--only-show-errors", *ends]


def _binary(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _room(large: int) -> str | None:
    """/dev/shm where it holds the file at its source, on its way and some times in the server."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > 6 * large * 2**20 else None


def _show(results: list[dict[str, Any]]) -> None:
    table = Table("", "way", "ours, s", "aws s3 cp, s", "aws over ours")
    for row in results:
        table.add_row(row["shape"], row["way"], *(f"{row[key]:.2f}" for key in ("ours", "aws", "ratio")))
    Console().print(table)


if __name__ == "__main__":
    main()

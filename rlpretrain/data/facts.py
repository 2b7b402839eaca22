"""What there is to say about shards: how much text, of which sources, and what was removed and why."""

import json
from pathlib import Path
from typing import Any

from rlpretrain.artifacts import read_manifest

REPORT_FILE = "decontamination.json"
_COUNTED = ("documents", "tokens", "sources")
_REMOVED = ("contaminated_removed", "duplicates_removed", "too_short_removed", "prompt_too_long_removed")


def shard_facts(shards: Path) -> dict[str, Any]:
    """Counts of a shards artifact, small enough to stand in the facts of what is made from it."""
    facts = read_manifest(shards, "shards").facts
    report = json.loads((shards / REPORT_FILE).read_text(encoding="utf-8"))
    return {
        **{name: facts[name] for name in _COUNTED},
        "cut": facts.get("cut", 0),  # which older shards do not tell
        "removed": {name.removesuffix("_removed"): facts[name] for name in _REMOVED},
        "ngram": report["ngram"],
        "contaminated_by_benchmark": {name: row["documents_removed"] for name, row in report["benchmarks"].items()},
    }

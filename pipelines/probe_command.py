"""The command probe: its options, put together as settings."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import Endpoint, Runs
from rlpretrain.settings import ProbeSettings, parse_settings


def probe(
    model: Annotated[str, typer.Option(help="a model's folder, a checkpoint artifact, package:NAME or a hub id")],
    corpus: Annotated[
        str,
        typer.Option(
            help="a text, jsonl or parquet file or a folder of them, shards, generator:NAME, a source's .yaml"
        ),
    ],
    output: Annotated[Path, typer.Option(help="folder for the page and results.json")] = Path("probe"),
    places: Annotated[int, typer.Option(help="places in the text")] = 256,
    thoughts: Annotated[int, typer.Option(help="thoughts a place")] = 4,
    budget: Annotated[int, typer.Option(help="most tokens a thought")] = 64,
    temperature: Annotated[float, typer.Option(help="of the sampled thoughts")] = 0.7,
    context: Annotated[int, typer.Option(help="most tokens of context before a place")] = 512,
    documents: Annotated[int, typer.Option(help="most documents read")] = 256,
    field: Annotated[str, typer.Option(help="column that holds the text")] = "text",
    delimiters: Annotated[tuple[str, str], typer.Option(help="what opens and closes a thought")] = (
        "<think>",
        "</think>",
    ),
    recap: Annotated[int, typer.Option(help="context tokens repeated after a thought")] = 0,
    seed: Annotated[int, typer.Option(help="of the places and the thoughts")] = 0,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
) -> None:
    """Does thinking help this model on this text, by how much, and where? No training; a page and a table."""
    values = {
        "places": places,
        "group": thoughts,
        "max_context": context,
        "documents": documents,
        "seed": seed,
        "thought": {
            "open": delimiters[0],
            "close": delimiters[1],
            "budget": budget,
            "temperature": temperature,
            "recap": recap,
        },
    }
    settings = parse_settings(ProbeSettings, values, "probe")
    from rich.console import Console

    from pipelines import local
    from pipelines.probe import run_probe, show_probe

    local.make_folder(output, "--output")
    remote = any(place.startswith("s3://") for place in (model, corpus))
    with local.storage(runs, endpoint) if remote else nullcontext():
        results = run_probe(model, corpus, field, settings, output)
    show_probe(results, Console(width=None if sys.stdout.isatty() else 120))
    print(f"page: {output / 'index.html'}")

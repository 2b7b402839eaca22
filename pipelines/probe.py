"""Does thinking help a model on a text? The model and the text read, the places measured, the page and the table written."""

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from rlpretrain.artifacts import MANIFEST, read_manifest
from rlpretrain.data.corpus import read_corpus
from rlpretrain.errors import UserError, printable
from rlpretrain.evaluation.probe import probe_model
from rlpretrain.memory import keep_freed_memory
from rlpretrain.models import fit_embeddings, load_model
from rlpretrain.report.probe import ProbeResults, probe_results, slice_table, write_probe
from rlpretrain.settings import ProbeSettings
from rlpretrain.storage import download_folder
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.checkpoints import MODEL_FOLDER
from rlpretrain.training.precision import cast_parameters, compute_dtype
from rlpretrain.training.world import join

REPORT_SECONDS = 5.0


def run_probe(model: str, corpus: str, field: str, settings: ProbeSettings, output: Path) -> ProbeResults:
    """Measure, and write results.json and index.html to ``output``; UserError when model or corpus cannot be read."""
    with tempfile.TemporaryDirectory() as scratch:
        place = _local(model, Path(scratch))
        thought = settings.thought
        tokenizer = load_tokenizer(place)
        known = {thought.open, thought.close} <= tokenizer.get_vocab().keys()
        if not known:
            tokenizer = load_tokenizer(place, add_tokens=(thought.open, thought.close))
        examples = read_corpus(corpus, tokenizer, settings.documents, field, settings.seed)
        network = load_model(place)
    fit_embeddings(network, tokenizer)
    world = join()
    cast_parameters(network, compute_dtype("auto", world.device))
    world.place(network)
    keep_freed_memory()
    measured = probe_model(network, tokenizer, examples, settings, _Told())
    results = probe_results(model, corpus, not known, measured, tokenizer, settings)
    write_probe(results, output)
    return results


def show_probe(results: ProbeResults, console: Console) -> None:
    """The verdict in a line, and the gain of every slice."""
    gain = results.gain
    console.print(
        f"\n{results.verdict}: {gain.estimate:+.3f} nats [{gain.low:+.3f}, {gain.high:+.3f}] over {results.places} places, "
        f"best of {results.settings.group} thoughts {results.best_thought.estimate:+.3f}, "
        f"{100 * results.cut_off:.0f}% cut off\n",
        highlight=False,
    )
    table = slice_table(results)
    shown = RichTable(box=None, pad_edge=False)
    for number, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if number < table.words else "right")
    for row in table.rows:
        shown.add_row(*(printable(f"{cell.text} {cell.small}".strip()) for cell in row))
    console.print(shown, highlight=False)


def _local(model: str, scratch: Path) -> str:
    """Where the weights lie: of a checkpoint artifact, fetched where it is in storage, the model folder inside."""
    if model.startswith("s3://"):
        download_folder(model, scratch / "checkpoint")
        model = str(scratch / "checkpoint")
    folder = Path(model)
    if (folder / MANIFEST).is_file():
        read_manifest(folder, "checkpoint")
        return str(folder / MODEL_FOLDER)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"--model {model}: holds no config.json; give a model's folder or a checkpoint artifact")
    return model


class _Told:
    """Says how far the probe is: one line that changes on a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self.said = 0.0

    def __call__(self, done: int, total: int, left: float) -> None:
        terminal = sys.stderr.isatty()
        now = time.perf_counter()
        if terminal or done == total or now - self.said >= REPORT_SECONDS:
            self.said = now
            line = f"probe: {done} of {total} places, {left:.0f} s left"
            print(f"\r{line:<60}" if terminal else line, end="" if terminal and done < total else "\n", file=sys.stderr)

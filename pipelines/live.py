"""A local run as it is seen on a terminal: every task with its state and time, how far the training at hand is, the latest figures.

Drawn from what `pipelines.progress` reads out of the runner's lines. At the end, whatever that is, the view erases itself and
leaves a table of the tasks and their times.
"""

import os
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.progress import Execution, Progress

REFRESHES = 4  # a second
_WAITING, _RUNNING = "·", "●"
_MARKS = {None: _RUNNING, "done": "✓", "cached": "✓", "FAILED": "✗", "stopped": "■"}
_STYLES = {None: "bold cyan", "done": "green", "cached": "green", "FAILED": "bold red", "stopped": "yellow"}
_GAP = 3  # columns between two tasks
_TIME = 8  # columns of a time
_AROUND = 6  # lines besides the tasks: heading, gaps, training, figures, one free
_SHOWN = {
    "reward/gain": ("gain", "nats", "+.3f"),
    "reward/mean": ("reward", "", ".3f"),
    "loss/nll": ("loss", "nats", ".3f"),
    "thought/length": ("thoughts", "tokens", ".1f"),
    "thought/cut_off": ("cut off", "", ".0%"),
}


def on_terminal() -> bool:
    """Whether standard output is a terminal that can be drawn on."""
    return os.isatty(1) and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


class LiveView:
    """Context manager: draws a run for the time of the block, and its tasks once more at the end.

    The terminal is the one that standard output leads to on entering; what is redirected later does not matter.
    """

    def __init__(self, name: str, progress: Progress, console: Console | None = None) -> None:
        self.name = name
        self.progress = progress
        self.started = progress.clock()
        self.console = console or _terminal()
        self._live = Live(
            self,
            console=self.console,
            refresh_per_second=REFRESHES,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()  # shows the cursor again
        self.progress.stop()
        self.console.print(self.summary())

    def line(self, line: str) -> None:
        """Take a line of the runner's output."""
        self.progress.line(line)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = max(1, console.height - _AROUND)
        yield self._heading()
        yield _grid(self._tasks(), options.max_width, lines)
        yield Text()
        yield self._training(options.max_width)
        yield self._figures()

    def summary(self) -> RenderableType:
        """All tasks and their times, however many lines they take."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_row(self._heading())
        table.add_row(_grid(self._tasks(), self.console.width))
        return table

    def _heading(self) -> Text:
        progress = self.progress
        took = duration(progress.clock() - self.started)
        text = Text.assemble((self.name, "bold"), f"  {progress.finished} of {progress.tasks} tasks, {took}")
        return text.append(f"; {progress.failed} FAILED", "bold red") if progress.failed else text

    def _tasks(self) -> list[Text]:
        """A cell a task, in the order that they are known in; of a task in a loop all its executions in one."""
        executions: dict[str, list[Execution]] = {name: [] for name in self.progress.names.values()}
        for execution in list(self.progress.executions):  # the relay's thread adds to it
            executions.setdefault(execution.name, []).append(execution)
        named = {name: f"{name} x{len(its)}" if len(its) > 1 else name for name, its in executions.items()}
        width = max(map(len, named.values()))
        return [self._cell(f"{named[name]:<{width}}", its) for name, its in executions.items()]

    def _cell(self, named: str, executions: list[Execution]) -> Text:
        if not executions:
            return Text(f"{_WAITING} {named} {'':>{_TIME}}", "dim")
        outcomes = {execution.outcome for execution in executions}
        outcome = next((each for each in (None, "FAILED") if each in outcomes), executions[-1].outcome)
        now = self.progress.clock()
        seconds = sum(each.seconds if each.outcome else now - each.started for each in executions)
        mark, style = _MARKS.get(outcome, "?"), _STYLES.get(outcome, "")
        return Text.assemble((f"{mark} {named}", style), f" {duration(seconds):>{_TIME}}")

    def _training(self, width: int) -> RenderableType:
        training = self.progress.training
        if training is None:
            return Text(self.progress.point, "dim")
        left = max(0.0, training.left - (self.progress.clock() - training.said))
        words = f"{training.rate:.2f} steps/s, {f'{left:.0f} s' if left < 60 else duration(left)} left"
        label = f"{self.progress.point} {training.label}".strip().removeprefix("point: ")
        row = Table.grid(padding=(0, 2), expand=False)
        step = f"{label}: step {training.step}/{training.steps}"
        bar = max(8, min(40, width - len(step) - len(words) - 4))
        row.add_row(step, ProgressBar(total=training.steps, completed=training.step, width=bar), words)
        return row

    def _figures(self) -> Text:
        """The newest of each figure; of another training than the one at hand with its label."""
        training = self.progress.training  # read once: the relay's thread sets it
        at_hand = training.label if training else None
        text = Text(no_wrap=True, overflow="ellipsis")
        for name, (title, unit, form) in _SHOWN.items():
            if name in self.progress.latest:
                label, value = self.progress.latest[name]
                whose = "" if label == at_hand else f" ({label})"
                text.append(f"{title} ").append(f"{value:{form}}", "bold").append(f" {unit}".rstrip() + f"{whose}   ")
        return text


def _grid(cells: list[Text], width: int, lines: int | None = None) -> Table:
    """Cells in as many columns as there is room for; of too many those around the first that runs."""
    across = max(1, (width + _GAP) // (len(cells[0]) + _GAP))
    down = -(-len(cells) // across)
    if lines is not None and down > lines:
        down = lines
        running = next((number for number, cell in enumerate(cells) if cell.plain.startswith(_RUNNING)), 0)
        start = max(0, min(running - down * across // 2, len(cells) - down * across))
        cells = cells[start : start + down * across]
    table = Table.grid(padding=(0, _GAP, 0, 0))
    for row in range(down):
        table.add_row(*cells[row::down])
    return table


def duration(seconds: float) -> str:
    """41.2 s, 3:12 min, 1:02 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


class _Terminal(Console):
    """A console as large as the terminal that its file is, whatever this process's streams are by now."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        columns, lines = os.get_terminal_size(self.file.fileno())
        return ConsoleDimensions(columns or 80, lines or 25)  # a bare pseudo-terminal says 0


def _terminal() -> Console:
    """A console of its own on what standard output is now."""
    return _Terminal(file=os.fdopen(os.dup(1), "w", encoding="utf-8"), force_terminal=True, highlight=False)

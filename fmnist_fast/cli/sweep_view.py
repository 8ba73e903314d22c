"""Terminal view of a sweep: progress, the table of the best trials, importances."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from rich.console import Console, Group, NewLine
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..data.datasets import Dataset
from ..distributed.sweep.results import Ranked
from ..distributed.sweep.scheduler import Status, SweepObserver
from ..distributed.sweep.trial import Result
from ..nn.network import Network
from ..training.config import TrainingConfig
from ..training.progress import Progress
from .report import percent

# Seconds between two lines where the output is not a terminal.
LINE_SECONDS = 10

# Spaces between two columns.
GAP = 2


class _LiveBar:
    """Progress bar with lines below, updated in place on a terminal."""

    def __init__(self, console: Console, enabled: bool = True) -> None:
        self._enabled = enabled and console.is_terminal
        self._live = Live(
            console=console, transient=True, auto_refresh=False, redirect_stderr=False
        )

    def __enter__(self) -> Any:
        if self._enabled:
            self._live.start()
            self._live.update(Text("starting"), refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self, fraction: float, *lines: str) -> None:
        if self._enabled:
            bar = ProgressBar(total=1, completed=fraction)
            self._live.update(Group(bar, NewLine(), *map(Text, lines)), refresh=True)


class SweepView(_LiveBar, SweepObserver):
    """On a terminal, a progress bar; elsewhere a line for each new best trial, and one every
    LINE_SECONDS.
    """

    def __init__(self, console: Console, metric: str, quiet: bool = False) -> None:
        super().__init__(console, enabled=not quiet)
        self._console, self._metric, self._quiet = console, metric, quiet
        self._best: int | None = None
        self._printed = monotonic()

    def note(self, message: str) -> None:
        self._printed = monotonic()
        self._console.print(message, soft_wrap=True)

    def update(self, status: Status) -> None:
        if self._quiet:
            return
        if self._enabled:
            self.draw(status.fraction, progress_line(status), best_line(status, self._metric))
        elif status.best and status.best.number != self._best:
            self._best = status.best.number
            self.note(f"{progress_line(status)}; {best_line(status, self._metric)}")
        elif monotonic() - self._printed > LINE_SECONDS:
            self.note(progress_line(status))


class FinalProgress(_LiveBar, Progress):
    """On a terminal, a progress bar of a final training. label : of the training."""

    def __init__(self, console: Console, label: str) -> None:
        super().__init__(console)
        self._label, self._epochs = label, 1

    def begin(self, network: Network, config: TrainingConfig, dataset: Dataset) -> None:
        self._epochs = config.epochs

    def steps(self, epoch: int, done: int, total: int) -> None:
        fraction = (epoch - 1 + done / total) / self._epochs
        self.draw(fraction, f"{self._label}: epoch {epoch} of {self._epochs}")


def progress_line(status: Status) -> str:
    """Return the counts of trials, speed, time left and workers."""
    counts, speed, left = status.counts, status.per_minute, status.seconds_left
    workers = f"{status.workers} worker{'s' * (status.workers != 1)}"
    if not status.workers:
        workers = "waiting for workers"
    elif status.slots > status.workers:
        workers += f", {status.slots} threads"
    parts = (
        f"{counts.ended} of {status.trials} trials",
        counts.pruned and f"{counts.pruned} pruned",
        counts.failed and f"{counts.failed} failed",
        speed and f"{speed:.1f} a minute",
        left is not None and f"{duration(left)} left",
        workers,
        status.rejected and f"{len(status.rejected)} not used",
    )
    return ", ".join(part for part in parts if isinstance(part, str))


def best_line(status: Status, metric: str) -> str:
    """Return number, value and settings of the best trial."""
    if status.best is None:
        return "no trial has ended yet"
    value = value_text(status.best.result.value, metric)
    return f"best: trial {status.best.number}, {value}: {settings_line(status.best.settings)}"


def settings_line(settings: Mapping[str, Any]) -> str:
    """Return the settings in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {short(v)}" for name, v in settings.items())


def value_text(value: float, metric: str) -> str:
    """Format 0.8912 as "89.12 %", a loss in nats."""
    return percent(value) if metric.endswith("accuracy") else f"{value:.4f}"


def short(value: Any) -> str:
    """Format a setting."""
    if isinstance(value, tuple):
        return "-".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Format 75 as "1:15"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def best_table(best: Sequence[Ranked], metric: str, width: int) -> Table:
    """Return a table with a row for each trial. No number is truncated: settings share the last
    column if they do not fit.

    width : of the terminal, in characters.
    """
    columns = {
        "trial": [str(ranked.number) for ranked in best],
        metric.replace("_", " "): [_value_and_spread(ranked.result, metric) for ranked in best],
    }
    wide = columns | {
        name.replace("_", " "): [short(ranked.settings[name]) for ranked in best]
        for name in (best[0].settings if best else ())
    }
    wide["seconds"] = [f"{ranked.result.seconds:.1f}" for ranked in best]
    # A name has a line for each word.
    widths = [max(map(len, (*name.split(), *cells))) for name, cells in wide.items()]
    fits = sum(widths) + GAP * (len(wide) - 1) <= width
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in wide if fits else columns:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    rows = zip(*(wide if fits else columns).values())
    if not fits:
        table.add_column("settings")
        rows = zip(*columns.values(), [settings_line(ranked.settings) for ranked in best])
    for row in rows:
        table.add_row(*row)
    return table


def _value_and_spread(result: Result, metric: str) -> str:
    value = value_text(result.value, metric)
    if result.spread is None:
        return value
    scale, digits = (100, 2) if metric.endswith("accuracy") else (1, 4)
    return f"{value} ± {scale * result.spread:.{digits}f}"


def importance_line(fractions: Mapping[str, float]) -> str:
    """Return the importance of each setting, in percent."""
    parts = (f"{name.replace('_', ' ')} {100 * part:.0f} %" for name, part in fractions.items())
    return "importance: " + ", ".join(parts)

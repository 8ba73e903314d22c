"""What people see of a sweep while it runs, and what came out of it."""

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
from ..distributed.sweep.scheduler import Status, View
from ..distributed.sweep.trial import Result
from ..nn.network import Network
from ..training.config import TrainingConfig
from ..training.progress import Progress
from .report import percent

__all__ = ["FinalProgress", "SweepView", "best_table", "importance_line", "settings_line"]

# Where lines are not replaced by newer ones, seconds between two of them.
LINE_SECONDS = 10

# Characters between two columns.
GAP = 2


class SweepView(View):
    """On a terminal, some lines that change in place; elsewhere a line for a new best trial, and
    now and then one that says how far it is.
    """

    def __init__(self, console: Console, metric: str, quiet: bool = False) -> None:
        self._console, self._metric, self._quiet = console, metric, quiet
        self._live = Live(
            console=console, transient=True, auto_refresh=False, redirect_stderr=False
        )
        self._shown_best: int | None = None
        self._last = monotonic()

    def __enter__(self) -> "SweepView":
        if self._console.is_terminal and not self._quiet:
            self._live.start()
            self._live.update(Text("starting"), refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, message: str) -> None:
        self._print(message)

    def update(self, status: Status) -> None:
        if self._quiet:
            return
        if self._live.is_started:
            self._live.update(self._lines(status), refresh=True)
        elif status.best and status.best[0] != self._shown_best:
            self._shown_best = status.best[0]
            self._print(f"{progress_line(status)}; {best_line(status, self._metric)}")
        elif monotonic() - self._last > LINE_SECONDS:
            self._print(progress_line(status))
        else:
            return
        self._last = monotonic()

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def _lines(self, status: Status) -> Group:
        lines = progress_line(status), best_line(status, self._metric)
        return _under_bar(status.share, *lines)


def _under_bar(share: float, *lines: str) -> Group:
    """A bar, which does not end its line by itself, and lines below."""
    return Group(ProgressBar(total=1, completed=share), NewLine(), *map(Text, lines))


def progress_line(status: Status) -> str:
    """How far it is, how fast, and for how long still."""
    counts, speed, left = status.counts, status.per_minute, status.seconds_left
    parts = [f"{counts.ended} of {status.trials} trials"]
    parts += [f"{counts.pruned} pruned"] * bool(counts.pruned)
    parts += [f"{counts.failed} failed"] * bool(counts.failed)
    parts += [f"{speed:.1f} a minute"] if speed else []
    parts += [f"{duration(left)} left"] if left is not None else []
    workers = f"{status.workers} worker{'s' * (status.workers != 1)}"
    if not status.workers:
        workers = "waiting for workers"
    elif status.slots > status.workers:
        workers += f", {status.slots} threads"
    parts.append(workers)
    parts += [f"{len(status.refused)} not used"] * bool(status.refused)
    return ", ".join(parts)


def best_line(status: Status, metric: str) -> str:
    """The best trial so far."""
    if status.best is None:
        return "no trial has ended yet"
    number, settings, result = status.best
    return f"best: trial {number}, {value_text(result.value, metric)}: {settings_line(settings)}"


def settings_line(settings: Mapping[str, Any]) -> str:
    """Settings in one line, named as the options of train are."""
    return ", ".join(f"{name.replace('_', ' ')} {short(v)}" for name, v in settings.items())


def value_text(value: float, metric: str) -> str:
    """0.8912 as "89.12 %"; a loss in nats."""
    return percent(value) if metric.endswith("accuracy") else f"{value:.4f}"


def short(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, tuple):
        return "-".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """75 as "1:15"."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def best_table(best: Sequence[Ranked], metric: str, width: int) -> Table:
    """A row for each trial, with the spread over seeds and folds where there are several. No number
    is cut: where not every setting has room for a column, they are together in the last.

    width : of the terminal, in characters.
    """
    columns = {
        "trial": [str(ranked.number) for ranked in best],
        metric.replace("_", " "): [_value_and_spread(ranked.result, metric) for ranked in best],
    }
    settings = {
        name.replace("_", " "): [short(ranked.settings[name]) for ranked in best]
        for name in (best[0].settings if best else ())
    }
    wide = columns | settings | {"seconds": [f"{ranked.result.seconds:.1f}" for ranked in best]}
    fits = sum(map(_width, wide, wide.values())) + GAP * (len(wide) - 1) <= width
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in wide if fits else columns:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    if fits:
        rows = list(zip(*wide.values()))
    else:
        table.add_column("settings")
        lines = [settings_line(ranked.settings) for ranked in best]
        rows = list(zip(*columns.values(), lines))
    for row in rows:
        table.add_row(*row)
    return table


def _width(name: str, cells: Sequence[str]) -> int:
    """Of a column whose name has a line for each word."""
    return max(map(len, (*name.split(), *cells)))


def _value_and_spread(result: Result, metric: str) -> str:
    value = value_text(result.value, metric)
    if result.spread is None:
        return value
    scale, digits = (100, 2) if metric.endswith("accuracy") else (1, 4)
    return f"{value} ± {scale * result.spread:.{digits}f}"


def importance_line(shares: Mapping[str, float]) -> str:
    """What mattered, most first."""
    parts = (f"{name.replace('_', ' ')} {100 * share:.0f} %" for name, share in shares.items())
    return "what mattered: " + ", ".join(parts)


class FinalProgress(Progress):
    """On a terminal, a bar for the training of the models that a sweep ends with."""

    def __init__(self, console: Console, what: str) -> None:
        self._what = what
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._terminal = console.is_terminal
        self._epochs = 1

    def __enter__(self) -> "FinalProgress":
        if self._terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, network: Network, config: TrainingConfig, dataset: Dataset) -> None:
        self._epochs = config.epochs

    def steps(self, epoch: int, done: int, total: int) -> None:
        if self._terminal:
            share = (epoch - 1 + done / total) / self._epochs
            line = f"{self._what}: epoch {epoch} of {self._epochs}"
            self._live.update(_under_bar(share, line), refresh=True)

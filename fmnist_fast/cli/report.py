"""Progress of training and measurement on the terminal, and tables of results."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..data.datasets import Dataset
from ..nn.backend import backend_name, phase_or_compilation
from ..nn.metrics import Evaluation
from ..training.config import TrainingConfig
from ..training.presets import PRESETS, PresetResult
from ..training.progress import Epoch, Progress

if TYPE_CHECKING:
    from ..nn.network import Network


def percent(fraction: float | None) -> str:
    """Format 0.8912 as "89.12 %", and None or NaN as a dash."""
    return "-" if fraction is None or np.isnan(fraction) else f"{100 * fraction:.2f} %"


class _Description(rich_progress.ProgressColumn):
    """The description of a task; while kernels are being compiled, the time that it has taken."""

    def render(self, task: rich_progress.Task) -> Text:
        return Text(phase_or_compilation(task.description))


def _bars(console: Console, *columns: rich_progress.ProgressColumn | str) -> rich_progress.Progress:
    return rich_progress.Progress(
        _Description(),
        *columns,
        rich_progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class TrainingReport(Progress):
    """A line for each epoch, and on a terminal a progress bar of steps below them."""

    HEAD = "epoch  train loss  val. loss  val. accuracy  seconds  samples/s"

    def __init__(self, console: Console, teacher: Path | None = None) -> None:
        """teacher : file of the external teacher, if there is one."""
        self._console, self._teacher = console, teacher
        bar, count = rich_progress.BarColumn(bar_width=None), rich_progress.MofNCompleteColumn()
        self._bars = _bars(console, bar, count, "batches")
        self._task: rich_progress.TaskID | None = None
        self._epochs: int | None = 0  # None: limited by time
        self._role = ""
        self._failed = False

    def __enter__(self) -> "TrainingReport":
        return self

    def __exit__(self, *_: object) -> None:
        self._try(self._bars.stop)

    def _try(self, show: Callable[..., object], *arguments: object, **options: object) -> None:
        """Ignore errors of the output: a full disk behind it must not end the training."""
        if not self._failed:
            try:
                show(*arguments, **options)
            except OSError:
                self._failed = True

    def _print(self, line: str, style: str | None = None) -> None:
        self._try(self._console.print, line, style=style)

    def teacher(self, number: int, of: int) -> None:
        self._role = f"teacher {number} of {of}: "

    def begin(self, network: "Network", config: TrainingConfig, dataset: Dataset) -> None:
        sizes = self._role + "-".join(map(str, network.spec.sizes))
        self._role = ""
        held_back = config.validation or 0
        self._epochs = None if config.time_budget else config.epochs
        self._print(
            f"{sizes} on {dataset.name}: {len(dataset.x_train) - held_back:,} rows to train on, "
            f"{held_back:,} to validate, {len(dataset.x_test):,} to test"
        )
        parts = [
            f"backend {backend_name(network.backend)}, threads {network.threads}",
            f"batch {config.batch_size}, {config.schedule} to {config.lr:g}, l2 {config.l2:g}",
        ]
        for name in ("weight_decay", "label_smoothing", "dropout"):
            if getattr(config, name):
                parts.append(f"{name.replace('_', ' ')} {getattr(config, name):g}")
        if config.hflip:
            parts.append("horizontal flips")
        self._print(", ".join([*parts, f"seed {config.seed}"]))
        if config.external_teacher:
            self._print(f"teacher {self._teacher or config.external_teacher}")
        self._print(self.HEAD, style="bold")
        self._try(self._bars.start)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task("", total=None)

    def resumed(self, step: int, history: tuple[Epoch, ...], ended: bool) -> None:
        if ended:
            count = len(history)
            self._print(f"finished before, after {count} epoch{'s' * (count != 1)}")
            return
        for record in history:
            self.epoch(record)
        self._print(f"resumed after step {step:,}")

    def steps(self, epoch: int, done: int, total: int) -> None:
        self._try(
            self._bars.update,
            self._task,
            total=None if self._epochs is None else self._epochs * total,
            description=f"epoch {epoch}" + (f" of {self._epochs}" if self._epochs else ""),
            completed=(epoch - 1) * total + done,
        )

    def epoch(self, record: Epoch) -> None:
        loss = "-" if record.validation_loss is None else f"{record.validation_loss:.4f}"
        self._print(
            f"{record.epoch:5d}  {record.train_loss:10.4f}  {loss:>9}  "
            f"{percent(record.validation_accuracy):>13}  {record.seconds:7.2f}  "
            f"{record.samples_per_second:9,.0f}"
        )


@contextmanager
def measuring_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """On a terminal, show a progress bar that names what is being measured.

    Yields a function that takes this name, the measurements done, and their total.
    """
    with _bars(console, rich_progress.BarColumn()) as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(
            task, description=what, completed=done, total=total
        )


class MetricsLog(Progress):
    """Log of a run as JSON lines, appended to a file, if any: its start, each epoch, its end.

    An error of the file does not end the training: the first one is kept in `error`, and nothing
    more is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.error: OSError | None = None

    def begin(self, network: "Network", config: TrainingConfig, dataset: Dataset) -> None:
        self.write(
            event="start",
            dataset=dataset.name,
            checksum=dataset.checksum,
            backend=backend_name(network.backend),
            threads=network.threads,
            **config.to_dict(),
        )

    def teacher(self, number: int, of: int) -> None:
        self.write(event="teacher", number=number, of=of)

    def resumed(self, step: int, history: tuple[Epoch, ...], ended: bool) -> None:
        self.write(event="resume", step=step, epochs=len(history), ended=ended)

    def epoch(self, record: Epoch) -> None:
        self.write(event="epoch", **asdict(record))

    def write(self, **fields: object) -> None:
        """Append one line and close the file."""
        if self.path and self.error is None:
            try:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(fields) + "\n")
            except OSError as error:
                self.error = error


class CombinedProgress(Progress):
    """Passes every event on to several others."""

    def __init__(self, *parts: Progress) -> None:
        self._parts = parts

    def teacher(self, number: int, of: int) -> None:
        for part in self._parts:
            part.teacher(number, of)

    def begin(self, network: "Network", config: TrainingConfig, dataset: Dataset) -> None:
        for part in self._parts:
            part.begin(network, config, dataset)

    def resumed(self, step: int, history: tuple[Epoch, ...], ended: bool) -> None:
        for part in self._parts:
            part.resumed(step, history, ended)

    def steps(self, epoch: int, done: int, total: int) -> None:
        for part in self._parts:
            part.steps(epoch, done, total)

    def epoch(self, record: Epoch) -> None:
        for part in self._parts:
            part.epoch(record)


def make_table(*titles: str, left: Collection[str] = (), **options: Any) -> Table:
    """Return a table without lines. left : columns of text, beside the first one."""
    table = Table(box=None, pad_edge=False, **options)
    for title in titles:
        text = title == titles[0] or title in left
        table.add_column(title, justify="left" if text else "right")
    return table


def class_table(evaluation: Evaluation, class_names: tuple[str, ...]) -> Table:
    """Precision, recall, F1 score and number of test rows of every class."""
    table = make_table("class", "precision", "recall", "F1", "rows")
    columns = (evaluation.precision_k, evaluation.recall_k, evaluation.f1_k)
    for label, name in enumerate(class_names):
        figures = (percent(float(column[label])) for column in columns)
        table.add_row(name, *figures, f"{evaluation.confusion_kk[label].sum():,}")
    return table


def corruption_table(corruptions: Sequence[Mapping[str, Any]], clean: float) -> Table:
    """Accuracy under each corruption, and its drop from that on clean images."""
    table = make_table("corruption", "level", "accuracy", "drop", left=("level",))
    table.add_row("none", "", percent(clean), "")
    for entry in corruptions:
        accuracy = entry["accuracy"]
        table.add_row(entry["kind"], entry["level"], percent(accuracy), percent(clean - accuracy))
    return table


def preset_table(results: Mapping[str, PresetResult]) -> Table:
    """Network, epochs and measured results of every preset."""
    titles = ("preset", "network", "epochs", "test accuracy", "seconds", "date", "machine")
    table = make_table(*titles, left=("network", "date", "machine"))
    for name, config in PRESETS.items():
        network = "-".join(map(str, config.hidden))
        distillation = config.distillation
        if distillation and isinstance(distillation.teacher, TrainingConfig):
            teacher = "-".join(map(str, distillation.teacher.hidden))
            network += f", distilled from {distillation.n_teachers} x {teacher}"
        result = results.get(name)
        figures = ("-", "-", "-", "-")
        if result:
            accuracy = f"{percent(result.accuracy)} ± {100 * result.spread:.2f}"
            seconds = f"{median(result.seconds):.1f}"
            figures = (accuracy, seconds, result.date, result.where)
        table.add_row(name, network, str(config.epochs), *figures)
    return table


# Larger confusion matrices are too wide for a terminal.
MAX_CONFUSION_CLASSES = 25


def confusion_table(evaluation: Evaluation, class_names: tuple[str, ...]) -> Table | str:
    """Confusion matrix: a row for each true class, a column for each predicted class."""
    if len(class_names) > MAX_CONFUSION_CLASSES:
        return f"{len(class_names)} classes: --plot and --json have the confusion matrix"
    title = "true class (row), predicted class (column)"
    table = make_table("class", *map(str, range(len(class_names))), title=title)
    for label, name in enumerate(class_names):
        counts = evaluation.confusion_kk[label]
        cells = [
            Text(str(count) if count else ".", style="bold" if predicted == label else "")
            for predicted, count in enumerate(counts)
        ]
        table.add_row(f"{label} {name}", *cells)
    return table

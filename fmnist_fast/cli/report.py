"""What people see on the terminal: progress of a training, and tables of figures."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from ..data.datasets import Dataset
from ..errors import UserError
from ..nn.backend import backend_name
from ..nn.metrics import Evaluation
from ..training.config import TrainingConfig
from ..training.loop import Epoch, Progress
from ..training.presets import PRESETS, PresetResult

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..nn.network import Network

__all__ = [
    "MeasuringReport",
    "MetricsLog",
    "Several",
    "TrainingReport",
    "check_metrics_path",
    "class_table",
    "confusion_table",
    "corruption_table",
    "percent",
    "preset_table",
]


def percent(share: float | None) -> str:
    """0.8912 as "89.12 %"; nothing to say as a dash."""
    return "-" if share is None or np.isnan(share) else f"{100 * share:.2f} %"


class TrainingReport(Progress):
    """A line per epoch, and on a terminal a bar below them that moves within the epoch."""

    HEAD = "epoch  train loss  val. loss  val. accuracy  seconds  samples/s"

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("batches"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._epochs: int | None = 0  # None: the clock decides
        self._role = ""
        self._gone = False

    def __enter__(self) -> "TrainingReport":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show(self._bars.stop)

    def _show(self, show: Callable[..., object], *arguments: object, **options: object) -> None:
        """A full disk behind the terminal's output must not cost the training."""
        if not self._gone:
            try:
                show(*arguments, **options)
            except OSError:
                self._gone = True

    def teacher(self, number: int, of: int) -> None:
        self._role = f"teacher {number} of {of}: "

    def begin(self, network: "Network", config: TrainingConfig, dataset: Dataset) -> None:
        sizes = self._role + "-".join(map(str, network.spec.sizes))
        self._role = ""
        held_back = config.validation or 0
        self._epochs = None if config.time_budget else config.epochs
        self._show(
            self._console.print,
            f"{sizes} on {dataset.name}: {len(dataset.x_train) - held_back:,} rows to train on, "
            f"{held_back:,} to validate, {len(dataset.x_test):,} to test",
        )
        self._show(
            self._console.print,
            f"backend {backend_name(network.backend)}, threads {network.threads}, "
            f"batch {config.batch_size}, {config.schedule} to {config.lr:g}, l2 {config.l2:g}, "
            + f"weight decay {config.weight_decay:g}, " * bool(config.weight_decay)
            + f"label smoothing {config.label_smoothing:g}, " * bool(config.label_smoothing)
            + f"dropout {config.dropout:g}, " * bool(config.dropout)
            + "flips, " * bool(config.hflip)
            + f"seed {config.seed}",
        )
        if config.external_teacher:
            self._show(self._console.print, f"taught by {config.external_teacher}")
        self._show(self._console.print, self.HEAD, style="bold")
        self._show(self._bars.start)
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def resumed(self, step: int, history: tuple[Epoch, ...]) -> None:
        for record in history:
            self.epoch(record)
        self._show(self._console.print, f"going on after step {step:,}")

    def steps(self, epoch: int, done: int, total: int) -> None:
        if self._task is None:
            whole = None if self._epochs is None else self._epochs * total
            self._task = self._bars.add_task("", total=whole)
        self._show(
            self._bars.update,
            self._task,
            description=f"epoch {epoch}" + (f" of {self._epochs}" if self._epochs else ""),
            completed=(epoch - 1) * total + done,
        )

    def epoch(self, record: Epoch) -> None:
        loss = "-" if record.validation_loss is None else f"{record.validation_loss:.4f}"
        self._show(
            self._console.print,
            f"{record.epoch:5d}  {record.train_loss:10.4f}  {loss:>9}  "
            f"{percent(record.validation_accuracy):>13}  {record.seconds:7.2f}  "
            f"{record.samples_per_second:9,.0f}",
        )


class MeasuringReport:
    """On a terminal, a bar that says what is being measured."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("", total=None)

    def __enter__(self) -> "MeasuringReport":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def measuring(self, what: str, done: int, total: int) -> None:
        """What is being done, how much is done, and of how much."""
        self._bars.update(self._task, description=what, completed=done, total=total)


def check_metrics_path(path: Path) -> None:
    """Raise UserError if the file that is there holds something other than JSON lines."""
    if path.is_file():
        with open(path, "rb") as file:
            if file.read(1) not in (b"", b"{"):
                raise UserError(f"metrics {path} exists and is no file of JSON lines: name another")


class MetricsLog(Progress):
    """Appends one JSON object a line to a file: the start of the run, each epoch, the end.

    A file that cannot be written must not cost the training: the first failure is kept in `error`
    and nothing more is written.
    """

    def __init__(self, path: Path) -> None:
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

    def resumed(self, step: int, history: tuple[Epoch, ...]) -> None:
        self.write(event="resume", step=step, epochs=len(history))

    def epoch(self, record: Epoch) -> None:
        self.write(event="epoch", **asdict(record))

    def write(self, **fields: object) -> None:
        """One line; it is on its way to the disk when this returns."""
        if self.error is None:
            try:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(fields) + "\n")
            except OSError as error:
                self.error = error


class Several(Progress):
    """Tells several others."""

    def __init__(self, *others: Progress) -> None:
        self._others = others

    def teacher(self, number: int, of: int) -> None:
        for other in self._others:
            other.teacher(number, of)

    def begin(self, network: "Network", config: TrainingConfig, dataset: Dataset) -> None:
        for other in self._others:
            other.begin(network, config, dataset)

    def resumed(self, step: int, history: tuple[Epoch, ...]) -> None:
        for other in self._others:
            other.resumed(step, history)

    def steps(self, epoch: int, done: int, total: int) -> None:
        for other in self._others:
            other.steps(epoch, done, total)

    def epoch(self, record: Epoch) -> None:
        for other in self._others:
            other.epoch(record)


def class_table(evaluation: Evaluation, class_names: tuple[str, ...]) -> Table:
    """Precision, recall, F1 and number of rows of every class."""
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for title in ("precision", "recall", "F1", "rows"):
        table.add_column(title, justify="right")
    columns = (evaluation.precision_k, evaluation.recall_k, evaluation.f1_k)
    for label, name in enumerate(class_names):
        figures = (percent(float(column[label])) for column in columns)
        table.add_row(name, *figures, f"{evaluation.confusion_kk[label].sum():,}")
    return table


def corruption_table(accuracies: Sequence[tuple[str, str, float]], plain: float) -> Table:
    """A row for each (kind, level, accuracy), and what it costs against the plain images."""
    table = Table(box=None, pad_edge=False)
    table.add_column("images")
    table.add_column("")
    table.add_column("accuracy", justify="right")
    table.add_column("points lost", justify="right")
    table.add_row("as they are", "", percent(plain), "")
    for kind, level, accuracy in accuracies:
        table.add_row(kind, level, percent(accuracy), f"{100 * (plain - accuracy):.1f}")
    return table


def preset_table(results: Mapping[str, PresetResult]) -> Table:
    """What each preset is and was measured to reach."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("preset", "left"),
        ("network", "left"),
        ("epochs", "right"),
        ("test accuracy", "right"),
        ("seconds", "right"),
        ("measured", "left"),
        ("on", "left"),
    ):
        table.add_column(title, justify="right" if justify == "right" else "left")
    for name, config in PRESETS.items():
        network = "-".join(map(str, config.hidden))
        taught = config.distillation
        if taught and isinstance(taught.teacher, TrainingConfig):
            teacher = "-".join(map(str, taught.teacher.hidden))
            network += f", taught by {taught.n_teachers} of {teacher}"
        result = results.get(name)
        figures = (
            (
                f"{percent(result.accuracy)} ± {100 * result.spread:.2f}",
                f"{median(result.seconds):.1f}",
                result.date,
                result.where,
            )
            if result
            else ("-", "-", "-", "-")
        )
        table.add_row(name, network, str(config.epochs), *figures)
    return table


# More columns than this fit no terminal.
MAX_CONFUSION = 25


def confusion_table(evaluation: Evaluation, class_names: tuple[str, ...]) -> Table | str:
    """A row per true class, a column per answer; columns are numbered as the rows are."""
    if len(class_names) > MAX_CONFUSION:
        return f"{len(class_names)} classes: --plot and --json have the confusion matrix"
    table = Table(box=None, pad_edge=False, title="true class (row), answer (column)")
    table.add_column("class")
    for label in range(len(class_names)):
        table.add_column(str(label), justify="right")
    for label, name in enumerate(class_names):
        counts = evaluation.confusion_kk[label]
        cells = [
            Text(str(count) if count else ".", style="bold" if guess == label else "")
            for guess, count in enumerate(counts)
        ]
        table.add_row(f"{label} {name}", *cells)
    return table

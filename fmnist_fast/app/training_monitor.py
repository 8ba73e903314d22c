"""Training whose progress other threads can read. Independent of Streamlit."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from fmnist_fast.data.datasets import Dataset
from fmnist_fast.errors import ArgumentError, UserError
from fmnist_fast.kernels.interface import NetworkSpec
from fmnist_fast.nn.network import Network
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.trainer import (
    Epoch,
    Progress,
    TrainingDiverged,
    TrainingInterrupted,
    TrainingResult,
    train,
)

__all__ = [
    "MAX_WEIGHTS",
    "FinishedTraining",
    "TrainingMonitor",
    "TrainingOptions",
    "TrainingProgress",
    "parse_hidden_sizes",
]

# For a shared server: 12 million weights take some 150 MB to train, and minutes an epoch.
MAX_WEIGHTS = 12_000_000


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the form. hidden : sizes of the hidden layers."""

    preset: str
    backend: str
    threads: int
    hidden: tuple[int, ...]
    epochs: int
    lr: float


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training. teacher : (number, total) while a teacher is trained.

    sizes, epochs : of the current network. done : fraction of its steps. history : its epochs so
    far.
    """

    teacher: tuple[int, int] | None = None
    sizes: tuple[int, ...] = ()
    epochs: int = 0
    done: float = 0.0
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class FinishedTraining:
    """Result of a training. warning : why it ended early, with the best model until then; or ""."""

    result: TrainingResult
    warning: str = ""


class TrainingMonitor(Progress):
    """A job that trains. `progress` is replaced, never changed, so that any thread may read it."""

    def __init__(self, dataset: Dataset, options: TrainingOptions) -> None:
        self.dataset, self.options = dataset, options
        self.progress = TrainingProgress()

    def __call__(self, should_stop: Callable[[], bool]) -> FinishedTraining:
        """Train. Raises: UserError; KeyboardInterrupt if it was stopped without a model."""
        try:
            result = train(
                self.dataset, progress=self, should_stop=should_stop, **asdict(self.options)
            )
        except TrainingInterrupted as stop:
            if self.progress.teacher:  # the best model so far is a teacher
                raise KeyboardInterrupt from None
            return FinishedTraining(stop.result, "Stopped before the end.")
        except TrainingDiverged as error:
            if error.result is None or self.progress.teacher:
                raise UserError(str(error)) from error
            return FinishedTraining(error.result, f"{error}.")
        return FinishedTraining(result)

    def teacher(self, number: int, of: int) -> None:
        self.progress = TrainingProgress(teacher=(number, of))

    def begin(self, network: Network, config: TrainingConfig, dataset: Dataset) -> None:
        is_teacher = self.progress.teacher is not None and config.distillation is None
        self.progress = TrainingProgress(
            teacher=self.progress.teacher if is_teacher else None,
            sizes=network.spec.sizes,
            epochs=config.epochs,
        )

    def steps(self, epoch: int, done: int, total: int) -> None:
        self.progress = replace(
            self.progress, done=(epoch - 1 + done / total) / self.progress.epochs
        )

    def epoch(self, record: Epoch) -> None:
        self.progress = replace(self.progress, history=(*self.progress.history, record))


def parse_hidden_sizes(text: str, inputs: int, classes: int) -> tuple[int, ...]:
    """Parse sizes of hidden layers like "128, 64"; "" or "none" is no hidden layer.

    Raises: ArgumentError for other text, or for more weights than MAX_WEIGHTS.
    """
    text = text.strip()
    if text in ("", "none"):
        return ()
    try:
        sizes = tuple(int(part) for part in text.replace("-", ",").split(","))
    except ValueError:
        sizes = (0,)
    if not all(size >= 1 for size in sizes):
        raise ArgumentError(f"Hidden layers {text!r}: enter positive integers like 128, 64.")
    weights = sum(i * o for i, o in NetworkSpec((inputs, *sizes, classes)).shapes)
    if weights > MAX_WEIGHTS:
        raise ArgumentError(
            f"Hidden layers {text!r} have {weights / 1e6:,.0f} million weights: choose at most "
            f"{MAX_WEIGHTS / 1e6:.0f} million."
        )
    return sizes

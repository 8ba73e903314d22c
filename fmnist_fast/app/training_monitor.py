"""A training that can be watched from another thread. Knows nothing of pages."""

from collections.abc import Callable
from dataclasses import dataclass, replace

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

__all__ = ["MAX_WEIGHTS", "Choice", "Trained", "View", "Watched", "widths"]

# A server is shared: 12 million weights take some 150 MB to train, and minutes an epoch.
MAX_WEIGHTS = 12_000_000


@dataclass(frozen=True)
class Choice:
    """What a person chose to train. hidden : widths of the hidden layers."""

    preset: str
    backend: str
    threads: int
    hidden: tuple[int, ...]
    epochs: int
    lr: float


@dataclass(frozen=True)
class View:
    """How far a training is. teacher : (number, of) while one is trained, to teach the network.

    done : share of this network's steps, 0..1. history : its epochs so far.
    """

    teacher: tuple[int, int] | None = None
    sizes: tuple[int, ...] = ()
    epochs: int = 0
    done: float = 0.0
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What a training left. complete : False if it was stopped, with the best model until then.

    remark : what a person should know of how it ended, or "".
    """

    result: TrainingResult
    complete: bool = True
    remark: str = ""


class Watched(Progress):
    """A training; `view` is replaced as it goes on, never changed, so any thread may read it."""

    def __init__(self, dataset: Dataset, choice: Choice) -> None:
        self.dataset, self.choice = dataset, choice
        self.view = View()

    def __call__(self, should_stop: Callable[[], bool]) -> Trained:
        """Train. Raises: UserError; KeyboardInterrupt if it was stopped with nothing to show."""
        choice = self.choice
        try:
            result = train(
                self.dataset,
                preset=choice.preset,
                backend=choice.backend,
                threads=choice.threads,
                progress=self,
                should_stop=should_stop,
                hidden=choice.hidden,
                epochs=choice.epochs,
                lr=choice.lr,
            )
        except TrainingInterrupted as stop:
            if self.view.teacher:  # what there is so far is a teacher, not what was asked for
                raise KeyboardInterrupt from None
            return Trained(stop.result, complete=False, remark="Stopped before the end.")
        except TrainingDiverged as error:
            if error.result is None or self.view.teacher:
                raise UserError(str(error)) from error
            return Trained(error.result, complete=False, remark=f"{error}.")
        return Trained(result)

    def teacher(self, number: int, of: int) -> None:
        self.view = View(teacher=(number, of))

    def begin(self, network: Network, config: TrainingConfig, dataset: Dataset) -> None:
        taught = self.view.teacher is not None and config.distillation is None
        self.view = View(
            teacher=self.view.teacher if taught else None,
            sizes=network.spec.sizes,
            epochs=config.epochs,
        )

    def steps(self, epoch: int, done: int, total: int) -> None:
        self.view = replace(self.view, done=(epoch - 1 + done / total) / self.view.epochs)

    def epoch(self, record: Epoch) -> None:
        self.view = replace(self.view, history=(*self.view.history, record))


def widths(text: str, inputs: int, classes: int) -> tuple[int, ...]:
    """Hidden layers from what a person wrote: "128, 64"; nothing, or "none", is no hidden layer.

    Raises: ArgumentError for anything else, or for more weights than MAX_WEIGHTS.
    """
    text = text.strip()
    if text in ("", "none"):
        return ()
    try:
        found = tuple(int(part) for part in text.replace("-", ",").split(","))
    except ValueError:
        found = (0,)
    if not all(width >= 1 for width in found):
        raise ArgumentError(f"Hidden layers are widths like 128, 64; {text!r} is not.")
    weights = sum(i * o for i, o in NetworkSpec((inputs, *found, classes)).shapes)
    if weights > MAX_WEIGHTS:
        raise ArgumentError(
            f"{text} would be {weights / 1e6:,.0f} million weights: take at most "
            f"{MAX_WEIGHTS / 1e6:.0f} million."
        )
    return found

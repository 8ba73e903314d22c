"""Training events: the record of an epoch, and the hooks that receive them."""

from collections.abc import Callable
from dataclasses import dataclass

from ..data.datasets import Dataset
from ..nn.network import Network
from .config import TrainingConfig


@dataclass(frozen=True)
class Epoch:
    """Metrics of one epoch.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    train_loss : float
        Mean over its steps of the loss of the batch before the step, penalty included.
    validation_loss, validation_accuracy : float or None
        After the epoch, without the penalty; None without validation rows.
    seconds : float
        Time of training alone, without evaluation.
    samples_per_second : float
        Rows trained on per second.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class EpochState:
    """Argument of the callbacks at the end of an epoch.

    Attributes
    ----------
    record : Epoch
        The epoch that ended.
    history : tuple of Epoch
        All epochs so far, this one included.
    best_epoch : int
        Number of the best epoch so far.
    network : Network
        As it is now, not the best so far; training goes on changing it.
    config : TrainingConfig
    """

    record: Epoch
    history: tuple[Epoch, ...]
    best_epoch: int
    network: Network
    config: TrainingConfig


Callback = Callable[[EpochState], object]


class Progress:
    """Receives training events; override the hooks you need. The default does nothing."""

    def teacher(self, number: int, of: int) -> None:
        """The next network is a teacher: number 1..of."""

    def begin(self, network: Network, config: TrainingConfig, dataset: Dataset) -> None:
        """Before the first step; config.validation is the number of validation rows."""

    def resumed(self, step: int, history: tuple[Epoch, ...], ended: bool) -> None:
        """After begin: training resumes after `step` steps; `ended` if nothing is left to train."""

    def steps(self, epoch: int, done: int, total: int) -> None:
        """`done` of the `total` steps of an epoch are done; called some ten times a second."""

    def epoch(self, record: Epoch) -> None:
        """An epoch has been trained and evaluated."""

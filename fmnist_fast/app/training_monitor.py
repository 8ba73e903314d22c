"""Training whose progress other threads can read. Independent of Streamlit."""

from collections.abc import Callable
from typing import Any

from fmnist_fast.data.datasets import Dataset
from fmnist_fast.errors import ArgumentError
from fmnist_fast.kernels.interface import NetworkSpec
from fmnist_fast.models.model import Model
from fmnist_fast.nn.network import Network
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.progress import Epoch, Progress
from fmnist_fast.training.run import TrainingDiverged
from fmnist_fast.training.trainer import TrainingInterrupted, TrainingResult, train

# For a shared server: 12 million weights take some 150 MB to train, and minutes an epoch.
MAX_WEIGHTS = 12_000_000


class TrainingMonitor(Progress):
    """A job that trains, and collects the model.

    options : of `train`, with a preset. collect : called with the model and a label; returns its
    name. Any thread may read the attributes: epochs, of the current network; done, the fraction of
    its steps; history, its epochs so far; at the end name, of the model, and warning, why training
    ended early, with the best model until then.
    """

    def __init__(
        self, dataset: Dataset, options: dict[str, Any], collect: Callable[[Model, str], str]
    ) -> None:
        self.dataset, self.options, self.collect = dataset, options, collect
        self.epochs, self.done = 0, 0.0
        self.history: tuple[Epoch, ...] = ()
        self.name = self.warning = self._teacher = ""

    def __call__(self, should_stop: Callable[[], bool]) -> TrainingResult:
        """Train. Raises: UserError; KeyboardInterrupt if it was stopped without a model."""
        try:
            result = train(self.dataset, progress=self, should_stop=should_stop, **self.options)
        except TrainingInterrupted as stop:
            if self._teacher:  # the best model so far is a teacher
                raise KeyboardInterrupt from None
            result, self.warning = stop.result, "Stopped before the end."
        except TrainingDiverged as error:
            if error.result is None or self._teacher:
                raise
            result, self.warning = error.result, f"{error}."
        label = f"{self.options['preset']}, {100 * result.test_accuracy:.2f} %"
        self.name = self.collect(result.model, label)
        return result

    @property
    def phase(self) -> str:
        """Description of the current step; "" before the first."""
        if not self.epochs:
            return ""
        number = min(self.epochs, len(self.history) + 1)
        return f"{self._teacher}epoch {number} of {self.epochs}"

    def teacher(self, number: int, of: int) -> None:
        self._teacher, self.epochs = f"teacher {number} of {of}: ", 0

    def begin(self, network: Network, config: TrainingConfig, dataset: Dataset) -> None:
        if config.distillation is not None:
            self._teacher = ""
        self.history, self.done, self.epochs = (), 0.0, config.epochs

    def steps(self, epoch: int, done: int, total: int) -> None:
        self.done = (epoch - 1 + done / total) / self.epochs

    def epoch(self, record: Epoch) -> None:
        self.history = (*self.history, record)


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

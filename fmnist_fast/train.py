"""Training: from a data set and a recipe to a model, epoch by epoch."""

from dataclasses import asdict, dataclass, replace
from math import ceil, isfinite, prod
from numbers import Integral, Real
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .augment import mirrored, with_flips
from .backend import name_of
from .data import Dataset
from .errors import ArgumentError, UserError
from .kernels import Data, Layers, Spec
from .metrics import Evaluation, evaluate
from .modelfile import Model
from .network import (
    EPOCH_ORDER,
    PIXEL_SCALE,
    VALIDATION_SPLIT,
    Network,
    check_labels,
    check_rows,
    random_stream,
)
from .schedule import SCHEDULES, Adam, learning_rates
from .targets import smoothed

__all__ = [
    "Epoch",
    "Progress",
    "Recipe",
    "TrainingDiverged",
    "TrainingInterrupted",
    "TrainingResult",
    "epoch_order",
    "split",
    "train",
]

# Seconds of work between two looks at the clock: Ctrl-C and the progress bar wait no longer.
RANGE_SECONDS = 0.1


# What the kernels count with; more of anything is a slip of the finger.
MOST = 2**31 - 1


def _plain(value: Any) -> Any:
    """A number of NumPy's as Python's; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, apart from the data: same recipe, same machine, same bits.

    hidden : widths of the hidden layers. lr : the largest learning rate of the schedule.
    schedule : onecycle, cosine or constant. l2 : factor of the penalty l2/2 sum w^2.
    weight_decay : every step takes this share of its learning rate from the weights (decoupled
    decay). label_smoothing : share of every target that all classes have alike. flips : half of the
    images of an epoch, by chance, are seen in the mirror.
    validation : rows held back to choose the best epoch (None: 5,000, or a twelfth of a smaller
    set; 0: none, the last epoch is the model).
    """

    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 15
    batch_size: int = 64
    lr: float = 2e-3
    schedule: str = "onecycle"
    l2: float = 1e-4
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    flips: bool = False
    validation: int | None = None
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Plain numbers for NumPy's, which no model file can hold; check() judges the rest."""
        for name, value in vars(self).items():
            object.__setattr__(self, name, _plain(value))
        for name in ("lr", "l2", "weight_decay", "label_smoothing"):
            if isinstance(getattr(self, name), Real):
                object.__setattr__(self, name, float(getattr(self, name)))
        if not isinstance(self.hidden, (int, str)):
            object.__setattr__(self, "hidden", tuple(map(_plain, self.hidden)))

    def held_back(self, rows: int) -> int:
        """How many of a training set's rows are for validation."""
        return min(5000, rows // 12) if self.validation is None else self.validation

    def check(self, rows: int) -> None:
        """Raise ArgumentError, naming the field, if this cannot train on that many rows."""
        if isinstance(self.hidden, (int, str)):
            raise ArgumentError(f"hidden is {self.hidden!r}: give the widths, like (128, 64)")
        for name, value, least in (
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 1),
            ("validation", self.held_back(rows), 0),
            ("seed", self.seed, 0),
            *(("hidden", width, 1) for width in self.hidden),
        ):
            if not isinstance(value, Integral):
                raise ArgumentError(f"{name} is {value!r}: give a whole number")
            if value < least:
                raise ArgumentError(f"{name} is {value}: give at least {least}")
            if value > MOST and name != "seed":
                raise ArgumentError(f"{name} is {value}: give at most {MOST:,}")
        for name, number in (
            ("lr", self.lr),
            ("l2", self.l2),
            ("weight_decay", self.weight_decay),
            ("label_smoothing", self.label_smoothing),
        ):
            if not isinstance(number, Real):
                raise ArgumentError(f"{name} is {number!r}: give a number")
            if name == "lr" and not (isfinite(number) and number > 0):
                raise ArgumentError(f"lr is {number}: give a number above 0")
            if not (isfinite(number) and number >= 0):
                raise ArgumentError(f"{name} is {number}: give 0 or more")
        if self.weight_decay * self.lr >= 1:
            raise ArgumentError(
                f"weight_decay is {self.weight_decay}: with a learning rate of {self.lr:g} give "
                f"less than {1 / self.lr:g}"
            )
        if self.label_smoothing >= 1:
            raise ArgumentError(f"label_smoothing is {self.label_smoothing}: give less than 1")
        if not isinstance(self.flips, bool):
            raise ArgumentError(f"flips is {self.flips!r}: give True or False")
        if self.schedule not in SCHEDULES:
            choices = ", ".join(SCHEDULES)
            raise ArgumentError(f"unknown schedule {self.schedule!r}: choose from {choices}")
        if self.held_back(rows) >= rows:
            raise ArgumentError(
                f"validation is {self.validation}, but the training set has only {rows} rows: "
                "leave some to train on"
            )


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch. train_loss : mean over its steps of the batch's loss before the step,
    with the penalty. The validation figures, taken after the epoch and without the penalty, are
    None if no rows are held back. seconds : training alone, evaluation not counted.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves. model : the weights of `best_epoch`, the epoch with the highest
    validation accuracy (the later of equals). test : its figures on the test set.
    """

    model: Model
    recipe: Recipe
    history: tuple[Epoch, ...]
    best_epoch: int
    test: Evaluation

    @property
    def test_accuracy(self) -> float:
        """Share of the test set that the model gets right."""
        return self.test.accuracy


class Progress:
    """Told how a run goes. Override what is of interest; nothing is shown by default."""

    def begin(self, network: Network, recipe: Recipe, dataset: Dataset) -> None:
        """Before the first step; recipe.validation is the number of rows held back."""

    def steps(self, epoch: int, done: int, total: int) -> None:
        """`done` of `total` steps of an epoch are done; called some ten times a second."""

    def epoch(self, record: Epoch) -> None:
        """An epoch is done and evaluated."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training. result : the best model so far."""

    def __init__(self, result: TrainingResult) -> None:
        epochs = len(result.history)
        super().__init__(f"training was interrupted after {epochs} epoch{'s' * (epochs != 1)}")
        self.result = result


class TrainingDiverged(UserError):
    """The loss or the weights stopped being finite. result : the best model before, if any."""

    def __init__(self, message: str, result: TrainingResult | None) -> None:
        super().__init__(message)
        self.result = result


def train(
    dataset: Dataset,
    *,
    backend: str = "auto",
    threads: int | None = None,
    sample_weight: ArrayLike | None = None,
    progress: Progress | None = None,
    **recipe: Any,
) -> TrainingResult:
    """Train a multilayer perceptron and measure it on the test set.

    dataset : from load_dataset. backend : auto or a name; threads : None means all usable cores.
    sample_weight : (rows of the training set,), >= 0, how much each row counts; None: all alike.
    recipe : the fields of `Recipe`, as keywords: epochs=5, hidden=(256, 128), lr=1e-3, ...
    Raises: ArgumentError; BackendUnavailable; TrainingDiverged; TrainingInterrupted on Ctrl-C,
    a KeyboardInterrupt that carries the best model so far.
    """
    run = _Run(dataset, Recipe(**recipe), backend, threads, sample_weight)
    progress = progress or Progress()
    progress.begin(run.network, run.recipe, dataset)
    try:
        for number in range(1, run.recipe.epochs + 1):
            progress.epoch(run.epoch(number, progress))
        return run.result()
    except KeyboardInterrupt:
        if not run.history:  # the model in the middle of the first epoch is better than none
            if not run.is_finite():
                raise
            run.keep_if_best(0, None)
        raise TrainingInterrupted(run.result()) from None


def split(rows: int, validation: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which rows are trained on, and which are held back: int32, both ascending.

    A function of the two numbers only, not of the seed: models with different seeds are judged on
    the same rows.
    """
    shuffled = random_stream(0, VALIDATION_SPLIT).permutation(rows).astype(np.int32)
    return np.sort(shuffled[validation:]), np.sort(shuffled[:validation])


def epoch_order(rows_n: NDArray[np.int32], seed: int, epoch: int) -> NDArray[np.int32]:
    """The rows in the order that this epoch visits them: a pure function of (seed, epoch)."""
    return random_stream(seed, EPOCH_ORDER, epoch).permutation(rows_n)


class _Run:
    """One training run: what it needs at every epoch, and the best it has so far."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        backend: str,
        threads: int | None,
        sample_weight: ArrayLike | None,
    ) -> None:
        rows, inputs = len(dataset.x_train), prod(dataset.x_train.shape[1:])
        classes = len(dataset.class_names)
        recipe.check(rows)
        self.dataset = dataset
        self.recipe = replace(recipe, validation=recipe.held_back(rows))
        scale = PIXEL_SCALE if _holds_images(dataset) else 1.0

        spec = Spec((inputs, *recipe.hidden, classes), dtype=recipe.dtype)
        self.network = Network.random(spec, recipe.seed, scale, backend, threads)
        self.state = self.network.fresh_state()
        x_ni = check_rows(dataset.x_train, inputs, unit_range=False, name="x_train")
        y_n = check_labels(dataset.y_train, rows, classes, name="y_train")
        self.data = self._learned_from(x_ni, y_n, _check_weights(sample_weight, rows))

        self.train_rows, held_back = split(rows, recipe.held_back(rows))
        self.x_validation, self.y_validation = x_ni[held_back], y_n[held_back]
        self.batches = ceil(len(self.train_rows) / recipe.batch_size)
        self.lr_t = learning_rates(recipe.schedule, recipe.lr, self.batches * recipe.epochs)
        self.history: list[Epoch] = []
        self.best: tuple[int, float | None, Layers] | None = None

    def _learned_from(
        self, x_ni: NDArray, y_n: NDArray[np.int32], weights_n: NDArray[np.float64]
    ) -> Data:
        """What the recipe makes of the training set."""
        recipe, spec = self.recipe, self.network.spec
        targets_n: NDArray = y_n
        if recipe.label_smoothing:
            targets_n = smoothed(y_n, spec.sizes[-1], recipe.label_smoothing, spec.dtype)
        if recipe.flips:
            if self.dataset.x_train.ndim != 3:
                raise ArgumentError("flips are for images: this data set has rows of numbers")
            x_ni = mirrored(x_ni.reshape(self.dataset.x_train.shape)).reshape(-1, spec.sizes[0])
            targets_n = np.concatenate([targets_n, targets_n])
            weights_n = np.concatenate([weights_n, weights_n])
        return self.network.data(x_ni, targets_n, weights_n)

    def epoch(self, number: int, progress: Progress) -> Epoch:
        """Train for one epoch and evaluate; number counts from 1."""
        with np.errstate(over="ignore", invalid="ignore"):  # said once, as TrainingDiverged
            losses_t, seconds = self._train(number, progress)
            self._check_finite(number, losses_t)
            validation = self._validate()
        record = Epoch(
            number,
            float(losses_t.mean()),
            validation.loss if validation else None,
            validation.accuracy if validation else None,
            seconds,
            len(self.train_rows) / seconds,
        )
        self.history.append(record)
        self.keep_if_best(number, record.validation_accuracy)
        return record

    def keep_if_best(self, number: int, accuracy: float | None) -> None:
        """Copy the weights if no epoch before had a better validation accuracy."""
        if self.best is None or accuracy is None or accuracy >= (self.best[1] or 0):
            weights, biases = self.state.params
            copy = Layers(tuple(w.copy() for w in weights), tuple(b.copy() for b in biases))
            self.best = number, accuracy, copy

    def is_finite(self) -> bool:
        """Whether every weight and bias is a number."""
        return all(bool(np.isfinite(a).all()) for arrays in self.state.params for a in arrays)

    def result(self) -> TrainingResult:
        """The best model so far, measured on the test set."""
        assert self.best is not None
        best_epoch, accuracy, params = self.best
        network = replace(self.network, params=params)
        labels_n = check_labels(
            self.dataset.y_test, len(self.dataset.x_test), network.spec.sizes[-1], name="y_test"
        )
        test = evaluate(network.predict_proba(self.dataset.x_test), labels_n)
        model = Model(
            network,
            self.dataset.class_names,
            self.dataset.x_train.shape[1:],
            self.dataset.name,
            self.dataset.checksum,
            training={
                **asdict(self.recipe),
                "hidden": list(self.recipe.hidden),
                "backend": name_of(network.backend),
            },
            metrics={
                "best_epoch": best_epoch,
                "validation_accuracy": accuracy,
                "test_accuracy": test.accuracy,
                "test_loss": test.loss if isfinite(test.loss) else None,
            },
        )
        return TrainingResult(model, self.recipe, tuple(self.history), best_epoch, test)

    def _train(self, number: int, progress: Progress) -> tuple[NDArray[np.float64], float]:
        """All steps of an epoch, in ranges that last RANGE_SECONDS: their losses, the seconds."""
        recipe, done = self.recipe, (number - 1) * self.batches
        lr_t = self.lr_t[done : done + self.batches]
        steps = Adam().steps(lr_t, done, recipe.batch_size, recipe.l2, recipe.weight_decay * lr_t)
        order_n = epoch_order(self.train_rows, recipe.seed, number)
        if recipe.flips:
            order_n = with_flips(order_n, len(self.dataset.x_train), recipe.seed, number)
        losses_t = np.empty(self.batches)
        seconds, first, stride = 0.0, 0, 1
        while first < self.batches:
            last = min(first + stride, self.batches)
            start = perf_counter()
            losses_t[first:last] = self.network.train_steps(
                self.state, self.data, order_n, steps, first, last
            )
            elapsed = perf_counter() - start
            stride = max(1, min(10 * stride, int((last - first) * RANGE_SECONDS / elapsed)))
            seconds, first = seconds + elapsed, last
            progress.steps(number, first, self.batches)
        return losses_t, seconds

    def _validate(self) -> Evaluation | None:
        if not len(self.x_validation):
            return None
        return evaluate(self.network.predict_proba(self.x_validation), self.y_validation)

    def _check_finite(self, number: int, losses_t: NDArray[np.float64]) -> None:
        finite_t = np.isfinite(losses_t)
        if finite_t.all() and self.is_finite():
            return
        step = int(finite_t.argmin()) if not finite_t.all() else self.batches - 1
        raise TrainingDiverged(
            f"training diverged at step {(number - 1) * self.batches + step + 1} (epoch {number}): "
            f"the loss is no longer finite; use a lower learning rate than {self.recipe.lr:g}",
            self.result() if self.best else None,
        )


def _holds_images(dataset: Dataset) -> bool:
    """Whether rows are pixels: bytes, or images as floats in 0..1. Then uint8 is divided by 255."""
    if dataset.x_train.dtype == np.uint8:
        return True
    parts = (dataset.x_train, dataset.x_test)
    return dataset.x_train.ndim > 2 and all(x.min() >= 0 and x.max() <= 1 for x in parts)


def _check_weights(sample_weight: ArrayLike | None, rows: int) -> NDArray[np.float64]:
    if sample_weight is None:
        return np.ones(rows)
    weights_n = np.ascontiguousarray(sample_weight, dtype=np.float64)
    if weights_n.shape != (rows,):
        raise ArgumentError(
            f"sample_weight has shape {weights_n.shape}: give one weight a row, ({rows},)"
        )
    if not (np.isfinite(weights_n).all() and weights_n.min() >= 0):
        raise ArgumentError("sample_weight must be finite and not negative")
    return weights_n

"""One network on its way through its epochs: it can stop after any step, be saved and go on."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import ceil, prod
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.augment import EpochPrefetcher, flip_rows, hflip
from ..data.datasets import Dataset
from ..data.photo_augment import PhotoAugmentation, check_photo_augmentation
from ..errors import ArgumentError, CheckpointError
from ..kernels.interface import NetworkSpec, Params, TrainData
from ..nn.ema import copy_params, update_average
from ..nn.labels import smooth_labels
from ..nn.metrics import Evaluation, evaluate
from ..nn.network import (
    PIXEL_SCALE,
    Network,
    check_labels,
    check_rows,
)
from ..nn.optimizers import Adam
from ..nn.random_streams import VALIDATION_SPLIT, dropout_key, epoch_order, random_stream
from .budget import Budget, Clock, StepBudget, TimeBudget
from .checkpoint import Checkpoints, Snapshot
from .config import TrainingConfig
from .distillation import Teachers

__all__ = [
    "Diverged",
    "Epoch",
    "EpochState",
    "Progress",
    "Run",
    "StopRequested",
    "resolve_config",
    "split",
]

# Seconds of work between two looks at the clock: Ctrl-C and the progress bar wait no longer.
RANGE_SECONDS = 0.1

# A run with a time budget looks at least so many times.
LOOKS = 50

# A run has exploded when an epoch's mean loss is so many times that of the first step.
EXPLODED = 20


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
class EpochState:
    """What a callback is shown at an epoch's end. network : as it is now, not the best so far; it
    changes as the training goes on. history : all epochs so far, this one included.
    """

    record: Epoch
    history: tuple[Epoch, ...]
    best_epoch: int
    network: Network
    config: TrainingConfig


class Progress:
    """Told how a run goes. Override what is of interest; nothing is shown by default."""

    def teacher(self, number: int, of: int) -> None:
        """The network that begins next is one of the teachers; number counts from 1."""

    def begin(self, network: Network, config: TrainingConfig, dataset: Dataset) -> None:
        """Before the first step; recipe.validation is the number of rows held back."""

    def resumed(self, step: int, history: tuple[Epoch, ...]) -> None:
        """After begin: the network goes on after `step` steps."""

    def steps(self, epoch: int, done: int, total: int) -> None:
        """`done` of `total` steps of an epoch are done; called some ten times a second."""

    def epoch(self, record: Epoch) -> None:
        """An epoch is done and evaluated."""


class StopRequested(KeyboardInterrupt):
    """should_stop() said so, between two steps: the run can be saved as it is."""


class Diverged(Exception):
    """The loss or the weights exploded; the message names the step and says what to do."""


def resolve_config(config: TrainingConfig, dataset: Dataset) -> TrainingConfig:
    """The recipe with what it left to the data set filled in, and checked.

    Raises: ArgumentError.
    """
    rows = len(dataset.x_train)
    config.check(rows, len(dataset.class_names))
    hflip = dataset.hflip_invariant if config.hflip is None else config.hflip
    if config.augment:
        hflip = False  # which is among what is done to the images
        check_photo_augmentation(dataset)
    if hflip and dataset.x_train.ndim != 3:
        raise ArgumentError("hflip needs images: this data set has rows of features")
    config = replace(config, validation=config.held_back(rows), hflip=hflip)
    if config.distillation and isinstance(config.distillation.teacher, TrainingConfig):
        teacher = resolve_config(config.distillation.teacher, dataset)
        config = replace(config, distillation=replace(config.distillation, teacher=teacher))
    return config


def split(
    rows: int, validation: int, fold: tuple[int, int] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which rows are trained on, and which are held back: int32, both ascending.

    fold : (number, of how many), numbers from 0: that part of the rows is held back, in place of
    `validation` of them; together the folds are all rows.
    A function of the arguments only, not of the seed: models with different seeds are judged on
    the same rows, and a teacher knows no row that its student is judged on.
    """
    shuffled = random_stream(0, VALIDATION_SPLIT).permutation(rows).astype(np.int32)
    first, last = 0, validation
    if fold:
        number, of = fold
        first, last = number * rows // of, (number + 1) * rows // of
    trained = np.concatenate([shuffled[:first], shuffled[last:]])
    return np.sort(trained), np.sort(shuffled[first:last])


class Run:
    """One training run: what it needs at every epoch, and the best it has so far.

    recipe : resolved. teachers : to learn from, if any. clock : of all networks that belong
    together. fold : which part of the rows is held back, as for split().
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        backend: str,
        threads: int | None,
        sample_weight: ArrayLike | None,
        teachers: Teachers | None = None,
        clock: Clock | None = None,
        fold: tuple[int, int] | None = None,
    ) -> None:
        rows, inputs = len(dataset.x_train), prod(dataset.x_train.shape[1:])
        classes = len(dataset.class_names)
        self.dataset, self.config = dataset, config
        sizes = (inputs, *config.hidden, classes)
        spec = NetworkSpec(sizes, dtype=config.dtype, dropout=config.dropout)
        scale = PIXEL_SCALE if _holds_images(dataset) else 1.0
        self.network = Network.random(spec, config.seed, scale, backend, threads)
        self.state = self.network.fresh_state()
        self.mean: Params | None = None  # of the weights after epochs, once there is one

        x_ni = check_rows(dataset.x_train, inputs, unit_range=False, name="x_train")
        y_n = check_labels(dataset.y_train, rows, classes, name="y_train")
        self.train_rows, self.held_back = split(rows, config.held_back(rows), fold)
        self.x_validation, self.y_validation = x_ni[self.held_back], y_n[self.held_back]
        self.x_ood = x_ni[:0]
        weights_n = _check_weights(sample_weight, rows) * self._class_weights(y_n, classes)[y_n]
        self.data = self._learned_from(x_ni, y_n, weights_n)
        self.images: EpochPrefetcher | None = None
        if config.augment:
            self._learn_from_imitations(dataset.x_train, y_n)
        self.teachers, self.asked_n = teachers, self.data.targets_n
        if teachers and not self.images:
            self._listen()

        self.batches = ceil(len(self.train_rows) / config.batch_size)
        self.budget: Budget = StepBudget(config.schedule, config.lr, self.batches * config.epochs)
        self.clock = clock or Clock()
        self.range_seconds = RANGE_SECONDS

        self.number, self.first, self.seconds = 1, 0, 0.0  # of the epoch that is under way
        self.losses_t = np.zeros(self.batches)
        self.first_loss = float("nan")  # of the run, before any step
        self.history: list[Epoch] = []
        self.best: tuple[int, float | None, Params] | None = None
        self.ended = False

    def _class_weights(self, y_n: NDArray[np.int32], classes: int) -> NDArray[np.float64]:
        weight_k = np.ones(classes)
        if self.config.class_weight == "balanced":
            count_k = np.bincount(y_n[self.train_rows], minlength=classes)
            weight_k = len(self.train_rows) / (classes * np.maximum(count_k, 1))
        elif isinstance(self.config.class_weight, tuple):
            for label, weight in self.config.class_weight:
                weight_k[label] = weight
        return weight_k

    def _learned_from(
        self,
        x_ni: NDArray,
        y_n: NDArray[np.int32],
        weights_n: NDArray[np.float64],
    ) -> TrainData:
        """What the recipe makes of the training set."""
        config, spec = self.config, self.network.spec
        targets_n: NDArray = y_n
        if config.label_smoothing or config.distillation:
            targets_n = smooth_labels(y_n, spec.sizes[-1], config.label_smoothing, spec.dtype)
        if config.hflip:
            both = self.dataset.x_train_with_flips
            if both is None:
                both = hflip(self.dataset.x_train)
            x_ni = both.reshape(-1, spec.sizes[0])
            targets_n = np.concatenate([targets_n, targets_n])
            weights_n = np.concatenate([weights_n, weights_n])
        return self.network.data(x_ni, targets_n, weights_n)

    def _learn_from_imitations(self, images: NDArray, y_n: NDArray[np.int32]) -> None:
        """Replace rows, images and what the network is judged on."""
        config, spec = self.config, self.network.spec
        made = PhotoAugmentation(images, y_n, self.train_rows, self.held_back, config.seed)
        last = None if config.time_budget else config.epochs
        self.images = EpochPrefetcher(made.epoch_images, last)
        self.data = made.extend_targets(self.data, spec.sizes[-1], spec.dtype)
        self.train_rows = made.rows_n
        self.x_validation, self.x_ood = made.x_validation, made.x_ood

    def _listen(self) -> None:
        """Learn from what the teachers say of the images as they are now."""
        assert self.teachers
        targets_nk = self.teachers.targets(self.data.x_ni, self.asked_n)
        self.data = self.data._replace(targets_n=targets_nk)

    def limit_time(self, begin: float, end: float) -> None:
        """Plan the run by the clock: from one reading of it to the other."""
        self.budget = TimeBudget(self.config.schedule, self.config.lr, begin, end, self.clock)
        self.range_seconds = min(RANGE_SECONDS, (end - begin) / LOOKS)

    @property
    def steps_done(self) -> int:
        """How many steps the network has made."""
        return (self.number - 1) * self.batches + self.first

    def train(
        self,
        progress: Progress,
        should_stop: Callable[[], bool],
        callbacks: Sequence[Callable[[EpochState], object]] = (),
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Train to the end. Raises: Diverged; StopRequested, between two steps."""
        try:
            self._train_epochs(progress, should_stop, callbacks, checkpoints)
        finally:
            if self.images:
                self.images.close()

    def _train_epochs(
        self,
        progress: Progress,
        should_stop: Callable[[], bool],
        callbacks: Sequence[Callable[[EpochState], object]],
        checkpoints: Checkpoints | None,
    ) -> None:
        while not self.ended:
            with np.errstate(over="ignore", invalid="ignore"):  # said once, as Diverged
                self._train_epoch(progress, should_stop, checkpoints)
                record = self._record()
            if record:
                progress.epoch(record)
                self._end_if_asked(record, callbacks)
                if checkpoints and not self.ended and checkpoints.due(record.epoch):
                    checkpoints.save(self.snapshot())
        if checkpoints:
            checkpoints.save(self.snapshot())

    def _train_epoch(
        self,
        progress: Progress,
        should_stop: Callable[[], bool],
        checkpoints: Checkpoints | None,
    ) -> None:
        """The steps that are left of an epoch, or of the run, in ranges of range_seconds."""
        order_n = epoch_order(self.train_rows, self.config.seed, self.number)
        if self.config.hflip:
            order_n = flip_rows(order_n, len(self.dataset.x_train), self.config.seed, self.number)
        if self.images:
            self.data = self.data._replace(x_ni=self.images.get(self.number))
            if self.teachers:
                self._listen()
        stride = 1
        while self.first < self.batches:
            if should_stop():
                raise StopRequested
            first = self.first
            rates = self.budget.rates(self.steps_done, min(stride, self.batches - first))
            if not len(rates):
                self.ended = True
                return
            last = first + len(rates)
            seconds = self._train_range(order_n, rates, first, last)
            stride = max(1, min(10 * stride, int((last - first) * self.range_seconds / seconds)))
            self.seconds, self.first = self.seconds + seconds, last
            progress.steps(self.number, last, self.batches)
            if checkpoints and last < self.batches and checkpoints.due(None):
                checkpoints.save(self.snapshot())

    def _train_range(
        self, order_n: NDArray[np.int32], rates: NDArray[np.float64], first: int, last: int
    ) -> float:
        """Steps first..last-1 of the epoch; returns the seconds they took."""
        config, lr_t = self.config, np.zeros(self.batches)
        lr_t[first:last] = rates
        before = (self.number - 1) * self.batches
        steps = Adam().steps(lr_t, before, config.batch_size, config.l2, config.weight_decay * lr_t)
        if config.dropout:
            steps = steps._replace(dropout_key=dropout_key(config.seed, self.number))
        start = perf_counter()
        self.losses_t[first:last] = self.network.train_steps(
            self.state, self.data, order_n, steps, first, last
        )
        seconds = perf_counter() - start
        if self.steps_done == 0:
            self.first_loss = float(self.losses_t[0])
        self.budget.observe(last - first, seconds)
        return seconds

    def _record(self) -> Epoch | None:
        """Judge the epoch that is done, also a part of one, and begin the next."""
        if not self.first:
            return None
        losses_t = self.losses_t[: self.first]
        self._check_finite(losses_t)
        self._average()
        validation = self._validate()
        rows = min(self.first * self.config.batch_size, len(self.train_rows))
        record = Epoch(
            self.number,
            float(losses_t.mean()),
            validation.loss if validation else None,
            validation.accuracy if validation else None,
            self.seconds,
            rows / self.seconds,
        )
        self.history.append(record)
        self.keep_if_best(self.number, record.validation_accuracy)
        if self.first == self.batches:
            self.number, self.first = self.number + 1, 0
        self.seconds = 0.0
        return record

    def _average(self) -> None:
        """Take the weights of now into their mean over epochs, where the recipe wants one."""
        if self.config.ema_epochs == 1:
            return
        if self.mean is None:
            self.mean = copy_params(self.state.params)
        else:
            epoch = len(self.history) + 1
            update_average(self.mean, self.state.params, epoch, self.config.ema_epochs)

    def _end_if_asked(
        self, record: Epoch, callbacks: Sequence[Callable[[EpochState], object]]
    ) -> None:
        """By the recipe, for want of patience or by a callback; all callbacks are asked."""
        assert self.best is not None
        best_epoch, patience = self.best[0], self.config.patience
        state = EpochState(record, tuple(self.history), best_epoch, self.network, self.config)
        asked = [bool(callback(state)) for callback in callbacks]
        over = not len(self.budget.rates(self.steps_done, 1))
        out_of_patience = patience is not None and record.epoch - best_epoch >= patience
        self.ended = self.ended or over or out_of_patience or any(asked)

    def keep_if_best(self, number: int, accuracy: float | None) -> None:
        """Copy the weights if no epoch before had a better validation accuracy."""
        if self.best is None or accuracy is None or accuracy >= (self.best[1] or 0):
            self.best = number, accuracy, copy_params(self._judged())

    def _judged(self) -> Params:
        """The weights that count: their mean over epochs, where there is one, or those of now."""
        return self.mean or self.state.params

    def is_finite(self) -> bool:
        """Whether every weight and bias is a number."""
        return all(bool(np.isfinite(a).all()) for arrays in self.state.params for a in arrays)

    def best_network(self) -> Network:
        """The network with the best weights so far."""
        assert self.best is not None
        return replace(self.network, params=self.best[2])

    def snapshot(self) -> Snapshot:
        """All that this run needs to go on from here."""
        tensors: dict[str, NDArray] = {"losses": self.losses_t}
        for name, layers in self._layers().items():
            for depth, (w_io, b_o) in enumerate(zip(*layers)):
                tensors |= {f"{name}.{depth}.weight": w_io, f"{name}.{depth}.bias": b_o}
        facts = {
            "epoch": self.number,
            "steps_of_epoch": self.first,
            "seconds": self.seconds,
            "first_loss": self.first_loss,
            "history": [asdict(record) for record in self.history],
            "best": self.best[:2] if self.best else None,
            "ended": self.ended,
            "clock": self.clock(),
            "learned_from": self._learned_checksum(),
        }
        return Snapshot(self.steps_done, tensors, facts)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there. Raises: CheckpointError if it is of another run."""
        tensors, facts = snapshot.tensors, snapshot.facts
        if facts["learned_from"] != self._learned_checksum():
            raise CheckpointError(
                "this run learned from other labels or weights than are given now: give those it "
                "was started with"
            )
        if facts["best"]:
            self.best = facts["best"][0], facts["best"][1], copy_params(self.state.params)
        if "mean.0.weight" in tensors:
            self.mean = copy_params(self.state.params)
        for name, layers in self._layers().items():
            for depth, (w_io, b_o) in enumerate(zip(*layers)):
                w_io[:] = tensors[f"{name}.{depth}.weight"]
                b_o[:] = tensors[f"{name}.{depth}.bias"]
        self.losses_t[:] = tensors["losses"]
        self.number, self.first = facts["epoch"], facts["steps_of_epoch"]
        self.seconds, self.ended = facts["seconds"], facts["ended"]
        self.first_loss = facts["first_loss"]
        self.history = [Epoch(**record) for record in facts["history"]]
        self.clock.advance_to(facts["clock"])

    def _layers(self) -> dict[str, Params]:
        """Everything of the network's that a checkpoint holds, by name."""
        kept = {"best": self.best[2]} if self.best else {}
        if self.mean:
            kept["mean"] = self.mean
        return {"params": self.state.params, "m": self.state.m, "v": self.state.v, **kept}

    def _learned_checksum(self) -> str:
        """Of what does not change from epoch to epoch."""
        targets_n = self.asked_n if self.images else self.data.targets_n
        digest = sha256(np.ascontiguousarray(targets_n).data)
        digest.update(np.ascontiguousarray(self.data.weights_n).data)
        return digest.hexdigest()

    def _validate(self) -> Evaluation | None:
        if not len(self.x_validation):
            return None
        judged = replace(self.network, params=self._judged())
        return evaluate(judged.predict_proba(self.x_validation), self.y_validation)

    def _check_finite(self, losses_t: NDArray[np.float64]) -> None:
        finite_t = np.isfinite(losses_t)
        exploded = finite_t.all() and losses_t.mean() > EXPLODED * self.first_loss
        if finite_t.all() and self.is_finite() and not exploded:
            return
        step = int(finite_t.argmin()) if not finite_t.all() else self.first - 1
        why = "has exploded" if exploded else "is no longer finite"
        raise Diverged(
            f"training diverged at step {(self.number - 1) * self.batches + step + 1} (epoch "
            f"{self.number}): the loss {why}; use a lower learning rate than {self.config.lr:g}"
        )


def _holds_images(dataset: Dataset) -> bool:
    """Whether rows are pixels: bytes, or images as floats in 0..1. Then uint8 is divided by 255."""
    if dataset.x_train.dtype == np.uint8:
        return True
    parts = (dataset.x_train, dataset.x_test)
    return dataset.x_train.ndim > 2 and all(x.min() >= 0 and x.max() <= 1 for x in parts)


def _check_weights(sample_weight: Any, rows: int) -> NDArray[np.float64]:
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

"""The training of one network: its data, loop, validation, records and saved state."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.datasets import Dataset
from ..errors import CheckpointError, UserError
from ..kernels.interface import Params
from ..nn.ema import copy_params, update_average
from ..nn.metrics import evaluate
from ..nn.network import Network
from ..nn.optimizers import Adam
from .budget import Clock, StepBudget
from .checkpoint import Checkpoints, Snapshot
from .config import TrainingConfig
from .distillation import Teachers
from .loop import TrainingLoop
from .progress import Callback, Epoch, EpochState, Progress
from .train_data import TrainingSet, network_spec, pixel_scale

# Seconds between two chances to interrupt a training, or to show its progress.
RANGE_SECONDS = 0.1

# Training has diverged when the mean loss of an epoch is so many times that of the first step.
DIVERGENCE_FACTOR = 20


class TrainingDiverged(UserError):
    """The loss or the weights exploded.

    Attributes
    ----------
    result : TrainingResult or None
        The best model before, if an epoch had ended.
    """

    result: Any = None


class TrainingRun:
    """The training of one network on a data set.

    config : resolved. clock : of all networks that are trained together, teachers included.
    fold : validate on that part of the rows, see `split`.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        backend: str,
        threads: int | None,
        sample_weight: ArrayLike | None = None,
        *,
        teachers: Teachers | None = None,
        clock: Clock | None = None,
        fold: tuple[int, int] | None = None,
    ) -> None:
        self.config, self.clock = config, clock or Clock()
        spec = network_spec(config, dataset)
        self.network = Network.random(spec, config.seed, pixel_scale(dataset), backend, threads)
        self.train_set = TrainingSet(
            dataset, config, self.network, sample_weight=sample_weight, teachers=teachers, fold=fold
        )
        rows = len(self.train_set.rows_n)
        steps = ceil(rows / config.batch_size) * config.epochs
        self.loop = TrainingLoop(
            self.network,
            self.network.fresh_state(),
            Adam(),
            StepBudget(config.schedule, config.lr, steps),
            self.train_set.start_epoch,
            rows=rows,
            batch_size=config.batch_size,
            weight_decay=config.weight_decay,
            max_range_seconds=RANGE_SECONDS,
        )
        self.params = self.loop.state.params
        self.mean_params: Params | None = None  # over epochs, where the configuration wants it
        self.first_loss = float("nan")  # before any step
        self.history: list[Epoch] = []

    def train(
        self,
        progress: Progress,
        should_stop: Callable[[], bool],
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Train to the end. Raises: TrainingDiverged; StopRequested, between two steps."""
        loop = self.loop

        def on_range() -> None:
            progress.steps(loop.epoch, loop.step_in_epoch, loop.steps_per_epoch)
            in_epoch = loop.step_in_epoch < loop.steps_per_epoch
            if checkpoints and in_epoch and checkpoints.due(None):
                checkpoints.save(self.snapshot())

        try:
            while not loop.ended:
                with np.errstate(over="ignore", invalid="ignore"):  # reported as TrainingDiverged
                    loop.train(should_stop=should_stop, on_range=on_range)
                    record = self._record_epoch() if loop.step_in_epoch else None
                if record:
                    progress.epoch(record)
                    self._update_ended(record, callbacks)
                    if checkpoints and not loop.ended and checkpoints.due(record.epoch):
                        checkpoints.save(self.snapshot())
            if checkpoints:
                checkpoints.save(self.snapshot())
        finally:
            self.train_set.close()

    def _record_epoch(self) -> Epoch:
        """Evaluate the epoch that was trained, also a part of one, and begin the next."""
        loop, data = self.loop, self.train_set
        losses_t = loop.losses_t[: loop.step_in_epoch]
        if loop.epoch == 1:
            self.first_loss = float(losses_t[0])
        self._check_finite(losses_t)
        if self.mean_params:
            update_average(self.mean_params, self.params, loop.epoch, self.config.ema_epochs)
        elif self.config.ema_epochs > 1:
            self.mean_params = copy_params(self.params)
        validation = None
        if len(data.x_validation):
            network = replace(self.network, params=self.mean_params or self.params)
            validation = evaluate(network.predict_proba(data.x_validation), data.y_validation)
        rows = min(loop.step_in_epoch * loop.batch_size, loop.rows)
        record = Epoch(
            epoch=loop.epoch,
            train_loss=float(losses_t.mean()),
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            seconds=loop.seconds,
            samples_per_second=rows / loop.seconds,
        )
        self.history.append(record)
        self.keep_if_best(record.epoch, record.validation_accuracy)
        loop.end_epoch()
        return record

    def _check_finite(self, losses_t: NDArray[np.float64]) -> None:
        finite_t = np.isfinite(losses_t)
        exploded = finite_t.all() and losses_t.mean() > DIVERGENCE_FACTOR * self.first_loss
        if finite_t.all() and self.is_finite() and not exploded:
            return
        step = len(losses_t) - 1 if finite_t.all() else int(finite_t.argmin())
        step += (self.loop.epoch - 1) * self.loop.steps_per_epoch + 1
        how = "has exploded" if exploded else "is no longer finite"
        raise TrainingDiverged(
            f"training diverged at step {step} (epoch {self.loop.epoch}): the loss {how}; "
            f"use a lower learning rate than {self.config.lr:g}"
        )

    def _update_ended(self, record: Epoch, callbacks: Sequence[Callback]) -> None:
        """Stop at the end of the budget, after `patience` epochs, or if a callback returns true."""
        assert self.loop.best
        best_epoch, patience = self.loop.best.epoch, self.config.patience
        state = EpochState(record, tuple(self.history), best_epoch, self.network, self.config)
        stops = [bool(callback(state)) for callback in callbacks]  # call all of them
        over = not len(self.loop.budget.rates(self.loop.steps_done, 1))
        out_of_patience = patience is not None and record.epoch - best_epoch >= patience
        self.loop.ended = self.loop.ended or over or out_of_patience or any(stops)

    def keep_if_best(self, epoch: int, accuracy: float | None) -> None:
        """Copy the weights if no earlier epoch had a higher validation accuracy."""
        if self.loop.best is None or accuracy is None or accuracy >= (self.loop.best.score or 0):
            self.loop.keep_best(epoch, accuracy, self.mean_params or self.params)

    def best_network(self) -> Network:
        """Return the network with the best weights so far."""
        assert self.loop.best is not None
        return replace(self.network, params=self.loop.best.params)

    def is_finite(self) -> bool:
        """Return whether all weights and biases are finite."""
        return all(bool(np.isfinite(a).all()) for arrays in self.params for a in arrays)

    def snapshot(self) -> Snapshot:
        """Return all that is needed to resume from here."""
        loop = self.loop
        metadata = {
            "epoch": loop.epoch,
            "step_in_epoch": loop.step_in_epoch,
            "seconds": loop.seconds,
            "first_loss": self.first_loss,
            "history": [asdict(record) for record in self.history],
            "best": loop.best and [loop.best.epoch, loop.best.score],
            "ended": loop.ended,
            "clock": self.clock(),
            "targets_checksum": self.train_set.targets_checksum(),
            "config": self.config.to_dict(),
        }
        return Snapshot(loop.steps_done, self._tensors(), metadata)

    def restore(self, snapshot: Snapshot) -> None:
        """Resume from a snapshot. Raises: CheckpointError if it is of another training."""
        loop, metadata = self.loop, snapshot.metadata
        if metadata.get("config", self.config.to_dict()) != self.config.to_dict():
            raise CheckpointError(
                "the checkpoint was made with another configuration than its run.json has now: "
                "restore that file, or train anew in another folder"
            )
        if metadata["targets_checksum"] != self.train_set.targets_checksum():
            raise CheckpointError(
                "the checkpoint was made with other labels or weights: give the same to resume it"
            )
        if metadata["best"]:
            epoch, score = metadata["best"]
            loop.keep_best(epoch, score, self.params)
        if "mean.0.weight" in snapshot.tensors:
            self.mean_params = copy_params(self.params)
        for name, array in self._tensors().items():
            array[:] = snapshot.tensors[name]
        loop.epoch, loop.step_in_epoch = metadata["epoch"], metadata["step_in_epoch"]
        loop.seconds, loop.ended = metadata["seconds"], metadata["ended"]
        self.first_loss = metadata["first_loss"]
        self.history = [Epoch(**record) for record in metadata["history"]]
        self.clock.advance_to(metadata["clock"])

    def _tensors(self) -> dict[str, NDArray]:
        """Return the arrays that a snapshot holds, by name; not copied."""
        networks = self.loop.state._asdict()
        if self.loop.best:
            networks["best"] = self.loop.best.params
        if self.mean_params:
            networks["mean"] = self.mean_params
        tensors: dict[str, NDArray] = {"losses": self.loop.losses_t}
        for name, params in networks.items():
            for layer, (w_io, b_o) in enumerate(zip(*params)):
                tensors |= {f"{name}.{layer}.weight": w_io, f"{name}.{layer}.bias": b_o}
        return tensors

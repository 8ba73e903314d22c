"""Training: from a data set and a recipe to a model. Teachers, checkpoints, budgets, interruption.

What one network does from epoch to epoch is in run.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..data.datasets import Dataset
from ..errors import ArgumentError, CheckpointError, UserError
from ..kernels.interface import NetworkSpec
from ..models.ensemble import Ensemble
from ..models.model import Model
from ..nn.backend import backend_name, get_backend, instruction_set_of, unavailable_reason
from ..nn.calibration import apply_temperature, confidence_threshold, fit_temperature
from ..nn.metrics import Evaluation, evaluate
from ..nn.network import Network, check_labels
from .budget import Clock
from .checkpoint import Checkpoints, RunFolder, Snapshot, read_identity
from .config import Distillation, TrainingConfig
from .distillation import Teachers, check_teacher, teacher_id
from .loop import Diverged, Epoch, EpochState, Progress, Run, StopRequested, resolve_config
from .presets import preset as preset_config

__all__ = [
    "Epoch",
    "EpochState",
    "Progress",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingInterrupted",
    "TrainingResult",
    "train",
]

# Fewer validation rows say too little of how sure a network may be.
CALIBRATION_ROWS = 1000

# Of a time budget: seconds to write the model, beside what predictions take.
SAVING_SECONDS = 0.03

Callback = Callable[[EpochState], object]


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves. model : the weights of `best_epoch`, the epoch with the highest
    validation accuracy (the later of equals). test : its figures on the test set. seconds : all of
    it, teachers, validation and the time before an interruption included.
    """

    model: Model
    config: TrainingConfig
    history: tuple[Epoch, ...]
    best_epoch: int
    test: Evaluation
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """Share of the test set that the model gets right."""
        return self.test.accuracy


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training. result : the best model so far. folder : the run to go on with, if
    it is kept in one.
    """

    def __init__(
        self, result: TrainingResult, folder: Path | None, keep: Callable[..., None] | None
    ) -> None:
        epochs = len(result.history)
        super().__init__(f"training was interrupted after {epochs} epoch{'s' * (epochs != 1)}")
        self.result, self.folder, self._keep = result, folder, keep

    def save_checkpoint(self, folder: Path, notes: Mapping[str, Any]) -> bool:
        """Keep the run in a new folder, to go on with; False if it was stopped within a step.

        Raises: OSError; CheckpointError.
        """
        if self._keep is None:
            return False
        self._keep(folder, None, notes)
        self.folder = folder
        return True


class TrainingDiverged(UserError):
    """The loss or the weights exploded. result : the best model before, if any."""

    def __init__(self, message: str, result: TrainingResult | None) -> None:
        super().__init__(message)
        self.result = result


def train(
    dataset: Dataset,
    *,
    preset: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    sample_weight: ArrayLike | None = None,
    teacher: Model | Ensemble | None = None,
    progress: Progress | None = None,
    on_epoch_end: Callback | Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: str | Path | None = None,
    every: int | None = None,
    resume: bool = False,
    notes: Mapping[str, Any] | None = None,
    **config: Any,
) -> TrainingResult:
    """Train a multilayer perceptron and measure it on the test set.

    dataset : from load_dataset. preset : a recipe by name, None for "standard"; recipe : fields of
    `TrainingConfig` in its place, as keywords: epochs=5, hidden=(256, 128), lr=1e-3, ...
    backend : auto or a name; threads : None means all usable cores.
    sample_weight : (rows of the training set,), >= 0, how much each row counts; None: all alike.
    teacher : whose answers the network learns from, in place of teachers that the recipe may have;
    how, its field `distillation` says. A teacher that learned from rows held back here makes the
    validation accuracy too good: there is a warning. It is given again when a run goes on.
    on_epoch_end : called with an EpochState after every epoch; the training ends after an epoch
    for which one of them returns something true. should_stop : asked some ten times a second; if it
    says so, the training is interrupted between two steps.
    checkpoint : a folder to keep the run's state in, every `every` epochs (None: as often as takes
    at most a twentieth of the time). resume : go on with the run in that folder; its recipe counts.
    notes : kept in the folder for whoever goes on, plain JSON.
    Raises: ArgumentError; BackendUnavailable; CheckpointError; TrainingDiverged;
    TrainingInterrupted on Ctrl-C, a KeyboardInterrupt that carries the best model so far.
    """
    if every is not None and not (isinstance(every, int) and every >= 1):
        raise ArgumentError(f"every is {every!r}: give a whole number of epochs, at least 1")
    if not isinstance(teacher, Model | Ensemble | None):
        raise ArgumentError(f"teacher is {teacher!r}: give a model, as load_model reads it")
    training = _Training(dataset, backend, threads, sample_weight, teacher)
    training.progress = progress or Progress()
    training.callbacks = (on_epoch_end,) if callable(on_epoch_end) else tuple(on_epoch_end)
    training.should_stop = should_stop
    if checkpoint is None:
        training.plan(preset_config(preset, **config))
        return training.train()
    if resume:
        training.resume(Path(checkpoint), every, preset, config)
    else:
        training.plan(preset_config(preset, **config))
        training.save_checkpoint(Path(checkpoint), every, notes or {})
    assert training.folder
    try:
        return training.train()
    finally:
        training.folder.close()


class _Training:
    """All networks of one call of train(): the teachers, if any, and the one asked for."""

    progress: Progress
    callbacks: tuple[Callback, ...]
    should_stop: Callable[[], bool]
    config: TrainingConfig

    def __init__(
        self,
        dataset: Dataset,
        backend: str,
        threads: int | None,
        sample_weight: ArrayLike | None,
        teacher: Model | Ensemble | None,
    ) -> None:
        self.clock = Clock()
        self.dataset, self.sample_weight = dataset, sample_weight
        self.backend, self.threads = backend, threads
        self.teacher, self.taught_by = teacher, teacher_id(teacher) if teacher else None
        self.folder: RunFolder | None = None
        self.stages: dict[str, Snapshot] = {}  # networks that are done, by name

    def plan(self, config: TrainingConfig) -> None:
        """Train by this recipe; the backend is chosen once, for all networks of the run."""
        self.config = self._resolved(config)
        if self.teacher:
            check_teacher(self.teacher, self.config, self.dataset)
        elif self.config.external_teacher:
            raise ArgumentError(
                f"teacher {self.config.external_teacher[:15]}... of this configuration is missing: "
                "pass it as the argument teacher of train()"
            )
        inputs = prod(self.dataset.x_train.shape[1:])
        sizes = (inputs, *self.config.hidden, len(self.dataset.class_names))
        self.backend = backend_name(
            get_backend(self.backend, NetworkSpec(sizes, dtype=self.config.dtype))
        )

    def _resolved(self, config: TrainingConfig) -> TrainingConfig:
        """With the teacher, if one is given, and what is left to the data set."""
        return resolve_config(
            config.with_teacher(self.taught_by) if self.taught_by else config, self.dataset
        )

    def identity(self) -> dict[str, Any]:
        """What must not change when a run goes on, plain JSON."""
        from .. import __version__

        return {
            "config": self.config.to_dict(),
            "dataset": {"name": self.dataset.name, "checksum": self.dataset.checksum},
            "backend": self.backend,
            "instruction_set": instruction_set_of(get_backend(self.backend)),
            "fmnist_fast": __version__,
        }

    def save_checkpoint(self, folder: Path, every: int | None, notes: Mapping[str, Any]) -> None:
        """Keep the state of this new run in a folder. Raises: CheckpointError; OSError."""
        identity = {**self.identity(), "threads": self.threads, "notes": dict(notes)}
        self.folder = RunFolder.create(folder, identity, every)

    def resume(
        self, folder: Path, every: int | None, preset: str | None, changes: Mapping[str, Any]
    ) -> None:
        """Go on with the run in a folder. Raises: CheckpointError, which says what differs."""
        stored = read_identity(folder)
        config = TrainingConfig.from_dict(stored["config"])
        self._check_same_teacher(folder, config.external_teacher)
        base = config if preset is None else preset_config(preset)
        field = config.difference(self._resolved(replace(base, **changes)))
        if field:
            raise CheckpointError(
                f"the run in {folder} has {field} {stored['recipe'][field]!r}: go on without "
                "another, or start a new run in another folder"
            )
        if stored["dataset"]["checksum"] != self.dataset.checksum:
            raise CheckpointError(
                f"the run in {folder} learns from {stored['dataset']['name']}, and this is another "
                f"data set ({self.dataset.name}): name the one it was started with"
            )
        named = self.backend != "auto"
        if not named:
            self.backend = stored["backend"]
            reason = unavailable_reason(self.backend)
            if reason:
                raise CheckpointError(
                    f"the run in {folder} was started with the backend {self.backend}, which "
                    f"{reason}; to go on with another, whose last bits differ, name it (--backend)"
                )
        self.plan(config)
        now = self.identity()
        for what in ("instruction_set", "fmnist_fast"):
            if not named and now[what] != stored[what]:
                raise CheckpointError(
                    f"the run in {folder} was started with the {what.replace('_', ' ')} "
                    f"{stored[what]}, and this is {now[what]}: to go on all the same, with other "
                    f"last bits, name the backend (--backend {self.backend})"
                )
        if self.threads is None and self.backend == "numpy":  # whose bits depend on it
            self.threads = stored["threads"]
        self.folder = RunFolder.open(folder, every)

    def _check_same_teacher(self, folder: Path, before: str | None) -> None:
        """before : what the run in the folder calls the teacher that it was given, if any."""
        if before == self.taught_by:
            return
        if before is None:
            what = "has no teacher that was given: go on without one"
        elif self.taught_by is None:
            what = f"learns from a teacher, {before[:15]}...: give it again (--teacher)"
        else:
            what = (
                f"learns from the teacher {before[:15]}..., and this is {self.taught_by[:15]}...: "
                "give the one it was started with"
            )
        raise CheckpointError(f"the run in {folder} {what}")

    def train(self) -> TrainingResult:
        """The teachers first."""
        config, how = self.config, self.config.distillation
        shares = _shares_of_time(config, self.dataset)
        teachers = None
        if how and self.teacher:
            teachers = Teachers.given(self.teacher, how, self.backend, self.threads)
        elif how:
            teachers = Teachers(self._trained_teachers(how, shares), how)
        return self._result(self._trained(config, teachers, "", shares[-1:], self.callbacks))

    def _trained_teachers(self, how: Distillation, shares: Sequence[float]) -> tuple[Network, ...]:
        """Each from its own seed."""
        assert isinstance(how.teacher, TrainingConfig)
        of, networks = how.n_teachers, []
        for number in range(1, of + 1):
            self.progress.teacher(number, of)
            seed = self.config.seed * of + number - 1
            taught = replace(how.teacher, seed=seed, time_budget=self.config.time_budget)
            run = self._trained(taught, None, f"teacher-{number}", shares[number - 1 :])
            networks.append(run.best_network())
        return tuple(networks)

    def _trained(
        self,
        config: TrainingConfig,
        teachers: Teachers | None,
        stage: str,
        shares: Sequence[float],
        callbacks: Sequence[Callback] = (),
    ) -> Run:
        """One network, trained to the end. shares : of the time left, for it and those after it."""
        run = Run(
            *(self.dataset, config, self.backend, self.threads, self.sample_weight),
            teachers,
            self.clock,
        )
        checkpoints = self.folder.stage(stage) if self.folder else None
        snapshot = checkpoints.latest() if checkpoints else None
        if snapshot:
            self.clock.advance_to(snapshot.facts["clock"])
        if self.config.time_budget is not None:
            begin = self.clock()
            left = self.config.time_budget - begin - _seconds_to_finish(run, self.dataset)
            run.limit_time(begin, begin + left * shares[0] / sum(shares))
        self.progress.begin(run.network, config, self.dataset)
        if snapshot:
            run.restore(snapshot)
            self.progress.resumed(run.steps_done, tuple(run.history))
        try:
            run.train(self.progress, self.should_stop, callbacks, checkpoints)
        except KeyboardInterrupt as stop:
            raise self._interrupted(run, stage, checkpoints, stop) from None
        except Diverged as error:
            raise TrainingDiverged(str(error), self._result(run) if run.best else None) from None
        self.stages[stage] = run.snapshot()
        return run

    def _interrupted(
        self, run: Run, stage: str, checkpoints: Checkpoints | None, stop: KeyboardInterrupt
    ) -> KeyboardInterrupt:
        """What to raise: with the best model, and so that the run can go on, if both can be had."""
        between_steps = isinstance(stop, StopRequested)
        if between_steps:
            self.stages[stage] = run.snapshot()
            if checkpoints:
                checkpoints.save(self.stages[stage])
        if not run.history:  # the model in the middle of the first epoch is better than none
            if not run.is_finite():
                return stop
            run.keep_if_best(0, None)
        keep = self._keep_stages if between_steps else None
        folder = self.folder.folder if self.folder else None
        return TrainingInterrupted(self._result(run), folder, keep)

    def _keep_stages(self, folder: Path, every: int | None, notes: Mapping[str, Any]) -> None:
        """Keep in a folder what was not kept in one so far."""
        self.save_checkpoint(folder, every, notes)
        assert self.folder
        for stage, snapshot in self.stages.items():
            if not self.folder.stage(stage).save(snapshot):
                raise OSError(None, "it could not be written", str(folder))
        self.folder.close()

    def _result(self, run: Run) -> TrainingResult:
        """The best model of a run so far, calibrated, and measured on the test set."""
        assert run.best is not None
        best_epoch, accuracy, _ = run.best
        network, dataset = run.best_network(), self.dataset
        temperature, threshold = _calibration(run)
        model = Model(
            network,
            dataset.class_names,
            dataset.x_train.shape[1:],
            dataset.name,
            dataset.checksum,
            temperature,
            threshold,
            training={
                **run.config.to_dict(),
                "backend": backend_name(network.backend),
                "instruction_set": instruction_set_of(network.backend),
            },
        )
        labels_n = check_labels(
            dataset.y_test, len(dataset.x_test), network.spec.sizes[-1], name="y_test"
        )
        test = evaluate(model.predict_proba(dataset.x_test), labels_n)
        metrics = {
            "best_epoch": best_epoch,
            "validation_accuracy": accuracy,
            "test_accuracy": test.accuracy,
            "test_loss": test.loss if isfinite(test.loss) else None,
        }
        model = replace(model, metrics=metrics)
        history = tuple(run.history)
        return TrainingResult(model, run.config, history, best_epoch, test, self.clock())


def _calibration(run: Run) -> tuple[float, float | None]:
    """Temperature and threshold of a network, from the validation rows: (1, None) if too few."""
    labels_n, network = run.y_validation, run.best_network()
    if len(labels_n) < CALIBRATION_ROWS:
        return 1.0, None
    raw_nk = network.predict_proba(run.x_validation)
    if not np.isfinite(raw_nk).all():
        return 1.0, None
    temperature = fit_temperature(raw_nk, labels_n)
    # No answer to a stranger is right.
    labels_n = np.append(labels_n, np.full(len(run.x_ood), -1))
    raw_nk = np.concatenate([raw_nk, network.predict_proba(run.x_ood)])
    probability_nk = apply_temperature(raw_nk, temperature)
    hit_n = probability_nk.argmax(axis=1) == labels_n
    return temperature, confidence_threshold(
        probability_nk.max(axis=1), hit_n, run.config.target_precision
    )


def _shares_of_time(config: TrainingConfig, dataset: Dataset) -> list[float]:
    """What each network of a recipe costs, teachers to train first, in multiply-adds."""
    ends = prod(dataset.x_train.shape[1:]), len(dataset.class_names)

    def cost(config: TrainingConfig) -> float:
        shapes = NetworkSpec((ends[0], *config.hidden, ends[1])).shapes
        return float(config.epochs * sum(i * o for i, o in shapes))

    taught = config.distillation
    if taught and isinstance(taught.teacher, TrainingConfig):
        return [*[cost(taught.teacher)] * taught.n_teachers, cost(config)]
    return [cost(config)]


def _seconds_to_finish(run: Run, dataset: Dataset) -> float:
    """How long it will take to judge and save the network, from a sample."""
    sample = dataset.x_test[:1000]
    run.network.predict_proba(sample[:1])  # loads what is loaded once
    start = perf_counter()
    run.network.predict_proba(sample)
    rows = len(dataset.x_test) + 2 * len(run.x_validation)
    return SAVING_SECONDS + (perf_counter() - start) * rows / len(sample)

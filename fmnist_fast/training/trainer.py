"""`train`: from a data set and a configuration to a model, with teachers and checkpoints.

The training of one network is in `run`, and the loop over its steps in `loop`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import __version__
from .._files import to_path
from ..data.datasets import Dataset, as_dataset
from ..errors import ArgumentError, CheckpointError
from ..models.ensemble import Ensemble
from ..models.model import Model
from ..nn.backend import backend_name, get_backend, instruction_set_of, unavailable_reason
from ..nn.calibration import apply_temperature, confidence_threshold, fit_temperature
from ..nn.metrics import Evaluation, evaluate
from ..nn.network import Network, check_labels
from .budget import Clock, TimeBudget
from .checkpoint import (
    CheckpointFolder,
    Checkpoints,
    RunIdentity,
    Snapshot,
    damaged_identity,
    read_identity,
)
from .config import Distillation, Range, TrainingConfig, check_names
from .distillation import Teachers, check_teacher, teacher_id
from .loop import StopRequested
from .presets import preset as preset_config
from .progress import Callback, Epoch, Progress
from .run import TrainingDiverged, TrainingRun
from .train_data import network_spec, resolve_config

# With fewer validation rows, the model is not calibrated.
MIN_CALIBRATION_ROWS = 1000

# Of a time budget: seconds to write the model, beside the time of predictions.
SAVING_SECONDS = 0.03


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes
    ----------
    model : Model
        The weights of `best_epoch`.
    config : TrainingConfig
        With the defaults that depend on the data set filled in.
    history : tuple of Epoch
        Metrics of all epochs.
    best_epoch : int
        The epoch with the highest validation accuracy, the later of equals.
    test : Evaluation
        Metrics on the test set.
    seconds : float
        Duration, with teachers, validation and the time before an interruption.
    """

    model: Model
    config: TrainingConfig
    history: tuple[Epoch, ...]
    best_epoch: int
    test: Evaluation
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """Accuracy on the test set."""
        return self.test.accuracy


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted, by Ctrl-C or `should_stop`.

    Attributes
    ----------
    result : TrainingResult
        The best model so far.
    folder : Path or None
        Folder of the checkpoints to resume from; None without `checkpoint`.
    """

    def __init__(
        self, result: TrainingResult, folder: Path | None, save_snapshots: Callable | None
    ) -> None:
        epochs = len(result.history)
        super().__init__(f"training was interrupted after {epochs} epoch{'s' * (epochs != 1)}")
        self.result, self.folder, self._save_snapshots = result, folder, save_snapshots

    def save_checkpoint(self, folder: Path, metadata: Mapping[str, Any]) -> bool:
        """Save a checkpoint to resume from.

        Parameters
        ----------
        folder : Path
            A new or an empty folder.
        metadata : mapping
            Plain JSON to store with it.

        Returns
        -------
        bool
            False if training was interrupted within a step, whose state cannot be resumed.

        Raises
        ------
        OSError
        CheckpointError
        """
        if self._save_snapshots is None:
            return False
        self._save_snapshots(folder, metadata)
        self.folder = folder
        return True


def train(
    dataset: Dataset | tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    *,
    preset: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    sample_weight: ArrayLike | None = None,
    teacher: Model | Ensemble | None = None,
    progress: Progress | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    metadata: Mapping[str, Any] | None = None,
    **config: Any,
) -> TrainingResult:
    """Train a multilayer perceptron and evaluate it on the test set.

    Parameters
    ----------
    dataset : Dataset or tuple of four arrays
        As `load_dataset` returns it; or ``(x_train, y_train, x_test, y_test)``, which are copied:
        see `Dataset`.
    preset : str, optional
        Name of a configuration, by default "standard".
    backend : str
        "auto" or a name.
    threads : int, optional
        By default all usable cores, or fewer if a batch is little work.
    sample_weight : array-like of shape (n,), optional
        Weight of each row of the training set, at least 0.
    teacher : Model or Ensemble, optional
        External teacher, in place of the teachers of the configuration; see its field
        `distillation`. There is a warning if it was trained on validation rows, whose accuracy is
        then too high. Resuming needs it again.
    progress : Progress, optional
        Receives training events.
    callbacks : callable or sequence of callables
        Called with an `EpochState` after every epoch; training ends if one returns true.
    should_stop : callable
        Called some ten times a second; if it returns true, training is interrupted between steps.
    checkpoint : path, optional
        Folder of the checkpoints.
    checkpoint_every : int, optional
        Epochs between two checkpoints; by default as often as takes a twentieth of the time.
    resume : bool
        Resume from the checkpoints in that folder, with their configuration.
    metadata : mapping, optional
        Plain JSON to store with the checkpoints.
    **config
        Fields of `TrainingConfig`, in place of those of the preset.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ArgumentError
    BackendUnavailable
    CheckpointError
    TrainingDiverged
    TrainingInterrupted
        On Ctrl-C: a KeyboardInterrupt that has the best model so far.
    """
    check_names(config, _PARAMETERS)
    if checkpoint_every is not None:
        Range(int, 1).check("checkpoint_every", checkpoint_every)
    if checkpoint is None and (resume or checkpoint_every is not None):
        name = "resume" if resume else "checkpoint_every"
        raise ArgumentError(f"{name} needs a folder of checkpoints: give checkpoint, too")
    if not isinstance(teacher, Model | Ensemble | None):
        raise ArgumentError(f"teacher is {teacher!r}: give a model, as load_model returns it")
    if not isinstance(progress, Progress | None):
        raise ArgumentError(f"progress is {progress!r}: give a subclass of Progress")
    if not callable(should_stop):
        raise ArgumentError(f"should_stop is {should_stop!r}: give a function without arguments")
    folder = None if checkpoint is None else to_path(checkpoint, "checkpoint")
    trainer = _Trainer(
        as_dataset(dataset),
        backend,
        threads,
        sample_weight,
        teacher,
        progress=Progress() if progress is None else progress,
        callbacks=_check_callbacks(callbacks),
        should_stop=should_stop,
    )
    try:
        if folder and resume:
            trainer.resume(folder, checkpoint_every, preset, config)
        else:
            trainer.configure(preset_config(preset, **config))
            if folder:
                trainer.create_folder(folder, checkpoint_every, metadata or {})
        return trainer.train()
    finally:
        if trainer.folder:
            trainer.folder.close()


# Arguments of train() that are no fields of TrainingConfig.
_PARAMETERS = tuple(signature(train).parameters)[:-1]


def _check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple. Raises: ArgumentError if one is not callable."""
    each = (callbacks,) if callable(callbacks) or not isinstance(callbacks, Iterable) else callbacks
    for callback in (checked := tuple(each)):
        if not callable(callback):
            raise ArgumentError(f"callbacks has {callback!r}: give functions of an EpochState")
    return checked


@dataclass
class _Trainer:
    """Trains the networks of one call of train(): the teachers, if any, and the network itself."""

    dataset: Dataset
    backend: str
    threads: int | None
    sample_weight: ArrayLike | None
    teacher: Model | Ensemble | None
    progress: Progress
    callbacks: Sequence[Callback]
    should_stop: Callable[[], bool]

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.teacher_id = teacher_id(self.teacher) if self.teacher else None
        self.folder: CheckpointFolder | None = None
        self.snapshots: dict[str, Snapshot] = {}  # by name: "teacher-1", ...; "" is the network

    def configure(self, config: TrainingConfig) -> None:
        """Set the configuration, and the backend of all networks."""
        self.config = self._resolved(config)
        if self.teacher:
            check_teacher(self.teacher, self.config, self.dataset)
        elif self.config.external_teacher:
            raise ArgumentError(
                f"teacher {self.config.external_teacher[:15]}... of this configuration is missing: "
                "pass it as the argument teacher of train()"
            )
        spec = network_spec(self.config, self.dataset)
        self.backend = backend_name(get_backend(self.backend, spec))

    def _resolved(self, config: TrainingConfig) -> TrainingConfig:
        """Return the configuration with the external teacher and the defaults filled in."""
        if self.teacher_id:
            config = config.with_teacher(self.teacher_id)
        return resolve_config(config, self.dataset)

    def identity(self, metadata: Mapping[str, Any]) -> RunIdentity:
        """Return configuration, data set, backend and versions of the training."""
        return RunIdentity(
            config=self.config,
            dataset={"name": self.dataset.name, "checksum": self.dataset.checksum},
            backend=self.backend,
            instruction_set=instruction_set_of(get_backend(self.backend)),
            fmnist_fast=__version__,
            threads=self.threads,
            metadata=dict(metadata),
        )

    def create_folder(self, folder: Path, every: int | None, metadata: Mapping[str, Any]) -> None:
        """Make the folder of the checkpoints. Raises: CheckpointError; OSError."""
        try:
            identity = self.identity(metadata)
            json.dumps(identity.to_dict())
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"metadata must be a mapping of plain JSON: {error}") from error
        self.folder = CheckpointFolder.create(folder, identity, every)

    def resume(self, folder: Path, every: int | None, preset: str | None, changes: dict) -> None:
        """Open the folder of checkpoints. Raises: CheckpointError if it is of another training."""
        stored = read_identity(folder)
        if stored.dataset["checksum"] != self.dataset.checksum:
            raise CheckpointError(
                f"checkpoint {folder} is of the data set {stored.dataset['name']}, not of this "
                f"one ({self.dataset.name}): give the same data set to resume it"
            )
        config = stored.config
        try:
            config.check(len(self.dataset.x_train), len(self.dataset.class_names))
        except ArgumentError as error:
            raise damaged_identity(folder, error) from error
        teacher = config.external_teacher
        if teacher != self.teacher_id:
            has = "no external teacher: resume it without one"
            if teacher:
                has = f"the teacher {teacher[:15]}...: give it again (--teacher)"
            raise CheckpointError(f"checkpoint {folder} has {has}")
        base = config if preset is None else preset_config(preset)
        field = config.difference(self._resolved(replace(base, **changes)))
        if field:
            raise CheckpointError(
                f"checkpoint {folder} has {field} {config.to_dict()[field]!r}: resume it without "
                "another value, or train anew in another folder"
            )
        named = self.backend != "auto"
        if not named:
            self.backend = stored.backend
            reason = unavailable_reason(self.backend)
            if reason:
                raise CheckpointError(
                    f"checkpoint {folder} was made with backend {self.backend}, which {reason}; to "
                    "resume on another, whose last bits differ, pass --backend"
                )
        self.configure(config)
        current = self.identity({})
        for key in ("instruction_set", "fmnist_fast"):
            before, now = getattr(stored, key), getattr(current, key)
            if not named and before != now:
                raise CheckpointError(
                    f"checkpoint {folder} was made with {key} {before}, not {now}: to resume with "
                    f"other last bits, pass --backend {self.backend}"
                )
        if self.threads is None and self.backend == "numpy":  # its bits depend on them
            self.threads = stored.threads
        self.folder = CheckpointFolder(folder, every)

    def train(self) -> TrainingResult:
        """Train the teachers, then the network."""
        how = self.config.distillation
        teachers = None
        if how and self.teacher:
            teachers = Teachers.from_model(self.teacher, how, self.backend, self.threads)
        elif how:
            teachers = Teachers(self._train_teachers(how), how)
        return self._result(self._train_network(self.config, teachers, "", 1.0))

    def _train_teachers(self, how: Distillation) -> tuple[Network, ...]:
        """Train the teachers, each from its own seed."""
        assert isinstance(how.teacher, TrainingConfig)
        n_teachers, networks = how.n_teachers, []
        cost, student_cost = _cost(how.teacher, self.dataset), _cost(self.config, self.dataset)
        for index in range(n_teachers):
            self.progress.teacher(index + 1, n_teachers)
            seed = self.config.seed * n_teachers + index
            config = replace(how.teacher, seed=seed, time_budget=self.config.time_budget)
            time_fraction = cost / ((n_teachers - index) * cost + student_cost)
            run = self._train_network(config, None, f"teacher-{index + 1}", time_fraction)
            networks.append(run.best_network())
        return tuple(networks)

    def _train_network(
        self, config: TrainingConfig, teachers: Teachers | None, name: str, time_fraction: float
    ) -> TrainingRun:
        """Train one network to the end. time_fraction : of the time budget that is left."""
        callbacks = () if name else self.callbacks  # teachers have none
        run = TrainingRun(
            self.dataset,
            config,
            self.backend,
            self.threads,
            self.sample_weight,
            teachers=teachers,
            clock=self.clock,
        )
        checkpoints = self.folder.checkpoints(name) if self.folder else None
        snapshot = checkpoints.latest() if checkpoints else None
        if snapshot:
            self.clock.advance_to(snapshot.metadata["clock"])
        if self.config.time_budget is not None:
            begin = self.clock()
            left = self.config.time_budget - begin - _seconds_to_finish(run, self.dataset)
            end = begin + left * time_fraction
            run.loop.budget = TimeBudget(config.schedule, config.lr, begin, end, self.clock)
        self.progress.begin(run.network, config, self.dataset)
        if snapshot:
            run.restore(snapshot)
            self.progress.resumed(run.loop.steps_done, tuple(run.history), run.loop.ended)
        try:
            run.train(self.progress, self.should_stop, callbacks, checkpoints)
        except KeyboardInterrupt as stop:
            raise self._interrupted(run, name, checkpoints, stop) from None
        except TrainingDiverged as error:
            error.result = self._result(run) if run.loop.best else None
            raise
        self.snapshots[name] = run.snapshot()
        return run

    def _interrupted(
        self, run: TrainingRun, name: str, checkpoints: Checkpoints | None, stop: KeyboardInterrupt
    ) -> KeyboardInterrupt:
        """Return the exception to raise, with the best model so far if it is finite."""
        save = None
        if isinstance(stop, StopRequested):  # between two steps
            save = self._save_snapshots
            self.snapshots[name] = run.snapshot()
            if checkpoints:
                checkpoints.save(self.snapshots[name])
        if not run.history:  # the weights in the middle of the first epoch are better than none
            if not run.is_finite():
                return stop
            run.keep_if_best(0, None)
        folder = self.folder.folder if self.folder else None
        return TrainingInterrupted(self._result(run), folder, save)

    def _save_snapshots(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Write checkpoints of a training that had none."""
        self.create_folder(folder, None, metadata)
        assert self.folder
        for name, snapshot in self.snapshots.items():
            if not self.folder.checkpoints(name).save(snapshot):
                raise OSError(None, "it could not be written", str(folder))
        self.folder.close()

    def _result(self, run: TrainingRun) -> TrainingResult:
        """Return the best model so far, calibrated, and evaluated on the test set."""
        assert run.loop.best is not None
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
        rows, classes = len(dataset.x_test), len(dataset.class_names)
        labels_n = check_labels(dataset.y_test, rows, classes, name="y_test")
        test = evaluate(model.predict_proba(dataset.x_test), labels_n)
        metrics = {
            "best_epoch": run.loop.best.epoch,
            "validation_accuracy": run.loop.best.score,
            "test_accuracy": test.accuracy,
            "test_loss": test.loss if isfinite(test.loss) else None,
        }
        return TrainingResult(
            model=replace(model, metrics=metrics),
            config=run.config,
            history=tuple(run.history),
            best_epoch=run.loop.best.epoch,
            test=test,
            seconds=self.clock(),
        )


def _calibration(run: TrainingRun) -> tuple[float, float | None]:
    """Return temperature and threshold, from the validation rows: (1, None) if there are few."""
    labels_n, x_ood = run.train_set.y_validation, run.train_set.x_ood
    network = run.best_network()
    raw_nk = network.predict_proba(run.train_set.x_validation)
    if len(labels_n) < MIN_CALIBRATION_ROWS or not np.isfinite(raw_nk).all():
        return 1.0, None
    temperature = fit_temperature(raw_nk, labels_n)
    # Out-of-distribution samples have no correct label.
    labels_n = np.append(labels_n, np.full(len(x_ood), -1))
    raw_nk = np.concatenate([raw_nk, network.predict_proba(x_ood)])
    probs_nk = apply_temperature(raw_nk, temperature)
    confidence_n, correct_n = probs_nk.max(axis=1), probs_nk.argmax(axis=1) == labels_n
    return temperature, confidence_threshold(confidence_n, correct_n, run.config.target_precision)


def _cost(config: TrainingConfig, dataset: Dataset) -> int:
    """Return the multiply-adds of a training, for each row."""
    return config.epochs * sum(i * o for i, o in network_spec(config, dataset).shapes)


def _seconds_to_finish(run: TrainingRun, dataset: Dataset) -> float:
    """Return how long it will take to evaluate and save the network, from a sample."""
    sample = dataset.x_test[:1000]
    run.network.predict_proba(sample[:1])  # so that the kernels are loaded
    start = perf_counter()
    run.network.predict_proba(sample)
    rows = len(dataset.x_test) + 2 * len(run.train_set.x_validation)
    return SAVING_SECONDS + (perf_counter() - start) * rows / len(sample)

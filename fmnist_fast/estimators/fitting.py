"""Training of an estimator: stochastic solvers with early stopping, and L-BFGS."""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.utils.optimize import _check_optimize_result

from ..kernels.interface import TrainData
from ..nn.backend import backend_name
from ..nn.network import Network
from ..training.budget import Budget, Clock, StepBudget, TimeBudget
from .callbacks import FitCallbacks
from .lbfgs import minimize_lbfgs
from .networks import build_network, predict_outputs
from .solvers import EpochTrainer, Solver
from .targets import TargetEncoder

__all__ = ["FitState", "LabeledRows", "StochasticFit", "draw_params", "fit_lbfgs"]


class LabeledRows(NamedTuple):
    """Checked rows to train on or to validate with.

    Parameters
    ----------
    x_ni : ndarray or CSR array of shape (n, features)
    y : ndarray of shape (n,) or (n, k)
        Labels, as the user names them.
    targets_n : ndarray of shape (n,) or (n, n_outputs)
        The same as targets of the network.
    weights_n : ndarray of float64, shape (n,), or None
        Sample weights; None: all are 1.
    """

    x_ni: Any
    y: Any
    targets_n: NDArray
    weights_n: NDArray[np.float64] | None

    def take(self, rows: NDArray) -> "LabeledRows":
        """Return the rows with these indices."""
        weights_n = None if self.weights_n is None else self.weights_n[rows]
        return LabeledRows(self.x_ni[rows], self.y[rows], self.targets_n[rows], weights_n)

    def weights(self) -> NDArray[np.float64]:
        """Return the sample weights as an array."""
        return np.ones(self.x_ni.shape[0]) if self.weights_n is None else self.weights_n


@dataclass
class FitState:
    """What a warm start or the next `partial_fit` continues with, beside public attributes."""

    solver: Solver | None = None
    no_improvement_count: int = 0


def draw_params(
    sizes: tuple[int, ...], activation: str, random_state: np.random.RandomState, dtype: str
) -> tuple[list[NDArray], list[NDArray]]:
    """Draw initial weights and biases as scikit-learn does.

    References
    ----------
    Glorot & Bengio (2010), equation 16; for the logistic function a third of its variance.
    """
    coefs, intercepts = [], []
    for i, o in pairwise(sizes):
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / (i + o))
        coefs.append(random_state.uniform(-bound, bound, (i, o)).astype(dtype, copy=False))
        intercepts.append(random_state.uniform(-bound, bound, o).astype(dtype, copy=False))
    return coefs, intercepts


def fit_lbfgs(estimator: Any, rows: LabeledRows, callbacks: FitCallbacks) -> None:
    """Minimize the loss over all rows by L-BFGS.

    In float64, as in scikit-learn for any dtype of the rows: the line search needs it.
    """
    dtype = estimator.coefs_[0].dtype
    network = build_network(estimator, rows.x_ni, dtype=np.float64)
    targets_n = rows.targets_n
    if targets_n.ndim == 2:
        targets_n = targets_n.astype(np.float64)
    estimator.backend_ = backend_name(network.backend)
    estimator.coefs_, estimator.intercepts_ = map(list, network.params)
    clock = Clock()

    def stops(loss: float) -> bool:
        if estimator.verbose:
            print(f"loss = {loss:.8f}")
        if estimator.time_budget is not None and clock() > estimator.time_budget:
            return True
        return callbacks.end_epoch()

    result = minimize_lbfgs(
        network,
        TrainData(rows.x_ni, 1.0, targets_n, rows.weights()),
        estimator.alpha,
        estimator.tol,
        estimator.max_iter,
        estimator.max_fun,
        stops,
    )
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = float(result.fun)
    estimator.coefs_ = [w_io.astype(dtype, copy=False) for w_io in network.params.weights]
    estimator.intercepts_ = [b_o.astype(dtype, copy=False) for b_o in network.params.biases]


@dataclass
class StochasticFit:
    """One call of `fit` or `partial_fit` with Adam or SGD.

    Parameters
    ----------
    estimator : MLPClassifier
        With its current weights; they and the public attributes change epoch by epoch.
    state : FitState
        Is updated.
    encoder : TargetEncoder
        Of the labels.
    validation : LabeledRows or None
        None: with `early_stopping` a fraction of the training rows.
    callbacks : FitCallbacks
        Are called after every epoch.
    random_state : RandomState
        Splits off validation rows, seeds dropout, and shuffles every epoch, as in scikit-learn.
    incremental : bool
        Whether to train for one epoch (`partial_fit`).
    """

    estimator: Any
    state: FitState
    encoder: TargetEncoder
    validation: LabeledRows | None
    callbacks: FitCallbacks
    random_state: np.random.RandomState
    incremental: bool

    def run(self, rows: LabeledRows) -> None:
        """Train on these rows for max_iter epochs, or until early stopping."""
        estimator = self.estimator
        if estimator.early_stopping and self.incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.state.solver is None or not self.incremental:
            self.state.solver = Solver.from_estimator(estimator)
        if estimator.early_stopping and self.validation is None:
            rows, self.validation = self._split(rows)
        estimator.n_iter_ = 0
        epochs = self._make_epochs(rows, self.state.solver)
        try:
            self._train(epochs)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=3)
        best = epochs.loop.best
        if estimator.early_stopping and best is not None:
            estimator.coefs_, estimator.intercepts_ = map(list, best.params)

    def _split(self, rows: LabeledRows) -> tuple[LabeledRows, LabeledRows]:
        """Return the rows to train on and those to validate with."""
        train_n, validation_n = train_test_split(
            np.arange(rows.x_ni.shape[0]),
            random_state=self.random_state,
            test_size=self.estimator.validation_fraction,
            stratify=rows.y if self.estimator.n_outputs_ == 1 else None,
        )
        if len(validation_n) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return rows.take(train_n), rows.take(validation_n)

    def _make_epochs(self, rows: LabeledRows, solver: Solver) -> EpochTrainer:
        """Prepare training of the estimator's own weights on these rows."""
        estimator, x_ni = self.estimator, rows.x_ni
        batch_size, count = estimator.batch_size, x_ni.shape[0]
        if batch_size == "auto":
            batch_size = 200
        elif batch_size > count:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. "
                "It is going to be clipped",
                stacklevel=4,
            )
        batch_size = int(min(batch_size, count))
        network = build_network(
            estimator,
            x_ni,
            batch_size=batch_size,
            epochs=self._epochs_until_check(),
            optimizer=solver.optimizer.name,
        )
        estimator.backend_ = backend_name(network.backend)
        estimator.coefs_, estimator.intercepts_ = map(list, network.params)
        if x_ni.dtype not in (np.uint8, network.spec.dtype):
            x_ni = x_ni.astype(network.spec.dtype)  # once, not in every epoch
        budget: Budget | None = None
        schedule, seconds = estimator.schedule, estimator.time_budget
        if seconds is not None:
            budget = TimeBudget(schedule, 1.0, 0.0, seconds, Clock())
        elif schedule != "constant":
            budget = StepBudget(schedule, 1.0, estimator.max_iter * -(-count // batch_size))
        return EpochTrainer(
            network,
            solver,
            network.data(x_ni, rows.targets_n, rows.weights()),
            batch_size=batch_size,
            alpha=estimator.alpha,
            random_state=self.random_state if estimator.shuffle else None,
            samples_seen=estimator.t_,
            budget=budget,
            dropout_seed=self.random_state.randint(2**31 - 1) if estimator.dropout else 0,
        )

    def _train(self, epochs: EpochTrainer) -> None:
        estimator = self.estimator
        while True:
            losses = epochs.train(self._epochs_until_check())
            if not losses:  # the time budget is spent
                return
            for loss in losses:
                self._record_epoch(epochs, loss)
            stalled = self.state.no_improvement_count > estimator.n_iter_no_change
            if stalled and self._stops(epochs.solver):
                return
            if self.incremental or self.callbacks.end_epoch():
                return
            if estimator.time_budget is None and estimator.n_iter_ == estimator.max_iter:
                if estimator.schedule == "constant":
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached "
                        "and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
                return

    def _epochs_until_check(self) -> int:
        """Return how many epochs are trained in any case, whatever their losses are."""
        if self.incremental or self.validation is not None or self.callbacks.active:
            return 1
        estimator = self.estimator
        patience = estimator.n_iter_no_change - self.state.no_improvement_count + 1
        return max(1, int(min(patience, estimator.max_iter - estimator.n_iter_)))

    def _record_epoch(self, epochs: EpochTrainer, loss: float) -> None:
        """Add an epoch to the estimator's history."""
        estimator = self.estimator
        estimator.n_iter_ += 1
        estimator.loss_ = loss
        estimator.t_ += epochs.rows
        estimator.loss_curve_.append(loss)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        if self.validation is not None:
            self._validate(self.validation)
        self._update_early_stopping(epochs)

    def _validate(self, rows: LabeledRows) -> None:
        """Add accuracy and loss of the validation rows to the estimator's history."""
        estimator = self.estimator
        network = build_network(estimator, rows.x_ni)
        score, loss = _score_and_loss(network, rows, self.encoder)
        estimator.validation_scores_ = [*(estimator.validation_scores_ or []), score]
        estimator.validation_loss_curve_ = [*(estimator.validation_loss_curve_ or []), loss]
        if estimator.verbose:
            print(f"Validation score: {score:f}")

    def _update_early_stopping(self, epochs: EpochTrainer) -> None:
        """Count epochs without improvement; with `early_stopping` keep the best weights."""
        estimator = self.estimator
        if estimator.early_stopping:
            score = estimator.validation_scores_[-1]
            improved = not score < estimator.best_validation_score_ + estimator.tol
            if score > estimator.best_validation_score_:
                estimator.best_validation_score_ = score
                epochs.loop.keep_best(estimator.n_iter_, score, epochs.loop.state.params)
        else:
            loss = estimator.loss_
            improved = not loss > estimator.best_loss_ - estimator.tol
            estimator.best_loss_ = min(loss, estimator.best_loss_)
        self.state.no_improvement_count = 0 if improved else self.state.no_improvement_count + 1

    def _stops(self, solver: Solver) -> bool:
        """Return whether training stops, rather than continues with a lower learning rate."""
        estimator = self.estimator
        stops = not solver.reduce_rate()
        if stops and estimator.schedule != "constant" and not estimator.early_stopping:
            stops = False  # a schedule is planned to its end
        elif estimator.verbose:
            metric = "Validation score" if estimator.early_stopping else "Training loss"
            message = (
                f"{metric} did not improve more than tol={estimator.tol:f} for "
                f"{estimator.n_iter_no_change} consecutive epochs."
            )
            if stops and estimator.solver == "sgd" and estimator.learning_rate == "adaptive":
                message += " Learning rate too small."
            rate = f"Setting learning rate to {solver.learning_rate:f}"
            print(message, "Stopping." if stops else rate)
        if not stops:
            self.state.no_improvement_count = 0
        return stops


def _score_and_loss(
    network: Network, rows: LabeledRows, encoder: TargetEncoder
) -> tuple[float, float]:
    """Return accuracy and mean loss without penalty; NaN if the network has diverged."""
    probability_nk = predict_outputs(network, rows.x_ni)
    if not np.isfinite(probability_nk).all():
        return np.nan, np.nan
    tiny = np.finfo(probability_nk.dtype).tiny
    targets_n = rows.targets_n
    p_nk = np.clip(probability_nk, tiny, None)
    if network.spec.loss == "sigmoid":
        q_nk = np.clip(1 - probability_nk, tiny, None)
        loss_n = -(targets_n * np.log(p_nk) + (1 - targets_n) * np.log(q_nk)).sum(axis=1)
    elif targets_n.ndim == 1:
        loss_n = -np.log(p_nk[np.arange(len(p_nk)), targets_n])
    else:
        loss_n = -(targets_n * np.log(p_nk)).sum(axis=1)
    labels_n = encoder.predict_labels(probability_nk)
    score = accuracy_score(rows.y, labels_n, sample_weight=rows.weights_n)
    return float(score), float(np.average(loss_n, weights=rows.weights_n))

"""Training of an estimator by a stochastic solver, with early stopping."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

from ..nn.backend import backend_name
from .callbacks import FitCallbacks
from .networks import build_network
from .solvers import EpochTrainer, Solver
from .targets import LabeledRows


@dataclass
class StochasticFit:
    """One call of `fit` or `partial_fit` with Adam or SGD.

    Parameters
    ----------
    estimator : MLPClassifier
        With its current weights; they and the public attributes change epoch by epoch.
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
    validation: LabeledRows | None
    callbacks: FitCallbacks
    random_state: np.random.RandomState
    incremental: bool

    def run(self, rows: LabeledRows) -> None:
        """Train to max_iter, convergence or the time budget; in partial_fit, one epoch."""
        estimator = self.estimator
        if estimator.early_stopping and self.incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if estimator._solver is None or not self.incremental:
            estimator._solver = Solver(estimator)
        if estimator.early_stopping and self.validation is None:
            rows, self.validation = self._split(rows)
        estimator.n_iter_ = 0
        epochs = self._make_epochs(rows, estimator._solver)
        try:
            self._train(epochs)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=3)
        if epochs.loop.best:  # with early_stopping
            estimator.coefs_, estimator.intercepts_ = map(list, epochs.loop.best.params)

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
        epochs = self._epochs_until_check()
        network = build_network(
            estimator, x_ni, batch_size=batch_size, epochs=epochs, optimizer=solver.optimizer.name
        )
        estimator.backend_ = backend_name(network.backend)
        estimator.coefs_, estimator.intercepts_ = map(list, network.params)
        if x_ni.dtype not in (np.uint8, network.spec.dtype):
            x_ni = x_ni.astype(network.spec.dtype)  # once, not in every epoch
        data = network.data(x_ni, rows.targets_n, rows.weights())
        return EpochTrainer(estimator, solver, network, data, batch_size, self.random_state)

    def _train(self, epochs: EpochTrainer) -> None:
        estimator = self.estimator
        while True:
            losses = epochs.train(self._epochs_until_check())
            if not losses:  # the time budget is spent
                return
            for loss in losses:
                self._record_epoch(epochs, loss)
            stalled = estimator._no_improvement_count > estimator.n_iter_no_change
            stops = stalled and self._stops(epochs.solver)
            if stops or self.incremental or self.callbacks.end_epoch():
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
        observed = self.validation is not None or self.callbacks.context is not None
        if self.incremental or observed:
            return 1
        estimator = self.estimator
        patience = estimator.n_iter_no_change - estimator._no_improvement_count + 1
        return max(1, int(min(patience, estimator.max_iter - estimator.n_iter_)))

    def _record_epoch(self, epochs: EpochTrainer, loss: float) -> None:
        """Add an epoch to the estimator's history, and count those without improvement."""
        estimator = self.estimator
        estimator.n_iter_ += 1
        estimator.loss_ = loss
        estimator.t_ += epochs.rows
        estimator.loss_curve_.append(loss)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        if self.validation is not None:
            score, validation_loss = _score_and_loss(estimator, self.validation)
            losses = estimator.validation_loss_curve_ or []
            estimator.validation_scores_ = [*(estimator.validation_scores_ or []), score]
            estimator.validation_loss_curve_ = [*losses, validation_loss]
            if estimator.verbose:
                print(f"Validation score: {score:f}")
        if estimator.early_stopping:
            improved = not score < estimator.best_validation_score_ + estimator.tol
            if score > estimator.best_validation_score_:
                estimator.best_validation_score_ = score
                epochs.loop.keep_best(estimator.n_iter_, score, epochs.loop.state.params)
        else:
            improved = not loss > estimator.best_loss_ - estimator.tol
            estimator.best_loss_ = min(loss, estimator.best_loss_)
        estimator._no_improvement_count = 0 if improved else estimator._no_improvement_count + 1

    def _stops(self, solver: Solver) -> bool:
        """Return whether training stops, rather than continues with a lower learning rate."""
        estimator = self.estimator
        metric = "Validation score" if estimator.early_stopping else "Training loss"
        message = (
            f"{metric} did not improve more than tol={estimator.tol:f} for "
            f"{estimator.n_iter_no_change} consecutive epochs."
        )
        # A schedule is planned to its end.
        runs_to_end = estimator.schedule != "constant" and not estimator.early_stopping
        stops = solver.rate.trigger_stopping(message, estimator.verbose and not runs_to_end)
        if estimator.verbose and runs_to_end and not stops:
            print(f"{message} Setting learning rate to {solver.rate.learning_rate:f}")
        if runs_to_end or not stops:
            estimator._no_improvement_count = 0
        return bool(stops) and not runs_to_end


def _score_and_loss(estimator: Any, rows: LabeledRows) -> tuple[float, float]:
    """Return accuracy and mean loss without penalty; NaN if the network has diverged."""
    network = build_network(estimator, rows.x_ni)
    probability_nk = network.outputs(rows.x_ni)
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
    labels_n = estimator._encoder.predict_labels(probability_nk)
    score = accuracy_score(rows.y, labels_n, sample_weight=rows.weights_n)
    return float(score), float(np.average(loss_n, weights=rows.weights_n))

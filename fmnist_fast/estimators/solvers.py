"""The stochastic solvers of scikit-learn's MLPClassifier, on these kernels.

Source of the conventions: scikit-learn 1.9, sklearn/neural_network. The penalty of a batch is
alpha / (2 sum of its weights) times the sum of all squared weights; Adam adds its epsilon to a root
that is not corrected for bias; Nesterov's step looks one step ahead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from ..kernels.interface import Params, TrainData, TrainState
from ..nn.network import Network, estimate_work
from ..nn.optimizers import SGD, Adam, Optimizer
from ..training.budget import Budget, Clock, StepBudget, TimeBudget
from ..training.loop import EpochInputs, TrainingLoop

# Work of the epochs that are trained in one range, at most, and their steps: a third of an epoch of
# Fashion-MNIST with 784-128-64-10. A range cannot be interrupted.
MAX_WORK = 1 << 31
MAX_STEPS = 1000


class Solver:
    """What a stochastic solver keeps between calls: learning rate, steps done, moments.

    rate : scikit-learn's optimizer, without parameters to update, for its learning rate.
    """

    def __init__(self, estimator: Any) -> None:
        p = estimator
        self.optimizer: Optimizer
        if p.solver == "sgd":
            self.optimizer = SGD(float(p.momentum), p.nesterovs_momentum)
            self.rate = SGDOptimizer([], p.learning_rate_init, p.learning_rate, power_t=p.power_t)
        else:
            betas = float(p.beta_1), float(p.beta_2)
            self.optimizer = Adam(betas, float(p.epsilon), corrected_epsilon=False)
            self.rate = AdamOptimizer([], p.learning_rate_init)
        self.t = 0
        self.moments: tuple[Params, Params] | None = None

    def state(self, network: Network) -> TrainState:
        """Return the network's parameters, to be trained, and the moments so far."""
        if self.moments is None:
            self.moments = network.fresh_state()[1:]
        dtype, shapes = network.spec.dtype, [w_io.shape for w_io in network.params.weights]
        if [m_io.shape for m_io in self.moments[0].weights] != shapes:
            raise ValueError("coefs_ have other shapes than in the last call: use fit.")
        m, v = (
            Params(*(tuple(a.astype(dtype, copy=False) for a in arrays) for arrays in moment))
            for moment in self.moments
        )
        self.moments = (m, v)
        return TrainState(network.params, m, v)


class EpochTrainer:
    """Trains a network as scikit-learn does: order of the rows, penalty, loss of each epoch.

    random_state : seeds dropout, and shuffles the rows before every epoch.
    """

    def __init__(
        self,
        estimator: Any,
        solver: Solver,
        network: Network,
        data: TrainData,
        batch_size: int,
        random_state: np.random.RandomState,
    ) -> None:
        self.solver, self.data = solver, data
        self.alpha: float = estimator.alpha
        self.random_state = random_state if estimator.shuffle else None
        self.dropout_seed = random_state.randint(2**31 - 1) if estimator.dropout else 0
        self.samples_seen = estimator.t_
        self.rows: int = data.x_ni.shape[0]
        self.order_n = np.arange(self.rows, dtype=np.int32)
        self.rows_t = np.diff([*range(0, self.rows, batch_size), self.rows]).astype(np.float64)
        self.loop = TrainingLoop(
            network,
            solver.state(network),
            solver.optimizer,
            _budget(estimator, len(self.rows_t)),
            self._start_epoch,
            rows=self.rows,
            batch_size=batch_size,
            steps_before=solver.t,
        )
        # Where all rows have weight 1, the penalty does not depend on their order.
        self.l2_t = self._l2(self.rows_t) if (data.weights_n == 1).all() else None

    def train(self, max_epochs: int) -> list[float]:
        """Train an epoch, or several in one range; return the mean loss of each, none at the end.

        The losses are weighted by the rows of a batch, as in scikit-learn.
        """
        loop = self.loop
        if loop.ended:  # maybe within an epoch, whose losses were returned
            return []
        loop.train(self._epochs_at_once(max_epochs))
        losses_t = loop.losses_t[: loop.step_in_epoch]
        loop.end_epoch()
        self.solver.t = loop.steps_before + loop.steps_done
        losses = []
        # Epoch by epoch: the bits of a matrix product would depend on the number of epochs.
        for first in range(0, len(losses_t), loop.steps_per_epoch):
            epoch_t = losses_t[first : first + loop.steps_per_epoch]
            rows_t = self.rows_t[: len(epoch_t)]
            losses.append(float(epoch_t @ rows_t) / float(rows_t.sum()))
        return losses

    def _epochs_at_once(self, max_epochs: int) -> int:
        """Return how many epochs one range may train."""
        loop = self.loop
        if loop.network.spec.dropout or isinstance(loop.budget, StepBudget | TimeBudget):
            return 1  # dropout has another key in every epoch
        work = estimate_work(loop.network.spec, self.rows)
        return max(1, min(max_epochs, MAX_WORK // work, MAX_STEPS // loop.steps_per_epoch))

    def _start_epoch(self, epoch: int) -> EpochInputs:
        if self.random_state is not None:
            shuffled_n = np.arange(self.rows)
            self.random_state.shuffle(shuffled_n)
            self.order_n = self.order_n[shuffled_n]
        l2_t = self.l2_t
        if l2_t is None:
            starts = np.arange(0, self.rows, self.loop.batch_size)
            l2_t = self._l2(np.add.reduceat(self.data.weights_n[self.order_n], starts))
        key = 0
        if self.loop.network.spec.dropout:
            step = self.loop.steps_before + (epoch - 1) * self.loop.steps_per_epoch
            seeds = np.random.SeedSequence([self.dropout_seed, step])
            key = int(seeds.generate_state(1, np.uint64)[0])
        inputs = EpochInputs(self.data, self.order_n, l2_t, self.solver.rate.learning_rate, key)
        self.samples_seen += self.rows
        self.solver.rate.iteration_ends(self.samples_seen)
        return inputs

    def _l2(self, weights_t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the L2 factor of every batch: alpha over the sum of its weights, or 0."""
        return np.divide(self.alpha, weights_t, out=np.zeros_like(weights_t), where=weights_t > 0)


def _budget(estimator: Any, steps_per_epoch: int) -> Budget:
    """Return the budget of learning rates relative to the solver's own."""
    schedule, seconds = estimator.schedule, estimator.time_budget
    if seconds is not None:
        return TimeBudget(schedule, 1.0, 0.0, seconds, Clock())
    if schedule != "constant":
        return StepBudget(schedule, 1.0, estimator.max_iter * steps_per_epoch)
    return Budget()

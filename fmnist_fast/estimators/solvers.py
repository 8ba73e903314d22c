"""The stochastic solvers of scikit-learn's MLPClassifier, on these kernels.

Source of the conventions: scikit-learn 1.9, sklearn/neural_network. The penalty of a batch is
alpha / (2 sum of its weights) times the sum of all squared weights; Adam adds its epsilon to a root
that is not corrected for bias; Nesterov's step looks one step ahead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Params, TrainData, TrainState
from ..nn.network import Network, estimate_work
from ..nn.optimizers import SGD, Adam, Optimizer
from ..training.budget import Budget, UnlimitedBudget
from ..training.loop import EpochInputs, TrainingLoop

__all__ = ["EpochTrainer", "Solver"]

# An adaptive learning rate is not divided further below this.
MIN_RATE = 1e-6

# Work of the epochs that are trained in one range, at most, and their steps: a third of an epoch of
# Fashion-MNIST with 784-128-64-10. A range cannot be interrupted.
MAX_WORK = 1 << 31
MAX_STEPS = 1000


class Solver:
    """What a stochastic solver keeps between calls: learning rate, steps done, moments.

    schedule : constant, invscaling or adaptive, as in scikit-learn.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        learning_rate: float,
        schedule: str = "constant",
        power_t: float = 0.5,
    ) -> None:
        self.optimizer = optimizer
        self.initial_rate = self.learning_rate = float(learning_rate)
        self.schedule, self.power_t = schedule, power_t
        self.t = 0
        self.moments: tuple[Params, Params] | None = None

    @classmethod
    def from_estimator(cls, estimator: Any) -> "Solver":
        """Return a new solver, as the parameters of an estimator describe it."""
        p = estimator
        if p.solver == "sgd":
            optimizer = SGD(float(p.momentum), p.nesterovs_momentum)
            return cls(optimizer, p.learning_rate_init, p.learning_rate, p.power_t)
        adam = Adam(float(p.beta_1), float(p.beta_2), float(p.epsilon), corrected_epsilon=False)
        return cls(adam, p.learning_rate_init)

    def state(self, network: Network) -> TrainState:
        """Return the network's parameters, to be trained, and the moments so far."""
        if self.moments is None:
            self.moments = network.fresh_state()[1:]
        dtype, shapes = network.spec.dtype, [w_io.shape for w_io in network.params.weights]
        if [m_io.shape for m_io in self.moments[0].weights] != shapes:
            raise ValueError("coefs_ have other shapes than in the last call: use fit.")
        if self.moments[0].weights[0].dtype != dtype:
            m, v = (
                Params(*(tuple(a.astype(dtype) for a in arrays) for arrays in moment))
                for moment in self.moments
            )
            self.moments = (m, v)
        return TrainState(network.params, *self.moments)

    def end_epoch(self, samples: int) -> None:
        """Set the learning rate of the next epoch, after so many samples in all epochs."""
        if self.schedule == "invscaling":
            self.learning_rate = self.initial_rate / (samples + 1) ** self.power_t

    def reduce_rate(self) -> bool:
        """Divide an adaptive learning rate; False if training should stop instead."""
        if self.schedule != "adaptive" or self.learning_rate <= MIN_RATE:
            return False
        self.learning_rate /= 5
        return True


class EpochTrainer:
    """Trains a network as scikit-learn does: order of the rows, penalty, loss of each epoch.

    random_state : shuffles the rows before every epoch; None: they keep their order.
    samples_seen : rows of all earlier epochs. budget : None: a constant learning rate, and no end.
    dropout_seed : of the dropout masks.
    """

    def __init__(
        self,
        network: Network,
        solver: Solver,
        data: TrainData,
        *,
        batch_size: int,
        alpha: float,
        random_state: np.random.RandomState | None,
        samples_seen: int = 0,
        budget: Budget | None = None,
        dropout_seed: int = 0,
    ) -> None:
        self.solver, self.data, self.alpha = solver, data, alpha
        self.random_state, self.dropout_seed = random_state, dropout_seed
        self.samples_seen = samples_seen
        self.rows: int = data.x_ni.shape[0]
        self.order_n = np.arange(self.rows, dtype=np.int32)
        self.loop = TrainingLoop(
            network,
            solver.state(network),
            solver.optimizer,
            budget or UnlimitedBudget(),
            self._start_epoch,
            rows=self.rows,
            batch_size=batch_size,
            steps_before=solver.t,
        )
        self.rows_t = np.full(self.loop.steps_per_epoch, float(batch_size))
        self.rows_t[-1] = self.rows - batch_size * (self.loop.steps_per_epoch - 1)
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
        if loop.network.spec.dropout or not isinstance(loop.budget, UnlimitedBudget):
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
        inputs = EpochInputs(self.data, self.order_n, l2_t, self.solver.learning_rate, key)
        self.samples_seen += self.rows
        self.solver.end_epoch(self.samples_seen)
        return inputs

    def _l2(self, weights_t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the penalty of every batch, from the sum of its weights."""
        return np.divide(self.alpha, weights_t, out=np.zeros_like(weights_t), where=weights_t > 0)

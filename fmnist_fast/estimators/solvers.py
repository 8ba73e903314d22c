"""How scikit-learn's MLPClassifier learns from batches: its Adam, its momentum, on these kernels.

Source of the conventions: scikit-learn 1.9, sklearn/neural_network. The penalty of a batch is
alpha / (2 sum of its weights) times the sum of all squared weights; Adam adds its epsilon to a root
that is not corrected for bias; Nesterov's step looks one step ahead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Params, StepSchedule, TrainData, TrainState
from ..nn.network import Network, estimate_work
from ..nn.optimizers import SGD, Adam, Optimizer
from ..training.budget import Budget, Clock, StepBudget

__all__ = ["Epochs", "Solver"]

# A learning rate that is not worth dividing any more.
MIN_RATE = 1e-6

# Steps after which a run that has to end in time looks at the clock.
STEPS_BETWEEN_LOOKS = 16

# The work of the epochs that are trained in one call, at most, and their steps: a third of an epoch
# of Fashion-MNIST with 784-128-64-10. Meanwhile nobody can interrupt.
WORK_AT_ONCE = 1 << 31
STEPS_AT_ONCE = 1000


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

    def steps(
        self, lr_t: NDArray[np.float64], batch_size: int, l2_t: NDArray[np.float64]
    ) -> StepSchedule:
        """Return the next steps. lr_t : the learning rate of each."""
        steps = self.optimizer.steps(lr_t, self.t, batch_size, l2_t)
        self.t += len(lr_t)
        return steps

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


def batch_weights(weights_n: NDArray[np.float64], batch_size: int) -> NDArray[np.float64]:
    """The sum of every batch's weights, of rows in the order in which they are trained on."""
    sums: NDArray[np.float64] = np.add.reduceat(
        weights_n, np.arange(0, len(weights_n), batch_size), dtype=np.float64
    )
    return sums


class Epochs:
    """Training from epoch to epoch: the order of the rows, the pace, the best weights so far.

    best : what keep() copied last.
    """

    best: Params | None = None

    def __init__(
        self,
        network: Network,
        solver: Solver,
        data: TrainData,
        batch_size: int,
        alpha: float,
        random_state: np.random.RandomState | None,
        seen: int,
    ) -> None:
        """random_state : shuffles the rows before every epoch; None: they stay as they are.

        seen : rows in all epochs before.
        """
        self.network, self.solver, self.data = network, solver, data
        self.batch_size, self.alpha, self.random_state = batch_size, alpha, random_state
        self.seen = seen
        self.state = solver.state(network)
        self.count: int = data.x_ni.shape[0]
        self.steps_of_epoch: int = -(-self.count // batch_size)
        self.order_n = np.arange(self.count, dtype=np.int32)
        rows_t = np.full(self.steps_of_epoch, float(batch_size))
        rows_t[-1] = self.count - batch_size * (self.steps_of_epoch - 1)
        self.rows_t = rows_t
        # Where all rows count alike, whatever their order, it is the same in every epoch.
        self.l2_t = self._l2(rows_t) if (data.weights_n == 1).all() else None
        self.budget: Budget | None = None
        self.dropout_seed = 0
        self.done = 0

    def train(self, at_most: int) -> list[float]:
        """Train on every row once, or, in one call, several times, but at most so many.

        Returns: the mean loss of the batches of each epoch; none if time is over.
        """
        if self.budget is not None:
            return self._paced_epoch(self.budget)
        epochs = self._epochs_at_once(at_most)
        order_en = np.empty((epochs, self.count), np.int32)
        lr_et, l2_et = np.empty((2, epochs, self.steps_of_epoch))
        for epoch in range(epochs):
            l2_et[epoch] = self._shuffle()
            order_en[epoch], lr_et[epoch] = self.order_n, self.solver.learning_rate
            self._epoch_ends()
        steps = self._numbers(lr_et.ravel(), l2_et.ravel())._replace(epoch_rows=self.count)
        losses_t = self._train(order_en.ravel(), steps)
        losses_et = losses_t.reshape(epochs, self.steps_of_epoch)
        # One by one: the sums of a product of all would depend on how many there are.
        return [float(losses_t @ self.rows_t) / self.count for losses_t in losses_et]

    def _epochs_at_once(self, at_most: int) -> int:
        """How many epochs one call may train."""
        if self.network.spec.dropout:  # it has another key in every epoch
            return 1
        work = estimate_work(self.network.spec, self.count)
        return max(1, min(at_most, WORK_AT_ONCE // work, STEPS_AT_ONCE // self.steps_of_epoch))

    def _paced_epoch(self, budget: Budget) -> list[float]:
        l2_t = self._shuffle()
        total, first = 0.0, 0
        while first < self.steps_of_epoch:
            left = self.steps_of_epoch - first
            at_most = left if isinstance(budget, StepBudget) else min(left, STEPS_BETWEEN_LOOKS)
            rates_t, clock = budget.rates(self.done, at_most), Clock()
            if not len(rates_t):
                break
            last = first + len(rates_t)
            order_n = self.order_n[first * self.batch_size : last * self.batch_size]
            lr_t = self.solver.learning_rate * rates_t
            losses_t = self._train(order_n, self._numbers(lr_t, l2_t[first:last]))
            budget.observe(last - first, clock())
            total += float(losses_t @ self.rows_t[first:last])
            first = last
        self._epoch_ends()
        return [total / float(self.rows_t[:first].sum())] if first else []

    def _shuffle(self) -> NDArray[np.float64]:
        """Order the rows for the next epoch; the penalty of each of its batches."""
        if self.random_state is not None:
            drawn_n = np.arange(self.count)
            self.random_state.shuffle(drawn_n)
            self.order_n = self.order_n[drawn_n]
        if self.l2_t is not None:
            return self.l2_t
        return self._l2(batch_weights(self.data.weights_n[self.order_n], self.batch_size))

    def _epoch_ends(self) -> None:
        self.seen += self.count
        self.solver.end_epoch(self.seen)

    def _l2(self, weights_t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The penalty of every batch, whose rows weigh so much."""
        nothing = np.zeros_like(weights_t)
        return np.divide(self.alpha, weights_t, out=nothing, where=weights_t > 0)

    def _numbers(self, lr_t: NDArray[np.float64], l2_t: NDArray[np.float64]) -> StepSchedule:
        """Of the next steps, with these learning rates."""
        key: Any = 0
        if self.network.spec.dropout:
            seeds = np.random.SeedSequence([self.dropout_seed, self.solver.t])
            key = seeds.generate_state(1, np.uint64)[0]
        steps = self.solver.steps(lr_t, self.batch_size, l2_t)
        return steps._replace(dropout_key=int(key))

    def _train(self, order_n: NDArray[np.int32], steps: StepSchedule) -> NDArray[np.float64]:
        """Returns: the loss of each step."""
        count = len(steps.l2_t)
        self.done += count
        return self.network.train_steps(self.state, self.data, order_n, steps, 0, count)

    def keep(self) -> None:
        """These weights are the best so far."""
        self.best = Params(*(tuple(a.copy() for a in arrays) for arrays in self.network.params))

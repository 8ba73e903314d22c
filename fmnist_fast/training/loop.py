"""The training loop: ranges of steps, budget, interruption, losses, best weights.

`train()` and the estimators both use it. They differ in what they pass: the inputs of every epoch
(order of the rows, penalty), the optimizer, the budget, and when they stop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Params, StepSchedule, TrainData, TrainState
from ..nn.ema import copy_params
from ..nn.network import Network
from ..nn.optimizers import Optimizer
from .budget import Budget


class StopRequested(KeyboardInterrupt):
    """should_stop() returned true between two steps: the state can be saved as it is."""


class EpochInputs(NamedTuple):
    """What an epoch trains on.

    order_n : rows in the order of training. l2 : factor of the penalty, or one for each step.
    lr : what the learning rates of the budget are multiplied by.
    """

    data: TrainData
    order_n: NDArray[np.int32]
    l2: float | NDArray[np.float64]
    lr: float = 1.0
    dropout_key: int = 0


class Best(NamedTuple):
    """The best weights so far. score : validation accuracy of that epoch, if it was measured."""

    epoch: int
    score: float | None
    params: Params


@dataclass
class TrainingLoop:
    """Trains a network epoch by epoch, in ranges of steps.

    A range is one call of the kernel: it cannot be interrupted, and how epochs are cut into ranges
    changes no bit of the result. Between ranges the clock is read and `should_stop` called.

    start_epoch : returns the inputs of an epoch, 1, 2, ...; called when the epoch begins, and
    again if a saved state in the middle of an epoch is resumed.
    rows : that an epoch trains on. max_range_seconds : aimed at; inf: one range a call of train().
    steps_before : of the optimizer, before this loop.
    """

    network: Network
    state: TrainState
    optimizer: Optimizer
    budget: Budget
    start_epoch: Callable[[int], EpochInputs]
    rows: int
    batch_size: int
    weight_decay: float = 0.0
    max_range_seconds: float = inf
    steps_before: int = 0

    def __post_init__(self) -> None:
        self.steps_per_epoch = ceil(self.rows / self.batch_size)
        # Of the epoch that is under way, or the first of several that are trained in one range.
        self.epoch, self.step_in_epoch, self.seconds = 1, 0, 0.0
        self.losses_t = np.zeros(self.steps_per_epoch)
        self.ended = False
        self.best: Best | None = None

    @property
    def steps_done(self) -> int:
        """Steps since the loop began."""
        return (self.epoch - 1) * self.steps_per_epoch + self.step_in_epoch

    def train(
        self,
        epochs: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
        on_range: Callable[[], object] = lambda: None,
    ) -> None:
        """Train the epoch that is under way to its end, or several epochs.

        `losses_t[:step_in_epoch]` has the loss of every step; `end_epoch` begins the next epoch.
        `ended` is set when the budget is used up, which may be in the middle of an epoch.
        Raises: StopRequested.
        """
        inputs = [self.start_epoch(self.epoch + ahead) for ahead in range(epochs)]
        order_n = np.concatenate([each.order_n for each in inputs])
        steps = epochs * self.steps_per_epoch
        if len(self.losses_t) != steps:
            self.losses_t = np.zeros(steps)
        range_seconds = min(self.max_range_seconds, self.budget.max_range_seconds)
        range_steps = steps if range_seconds == inf else 1
        while self.step_in_epoch < steps:
            if should_stop():
                raise StopRequested
            first = self.step_in_epoch
            rates_t = self.budget.rates(self.steps_done, min(range_steps, steps - first))
            if not len(rates_t):
                self.ended = True
                return
            last = first + len(rates_t)
            schedule = self._schedule(inputs, rates_t)
            start = perf_counter()
            self.losses_t[first:last] = self.network.train_steps(
                self.state, inputs[0].data, order_n, schedule, first, last
            )
            seconds = perf_counter() - start
            self.budget.observe(last - first, seconds)
            self.seconds, self.step_in_epoch = self.seconds + seconds, last
            if range_seconds < inf:
                fitting = int((last - first) * range_seconds / seconds)
                range_steps = max(1, min(10 * range_steps, fitting))
            on_range()

    def _schedule(self, inputs: list[EpochInputs], rates_t: NDArray[np.float64]) -> StepSchedule:
        """Return the steps of these epochs; those of the next range have learning rates."""
        lr_t = np.zeros(len(inputs) * self.steps_per_epoch)
        lr_t[self.step_in_epoch : self.step_in_epoch + len(rates_t)] = rates_t
        lr_t *= np.repeat([each.lr for each in inputs], self.steps_per_epoch)
        l2_t = np.concatenate([np.broadcast_to(each.l2, self.steps_per_epoch) for each in inputs])
        before = self.steps_before + (self.epoch - 1) * self.steps_per_epoch
        decay_t = self.weight_decay * lr_t
        schedule = self.optimizer.steps(lr_t, before, self.batch_size, l2_t, decay_t)
        return schedule._replace(dropout_key=inputs[0].dropout_key, epoch_rows=self.rows)

    def end_epoch(self) -> None:
        """Count the epochs that were trained to their end, and begin the next one."""
        done, self.step_in_epoch = divmod(self.step_in_epoch, self.steps_per_epoch)
        self.epoch, self.seconds = self.epoch + done, 0.0

    def keep_best(self, epoch: int, score: float | None, params: Params) -> None:
        """Copy these weights as the best so far."""
        self.best = Best(epoch, score, copy_params(params))

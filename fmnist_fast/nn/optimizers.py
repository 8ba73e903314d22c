"""Optimizers: the hyperparameters of every step (step size, epsilon, penalty, decay).

The kernels make the step, `reference.update`; learning rates are in `schedules`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import StepSchedule

__all__ = ["SGD", "Adam", "Optimizer"]

# One value for all steps, or one for each.
PerStep = float | NDArray[np.float64]


class Optimizer(Protocol):
    """What turns learning rates into the steps that the kernels make."""

    @property
    def name(self) -> str:
        """As in `NetworkSpec.optimizer`."""

    def steps(
        self,
        lr_t: NDArray[np.float64],
        first: int,
        batch_size: int,
        l2: PerStep,
        decay: PerStep = 0.0,
    ) -> StepSchedule:
        """Return the steps of these learning rates, after `first` earlier ones.

        l2 : factor of the penalty. decay : fraction of the weights that a step subtracts.
        """


@dataclass(frozen=True)
class Adam:
    """Adam: Kingma & Ba (2015), Algorithm 1, with the bias corrected in the step size.

    corrected_epsilon : whether epsilon is added to the corrected root of the second moment, as in
    Algorithm 1, or to the root as it is, as in scikit-learn.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    corrected_epsilon: bool = True

    name = "adam"

    def steps(
        self,
        lr_t: NDArray[np.float64],
        first: int,
        batch_size: int,
        l2: PerStep,
        decay: PerStep = 0.0,
    ) -> StepSchedule:
        t = np.arange(first + 1, first + 1 + len(lr_t), dtype=np.float64)
        root_t = np.sqrt(1 - self.beta2**t)
        with np.errstate(divide="ignore", invalid="ignore"):  # a beta of 1 is allowed
            if self.corrected_epsilon:
                step_size_t = lr_t * root_t / (1 - self.beta1**t)
            else:  # in scikit-learn's order of operations, whose last bits these are
                step_size_t = lr_t * (root_t / (1 - self.beta1**t))
        return StepSchedule(
            batch_size,
            step_size_t=step_size_t,
            epsilon_t=self.epsilon * root_t
            if self.corrected_epsilon
            else _per_step(self.epsilon, lr_t),
            l2_t=_per_step(l2, lr_t),
            decay_t=_per_step(decay, lr_t),
            beta1=self.beta1,
            beta2=self.beta2,
        )


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum. nesterov : with Nesterov's.

    Source: Sutskever et al. (2013), equations 1 to 4.
    """

    momentum: float
    nesterov: bool = False

    @property
    def name(self) -> str:
        return "nesterov" if self.nesterov else "sgd"

    def steps(
        self,
        lr_t: NDArray[np.float64],
        first: int,
        batch_size: int,
        l2: PerStep,
        decay: PerStep = 0.0,
    ) -> StepSchedule:
        return StepSchedule(
            batch_size,
            step_size_t=lr_t,
            epsilon_t=np.zeros(len(lr_t)),
            l2_t=_per_step(l2, lr_t),
            decay_t=_per_step(decay, lr_t),
            beta1=self.momentum,
            beta2=0.0,
        )


def _per_step(value: PerStep, lr_t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.broadcast_to(value, len(lr_t)).astype(np.float64)

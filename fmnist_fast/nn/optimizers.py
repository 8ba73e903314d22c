"""Optimizers: the hyperparameters of every step (step size, epsilon, penalty, decay).

The kernels make the step, `reference.update`; learning rates are in `schedules`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import StepSchedule

# A value for each step, or one for all.
Steps = NDArray[np.float64]
PerStep = float | Steps


class Optimizer:
    """Base class of optimizers: computes the hyperparameters of steps from learning rates.

    name : as in `NetworkSpec.optimizer`. betas : `beta1` and `beta2` of `StepSchedule`.
    """

    name: str
    betas: tuple[float, float]

    def step_sizes(self, lr_t: Steps, first: int) -> tuple[Steps, PerStep]:
        """Return step size and epsilon of these learning rates, after `first` earlier steps."""
        return lr_t, 0.0

    def steps(
        self, lr_t: Steps, first: int, batch_size: int, l2: PerStep, decay: PerStep = 0.0
    ) -> StepSchedule:
        """Return the steps of these learning rates, after `first` earlier ones.

        l2 : factor of the penalty. decay : fraction of the weights that a step subtracts.
        """
        step_size_t, epsilon = self.step_sizes(lr_t, first)
        epsilon_t, l2_t, decay_t = (
            np.broadcast_to(value, len(lr_t)).astype(np.float64) for value in (epsilon, l2, decay)
        )
        return StepSchedule(
            batch_size,
            step_size_t=step_size_t,
            epsilon_t=epsilon_t,
            l2_t=l2_t,
            decay_t=decay_t,
            beta1=self.betas[0],
            beta2=self.betas[1],
        )


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: Kingma & Ba (2015), Algorithm 1, with the bias corrected in the step size.

    corrected_epsilon : whether epsilon is added to the corrected root of the second moment, as in
    Algorithm 1, or to the root as it is, as in scikit-learn.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    corrected_epsilon: bool = True

    name = "adam"

    def step_sizes(self, lr_t: Steps, first: int) -> tuple[Steps, PerStep]:
        beta1, beta2 = self.betas
        t = np.arange(first + 1, first + 1 + len(lr_t), dtype=np.float64)
        root_t = np.sqrt(1 - beta2**t)
        with np.errstate(divide="ignore", invalid="ignore"):  # a beta of 1 is allowed
            if self.corrected_epsilon:
                return lr_t * root_t / (1 - beta1**t), self.epsilon * root_t
            # Same order of operations as scikit-learn, for the same last bits.
            return lr_t * (root_t / (1 - beta1**t)), self.epsilon


class SGD(Optimizer):
    """Stochastic gradient descent with momentum. nesterov : with Nesterov's.

    Source: Sutskever et al. (2013), equations 1 to 4.
    """

    def __init__(self, momentum: float, nesterov: bool = False) -> None:
        self.name = "nesterov" if nesterov else "sgd"
        self.betas = (momentum, 0.0)

"""Learning-rate range test: train a few steps at growing rates, and see where the loss falls.

Source: Smith (2017), "Cyclical learning rates for training neural networks", section 3.3.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..data.datasets import Dataset
from ..nn.optimizers import Adam
from ..nn.random_streams import Purpose, random_stream
from .config import TrainingConfig
from .run import TrainingRun
from .train_data import resolve_config

MIN_RATE, MAX_RATE = 1e-6, 1.0
STEPS = 400

# The smoothed loss is an exponential moving average over so many steps.
EMA_STEPS = 25

# The test ends when the smoothed loss is so many times its minimum.
DIVERGENCE_FACTOR = 3.0


@dataclass(frozen=True)
class LRFinderResult:
    """Result of a learning-rate range test.

    Attributes
    ----------
    lr_t, loss_t, smooth_t : ndarray of float64, shape (t,)
        Learning rate, loss and smoothed loss of every step.
    advised : float
        Peak learning rate for a one-cycle schedule.
    """

    lr_t: NDArray[np.float64]
    loss_t: NDArray[np.float64]
    smooth_t: NDArray[np.float64]
    advised: float


def find_learning_rate(
    dataset: Dataset, config: TrainingConfig, backend: str = "auto", threads: int | None = None
) -> LRFinderResult:
    """Train on 400 batches at learning rates from 1e-6 to 1; stop when the loss explodes.

    The advised rate is a third of that with the lowest smoothed loss: there training only just
    works, and a peak must hold for many epochs.

    Raises
    ------
    ArgumentError
    BackendUnavailable
    """
    config = replace(resolve_config(config, dataset), distillation=None, augment=None)
    run = TrainingRun(dataset, config, backend, threads)
    lr_t = np.geomspace(MIN_RATE, MAX_RATE, STEPS)
    rows = STEPS * config.batch_size
    stream = random_stream(config.seed, Purpose.EPOCH_ORDER)
    order_n = np.resize(stream.permutation(run.train_set.rows_n), rows).astype(np.int32)
    steps = Adam().steps(lr_t, 0, config.batch_size, config.l2)
    state, data = run.loop.state, run.train_set.data
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(STEPS):
            loss = run.network.train_steps(state, data, order_n, steps, step, step + 1)[0]
            if not np.isfinite(loss):
                break
            mean += (loss - mean) / EMA_STEPS
            losses.append(loss)
            smoothed.append(mean / (1 - (1 - 1 / EMA_STEPS) ** (step + 1)))
            if smoothed[-1] > DIVERGENCE_FACTOR * min(smoothed):
                break
    lr_t, loss_t, smooth_t = lr_t[: len(losses)], np.array(losses), np.array(smoothed)
    return LRFinderResult(lr_t, loss_t, smooth_t, float(lr_t[smooth_t.argmin()] / 3))

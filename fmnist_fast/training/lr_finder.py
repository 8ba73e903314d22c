"""Which learning rate? A short run whose rate grows at every step shows where loss falls fastest.

Source: Smith (2017), "Cyclical learning rates for training neural networks", section 3.3.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..data.datasets import Dataset
from ..nn.optimizers import Adam
from ..nn.random_streams import EPOCH_ORDER, random_stream
from .config import TrainingConfig
from .loop import Run, resolve_config

__all__ = ["LRFinderResult", "find_learning_rate"]

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 400

# Steps whose mean, weighted towards the newest, is the smoothed loss.
MEMORY = 25

# Beyond so many times the least loss so far, higher rates can only be worse.
HOPELESS = 3.0


@dataclass(frozen=True)
class LRFinderResult:
    """What was tried: float64 (t,) each, learning rates, losses, smoothed losses. advised : the
    peak for a one-cycle schedule.
    """

    lr_t: NDArray[np.float64]
    loss_t: NDArray[np.float64]
    smooth_t: NDArray[np.float64]
    advised: float


def find_learning_rate(
    dataset: Dataset, config: TrainingConfig, backend: str = "auto", threads: int | None = None
) -> LRFinderResult:
    """Try learning rates from 1e-6 to 1 on 400 batches, one each; stops when the loss explodes.

    The advice is a third of the rate at which the smoothed loss was least: at that rate training
    just still works, and a peak must hold for many epochs.
    Raises: ArgumentError; BackendUnavailable.
    """
    tried_on = replace(resolve_config(config, dataset), distillation=None, augment=None)
    run = Run(dataset, tried_on, backend, threads, None)
    lr_t = np.geomspace(LOWEST, HIGHEST, STEPS)
    rows = STEPS * config.batch_size
    stream = random_stream(config.seed, EPOCH_ORDER)
    order_n = np.resize(stream.permutation(run.train_rows), rows).astype(np.int32)
    steps = Adam().steps(lr_t, 0, config.batch_size, config.l2)
    loss_t, smooth_t = np.empty(STEPS), np.empty(STEPS)
    mean, tried = 0.0, STEPS
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(STEPS):
            loss = run.network.train_steps(run.state, run.data, order_n, steps, step, step + 1)[0]
            if not np.isfinite(loss):
                tried = step
                break
            mean += (loss - mean) / MEMORY
            loss_t[step] = loss
            smooth_t[step] = mean / (1 - (1 - 1 / MEMORY) ** (step + 1))
            if smooth_t[step] > HOPELESS * smooth_t[: step + 1].min():
                tried = step + 1
                break
    lr_t, loss_t, smooth_t = lr_t[:tried], loss_t[:tried], smooth_t[:tried]
    return LRFinderResult(lr_t, loss_t, smooth_t, float(lr_t[smooth_t.argmin()] / 3))

"""Seconds of an epoch by phase."""

from cProfile import Profile
from functools import partial
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import PHASES, StepSchedule, TrainData, TrainState
from ..nn.backend import backend_name
from ..nn.network import Network

# Phases of the numpy backend, and the functions that train_steps calls for them.
NUMPY_PHASES = {
    "gather": "batch_rows",
    "forward": "forward",
    "loss": "loss_and_grad",
    "backward": "backward",
    "update": "update",
}


def phases_of_epoch(
    network: Network,
    state: TrainState,
    data: TrainData,
    order_n: NDArray[np.int32],
    steps: StepSchedule,
) -> dict[str, float]:
    """Train one epoch in place, and return its seconds by phase.

    The compiled backends time themselves; a phase's seconds are the mean of the threads. "packing"
    is the rest: copying the state into the layout of the kernels and back. The functions of the
    numpy backend are profiled: it has other phases.
    """
    backend, count = cast(Any, network.backend), -(-len(order_n) // steps.batch_size)
    train = partial(
        backend.train_steps, state, data, order_n, steps, network.spec, 0, count, network.threads
    )
    if backend_name(backend) == "numpy":
        profile = Profile(builtins=False)
        profile.runcall(train)
        seconds = {entry.code: entry.totaltime for entry in profile.getstats()}
        functions = {phase: getattr(backend, name) for phase, name in NUMPY_PHASES.items()}
        return {phase: seconds[function.__code__] for phase, function in functions.items()}
    seconds_tp = np.zeros((network.threads, len(PHASES)))
    start = perf_counter()
    train(seconds_tp)
    wall = perf_counter() - start
    phases = dict(zip(PHASES, seconds_tp.mean(axis=0).tolist()))
    return {**phases, "packing": wall - sum(phases.values())}

"""Seconds of an epoch by phase."""

from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..kernels.interface import PHASES, StepSchedule, TrainData, TrainState
from ..nn.backend import Backend, backend_name
from ..nn.network import Network

__all__ = ["phases_of_epoch"]


def phases_of_epoch(
    network: Network,
    state: TrainState,
    data: TrainData,
    order_n: NDArray[np.int32],
    steps: StepSchedule,
) -> dict[str, float]:
    """Train one epoch in place, and return its seconds by phase.

    The compiled backends time themselves; a phase's seconds are the mean of the threads. "packing"
    is the rest: copying the state into the layout of the kernels and back. The numpy backend is
    timed here, operation by operation: it has other phases.
    """
    backend, count = network.backend, -(-len(order_n) // steps.batch_size)
    if backend_name(backend) == "numpy":
        return _operations(backend, network, state, data, order_n, steps)
    seconds_tp = np.zeros((network.threads, len(PHASES)))
    start = perf_counter()
    cast(Any, backend).train_steps(
        state, data, order_n, steps, network.spec, 0, count, network.threads, seconds_tp
    )
    wall = perf_counter() - start
    phases = dict(zip(PHASES, seconds_tp.mean(axis=0).tolist()))
    return {**phases, "packing": wall - sum(phases.values())}


def _operations(
    backend: Backend,
    network: Network,
    state: TrainState,
    data: TrainData,
    order_n: NDArray[np.int32],
    steps: StepSchedule,
) -> dict[str, float]:
    """Time the operations of the numpy backend's train_steps."""
    spec = network.spec
    seconds = dict.fromkeys(("gather", "forward", "loss", "backward", "update"), 0.0)
    since = 0.0

    def lap(phase: str) -> None:
        nonlocal since
        now = perf_counter()
        seconds[phase] += now - since
        since = now

    with threadpool_limits(network.threads, user_api="blas"):
        workspace: tuple[Any, ...] = ()
        for step, first in enumerate(range(0, len(order_n), steps.batch_size)):
            rows_b = order_n[first : first + steps.batch_size]
            if not workspace or len(rows_b) < len(workspace[0]):  # the last batch is smaller
                workspace = cast(Any, backend).workspace(spec, len(rows_b))
            x_bi, layers, loss_b, grad_logits_bk, grads = workspace
            since = perf_counter()
            backend.gather_batch(data.x_ni, order_n, first, first + len(rows_b), data.scale, x_bi)
            weights_b = data.weights_n[rows_b].astype(spec.dtype)
            targets_b = data.targets_n[rows_b]
            lap("gather")
            backend.forward(state.params, x_bi, spec, layers)
            lap("forward")
            backend.loss_and_grad(layers[-1], targets_b, weights_b, spec, loss_b, grad_logits_bk)
            lap("loss")
            backend.backward(state.params, x_bi, layers, grad_logits_bk, spec, grads)
            lap("backward")
            backend.update(state, grads, steps.at(step), spec)
            lap("update")
    return seconds

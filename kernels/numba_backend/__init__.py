"""The network in Numba, for machines without a C compiler.

Compiled at first use and cached on disk: training and prediction once for each dtype, the
prediction of one row once for each dtype of rows and each number of layers, too.

The operations of `Backend`. Every one computes what the function of the same name in
`reference.py` specifies; `gather_batch`, which training and prediction do not use, is that of the
reference. Parameters are copied to a `Workspace`, which runs parts of a step; one row is predicted
without copying them.

Read `layers` first, then `training` and `workspace`; `intrinsics` and `compilation` are about
Numba.

May import what `kernels` may, NumPy, Numba and llvmlite.
"""

from dataclasses import replace

import numpy as np

from ..interface import PHASES, DropoutState
from ..interface import SUPPORTS as SUPPORTS
from ..reference import gather_batch as gather_batch
from .compilation import compiled_for
from .compilation import compiling_seconds as compiling_seconds
from .layers import BLOCK
from .training import BACKWARD, COPY, FORWARD, GRADIENT, LOSS, PREDICT, TRAIN, UPDATE, predict_one
from .workspace import Workspace, data_rows, readonly


def _coefs(step_size, epsilon, l2, decay, beta1, beta2, dtype):
    """Return the coefficients of every step, (t, 8): see `training`.

    Computed in double, since 1 - beta2 in float32 has fewer correct digits.
    """
    columns = step_size, epsilon, l2, 1 - decay, beta1, 1 - beta1, beta2, 1 - beta2
    return np.column_stack(np.broadcast_arrays(*columns)).astype(dtype)


def _run_batch(workspace, parts, x_bi, dropout_state=None, targets=None, **fields):
    """Run parts of one step on all rows."""
    rows = data_rows(x_bi, workspace.spec, targets=targets)
    order = np.arange(x_bi.shape[0])
    return workspace.run(parts, rows, order, [0, len(order)], dropout_state, **fields)


def train_steps(state, data, order_n, schedule, spec, first, last, threads, seconds_tp=None):
    """Train on a team of threads: see `Backend.train_steps`."""
    if first >= last:
        return np.empty(0)
    starts = schedule.starts(len(order_n))[first : last + 1]
    order, starts = order_n[starts[0] : starts[-1]], starts - starts[0]
    weights_n = data.weights_n[order]
    sums_t = np.add.reduceat(weights_n, starts[:-1])
    weights_n /= np.repeat(np.where(sums_t, sums_t, 1), np.diff(starts))
    fields = {"weights_n": weights_n, "coefs_t": _coefs(*schedule[1:7], spec.dtype)[first:last]}
    if seconds_tp is not None:
        fields["seconds_tp"] = np.zeros((threads, 16))  # each thread writes to its own cache lines
    rows = data_rows(data.x_ni, spec, data.scale, data.targets_n, data.skip_zeros)
    workspace = Workspace(spec, min(schedule.batch_size, len(order)), threads, dropout=True)
    workspace.pack(w=state.params, m=state.m, v=state.v)
    dropout_state = DropoutState(order, schedule.dropout_key)
    call = workspace.run(TRAIN, rows, order, starts, dropout_state, **fields)
    workspace.unpack(w=state.params, m=state.m, v=state.v)
    if seconds_tp is not None:
        seconds_tp += call.seconds_tp[:, : len(PHASES)]
    losses_t = np.add.reduceat(weights_n * call.losses_n, starts[:-1])
    return losses_t + schedule.l2_t[first:last] / 2 * call.squares_t


def forward(params, x_bi, spec, out_activations, dropout_state=None):
    """Compute the outputs of all layers: see `Backend.forward`."""
    workspace = Workspace(spec, x_bi.shape[0], dropout=dropout_state is not None)
    workspace.pack(w=params)
    _run_batch(workspace, COPY | FORWARD, x_bi, dropout_state)
    for layer, out_bo in zip(workspace.layers, out_activations):
        out_bo[:] = workspace.view(layer["z"], *out_bo.shape)


def loss_and_grad(logits_bk, targets_b, weights_b, spec, out_loss_b, out_grad_logits_bk):
    """Compute the cross-entropy and its gradient: see `Backend.loss_and_grad`."""
    spec = replace(spec, sizes=(1, logits_bk.shape[1]), input_format="dense")
    workspace = Workspace(spec, len(logits_bk))
    z, grad = (workspace.view(workspace.layers[0][m], *logits_bk.shape) for m in ("z", "grad"))
    z[:] = logits_bk
    weights_n = weights_b.astype(np.float64) / (weights_b.sum(dtype=np.float64) or 1)
    call = _run_batch(workspace, LOSS, logits_bk, targets=targets_b, weights_n=weights_n)
    out_loss_b[:], out_grad_logits_bk[:] = call.losses_n, grad


def backward(params, x_bi, activations, grad_logits_bk, spec, out_grads, dropout_state=None):
    """Compute the gradients of all parameters: see `Backend.backward`."""
    workspace = Workspace(spec, x_bi.shape[0], whole_g=True, dropout=dropout_state is not None)
    workspace.pack(w=params)
    for layer, a_bi in zip(workspace.layers[1:], activations):
        workspace.view(layer["x"], *a_bi.shape)[:] = a_bi
    workspace.view(workspace.layers[-1]["grad"], *grad_logits_bk.shape)[:] = grad_logits_bk
    _run_batch(workspace, COPY | BACKWARD | GRADIENT, x_bi, dropout_state)
    workspace.unpack(g=out_grads)


def update(state, grads, hyperparams, spec):
    """Apply one optimizer step: see `Backend.update`."""
    workspace = Workspace(replace(spec, input_format="dense"), 1, whole_g=True)
    workspace.pack(w=state.params, m=state.m, v=state.v, g=grads)
    coefs_t = _coefs(*hyperparams, spec.dtype)
    _run_batch(workspace, UPDATE, np.empty((1, 1)), coefs_t=coefs_t)
    workspace.unpack(w=state.params, m=state.m, v=state.v)


def predict(params, x_ni, scale, spec, threads, out_nk):
    """Compute class probabilities: see `Backend.predict`. A row's bits depend on no other row."""
    count = x_ni.shape[0]
    # The read-only flag is part of an array's type in Numba.
    writable = all(array.flags.writeable for array in (*params.weights, *params.biases))
    if count == 1 and spec.input_format == "dense" and writable:
        kinds = (SUPPORTS["activation"].index(spec.activation), SUPPORTS["loss"].index(spec.loss))
        x_ni = readonly(x_ni, x_ni.dtype, 2)
        arguments = (*params, x_ni, out_nk.dtype.type(scale), *kinds, out_nk)
        key = spec.dtype, x_ni.dtype, len(spec.sizes)
        compiled_for(predict_one, key, *arguments)(*arguments)
    elif count:
        # Steps of 64 rows a thread.
        threads = min(threads, -(-count // BLOCK))
        workspace = Workspace(spec, min(count, BLOCK * threads), threads)
        workspace.pack(w=params)
        starts = [*range(0, count, BLOCK * threads), count]
        rows, order = data_rows(x_ni, spec, scale), np.arange(count)
        workspace.run(COPY | FORWARD | PREDICT, rows, order, starts, out_nk=out_nk)

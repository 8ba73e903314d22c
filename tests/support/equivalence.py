"""Checks that a kernel module computes what the reference specifies, within derived bounds.

The exact result is the reference in a wider dtype: float64 for float32, long double for float64.
A sum of n products has an error of at most (n + 2) eps sum |x||w|, in any order, fused or not
(Higham 2002, section 3.1); the other bounds are derived from that. An activation multiplies the
error of z by its Lipschitz constant and adds its own. Outputs are filled with NaN first; inputs are
read-only.
"""

from itertools import pairwise

import numpy as np
from kernel_cases import batch_rows, flat, map_params, one_epoch, training_data

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import DropoutState, StepHyperparams, TrainState

LIPSCHITZ = {"relu": 1, "tanh": 1, "logistic": 1 / 4, "identity": 1}

# Error of the activation function itself, in eps of the result: 2 for e^z, then 1 + e^z and the
# quotient are rounded. e^z stays at twice the smallest normal number at least.
ACTIVATION_ERROR = {"relu": 0, "tanh": 6, "logistic": 6, "identity": 0}


def check_gather_batch(kernels, case, dtype=np.uint8):
    data = training_data(case, dtype)
    order_n = np.random.default_rng(1).permutation(case.rows).astype(np.int32)
    got_bi = np.full_like(case.x_bi, np.nan)
    kernels.gather_batch(data.x_ni, order_n, 0, case.rows, data.scale, got_bi)
    exact_bi = data.x_ni[order_n].astype(case.wide_dtype) * data.scale
    assert (np.abs(got_bi - exact_bi) <= case.eps * exact_bi).all()  # scale, product are rounded


def dropout_masks(case):
    """Return which outputs (b, o) of every hidden layer dropout keeps."""
    masks, first = [], 0
    for _, outputs in case.spec.shapes[:-1]:
        units_o = np.arange(first, first + outputs, dtype=np.uint32)
        bits_bo = reference.random_bits(case.dropout_state, units_o)
        masks.append(bits_bo >= case.spec.dropout * 2**32)
        first += outputs
    return masks


def check_forward(kernels, case, dropout=False):
    """dropout : as in training; else as in prediction."""
    activations, eps, activation = case.activations(), case.eps, case.spec.activation
    state = (case.dropout_state,) if dropout else ()
    kernels.forward(case.params, case.given_bi, case.spec, activations, *state)
    a_bi, scale = case.x_bi.astype(case.wide_dtype), 1 / (1 - case.spec.dropout)
    for depth, (w_io, b_o) in enumerate(zip(*map(case.wide, case.params))):
        exact = a_bi @ w_io + b_o
        bound = (len(w_io) + 2) * eps * (np.abs(a_bi) @ np.abs(w_io) + np.abs(b_o))
        if depth < len(activations) - 1:
            reference.activate(exact, case.wide_spec)
            bound *= LIPSCHITZ[activation]
            bound += ACTIVATION_ERROR[activation] * (eps * (np.abs(exact) + bound) + case.tiny)
        if dropout and depth < len(activations) - 1:
            mask = dropout_masks(case)[depth]
            exact *= scale * mask
            bound = (bound * scale + 2 * eps * np.abs(exact)) * mask
        assert (np.abs(activations[depth] - exact) <= bound).all()
        a_bi = activations[depth].astype(case.wide_dtype)  # the next layer's exact input


def check_activation(kernels, case, z_b):
    """Check the activation at z_b, which is the exact z of every hidden unit. NaN stays NaN."""
    ones = case.params._replace(
        weights=tuple(map(np.ones_like, case.params.weights)),
        biases=tuple(map(np.zeros_like, case.params.biases)),
    )
    activations = case.activations()
    kernels.forward(ones, z_b[:, None].astype(case.dtype), case.spec, activations)
    got_bo, exact_b1 = activations[0], z_b[:, None].astype(case.dtype).astype(case.wide_dtype)
    reference.activate(exact_b1, case.wide_spec)
    finite = np.isfinite(exact_b1[:, 0])
    assert np.array_equal(
        got_bo[~finite], np.broadcast_to(exact_b1[~finite], got_bo[~finite].shape), equal_nan=True
    )
    bound_b1 = ACTIVATION_ERROR[case.spec.activation] * case.eps * np.abs(exact_b1[finite])
    if case.spec.activation == "logistic":
        bound_b1 += 2 * case.tiny
    assert (np.abs(got_bo[finite] - exact_b1[finite]) <= bound_b1).all()


def check_loss_and_grad(kernels, case, spread=5, soft=False):
    """spread : standard deviation of the logits."""
    rows, classes, eps = case.rows, case.spec.sizes[-1], case.eps
    logits_bk = (np.random.default_rng(1).normal(size=(rows, classes)) * spread).astype(case.dtype)
    logits_bk.setflags(write=False)
    loss_b, grad_logits_bk = np.full(rows, np.nan, case.dtype), np.full_like(logits_bk, np.nan)
    targets_b = case.targets(soft)
    kernels.loss_and_grad(logits_bk, targets_b, case.weights_b, case.spec, loss_b, grad_logits_bk)
    z_bk, weights_b = case.wide([logits_bk, case.weights_b])
    exact_loss_b, exact_grad_bk = np.empty_like(weights_b), np.empty_like(z_bk)
    reference.loss_and_grad(
        z_bk,
        targets_b if targets_b.ndim == 1 else targets_b.astype(case.wide_dtype),
        weights_b,
        case.wide_spec,
        exact_loss_b,
        exact_grad_bk,
    )
    if case.spec.loss == "sigmoid":
        p_bk = np.empty_like(z_bk)
        log_bk = reference.sigmoid(z_bk, p_bk)
        p_bound_bk = ACTIVATION_ERROR["logistic"] * (eps * p_bk + case.tiny)
        # A sum of k terms: a logarithm with an error of 8 eps, and a product.
        terms_bk = eps * (log_bk + np.abs(targets_b * z_bk)) + case.tiny
        loss_bound_b = (classes + 10) * terms_bk.sum(axis=1)
    else:
        gap_bk = z_bk.max(axis=1, keepdims=True) - z_bk
        # z - max is rounded, so e^(z - max) has a relative error of gap eps, and of 3 eps more from
        # the polynomial; the sum of k of them likewise. The term stays at twice the smallest
        # normal number at least.
        worst_b1 = np.minimum(gap_bk, -np.log(case.tiny)).max(axis=1, keepdims=True)
        p_bk = np.exp(-gap_bk) / np.exp(-gap_bk).sum(axis=1, keepdims=True)
        p_bound_bk = p_bk * (2 * worst_b1 + 8 + classes) * eps + 2 * case.tiny * classes
        loss_bound_b = eps * (
            worst_b1[:, 0] + classes + 8 + 2 * exact_loss_b + np.abs(logits_bk).max(axis=1)
        )
        if soft:  # a sum of k products more
            loss_bound_b += eps * (classes + 2) * np.abs(targets_b * z_bk).sum(axis=1)
    grad_bound_bk = (weights_b / weights_b.sum())[:, None] * (p_bound_bk + 4 * eps)
    assert (np.abs(grad_logits_bk - exact_grad_bk) <= grad_bound_bk).all()
    assert (np.abs(loss_b - exact_loss_b) <= loss_bound_b).all()


def activation_grad_error(case, a_bo):
    """Return a bound of the error of the activation's gradient where its output is a.

    Removing dropout's factor takes two roundings, each of which changes a by eps of itself at most;
    then a^2 and 1 - a^2, or 1 - a and the product with a, are rounded.
    """
    roundings = 2 if case.spec.dropout else 0
    if case.spec.activation == "tanh":
        return case.eps * (2 * roundings * a_bo**2 + a_bo**2 + 1)
    if case.spec.activation == "logistic":
        return case.eps * (roundings + 2) * np.abs(a_bo)
    return np.zeros_like(a_bo)


def check_backward(kernels, case):
    rows, rate, eps = case.rows, case.spec.dropout, case.eps
    activations, grads = case.activations(), case.grads()
    reference.forward(case.params, case.x_bi, case.spec, activations, case.dropout_state)
    shape = (rows, case.spec.sizes[-1])
    grad_logits_bk = np.random.default_rng(2).normal(size=shape).astype(case.dtype)
    for array in (*activations, grad_logits_bk):
        array.setflags(write=False)
    kernels.backward(
        case.params,
        case.given_bi,
        activations,
        grad_logits_bk,
        case.spec,
        grads,
        case.dropout_state,
    )
    exact_bo = grad_logits_bk.astype(case.wide_dtype)
    bound_bo = np.zeros_like(exact_bo)
    for depth in reversed(range(len(activations))):
        a_bi = (activations[depth - 1] if depth else case.x_bi).astype(case.wide_dtype)
        size_bo = np.abs(exact_bo) + bound_bo
        bound = np.abs(a_bi).T @ (bound_bo + (rows + 2) * eps * size_bo)
        assert (np.abs(grads.weights[depth] - a_bi.T @ exact_bo) <= bound).all()
        bound = (bound_bo + (rows + 2) * eps * size_bo).sum(axis=0)
        assert (np.abs(grads.biases[depth] - exact_bo.sum(axis=0)) <= bound).all()
        if depth == 0:
            break
        (w_io,) = case.wide([case.params.weights[depth]])
        a_bi *= 1 - rate
        # Dropout's factor is rounded, and the products with it and with the activation's gradient.
        scale = 1 / (1 - rate) * (dropout_masks(case)[depth - 1] if rate else 1)
        grad, below_bo = reference.activation_grad(a_bi, case.wide_spec), size_bo @ np.abs(w_io).T
        bound_bo = (bound_bo @ np.abs(w_io).T + (w_io.shape[1] + 5) * eps * below_bo) * grad
        bound_bo = (bound_bo + activation_grad_error(case, a_bi) * below_bo) * scale
        exact_bo = (exact_bo @ w_io.T) * grad * scale


def check_update(kernels, case):
    state, eps = case.state(), case.eps

    def random_grad(a):
        return np.random.default_rng(3).normal(0, 1e-2, a.shape).astype(case.dtype)

    def widen(a):
        return a.astype(case.wide_dtype)

    grads = map_params(random_grad, case.params)
    before = TrainState(*(map_params(widen, part) for part in state))
    exact_state = TrainState(*(map_params(np.copy, part) for part in before))
    exact_grads = map_params(widen, grads)
    hyperparams = StepHyperparams(1e-3, 1e-8, 1e-4, 1e-2, 0.9, 0.999)
    kernels.update(state, map_params(np.copy, grads), hyperparams, case.spec)
    reference.update(exact_state, exact_grads, hyperparams, case.wide_spec)
    for kind in range(2):
        for i, g in enumerate(grads[kind]):
            p, m, v = (part[kind][i] for part in state)
            exact_p, exact_m, exact_v = (part[kind][i] for part in exact_state)
            old_p, old_m, old_v = (part[kind][i] for part in before)
            # Each term is rounded at most four times, and the hyperparameters once.
            size_g = np.abs(g) + hyperparams.l2 * np.abs(old_p)
            if case.spec.optimizer != "adam":
                size_m = np.abs(old_m) + hyperparams.step_size * size_g
                assert (np.abs(m - exact_m) <= 8 * eps * size_m).all()
                assert (v == old_v).all()
                # The step is a sum of those again: of two terms, one of them rounded before.
                assert (np.abs(p - exact_p) <= 4 * eps * np.abs(old_p) + 24 * eps * size_m).all()
                continue
            m_bound = 8 * eps * (np.abs(exact_m) + 0.1 * size_g + 0.9 * np.abs(exact_m))
            assert (np.abs(m - exact_m) <= m_bound + 8 * eps * size_g).all()
            assert (np.abs(v - exact_v) <= 8 * eps * (exact_v + 2e-3 * size_g**2)).all()
            denominator = np.sqrt(exact_v) + hyperparams.epsilon
            step = hyperparams.step_size / denominator * (np.abs(exact_m) + m_bound + size_g)
            assert (np.abs(p - exact_p) <= 4 * eps * np.abs(old_p) + 24 * eps * step).all()


def check_train_steps(kernels, case, batch_size, soft=False, dtype=np.uint8):
    """Check that train_steps has the bits of the single operations, while no number is denormal.

    A weight whose second moment is zero, but not its first, would jump to 1e5 and make tiny
    probabilities denormal; the threads of train_steps flush those to zero.
    """
    data, order_n, schedule, count = one_epoch(case, batch_size, dtype, soft)
    whole, parts = case.state(1e-6), case.state(1e-6)
    losses = kernels.train_steps(whole, data, order_n, schedule, case.spec, 0, count, 2)
    for step in range(count):
        first, last = step * batch_size, min((step + 1) * batch_size, case.rows)
        rows_b = order_n[first:last]
        buffers = reference.workspace(case.spec, last - first)
        _, activations, loss_b, grad_logits_bk, grads = buffers
        weights_b, targets_b = case.weights_b[rows_b], data.targets_n[rows_b]
        x_bi = batch_rows(kernels, case, data, order_n, first, last)
        dropout_state = DropoutState(rows_b, schedule.dropout_key)
        kernels.forward(parts.params, x_bi, case.spec, activations, dropout_state)
        kernels.loss_and_grad(
            activations[-1], targets_b, weights_b, case.spec, loss_b, grad_logits_bk
        )
        kernels.backward(
            parts.params, x_bi, activations, grad_logits_bk, case.spec, grads, dropout_state
        )
        expected = reference.batch_loss(*case.wide([loss_b, weights_b]), parts.params, 1e-2)
        assert abs(losses[step] - expected) <= 1e3 * case.eps * (1 + abs(expected))
        kernels.update(parts, grads, schedule.at(step), case.spec)
    assert np.isfinite(losses).all()
    assert np.array_equal(flat(whole), flat(parts))


def check_predict(kernels, case, data, got_nk):
    """Check that got_nk is the softmax, or the sigmoid, of the logits of `forward`."""
    classes, eps = case.spec.sizes[-1], case.eps
    activations = case.activations()
    order_n = np.arange(case.rows, dtype=np.int32)
    x_bi = batch_rows(kernels, case, data, order_n, 0, case.rows)
    kernels.forward(case.params, x_bi, case.spec, activations)
    z = activations[-1].astype(case.wide_dtype)
    p = np.empty_like(z)
    if case.spec.loss == "sigmoid":
        reference.sigmoid(z, p)
        bound = ACTIVATION_ERROR["logistic"] * eps * p + 2 * case.tiny
    else:
        reference.softmax(z, p)
        gap = np.abs(z - z.max(axis=1, keepdims=True)).max()
        bound = (2 * gap + 8 + classes) * eps * p + 8 * case.tiny
    assert (np.abs(got_nk - p) <= bound).all()


def check_bits(backend, case, data, order_n, schedule, runs):
    """Check that steps have the same bits for all runs: (threads, where the range is cut)."""
    expected = None
    for threads, cuts in runs:
        state = case.state()
        losses = [
            backend.train_steps(state, data, order_n, schedule, case.spec, first, last, threads)
            for first, last in pairwise(cuts)
        ]
        got = np.concatenate([flat(state).astype(np.float64), *losses])
        expected = got if expected is None else expected
        assert np.array_equal(got, expected)
    assert np.isfinite(expected).all()


def check_epochs_in_one_call(backend, case, batch_size):
    """Check that three epochs in one call have the bits of three calls.

    Batches that would extend over the end of an epoch are the interesting ones.
    """
    assert case.rows % batch_size
    data, order_n, schedule, count = one_epoch(case, batch_size)
    orders = [np.roll(order_n, epoch) for epoch in range(3)]
    one_call, three_calls = case.state(), case.state()
    three_epochs = schedule._replace(
        epoch_rows=case.rows,
        step_size_t=np.tile(schedule.step_size_t, 3),
        epsilon_t=np.tile(schedule.epsilon_t, 3),
        l2_t=np.tile(schedule.l2_t, 3),
        decay_t=np.tile(schedule.decay_t, 3),
    )
    losses_t = backend.train_steps(
        one_call, data, np.concatenate(orders), three_epochs, case.spec, 0, 3 * count, 2
    )
    expected = [
        backend.train_steps(three_calls, data, order_n, schedule, case.spec, 0, count, 2)
        for order_n in orders
    ]
    assert np.array_equal(losses_t, np.concatenate(expected))
    assert np.array_equal(flat(one_call), flat(three_calls))

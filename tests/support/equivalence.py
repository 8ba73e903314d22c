"""What "equal to the reference" means: random cases, and a check of every operation.

The truth is the reference in a wider type on the same numbers: float64 for float32, long double for
float64. A sum of n products, in whatever order, fused or not, is off by at most
(n + 2) eps sum |x||w| (Higham 2002, section 3.1); the other bounds are built from that. An
activation passes on what its sum is off, times the steepest that it is, and adds an error of its
own. Outputs are filled with NaN first; inputs are read-only.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy import sparse

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import (
    DropoutState,
    NetworkSpec,
    Params,
    StepHyperparams,
    TrainData,
    TrainState,
)
from fmnist_fast.nn.optimizers import Adam

# How much an activation enlarges an error of its argument, at most.
STEEPEST = {"relu": 1, "tanh": 1, "logistic": 1 / 4, "identity": 1}

# What tanh and the logistic function may be off by themselves, in eps of the result: e^z is off by
# 2, 1 + e^z and the quotient are rounded. e^z stays at twice the smallest normal number at least.
OWN = {"relu": 0, "tanh": 6, "logistic": 6, "identity": 0}


class Case:
    """Random parameters, a batch of rows (half of it zero, or none of it), targets, weights.

    choices : activation, loss, rule, dtype, inputs of the spec. With csr some rows are empty.
    given_bi : the rows as the kernels get them.
    """

    def __init__(self, sizes, rows, dense=False, dropout=0.0, **choices):
        rng = np.random.default_rng([*sizes, rows, 0])
        self.spec, self.rows = NetworkSpec(sizes, dropout=dropout, **choices), rows
        wide = "float64" if self.spec.dtype == "float32" else "longdouble"
        self.wide_spec = replace(self.spec, dtype=wide)
        self.dtype, self.wide_dtype = np.dtype(self.spec.dtype), np.dtype(wide)
        self.eps, self.tiny = (float(getattr(np.finfo(self.dtype), n)) for n in ("eps", "tiny"))
        if np.finfo(wide).eps >= self.eps:  # no wider type here: the truth is rounded as well
            self.eps *= 2
        # Rows of a large data set, and a key whose highest bit is set.
        rows_b = np.random.default_rng(rows).integers(0, 2**31, rows).astype(np.int32)
        self.drop = DropoutState(rows_b, 2**64 - 12345)
        self.params = Params(
            tuple(
                rng.normal(0, np.sqrt(2 / i), (i, o)).astype(self.dtype)
                for i, o in self.spec.shapes
            ),
            tuple(rng.normal(0, 0.3, o).astype(self.dtype) for _, o in self.spec.shapes),
        )
        pixels = rng.integers(1, 256, (rows, sizes[0]), dtype=np.uint8)
        self.pixels = (
            pixels if dense else pixels * (rng.random(pixels.shape) < 0.5).astype(np.uint8)
        )
        if self.spec.input_format == "csr":
            self.pixels[1::5] = 0
        self.x_bi = (self.pixels / self.dtype.type(255)).astype(self.dtype)
        self.given_bi = as_given(self.x_bi, self.spec)
        self.targets_b = rng.integers(0, sizes[-1], rows).astype(np.int32)
        self.weights_b = (rng.integers(0, 5, rows) / 4).astype(self.dtype)
        self.weights_b[0] = 1
        for array in (
            *self.params.weights,
            *self.params.biases,
            self.pixels,
            self.x_bi,
            self.targets_b,
            self.weights_b,
            self.drop.rows_b,
        ):
            array.setflags(write=False)

    def state(self, least_square=0.0):
        """Parameters and moments; least_square: the least that a mean of squares may be."""
        rng = np.random.default_rng(5)

        def like(scale, lowest):
            return Params(
                *(
                    tuple(
                        np.maximum(rng.normal(0, scale, a.shape), lowest).astype(self.dtype)
                        for a in arrays
                    )
                    for arrays in self.params
                )
            )

        params = Params(*(tuple(a.copy() for a in arrays) for arrays in self.params))
        return TrainState(params, like(1e-2, -np.inf), like(1e-4, least_square))

    def targets(self, soft=False):
        """Classes; or soft, distributions over them, some of which put everything on one; for the
        loss sigmoid answers that have nothing to do with each other, some of them 0 or 1."""
        if not soft and self.spec.loss == "softmax":
            return self.targets_b
        classes = self.spec.sizes[-1]
        soft_bk = np.random.default_rng(7).random((self.rows, classes)) ** 3
        soft_bk[::3] = np.eye(classes)[self.targets_b[::3]]
        if self.spec.loss == "softmax":
            soft_bk = soft_bk / soft_bk.sum(axis=1, keepdims=True)
        soft_bk = soft_bk.astype(self.dtype)
        soft_bk.setflags(write=False)
        return soft_bk

    def layers(self):
        """Room for the outputs of every layer, filled with NaN."""
        return tuple(np.full((self.rows, o), np.nan, self.dtype) for _, o in self.spec.shapes)

    def grads(self):
        return Params(
            tuple(np.full((i, o), np.nan, self.dtype) for i, o in self.spec.shapes),
            tuple(np.full(o, np.nan, self.dtype) for _, o in self.spec.shapes),
        )

    def wide(self, arrays):
        return tuple(np.asarray(a, self.wide_dtype) for a in arrays)


def as_given(x_ni, spec):
    """The rows as they are; or, if the spec says so, as no CSR array should be, and as it may be:
    columns in descending order, the last entry of a row as two that add up to it, zeros."""
    if spec.input_format == "dense":
        return x_ni
    values, columns, start = [], [], [0]
    for row in x_ni:
        (at,) = np.nonzero(row)
        half = row[at[:1]] // 2 if row.dtype == np.uint8 else row[at[:1]] / 2
        values += [np.zeros(1, row.dtype), row[at[:0:-1]], half, row[at[:1]] - half]
        columns += [[len(row) - 1], at[:0:-1], at[:1], at[:1]]
        start.append(start[-1] + 1 + len(at) + len(half))
    arrays = np.concatenate(values), np.concatenate(columns).astype(np.int32), np.array(start)
    for array in arrays:
        array.setflags(write=False)
    return sparse.csr_array(arrays, x_ni.shape)


def batch_of(kernels, case, data, order_n, first, last):
    """Rows of the data, scaled, as the kernels take them."""
    if case.spec.input_format == "csr":
        rows = data.x_ni[order_n[first:last]]  # SciPy's astype would add up what is there twice
        values = (rows.data * data.scale).astype(case.dtype)
        return sparse.csr_array((values, rows.indices, rows.indptr), rows.shape)
    x_bi = np.full((last - first, case.spec.sizes[0]), np.nan, case.dtype)
    kernels.gather_batch(data.x_ni, order_n, first, last, data.scale, x_bi)
    return x_bi


def flat(state):
    return np.concatenate([a.ravel() for part in state for arrays in part for a in arrays])


def training_data(case, dtype=np.uint8, soft=False):
    x_ni = case.pixels if dtype == np.uint8 else (case.pixels / 255).astype(dtype)
    scale = 1 / 255 if dtype == np.uint8 else 1.0
    x_ni = as_given(x_ni, case.spec)
    return TrainData(x_ni, scale, case.targets(soft), case.weights_b.astype(np.float64))


def epoch_of(case, batch_size, dtype=np.uint8, soft=False):
    """The case's data, an order, the numbers of the steps of an epoch and how many they are."""
    rows = len(case.targets_b)
    count = -(-rows // batch_size)
    order_n = np.random.default_rng(0).permutation(rows).astype(np.int32)
    steps = Adam().steps(np.full(count, 1e-2), 0, batch_size, 1e-2, decay=1e-3)
    if case.spec.optimizer != "adam":
        steps = steps._replace(step_size_t=np.full(count, 1e-2))
    steps = steps._replace(dropout_key=case.drop.key)
    return training_data(case, dtype, soft), order_n, steps, count


def check_gather(kernels, case, dtype=np.uint8):
    data = training_data(case, dtype)
    order_n = np.random.default_rng(1).permutation(case.rows).astype(np.int32)
    got_bi = np.full_like(case.x_bi, np.nan)
    kernels.gather_batch(data.x_ni, order_n, 0, case.rows, data.scale, got_bi)
    exact_bi = data.x_ni[order_n].astype(case.wide_dtype) * data.scale
    assert (np.abs(got_bi - exact_bi) <= case.eps * exact_bi).all()  # scale, product are rounded


def kept_units(case):
    """(b, o) of every hidden layer: what dropout keeps."""
    kept, first = [], 0
    for _, outputs in case.spec.shapes[:-1]:
        units_o = np.arange(first, first + outputs, dtype=np.uint32)
        kept.append(reference.random_bits(case.drop, units_o) >= case.spec.dropout * 2**32)
        first += outputs
    return kept


def check_forward(kernels, case, drop=False):
    """drop: as in training, where dropout multiplies what it keeps by a rounded number."""
    layers, eps, activation = case.layers(), case.eps, case.spec.activation
    kernels.forward(case.params, case.given_bi, case.spec, layers, *([case.drop] if drop else []))
    a_bi, scale = case.x_bi.astype(case.wide_dtype), 1 / (1 - case.spec.dropout)
    for depth, (w_io, b_o) in enumerate(zip(*map(case.wide, case.params))):
        exact = a_bi @ w_io + b_o
        bound = (len(w_io) + 2) * eps * (np.abs(a_bi) @ np.abs(w_io) + np.abs(b_o))
        if depth < len(layers) - 1:
            reference.activate(exact, case.wide_spec)
            bound *= STEEPEST[activation]
            bound += OWN[activation] * (eps * (np.abs(exact) + bound) + case.tiny)
        if drop and depth < len(layers) - 1:
            exact *= scale * kept_units(case)[depth]
            bound = (bound * scale + 2 * eps * np.abs(exact)) * kept_units(case)[depth]
        assert (np.abs(layers[depth] - exact) <= bound).all()
        a_bi = layers[depth].astype(case.wide_dtype)  # the next layer starts from what it was given


def check_activation(kernels, case, z_b):
    """Every unit of the hidden layer has the sum z, exactly; NaN stays NaN."""
    ones = Params(
        tuple(map(np.ones_like, case.params[0])), tuple(map(np.zeros_like, case.params[1]))
    )
    layers = case.layers()
    kernels.forward(ones, z_b[:, None].astype(case.dtype), case.spec, layers)
    exact_b1 = z_b[:, None].astype(case.dtype).astype(case.wide_dtype)
    reference.activate(exact_b1, case.wide_spec)
    finite = np.isfinite(exact_b1[:, 0])
    assert np.array_equal(
        layers[0][~finite],
        np.broadcast_to(exact_b1[~finite], layers[0][~finite].shape),
        equal_nan=True,
    )
    bound_b1 = OWN[case.spec.activation] * case.eps * np.abs(exact_b1[finite])
    if case.spec.activation == "logistic":
        bound_b1 += 2 * case.tiny
    assert (np.abs(layers[0][finite] - exact_b1[finite]) <= bound_b1).all()


def check_loss_delta(kernels, case, spread=5, soft=False):
    rows, classes, eps = case.rows, case.spec.sizes[-1], case.eps
    logits_bk = (np.random.default_rng(1).normal(size=(rows, classes)) * spread).astype(case.dtype)
    logits_bk.setflags(write=False)
    loss_b, grad_logits_bk = np.full(rows, np.nan, case.dtype), np.full_like(logits_bk, np.nan)
    targets_b = case.targets(soft)
    kernels.loss_and_grad(logits_bk, targets_b, case.weights_b, case.spec, loss_b, grad_logits_bk)
    z_bk, weights_b = case.wide([logits_bk, case.weights_b])
    true_loss_b, true_delta_bk = np.empty_like(weights_b), np.empty_like(z_bk)
    reference.loss_and_grad(
        z_bk,
        targets_b if targets_b.ndim == 1 else targets_b.astype(case.wide_dtype),
        weights_b,
        case.wide_spec,
        true_loss_b,
        true_delta_bk,
    )
    share_b1 = (weights_b / weights_b.sum())[:, None]
    if case.spec.loss == "sigmoid":
        p_bk = np.empty_like(z_bk)
        log_bk = reference.sigmoid(z_bk, p_bk)
        off_bk = OWN["logistic"] * (eps * p_bk + case.tiny)
        # A sum of k terms: a logarithm that is off by 8 eps of itself, and a product.
        off_b = (classes + 10) * (eps * (log_bk + np.abs(targets_b * z_bk)) + case.tiny).sum(axis=1)
    else:
        gap_bk = z_bk.max(axis=1, keepdims=True) - z_bk
        # z - peak is rounded, so e^(z - peak) is off by gap eps of itself, and by 3 eps more from
        # the polynomial; the sum of k of them likewise. The term stays at twice the smallest
        # normal number at least.
        worst_b1 = np.minimum(gap_bk, -np.log(case.tiny)).max(axis=1, keepdims=True)
        p_bk = np.exp(-gap_bk) / np.exp(-gap_bk).sum(axis=1, keepdims=True)
        off_bk = p_bk * (2 * worst_b1 + 8 + classes) * eps + 2 * case.tiny * classes
        off_b = eps * (
            worst_b1[:, 0] + classes + 8 + 2 * true_loss_b + np.abs(logits_bk).max(axis=1)
        )
        if soft:  # a sum of k products more
            off_b += eps * (classes + 2) * np.abs(targets_b * z_bk).sum(axis=1)
    assert (np.abs(grad_logits_bk - true_delta_bk) <= share_b1 * (off_bk + 4 * eps)).all()
    assert (np.abs(loss_b - true_loss_b) <= off_b).all()


def slope_off(case, a_bo):
    """What the slope is off where the output, dropout's factor taken out, is a.

    With dropout that takes two roundings, each of which changes a by eps of itself at most; then
    a^2 and 1 - a^2, or 1 - a and the product with a, are rounded.
    """
    moved = 2 if case.spec.dropout else 0
    if case.spec.activation == "tanh":
        return case.eps * (2 * moved * a_bo**2 + a_bo**2 + 1)
    if case.spec.activation == "logistic":
        return case.eps * (moved + 2) * np.abs(a_bo)
    return np.zeros_like(a_bo)


def check_backward(kernels, case):
    rows, sizes, eps = case.rows, case.spec.sizes, case.eps
    share, scale = case.spec.dropout, 1 / (1 - case.spec.dropout)
    layers, grads = case.layers(), case.grads()
    reference.forward(case.params, case.x_bi, case.spec, layers, case.drop)
    grad_logits_bk = np.random.default_rng(2).normal(size=(rows, sizes[-1])).astype(case.dtype)
    for array in (*layers, grad_logits_bk):
        array.setflags(write=False)
    kernels.backward(
        case.params, case.given_bi, layers, grad_logits_bk, case.spec, grads, case.drop
    )
    delta_bo, off_bo = (
        grad_logits_bk.astype(case.wide_dtype),
        np.zeros_like(grad_logits_bk, case.wide_dtype),
    )
    for depth in reversed(range(len(layers))):
        a_bi = (layers[depth - 1] if depth else case.x_bi).astype(case.wide_dtype)
        size_bo = np.abs(delta_bo) + off_bo
        bound = np.abs(a_bi).T @ (off_bo + (rows + 2) * eps * size_bo)
        assert (np.abs(grads.weights[depth] - a_bi.T @ delta_bo) <= bound).all()
        bound = (off_bo + (rows + 2) * eps * size_bo).sum(axis=0)
        assert (np.abs(grads.biases[depth] - delta_bo.sum(axis=0)) <= bound).all()
        if depth == 0:
            break
        (w_io,) = case.wide([case.params.weights[depth]])
        a_bi *= 1 - share
        # Dropout's factor is rounded, and the products with it and with the slope.
        kept = scale * (kept_units(case)[depth - 1] if share else 1)
        slope, below_bo = reference.activation_grad(a_bi, case.wide_spec), size_bo @ np.abs(w_io).T
        off_bo = (off_bo @ np.abs(w_io).T + (w_io.shape[1] + 5) * eps * below_bo) * slope
        off_bo = (off_bo + slope_off(case, a_bi) * below_bo) * kept
        delta_bo = (delta_bo @ w_io.T) * slope * kept


def check_update(kernels, case):
    state, eps = case.state(), case.eps
    grads = Params(
        *(
            tuple(
                np.random.default_rng(3).normal(0, 1e-2, a.shape).astype(case.dtype) for a in part
            )
            for part in case.params
        )
    )
    before = TrainState(*(Params(*(case.wide(arrays) for arrays in part)) for part in state))
    true_state = TrainState(
        *(Params(*(tuple(a.copy() for a in arrays) for arrays in part)) for part in before)
    )
    numbers = StepHyperparams(1e-3, 1e-8, 1e-4, 1e-2, 0.9, 0.999)
    true_grads = Params(*(tuple(a.astype(case.wide_dtype) for a in arrays) for arrays in grads))
    used_up = Params(*(tuple(a.copy() for a in arrays) for arrays in grads))
    kernels.update(state, used_up, numbers, case.spec)
    reference.update(true_state, true_grads, numbers, case.wide_spec)
    for kind in range(2):
        for i, g in enumerate(grads[kind]):
            p, m, v = (part[kind][i] for part in state)
            true_p, true_m, true_v = (part[kind][i] for part in true_state)
            w, old_m, old_v = (part[kind][i] for part in before)
            # Each term is rounded at most four times, and the numbers of the step once.
            size_g = np.abs(g) + numbers.l2 * np.abs(w)
            if case.spec.optimizer != "adam":
                size_m = np.abs(old_m) + numbers.step_size * size_g
                assert (np.abs(m - true_m) <= 8 * eps * size_m).all()
                assert (v == old_v).all()
                # The step is a sum of those again: of two terms, one of them rounded before.
                assert (np.abs(p - true_p) <= 4 * eps * np.abs(w) + 24 * eps * size_m).all()
                continue
            off_m = 8 * eps * (np.abs(true_m) + 0.1 * size_g + 0.9 * np.abs(true_m))
            assert (np.abs(m - true_m) <= off_m + 8 * eps * size_g).all()
            assert (np.abs(v - true_v) <= 8 * eps * (true_v + 2e-3 * size_g**2)).all()
            root = np.sqrt(true_v) + numbers.epsilon
            step = numbers.step_size / root * (np.abs(true_m) + off_m + size_g)
            assert (np.abs(p - true_p) <= 4 * eps * np.abs(w) + 24 * eps * step).all()


def check_train_steps(kernels, case, batch_size, soft=False, dtype=np.uint8):
    """It is the operations one by one, bit for bit, while no number is denormal.

    Where a mean of squares is zero and its mean is not, a step sends the weight to 1e5, and tiny
    probabilities become denormal: the threads of train_steps take those for zero.
    """
    data, order_n, steps, count = epoch_of(case, batch_size, dtype, soft)
    whole, parts = case.state(1e-6), case.state(1e-6)
    losses = kernels.train_steps(whole, data, order_n, steps, case.spec, 0, count, 2)
    for step in range(count):
        first, last = step * batch_size, min((step + 1) * batch_size, case.rows)
        rows_b = order_n[first:last]
        _, layers, loss_b, grad_logits_bk, grads = reference.workspace(case.spec, last - first)
        weights_b = case.weights_b[rows_b]
        x_bi = batch_of(kernels, case, data, order_n, first, last)
        drop = DropoutState(rows_b, steps.dropout_key)
        kernels.forward(parts.params, x_bi, case.spec, layers, drop)
        kernels.loss_and_grad(
            layers[-1], data.targets_n[rows_b], weights_b, case.spec, loss_b, grad_logits_bk
        )
        kernels.backward(parts.params, x_bi, layers, grad_logits_bk, case.spec, grads, drop)
        expected = reference.batch_loss(*case.wide([loss_b, weights_b]), parts.params, 1e-2)
        assert abs(losses[step] - expected) <= 1e3 * case.eps * (1 + abs(expected))
        kernels.update(parts, grads, steps.at(step), case.spec)
    assert np.isfinite(losses).all()
    assert np.array_equal(flat(whole), flat(parts))


def check_predict(kernels, case, data, got_nk):
    """got_nk is the softmax, or the sigmoid, of what gather and forward say of these rows."""
    classes, eps = case.spec.sizes[-1], case.eps
    layers = case.layers()
    order_n = np.arange(case.rows, dtype=np.int32)
    x_bi = batch_of(kernels, case, data, order_n, 0, case.rows)
    kernels.forward(case.params, x_bi, case.spec, layers)
    z = layers[-1].astype(case.wide_dtype)
    p = np.empty_like(z)
    if case.spec.loss == "sigmoid":
        reference.sigmoid(z, p)
        bound = OWN["logistic"] * eps * p + 2 * case.tiny
    else:
        reference.softmax(z, p)
        gap = np.abs(z - z.max(axis=1, keepdims=True)).max()
        bound = (2 * gap + 8 + classes) * eps * p + 8 * case.tiny
    assert (np.abs(got_nk - p) <= bound).all()


def check_bits(backend, case, data, order_n, steps, *runs):
    """The same steps end in the same bits for every (threads, where the range is cut)."""
    expected = None
    for threads, cuts in runs:
        state = case.state()
        losses = [
            backend.train_steps(state, data, order_n, steps, case.spec, first, last, threads)
            for first, last in pairwise(cuts)
        ]
        got = np.concatenate([flat(state).astype(np.float64), *losses])
        expected = got if expected is None else expected
        assert np.array_equal(got, expected)
    assert np.isfinite(expected).all()


def check_epochs_at_once(backend, case, batch_size):
    """Three epochs of one call end in the bits of three calls; none ends with a whole batch."""
    assert case.rows % batch_size
    data, order_n, steps, count = epoch_of(case, batch_size)
    orders = [np.roll(order_n, epoch) for epoch in range(3)]
    at_once, one_by_one = case.state(), case.state()
    together = steps._replace(
        epoch_rows=case.rows,
        **{
            name: np.tile(getattr(steps, name), 3)
            for name in ("step_size_t", "epsilon_t", "l2_t", "decay_t")
        },
    )
    losses_t = backend.train_steps(
        at_once, data, np.concatenate(orders), together, case.spec, 0, 3 * count, 2
    )
    expected = [
        backend.train_steps(one_by_one, data, order_n, steps, case.spec, 0, count, 2)
        for order_n in orders
    ]
    assert np.array_equal(losses_t, np.concatenate(expected))
    assert np.array_equal(flat(at_once), flat(one_by_one))

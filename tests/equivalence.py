"""What "equal to the reference" means: random cases, and a check of every operation.

The truth is the reference in float64 on the same float32 numbers. A sum of n products, in whatever
order, fused or not, is off by at most (n + 2) eps sum |x||w| (Higham 2002, section 3.1); the other
bounds are built from that. Outputs are filled with NaN first; inputs are read-only.
"""

import numpy as np

from fmnist_fast.kernels import Data, Drop, Layers, Spec, State, StepNumbers, reference
from fmnist_fast.schedule import Adam

EPS = float(np.finfo(np.float32).eps)


class Case:
    """Random parameters, a batch of rows (half of it zero, or none of it), targets, weights."""

    def __init__(self, sizes, rows, dense=False, dropout=0.0):
        rng = np.random.default_rng([*sizes, rows, 0])
        self.spec, self.rows = Spec(sizes, dropout=dropout), rows
        self.wide_spec = Spec(sizes, dtype="float64", dropout=dropout)
        # Rows of a large data set, and a key whose highest bit is set.
        rows_b = np.random.default_rng(rows).integers(0, 2**31, rows).astype(np.int32)
        self.drop = Drop(rows_b, 2**64 - 12345)
        self.params = Layers(
            tuple(
                rng.normal(0, np.sqrt(2 / i), (i, o)).astype(np.float32)
                for i, o in self.spec.shapes
            ),
            tuple(rng.normal(0, 0.3, o).astype(np.float32) for _, o in self.spec.shapes),
        )
        pixels = rng.integers(1, 256, (rows, sizes[0]), dtype=np.uint8)
        self.pixels = (
            pixels if dense else pixels * (rng.random(pixels.shape) < 0.5).astype(np.uint8)
        )
        self.x_bi = (self.pixels / np.float32(255)).astype(np.float32)
        self.targets_b = rng.integers(0, sizes[-1], rows).astype(np.int32)
        self.weights_b = (rng.integers(0, 5, rows) / 4).astype(np.float32)
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
            return Layers(
                *(
                    tuple(
                        np.maximum(rng.normal(0, scale, a.shape), lowest).astype(np.float32)
                        for a in arrays
                    )
                    for arrays in self.params
                )
            )

        params = Layers(*(tuple(a.copy() for a in arrays) for arrays in self.params))
        return State(params, like(1e-2, -np.inf), like(1e-4, least_square))

    def layers(self):
        """Room for the outputs of every layer, filled with NaN."""
        return tuple(np.full((self.rows, o), np.nan, np.float32) for _, o in self.spec.shapes)

    def grads(self):
        return Layers(
            tuple(np.full((i, o), np.nan, np.float32) for i, o in self.spec.shapes),
            tuple(np.full(o, np.nan, np.float32) for _, o in self.spec.shapes),
        )


def wide(arrays):
    return tuple(np.asarray(a, np.float64) for a in arrays)


def flat(state):
    return np.concatenate([a.ravel() for part in state for arrays in part for a in arrays])


def training_data(case, dtype=np.uint8):
    x_ni = case.pixels if dtype == np.uint8 else (case.pixels / 255).astype(dtype)
    scale = 1 / 255 if dtype == np.uint8 else 1.0
    return Data(x_ni, scale, case.targets_b, case.weights_b.astype(np.float64))


def epoch_of(case, batch_size):
    """The case's data, an order, the numbers of the steps of an epoch and how many they are."""
    rows = len(case.targets_b)
    count = -(-rows // batch_size)
    order_n = np.random.default_rng(0).permutation(rows).astype(np.int32)
    steps = Adam().steps(np.full(count, 1e-2), 0, batch_size, 1e-2, decay=1e-3)
    steps = steps._replace(dropout_key=case.drop.key)
    return training_data(case), order_n, steps, count


def check_gather(kernels, case):
    data = training_data(case)
    order_n = np.random.default_rng(1).permutation(case.rows).astype(np.int32)
    got_bi = np.full_like(case.x_bi, np.nan)
    kernels.gather(data.x_ni, order_n, 0, case.rows, data.scale, got_bi)
    exact_bi = data.x_ni[order_n] * data.scale
    assert (np.abs(got_bi - exact_bi) <= EPS * exact_bi).all()  # scale and product are rounded


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
    layers = case.layers()
    kernels.forward(case.params, case.x_bi, case.spec, layers, *([case.drop] if drop else []))
    a_bi, scale = case.x_bi.astype(np.float64), 1 / (1 - case.spec.dropout)
    for depth, (w_io, b_o) in enumerate(zip(wide(case.params.weights), wide(case.params.biases))):
        exact = a_bi @ w_io + b_o
        bound = (len(w_io) + 2) * EPS * (np.abs(a_bi) @ np.abs(w_io) + np.abs(b_o))
        if depth < len(layers) - 1:
            exact = np.maximum(exact, 0)
        if drop and depth < len(layers) - 1:
            exact *= scale * kept_units(case)[depth]
            bound = (bound * scale + 2 * EPS * exact) * kept_units(case)[depth]
        assert (np.abs(layers[depth] - exact) <= bound).all()
        a_bi = layers[depth].astype(np.float64)  # the next layer starts from what it was given


def soft_targets(case, dtype=np.float32):
    """Distributions over the classes, some of which put everything on one."""
    classes = case.spec.sizes[-1]
    soft_bk = np.random.default_rng(7).random((case.rows, classes)) ** 3
    soft_bk[::3] = np.eye(classes)[case.targets_b[::3]]
    soft_bk = (soft_bk / soft_bk.sum(axis=1, keepdims=True)).astype(dtype)
    soft_bk.setflags(write=False)
    return soft_bk


def check_loss_delta(kernels, case, spread=5, soft=False):
    rows, classes = case.rows, case.spec.sizes[-1]
    logits_bk = (np.random.default_rng(1).normal(size=(rows, classes)) * spread).astype(np.float32)
    logits_bk.setflags(write=False)
    loss_b, delta_bk = np.full(rows, np.nan, np.float32), np.full_like(logits_bk, np.nan)
    targets_b = soft_targets(case) if soft else case.targets_b
    kernels.loss_delta(logits_bk, targets_b, case.weights_b, case.spec, loss_b, delta_bk)
    true_loss_b, true_delta_bk = np.empty(rows), np.empty((rows, classes))
    reference.loss_delta(
        *wide([logits_bk]),
        targets_b.astype(np.float64) if soft else targets_b,
        *wide([case.weights_b]),
        case.wide_spec,
        true_loss_b,
        true_delta_bk,
    )
    gap_bk = (logits_bk.max(axis=1, keepdims=True) - logits_bk).astype(np.float64)
    # z - peak is rounded, so e^(z - peak) is off by gap eps of itself, and by 3 eps more from the
    # polynomial; the sum of k of them likewise. Below e^-87 the term stays at e^-87.
    share_b1 = (case.weights_b / case.weights_b.sum())[:, None]
    worst_b1 = np.minimum(gap_bk, 87).max(axis=1, keepdims=True)
    p_bk = np.exp(-gap_bk) / np.exp(-gap_bk).sum(axis=1, keepdims=True)
    off_bk = p_bk * (2 * worst_b1 + 8 + classes) * EPS + 2e-38 * classes
    assert (np.abs(delta_bk - true_delta_bk) <= share_b1 * (off_bk + 4 * EPS)).all()
    bound_b = EPS * (worst_b1[:, 0] + classes + 8 + 2 * true_loss_b + np.abs(logits_bk).max(axis=1))
    if soft:  # a sum of k products more
        bound_b += EPS * (classes + 2) * np.abs(targets_b * logits_bk).sum(axis=1)
    assert (np.abs(loss_b - true_loss_b) <= bound_b).all()


def check_backward(kernels, case):
    rows, sizes, scale = case.rows, case.spec.sizes, 1 / (1 - case.spec.dropout)
    layers, grads = case.layers(), case.grads()
    reference.forward(case.params, case.x_bi, case.spec, layers, case.drop)
    delta_bk = np.random.default_rng(2).normal(size=(rows, sizes[-1])).astype(np.float32)
    for array in (*layers, delta_bk):
        array.setflags(write=False)
    kernels.backward(case.params, case.x_bi, layers, delta_bk, case.spec, grads, case.drop)
    delta_bo, off_bo = delta_bk.astype(np.float64), np.zeros_like(delta_bk, np.float64)
    for depth in reversed(range(len(layers))):
        a_bi = (layers[depth - 1] if depth else case.x_bi).astype(np.float64)
        size_bo = np.abs(delta_bo) + off_bo
        bound = np.abs(a_bi).T @ (off_bo + (rows + 2) * EPS * size_bo)
        assert (np.abs(grads.weights[depth] - a_bi.T @ delta_bo) <= bound).all()
        bound = (off_bo + (rows + 2) * EPS * size_bo).sum(axis=0)
        assert (np.abs(grads.biases[depth] - delta_bo.sum(axis=0)) <= bound).all()
        w_io = np.abs(case.params.weights[depth].astype(np.float64))
        gate = scale * (a_bi > 0)  # dropout's factor is rounded, and the product with it
        off_bo = (off_bo @ w_io.T + (w_io.shape[1] + 4) * EPS * (size_bo @ w_io.T)) * gate
        delta_bo = (delta_bo @ case.params.weights[depth].T.astype(np.float64)) * gate


def check_update(kernels, case):
    state, true_state = case.state(), None
    grads = Layers(
        *(
            tuple(
                np.random.default_rng(3).normal(0, 1e-2, a.shape).astype(np.float32) for a in part
            )
            for part in case.params
        )
    )
    true_state = State(*(Layers(*(wide(arrays) for arrays in part)) for part in state))
    before = [a.copy() for arrays in true_state.params for a in arrays]
    numbers = StepNumbers(1e-3, 1e-8, 1e-4, 1e-2, 0.9, 0.999)
    true_grads = Layers(*(tuple(a.astype(np.float64) for a in arrays) for arrays in grads))
    used_up = Layers(*(tuple(a.copy() for a in arrays) for arrays in grads))
    kernels.update(state, used_up, numbers, case.spec)
    reference.update(true_state, true_grads, numbers, case.wide_spec)
    for kind in range(2):
        for i, g in enumerate(grads[kind]):
            p, m, v = (part[kind][i] for part in state)
            true_p, true_m, true_v = (part[kind][i] for part in true_state)
            w = before[i if kind == 0 else len(grads[0]) + i]
            # Each term is rounded at most four times, and the numbers of the step once.
            size_g = np.abs(g) + numbers.l2 * np.abs(w)
            off_m = 8 * EPS * (np.abs(true_m) + 0.1 * size_g + 0.9 * np.abs(true_m))
            assert (np.abs(m - true_m) <= off_m + 8 * EPS * size_g).all()
            assert (np.abs(v - true_v) <= 8 * EPS * (true_v + 2e-3 * size_g**2)).all()
            root = np.sqrt(true_v) + numbers.epsilon
            step = numbers.step_size / root * (np.abs(true_m) + off_m + size_g)
            assert (np.abs(p - true_p) <= 4 * EPS * np.abs(w) + 24 * EPS * step).all()


def check_train_steps(kernels, case, batch_size, soft=False):
    """It is the operations one by one, bit for bit, while no number is denormal.

    Where a mean of squares is zero and its mean is not, a step sends the weight to 1e5, and tiny
    probabilities become denormal: the threads of train_steps take those for zero.
    """
    data, order_n, steps, count = epoch_of(case, batch_size)
    if soft:
        data = data._replace(targets_n=soft_targets(case))
    whole, parts = case.state(1e-6), case.state(1e-6)
    losses = kernels.train_steps(whole, data, order_n, steps, case.spec, 0, count, 2)
    for step in range(count):
        first, last = step * batch_size, min((step + 1) * batch_size, case.rows)
        rows_b = order_n[first:last]
        x_bi, loss_b, layers, grads = reference.workspace(case.spec, last - first)
        weights_b = case.weights_b[rows_b]
        kernels.gather(data.x_ni, order_n, first, last, data.scale, x_bi)
        drop = Drop(rows_b, steps.dropout_key)
        kernels.forward(parts.params, x_bi, case.spec, layers, drop)
        delta_bk = np.empty_like(layers[-1])
        kernels.loss_delta(
            layers[-1], data.targets_n[rows_b], weights_b, case.spec, loss_b, delta_bk
        )
        kernels.backward(parts.params, x_bi, layers, delta_bk, case.spec, grads, drop)
        expected = reference.batch_loss(*wide([loss_b, weights_b]), parts.params, 1e-2)
        assert abs(losses[step] - expected) <= 1e3 * EPS * (1 + abs(expected))
        kernels.update(parts, grads, steps.numbers(step), case.spec)
    assert np.array_equal(flat(whole), flat(parts))


def check_predict(kernels, case, data, got_nk):
    """got_nk is the softmax of what gather and forward say of these rows."""
    classes = case.spec.sizes[-1]
    layers = case.layers()
    x_bi = np.empty_like(case.x_bi)
    kernels.gather(data.x_ni, np.arange(case.rows, dtype=np.int32), 0, case.rows, data.scale, x_bi)
    kernels.forward(case.params, x_bi, case.spec, layers)
    z = layers[-1].astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gap = np.abs(z - z.max(axis=1, keepdims=True)).max()
    assert (np.abs(got_nk - p) <= (2 * gap + 8 + classes) * EPS * p + 1e-37).all()

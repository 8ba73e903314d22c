"""Every other backend computes what the reference specifies, within bounds from the arithmetic.

The truth is the reference in float64 on the same float32 numbers. A sum of n products, in whatever
order, fused or not, is off by at most (n + 2) eps sum |x||w| (Higham 2002, section 3.1); the other
bounds are built from that. Outputs are filled with NaN first; inputs are read-only.
"""

from itertools import pairwise, product
from time import perf_counter

import numpy as np
import pytest

from fmnist_fast.kernels import PHASES, Data, Layers, Spec, State, StepNumbers, reference
from fmnist_fast.schedule import Adam

EPS = float(np.finfo(np.float32).eps)
SIZES = [
    (1, 1),
    (7, 10),
    (63, 65, 7),
    (64, 64, 10),
    (65, 129, 63, 10),
    (100, 16, 1, 5),
    (30, 70, 100),
]
ROWS = [1, 2, 63, 64, 65, 200]
SIZES_AND_ROWS = [*product(SIZES, ROWS), ((65, 129, 10), 4096)]


class Case:
    """Random parameters, a batch of rows (half of it zero, or none of it), targets, weights."""

    def __init__(self, sizes, rows, dense=False, seed=0):
        rng = np.random.default_rng([*sizes, rows, seed])
        self.spec, self.rows = Spec(sizes), rows
        self.wide_spec = Spec(sizes, dtype="float64")
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
        ):
            array.setflags(write=False)

    def state(self):
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
        return State(params, like(1e-2, -np.inf), like(1e-4, 0))

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


def check_forward(kernels, case):
    layers = case.layers()
    kernels.forward(case.params, case.x_bi, case.spec, layers)
    a_bi = case.x_bi.astype(np.float64)
    for depth, (w_io, b_o) in enumerate(zip(wide(case.params.weights), wide(case.params.biases))):
        exact = a_bi @ w_io + b_o
        bound = (len(w_io) + 2) * EPS * (np.abs(a_bi) @ np.abs(w_io) + np.abs(b_o))
        if depth < len(layers) - 1:
            exact = np.maximum(exact, 0)
        assert (np.abs(layers[depth] - exact) <= bound).all()
        a_bi = layers[depth].astype(np.float64)  # the next layer starts from what it was given


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
def test_forward(backend, sizes, rows, dense):
    check_forward(backend, Case(sizes, rows, dense))


def test_a_wrong_kernel_is_caught(backend):
    """The bound is tight enough to see one product of the smallest layer left out."""

    class Wrong:
        @staticmethod
        def forward(params, x_bi, spec, out_layers):
            backend.forward(params, x_bi, spec, out_layers)
            s, k = np.argwhere(x_bi * (out_layers[0][:, :1] > 0))[0]
            out_layers[0][s, 0] -= x_bi[s, k] * params.weights[0][k, 0]

    case = Case((65, 129, 63, 10), 64)
    check_forward(backend, case)
    with pytest.raises(AssertionError):
        check_forward(Wrong, case)


@pytest.mark.parametrize("classes", [1, 2, 7, 10, 16, 17, 64, 65, 100])
@pytest.mark.parametrize("spread", [0.1, 5, 1000])
def test_loss_delta(backend, classes, spread):
    rows = 9
    case = Case((3, classes), rows)
    logits_bk = (np.random.default_rng(1).normal(size=(rows, classes)) * spread).astype(np.float32)
    logits_bk.setflags(write=False)
    loss_b, delta_bk = np.full(rows, np.nan, np.float32), np.full_like(logits_bk, np.nan)
    backend.loss_delta(logits_bk, case.targets_b, case.weights_b, case.spec, loss_b, delta_bk)
    true_loss_b, true_delta_bk = np.empty(rows), np.empty((rows, classes))
    reference.loss_delta(
        *wide([logits_bk]),
        case.targets_b,
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
    assert (np.abs(loss_b - true_loss_b) <= bound_b).all()


def test_loss_delta_of_nan_is_nan(backend):
    case = Case((3, 4), 2)
    logits_bk = np.array([[0, np.nan, 1, 2], [0, 1, 2, 3]], np.float32)
    loss_b, delta_bk = np.zeros(2, np.float32), np.zeros((2, 4), np.float32)
    backend.loss_delta(logits_bk, case.targets_b, case.weights_b, case.spec, loss_b, delta_bk)
    assert np.isnan(loss_b[0])
    assert np.isfinite(loss_b[1])
    assert np.isnan(delta_bk[0]).any()


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
def test_backward(backend, sizes, rows, dense):
    case = Case(sizes, rows, dense)
    layers, grads = case.layers(), case.grads()
    reference.forward(case.params, case.x_bi, case.spec, layers)
    delta_bk = np.random.default_rng(2).normal(size=(rows, sizes[-1])).astype(np.float32)
    for array in (*layers, delta_bk):
        array.setflags(write=False)
    backend.backward(case.params, case.x_bi, layers, delta_bk, case.spec, grads)
    delta_bo, off_bo = delta_bk.astype(np.float64), np.zeros_like(delta_bk, np.float64)
    for depth in reversed(range(len(layers))):
        a_bi = (layers[depth - 1] if depth else case.x_bi).astype(np.float64)
        size_bo = np.abs(delta_bo) + off_bo
        bound = np.abs(a_bi).T @ (off_bo + (rows + 2) * EPS * size_bo)
        assert (np.abs(grads.weights[depth] - a_bi.T @ delta_bo) <= bound).all()
        bound = (off_bo + (rows + 2) * EPS * size_bo).sum(axis=0)
        assert (np.abs(grads.biases[depth] - delta_bo.sum(axis=0)) <= bound).all()
        w_io = np.abs(case.params.weights[depth].astype(np.float64))
        gate = a_bi > 0
        off_bo = (off_bo @ w_io.T + (w_io.shape[1] + 2) * EPS * (size_bo @ w_io.T)) * gate
        delta_bo = (delta_bo @ case.params.weights[depth].T.astype(np.float64)) * gate


@pytest.mark.parametrize("sizes", SIZES)
def test_update(backend, sizes):
    case = Case(sizes, 3)
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
    backend.update(state, grads, numbers, case.spec)
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
    return training_data(case), order_n, steps, count


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 1000])
def test_train_steps_is_the_operations_one_by_one(backend, sizes, batch_size):
    case = Case(sizes, 75)
    data, order_n, steps, count = epoch_of(case, batch_size)
    whole, parts = case.state(), case.state()
    losses = backend.train_steps(whole, data, order_n, steps, case.spec, 0, count, 2)
    for step in range(count):
        first, last = step * batch_size, min((step + 1) * batch_size, 75)
        rows_b = order_n[first:last]
        x_bi, loss_b, layers, grads = reference.workspace(case.spec, last - first)
        weights_b = case.weights_b[rows_b]
        backend.gather(data.x_ni, order_n, first, last, data.scale, x_bi)
        backend.forward(parts.params, x_bi, case.spec, layers)
        delta_bk = np.empty_like(layers[-1])
        backend.loss_delta(
            layers[-1], data.targets_n[rows_b], weights_b, case.spec, loss_b, delta_bk
        )
        backend.backward(parts.params, x_bi, layers, delta_bk, case.spec, grads)
        expected = reference.batch_loss(*wide([loss_b, weights_b]), parts.params, 1e-2)
        assert abs(losses[step] - expected) <= 1e3 * EPS * (1 + abs(expected))
        backend.update(parts, grads, steps.numbers(step), case.spec)
    assert np.array_equal(flat(whole), flat(parts))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dense", [False, True])
def test_bits_do_not_depend_on_threads_or_on_cuts(backend, dtype, dense):
    case = Case((100, 129, 65, 10), 300, dense)
    data = training_data(case, dtype)
    order_n = np.random.default_rng(0).permutation(300).astype(np.int32)
    steps = Adam().steps(np.full(5, 1e-2), 0, 64, 1e-3)
    expected = None
    for threads, cuts in (
        (1, (0, 5)),
        (2, (0, 5)),
        (3, (0, 1, 5)),
        (4, (0, 5)),
        (7, (0, 2, 3, 5)),
        (8, (0, 5)),
    ):
        state = case.state()
        losses = [
            backend.train_steps(state, data, order_n, steps, case.spec, first, last, threads)
            for first, last in pairwise(cuts)
        ]
        got = np.concatenate([flat(state).astype(np.float64), *losses])
        expected = got if expected is None else expected
        assert np.array_equal(got, expected)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 75])
def test_skipping_zeros_or_not_gives_the_same_numbers(backend, sizes, batch_size):
    case = Case(sizes, 75)
    data, order_n, steps, count = epoch_of(case, batch_size)
    skipping, dense = case.state(), case.state()
    backend.train_steps(skipping, data, order_n, steps, case.spec, 0, count, 2)
    backend.train_steps(dense, data._replace(dense=True), order_n, steps, case.spec, 0, count, 2)
    assert np.array_equal(flat(skipping), flat(dense))  # x + 0 * w is x: not even rounding differs


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_predict_is_the_same_for_every_row_whatever_is_beside_it(backend, sizes, dtype):
    case = Case(sizes, 200)
    data = training_data(case, dtype)
    results = []
    for threads in (1, 3, 8):
        out_nk = np.full((200, sizes[-1]), np.nan, np.float32)
        backend.predict(case.params, data.x_ni, data.scale, case.spec, threads, out_nk)
        results.append(out_nk)
    one_by_one = np.full_like(results[0], np.nan)
    for n in range(200):
        backend.predict(
            case.params, data.x_ni[n : n + 1], data.scale, case.spec, 1, one_by_one[n : n + 1]
        )
    for result in (*results[1:], one_by_one):
        assert np.array_equal(result, results[0])
    layers = case.layers()
    x_bi = np.empty_like(case.x_bi)
    backend.gather(data.x_ni, np.arange(200, dtype=np.int32), 0, 200, data.scale, x_bi)
    backend.forward(case.params, x_bi, case.spec, layers)
    z = layers[-1].astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gap = np.abs(z - z.max(axis=1, keepdims=True)).max()
    assert (np.abs(results[0] - p) <= (2 * gap + 8 + sizes[-1]) * EPS * p + 1e-37).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rows_need_not_be_aligned(backend, dtype):
    case = Case((65, 129, 10), 75)
    data = training_data(case, dtype)
    memory = bytearray(data.x_ni.nbytes + 1)
    x_ni = np.frombuffer(memory, dtype, offset=1).reshape(data.x_ni.shape)
    x_ni[:] = data.x_ni
    steps = Adam().steps(np.full(2, 1e-2), 0, 64, 1e-2)
    order_n = np.arange(75, dtype=np.int32)
    states, outputs = [], []
    for rows in (data.x_ni, x_ni):
        states.append(case.state())
        backend.train_steps(
            states[-1], data._replace(x_ni=rows), order_n, steps, case.spec, 0, 2, 2
        )
        outputs.append(np.full((75, 10), np.nan, np.float32))
        backend.predict(case.params, rows, data.scale, case.spec, 2, outputs[-1])
    assert np.array_equal(flat(states[0]), flat(states[1]))
    assert np.array_equal(*outputs)


def test_nothing_to_do(backend):
    case = Case((7, 3), 5)
    state = case.state()
    before = flat(state)
    steps = Adam().steps(np.full(1, 1e-2), 0, 5, 0.0)
    order_n = np.arange(5, dtype=np.int32)
    assert (
        len(backend.train_steps(state, training_data(case), order_n, steps, case.spec, 0, 0, 2))
        == 0
    )
    assert np.array_equal(flat(state), before)
    backend.predict(
        case.params, np.empty((0, 7), np.uint8), 1.0, case.spec, 2, np.empty((0, 3), np.float32)
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_phases_are_timed_where_somebody_asks_and_change_no_bit(backend, threads):
    case = Case((784, 128, 64, 10), 640)
    data, order_n, steps, count = epoch_of(case, 64)
    plain, timed = case.state(), case.state()
    backend.train_steps(plain, data, order_n, steps, case.spec, 0, count, threads)
    seconds_tp = np.zeros((threads, len(PHASES)))
    start = perf_counter()
    for first, last in ((0, 4), (4, count)):  # it is added to
        arguments = (timed, data, order_n, steps, case.spec, first, last, threads)
        backend.train_steps(*arguments, seconds_tp)
    wall = perf_counter() - start
    assert np.array_equal(flat(plain), flat(timed))
    assert (seconds_tp[:, :4] > 0).all()
    assert (seconds_tp.sum(axis=1) <= wall).all()
    assert seconds_tp.sum(axis=1).max() > 0.1 * wall  # the rest is copying into panels

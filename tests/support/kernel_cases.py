"""Random cases for the tests of kernels: a network, a batch, training data, a schedule."""

from dataclasses import replace
from itertools import product

import numpy as np
from scipy import sparse

from fmnist_fast.kernels.interface import (
    DropoutState,
    NetworkSpec,
    Params,
    TrainData,
    TrainState,
)
from fmnist_fast.nn.optimizers import Adam

# Around the widths of SIMD vectors and panels.
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
FEW_SIZES_AND_ROWS = [((63, 65, 7), 65), ((65, 129, 63, 10), 64), ((100, 16, 1, 5), 200)]

# All options but ReLU, softmax, Adam and float32, which tests without options have.
DTYPES = ["float32", "float64"]
ACTIVATIONS = [
    (activation, dtype)
    for dtype, activation in product(DTYPES, ("relu", "tanh", "logistic", "identity"))
    if (activation, dtype) != ("relu", "float32")
]
MIXED_OPTIONS = [
    {"activation": "tanh"},
    {"activation": "logistic", "optimizer": "sgd"},
    {"activation": "identity", "loss": "sigmoid", "optimizer": "nesterov"},
    {"loss": "sigmoid"},
    {"optimizer": "sgd"},
    {"optimizer": "nesterov"},
    {"dtype": "float64"},
    {"activation": "tanh", "loss": "sigmoid", "dtype": "float64"},
    {"activation": "logistic", "optimizer": "nesterov", "dtype": "float64"},
    {"activation": "identity", "optimizer": "sgd", "dtype": "float64"},
]


def options_id(options):
    """Return the id of a parameter set of options."""
    return "-".join(options.values())


class Case:
    """Random parameters and a batch with targets, weights and a dropout state; all read-only.

    dense : no pixel is zero; else half of them are. options : of the spec. With csr some rows are
    empty. x_bi : the batch; given_bi : the batch in the spec's input format.
    eps, tiny : of the spec's dtype. wide_dtype, wide_spec : of the exact results.
    """

    def __init__(self, sizes, rows, dense=False, dropout=0.0, **options):
        rng = np.random.default_rng([*sizes, rows, 0])
        self.spec, self.rows = NetworkSpec(sizes, dropout=dropout, **options), rows
        wide = "float64" if self.spec.dtype == "float32" else "longdouble"
        self.wide_spec = replace(self.spec, dtype=wide)
        self.dtype, self.wide_dtype = np.dtype(self.spec.dtype), np.dtype(wide)
        self.eps, self.tiny = (float(getattr(np.finfo(self.dtype), n)) for n in ("eps", "tiny"))
        if np.finfo(wide).eps >= self.eps:  # no wider type here: the exact result is rounded, too
            self.eps *= 2
        # Rows of a large data set, and a key whose highest bit is set.
        rows_b = np.random.default_rng(rows).integers(0, 2**31, rows).astype(np.int32)
        self.dropout_state = DropoutState(rows_b, 2**64 - 12345)
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
        self.given_bi = in_input_format(self.x_bi, self.spec)
        self.labels_b = rng.integers(0, sizes[-1], rows).astype(np.int32)
        self.weights_b = (rng.integers(0, 5, rows) / 4).astype(self.dtype)
        self.weights_b[0] = 1
        for array in (
            *self.params.weights,
            *self.params.biases,
            self.pixels,
            self.x_bi,
            self.labels_b,
            self.weights_b,
            self.dropout_state.rows_b,
        ):
            array.setflags(write=False)

    def state(self, min_second_moment=0.0):
        """Return parameters and random moments."""
        rng = np.random.default_rng(5)

        def random_like(scale, lowest):
            return map_params(
                lambda a: np.maximum(rng.normal(0, scale, a.shape), lowest).astype(self.dtype),
                self.params,
            )

        params = map_params(np.copy, self.params)
        return TrainState(params, random_like(1e-2, -np.inf), random_like(1e-4, min_second_moment))

    def targets(self, soft=False):
        """Return class labels; or soft targets, a third of them one-hot.

        For the loss sigmoid the soft targets of a row are independent.
        """
        if not soft and self.spec.loss == "softmax":
            return self.labels_b
        classes = self.spec.sizes[-1]
        soft_bk = np.random.default_rng(7).random((self.rows, classes)) ** 3
        soft_bk[::3] = np.eye(classes)[self.labels_b[::3]]
        if self.spec.loss == "softmax":
            soft_bk = soft_bk / soft_bk.sum(axis=1, keepdims=True)
        soft_bk = soft_bk.astype(self.dtype)
        soft_bk.setflags(write=False)
        return soft_bk

    def activations(self):
        """Return buffers for the outputs of every layer, filled with NaN."""
        return tuple(np.full((self.rows, o), np.nan, self.dtype) for _, o in self.spec.shapes)

    def grads(self):
        """Return buffers for the gradients, filled with NaN."""
        return map_params(lambda a: np.full_like(a, np.nan), self.params)

    def wide(self, arrays):
        """Return the arrays in the wide dtype."""
        return tuple(np.asarray(a, self.wide_dtype) for a in arrays)


def supported_case(backend, sizes, rows, dense=False, dropout=0.0, **options):
    """Return a case whose options the backend must support."""
    for option, value in options.items():
        assert value in backend.SUPPORTS[option]
    return Case(sizes, rows, dense, dropout, **options)


def map_params(function, params):
    """Apply a function to all arrays."""
    return Params(*(tuple(function(a) for a in arrays) for arrays in params))


def flat(state):
    """Return all arrays of several Params as one."""
    return np.concatenate([a.ravel() for part in state for arrays in part for a in arrays])


def in_input_format(x_ni, spec):
    """Return the rows in the spec's input format.

    CSR arrays are not canonical: columns in descending order, a duplicate entry, explicit zeros.
    """
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


def batch_rows(kernels, case, data, order_n, first, last):
    """Return rows of the data, scaled, as the operations of the kernels take them."""
    if case.spec.input_format == "csr":
        rows = data.x_ni[order_n[first:last]]  # SciPy's astype would sum duplicates
        values = (rows.data * data.scale).astype(case.dtype)
        return sparse.csr_array((values, rows.indices, rows.indptr), rows.shape)
    x_bi = np.full((last - first, case.spec.sizes[0]), np.nan, case.dtype)
    kernels.gather_batch(data.x_ni, order_n, first, last, data.scale, x_bi)
    return x_bi


def training_data(case, dtype=np.uint8, soft=False):
    """Return the case's batch as a data set of this dtype."""
    x_ni = case.pixels if dtype == np.uint8 else (case.pixels / 255).astype(dtype)
    scale = 1 / 255 if dtype == np.uint8 else 1.0
    x_ni = in_input_format(x_ni, case.spec)
    return TrainData(x_ni, scale, case.targets(soft), case.weights_b.astype(np.float64))


def one_epoch(case, batch_size, dtype=np.uint8, soft=False):
    """Return the case's data, an order, the schedule of an epoch and its number of steps."""
    count = -(-case.rows // batch_size)
    order_n = np.random.default_rng(0).permutation(case.rows).astype(np.int32)
    schedule = Adam().steps(np.full(count, 1e-2), 0, batch_size, 1e-2, decay=1e-3)
    if case.spec.optimizer != "adam":
        schedule = schedule._replace(step_size_t=np.full(count, 1e-2))
    schedule = schedule._replace(dropout_key=case.dropout_state.key)
    return training_data(case, dtype, soft), order_n, schedule, count

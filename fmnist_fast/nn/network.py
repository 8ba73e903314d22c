"""A multilayer perceptron: parameters, validation of inputs, and the backend that computes.

Modules above pass arrays as users have them; kernels trust that they were checked here.
"""

from dataclasses import dataclass
from math import prod
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._cpu import usable_cores
from ..errors import ArgumentError
from ..kernels.interface import (
    Backend,
    Floats,
    NetworkSpec,
    Params,
    StepSchedule,
    TrainData,
    TrainState,
)
from .backend import get_backend
from .random_streams import Purpose, random_stream

# uint8 pixels 0..255 become floats 0..1.
PIXEL_SCALE = 1 / 255

# Fraction of nonzero entries above which skipping zeros does not pay: a product takes 1.8 ns for
# each of 64 weights that it does not skip, and 1.25 ns without looking for zeros.
DENSE_FRACTION = 0.7

# Rows sampled for it, at equal distances: counting all entries takes longer than it saves.
SAMPLED_ROWS = 300

# Work of a batch for each thread: some 30 us a step in float32, of which three barriers take a few.
WORK_PER_THREAD = 8192 * 64

# Work of all rows of a call for each thread: some 2 ms; starting a thread takes 0.3 ms.
CALL_PER_THREAD = 3 << 24

# Fewer outputs take as long: a vector holds 16 floats.
MIN_OUTPUTS = 16

# Limit of the threads that a user sets. Threads beyond the cores wait for each other: 16 on 2
# cores, the limit, take three times as long as 2.
THREADS_PER_CORE = 8


def estimate_work(spec: NetworkSpec, rows: int) -> int:
    """Return the cost of a pass over so many rows, in float32 weights times rows."""
    weights = sum(i * max(o, MIN_OUTPUTS) for i, o in spec.shapes)
    each: int = np.dtype(spec.dtype).itemsize // 4  # float64 takes twice as long
    return weights * each * rows


@dataclass
class Network:
    """Parameters, and the backend that computes with them.

    Attributes
    ----------
    spec : NetworkSpec
    params : Params
    scale : float
        Factor of uint8 inputs; floats are taken as they are.
    backend : Backend
    threads : int
        Threads that the backend uses.
    """

    spec: NetworkSpec
    params: Params
    scale: float
    backend: Backend
    threads: int

    @classmethod
    def random(
        cls,
        spec: NetworkSpec,
        seed: int,
        scale: float,
        backend: str = "auto",
        threads: int | None = None,
    ) -> "Network":
        """Return a network with normal weights of variance 2/i, which suits ReLU, and zero biases.

        Source: He, Zhang, Ren, Sun (2015), equation 10.
        """
        stream = random_stream(seed, Purpose.INITIAL_WEIGHTS)
        weights = tuple(
            (stream.standard_normal((i, o)) * np.sqrt(2 / i)).astype(spec.dtype)
            for i, o in spec.shapes
        )
        params = Params(weights, zeros(spec).biases)
        return cls.from_params(spec, params, scale, backend, threads)

    @classmethod
    def from_params(
        cls,
        spec: NetworkSpec,
        params: Params,
        scale: float,
        backend: str = "auto",
        threads: int | None = None,
        batch_size: int = 64,
        rows: int | None = None,
    ) -> "Network":
        """These parameters on the backend of that name, on `threads` threads.

        None: all usable cores, or fewer if a batch of that size, or so many rows a call (None: any
        number), are so little work that threads would wait longer than they work. At most 8 for
        every usable core.

        Raises: BackendUnavailable; ArgumentError if threads is below 1.
        """
        check_threads(threads)
        cores = usable_cores()
        if threads is None:
            threads = min(cores, estimate_work(spec, batch_size) // WORK_PER_THREAD)
            if rows is not None:
                threads = min(threads, estimate_work(spec, rows) // CALL_PER_THREAD)
        threads = min(max(1, int(threads)), THREADS_PER_CORE * cores)
        return cls(spec, params, scale, get_backend(backend, spec), threads)

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Probability of every class.

        x : uint8 pixels or floats, (n, i) or (n, height, width) with height * width = i. If the
            network was trained on pixels, floats must lie in 0..1.
        Returns: (n, k) in the network's dtype; rows sum to 1.
        Raises: ArgumentError if x has another shape or dtype, or floats out of range or NaN.
        """
        return self.outputs(check_rows(x, self.spec.sizes[0], unit_range=self.scale != 1))

    def outputs(self, x_ni: NDArray) -> Floats:
        """Return the probabilities of checked rows, dense or CSR."""
        spec, scale = self.spec, self.scale_of(x_ni)
        out_nk = np.empty((x_ni.shape[0], spec.sizes[-1]), spec.dtype)
        self.backend.predict(self.params, x_ni, scale, spec, self.threads, out_nk)
        return out_nk

    def train_steps(
        self,
        state: TrainState,
        data: TrainData,
        order_n: NDArray,
        steps: StepSchedule,
        first: int,
        last: int,
    ) -> NDArray[np.float64]:
        """Train on steps first..last-1 of one or more epochs, in place; return their losses."""
        return self.backend.train_steps(
            state, data, order_n, steps, self.spec, first, last, self.threads
        )

    def fresh_state(self) -> TrainState:
        """Return the state to train: these parameters, not copied, and zero moments."""
        return TrainState(self.params, zeros(self.spec), zeros(self.spec))

    def data(self, x_ni: NDArray, targets_n: NDArray, weights_n: NDArray[np.float64]) -> TrainData:
        """Return checked rows, targets and weights as the kernels take them."""
        skip_zeros = True
        if self.spec.input_format == "dense":
            sample_ni = x_ni[:: len(x_ni) // SAMPLED_ROWS or 1]
            skip_zeros = bool(np.count_nonzero(sample_ni) <= DENSE_FRACTION * sample_ni.size)
        return TrainData(x_ni, self.scale_of(x_ni), targets_n, weights_n, skip_zeros)

    def scale_of(self, x_ni: NDArray) -> float:
        """Return the factor of these inputs."""
        return self.scale if x_ni.dtype == np.uint8 else 1.0


def check_threads(threads: int | None) -> None:
    """Raise ArgumentError unless it is None or an integer, at least 1."""
    if threads is not None and not (isinstance(threads, Integral) and threads >= 1):
        raise ArgumentError(f"threads is {threads!r}: give an integer, at least 1")


def zeros(spec: NetworkSpec) -> Params:
    """Return parameters of a network that are all zero."""
    return Params(
        tuple(np.zeros(shape, spec.dtype) for shape in spec.shapes),
        tuple(np.zeros(o, spec.dtype) for _, o in spec.shapes),
    )


def to_array(values: ArrayLike, name: str) -> NDArray:
    """Return an array. Raises: ArgumentError that names the argument, if lists are ragged."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ArgumentError(
            f"{name} is no array, its rows have several lengths: {error}"
        ) from error


def check_rows(x: ArrayLike, inputs: int, *, unit_range: bool, name: str = "x") -> NDArray:
    """x as a C-contiguous (n, inputs) array of uint8, float32 or float64; a copy only if needed.

    unit_range : floats must lie in 0..1, as pixels divided by 255 do.
    Raises: ArgumentError that names the argument, what came, and what to do.
    """
    array = to_array(x, name)
    if array.ndim < 2 or prod(array.shape[1:]) != inputs:
        raise ArgumentError(
            f"{name} has shape {array.shape}: give (n, {inputs}), or images of {inputs} pixels; "
            "x[None] makes a batch of one"
        )
    if array.dtype not in (np.uint8, np.float32, np.float64):
        raise ArgumentError(f"{name} has dtype {array.dtype}: give uint8, float32 or float64")
    rows_ni = np.ascontiguousarray(array).reshape(len(array), inputs)
    if rows_ni.dtype != np.uint8 and rows_ni.size:
        low, high = rows_ni.min(), rows_ni.max()  # NaN if there is any
        if not np.isfinite(low) or not np.isfinite(high):
            raise ArgumentError(f"{name} holds NaN or infinite values: remove or replace them")
        if unit_range and (low < 0 or high > 1):
            raise ArgumentError(
                f"{name} holds floats from {low:g} to {high:g}: give uint8 pixels, or floats 0..1"
            )
    return rows_ni


def check_labels(y: ArrayLike, rows: int, classes: int, name: str = "y") -> NDArray[np.int32]:
    """y as int32 (rows,), each in 0..classes-1.

    Raises: ArgumentError that names the argument, what came, and what to do.
    """
    array = to_array(y, name)
    if array.shape != (rows,):
        raise ArgumentError(f"{name} has shape {array.shape}: give one label a row, ({rows},)")
    if not np.issubdtype(array.dtype, np.integer):
        raise ArgumentError(f"{name} has dtype {array.dtype}: labels must be integers")
    if rows and not (array.min() >= 0 and array.max() < classes):
        low, high = array.min(), array.max()
        raise ArgumentError(f"{name} holds labels from {low} to {high}: give 0..{classes - 1}")
    return array.astype(np.int32)

"""The contract between the network and its backends: what passes, its shape, who owns it.

Shape letters, the same everywhere: n rows of the data set, b rows of a batch, i inputs of a layer,
o outputs of a layer, k classes, t steps of an epoch.

A backend is a module with seven operations and no state: `gather_batch`, `forward`,
`loss_and_grad`, `backward`, `update`, `train_steps`, `predict`. `reference.py` specifies each of
them, and `Backend` gives their signatures. Outputs come last and the caller allocates them; arrays
are C-contiguous and were checked by `fmnist_fast.nn.network`, so kernels trust them.
Backends never write to `TrainData`; `TrainState` is updated in place.

The compiled backends can say where the time of `train_steps` goes: they take one more argument,
`seconds_tp`, float64 (threads, len(PHASES)), and add to it what each thread spent in each phase.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

__all__ = [
    "PHASES",
    "Backend",
    "TrainData",
    "DropoutState",
    "Floats",
    "Params",
    "NetworkSpec",
    "TrainState",
    "StepHyperparams",
    "StepSchedule",
]

# What a thread does in a step of a compiled backend: scales the rows of the next batch; the first
# layer's sums; all other layers, the loss and the way back; gradients and Adam; waits for others.
PHASES = ("gather", "first layer", "middle", "update", "waiting")


@dataclass(frozen=True)
class NetworkSpec:
    """What is computed, apart from the numbers: a backend may compile one kernel per spec.

    sizes : widths of all layers, inputs first, classes last: (784, 128, 64, 10).
    activation : of the hidden layers: relu, tanh, logistic, identity.
    loss : softmax, one class of k; sigmoid, each of k yes or no by itself.
    rule : adam, sgd (with momentum), nesterov (sgd with Nesterov's momentum).
    dtype : of parameters and arithmetic: float32, float64.
    max_loss : no answer costs more, of those that labels ask for: the loss that is reported ends
    there, and the gradient does not know. scikit-learn's ends at -log(eps).
    input_format : of the rows: dense, or csr (scipy.sparse), which is never made dense.
    A backend lists what it has of each in its `SUPPORTS`.
    dropout : share of every hidden layer's outputs that training leaves out, in [0, 1).
    """

    sizes: tuple[int, ...]
    activation: str = "relu"
    loss: str = "softmax"
    optimizer: str = "adam"
    dtype: str = "float32"
    dropout: float = 0.0
    input_format: str = "dense"
    max_loss: float = inf

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(i, o) of every layer's weights."""
        return tuple(pairwise(self.sizes))


class Params(NamedTuple):
    """One array pair per layer: parameters, their gradients, or their moments.

    weights : (i, o) each, row-major: a row holds what one input sends to all outputs.
    biases : (o,) each.
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]


class TrainState(NamedTuple):
    """All that training changes: parameters, and Adam's two moments of their gradients.

    With the rules sgd and nesterov m is the velocity, and v is there but not used.
    """

    params: Params
    m: Params
    v: Params


class TrainData(NamedTuple):
    """The rows to learn from, never copied whole.

    x_ni : uint8, float32 or float64 (n, i), an array or, if the spec says so, a scipy.sparse CSR
    array. scale : x is multiplied by it (1/255 for pixels).
    targets_n : int32 (n,), each in 0..k-1; or, in the spec's dtype, (n, k): how probable each class
    should be; for softmax rows sum to 1, for sigmoid, which takes only these, each is in 0..1.
    weights_n : float64 (n,), >= 0, weight of each row.
    skip_zeros : whether x has so many zeros that looking for them is worth it. It is a property of
    the whole data set, never of a slice; values do not depend on it.
    """

    x_ni: NDArray
    scale: float
    targets_n: NDArray
    weights_n: NDArray[np.float64]
    skip_zeros: bool = True


class DropoutState(NamedTuple):
    """What decides which outputs dropout leaves out, apart from the network.

    rows_b : int32 (b,), the batch's rows in the data set. key : of the epoch, in 0..2^64-1.
    """

    rows_b: NDArray[np.int32]
    key: int


class StepHyperparams(NamedTuple):
    """The numbers of one step; `reference.update` says what each does."""

    step_size: float
    epsilon: float
    l2: float
    decay: float
    beta1: float
    beta2: float


class StepSchedule(NamedTuple):
    """The steps of an epoch, or of some epochs in turn.

    A step trains on the next batch_size rows of the order; the last one of an epoch, on what is
    left of it. epoch_rows : rows of an epoch, if the order holds several; 0: all of it is one.
    step_size_t, epsilon_t, l2_t, decay_t : float64 (t,), one entry a step, so that schedules,
    warm-up, bias correction and resuming need no code in a kernel. For sgd and nesterov step_size
    is the learning rate and beta1 the momentum.
    dropout_key : decides what dropout leaves out in these epochs, in 0..2^64-1.
    """

    batch_size: int
    step_size_t: NDArray[np.float64]
    epsilon_t: NDArray[np.float64]
    l2_t: NDArray[np.float64]
    decay_t: NDArray[np.float64]
    beta1: float = 0.9
    beta2: float = 0.999
    dropout_key: int = 0
    epoch_rows: int = 0

    def starts(self, rows: int) -> NDArray[np.int64]:
        """Where in an order of so many rows each step begins, and where the last one ends."""
        epoch_rows = self.epoch_rows or rows
        batches = np.arange(0, epoch_rows, self.batch_size)
        epochs = np.arange(0, rows, epoch_rows)
        return np.append((epochs[:, None] + batches).ravel(), rows)

    def numbers(self, step: int) -> StepHyperparams:
        """The numbers of one step as Python floats, which never widen a float32 array."""
        return StepHyperparams(
            float(self.step_size_t[step]),
            float(self.epsilon_t[step]),
            float(self.l2_t[step]),
            float(self.decay_t[step]),
            self.beta1,
            self.beta2,
        )


class Backend(Protocol):
    """The operations of a kernel module. `kernels/reference.py` specifies what each computes."""

    SUPPORTS: dict[str, tuple[str, ...]]

    def gather_batch(
        self, x_ni: NDArray, order_n: NDArray, first: int, last: int, scale: float, out_bi: Floats
    ) -> None: ...

    def forward(
        self,
        params: Params,
        x_bi: Floats,
        spec: NetworkSpec,
        out_layers: tuple[Floats, ...],
        drop: DropoutState | None = None,
    ) -> None: ...

    def loss_and_grad(
        self,
        logits_bk: Floats,
        targets_b: NDArray,
        weights_b: Floats,
        spec: NetworkSpec,
        out_loss_b: Floats,
        out_grad_logits_bk: Floats,
    ) -> None: ...

    def backward(
        self,
        params: Params,
        x_bi: Floats,
        layers: tuple[Floats, ...],
        grad_logits_bk: Floats,
        spec: NetworkSpec,
        out_grads: Params,
        drop: DropoutState | None = None,
    ) -> None: ...

    def update(
        self, state: TrainState, grads: Params, numbers: StepHyperparams, spec: NetworkSpec
    ) -> None: ...

    def train_steps(
        self,
        state: TrainState,
        data: TrainData,
        order_n: NDArray,
        steps: StepSchedule,
        spec: NetworkSpec,
        first: int,
        last: int,
        threads: int,
    ) -> NDArray: ...

    def predict(
        self,
        params: Params,
        x_ni: NDArray,
        scale: float,
        spec: NetworkSpec,
        threads: int,
        out_nk: Floats,
    ) -> None: ...

"""The contract between the network and its backends: types, shapes, and who owns an array.

A backend is a module without state that implements the `Backend` protocol. `reference.py` is the
executable specification of its operations; the faster backends are tested against it.

Shape letters, the same everywhere: n rows of the data set, b rows of a batch, i inputs of a layer,
o outputs of a layer, k classes, t steps, p phases of a step.

Outputs come last and the caller allocates them. All arrays are C-contiguous and were validated by
`fmnist_fast.nn.network`: kernels state their preconditions and trust them. Backends never write to
`TrainData`; they update `TrainState` in place.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# All options of the contract, by field of NetworkSpec. A backend that lacks some narrows its copy.
SUPPORTS: dict[str, tuple[str, ...]] = {
    "activation": ("relu", "tanh", "logistic", "identity"),
    "loss": ("softmax", "sigmoid"),
    "optimizer": ("adam", "sgd", "nesterov"),
    "dtype": ("float32", "float64"),
    "input_format": ("dense", "csr"),
}

# Phases of a step in the compiled backends: gather the batch; forward pass of the first layer;
# remaining layers, loss and backward pass; weight gradients and optimizer; waiting at the barrier.
PHASES = ("gather", "first layer", "hidden+backward", "update", "barrier")


@dataclass(frozen=True)
class NetworkSpec:
    """Structure of a network and of its training, without parameters or hyperparameters of steps.

    Parameters
    ----------
    sizes : tuple of int
        Widths of all layers, inputs first, classes last: ``(784, 128, 64, 10)``.
    activation : {"relu", "tanh", "logistic", "identity"}
        Activation of the hidden layers.
    loss : {"softmax", "sigmoid"}
        Softmax cross-entropy over k exclusive classes, or the sum of k binary cross-entropies.
    optimizer : {"adam", "sgd", "nesterov"}
        Adam, or gradient descent with classical or Nesterov momentum.
    dtype : {"float32", "float64"}
        Type of the parameters and of the arithmetic.
    dropout : float
        Dropout rate of every hidden layer, in [0, 1).
    input_format : {"dense", "csr"}
        Format of the rows: ndarray, or SciPy CSR, which is never converted to dense.
    max_loss : float
        Per-class loss values are clipped to this when reported; the gradient is not clipped.
        Soft targets of softmax are not clipped either. scikit-learn clips at ``-log(eps)``.
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
        """Shape (i, o) of every layer's weights."""
        return tuple(pairwise(self.sizes))


class Params(NamedTuple):
    """Weights and biases of all layers; also their gradients, or a moment of the optimizer.

    Attributes
    ----------
    weights : tuple of ndarray, shape (i, o) each
        Row-major: a row holds the weights of one input.
    biases : tuple of ndarray, shape (o,) each
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes
    ----------
    params : Params
    m, v : Params
        First and second moment of the gradients (Adam). For sgd and nesterov m is the velocity
        and v is not used.
    """

    params: Params
    m: Params
    v: Params


class TrainData(NamedTuple):
    """Training rows with their targets and weights, read-only.

    Attributes
    ----------
    x_ni : ndarray of uint8, float32 or float64, shape (n, i), or scipy.sparse.csr_array
        As `NetworkSpec.input_format` says.
    scale : float
        Factor of x: 1/255 for pixels.
    targets_n : ndarray of int32, shape (n,), or of the spec's dtype, shape (n, k)
        Class labels in ``0..k-1``, or soft targets: for softmax each row is a distribution, for
        sigmoid (which takes soft targets only) each entry is in 0..1.
    weights_n : ndarray of float64, shape (n,)
        Sample weights, >= 0.
    skip_zeros : bool
        Whether x is sparse enough that testing entries for zero pays. A property of the whole data
        set, never of a batch. Results do not depend on it.
    """

    x_ni: NDArray
    scale: float
    targets_n: NDArray
    weights_n: NDArray[np.float64]
    skip_zeros: bool = True


class DropoutState(NamedTuple):
    """Seed of a batch's dropout masks.

    Attributes
    ----------
    rows_b : ndarray of int32, shape (b,)
        Indices of the batch's rows in the data set.
    key : int
        Key of the epoch, in ``0..2**64-1``.
    """

    rows_b: NDArray[np.int32]
    key: int


class StepHyperparams(NamedTuple):
    """Hyperparameters of one optimizer step; `reference.update` has the formulas."""

    step_size: float
    epsilon: float
    l2: float
    decay: float
    beta1: float
    beta2: float


class StepSchedule(NamedTuple):
    """Batches and hyperparameters of the steps of one or more epochs.

    One entry a step lets learning-rate schedules, warm-up, bias correction and resuming work
    without code in the kernels.

    Attributes
    ----------
    batch_size : int
        Rows of a step. The last step of an epoch takes the rows that remain.
    step_size_t, epsilon_t, l2_t, decay_t : ndarray of float64, shape (t,)
        Hyperparameters of every step. For sgd and nesterov the step size is the learning rate.
    beta1, beta2 : float
        Decay rates of Adam's moments. For sgd and nesterov beta1 is the momentum.
    dropout_key : int
        Key of the dropout masks, in ``0..2**64-1``.
    epoch_rows : int
        Rows of an epoch if the order holds several epochs; 0 if it holds one.
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
        """Return where each step begins in an order of `rows` rows, and where the last ends."""
        epoch_rows = self.epoch_rows or rows
        batches = np.arange(0, epoch_rows, self.batch_size)
        epochs = np.arange(0, rows, epoch_rows)
        return np.append((epochs[:, None] + batches).ravel(), rows)

    def at(self, step: int) -> StepHyperparams:
        """Return the hyperparameters of one step as Python floats, which keep float32 arrays so."""
        return StepHyperparams(
            step_size=float(self.step_size_t[step]),
            epsilon=float(self.epsilon_t[step]),
            l2=float(self.l2_t[step]),
            decay=float(self.decay_t[step]),
            beta1=self.beta1,
            beta2=self.beta2,
        )


class Backend(Protocol):
    """Operations of a kernel module. The formulas are in `kernels/reference.py`.

    Attributes
    ----------
    SUPPORTS : dict of str to tuple of str
        Values that the backend implements, for every option of `NetworkSpec`.
    """

    SUPPORTS: dict[str, tuple[str, ...]]

    def gather_batch(
        self, x_ni: NDArray, order_n: NDArray, first: int, last: int, scale: float, out_bi: Floats
    ) -> None:
        """Gather the rows of a batch and scale them.

        Parameters
        ----------
        x_ni : ndarray of uint8, float32 or float64, shape (n, i)
        order_n : ndarray of int32
            Row indices, each in ``0..n-1``.
        first, last : int
            The batch is ``order_n[first:last]``.
        scale : float
        out_bi : ndarray of float32 or float64, shape (last - first, i)
            Receives the rows times `scale`, rounded once.
        """

    def forward(
        self,
        params: Params,
        x_bi: Floats,
        spec: NetworkSpec,
        out_activations: tuple[Floats, ...],
        dropout_state: DropoutState | None = None,
    ) -> None:
        """Compute the outputs of all layers.

        Parameters
        ----------
        params : Params
        x_bi : ndarray of the spec's dtype, shape (b, i), or scipy.sparse.csr_array
        spec : NetworkSpec
        out_activations : tuple of ndarray of the spec's dtype, shape (b, o) each
            Receives the activations of the hidden layers, then the logits. NaN stays NaN.
        dropout_state : DropoutState, optional
            Given in training, if the spec has dropout. None: no dropout, as in prediction.

        References
        ----------
        Goodfellow, Bengio, Courville (2016), section 6.4.
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov (2014), for dropout.
        """

    def loss_and_grad(
        self,
        logits_bk: Floats,
        targets_b: NDArray,
        weights_b: Floats,
        spec: NetworkSpec,
        out_loss_b: Floats,
        out_grad_logits_bk: Floats,
    ) -> None:
        """Compute every row's cross-entropy, and the gradient of their weighted mean.

        Parameters
        ----------
        logits_bk : ndarray of the spec's dtype, shape (b, k)
        targets_b : ndarray of int32, shape (b,), or of the spec's dtype, shape (b, k)
            Class labels or soft targets: see `TrainData`.
        weights_b : ndarray of the spec's dtype, shape (b,)
            Sample weights. If all are zero, the gradient is zero.
        spec : NetworkSpec
        out_loss_b : ndarray of the spec's dtype, shape (b,)
            Receives the loss of every row in nats, without weight and penalty.
        out_grad_logits_bk : ndarray of the spec's dtype, shape (b, k)
            Receives the gradient with respect to the logits.

        References
        ----------
        Goodfellow, Bengio, Courville (2016), sections 6.2.2.2 and 6.2.2.3.
        """

    def backward(
        self,
        params: Params,
        x_bi: Floats,
        activations: tuple[Floats, ...],
        grad_logits_bk: Floats,
        spec: NetworkSpec,
        out_grads: Params,
        dropout_state: DropoutState | None = None,
    ) -> None:
        """Compute the gradient of the batch's loss with respect to every weight and bias.

        Parameters
        ----------
        params : Params
        x_bi : ndarray of the spec's dtype, shape (b, i), or scipy.sparse.csr_array
            Inputs of `forward`.
        activations : tuple of ndarray of the spec's dtype, shape (b, o) each
            Outputs of `forward`.
        grad_logits_bk : ndarray of the spec's dtype, shape (b, k)
            Output of `loss_and_grad`.
        spec : NetworkSpec
        out_grads : Params
            Receives the gradients, without penalty.
        dropout_state : DropoutState, optional
            Argument of `forward`.

        References
        ----------
        Rumelhart, Hinton, Williams (1986).
        """

    def update(
        self, state: TrainState, grads: Params, hyperparams: StepHyperparams, spec: NetworkSpec
    ) -> None:
        """Apply one optimizer step to all parameters, in place.

        Parameters
        ----------
        state : TrainState
            Updated in place.
        grads : Params
            Gradients, without penalty. A backend may overwrite them.
        hyperparams : StepHyperparams
        spec : NetworkSpec

        References
        ----------
        Kingma, Ba (2015), Algorithm 1, for adam.
        Loshchilov, Hutter (2019), for decoupled weight decay.
        Polyak (1964), for sgd with momentum.
        Sutskever, Martens, Dahl, Hinton (2013), for nesterov.
        """

    def train_steps(
        self,
        state: TrainState,
        data: TrainData,
        order_n: NDArray,
        schedule: StepSchedule,
        spec: NetworkSpec,
        first: int,
        last: int,
        threads: int,
    ) -> NDArray:
        """Train on the batches of steps ``first..last-1``.

        Splitting a range of steps over several calls changes no bit of the result. Neither does
        the number of threads, except in the numpy backend, whose BLAS may depend on it.

        The compiled backends have another parameter, ``seconds_tp=None``: an ndarray of float64,
        shape (threads, len(PHASES)), to which the seconds that each thread spent in each phase
        are added.

        Parameters
        ----------
        state : TrainState
            Updated in place.
        data : TrainData
        order_n : ndarray of int32
            Row indices in training order, each in ``0..n-1``.
        schedule : StepSchedule
        spec : NetworkSpec
        first, last : int
            Range of steps, ``0 <= first <= last <= t``.
        threads : int

        Returns
        -------
        ndarray of float64, shape (last - first,)
            Loss of every step's batch before its update: weighted mean of the rows' losses plus
            the penalty.
        """

    def predict(
        self,
        params: Params,
        x_ni: NDArray,
        scale: float,
        spec: NetworkSpec,
        threads: int,
        out_nk: Floats,
    ) -> None:
        """Compute class probabilities: softmax or sigmoid of the logits.

        In the compiled backends the bits of a row do not depend on the other rows.

        Parameters
        ----------
        params : Params
        x_ni : ndarray of uint8, float32 or float64, shape (n, i), or scipy.sparse.csr_array
        scale : float
            Factor of x.
        spec : NetworkSpec
        threads : int
        out_nk : ndarray of the spec's dtype, shape (n, k)
            Receives the probabilities.
        """

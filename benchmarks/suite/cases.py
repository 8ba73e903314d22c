"""Workloads of the suite: the data set, and a batch with the arguments of all operations."""

from functools import cache

import numpy as np

from fmnist_fast import load_dataset
from fmnist_fast.data.fashion_mnist import find_folder
from fmnist_fast.kernels.interface import NetworkSpec, Params, TrainData, TrainState
from fmnist_fast.kernels.reference import workspace
from fmnist_fast.nn.backend import BACKEND_NAMES, get_backend, unavailable_reason
from fmnist_fast.nn.network import PIXEL_SCALE, Network
from fmnist_fast.nn.optimizers import Adam

BACKENDS = list(BACKEND_NAMES)
SPEC = NetworkSpec((784, 128, 64, 10))
LR, L2 = 1e-3, 1e-4

# Part of the version of every benchmark: results of the two are never compared.
DATASET = "fashion-mnist" if find_folder() else "synthetic"

OPERATIONS = (
    "gather_batch",
    "forward",
    "loss_and_grad",
    "backward",
    "update",
    "train_steps",
    "predict",
)


@cache
def dataset():
    """Return Fashion-MNIST if it is on this machine, else the synthetic set; download nothing."""
    return load_dataset(DATASET)


def skip_if_missing(backend):
    """Make asv skip a backend that is not built."""
    if unavailable_reason(backend):
        raise NotImplementedError(f"{backend} {unavailable_reason(backend)}")


class PerBackend:
    """Base of benchmarks that run on every backend."""

    params = BACKENDS
    param_names = ("backend",)
    version = DATASET

    def setup(self, backend):
        skip_if_missing(backend)


def training(backend, threads=None, rows=None):
    """Return a network, its state, the data, and a random order of the rows."""
    pixels, labels = dataset().x_train[:rows], dataset().y_train[:rows]
    x_ni = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    data = TrainData(x_ni, PIXEL_SCALE, labels.astype(np.int32), np.ones(len(x_ni)))
    order_n = np.random.default_rng(0).permutation(len(x_ni)).astype(np.int32)
    network = Network.random(SPEC, 0, PIXEL_SCALE, backend, threads)
    return network, network.fresh_state(), data, order_n


def adam_steps(count, batch):
    """Return the step hyperparameters of `count` steps."""
    return Adam().steps(np.full(count, LR), 0, batch, L2)


class Batch:
    """A batch of rows, and a method for every operation of the Backend protocol that runs it.

    Outputs are allocated once. Calls can be repeated; `update` and `train_steps` change the state
    further.
    """

    def __init__(self, backend, rows):
        skip_if_missing(backend)
        self.kernels, self.rows = get_backend(backend), rows
        self.network, self.state, self.data, order_n = training(backend)
        self.order_n = order_n[:rows]
        self.params = self.state.params
        self.x_bi, self.layers, self.loss_b, self.grad_logits_bk, self.grads = workspace(SPEC, rows)
        self.out_nk = np.empty((rows, 10), np.float32)
        self.weights_b = np.ones(rows, np.float32)
        self.targets_b = self.data.targets_n[self.order_n]
        self.steps = adam_steps(1, rows)
        copied = (
            Params(*(tuple(a.copy() for a in arrays) for arrays in part)) for part in self.state
        )
        self.updated = TrainState(*copied)
        for operation in OPERATIONS:  # in order of their inputs; Numba compiles
            getattr(self, operation)()

    def gather_batch(self):
        self.kernels.gather_batch(
            self.data.x_ni, self.order_n, 0, self.rows, PIXEL_SCALE, self.x_bi
        )

    def forward(self):
        self.kernels.forward(self.params, self.x_bi, SPEC, self.layers)

    def loss_and_grad(self):
        self.kernels.loss_and_grad(
            self.layers[-1], self.targets_b, self.weights_b, SPEC, self.loss_b, self.grad_logits_bk
        )

    def backward(self):
        self.kernels.backward(
            self.params, self.x_bi, self.layers, self.grad_logits_bk, SPEC, self.grads
        )

    def update(self):
        self.kernels.update(self.updated, self.grads, self.steps.at(0), SPEC)

    def train_steps(self):
        """Train one step, including the copies of the weights."""
        threads = self.network.threads
        self.kernels.train_steps(
            self.updated, self.data, self.order_n, self.steps, SPEC, 0, 1, threads
        )

    def predict(self):
        x_ni = self.data.x_ni[: self.rows]
        self.kernels.predict(
            self.params, x_ni, PIXEL_SCALE, SPEC, self.network.threads, self.out_nk
        )

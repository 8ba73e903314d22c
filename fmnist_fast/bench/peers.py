"""The same training by this project and by other packages.

ReLU layers, softmax cross-entropy, Adam, L2 on the weights, float32. Each class starts from the
weights of `TrainingTask.initial_network`, and trains on the rows in the given order:

    train(order_n)     train on these rows, batch by batch
    weights()          return the matrices, (i, o) each
    probabilities(x)   predict uint8 rows (n, i)

Packages are imported in the constructors: a class whose package is missing raises ImportError.
"""

import os
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats, NetworkSpec, StepSchedule, TrainData
from ..models.export import onnx_graph
from ..models.export.network_data import NetworkData
from ..nn.network import PIXEL_SCALE, Network
from ..nn.optimizers import Adam

LR, L2 = 1e-3, 1e-4
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

# Peer -> the packages that it needs: the name on PyPI, and the module.
PACKAGES = {
    "jax": {"jax": "jax"},
    "torch": {"torch": "torch"},
    "scikit-learn": {"scikit-learn": "sklearn.neural_network"},
    "onnxruntime": {"onnxruntime": "onnxruntime", "onnx": "onnx"},
}


class TrainingTask(NamedTuple):
    """What all classes train. data : uint8 pixels."""

    spec: NetworkSpec
    data: TrainData
    batch_size: int

    def initial_network(self, backend: str = "numpy", threads: int = 1) -> Network:
        """Draw the initial weights, the same for all."""
        return Network.random(self.spec, 0, PIXEL_SCALE, backend, threads)


class Peer(Protocol):
    """Interface of the classes below."""

    def train(self, order_n: NDArray[np.int32]) -> None: ...

    def weights(self) -> list[Floats]: ...

    def probabilities(self, x_ni: NDArray[np.uint8]) -> Floats: ...


class FmnistFast:
    """A backend of this project. plain_epsilon : Adam's epsilon as in scikit-learn."""

    def __init__(
        self, task: TrainingTask, threads: int, backend: str, plain_epsilon: bool = False
    ) -> None:
        self.network = task.initial_network(backend, threads)
        self.state, self.task = self.network.fresh_state(), task
        self.optimizer, self.t = Adam((BETA1, BETA2), EPSILON, not plain_epsilon), 0

    def steps(self, order_n: NDArray[np.int32]) -> StepSchedule:
        """Return the hyperparameters of the next steps, an epoch of these rows."""
        first, lr_t = self.t, np.full(-(-len(order_n) // self.task.batch_size), LR)
        self.t += len(lr_t)
        return self.optimizer.steps(lr_t, first, self.task.batch_size, L2)

    def train(self, order_n: NDArray[np.int32]) -> None:
        steps = self.steps(order_n)
        self.network.train_steps(self.state, self.task.data, order_n, steps, 0, len(steps.l2_t))

    def weights(self) -> list[Floats]:
        return list(self.state.params.weights)

    def probabilities(self, x_ni: NDArray[np.uint8]) -> Floats:
        return self.network.predict_proba(x_ni)


class PyTorch:
    """Eager, fused Adam, no DataLoader: rows are picked by tensor indexing.

    as_floats : the data set is kept as scaled float32; else as uint8, scaled batch by batch.
    """

    def __init__(self, task: TrainingTask, threads: int, as_floats: bool) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(threads)
        self.torch: Any = torch
        self.batch = task.batch_size
        layers = [nn.Linear(i, o) for i, o in task.spec.shapes]
        with torch.no_grad():
            for layer, w_io, b_o in zip(layers, *task.initial_network().params):
                layer.weight.copy_(torch.from_numpy(w_io.T.copy()))
                layer.bias.copy_(torch.from_numpy(b_o))
        self.layers, self.loss = layers, nn.CrossEntropyLoss()
        modules: list[nn.Module] = []
        for layer in layers:
            modules += [layer, nn.ReLU()]
        self.model = nn.Sequential(*modules[:-1])
        self.optimizer = torch.optim.Adam(
            [
                {"params": [layer.weight for layer in layers], "weight_decay": L2},
                {"params": [layer.bias for layer in layers]},
            ],
            lr=LR,
            betas=(BETA1, BETA2),
            eps=EPSILON,
            fused=True,
        )
        self.x = torch.tensor(task.data.x_ni)
        if as_floats:
            self.x = self.x.float() * PIXEL_SCALE
        self.as_floats = as_floats
        self.y = torch.from_numpy(task.data.targets_n.astype(np.int64))

    def train(self, order_n: NDArray[np.int32]) -> None:
        order = self.torch.from_numpy(order_n.astype(np.int64))
        for rows in order.split(self.batch):
            x = self.x[rows] if self.as_floats else self.x[rows].float() * PIXEL_SCALE
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.model(x), self.y[rows]).backward()
            self.optimizer.step()

    def weights(self) -> list[Floats]:
        return [layer.weight.detach().numpy().T for layer in self.layers]

    def probabilities(self, x_ni: NDArray[np.uint8]) -> Floats:
        with self.torch.inference_mode():
            x = self.torch.from_numpy(x_ni).float() * PIXEL_SCALE
            probabilities: Floats = self.torch.softmax(self.model(x), dim=1).numpy()
        return probabilities


class Jax:
    """jit of lax.scan over an epoch's steps, data on the device, buffers donated.

    as_floats : as for PyTorch.
    """

    def __init__(self, task: TrainingTask, threads: int, as_floats: bool) -> None:
        import jax
        from jax import lax
        from jax import numpy as jnp

        pixels = jnp.asarray(task.data.x_ni)
        self.x = pixels * np.float32(PIXEL_SCALE) if as_floats else pixels
        self.y = jnp.asarray(task.data.targets_n)
        params = [(jnp.array(w), jnp.array(b)) for w, b in zip(*task.initial_network().params)]
        zeros = jax.tree.map(jnp.zeros_like, params)
        self.state: Any = (params, zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(0))
        self.batch = task.batch_size
        self.jax: Any = jax

        def logits(params: Any, x: Any) -> Any:
            for w, b in params[:-1]:
                x = jax.nn.relu(x @ w + b)
            w, b = params[-1]
            return x @ w + b

        def loss(params: Any, x: Any, y: Any) -> Any:
            log_p = jax.nn.log_softmax(logits(params, x))
            penalty = sum(jnp.vdot(w, w) for w, _ in params)
            return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean() + L2 / 2 * penalty

        def step(state: Any, rows: Any, x_ni: Any, y_n: Any) -> Any:
            params, m, v, t = state
            x = x_ni[rows] if as_floats else x_ni[rows] * np.float32(PIXEL_SCALE)
            grads = jax.grad(loss)(params, x, y_n[rows])
            t = t + 1
            m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
            v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
            root = jnp.sqrt(1 - BETA2**t)
            size, epsilon = LR * root / (1 - BETA1**t), EPSILON * root
            params = jax.tree.map(
                lambda p, m, v: p - size * m / (jnp.sqrt(v) + epsilon), params, m, v
            )
            return params, m, v, t

        def steps(state: Any, full: Any, rest: Any, x_ni: Any, y_n: Any) -> Any:
            state, _ = lax.scan(lambda s, rows: (step(s, rows, x_ni, y_n), None), state, full)
            return step(state, rest, x_ni, y_n) if len(rest) else state

        def probabilities(params: Any, x: Any) -> Any:
            return jax.nn.softmax(logits(params, x * np.float32(PIXEL_SCALE)))

        self._steps = jax.jit(steps, donate_argnums=0)
        self._probabilities = jax.jit(probabilities)

    def train(self, order_n: NDArray[np.int32]) -> None:
        full = len(order_n) // self.batch * self.batch
        batches = order_n[:full].reshape(-1, self.batch)
        self.state = self._steps(self.state, batches, order_n[full:], self.x, self.y)
        self.jax.block_until_ready(self.state)

    def weights(self) -> list[Floats]:
        return [np.asarray(w) for w, _ in self.state[0]]

    def probabilities(self, x_ni: NDArray[np.uint8]) -> Floats:
        return np.asarray(self._probabilities(self.state[0], x_ni))


class ScikitLearn:
    """MLPClassifier, one partial_fit an epoch; it shuffles whole epochs itself."""

    def __init__(self, task: TrainingTask, threads: int) -> None:
        from sklearn.neural_network import MLPClassifier

        self.x = task.data.x_ni * np.float32(PIXEL_SCALE)
        self.y = task.data.targets_n
        self.model = MLPClassifier(
            task.spec.sizes[1:-1],
            alpha=L2 * task.batch_size,  # scikit-learn divides the penalty by the batch size
            batch_size=task.batch_size,
            learning_rate_init=LR,
            beta_1=BETA1,
            beta_2=BETA2,
            epsilon=EPSILON,
            shuffle=False,
            random_state=0,
        )
        # The first call draws weights: replace them and the moments.
        first, classes = slice(task.batch_size), np.arange(task.spec.sizes[-1])
        self.model.partial_fit(self.x[first], self.y[first], classes=classes)
        params = task.initial_network().params
        self.model.coefs_ = [w.copy() for w in params.weights]
        self.model.intercepts_ = [b.copy() for b in params.biases]
        del self.model._optimizer

    def train(self, order_n: NDArray[np.int32]) -> None:
        if len(order_n) == len(self.x):
            self.model.shuffle = True
            self.model.partial_fit(self.x, self.y)
        else:
            self.model.partial_fit(self.x[order_n], self.y[order_n])

    def weights(self) -> list[Floats]:
        return [w.copy() for w in self.model.coefs_]

    def probabilities(self, x_ni: NDArray[np.uint8]) -> Floats:
        probabilities: Floats = self.model.predict_proba(x_ni * np.float32(PIXEL_SCALE))
        return probabilities


class OnnxRuntime:
    """Prediction only, with the graph that `fmnist-fast export` writes: train() does nothing."""

    def __init__(self, task: TrainingTask, threads: int) -> None:
        import onnxruntime

        network = task.initial_network()
        parts = NetworkData(network.params, task.spec, network.scale, ())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session: Any = onnxruntime.InferenceSession(
            onnx_graph.serialize(parts, "mlp"), options, providers=["CPUExecutionProvider"]
        )

    def probabilities(self, x_ni: NDArray[np.uint8]) -> Floats:
        probabilities: Floats = self.session.run(None, {"x": x_ni})[0]
        return probabilities

    def train(self, order_n: NDArray[np.int32]) -> None:
        pass

    def weights(self) -> list[Floats]:
        return []


def limit_cores(threads: int) -> None:
    """Restrict this process to so many cores: JAX starts a thread for each."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

"""The contenders of speed_table.py: the same network, by this project and by others.

784-128-64-10, ReLU, softmax cross-entropy, Adam, L2 on the weights, float32. Each class trains from
the weights that `first_network` draws. `train` takes the rows of some steps in their order;
`weights` gives the matrices as (i, o). Imports of peers are in the constructors: a class whose
package is missing raises ImportError.
"""

import os

import numpy as np

from fmnist_fast.kernels import Data, Spec
from fmnist_fast.network import PIXEL_SCALE, Network
from fmnist_fast.schedule import Adam

SPEC = Spec((784, 128, 64, 10))
LR, L2 = 1e-3, 1e-4
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def first_network(backend="numpy", threads=1):
    """Everybody's first weights."""
    return Network.random(SPEC, 0, PIXEL_SCALE, backend, threads)


class Ours:
    """One of this project's backends. plain_epsilon : Adam's epsilon as scikit-learn has it."""

    def __init__(self, data: Data, batch: int, threads: int, backend: str, plain_epsilon=False):
        self.network = first_network(backend, threads)
        self.state, self.data, self.batch = self.network.fresh_state(), data, batch
        self.plain_epsilon, self.t = plain_epsilon, 0

    def train(self, order_n):
        count = -(-len(order_n) // self.batch)
        steps = Adam(BETA1, BETA2, EPSILON).steps(np.full(count, LR), self.t, self.batch, L2)
        if self.plain_epsilon:
            steps = steps._replace(epsilon_t=np.full(count, EPSILON))
        self.t += count
        self.network.train_steps(self.state, self.data, order_n, steps, 0, count)

    def weights(self):
        return list(self.state.params.weights)


class PyTorch:
    """Eager, fused Adam, no DataLoader: rows are picked by tensor indexing.

    as_floats : the data set is kept as scaled float32; else as uint8, scaled batch by batch.
    """

    def __init__(self, data: Data, batch: int, threads: int, as_floats: bool):
        import torch
        from torch import nn

        torch.set_num_threads(threads)
        self.torch, self.batch = torch, batch
        params = first_network().params
        layers = [nn.Linear(i, o) for i, o in SPEC.shapes]
        with torch.no_grad():
            for layer, w_io, b_o in zip(layers, *params):
                layer.weight.copy_(torch.from_numpy(w_io.T.copy()))
                layer.bias.copy_(torch.from_numpy(b_o))
        self.layers, self.loss = layers, nn.CrossEntropyLoss()
        self.model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
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
        self.x = torch.tensor(data.x_ni)
        if as_floats:
            self.x = self.x.float() * PIXEL_SCALE
        self.as_floats = as_floats
        self.y = torch.from_numpy(data.targets_n.astype(np.int64))

    def train(self, order_n):
        order = self.torch.from_numpy(order_n.astype(np.int64))
        for rows in order.split(self.batch):
            x = self.x[rows] if self.as_floats else self.x[rows].float() * PIXEL_SCALE
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.model(x), self.y[rows]).backward()
            self.optimizer.step()

    def weights(self):
        return [layer.weight.detach().numpy().T for layer in self.layers]


class Jax:
    """jit of lax.scan over an epoch's steps, data on the device, buffers donated."""

    def __init__(self, data: Data, batch: int, threads: int, as_floats: bool):
        import jax
        from jax import lax
        from jax import numpy as jnp

        pixels = jnp.asarray(data.x_ni)
        x_ni = pixels * np.float32(PIXEL_SCALE) if as_floats else pixels
        y_n = jnp.asarray(data.targets_n)
        params = [(jnp.array(w), jnp.array(b)) for w, b in zip(*first_network().params)]
        zeros = jax.tree.map(jnp.zeros_like, params)
        self.state = (params, zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(0))
        self.x, self.y, self.batch, self.jax = x_ni, y_n, batch, jax

        def loss(params, x, y):
            for w, b in params[:-1]:
                x = jax.nn.relu(x @ w + b)
            w, b = params[-1]
            logits = jax.nn.log_softmax(x @ w + b)
            penalty = sum(jnp.vdot(w, w) for w, _ in params)
            return -jnp.take_along_axis(logits, y[:, None], axis=1).mean() + L2 / 2 * penalty

        def step(state, rows, x_ni, y_n):
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

        def steps(state, full, rest, x_ni, y_n):
            state, _ = lax.scan(lambda s, rows: (step(s, rows, x_ni, y_n), None), state, full)
            return step(state, rest, x_ni, y_n) if len(rest) else state

        self.steps = jax.jit(steps, donate_argnums=0)

    def train(self, order_n):
        full = len(order_n) // self.batch * self.batch
        batches = order_n[:full].reshape(-1, self.batch)
        self.state = self.steps(self.state, batches, order_n[full:], self.x, self.y)
        self.jax.block_until_ready(self.state)

    def weights(self):
        return [np.asarray(w) for w, _ in self.state[0]]


class ScikitLearn:
    """MLPClassifier, one partial_fit an epoch, which shuffles by itself after the first call."""

    def __init__(self, data: Data, batch: int, threads: int):
        from sklearn.neural_network import MLPClassifier

        self.x = data.x_ni * np.float32(PIXEL_SCALE)
        self.y, self.first = data.targets_n, True
        self.model = MLPClassifier(
            SPEC.sizes[1:-1],
            solver="adam",
            alpha=L2 * batch,  # it divides the penalty by the rows of the batch
            batch_size=batch,
            learning_rate_init=LR,
            beta_1=BETA1,
            beta_2=BETA2,
            epsilon=EPSILON,
            early_stopping=False,
            shuffle=False,
            random_state=0,
        )
        # It draws weights of its own in its first call: they and the moments are replaced.
        self.model.partial_fit(self.x[:batch], self.y[:batch], classes=np.arange(SPEC.sizes[-1]))
        params = first_network().params
        self.model.coefs_ = [w.copy() for w in params.weights]
        self.model.intercepts_ = [b.copy() for b in params.biases]
        del self.model._optimizer

    def train(self, order_n):
        if len(order_n) == len(self.x):
            self.model.shuffle = True
            self.model.partial_fit(self.x, self.y)
        else:
            self.model.partial_fit(self.x[order_n], self.y[order_n])

    def weights(self):
        return [w.copy() for w in self.model.coefs_]


def onnx_session(network: Network, threads: int):
    """The network as an ONNX Runtime session: uint8 in, scaled inside the graph, softmax out."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["a0"]),
    ]
    constants = [numpy_helper.from_array(np.float32(network.scale).reshape(1), "scale")]
    last = len(SPEC.shapes)
    for depth, (w_io, b_o) in enumerate(zip(*network.params), start=1):
        constants += [
            numpy_helper.from_array(w_io, f"w{depth}"),
            numpy_helper.from_array(b_o, f"b{depth}"),
        ]
        inputs = [f"a{depth - 1}", f"w{depth}", f"b{depth}"]
        nodes.append(helper.make_node("Gemm", inputs, [f"z{depth}"]))
        after = "Softmax" if depth == last else "Relu"
        nodes.append(helper.make_node(after, [f"z{depth}"], [f"a{depth}"]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", SPEC.sizes[0]])],
        [helper.make_tensor_value_info(f"a{last}", TensorProto.FLOAT, ["n", SPEC.sizes[-1]])],
        initializer=constants,
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def use_cores(threads: int) -> None:
    """Leave this process that many cores: JAX takes as many threads as it has cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

"""An epoch of every backend against the plainest NumPy loop that one would write by hand.

    python benchmarks/plain_loop.py [--rounds 7] [--threads 2]

All train 784-128-64-10 at batch 64 from the same weights on the same rows in the same order, with
the same number of threads, in turn within one run. Checked before it is timed: after the
first steps their weights agree. The plain loop does not even compute the loss. Prints seconds an
epoch (median and least) and the ratio, round by round. Uses Fashion-MNIST where it is to be had,
else garments.
"""

import platform
from statistics import median
from time import perf_counter, sleep

import click
import numpy as np

from fmnist_fast import load_dataset
from fmnist_fast._cpu import usable_cores
from fmnist_fast.kernels.interface import NetworkSpec, TrainData
from fmnist_fast.kernels.reference import limit_blas
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.network import PIXEL_SCALE, Network
from fmnist_fast.nn.optimizers import Adam
from fmnist_fast.nn.random_streams import epoch_order

SPEC = NetworkSpec((784, 128, 64, 10))
BATCH, LR, L2 = 64, 1e-3, 1e-4
CHECKED_STEPS = 20

# Seconds until the threads of BLAS, which spin on after a product, have gone to sleep.
SETTLE = 0.3


class PlainLoop:
    """What a NumPy programmer writes down: forward, backward, Adam in place, nothing else."""

    def __init__(self, x, y, params):
        self.x, self.y = x, y
        self.params = [a.copy() for pair in zip(params.weights, params.biases) for a in pair]
        self.m = [np.zeros_like(p) for p in self.params]
        self.v = [np.zeros_like(p) for p in self.params]
        self.t = 0

    def train(self, order):
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            x, y = self.x[rows].astype(np.float32) / 255, self.y[rows]
            w1, b1, w2, b2, w3, b3 = self.params
            h1 = np.maximum(x @ w1 + b1, 0)
            h2 = np.maximum(h1 @ w2 + b2, 0)
            z = h2 @ w3 + b3
            e = np.exp(z - z.max(axis=1, keepdims=True))
            p = e / e.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), y] -= 1
            d3 = p / len(rows)
            d2 = (d3 @ w3.T) * (h2 > 0)
            d1 = (d2 @ w2.T) * (h1 > 0)
            grads = [x.T @ d1 + L2 * w1, d1.sum(0), h1.T @ d2 + L2 * w2, d2.sum(0)]
            grads += [h2.T @ d3 + L2 * w3, d3.sum(0)]
            self.t += 1
            root = (1 - 0.999**self.t) ** 0.5
            step_size, epsilon = LR * root / (1 - 0.9**self.t), 1e-8 * root
            for p, g, m, v in zip(self.params, grads, self.m, self.v):
                m *= 0.9
                m += 0.1 * g
                v *= 0.999
                v += 0.001 * g * g
                p -= step_size * m / (np.sqrt(v) + epsilon)


class Backend:
    """The same through one of the backends."""

    def __init__(self, name, data, threads):
        network = Network.random(SPEC, 0, PIXEL_SCALE, name, threads)
        self.data, self.network, self.state, self.t = data, network, network.fresh_state(), 0

    def train(self, order):
        count = -(-len(order) // BATCH)
        steps = Adam().steps(np.full(count, LR), self.t, BATCH, L2)
        self.t += count
        self.network.train_steps(self.state, self.data, order, steps, 0, count)


def contenders(data, threads):
    """The plain loop and every backend that is built, all with the same first weights."""
    params = Network.random(SPEC, 0, PIXEL_SCALE, "numpy").params
    built = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
    plain = PlainLoop(data.x_ni, data.targets_n, params)
    return {"plain loop": plain, **{name: Backend(name, data, threads) for name in built}}


def check(data, rows, threads):
    """After a few steps all have the same weights, up to the rounding of a few steps of float32.

    A step moves a weight by about LR, so a tenth of one step tells a wrong gradient from rounding.
    """
    order = epoch_order(rows, 0, 1)[: CHECKED_STEPS * BATCH]
    plain, *backends = contenders(data, threads).values()
    plain.train(order)
    for backend in backends:
        backend.train(order)
        for w, theirs in zip(backend.state.params.weights, plain.params[::2]):
            assert np.abs(w - theirs).max() < 0.1 * LR


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads for all.  [default: usable cores]")
def main(rounds: int, threads: int | None) -> None:
    """Compare an epoch of every backend with the plainest NumPy loop."""
    threads = threads or usable_cores()
    dataset = load_dataset()
    count = len(dataset.x_train)
    rows = np.arange(count, dtype=np.int32)
    x_ni = np.ascontiguousarray(dataset.x_train).reshape(count, -1)
    data = TrainData(x_ni, PIXEL_SCALE, dataset.y_train.astype(np.int32), np.ones(count))
    seconds = {}
    with limit_blas(threads):
        check(data, rows, threads)
        runners = contenders(data, threads)
        for epoch in range(rounds + 1):  # the first is a warm-up
            order = epoch_order(rows, 0, epoch)
            for name, runner in runners.items():
                sleep(SETTLE)
                start = perf_counter()
                runner.train(order)
                seconds.setdefault(name, []).append(perf_counter() - start)
    click.echo(
        f"{dataset.name}, {count} rows, {threads} threads, n = {rounds}; "
        f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    )
    for name, values in seconds.items():
        ratios = [ours / plain for ours, plain in zip(values[1:], seconds["plain loop"][1:])]
        click.echo(
            f"{name:10}  median {median(values[1:]):.3f} s, least {min(values[1:]):.3f} s; "
            f"over the plain loop: median {median(ratios):.3f}"
        )


if __name__ == "__main__":
    main()

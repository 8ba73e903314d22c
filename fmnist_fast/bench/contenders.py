"""Contenders: backends and peers in processes of their own, which measure on request.

Each has its own process, so that thread pools cannot disturb each other; it waits on a pipe while
another one is measured.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from timeit import Timer, repeat, timeit
from typing import Any, NamedTuple, cast

import numpy as np
from threadpoolctl import threadpool_limits

from .._signals import terminal_signals_blocked
from ..data.datasets import load_dataset
from ..errors import UserError
from ..kernels.interface import Floats, NetworkSpec, TrainData
from ..nn.backend import BACKEND_NAMES, get_backend, unavailable_reason
from ..nn.network import PIXEL_SCALE
from ..nn.random_streams import epoch_order
from . import peers
from .peers import Peer, TrainingTask
from .phases import phases_of_epoch
from .rounds import checked_rows, fma_peak_gflops

HIDDEN = (128, 64)
N_IMAGES = 10_000

# Duration of the repeated predictions of one image.
ONE_IMAGE_SECONDS = 0.2


class BenchConfig(NamedTuple):
    """What all contenders train on. rows : at most so many; None for all."""

    dataset: str
    data_dir: Path | None
    rows: int | None
    threads: int
    batch_size: int


class Outputs(NamedTuple):
    """What a contender computed, to be compared with the numpy backend before it is timed.

    probabilities : of N_IMAGES rows, with the initial weights. weights : after CHECKED_STEPS steps.
    """

    probabilities: Floats
    weights: list[Floats]


class _Worker:
    """The end of a contender in its process. peer : a backend's name or that of another package."""

    def __init__(self, peer: str, config: BenchConfig) -> None:
        if peer == "jax":
            peers.limit_cores(config.threads)
        if peer in BACKEND_NAMES and (reason := unavailable_reason(peer)):
            raise ImportError(reason)
        for module in peers.PACKAGES.get(peer, {}).values():
            import_module(module)
        self.peer, self.threads, self.batch_size = peer, config.threads, config.batch_size
        dataset = load_dataset(config.dataset, config.data_dir)
        pixels, labels_n = dataset.x_train[: config.rows], dataset.y_train[: config.rows]
        count = len(pixels)
        x_ni = np.ascontiguousarray(pixels).reshape(count, -1)
        data = TrainData(x_ni, PIXEL_SCALE, labels_n.astype(np.int32), np.ones(count))
        spec = NetworkSpec((x_ni.shape[1], *HIDDEN, len(dataset.class_names)))
        self.task = TrainingTask(spec, data, config.batch_size)
        self.rows_n = np.arange(count, dtype=np.int32)
        self.x_test = np.resize(dataset.x_test, (N_IMAGES, x_ni.shape[1]))
        self.dataset = dataset.name
        self.trainer: Any = None
        if x_ni.dtype != np.uint8:
            raise UserError(f"{dataset.name} has {x_ni.dtype} rows: benchmarks need uint8 pixels")

    def workload(self) -> tuple[str, int, tuple[int, ...]]:
        """Return the name and the rows of the data set, and the layer sizes."""
        return self.dataset, len(self.rows_n), self.task.spec.sizes

    def _variants(self) -> Iterator[Peer]:
        """Yield the ways to train with this package; the fastest is the one that is timed."""
        if self.peer in BACKEND_NAMES:
            yield peers.FmnistFast(self.task, self.threads, self.peer)
        elif self.peer == "scikit-learn":
            yield peers.ScikitLearn(self.task, self.threads)
        elif self.peer == "onnxruntime":
            yield peers.OnnxRuntime(self.task, self.threads)
        else:
            kind: Any = peers.PyTorch if self.peer == "torch" else peers.Jax
            for as_floats in (True, False):
                yield kind(self.task, self.threads, as_floats)

    def prepare(self) -> list[Outputs]:
        """Warm up with two epochs, keep the fastest variant, and return the outputs of each."""
        timed = []
        for trainer in self._variants():
            probabilities = trainer.probabilities(self.x_test)
            trainer.train(checked_rows(self.rows_n, self.batch_size))
            outputs = Outputs(probabilities, [w.copy() for w in trainer.weights()])
            epoch = partial(trainer.train, epoch_order(self.rows_n, 0, 0))
            epoch()
            timed.append((timeit(epoch, number=1), outputs, trainer))
        self.trainer = min(timed, key=lambda entry: entry[0])[2]
        return [outputs for _, outputs, _ in timed]

    def weights_with_plain_epsilon(self) -> list[Floats]:
        """Return the weights after the checked steps of a backend with scikit-learn's epsilon."""
        trainer = peers.FmnistFast(self.task, self.threads, self.peer, plain_epsilon=True)
        trainer.train(checked_rows(self.rows_n, self.batch_size))
        return trainer.weights()

    def select_instruction_set(self, instruction_set: str) -> None:
        """Use these kernels from now on."""
        cast(Any, get_backend(self.peer)).select_instruction_set(instruction_set)

    def time_epoch(self, number: int) -> float:
        """Return the seconds of an epoch, after one that is not timed: idle cores are slow for some
        0.1 s."""
        train = partial(self.trainer.train, epoch_order(self.rows_n, 0, number))
        train()
        return timeit(train, number=1)

    def time_phases(self, number: int) -> dict[str, float]:
        """Return the seconds of an epoch of a backend by phase."""
        order_n = epoch_order(self.rows_n, 0, number)
        trainer = self.trainer
        trainer.train(order_n)
        steps = trainer.steps(order_n)
        return phases_of_epoch(trainer.network, trainer.state, self.task.data, order_n, steps)

    def fma_peak(self, instruction_set: str) -> float | None:
        """Return the peak of these kernels in GFLOP/s."""
        self.select_instruction_set(instruction_set)
        return fma_peak_gflops(self.threads)

    def instruction_sets(self) -> tuple[str | None, ...]:
        """Return all that this processor has, widest first; or that of FMNIST_FAST_ISA.

        For backends and packages that have none to choose from: None.
        """
        if self.peer != "cython":
            return (None,)
        module: Any = get_backend(self.peer)
        if os.environ.get("FMNIST_FAST_ISA"):
            return (module.instruction_set(),)
        return tuple(module.available_instruction_sets())

    def time_one_image(self) -> float:
        """Return the median seconds to predict one image."""
        seconds: list[float] = []
        timer = Timer(partial(self.trainer.probabilities, self.x_test[:1].copy()))
        timer.timeit(1)
        end = perf_counter() + ONE_IMAGE_SECONDS
        while perf_counter() < end:
            seconds.append(timer.timeit(1))
        return median(seconds)

    def time_images(self) -> float:
        """Return the seconds to predict N_IMAGES images, the median of seven calls after one."""
        predict = partial(self.trainer.probabilities, self.x_test)
        return median(repeat(predict, number=1, repeat=8)[1:])


def _serve(pipe: Connection, peer: str, config: BenchConfig) -> None:
    """Body of a contender's process: call methods that the pipe names, until it closes."""

    def show(message: object, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            print(f"fmnist-fast: warning: {peer}: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        with threadpool_limits(config.threads, user_api="blas"):
            worker = _Worker(peer, config)
            pipe.send(None)
            while True:
                method, arguments = pipe.recv()
                pipe.send(getattr(worker, method)(*arguments))
    except (ImportError, UserError) as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        pass


class Contender:
    """A contender's process, seen from the parent. missing : why it cannot be measured, else None.

    Raises: UserError if the process dies.
    """

    def __init__(self, peer: str, config: BenchConfig) -> None:
        context = get_context("spawn")
        self.peer = peer
        self.pipe, remote = context.Pipe()
        self.process = context.Process(target=_serve, args=(remote, peer, config), daemon=True)
        with terminal_signals_blocked():
            self.process.start()
        remote.close()
        self.missing: str | None = None
        try:
            self._receive()
        except ImportError as error:
            self.missing = str(error).splitlines()[0]

    def __call__(self, method: str, *arguments: object) -> Any:
        """Call a method of the worker in the process, and return its result."""
        self.pipe.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:
        try:
            result = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise UserError(f"the process of {self.peer} has died") from None
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()

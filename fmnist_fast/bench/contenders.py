"""A contender: one of the peers in a process of its own, which trains an epoch when it is told to.

Each has its process, so that thread pools cannot disturb each other, and all wait on a pipe while
another one is measured.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..data.datasets import load_dataset
from ..errors import UserError
from ..kernels.interface import Floats, NetworkSpec, TrainData
from ..nn.backend import BACKEND_NAMES, get_backend, unavailable_reason
from ..nn.network import PIXEL_SCALE
from ..nn.optimizers import Adam
from ..nn.random_streams import epoch_order
from . import peers
from .peers import Peer, Task
from .phases import phases_of_epoch

__all__ = ["CHECKED_STEPS", "IMAGES", "SETTLE", "Contender", "Form", "Setting"]

HIDDEN = (128, 64)
CHECKED_STEPS = 20
IMAGES = 10_000

# Seconds until threads that spin on after a product have gone to sleep.
SETTLE = 0.3

# How long one image is predicted over and over.
ONE_IMAGE_SECONDS = 0.2


class Setting(NamedTuple):
    """What every contender is given. rows : at most so many to train on; None for all."""

    dataset: str
    data_dir: Path | None
    rows: int | None
    threads: int


class Form(NamedTuple):
    """What one form of a peer computed: checked against the numpy backend before it is timed.

    probabilities : of IMAGES rows, with the first weights. weights : after CHECKED_STEPS steps.
    """

    probabilities: Floats
    weights: list[Floats]


class _Worker:
    """What runs in a contender's process. peer : a backend's name or that of another package."""

    def __init__(self, peer: str, setting: Setting) -> None:
        if peer == "jax":
            peers.use_cores(setting.threads)
        if peer in BACKEND_NAMES and (reason := unavailable_reason(peer)):
            raise ImportError(reason)
        for module in peers.PACKAGES.get(peer, {}).values():
            import_module(module)
        self.peer, self.threads = peer, setting.threads
        self.runners: dict[tuple[int, int], Any] = {}
        dataset = load_dataset(setting.dataset, setting.data_dir)
        count = min(setting.rows or len(dataset.x_train), len(dataset.x_train))
        x_ni = np.ascontiguousarray(dataset.x_train[:count]).reshape(count, -1)
        labels_n = dataset.y_train[:count].astype(np.int32)
        self.data = TrainData(x_ni, PIXEL_SCALE, labels_n, np.ones(count))
        self.rows_n = np.arange(count, dtype=np.int32)
        self.spec = NetworkSpec((x_ni.shape[1], *HIDDEN, len(dataset.class_names)))
        self.x_test = np.resize(dataset.x_test, (IMAGES, x_ni.shape[1]))
        self.dataset = dataset.name
        self.predictor: Peer | None = None
        if x_ni.dtype != np.uint8:
            raise UserError(f"{dataset.name} has {x_ni.dtype} rows: benchmarks want uint8 pixels")

    def facts(self) -> tuple[str, int, tuple[int, ...]]:
        """Name and rows of the data set, and the network's layers."""
        return self.dataset, len(self.rows_n), self.spec.sizes

    def task(self, batch: int) -> Task:
        return Task(self.spec, self.data, batch)

    def first_rows(self, batch: int) -> NDArray[np.int32]:
        """Of the steps that are checked: full batches, and not the whole epoch, which scikit-learn
        would shuffle."""
        steps = min(CHECKED_STEPS, max(1, (len(self.rows_n) - 1) // batch))
        return epoch_order(self.rows_n, 0, 1)[: steps * batch]

    def makers(self, batch: int, threads: int) -> list[Callable[[], Peer]]:
        """The forms of this contender; the fastest of them is the one that is timed."""
        task = self.task(batch)
        if self.peer in BACKEND_NAMES:
            return [lambda: peers.Ours(task, threads, self.peer)]
        if self.peer == "scikit-learn":
            return [lambda: peers.ScikitLearn(task, threads)]
        kind = peers.PyTorch if self.peer == "torch" else peers.Jax
        return [partial(kind, task, threads, as_floats) for as_floats in (True, False)]

    def prepare(self, batch: int, threads: int) -> list[Form]:
        """Warm up; returns what every form computed.

        The whole epoch of the warm-up also decides which form is kept.
        """
        first = self.first_rows(batch)
        forms = []
        for make in self.makers(batch, threads):
            runner = make()
            probabilities = runner.probabilities(self.x_test)
            runner.train(first)
            form = Form(probabilities, [w.copy() for w in runner.weights()])
            runner.train(epoch_order(self.rows_n, 0, 0))
            start = perf_counter()
            runner.train(epoch_order(self.rows_n, 0, 0))
            forms.append((perf_counter() - start, form, runner))
        kept = min(forms, key=lambda entry: entry[0])[2]
        self.runners[batch, threads] = kept
        if threads == self.threads:
            self.predictor = self.predictor or kept
        return [form for _, form, _ in forms]

    def predict_only(self) -> list[Form]:
        """For ONNX Runtime, in place of `prepare`."""
        self.predictor = cast(Peer, peers.OnnxRuntime(self.task(1), self.threads))
        return [Form(self.predictor.probabilities(self.x_test), [])]

    def plain_epsilon(self, batch: int) -> list[Floats]:
        """The weights after the same steps by a backend whose epsilon is scikit-learn's."""
        runner = peers.Ours(self.task(batch), self.threads, self.peer, plain_epsilon=True)
        runner.train(self.first_rows(batch))
        return runner.weights()

    def use(self, instruction_set: str | None) -> None:
        """The loops that are used from now on; None where there is no choice."""
        if instruction_set is not None:
            cast(Any, get_backend(self.peer)).select_instruction_set(instruction_set)

    def epoch(self, batch: int, threads: int, number: int) -> float:
        """Seconds of one epoch, after another: cores that slept are slow for some 0.1 s."""
        order_n = epoch_order(self.rows_n, 0, number)
        runner = self.runners[batch, threads]
        runner.train(order_n)
        start = perf_counter()
        runner.train(order_n)
        return perf_counter() - start

    def phases(self, batch: int, number: int) -> dict[str, float]:
        """Where the time of an epoch goes, by a backend of ours."""
        order_n = epoch_order(self.rows_n, 0, number)
        runner = self.runners[batch, self.threads]
        lr_t = np.full(-(-len(order_n) // batch), peers.LR)
        steps = Adam().steps(lr_t, runner.t, batch, peers.L2)
        runner.train(order_n)
        return phases_of_epoch(runner.network, runner.state, self.data, order_n, steps)

    def peak(self) -> float:
        """GFLOP/s of multiply-adds."""
        peak: float = cast(Any, get_backend("cython")).multiply_add_peak(self.threads)
        return peak

    def instruction_sets(self) -> tuple[str, ...]:
        """All that there are, widest first; only that of FMNIST_FAST_ISA, if it is set."""
        module = cast(Any, get_backend(self.peer))
        if os.environ.get("FMNIST_FAST_ISA"):
            return (module.instruction_set(),)
        found: tuple[str, ...] = module.available_instruction_sets()
        return found

    def one_image(self) -> float:
        """Seconds of the probabilities of one image, the median of many calls."""
        assert self.predictor
        seconds: list[float] = []
        image = self.x_test[:1].copy()
        self.predictor.probabilities(image)
        start = perf_counter()
        end = start + ONE_IMAGE_SECONDS
        while start < end:
            start = perf_counter()
            self.predictor.probabilities(image)
            seconds.append(perf_counter() - start)
        return median(seconds)

    def all_images(self) -> float:
        """Seconds of the probabilities of IMAGES images, the median of seven calls after one."""
        assert self.predictor
        seconds = []
        for _ in range(8):
            start = perf_counter()
            self.predictor.probabilities(self.x_test)
            seconds.append(perf_counter() - start)
        return median(seconds[1:])


def _serve(pipe: Connection, peer: str, setting: Setting) -> None:
    """Body of a contender's process: answers (method, arguments) until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks hears it, and ends us

    def show(message: object, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            print(f"fmnist-fast: warning: {peer}: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        with threadpool_limits(setting.threads, user_api="blas"):
            worker = _Worker(peer, setting)
            pipe.send(None)
            while True:
                method, arguments = pipe.recv()
                pipe.send(getattr(worker, method)(*arguments))
    except (ImportError, UserError) as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        pass


class Contender:
    """This end of a contender's process. missing : why it is not there, else None.

    Raises: UserError if its process dies.
    """

    _asked_last: "Contender | None" = None

    def __init__(self, peer: str, setting: Setting) -> None:
        context = get_context("spawn")
        self.peer = peer
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, peer, setting), daemon=True)
        self.process.start()
        theirs.close()
        self.missing: str | None = None
        try:
            self._answer()
        except ImportError as error:
            self.missing = str(error).splitlines()[0]

    def __call__(self, method: str, *arguments: object) -> Any:
        """The answer of that method of _Worker, after threads of others have come to rest."""
        if Contender._asked_last is not self:
            sleep(SETTLE)
            Contender._asked_last = self
        self.pipe.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise UserError(f"the process of {self.peer} has died") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()

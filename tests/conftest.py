"""Shared fixtures: kernels, an empty cache, small data sets and Fashion-MNIST."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from backend_variants import variants
from real_data import REAL_FOLDER

from fmnist_fast.data.datasets import Dataset, load_dataset
from fmnist_fast.data.synthetic import draw_synthetic
from fmnist_fast.nn.backend import BACKEND_NAMES, get_backend, unavailable_reason


def pytest_sessionstart():
    """Skip tests of a missing backend, unless all backends are required, as in CI."""
    for name in BACKEND_NAMES if "FMNIST_FAST_REQUIRE_COMPILED" in os.environ else ():
        if unavailable_reason(name):
            pytest.exit(
                f"FMNIST_FAST_REQUIRE_COMPILED: {name} {unavailable_reason(name)}", returncode=1
            )


@pytest.fixture(params=list(variants()))
def backend(request):
    """A kernel module, set to one of its instruction sets."""
    name, instruction_set = request.param
    module = get_backend(name)
    if not instruction_set:
        yield module
        return
    before = module.instruction_set()
    module.select_instruction_set(instruction_set)
    yield module
    module.select_instruction_set(before)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache, or depends on the user's environment."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("FMNIST_FAST_DATA", raising=False)
    return folder


@pytest.fixture(autouse=True)
def restored_signals():
    """A command that was stopped ignores later signals, and so would all processes started here."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def slowness() -> float:
    """Factor of limits in seconds on a machine that runs Python slowly; at least 1.

    The limits assume that the additions below take 0.01 s.
    """
    seconds = []
    for _ in range(5):
        began, total = time.perf_counter(), 0
        for number in range(200_000):
            total += number
        seconds.append(time.perf_counter() - began)
    return max(1.0, min(seconds) / 0.01)


@pytest.fixture
def real_folder() -> Path:
    """The folder of the real data set, which FMNIST_FAST_DATA named when the tests began."""
    if REAL_FOLDER is None:
        pytest.skip("FMNIST_FAST_DATA does not name the folder of Fashion-MNIST")
    return REAL_FOLDER


@pytest.fixture
def real_dataset(real_folder) -> Dataset:
    return load_dataset("fashion-mnist", real_folder)


@pytest.fixture(scope="session")
def small_dataset() -> Dataset:
    """Synthetic data set of 600 + 200 images: trains in a moment, above chance level."""
    arrays = draw_synthetic(train=600, test=200)
    names = tuple(f"class {k}" for k in range(10))
    for array in arrays:
        array.setflags(write=False)
    return Dataset("small", *arrays, names, "0" * 64)


@pytest.fixture
def small_npz(small_dataset, tmp_path) -> Path:
    """The same as a file."""
    path = tmp_path / "small.npz"
    np.savez(
        path,
        x_train=small_dataset.x_train,
        y_train=small_dataset.y_train,
        x_test=small_dataset.x_test,
        y_test=small_dataset.y_test,
    )
    return path


@pytest.fixture
def app_queue(monkeypatch):
    """The app with an empty queue of its own."""
    pytest.importorskip("streamlit", reason="Streamlit is not installed")
    from fmnist_fast.app import session
    from fmnist_fast.app.jobs import JobQueue

    queue = JobQueue()
    monkeypatch.setattr(session, "QUEUE", queue)
    session.load_local_dataset.clear()
    yield queue
    session.load_local_dataset.clear()


@pytest.fixture
def app_data(app_queue, small_dataset, monkeypatch):
    """The app on the small data set."""
    from fmnist_fast.app import session

    monkeypatch.setattr(session, "load_dataset", lambda *_, **__: small_dataset)
    return small_dataset


@pytest.fixture
def app_synthetic(app_queue, small_dataset, monkeypatch):
    """The app on a machine that has no Fashion-MNIST; any attempt to use the network fails."""
    from fmnist_fast.data import datasets as data
    from fmnist_fast.data import fashion_mnist

    def forbidden(*_, **__):
        raise AssertionError("a page tried to download")

    synthetic = replace(small_dataset, name="synthetic")
    monkeypatch.setattr(fashion_mnist, "fetch", forbidden)
    monkeypatch.setattr(data, "_synthetic", lambda: synthetic)
    return synthetic

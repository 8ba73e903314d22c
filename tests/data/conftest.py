"""Fixtures of the data tests: no network, a small synthetic set, a stand-in for Fashion-MNIST."""

from functools import partial

import pytest
from idx_sets import constants_for, random_arrays, write_folder

from fmnist_fast.data import fashion_mnist, synthetic

NOWHERE = ("https://127.0.0.1:1/", "http://127.0.0.1:1/")  # a port where nothing listens


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SOURCES", NOWHERE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(autouse=True)
def few_synthetic(monkeypatch):
    few = partial(synthetic.draw_synthetic, train=30, test=10)
    monkeypatch.setattr(synthetic, "draw_synthetic", few)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A folder that passes for that of Fashion-MNIST."""
    arrays = random_arrays(size=(28, 28))
    folder = write_folder(tmp_path / "stand-in", arrays)
    for name, value in constants_for(folder, arrays).items():
        monkeypatch.setattr(fashion_mnist, name, value)
    return folder


@pytest.fixture
def unwritable_cache(tmp_path, monkeypatch):
    """Set a cache folder below a regular file, where not even root can create a folder."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


@pytest.fixture
def never_fetched(monkeypatch):
    """Any way to the network fails loudly."""

    def forbidden(*_, **__):
        raise AssertionError("it tried to download")

    monkeypatch.setattr(fashion_mnist, "fetch", forbidden)

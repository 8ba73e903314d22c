"""Fixtures: images, the pretrained model, and a pool of two processes with the model."""

import pytest

pytest.importorskip("distributed", reason="Dask is not installed")
pytest.importorskip("pyarrow", reason="Arrow is not installed")

from batch_inputs import ROWS

from fmnist_fast import load_model
from fmnist_fast.data.synthetic import draw_synthetic
from fmnist_fast.distributed.batch_predict import array_inputs
from fmnist_fast.distributed.batch_predict.job import model_to_workers, workers_identity
from fmnist_fast.distributed.worker_pool import open_pool


@pytest.fixture(scope="module")
def images():
    return draw_synthetic(train=10, test=ROWS)[2]


@pytest.fixture(scope="module")
def model():
    return load_model(backend="cython", threads=1)


@pytest.fixture(scope="module")
def identity(model):
    return workers_identity(model)


@pytest.fixture(scope="module")
def pool(identity):
    """Two processes of this machine."""
    with open_pool(None, 2, identity, model_to_workers(None, "cython")) as two:
        two.refresh(now=True)
        assert two.slots == 2
        yield two


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a hundred rows of bytes, read in two chunks."""
    monkeypatch.setattr(array_inputs, "BLOCK_BYTES", 100 * 784)
    monkeypatch.setattr(array_inputs, "CHUNK_BYTES", 50 * 784)

"""Network: accepted rows and labels, error messages, initial weights, number of threads."""

import numpy as np
import pytest

from fmnist_fast.errors import ArgumentError, BackendUnavailable
from fmnist_fast.kernels.interface import NetworkSpec
from fmnist_fast.nn.network import Network, check_labels, check_rows


@pytest.fixture
def network() -> Network:
    return Network.random(NetworkSpec((12, 5, 3)), 0, 1 / 255, "numpy", 1)


def test_predict_proba_uint8_and_float_pixels_agree(network):
    x = np.random.default_rng(0).integers(0, 256, (7, 3, 4), dtype=np.uint8)
    expected = network.predict_proba(x)
    assert expected.shape == (7, 3)
    # x / 255 in floats rounds to at most one unit in the last place of x * (1 / 255).
    for floats in (x / 255, (x / 255).astype(np.float32), (x / 255).reshape(7, 12)):
        np.testing.assert_allclose(network.predict_proba(floats), expected, rtol=1e-5)
    assert np.array_equal(network.predict_proba(x.reshape(7, 12)), expected)


def test_predict_proba_rows_sum_to_one(network):
    x = np.random.default_rng(0).random((50, 12))
    sums = network.predict_proba(x).sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(sums, 1, atol=3 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("view", ["fortran", "strided", "reversed", "read-only", "list"])
def test_predict_proba_accepts_any_memory_layout(network, view):
    x = np.random.default_rng(0).random((6, 12))
    views = {
        "fortran": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": x[::-1][::-1],
        "read-only": x.copy(),
        "list": x.tolist(),
    }
    if view == "read-only":
        views[view].setflags(write=False)
    assert np.array_equal(network.predict_proba(views[view]), network.predict_proba(x))


def test_predict_proba_of_no_rows_is_empty(network):
    assert network.predict_proba(np.empty((0, 12), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(12, np.uint8), r"shape \(12,\): give \(n, 12\).*x\[None\] makes a batch of one"),
        (np.zeros((2, 11), np.uint8), r"shape \(2, 11\): give \(n, 12\)"),
        (np.zeros((2, 12), np.int64), "dtype int64: give uint8, float32"),
        (np.zeros((2, 12), bool), "dtype bool: give uint8, float32"),
        (np.full((2, 12), np.nan), "holds NaN or infinite values"),
        (np.full((2, 12), np.inf), "holds NaN or infinite values"),
        (np.full((2, 12), 200.0), "floats from 200 to 200: give uint8 pixels"),
        (np.full((2, 12), -0.1), "floats from -0.1 to -0.1"),
    ],
)
def test_check_rows_rejects_wrong_shape_dtype_and_range(network, x, message):
    with pytest.raises(ArgumentError, match=message):
        network.predict_proba(x)


def test_check_rows_accepts_any_finite_table_value():
    network = Network.random(NetworkSpec((2, 3)), 0, 1.0, "numpy", 1)
    assert network.predict_proba(np.array([[-300.0, 1e6]])).shape == (1, 3)


def test_check_rows_does_not_copy():
    x = np.zeros((4, 12), np.uint8)
    assert np.shares_memory(check_rows(x, 12, unit_range=True), x)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(4, np.uint8), r"shape \(4,\): give one label a row, \(3,\)"),
        (np.zeros(3), "labels must be integers"),
        (np.array([0, 1, 10]), r"from 0 to 10: give 0\.\.9"),
        (np.array([0, -1, 5]), r"from -1 to 5"),
    ],
)
def test_check_labels_rejects_wrong_shape_dtype_and_range(y, message):
    with pytest.raises(ArgumentError, match=message):
        check_labels(y, 3, 10)


def test_network_random_weights_have_he_variance():
    network = Network.random(NetworkSpec((500, 400, 10), dtype="float64"), 3, 1.0, "numpy", 1)
    for w_io, b_o in zip(*network.params):
        count = w_io.size
        # The variance of a sample variance of n normal draws is 2 sigma^4 / n: 5 sigma either way.
        assert abs(w_io.var() * len(w_io) / 2 - 1) < 5 * np.sqrt(2 / count)
        assert abs(w_io.mean()) < 5 * np.sqrt(2 / len(w_io) / count)
        assert not b_o.any()


def test_network_random_rejects_threads_below_one():
    with pytest.raises(ArgumentError, match="threads is 0"):
        Network.random(NetworkSpec((2, 3)), 0, 1.0, "numpy", 0)


def test_network_random_names_unsupported_dtype():
    with pytest.raises(
        BackendUnavailable, match=r"'numpy' has no dtype 'float16': choose from float32"
    ):
        Network.random(NetworkSpec((2, 3), dtype="float16"), 0, 1.0, "numpy")


def test_network_threads_limited_by_size_of_network(monkeypatch):
    monkeypatch.setattr("fmnist_fast.nn.network.usable_cores", lambda: 8)
    threads = [
        Network.random(NetworkSpec(sizes), 0, 1.0, "numpy").threads
        for sizes in ((4, 8, 3), (784, 32, 10), (784, 128, 64, 10))
    ]
    assert threads == [1, 3, 8]
    assert Network.random(NetworkSpec((4, 8, 3)), 0, 1.0, "numpy", threads=8).threads == 8
    assert Network.random(NetworkSpec((4, 8, 3)), 0, 1.0, "numpy", threads=1000).threads == 64


@pytest.mark.parametrize(
    ("dtype", "batch_size", "rows", "threads"),
    [
        ("float32", 64, 60_000, 1),
        ("float32", 200, 60_000, 3),
        ("float64", 200, 60_000, 6),
        ("float64", 1000, 60_000, 8),
        ("float64", 200, 1500, 1),
        ("float32", 30_000, 30_000, 4),
    ],
)
def test_network_threads_limited_by_batch_size_and_rows(
    monkeypatch, dtype, batch_size, rows, threads
):
    monkeypatch.setattr("fmnist_fast.nn.network.usable_cores", lambda: 8)
    spec = NetworkSpec((64, 100, 10), dtype=dtype)
    params = Network.random(spec, 0, 1.0, "numpy").params
    network = Network.from_params(spec, params, 1.0, "numpy", batch_size=batch_size, rows=rows)
    assert network.threads == threads

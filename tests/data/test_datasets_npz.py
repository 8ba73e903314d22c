"""Data sets from .npz files, valid, damaged and hostile."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_sets import (
    arrays_of,
    error_message,
    idx_bytes,
    load_quietly,
    random_arrays,
    same,
)

from fmnist_fast.data.cache import (
    Arrays,
)
from fmnist_fast.data.datasets import load_dataset
from fmnist_fast.errors import DataError


def write_npz(path: Path, save=np.savez, **changes) -> Path:
    save(path, **(random_arrays()._asdict() | changes))
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_load_npz_accepts_any_numeric_dtype(tmp_path, save, dtype):
    arrays = random_arrays()
    x_train, x_test = arrays.x_train.astype(dtype), arrays.x_test.astype(dtype)
    dataset = load_quietly(write_npz(tmp_path / "mine.npz", save, x_train=x_train, x_test=x_test))
    assert same(arrays_of(dataset), Arrays(x_train, arrays.y_train, x_test, arrays.y_test))
    assert dataset.name == "mine"


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, ">i4"])
def test_load_npz_accepts_labels_as_row_or_column(tmp_path, dtype):
    arrays = random_arrays()
    y_train, y_test = arrays.y_train.astype(dtype)[:, None], arrays.y_test.astype(dtype)
    dataset = load_dataset(write_npz(tmp_path / "mine.npz", y_train=y_train, y_test=y_test))
    assert np.array_equal(dataset.y_train, arrays.y_train)
    assert np.array_equal(dataset.y_test, arrays.y_test)


def test_load_npz_accepts_fortran_order_and_extra_arrays(tmp_path):
    x_train = np.asfortranarray(np.random.default_rng(0).random((20, 13)))
    x_test = np.asfortranarray(np.random.default_rng(1).random((8, 13)))
    path = write_npz(tmp_path / "a.npz", x_train=x_train, x_test=x_test, notes=np.array("hello"))
    dataset = load_dataset(path)
    assert np.array_equal(dataset.x_train, x_train)
    assert dataset.x_train.flags.c_contiguous


X_NAN = np.zeros((20, 6, 5))
X_NAN[3, 2, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": np.zeros((20, 6, 5), np.int64)}, "x_train has dtype int64: store uint8"),
        ({"x_train": np.zeros((20, 6, 5), np.float16)}, "x_train has dtype float16"),
        ({"x_test": np.full((8, 6, 5), "a")}, "x_test has dtype <U1"),
        ({"x_train": X_NAN}, "x_train holds NaN, infinite values"),
        ({"x_test": np.full((8, 6, 5), -np.inf)}, "x_test holds NaN, infinite values"),
        ({"x_test": np.full((8, 6, 5), 1e39)}, "or numbers too large for float32"),
        ({"x_train": np.zeros(20)}, "x_train has shape (20,)"),
        ({"x_train": np.zeros((0, 6, 5))}, "x_train has shape (0, 6, 5)"),
        ({"x_test": np.float32(3)}, "x_test has shape ()"),
        ({"y_train": np.zeros(19, int)}, "y_train has shape (19,) for 20 rows"),
        ({"y_test": np.zeros((8, 10), int)}, "y_test has shape (8, 10) for 8 rows"),
        ({"y_test": np.zeros((1, 8), int)}, "y_test has shape (1, 8) for 8 rows"),
        ({"y_train": np.int64(3)}, "y_train has shape () for 20 rows"),
        ({"y_train": np.zeros(20)}, "y_train has dtype float64: labels must be integers"),
        ({"y_train": np.zeros(20, bool)}, "y_train has dtype bool"),
        ({"y_train": np.arange(-1, 19)}, "y_train holds labels from -1 to 18"),
        ({"y_train": np.full(20, 256)}, "labels from 256 to 256: they must lie in 0..255"),
        ({"y_test": np.full(8, 2**63, np.uint64)}, "y_test holds labels"),
        ({"x_test": np.zeros((8, 5, 6), np.uint8)}, "must be equal"),
        ({"x_test": np.zeros((8, 6, 5), np.float32)}, "must be equal"),
    ],
)
def test_load_npz_rejects_unusable_arrays(tmp_path, changes, words):
    path = write_npz(tmp_path / "mine.npz", **changes)
    message = error_message(path)
    assert message.startswith(f"{path}: ")
    assert words in message


@pytest.mark.parametrize("absent", Arrays._fields)
def test_load_npz_names_missing_array(tmp_path, absent):
    path = tmp_path / "mine.npz"
    np.savez(path, **{k: v for k, v in random_arrays()._asdict().items() if k != absent})
    message = error_message(path)
    assert message.startswith(f"{path} is not an .npz file with x_train, y_train")
    assert f"{absent} is not a file in the archive" in message


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_load_npz_rejects_pickle_unopened(tmp_path):
    trap = np.array([Touch(tmp_path / "trapped")], object)
    path = write_npz(tmp_path / "mine.npz", y_test=trap)
    assert str(path) in error_message(path)
    path.write_bytes(pickle.dumps(trap))
    assert "not an .npz file" in error_message(path)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("content", [b"", b"hello\n", idx_bytes(random_arrays().x_train)])
def test_load_npz_rejects_other_archives(tmp_path, content):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    message = error_message(path)
    assert message.startswith(f"{path} is not an .npz file")
    assert "y_test" in message


def test_load_npz_rejects_npy_file(tmp_path):
    np.save(tmp_path / "x.npy", random_arrays().x_train)
    assert "is not an .npz file" in error_message(tmp_path / "x.npy")


# As zip members, each of these once led to another kind of exception than the ones above.
HEADERS = {
    "open bracket": "{'descr': '|u1', ",
    "deep": "-" * 5000 + "1",
    "indented": "  1\n 2",
    "endless": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 30},)}}",
    "large": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**45},)}}",
    "negative": "{'descr': '|u1', 'fortran_order': False, 'shape': (-3,)}",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_load_npz_rejects_hostile_header(tmp_path, header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in Arrays._fields:
            file.writestr(f"{name}.npy", content)
    assert str(path) in error_message(path)


def test_load_npz_rejects_members_other_than_arrays(tmp_path):
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in Arrays._fields:
            file.writestr(name, b"hello")
    assert str(path) in error_message(path)


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 99)], ids=["encrypted", "unknown"])
def test_load_npz_rejects_unknown_compression(tmp_path, place, value):
    path = write_npz(tmp_path / "mine.npz")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + place] = value
    path.write_bytes(content)
    assert str(path) in error_message(path)


def packed(save) -> bytes:
    content = io.BytesIO()
    save(content, **random_arrays(size=(2, 2), train=3, test=2)._asdict())
    return content.getvalue()


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(
    st.sampled_from([packed(np.savez), packed(np.savez_compressed)]),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=4),
    st.one_of(st.none(), st.integers(0, 1500)),
)
def test_load_npz_mutated_files_give_arrays_or_error(tmp_path_factory, content, changes, length):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    mutated = bytearray(content)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    path.write_bytes(mutated[:length])
    try:
        load_dataset(path)
    except DataError:
        assert str(path) in error_message(path)

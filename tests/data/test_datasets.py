"""Data sets by name and from a folder."""

import time

import numpy as np
import pytest
from idx_sets import (
    FILE_NAMES,
    arrays_of,
    error_message,
    load_quietly,
    random_arrays,
    same,
    write_folder,
)

from fmnist_fast.data import fashion_mnist, synthetic
from fmnist_fast.data.cache import (
    Arrays,
    compute_checksum,
)
from fmnist_fast.data.datasets import load_dataset


@pytest.mark.parametrize("name", ["mnist", "Fashion-MNIST", "no/such/folder", "x" * 5000])
def test_load_dataset_rejects_unknown_name(name):
    message = error_message(name)
    assert repr(name) in message
    for choice in ("auto", "fashion-mnist", "synthetic", "folder", ".npz"):
        assert choice in message


def test_load_dataset_caches_synthetic(monkeypatch):
    drawn = Arrays(*synthetic.draw_synthetic())
    first = load_quietly("synthetic")
    monkeypatch.setattr(synthetic, "draw_synthetic", lambda: pytest.fail("drawn again"))
    second = load_quietly("synthetic")
    assert same(drawn, arrays_of(first))
    assert same(drawn, arrays_of(second))
    assert first.checksum == second.checksum == compute_checksum(drawn)
    assert second.class_names == fashion_mnist.CLASS_NAMES


def test_load_dataset_synthetic_cache_depends_on_version(monkeypatch):
    load_dataset("synthetic")
    other = random_arrays()
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    monkeypatch.setattr(synthetic, "draw_synthetic", lambda: other)
    assert same(arrays_of(load_dataset("synthetic")), other)


@pytest.mark.parametrize("again", [False, True], ids=["first use", "later use"])
@pytest.mark.parametrize("kind", ["synthetic", "fashion-mnist", "folder", "npz"])
def test_load_dataset_arrays_are_read_only(kind, again, stand_in, small_npz):
    name = {"folder": stand_in, "npz": small_npz}.get(kind, kind)
    if again:
        load_dataset(name, stand_in)
    for array in arrays_of(load_dataset(name, stand_in)):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.filterwarnings("ignore:the data set could not be kept")
def test_load_dataset_uncached_arrays_are_read_only(unwritable_cache):
    assert not any(a.flags.writeable for a in arrays_of(load_dataset("synthetic")))


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (5, 31), (1, 1)])
@pytest.mark.parametrize("classes", [1, 2, 10, 256])
@pytest.mark.parametrize("plain", [(), FILE_NAMES, FILE_NAMES[::2]], ids=["gzip", "plain", "mixed"])
def test_load_folder_accepts_any_size_and_classes(tmp_path, size, classes, plain):
    arrays = random_arrays(size=size, classes=classes)
    dataset = load_quietly(write_folder(tmp_path / "mine", arrays, plain))
    assert same(arrays_of(dataset), arrays)
    assert dataset.name == "mine"
    assert dataset.class_names == tuple(map(str, range(classes)))
    assert dataset.checksum == compute_checksum(arrays)


def test_load_folder_classes_include_test_labels(tmp_path):
    arrays = random_arrays(classes=3)
    arrays.y_test[0] = 6
    assert len(load_dataset(write_folder(tmp_path, arrays)).class_names) == 7


def test_dataset_checksum_depends_on_content_only(tmp_path):
    one = load_dataset(write_folder(tmp_path / "one", random_arrays(0)))
    copy = load_dataset(write_folder(tmp_path / "copy", random_arrays(0), plain=FILE_NAMES))
    other = load_dataset(write_folder(tmp_path / "other", random_arrays(1)))
    assert one.checksum == copy.checksum != other.checksum


def test_load_folder_recognizes_fashion_mnist_content(tmp_path, stand_in):
    arrays = fashion_mnist.read_folder(stand_in)
    dataset = load_dataset(write_folder(tmp_path / "mine", arrays, plain=FILE_NAMES))
    assert dataset.name == "fashion-mnist"
    assert dataset.class_names == fashion_mnist.CLASS_NAMES


@pytest.mark.parametrize("name", FILE_NAMES)
def test_load_folder_names_missing_file(tmp_path, name):
    folder = write_folder(tmp_path / "mine", random_arrays())
    (folder / name).unlink()
    message = error_message(folder)
    assert f"{folder} has no {name}, nor {name.removesuffix('.gz')}" in message


@pytest.mark.parametrize("name", FILE_NAMES)
def test_load_folder_names_damaged_file(tmp_path, name):
    folder = write_folder(tmp_path / "mine", random_arrays())
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-9])
    assert str(folder / name) in error_message(folder)


@pytest.mark.parametrize(("wrong", "name"), [("y_train", FILE_NAMES[1]), ("y_test", FILE_NAMES[3])])
def test_load_folder_rejects_wrong_label_count(tmp_path, wrong, name):
    arrays = random_arrays()
    arrays = arrays._replace(**{wrong: getattr(arrays, wrong)[1:]})
    folder = write_folder(tmp_path / "mine", arrays)
    counts = {"y_train": "19 labels for 20 images", "y_test": "7 labels for 8 images"}
    assert f"{folder / name} has {counts[wrong]}" in error_message(folder)


def test_load_folder_rejects_images_of_two_sizes(tmp_path):
    arrays = random_arrays()._replace(x_test=random_arrays(size=(7, 7)).x_test)
    message = error_message(write_folder(tmp_path / "mine", arrays))
    assert "(6, 5)" in message
    assert "(7, 7)" in message


def test_load_fashion_mnist_checksum_and_shapes(real_folder):
    dataset = load_quietly("fashion-mnist", real_folder)
    arrays = arrays_of(dataset)
    assert compute_checksum(arrays) == fashion_mnist.CHECKSUM == dataset.checksum
    assert [a.shape for a in arrays] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert {a.dtype for a in arrays} == {np.dtype(np.uint8)}
    assert np.bincount(dataset.y_test).tolist() == [1000] * 10


@pytest.mark.alone
def test_load_fashion_mnist_is_fast_after_first_use(real_folder, slowness):
    load_dataset("fashion-mnist", real_folder)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        load_dataset("fashion-mnist")
        seconds.append(time.perf_counter() - began)
    assert min(seconds) <= 0.15 * slowness

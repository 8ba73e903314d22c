"""Where Fashion-MNIST is found on the machine, and its verification."""

import warnings

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

from fmnist_fast.data import fashion_mnist
from fmnist_fast.data.cache import (
    cache_path,
)
from fmnist_fast.data.datasets import load_dataset
from fmnist_fast.errors import DataError


def test_lookup_prefers_data_dir_to_environment(tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("FMNIST_FAST_DATA", str(write_folder(tmp_path / "wrong", random_arrays(1))))
    assert load_quietly("fashion-mnist", stand_in).name == "fashion-mnist"
    assert fashion_mnist.find_folder(stand_in) == stand_in


def test_lookup_warns_of_empty_folder_if_cached(tmp_path, stand_in):
    load_dataset("fashion-mnist", stand_in)
    with pytest.warns(UserWarning, match=f"{tmp_path} has no .*: using the copy in the user's"):
        load_dataset("fashion-mnist", tmp_path)


def test_lookup_falls_back_to_environment(tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("FMNIST_FAST_DATA", str(stand_in))
    arrays = fashion_mnist.read_folder(stand_in)
    assert same(arrays_of(load_quietly("fashion-mnist", tmp_path)), arrays)
    assert fashion_mnist.find_folder(tmp_path) == stand_in


def test_lookup_finds_earlier_download(stand_in, own_cache):
    stand_in.rename(own_cache / "fmnist-fast")
    for name in ("fashion-mnist", "auto"):
        assert load_quietly(name).checksum == fashion_mnist.CHECKSUM


def test_lookup_ignores_partial_download(stand_in, own_cache):
    stand_in.rename(own_cache / "fmnist-fast")
    assert fashion_mnist.find_folder() == own_cache / "fmnist-fast"
    (own_cache / "fmnist-fast" / list(fashion_mnist.FILES)[-1]).unlink()
    assert fashion_mnist.find_folder() is None


def test_lookup_finds_decoded_copy(tmp_path, stand_in):
    arrays = arrays_of(load_quietly("fashion-mnist", stand_in))
    stand_in.rename(tmp_path / "elsewhere")
    dataset = load_quietly("auto")
    assert same(arrays_of(dataset), arrays)
    assert dataset.name == "fashion-mnist"
    assert dataset.class_names == fashion_mnist.CLASS_NAMES
    assert fashion_mnist.find_folder() == cache_path(fashion_mnist.CACHE_KEY)


@pytest.mark.parametrize("data_dir", ["absent", "x" * 5000])
def test_lookup_error_names_remedy(tmp_path, data_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = error_message("fashion-mnist", tmp_path / data_dir)
    assert f"{data_dir} has no {FILE_NAMES[0]}" in message
    assert "127.0.0.1: ConnectionError" in message
    assert "--data-dir" in message


def test_load_auto_falls_back_to_synthetic_with_one_warning():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        dataset = load_dataset("auto")
    assert dataset.name == "synthetic"
    (warning,) = seen
    assert warning.category is UserWarning
    assert warning.filename == __file__
    message = str(warning.message)
    assert "\n" not in message
    assert "Fashion-MNIST could not be downloaded (127.0.0.1: ConnectionError" in message
    assert "Falling back to synthetic" in message


@pytest.mark.parametrize("place", ["named", "environment", "fetched before", "decoded before"])
def test_no_download_uses_local_files(stand_in, monkeypatch, never_fetched, place):
    folder = None
    if place == "named":
        folder = stand_in
    elif place == "environment":
        monkeypatch.setenv("FMNIST_FAST_DATA", str(stand_in))
    elif place == "fetched before":
        cache = fashion_mnist.cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        for path in stand_in.iterdir():
            (cache / path.name).write_bytes(path.read_bytes())
    else:
        load_dataset("fashion-mnist", stand_in)
    assert load_dataset("auto", folder, download=False).name == "fashion-mnist"


def test_no_download_does_not_complete_folder(stand_in, never_fetched):
    cache = fashion_mnist.cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    (cache / FILE_NAMES[0]).write_bytes((stand_in / FILE_NAMES[0]).read_bytes())
    with pytest.raises(DataError, match="'fmnist-fast data fetch' gets it"):
        load_dataset("fashion-mnist", download=False)
    with pytest.warns(UserWarning, match="not on this machine.*Falling back to synthetic"):
        assert load_dataset("auto", download=False).name == "synthetic"


@pytest.mark.parametrize("dataset", ["fashion-mnist", "auto"])
@pytest.mark.parametrize("decoded", [False, True], ids=["first use", "decoded before"])
@pytest.mark.parametrize("name", FILE_NAMES)
def test_verify_names_file_with_wrong_checksum(tmp_path, stand_in, name, decoded, dataset):
    if decoded:
        load_dataset("fashion-mnist", stand_in)
    other = write_folder(tmp_path / "mnist", random_arrays(seed=1, size=(28, 28)))
    (stand_in / name).write_bytes((other / name).read_bytes())
    message = error_message(dataset, stand_in)
    assert message.startswith(f"{stand_in / name} is not Fashion-MNIST's")
    assert f"--dataset {stand_in}" in message


def test_verify_finds_changed_bit_in_decoded_copy(stand_in):
    load_dataset("fashion-mnist", stand_in)
    folder = cache_path(fashion_mnist.CACHE_KEY)
    fashion_mnist.verify(folder)
    content = bytearray((folder / "x_train.npy").read_bytes())
    content[-1] ^= 1
    (folder / "x_train.npy").write_bytes(content)
    with pytest.raises(DataError, match="is damaged: the next use will make it again"):
        fashion_mnist.verify(folder)


def test_verify_accepts_published_files_only(real_folder, tmp_path):
    fashion_mnist.verify(real_folder)
    write_folder(tmp_path, random_arrays(size=(28, 28)))
    with pytest.raises(DataError, match="is not Fashion-MNIST's"):
        fashion_mnist.verify(tmp_path)

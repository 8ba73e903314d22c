"""Data sets by name, folder and .npz file; the cache of decoded sets; what is refused, and how."""

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_sets import FILE_NAMES, constants_for, idx_bytes, random_arrays, same, write_folder

from fmnist_fast.data import fashion_mnist, synthetic
from fmnist_fast.data.cache import (
    PARTIAL_COPY_SECONDS,
    Arrays,
    cache_path,
    compute_checksum,
    find_cached,
    load_or_create,
)
from fmnist_fast.data.datasets import Dataset, load_dataset
from fmnist_fast.errors import DataError

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
    """Below a regular file nobody can make a folder, not even root."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


def arrays_of(dataset: Dataset) -> Arrays:
    return Arrays(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)


def refusal(*arguments) -> str:
    """The message, once it is sure to be one line."""
    with pytest.raises(DataError) as caught:
        load_dataset(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def load_quietly(*arguments) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_dataset(*arguments)


# Names


@pytest.mark.parametrize("name", ["mnist", "Fashion-MNIST", "no/such/folder", "x" * 5000, "a\0b"])
def test_unknown_name_is_refused_with_what_there_is(name):
    message = refusal(name)
    assert repr(name) in message
    for choice in ("auto", "fashion-mnist", "synthetic", "folder", ".npz"):
        assert choice in message


def test_garments_are_those_drawn_and_the_same_from_the_cache(monkeypatch):
    drawn = Arrays(*synthetic.draw_synthetic())
    first = load_quietly("synthetic")
    monkeypatch.setattr(synthetic, "draw_synthetic", lambda: pytest.fail("drawn again"))
    second = load_quietly("synthetic")
    assert same(drawn, arrays_of(first))
    assert same(drawn, arrays_of(second))
    assert first.checksum == second.checksum == compute_checksum(drawn)
    assert second.class_names == fashion_mnist.CLASS_NAMES


def test_garments_of_another_version_do_not_come_from_the_cache(monkeypatch):
    load_dataset("synthetic")
    other = random_arrays()
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    monkeypatch.setattr(synthetic, "draw_synthetic", lambda: other)
    assert same(arrays_of(load_dataset("synthetic")), other)


@pytest.mark.parametrize("again", [False, True], ids=["first use", "later use"])
@pytest.mark.parametrize("kind", ["synthetic", "fashion-mnist", "folder", "npz"])
def test_arrays_are_read_only(kind, again, stand_in, small_npz):
    name = {"folder": stand_in, "npz": small_npz}.get(kind, kind)
    if again:
        load_dataset(name, stand_in)
    for array in arrays_of(load_dataset(name, stand_in)):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.filterwarnings("ignore:the decoded data set could not be kept")
def test_arrays_are_read_only_without_a_cache_too(unwritable_cache):
    assert not any(a.flags.writeable for a in arrays_of(load_dataset("synthetic")))


# Folders


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (5, 31), (1, 1)])
@pytest.mark.parametrize("classes", [1, 2, 10, 256])
@pytest.mark.parametrize("plain", [(), FILE_NAMES, FILE_NAMES[::2]], ids=["gzip", "plain", "mixed"])
def test_folder_of_any_size_and_number_of_classes(tmp_path, size, classes, plain):
    arrays = random_arrays(size=size, classes=classes)
    dataset = load_quietly(write_folder(tmp_path / "mine", arrays, plain))
    assert same(arrays_of(dataset), arrays)
    assert dataset.name == "mine"
    assert dataset.class_names == tuple(map(str, range(classes)))
    assert dataset.checksum == compute_checksum(arrays)


def test_labels_that_only_the_test_part_has_count_as_classes(tmp_path):
    arrays = random_arrays(classes=3)
    arrays.y_test[0] = 6
    assert len(load_dataset(write_folder(tmp_path, arrays)).class_names) == 7


def test_checksum_tells_sets_apart_by_content_alone(tmp_path):
    one = load_dataset(write_folder(tmp_path / "one", random_arrays(0)))
    copy = load_dataset(write_folder(tmp_path / "copy", random_arrays(0), plain=FILE_NAMES))
    other = load_dataset(write_folder(tmp_path / "other", random_arrays(1)))
    assert one.checksum == copy.checksum != other.checksum


def test_folder_with_the_content_of_fashion_mnist_goes_by_its_name(tmp_path, stand_in):
    arrays = fashion_mnist.read_folder(stand_in)
    dataset = load_dataset(write_folder(tmp_path / "mine", arrays, plain=FILE_NAMES))
    assert dataset.name == "fashion-mnist"
    assert dataset.class_names == fashion_mnist.CLASS_NAMES


@pytest.mark.parametrize("name", FILE_NAMES)
def test_folder_without_one_of_the_files_is_refused(tmp_path, name):
    folder = write_folder(tmp_path / "mine", random_arrays())
    (folder / name).unlink()
    message = refusal(folder)
    assert f"{folder} has no {name}, nor {name.removesuffix('.gz')}" in message


@pytest.mark.parametrize("name", FILE_NAMES)
def test_folder_with_a_damaged_file_is_refused_by_its_name(tmp_path, name):
    folder = write_folder(tmp_path / "mine", random_arrays())
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-9])
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize(("wrong", "name"), [("y_train", FILE_NAMES[1]), ("y_test", FILE_NAMES[3])])
def test_labels_that_do_not_match_the_images_are_refused_by_their_file(tmp_path, wrong, name):
    arrays = random_arrays()
    arrays = arrays._replace(**{wrong: getattr(arrays, wrong)[1:]})
    folder = write_folder(tmp_path / "mine", arrays)
    counts = {"y_train": "19 labels for 20 images", "y_test": "7 labels for 8 images"}
    assert f"{folder / name} has {counts[wrong]}" in refusal(folder)


def test_images_of_two_sizes_are_refused(tmp_path):
    arrays = random_arrays()._replace(x_test=random_arrays(size=(7, 7)).x_test)
    message = refusal(write_folder(tmp_path / "mine", arrays))
    assert "(6, 5)" in message
    assert "(7, 7)" in message


# .npz files


def write_npz(path: Path, save=np.savez, **changes) -> Path:
    save(path, **(random_arrays()._asdict() | changes))
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_npz_of_each_dtype(tmp_path, save, dtype):
    arrays = random_arrays()
    x_train, x_test = arrays.x_train.astype(dtype), arrays.x_test.astype(dtype)
    dataset = load_quietly(write_npz(tmp_path / "mine.npz", save, x_train=x_train, x_test=x_test))
    assert same(arrays_of(dataset), Arrays(x_train, arrays.y_train, x_test, arrays.y_test))
    assert dataset.name == "mine"


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, ">i4"])
def test_npz_with_labels_of_any_integer_type_in_a_row_or_a_column(tmp_path, dtype):
    arrays = random_arrays()
    y_train, y_test = arrays.y_train.astype(dtype)[:, None], arrays.y_test.astype(dtype)
    dataset = load_dataset(write_npz(tmp_path / "mine.npz", y_train=y_train, y_test=y_test))
    assert np.array_equal(dataset.y_train, arrays.y_train)
    assert np.array_equal(dataset.y_test, arrays.y_test)


def test_npz_of_a_table_in_fortran_order_with_more_in_it(tmp_path):
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
def test_npz_with_unusable_arrays_is_refused(tmp_path, changes, words):
    path = write_npz(tmp_path / "mine.npz", **changes)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert words in message


@pytest.mark.parametrize("absent", Arrays._fields)
def test_npz_without_one_of_the_arrays_is_refused(tmp_path, absent):
    path = tmp_path / "mine.npz"
    np.savez(path, **{k: v for k, v in random_arrays()._asdict().items() if k != absent})
    assert refusal(path).startswith(f"{path} has no array {absent}: it needs x_train, y_train")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_pickled_arrays_are_refused_and_not_run(tmp_path):
    trap = np.array([Touch(tmp_path / "trapped")], object)
    path = write_npz(tmp_path / "mine.npz", y_test=trap)
    assert str(path) in refusal(path)
    path.write_bytes(pickle.dumps(trap))
    assert "not an .npz file" in refusal(path)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("content", [b"", b"hello\n", idx_bytes(random_arrays().x_train)])
def test_file_of_another_kind_is_refused_with_what_is_needed(tmp_path, content):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{path} is not an .npz file")
    assert "y_test" in message


def test_lone_npy_file_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", random_arrays().x_train)
    assert "is not an .npz file" in refusal(tmp_path / "x.npy")


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
def test_npz_with_a_hostile_array_header_is_refused(tmp_path, header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in Arrays._fields:
            file.writestr(f"{name}.npy", content)
    assert str(path) in refusal(path)


def test_npz_whose_members_are_no_arrays_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in Arrays._fields:
            file.writestr(name, b"hello")
    assert str(path) in refusal(path)


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 99)], ids=["encrypted", "unknown"])
def test_npz_packed_in_a_way_that_is_not_read_is_refused(tmp_path, place, value):
    path = write_npz(tmp_path / "mine.npz")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + place] = value
    path.write_bytes(content)
    assert str(path) in refusal(path)


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
def test_damaged_npz_is_read_or_refused(tmp_path_factory, content, changes, length):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    mutated = bytearray(content)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    path.write_bytes(mutated[:length])
    try:
        load_dataset(path)
    except DataError:
        assert str(path) in refusal(path)


# Where Fashion-MNIST is found


def test_data_dir_comes_before_the_environment(tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("FMNIST_FAST_DATA", str(write_folder(tmp_path / "wrong", random_arrays(1))))
    assert load_quietly("fashion-mnist", stand_in).name == "fashion-mnist"
    assert fashion_mnist.find_folder(stand_in) == stand_in


def test_a_folder_without_the_files_is_mentioned_when_the_cache_serves(tmp_path, stand_in):
    load_dataset("fashion-mnist", stand_in)
    with pytest.warns(UserWarning, match=f"{tmp_path} has no .*: using the copy in the user's"):
        load_dataset("fashion-mnist", tmp_path)


def test_environment_serves_where_data_dir_is_empty(tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("FMNIST_FAST_DATA", str(stand_in))
    arrays = fashion_mnist.read_folder(stand_in)
    assert same(arrays_of(load_quietly("fashion-mnist", tmp_path)), arrays)
    assert fashion_mnist.find_folder(tmp_path) == stand_in


def test_fetched_files_in_the_cache_serve_without_network(stand_in, own_cache):
    stand_in.rename(own_cache / "fmnist-fast")
    for name in ("fashion-mnist", "auto"):
        assert load_quietly(name).checksum == fashion_mnist.CHECKSUM


def test_a_download_that_broke_off_is_not_the_set(stand_in, own_cache):
    stand_in.rename(own_cache / "fmnist-fast")
    assert fashion_mnist.find_folder() == own_cache / "fmnist-fast"
    (own_cache / "fmnist-fast" / list(fashion_mnist.FILES)[-1]).unlink()
    assert fashion_mnist.find_folder() is None


def test_decoded_copy_serves_without_its_source(tmp_path, stand_in):
    arrays = arrays_of(load_quietly("fashion-mnist", stand_in))
    stand_in.rename(tmp_path / "elsewhere")
    dataset = load_quietly("auto")
    assert same(arrays_of(dataset), arrays)
    assert dataset.name == "fashion-mnist"
    assert dataset.class_names == fashion_mnist.CLASS_NAMES
    assert fashion_mnist.find_folder() == cache_path(fashion_mnist.CACHE_KEY)


@pytest.mark.parametrize("data_dir", ["absent", "x" * 5000])
def test_named_set_that_cannot_be_had_is_an_error_that_says_what_to_do(tmp_path, data_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal("fashion-mnist", tmp_path / data_dir)
    assert f"{data_dir} has no {FILE_NAMES[0]}" in message
    assert "127.0.0.1: no connection" in message
    assert "--data-dir" in message


def test_auto_goes_on_with_garments_and_says_so_in_one_warning():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        dataset = load_dataset("auto")
    assert dataset.name == "synthetic"
    (warning,) = seen
    assert warning.category is UserWarning
    assert warning.filename == __file__
    message = str(warning.message)
    assert "\n" not in message
    assert "Fashion-MNIST could not be downloaded (127.0.0.1: no connection" in message
    assert "Falling back to synthetic" in message


@pytest.fixture
def never_fetched(monkeypatch):
    """Any way to the network fails loudly."""

    def forbidden(*_, **__):
        raise AssertionError("it tried to download")

    monkeypatch.setattr(fashion_mnist, "fetch", forbidden)


@pytest.mark.parametrize("place", ["named", "environment", "fetched before", "decoded before"])
def test_without_a_download_what_is_here_is_found(stand_in, monkeypatch, never_fetched, place):
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


def test_without_a_download_nothing_is_fetched_to_complete_a_folder(stand_in, never_fetched):
    cache = fashion_mnist.cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    (cache / FILE_NAMES[0]).write_bytes((stand_in / FILE_NAMES[0]).read_bytes())
    with pytest.raises(DataError, match="'fmnist-fast data fetch' gets it"):
        load_dataset("fashion-mnist", download=False)
    with pytest.warns(UserWarning, match="not on this machine.*Falling back to synthetic"):
        assert load_dataset("auto", download=False).name == "synthetic"


# Files and copies that are not what they should be


@pytest.mark.parametrize("dataset", ["fashion-mnist", "auto"])
@pytest.mark.parametrize("decoded", [False, True], ids=["first use", "decoded before"])
@pytest.mark.parametrize("name", FILE_NAMES)
def test_file_with_the_wrong_checksum_is_refused_by_name(
    tmp_path, stand_in, name, decoded, dataset
):
    if decoded:
        load_dataset("fashion-mnist", stand_in)
    other = write_folder(tmp_path / "mnist", random_arrays(seed=1, size=(28, 28)))
    (stand_in / name).write_bytes((other / name).read_bytes())
    message = refusal(dataset, stand_in)
    assert message.startswith(f"{stand_in / name} is not Fashion-MNIST's")
    assert f"--dataset {stand_in}" in message


def cut_array(folder):
    with open(folder / "x_test.npy", "r+b") as file:
        file.truncate(1000)


def change_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "array cut short": cut_array,
    "array empty": lambda folder: (folder / "y_train.npy").write_bytes(b""),
    "array overwritten": lambda folder: (folder / "y_train.npy").write_bytes(b"zeros" * 99),
    "array lost": lambda folder: (folder / "x_train.npy").unlink(),
    "checksum lost": lambda folder: (folder / "checksum").unlink(),
    "checksum cut short": lambda folder: (folder / "checksum").write_text("8294d2"),
    "checksum of other data": lambda folder: (folder / "checksum").write_text("x" * 64),
    "array changed": lambda folder: change_last_byte(folder / "x_train.npy"),
    "another array": lambda folder: shutil.copy(folder / "y_train.npy", folder / "x_train.npy"),
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_decoded_copy_is_made_again(damage):
    arrays = random_arrays(size=(28, 28))
    load_or_create("key", lambda: arrays)
    damage(cache_path("key"))
    assert find_cached("key") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, checksum = load_or_create("key", lambda: arrays)
    assert same(found, arrays)
    assert checksum == compute_checksum(arrays)
    assert same(find_cached("key")[0], arrays)
    assert os.listdir(cache_path("key").parent) == ["key"]


def test_verify_finds_a_changed_bit_in_the_decoded_copy(stand_in):
    load_dataset("fashion-mnist", stand_in)
    folder = cache_path(fashion_mnist.CACHE_KEY)
    fashion_mnist.verify(folder)
    content = bytearray((folder / "x_train.npy").read_bytes())
    content[-1] ^= 1
    (folder / "x_train.npy").write_bytes(content)
    with pytest.raises(DataError, match="is damaged: the next use will make it again"):
        fashion_mnist.verify(folder)


def test_cache_that_cannot_be_written_costs_one_warning(stand_in, unwritable_cache):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        dataset = load_dataset("fashion-mnist", stand_in)
    assert same(arrays_of(dataset), fashion_mnist.read_folder(stand_in))
    (warning,) = seen
    assert "could not be kept" in str(warning.message)
    assert "Not a directory" in str(warning.message)


def test_disk_that_fills_up_costs_one_warning_and_leaves_nothing(monkeypatch):
    def fail(file, array):
        file.write(bytes(10))
        raise OSError("100 requested and 10 written")  # what NumPy says, without an errno

    monkeypatch.setattr(np, "save", fail)
    with pytest.warns(UserWarning, match="100 requested and 10 written") as seen:
        found, _ = load_or_create("key", random_arrays)
    assert len(seen) == 1
    assert same(found, random_arrays())
    assert os.listdir(cache_path("key").parent) == []


# Several processes

PASS_FOR_FASHION_MNIST = """
import json, sys, warnings
from pathlib import Path
from fmnist_fast.data import fashion_mnist
from fmnist_fast.data.cache import compute_checksum
warnings.simplefilter("error")
folder, constants = sys.argv[1:]
for name, value in json.loads(constants).items():
    setattr(fashion_mnist, name, value)
"""

LOAD_AT_ONCE = """
print("ready", flush=True)
sys.stdin.readline()
print(compute_checksum(fashion_mnist.load(Path(folder))))
"""

STOP_AT_SYNC = """
import os, time
syncs = 0
sync = os.fsync
def stop(handle):
    global syncs
    sync(handle)
    syncs += 1
    if syncs == {last}:
        print("stopped", flush=True)
        time.sleep(60)
os.fsync = stop
fashion_mnist.load(Path(folder))
"""


def start(code: str, folder: Path) -> subprocess.Popen:
    names = ("FILES", "CHECKSUM", "CACHE_KEY")
    constants = json.dumps({name: getattr(fashion_mnist, name) for name in names})
    return subprocess.Popen(
        [sys.executable, "-c", PASS_FOR_FASHION_MNIST + code, str(folder), constants],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_decode_at_once_all_get_the_set(stand_in):
    processes = [start(LOAD_AT_ONCE, stand_in) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=30)
        assert (out.strip(), err) == (fashion_mnist.CHECKSUM, "")
    assert os.listdir(cache_path(fashion_mnist.CACHE_KEY).parent) == [fashion_mnist.CACHE_KEY]


# Four arrays, the checksum and their folder are synced, in this order, before the rename; then
# the folder above.
@pytest.mark.parametrize(("last", "whole"), [(1, False), (4, False), (6, False), (7, True)])
def test_kill_while_the_copy_is_written_leaves_it_whole_or_not_at_all(stand_in, last, whole):
    process = start(STOP_AT_SYNC.format(last=last), stand_in)
    assert process.stdout.readline() == "stopped\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = find_cached(fashion_mnist.CACHE_KEY)
    arrays = fashion_mnist.read_folder(stand_in)
    assert (kept is not None) == whole
    assert not whole or same(kept[0], arrays)
    assert same(arrays_of(load_quietly("fashion-mnist", stand_in)), arrays)
    assert same(find_cached(fashion_mnist.CACHE_KEY)[0], arrays)


# The real set


def test_published_files_pass_and_others_do_not(real_folder, tmp_path):
    fashion_mnist.verify(real_folder)
    write_folder(tmp_path, random_arrays(size=(28, 28)))
    with pytest.raises(DataError, match="is not Fashion-MNIST's"):
        fashion_mnist.verify(tmp_path)


def test_checksum_and_shapes_of_the_real_set(real_folder):
    dataset = load_quietly("fashion-mnist", real_folder)
    arrays = arrays_of(dataset)
    assert compute_checksum(arrays) == fashion_mnist.CHECKSUM == dataset.checksum
    assert [a.shape for a in arrays] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert {a.dtype for a in arrays} == {np.dtype(np.uint8)}
    assert np.bincount(dataset.y_test).tolist() == [1000] * 10


@pytest.mark.alone
def test_real_set_loads_in_an_instant_after_the_first_use(real_folder):
    load_dataset("fashion-mnist", real_folder)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        load_dataset("fashion-mnist")
        seconds.append(time.perf_counter() - began)
    assert min(seconds) <= 0.15


def test_drafts_of_killed_processes_are_removed_in_time(own_cache):
    drafts = own_cache / "fmnist-fast" / "decoded"
    for name, age in ((".old.abc", PARTIAL_COPY_SECONDS + 10), (".young.abc", 10)):
        (drafts / name).mkdir(parents=True)
        then = time.time() - age
        os.utime(drafts / name, (then, then))
    load_or_create("new", lambda: Arrays(*(np.zeros((1, 1), np.uint8) for _ in range(4))))
    assert not (drafts / ".old.abc").exists()
    assert (drafts / ".young.abc").exists()

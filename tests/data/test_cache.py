"""Cache of decoded data sets: damaged copies, full disks, concurrent and killed processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from idx_sets import arrays_of, load_quietly, random_arrays, same

from fmnist_fast.data import fashion_mnist
from fmnist_fast.data.cache import (
    PARTIAL_COPY_SECONDS,
    Arrays,
    cache_path,
    compute_checksum,
    find_cached,
    load_or_create,
)
from fmnist_fast.data.datasets import load_dataset


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
def test_cache_replaces_damaged_copy(damage):
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


def test_cache_unwritable_folder_gives_one_warning(stand_in, unwritable_cache):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        dataset = load_dataset("fashion-mnist", stand_in)
    assert same(arrays_of(dataset), fashion_mnist.read_folder(stand_in))
    (warning,) = seen
    assert "could not be kept" in str(warning.message)
    assert "Not a directory" in str(warning.message)


def test_cache_full_disk_warns_and_leaves_nothing(monkeypatch):
    def fail(path, array):
        Path(path).write_bytes(bytes(10))
        raise OSError("100 requested and 10 written")  # NumPy's message, without an errno

    monkeypatch.setattr(np, "save", fail)
    with pytest.warns(UserWarning, match="100 requested and 10 written") as seen:
        found, _ = load_or_create("key", random_arrays)
    assert len(seen) == 1
    assert same(found, random_arrays())
    assert os.listdir(cache_path("key").parent) == []


def test_cache_removes_partial_copies_by_age(own_cache):
    drafts = own_cache / "fmnist-fast" / "decoded"
    for name, age in ((".old.abc", PARTIAL_COPY_SECONDS + 10), (".young.abc", 10)):
        (drafts / name).mkdir(parents=True)
        then = time.time() - age
        os.utime(drafts / name, (then, then))
    load_or_create("new", lambda: Arrays(*(np.zeros((1, 1), np.uint8) for _ in range(4))))
    assert not (drafts / ".old.abc").exists()
    assert (drafts / ".young.abc").exists()


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


def test_cache_serves_concurrent_processes(stand_in):
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
def test_cache_write_is_atomic_under_kill(stand_in, last, whole):
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

"""Atomic writing of files, and checks before it."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from messages import raises_containing

from fmnist_fast import _files as files
from fmnist_fast._files import check_disk_space, free_name, write_atomically, write_somewhere
from fmnist_fast.errors import ArgumentError, UserError


def test_write_atomically_creates_and_replaces(tmp_path):
    path = tmp_path / "model"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["model"]


def test_write_atomically_new_file_has_default_mode(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "model", b"")
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_atomically_keeps_symbolic_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_write_atomically_failure_keeps_old_file_only(tmp_path, monkeypatch, failing):
    path = tmp_path / "model"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


def test_write_atomically_kill_leaves_complete_file(tmp_path):
    path = tmp_path / "model"
    code = (
        "import sys; from pathlib import Path; from fmnist_fast._files import write_atomically\n"
        "n = 0\n"
        "while True:\n"
        "    n = (n + 1) % 256; write_atomically(Path(sys.argv[1]), bytes([n]) * 300_000)\n"
    )
    for wait in (0.0, 0.003, 0.011, 0.02, 0.037):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
        while not path.exists():
            time.sleep(0.001)
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = path.read_bytes()
        assert content == content[:1] * 300_000


def test_write_somewhere_falls_back_to_temporary_folder(tmp_path, monkeypatch):
    fallback = tmp_path / "fallback"
    fallback.mkdir()
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(fallback))
    (fallback / "model").write_bytes(b"someone else's")
    place = write_somewhere(tmp_path / "no such folder" / "model", b"new")
    assert place == fallback / "model-2"
    assert place.read_bytes() == b"new"
    assert (fallback / "model").read_bytes() == b"someone else's"


def test_write_atomically_keeps_mode_of_replaced_file(tmp_path):
    path = tmp_path / "model"
    path.touch(mode=0o600)
    write_atomically(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_check_disk_space_limits_length_of_name(tmp_path):
    path = tmp_path / ("m" * files.MAX_NAME)
    check_disk_space(path, 1, "model")
    write_atomically(path, b"new")
    with pytest.raises(UserError, match="the name is too long"):
        check_disk_space(tmp_path / ("m" * (files.MAX_NAME + 1)), 1, "model")


def test_free_name_counts_up(tmp_path):
    path = tmp_path / "a.b"
    names = []
    for _ in range(3):
        free = free_name(path)
        free.touch()
        names.append(free.name)
    assert names == ["a.b", "a-2.b", "a-3.b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder: name a file in it"),
        ("no/such/file", "does not exist: create it"),
        ("plain/file", "does not exist: create it"),
    ],
)
def test_check_disk_space_rejects_folder_and_missing_parent(tmp_path, name, message):
    (tmp_path / "plain").touch()
    with pytest.raises(UserError, match=message):
        check_disk_space(tmp_path / name, 1, "model")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_check_disk_space_rejects_unwritable_folder():
    with pytest.raises(UserError, match=r"model /proc/self/x cannot be written: .*another folder"):
        check_disk_space(Path("/proc/self/x"), 1, "model")


def test_check_disk_space_rejects_full_disk(tmp_path):
    """A limit on file sizes simulates a disk with little free space."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from fmnist_fast.errors import ArgumentError, UserError\n"
        "from fmnist_fast._files import check_disk_space\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "check_disk_space(Path(sys.argv[1]), 999, 'model')\n"
        "try: check_disk_space(Path(sys.argv[1]), 1001, 'model')\n"
        "except UserError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True
    )
    assert "cannot be written: File too large: choose another folder" in ran.stdout, ran.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [None, 5, [], "", "a\0b"])
def test_to_path_names_invalid_argument(value):
    with raises_containing(ArgumentError, f"folder is {value!r}"):
        files.to_path(value, "folder")
    assert files.to_path(b"\xff", "folder") == Path("\udcff")


@pytest.mark.parametrize(("size", "text"), [(999, "999 B"), (4096, "4.1 kB"), (15e9, "15.0 GB")])
def test_check_disk_space_names_sizes_in_fitting_units(tmp_path, monkeypatch, size, text):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: (10**15, 0, size))
    with raises_containing(UserError, "model.bin takes 1.0 TB", f"and {text} are free there"):
        check_disk_space(tmp_path / "model.bin", 10**12, "model")


def test_check_disk_space_on_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: (10**9, 10**9, 0))
    with raises_containing(UserError, "no space is left there: choose another folder"):
        check_disk_space(tmp_path / "model.bin", 1, "model")


def test_replaced_names_target_of_errors(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        files.write_atomically(tmp_path / "no" / "file", b"")
    assert caught.value.filename == str(tmp_path / "no" / "file")
    with pytest.raises(OSError, match="No space left") as full, files.replaced(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_replaced_survives_power_failure(tmp_path, monkeypatch):
    """Content that was not synced before the rename, and a rename that was not, may be lost."""
    calls = []
    true_sync, true_replace = os.fsync, os.replace

    def sync(handle):
        true_sync(handle)
        calls.append(("sync", Path(f"/proc/self/fd/{handle}").resolve()))

    def replace(source, target):
        calls.append(("synced content", Path(source).read_bytes()))
        true_replace(source, target)
        calls.append(("rename", Path(target)))

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell the names of open files")
    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_atomically(tmp_path / "model", b"whole")
    (first, temporary), content, *rest = calls
    assert (first, temporary.parent, content) == ("sync", tmp_path, ("synced content", b"whole"))
    assert rest == [("rename", tmp_path / "model"), ("sync", tmp_path)]

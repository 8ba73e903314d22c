"""Worker pool: only Dask schedulers are connected to, and nothing is left behind."""

import os
import socket
import time
from contextlib import suppress
from threading import Thread

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")
pytest.importorskip("distributed", reason="Dask is not installed")

from messages import assert_one_line
from sweeps import make_config, pool_for

from fmnist_fast.distributed.worker_pool import open_pool
from fmnist_fast.errors import ClusterError


def check_is_refused(address):
    """Opening a pool there is an error of one line."""
    with pytest.raises(ClusterError) as caught, open_pool(address, 1, {}, lambda *_: {}):
        pass
    assert_one_line(str(caught.value), f"no Dask scheduler answers at {address}")


def test_local_pool_restores_environment(small_dataset, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    before = dict(os.environ)
    with pool_for(make_config(small_dataset)) as pool:
        pool.refresh(now=True)
        assert pool.slots == 1
    assert dict(os.environ) == before


def test_worker_is_refused_as_scheduler(small_dataset):
    with pool_for(make_config(small_dataset)) as pool:
        pool.refresh(now=True)
        check_is_refused(next(iter(pool.threads)))


def test_missing_scheduler_is_refused(monkeypatch):
    monkeypatch.setattr("fmnist_fast.distributed.worker_pool.CONNECT_SECONDS", 0.5)
    check_is_refused("tcp://127.0.0.1:9")


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
def test_program_that_is_no_scheduler_is_refused(greeting, monkeypatch):
    """Dask's own client would wait for it for ever, or ask for 8 EB of memory."""
    monkeypatch.setattr("fmnist_fast.distributed.worker_pool.CONNECT_SECONDS", 1.0)
    connections = []

    def greet():
        with suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                connections[-1].sendall(greeting)

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=greet, daemon=True).start()
        start = time.monotonic()
        check_is_refused(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - start < 10
    for connection in connections:
        connection.close()

"""Worker pool: addresses that are rejected, and restoration of the environment."""

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


def check_open_pool_fails(address):
    """Check that opening a pool at the address is a one-line error."""
    with pytest.raises(ClusterError) as caught, open_pool(address, 1, {}, lambda *_: {}):
        pass
    assert_one_line(str(caught.value), f"no Dask scheduler answers at {address}")


def test_open_pool_local_restores_environment(small_dataset, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    before = dict(os.environ)
    with pool_for(make_config(small_dataset)) as pool:
        pool.refresh(now=True)
        assert pool.slots == 1
    assert dict(os.environ) == before


def test_open_pool_rejects_worker_as_scheduler(small_dataset):
    with pool_for(make_config(small_dataset)) as pool:
        pool.refresh(now=True)
        check_open_pool_fails(next(iter(pool.threads)))


def test_open_pool_rejects_missing_scheduler(monkeypatch):
    monkeypatch.setattr("fmnist_fast.distributed.worker_pool.CONNECT_SECONDS", 0.5)
    check_open_pool_fails("tcp://127.0.0.1:9")


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
def test_open_pool_rejects_server_that_is_no_scheduler(greeting, monkeypatch):
    """Dask's client would wait without end, or allocate 8 EB."""
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
        check_open_pool_fails(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - start < 10
    for connection in connections:
        connection.close()

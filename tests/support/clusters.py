"""Processes of a Dask scheduler and of its workers, started by their command line."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager


@contextmanager
def dask_process(kind, *arguments, **environment):
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def dask_worker(address, *options, **environment):
    arguments = "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"
    with dask_process(*arguments, *options, **environment) as process:
        yield process


@contextmanager
def dask_scheduler(tmp_path):
    """Yield the process and the address of a scheduler."""
    place = tmp_path / "scheduler.json"
    arguments = "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
    with dask_process(*arguments, "--scheduler-file", str(place)) as process:
        deadline = time.monotonic() + 300
        while not place.exists() or not place.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, json.loads(place.read_text())["address"]


def wait_for_workers(pool, count, key=lambda pool: pool.slots):
    deadline = time.monotonic() + 300
    while key(pool) < count:
        assert time.monotonic() < deadline
        pool.refresh(now=True)
        time.sleep(0.1)

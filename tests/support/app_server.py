"""The app as `fmnist-fast app` serves it, in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]

# Limit of every wait, in seconds: machines may be slow.
TIMEOUT = 300


@contextmanager
def served(folder: Path, changes: Mapping[str, str] = {}) -> Iterator[str]:
    """Start the app in the folder, yield its address, and end it by Ctrl-C without a traceback.

    changes : of the environment; a variable that is empty is not set.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    server = subprocess.Popen(
        [sys.executable, "-m", "fmnist_fast", "app", "--port", str(port), "--no-browser"],
        cwd=folder,
        env={name: text for name, text in environment.items() if text},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for_health(server, url)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=TIMEOUT)
    assert url in out
    assert "Traceback" not in out


def _wait_for_health(server: subprocess.Popen, url: str) -> None:
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            with urlopen(f"{url}/_stcore/health", timeout=TIMEOUT) as response:
                assert response.read() == b"ok"
            return
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)

"""Loaded by the processes that a command starts: Ctrl-C, which a terminal sends to all of them, is
for the command, which ends them when their work is put in order.
"""

import signal
from typing import Any

__all__ = ["dask_setup"]


def dask_setup(worker: Any) -> None:
    """Called by Dask in the main thread of a worker that begins."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

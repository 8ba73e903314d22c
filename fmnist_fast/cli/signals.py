"""Ctrl-C, SIGTERM and a closed terminal, for commands that save their work before they end."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .terminal import discard_closed

SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none

# Signals that stop a command, with the exit code 128 + number.
STOP_SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, SIGHUP)))


@contextmanager
def catch_stop_signals() -> Iterator[list[int]]:
    """Collect the stop signals in the list that is yielded, for the work to poll.

    A save in progress is completed. After a signal, later ones are ignored. SIGHUP remains ignored
    where it is, as under nohup.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        discard_closed(sys.stdout, sys.stderr)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    if SIGHUP and before[SIGHUP] == signal.SIG_IGN:
        signal.signal(SIGHUP, signal.SIG_IGN)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if received else handler)

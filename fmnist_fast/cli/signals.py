"""Ctrl-C and kill, for commands that put things in order before they end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["stoppable"]

# Signals that stop a command; the exit code is then 128 and their number.
STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Within, the signals of Ctrl-C and of kill come into the list that is given, nothing more:
    the work looks there now and then, and what is being saved is saved.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in STOPPING
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if received else handler)

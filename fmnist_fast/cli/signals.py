"""Ctrl-C and SIGTERM, for commands that save their work before they end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

# Signals that stop a command, with the exit code 128 + number.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def catch_stop_signals() -> Iterator[list[int]]:
    """Collect the stop signals in the list that is yielded, for the work to poll.

    A save in progress is completed. After a signal, later ones are ignored.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in STOP_SIGNALS
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if received else handler)

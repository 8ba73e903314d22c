"""Signals of a terminal, which reach all processes of a command."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType


@contextmanager
def terminal_signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGHUP for processes that are started within, and here until the end.

    A terminal sends them to all processes of a command, and this one stops the others. Signals
    that arrive meanwhile are delivered after.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    signals = {signal.SIGINT, signal.SIGHUP}
    received: list[int] = []

    def defer(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    # Other threads do not block them, and Python runs handlers in the main thread all the same.
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, defer) for number in signals} if main else {}
    try:
        # It unblocks SIGINT in the thread that starts it, which the first process would do.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for caught in received:
            signal.raise_signal(caught)

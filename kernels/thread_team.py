"""Team of threads for one call of a kernel. Concurrent calls have separate teams."""

import threading
from collections.abc import Callable

from .._cpu import affinity


def have_cores(threads: int) -> bool:
    """Return whether so many threads can run at once; if not, waiting threads must not spin."""
    return threads <= affinity()


def run_team(job: Callable[[int], object], threads: int) -> None:
    """Run job(0) in this thread and job(1), job(2), ... in threads of their own; wait for all.

    No job begins before all threads have started: jobs wait for each other at a barrier, where a
    thread that failed to start would never arrive.
    """
    if threads == 1:
        job(0)
        return
    start = threading.Event()
    cancelled: list[bool] = []

    def worker(thread: int) -> None:
        start.wait()
        if not cancelled:
            job(thread)

    workers = [threading.Thread(target=worker, args=(n,), daemon=True) for n in range(1, threads)]
    started = []
    try:
        for thread in workers:
            thread.start()
            started.append(thread)
        start.set()
    except BaseException:
        cancelled.append(True)
        start.set()
        raise
    job(0)
    for thread in started:
        thread.join()

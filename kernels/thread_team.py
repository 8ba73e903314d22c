"""The threads of a call: a team for each, so that calls do not wait for each other."""

import os
import threading
from collections.abc import Callable


def have_cores(threads: int) -> bool:
    """Whether so many threads can run at once; else those that wait must not spin."""
    if hasattr(os, "sched_getaffinity"):
        return threads <= len(os.sched_getaffinity(0))
    return threads <= (os.cpu_count() or 1)


def run_team(job: Callable[[int], object], threads: int) -> None:
    """job(0) here and job(1), job(2), ... on threads of their own; returns when all are done.

    Nobody begins before all threads exist: they wait for each other, so that one that could not be
    started would be waited for forever.
    """
    if threads == 1:
        job(0)
        return
    go = threading.Event()
    cancelled: list[bool] = []

    def helper(thread: int) -> None:
        go.wait()
        if not cancelled:
            job(thread)

    helpers = [threading.Thread(target=helper, args=(n,), daemon=True) for n in range(1, threads)]
    started = []
    try:
        for thread in helpers:
            thread.start()
            started.append(thread)
        go.set()
    except BaseException:
        cancelled.append(True)
        go.set()
        raise
    job(0)
    for thread in started:
        thread.join()

"""Compilation of the functions that Python calls: its notice, and its cache on disk."""

import hashlib
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import numba
from numba.core import event

if vars(numba.config)["DISABLE_JIT"]:
    raise ImportError("NUMBA_DISABLE_JIT is set, and these kernels only run compiled")

# "contract" allows a x + b in one instruction, rounded once; no other rule of floating-point
# arithmetic is relaxed.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

# Numba discards a cache if the function's own file has changed since, but code from several files
# is inlined. So the name of a function, and with it of its cache, has a digest of all of them.
FILES = [Path(__file__).parents[1] / "interface.py", *sorted(Path(__file__).parent.glob("*.py"))]
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in FILES)).hexdigest()[:12]


_began: list[float] = []  # start times of the compilations in progress
_ready: dict[tuple, Any] = {}  # compiled functions, by name and key


def compiling_seconds():
    """Return how long kernels have been compiling; None if none are."""
    return next((monotonic() - began for began in _began), None)


def compiled_for(function, key, *arguments):
    """Return a function compiled for these arguments, or read from the cache on disk.

    Call it before starting the threads that run the function. `key` determines the types of the
    arguments; asking Numba for them at every call would take longer.
    """
    key = function.__name__, key
    if key not in _ready:
        types = tuple(numba.typeof(argument) for argument in arguments)
        # In another thread, which Ctrl-C does not interrupt: leaving the block waits for its end.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_compile, function, key, types).result()
    return _ready[key]


def _compile(function, key, types):
    function.__qualname__ = f"{function.__name__}_{DIGEST}"
    kernel = numba.njit(function, **OPTIONS)
    with event.install_listener("numba:compile", _CompileNotice()):
        try:
            kernel.enable_caching()
            kernel.compile(types)
        except Exception as error:  # what a damaged cache raises is not documented
            if types not in kernel.overloads:  # reading failed, not writing
                # Without the cache. If the cache was not the cause, this raises the error again.
                kernel = numba.njit(function, **OPTIONS)
                kernel.compile(types)
            _warn_once(str(error))
        finally:
            _began.clear()
    _ready[key] = kernel


class _CompileNotice(event.RecordingListener):
    """Logs that functions are being compiled; not called for those read from the cache."""

    def on_start(self, event):
        _began.append(monotonic())
        if len(_began) == 1:
            logging.getLogger(__name__).warning("compiling the Numba kernels, once: some 10 s")


@cache
def _warn_once(problem):
    what = "Numba's kernels are compiled again in every process: their cache on disk has failed"
    warnings.warn(f"{what}: {problem}; set NUMBA_CACHE_DIR to a new, writable folder", stacklevel=2)

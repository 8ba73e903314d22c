"""Selection of a backend by name. The only module that names a kernel module."""

import sys
from importlib import import_module
from typing import Any, cast

from ..errors import ArgumentError, BackendUnavailable
from ..kernels.interface import Backend, NetworkSpec

_PACKAGE = "fmnist_fast.kernels."

# Name -> kernel module, fastest first: "auto" takes the first that is available.
BACKEND_MODULES = {
    "cython": "cython_backend.dispatch",
    "numba": "numba_backend",
    "numpy": "reference",
}
BACKEND_NAMES = tuple(BACKEND_MODULES)

INSTALL_HINTS = {
    "cython": "Install a C compiler and Python's headers, then reinstall fmnist-fast.",
    "numba": "Install it: pip install 'fmnist-fast[numba]'.",
    "numpy": "Reinstall fmnist-fast and NumPy.",
}


def get_backend(name: str = "auto", spec: NetworkSpec | None = None) -> Backend:
    """Return the kernel module of a backend.

    Parameters
    ----------
    name : str
        A name of `BACKEND_NAMES`, which is never replaced by another backend; or "auto", the
        fastest backend that is available.
    spec : NetworkSpec, optional
        Options that the backend must support.

    Raises
    ------
    BackendUnavailable
        If the backend is unknown, cannot be loaded, or does not support the spec.
    """
    if isinstance(name, str) and name == "auto":
        available = (known for known in BACKEND_NAMES if unavailable_reason(known, spec) is None)
        # If none is available, the error below names what the slowest one lacks.
        name = next(available, BACKEND_NAMES[-1])
    if not isinstance(name, str) or name not in BACKEND_MODULES:
        raise BackendUnavailable(
            f"unknown backend {name!r}: choose from auto, {', '.join(BACKEND_NAMES)}"
        )
    reason = unavailable_reason(name, spec)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} {reason}")
    return _load(name)


def unavailable_reason(name: str, spec: NetworkSpec | None = None) -> str | None:
    """Return why a backend cannot be loaded or what it lacks of the spec; None if usable."""
    if name not in BACKEND_MODULES:
        return "does not exist in this version"
    try:
        backend = _load(name)
    except ImportError as error:
        hint = f". {INSTALL_HINTS[name]}" if isinstance(error, ModuleNotFoundError) else ""
        return f"cannot be loaded: {error}{hint}"
    if spec is None:
        return None
    for option, choices in backend.SUPPORTS.items():
        value = getattr(spec, option)
        if value not in choices:
            return f"has no {option} {value!r}: choose from {', '.join(choices)}, or backend 'auto'"
    return None


def backend_name(backend: Backend) -> str:
    """Return the name of a kernel module."""
    module = cast(Any, backend).__name__.removeprefix(_PACKAGE)
    return next(name for name, known in BACKEND_MODULES.items() if known == module)


def instruction_set_of(backend: Backend) -> str | None:
    """Return the instruction set that compiled kernels use; None if the backend has no choice."""
    return cast(str | None, getattr(backend, "instruction_set", lambda: None)())


def compiling_seconds() -> float | None:
    """Return for how long kernels have been compiling in this process; None if none are."""
    numba_backend = sys.modules.get(_PACKAGE + BACKEND_MODULES["numba"])
    return cast(Any, numba_backend).compiling_seconds() if numba_backend else None


def phase_or_compilation(phase: str) -> str:
    """Return the description of a phase; while kernels are being compiled, one of that instead."""
    seconds = compiling_seconds()
    return phase if seconds is None else f"compiling the Numba kernels, once: {seconds:.0f} s"


def _load(name: str) -> Backend:
    try:
        return cast(Backend, import_module(f"{_PACKAGE}{BACKEND_MODULES[name]}"))
    except ValueError as error:  # an invalid value in an environment variable
        raise ArgumentError(str(error)) from error

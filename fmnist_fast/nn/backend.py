"""The switch: which kernels compute. The only module that names a kernel module."""

from importlib import import_module
from typing import Any, cast

from ..errors import ArgumentError, BackendUnavailable
from ..kernels.interface import Backend, NetworkSpec

__all__ = [
    "BACKEND_NAMES",
    "Backend",
    "get_backend",
    "instruction_set_of",
    "backend_name",
    "unavailable_reason",
]

_PACKAGE = "fmnist_fast.kernels."

# Name -> kernel module, fastest first: "auto" takes the first that loads.
_MODULES = {
    "cython": "cython_backend.dispatch",
    "numba": "numba_backend",
    "numpy": "reference",
}
BACKEND_NAMES = tuple(_MODULES)

_HINT = {
    "cython": "Install a C compiler and Python's headers, then reinstall fmnist-fast.",
    "numba": "Install it: pip install 'fmnist-fast[numba]'.",
    "numpy": "Reinstall fmnist-fast and NumPy.",
}


def get_backend(name: str = "auto", spec: NetworkSpec | None = None) -> Backend:
    """The kernel module called `name`; "auto" takes the fastest that loads and has the spec.

    spec : what the backend must have; None asks for nothing.
    Raises: BackendUnavailable, naming what is missing. A backend that was named is never replaced
    by another.
    """
    if name == "auto":
        fitting = (known for known in BACKEND_NAMES if unavailable_reason(known, spec) is None)
        name = next(fitting, BACKEND_NAMES[-1])  # whose error says what none of them has
    if name not in _MODULES:
        raise BackendUnavailable(
            f"unknown backend {name!r}: choose from auto, {', '.join(BACKEND_NAMES)}"
        )
    reason = unavailable_reason(name, spec)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} {reason}")
    return _load(name)


def unavailable_reason(name: str, spec: NetworkSpec | None = None) -> str | None:
    """Why the backend cannot be loaded, or what it lacks of the spec; None if it can be used."""
    if name not in _MODULES:
        return "this version does not have"
    try:
        backend = _load(name)
    except ImportError as error:
        hint = f". {_HINT[name]}" * isinstance(error, ModuleNotFoundError)
        return f"cannot be loaded: {error}{hint}"
    for option, choices in backend.SUPPORTS.items() if spec else ():
        value = getattr(spec, option)
        if value not in choices:
            return (
                f"has no {option} {value!r}: it has {', '.join(choices)}; auto takes one that has"
            )
    return None


def backend_name(backend: Backend) -> str:
    """The name that get_backend knows this kernel module by."""
    module = cast(Any, backend).__name__.removeprefix(_PACKAGE)
    return next(name for name, known in _MODULES.items() if known == module)


def instruction_set_of(backend: Backend) -> str | None:
    """The instruction set that compiled kernels use here; None where the backend has no choice."""
    chosen: str | None = getattr(backend, "instruction_set", lambda: None)()
    return chosen


def _load(name: str) -> Backend:
    try:
        return cast(Backend, import_module(f"{_PACKAGE}{_MODULES[name]}"))
    except ValueError as error:  # a wish in the environment that cannot be fulfilled
        raise ArgumentError(str(error)) from error

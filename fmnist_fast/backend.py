"""The switch: which kernels compute. The only module that names a kernel module."""

from importlib import import_module
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from .errors import ArgumentError, BackendUnavailable
from .kernels import Data, Drop, Floats, Layers, Spec, State, StepNumbers, Steps

__all__ = ["NAMES", "Backend", "get_backend", "instruction_set_of", "name_of", "unavailable"]

# Name -> kernel module, fastest first: "auto" takes the first that loads.
_MODULES = {
    "cython": "compiled",
    "numba": "jit",
    "numpy": "reference",
}
NAMES = tuple(_MODULES)

_HINT = {
    "cython": "Install a C compiler and Python's headers, then reinstall fmnist-fast.",
    "numba": "Install it: pip install 'fmnist-fast[numba]'.",
    "numpy": "Reinstall fmnist-fast and NumPy.",
}


class Backend(Protocol):
    """The operations of a kernel module. `kernels/reference.py` specifies what each computes."""

    SUPPORTS: dict[str, tuple[str, ...]]

    def gather(
        self, x_ni: NDArray, order_n: NDArray, first: int, last: int, scale: float, out_bi: Floats
    ) -> None: ...

    def forward(
        self,
        params: Layers,
        x_bi: Floats,
        spec: Spec,
        out_layers: tuple[Floats, ...],
        drop: Drop | None = None,
    ) -> None: ...

    def loss_delta(
        self,
        logits_bk: Floats,
        targets_b: NDArray,
        weights_b: Floats,
        spec: Spec,
        out_loss_b: Floats,
        out_delta_bk: Floats,
    ) -> None: ...

    def backward(
        self,
        params: Layers,
        x_bi: Floats,
        layers: tuple[Floats, ...],
        delta_bk: Floats,
        spec: Spec,
        out_grads: Layers,
        drop: Drop | None = None,
    ) -> None: ...

    def update(self, state: State, grads: Layers, numbers: StepNumbers, spec: Spec) -> None: ...

    def train_steps(
        self,
        state: State,
        data: Data,
        order_n: NDArray,
        steps: Steps,
        spec: Spec,
        first: int,
        last: int,
        threads: int,
    ) -> NDArray: ...

    def predict(
        self,
        params: Layers,
        x_ni: NDArray,
        scale: float,
        spec: Spec,
        threads: int,
        out_nk: Floats,
    ) -> None: ...


def get_backend(name: str = "auto", spec: Spec | None = None) -> Backend:
    """The kernel module called `name`; "auto" takes the fastest that loads and has the spec.

    spec : what the backend must have; None asks for nothing.
    Raises: BackendUnavailable, naming what is missing. A backend that was named is never replaced
    by another.
    """
    if name == "auto":
        fitting = (known for known in NAMES if unavailable(known, spec) is None)
        name = next(fitting, NAMES[-1])  # whose error says what none of them has
    if name not in _MODULES:
        raise BackendUnavailable(f"unknown backend {name!r}: choose from auto, {', '.join(NAMES)}")
    reason = unavailable(name, spec)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} {reason}")
    return _load(name)


def unavailable(name: str, spec: Spec | None = None) -> str | None:
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


def name_of(backend: Backend) -> str:
    """The name that get_backend knows this kernel module by."""
    module = cast(Any, backend).__name__.rpartition(".")[2]
    return next(name for name, known in _MODULES.items() if known == module)


def instruction_set_of(backend: Backend) -> str | None:
    """The instruction set that compiled kernels use here; None where the backend has no choice."""
    chosen: str | None = getattr(backend, "instruction_set", lambda: None)()
    return chosen


def _load(name: str) -> Backend:
    try:
        return cast(Backend, import_module(f".kernels.{_MODULES[name]}", __package__))
    except ValueError as error:  # a wish in the environment that cannot be fulfilled
        raise ArgumentError(str(error)) from error

"""Selection of a backend: a named backend is that one or an error; all keep the contract."""

import inspect
import os
import subprocess
import sys

import pytest
from messages import assert_one_line

from fmnist_fast.errors import BackendUnavailable
from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import SUPPORTS, NetworkSpec
from fmnist_fast.nn import backend as backends
from fmnist_fast.nn.backend import Backend, backend_name, get_backend, unavailable_reason


def operations() -> dict:
    return {
        name: member
        for name, member in vars(Backend).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


@pytest.fixture
def backend_not_built(monkeypatch):
    """A backend `fast` whose module does not exist, before the reference."""
    modules = {"fast": "not_built", "numpy": "reference"}
    monkeypatch.setattr(backends, "BACKEND_MODULES", modules)
    monkeypatch.setattr(backends, "BACKEND_NAMES", tuple(modules))
    monkeypatch.setattr(backends, "INSTALL_HINTS", {"fast": "Build it."})


def test_get_backend_auto_takes_first_available(backend_not_built):
    assert get_backend() is reference


def test_get_backend_auto_takes_one_supporting_spec(monkeypatch):
    for name in backends.BACKEND_NAMES[:-1]:
        if unavailable_reason(name) is None:
            narrowed = SUPPORTS | {"dtype": ("float32",)}
            monkeypatch.setattr(get_backend(name), "SUPPORTS", narrowed)
    assert get_backend("auto", NetworkSpec((2, 3), dtype="float64")) is reference
    with pytest.raises(BackendUnavailable, match="dtype 'float16'"):
        get_backend("auto", NetworkSpec((2, 3), dtype="float16"))


def test_backend_supports_all_options(backend):
    assert backend.SUPPORTS == SUPPORTS
    assert reference.SUPPORTS == SUPPORTS


def test_info_rejects_unknown_instruction_set_variable():
    pytest.importorskip(
        "fmnist_fast.kernels.cython_backend.dispatch", reason="the cython backend is not built"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "fmnist_fast", "info"],
        env={**os.environ, "FMNIST_FAST_ISA": "sse9"},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert_one_line(ran.stderr, "FMNIST_FAST_ISA", "sse9")


def test_get_backend_named_never_falls_back(backend_not_built):
    assert "not_built" in (unavailable_reason("fast") or "")
    with pytest.raises(BackendUnavailable) as raised:
        get_backend("fast")
    assert_one_line(str(raised.value), "'fast' cannot be loaded", "not_built", "Build it")


def test_get_backend_unknown_name_lists_known():
    with pytest.raises(BackendUnavailable) as raised:
        get_backend("jax")
    assert_one_line(str(raised.value), "'jax'", "choose from auto, cython, numba, numpy")


@pytest.mark.parametrize("name", backends.BACKEND_NAMES)
def test_backend_implements_protocol_signatures(name):
    if unavailable_reason(name):
        pytest.skip(f"{name} {unavailable_reason(name)}")
    module = get_backend(name)
    assert backend_name(module) == name
    assert operations().keys() >= {"gather_batch", "forward", "train_steps", "predict"}
    for operation, declared in operations().items():
        expected = [p for p in inspect.signature(declared).parameters if p != "self"]
        if operation == "train_steps" and name != "numpy":
            expected.append("seconds_tp")
        parameters = inspect.signature(getattr(module, operation)).parameters
        assert list(parameters) == expected


@pytest.mark.parametrize("name", backends.BACKEND_NAMES)
def test_backend_has_install_hint(name):
    assert backends.INSTALL_HINTS[name].endswith(".")


def test_compiling_seconds_is_none_without_numba(monkeypatch):
    monkeypatch.delitem(sys.modules, "fmnist_fast.kernels.numba_backend", raising=False)
    assert backends.compiling_seconds() is None

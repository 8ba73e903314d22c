"""The switch: a named backend is that one or an error, and every backend keeps the contract."""

import inspect
import os
import subprocess
import sys

import pytest

from fmnist_fast.errors import BackendUnavailable
from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import SUPPORTS, NetworkSpec
from fmnist_fast.nn import backend as switch
from fmnist_fast.nn.backend import Backend, backend_name, get_backend, unavailable_reason


def operations() -> dict:
    return {
        name: member
        for name, member in vars(Backend).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_auto_takes_the_first_that_loads(monkeypatch):
    monkeypatch.setattr(switch, "_MODULES", {"fast": "not_built", "numpy": "reference"})
    monkeypatch.setattr(switch, "BACKEND_NAMES", ("fast", "numpy"))
    monkeypatch.setattr(switch, "_HINT", {"fast": "Build it."})
    assert get_backend() is reference


def test_auto_takes_one_that_has_the_spec(monkeypatch):
    for name in switch.BACKEND_NAMES[:-1]:
        if unavailable_reason(name) is None:
            narrowed = SUPPORTS | {"dtype": ("float32",)}
            monkeypatch.setattr(get_backend(name), "SUPPORTS", narrowed)
    assert get_backend("auto", NetworkSpec((2, 3), dtype="float64")) is reference
    with pytest.raises(BackendUnavailable, match="has no dtype 'float16'"):
        get_backend("auto", NetworkSpec((2, 3), dtype="float16"))


def test_every_backend_has_all_that_the_reference_has_but_numba_no_sparse_rows(backend):
    lacks = {"input_format": ("dense",)} if backend_name(backend) == "numba" else {}
    assert {**reference.SUPPORTS, **lacks} == backend.SUPPORTS


def test_an_instruction_set_that_cannot_be_had_is_an_error_and_no_other_is_taken():
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
    assert "FMNIST_FAST_ISA is 'sse9'" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_named_backend_never_falls_back(monkeypatch):
    monkeypatch.setattr(switch, "_MODULES", {"fast": "not_built", "numpy": "reference"})
    monkeypatch.setattr(switch, "_HINT", {"fast": "Build it."})
    assert "not_built" in (unavailable_reason("fast") or "")
    with pytest.raises(BackendUnavailable, match=r"'fast' cannot be loaded: .*not_built.*Build it"):
        get_backend("fast")


def test_an_unknown_backend_is_told_the_known_ones():
    with pytest.raises(
        BackendUnavailable, match=r"unknown backend 'jax': choose from auto, cython, numba, numpy"
    ):
        get_backend("jax")


@pytest.mark.parametrize("name", switch.BACKEND_NAMES)
def test_every_backend_has_the_operations_of_the_protocol_with_their_arguments(name):
    if unavailable_reason(name):
        pytest.skip(f"{name} {unavailable_reason(name)}")
    module = get_backend(name)
    assert backend_name(module) == name
    assert operations().keys() >= {"gather_batch", "forward", "train_steps", "predict"}
    for operation, declared in operations().items():
        expected = [p for p in inspect.signature(declared).parameters if p != "self"]
        parameters = inspect.signature(getattr(module, operation)).parameters
        assert list(parameters)[: len(expected)] == expected
        more = list(parameters.values())[len(expected) :]
        assert all(parameter.default is None for parameter in more)  # what nobody must give


@pytest.mark.parametrize("name", switch.BACKEND_NAMES)
def test_every_backend_has_a_hint_for_those_who_lack_it(name):
    assert switch._HINT[name].endswith(".")

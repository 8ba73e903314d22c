"""The switch: a named backend is that one or an error, and every backend keeps the contract."""

import inspect

import pytest

from fmnist_fast import backend as switch
from fmnist_fast.backend import Backend, get_backend, name_of, unavailable
from fmnist_fast.errors import BackendUnavailable
from fmnist_fast.kernels import reference


def operations() -> dict:
    return {
        name: member
        for name, member in vars(Backend).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_auto_takes_the_first_that_loads(monkeypatch):
    monkeypatch.setattr(switch, "_MODULES", {"fast": "not_built", "numpy": "reference"})
    monkeypatch.setattr(switch, "NAMES", ("fast", "numpy"))
    assert get_backend() is reference


def test_a_named_backend_never_falls_back(monkeypatch):
    monkeypatch.setattr(switch, "_MODULES", {"fast": "not_built", "numpy": "reference"})
    monkeypatch.setattr(switch, "_HINT", {"fast": "Build it."})
    assert "not_built" in (unavailable("fast") or "")
    with pytest.raises(BackendUnavailable, match=r"'fast' cannot be loaded: .*not_built.*Build it"):
        get_backend("fast")


def test_an_unknown_backend_is_told_the_known_ones():
    with pytest.raises(BackendUnavailable, match=r"unknown backend 'jax': choose from auto, numpy"):
        get_backend("jax")


@pytest.mark.parametrize("name", switch.NAMES)
def test_every_backend_has_the_operations_of_the_protocol_with_their_arguments(name):
    module = get_backend(name)
    assert name_of(module) == name
    assert operations().keys() >= {"gather", "forward", "train_steps", "predict"}
    for operation, declared in operations().items():
        expected = [p for p in inspect.signature(declared).parameters if p != "self"]
        assert list(inspect.signature(getattr(module, operation)).parameters) == expected


@pytest.mark.parametrize("name", switch.NAMES)
def test_every_backend_has_a_hint_for_those_who_lack_it(name):
    assert switch._HINT[name].endswith(".")

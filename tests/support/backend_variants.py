"""Every backend and instruction set of this machine, as parameters of tests."""

import pytest

from fmnist_fast.nn.backend import BACKEND_NAMES, get_backend, unavailable_reason


def variants():
    """(backend, instruction set) of everything on this machine but the reference."""
    for name in BACKEND_NAMES:
        if name == "numpy":
            continue
        if unavailable_reason(name):
            yield pytest.param((name, ""), marks=pytest.mark.skip(reason=unavailable_reason(name)))
            continue
        sets = getattr(get_backend(name), "available_instruction_sets", lambda: ("",))()
        for instruction_set in sets:
            yield pytest.param((name, instruction_set), id=f"{name}-{instruction_set}".strip("-"))

"""The scripts in examples/ run."""

import runpy
from pathlib import Path

import pytest

import fmnist_fast
from fmnist_fast.nn.backend import unavailable_reason

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.skipif(
    unavailable_reason("numba") is not None, reason=str(unavailable_reason("numba"))
)
def test_numba_steps_measures_every_step(small_dataset, monkeypatch, capsys):
    monkeypatch.setattr(fmnist_fast, "load_dataset", lambda: small_dataset)
    runpy.run_path(str(EXAMPLES / "numba_steps.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    steps = ["naive", "constant_trip_count", "masks", "sums_on_stack", "dense"]
    assert [line.split()[0] for line in lines[1:]] == steps
    assert all(float(line.split()[1]) > 0 for line in lines[1:])

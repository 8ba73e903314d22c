"""Number of usable cores: affinity, container quotas, OMP_NUM_THREADS."""

import os

import pytest

from fmnist_fast import _cpu as cores


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Eight cores, no container, no OpenMP setting; returns the folder of the control group."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_CGROUP_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "_CGROUP_V1", tmp_path / "v1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def test_usable_cores_follows_affinity(machine):
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("?", 8)],
)
def test_usable_cores_follows_cgroup_v2_quota(machine, text, expected):
    (machine / "cpu.max").write_text(text)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3)])
def test_usable_cores_follows_cgroup_v1_quota(machine, quota, expected):
    (machine / "v1").mkdir()
    (machine / "v1" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (machine / "v1" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("3", 3), ("4,2", 4), ("100", 8), ("0", 8), ("many", 8), ("", 8)]
)
def test_usable_cores_follows_omp_num_threads(machine, monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores.usable_cores() == expected

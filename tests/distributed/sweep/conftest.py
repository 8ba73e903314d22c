"""Fixtures: a data set with its checksum, a pool of two processes, an uninterrupted sweep."""

from dataclasses import replace

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")
pytest.importorskip("distributed", reason="Dask is not installed")

from sweeps import make_config, pool_for, sweep

from fmnist_fast.data.cache import compute_checksum
from fmnist_fast.distributed.sweep.scheduler import StopReason
from fmnist_fast.distributed.worker import arrays_of


@pytest.fixture(scope="session")
def small_dataset(small_dataset):
    return replace(small_dataset, checksum=compute_checksum(arrays_of(small_dataset)))


@pytest.fixture(scope="module")
def user_cache(tmp_path_factory):
    """One cache for all pools of a module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(user_cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(user_cache))


@pytest.fixture(scope="module")
def pool(small_dataset, user_cache):
    """Two processes of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(user_cache))
        with pool_for(make_config(small_dataset), workers=2) as two:
            two.refresh(now=True)
            assert two.slots == 2
            yield two


@pytest.fixture(scope="module")
def full_run(small_dataset, pool, tmp_path_factory):
    """Trials of SPACE by two workers, uninterrupted."""
    study = tmp_path_factory.mktemp("study") / "whole.journal"
    trials, reason = sweep(make_config(small_dataset), pool, study)
    assert reason is StopReason.DONE
    assert [number for number, *_ in trials] == list(range(8))
    return trials

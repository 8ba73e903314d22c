"""Scheduling loop: results do not depend on workers, interruptions or the kind of storage."""

import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest
from messages import assert_one_line
from optuna.distributions import CategoricalDistribution
from sweeps import SLOW, make_config, open_store, pool_for, run, sweep

from fmnist_fast import train
from fmnist_fast.distributed.sweep.results import best_trials
from fmnist_fast.distributed.sweep.scheduler import StopReason, SweepObserver
from fmnist_fast.distributed.sweep.space import Space
from fmnist_fast.distributed.sweep.study_store import Counts, open_study
from fmnist_fast.distributed.sweep.trial import RUNGS
from fmnist_fast.errors import SweepError
from fmnist_fast.training.config import TrainingConfig


def test_sweep_trial_equals_train(small_dataset, full_run):
    _, settings, values = full_run[3]
    result = train(small_dataset, seed=0, **eval(settings))
    assert values == (result.model.metrics["validation_accuracy"],)


def test_sweep_result_is_independent_of_worker_count(small_dataset, full_run, tmp_path):
    config = make_config(small_dataset)
    with pool_for(config) as one:
        assert sweep(config, one, tmp_path / "one.journal") == (full_run, StopReason.DONE)


def test_sweep_resumes_after_stop(small_dataset, pool, full_run, tmp_path):
    class StopsAfter(SweepObserver):
        ended = 0

        def update(self, status):
            self.ended = status.counts.ended

    config, study = make_config(small_dataset), tmp_path / "stopped.journal"
    observer = StopsAfter()
    trials, reason = sweep(config, pool, study, observer, should_stop=lambda: observer.ended >= 3)
    assert reason is StopReason.STOPPED
    assert 3 <= len(trials) < 8
    assert trials == [trial for trial in full_run if trial[0] in {t[0] for t in trials}]
    assert sweep(config, pool, study) == (full_run, StopReason.DONE)
    assert sweep(config, pool, study) == (full_run, StopReason.DONE)  # nothing is left to do


def test_sweep_sqlite_study_resumes_with_more_trials(small_dataset, pool, full_run, tmp_path):
    study = f"sqlite:///{tmp_path}/sweep.db"
    few = replace(make_config(small_dataset), trials=3)
    assert sweep(few, pool, study) == (full_run[:3], StopReason.DONE)
    assert sweep(make_config(small_dataset), pool, study) == (full_run, StopReason.DONE)


def test_sweep_locked_database_is_an_error_and_resumes(small_dataset, pool, full_run, tmp_path):
    path = tmp_path / "sweep.db"
    study, config = f"sqlite:///{path}?timeout=0.1", make_config(small_dataset)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:

        class LocksIt(SweepObserver):
            def update(self, status):
                if status.counts.ended >= 3 and not other.in_transaction:
                    other.execute("begin exclusive")

        with pytest.raises(SweepError) as caught:
            sweep(config, pool, study, LocksIt())
        assert_one_line(
            str(caught.value), "written: ", "database is locked; ", "the same command resumes it"
        )
    assert sweep(config, pool, study) == (full_run, StopReason.DONE)


def test_sweep_stops_at_deadline(small_dataset, pool, tmp_path):
    config = make_config(small_dataset, trials=10**6)
    start = time.monotonic()
    trials, reason = sweep(config, pool, tmp_path / "s.journal", deadline=start + 2)
    assert reason is StopReason.TIME
    assert time.monotonic() - start < 10
    assert 0 < len(trials) < 10**6


@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_sweep_pruner_stops_unpromising_trials(small_dataset, pool, tmp_path, pruner):
    """Half of the learning rates are far too small. Trials take a second or two, so that their
    reports arrive before they end.
    """
    space = Space({"lr": CategoricalDistribution((1e-7, 5e-3))}, {"epochs": 500, "hidden": (64,)})
    config = make_config(small_dataset, space, trials=16, pruner=pruner)
    with open_store(config, tmp_path / "s") as store:
        assert run(config, store, pool) is StopReason.DONE
        counts = store.counts()
        assert counts.pruned >= 2
        assert counts.pruned + counts.complete == 16
        assert best_trials(store, config, 1)[0].settings["lr"] == 5e-3
        pruned = [t for t in store.study.trials if t.state.name == "PRUNED"]
        assert {t.params["lr"] for t in pruned} == {1e-7}
        assert all(max(t.intermediate_values) < RUNGS for t in pruned)


def test_sweep_only_diverged_trials_fail(small_dataset, pool, tmp_path):
    space = Space({"lr": CategoricalDistribution((5e-3, 1e30))}, {"epochs": 1, "hidden": (8,)})
    config = replace(
        make_config(small_dataset, trials=12), space=space, base=TrainingConfig(weight_decay=0)
    )
    with open_store(config, tmp_path / "s") as store:
        assert run(config, store, pool) is StopReason.DONE
        counts = store.counts()
        assert counts.failed == len(store.failures()) > 0
        assert counts.complete == 12 - counts.failed > 0
        assert all("training diverged at step" in why for why in store.failures())
        assert {ranked.settings["lr"] for ranked in best_trials(store, config, 12)} == {5e-3}


def test_sweep_stops_after_consecutive_failures(small_dataset, pool, tmp_path):
    config = replace(make_config(small_dataset), backend="fortran")
    with open_study(str(tmp_path / "s"), "x", {}, maximize=True) as store:
        with pytest.raises(SweepError) as caught:
            run(config, store, pool)
        assert_one_line(
            str(caught.value), "5 trials in a row failed, ", "unknown backend 'fortran'"
        )
        counts = store.counts()  # all will be run again
        assert counts.ended == 0
        assert counts.unfinished >= 5


# Workers cannot import this module: a function that belongs to none is sent by value.
fails = eval("lambda: (_ for _ in ()).throw(MemoryError('none left'))", {})


def test_sweep_single_failure_is_a_failed_trial(small_dataset, pool, tmp_path, monkeypatch):
    config, submitted = make_config(small_dataset, trials=6), []
    submit = pool.submit

    def submit_one_that_fails(work, *arguments, name):
        submitted.append(name)
        if len(submitted) == 2:
            return submit(fails, name=name)
        return submit(work, *arguments, name=name)

    monkeypatch.setattr(pool, "submit", submit_one_that_fails)
    with open_store(config, tmp_path / "s") as store:
        assert run(config, store, pool) is StopReason.DONE
        assert store.counts() == Counts(complete=5, failed=1)
        assert store.failures() == ["MemoryError: none left"]


def test_sweep_tpe_resumes_without_repeating_trials(small_dataset, pool, tmp_path):
    """Stopped before any trial ended, when two had been sampled."""
    config = make_config(small_dataset, SLOW, trials=6, sampler="tpe")
    updates = []

    def sampled(study):
        with open_store(config, study) as store:
            return [str(trial.params) for trial in store.study.trials]

    class Sees(SweepObserver):
        def update(self, status):
            updates.append(status.running)

    study = tmp_path / "s.journal"
    assert sweep(config, pool, study, Sees(), lambda: bool(updates)) == ([], StopReason.STOPPED)
    assert len(sampled(study)) == 2
    sweep(config, pool, study)
    assert len(set(sampled(study))) == 6


def test_sweep_seeds_and_folds_are_networks_of_a_trial(small_dataset, pool, tmp_path):
    config = make_config(small_dataset, trials=2, seeds=2, seed=5, folds=3)
    with open_store(config, tmp_path / "s") as store:
        run(config, store, pool)
        result = best_trials(store, config, 1)[0].result
    assert len(result.values) == 6
    assert result.value == pytest.approx(sum(result.values) / 6)
    assert result.spread > 0
    config = make_config(small_dataset, trials=1, seeds=3)
    trials, _ = sweep(config, pool, tmp_path / "seeds")
    settings = eval(trials[0][1])
    alone = [train(small_dataset, seed=seed, **settings) for seed in range(3)]
    assert trials[0][2] == tuple(r.model.metrics["validation_accuracy"] for r in alone)


def test_sweep_validation_loss_is_minimized(small_dataset, pool, tmp_path):
    config = make_config(small_dataset, metric="validation_loss", trials=6)
    with open_store(config, tmp_path / "s") as store:
        run(config, store, pool)
        losses = [ranked.result.value for ranked in best_trials(store, config, 6)]
    assert losses == sorted(losses)
    assert losses[0] > 0

"""Sweeps on real Dask clusters: nothing is lost, nothing is done twice, the bits are the same."""

import io
import json
import logging
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest
from clusters import dask_scheduler, dask_worker, wait_for_workers
from rich.console import Console

pytest.importorskip("optuna", reason="Optuna is not installed")
pytest.importorskip("distributed", reason="Dask is not installed")

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from fmnist_fast.cli.main import main
from fmnist_fast.cli.sweep_view import FinalProgress, SweepView, best_table
from fmnist_fast.data.cache import compute_checksum
from fmnist_fast.distributed.sweep.results import Ranked, best_trials, importances
from fmnist_fast.distributed.sweep.sampler import distributions, make_pruner, make_sampler
from fmnist_fast.distributed.sweep.scheduler import (
    Ending,
    Plan,
    Status,
    View,
    data_to_workers,
    run_sweep,
)
from fmnist_fast.distributed.sweep.space import Choices, Range, Space
from fmnist_fast.distributed.sweep.study_store import Counts, open_ledger
from fmnist_fast.distributed.sweep.trial import RUNGS, Result, run_trial
from fmnist_fast.distributed.tasks import _result
from fmnist_fast.distributed.worker import arrays_of
from fmnist_fast.distributed.worker_pool import Fleet, open_fleet
from fmnist_fast.errors import ClusterError, SweepError
from fmnist_fast.training.config import TrainingConfig

SPACE = Space(
    {"hidden": Choices(((8,), (16, 8))), "lr": Range(1e-3, 1e-2, log=True)}, {"epochs": 2}
)
# Some half a second of training, so that there is a middle to be killed in.
SLOW = Space({"lr": Range(1e-3, 1e-2, log=True)}, {"epochs": 60, "hidden": (64, 64)})


def plan_of(dataset, space=SPACE, trials=8, **options):
    options = {"sampler": "random", "pruner": "none", **options}
    return Plan(dataset, TrainingConfig(), space, trials, **options).checked()


@contextmanager
def local(plan, workers=1):
    with open_fleet(None, workers, plan.workers_identity(), data_to_workers(plan.dataset)) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def small_dataset(small_dataset):
    """With the checksum that it has."""
    return replace(small_dataset, checksum=compute_checksum(arrays_of(small_dataset)))


@pytest.fixture(scope="module")
def user_cache(tmp_path_factory):
    """One folder for all fleets of this module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(user_cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(user_cache))


@pytest.fixture(scope="module")
def fleet(small_dataset, user_cache):
    """Two processes of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(user_cache))
        with local(plan_of(small_dataset), workers=2) as two:
            two.look(now=True)
            assert two.slots == 2
            yield two


def swept(plan, fleet, study, view=None, should_stop=lambda: False, **more):
    """(number, settings, values) of all complete trials, by number; and how it ended."""
    with open_ledger(str(study), "fmnist-fast", plan.identity(), maximise=True) as ledger:
        ending = run_sweep(plan, ledger, fleet, view or View(), should_stop, **more)
        best = best_trials(ledger, plan, plan.trials)
    return sorted((r.number, str(r.settings), r.result.values) for r in best), ending


@pytest.fixture(scope="module")
def uninterrupted(small_dataset, fleet, tmp_path_factory):
    """Trials of SPACE, of two workers from beginning to end."""
    study = tmp_path_factory.mktemp("study") / "whole.journal"
    trials, ending = swept(plan_of(small_dataset), fleet, study)
    assert ending is Ending.DONE
    assert [number for number, *_ in trials] == list(range(8))
    return trials


def test_a_trial_is_what_training_gives(small_dataset, uninterrupted):
    from fmnist_fast import train

    _, settings, values = uninterrupted[3]
    result = train(small_dataset, seed=0, **eval(settings))
    assert values == (result.model.metrics["validation_accuracy"],)


def test_one_worker_gives_what_two_gave(small_dataset, uninterrupted, tmp_path):
    plan = plan_of(small_dataset)
    with local(plan) as one:
        assert swept(plan, one, tmp_path / "one.journal") == (uninterrupted, Ending.DONE)


def test_a_sweep_that_was_stopped_goes_on(small_dataset, fleet, uninterrupted, tmp_path):
    class StopsAfter(View):
        ended = 0

        def update(self, status):
            self.ended = status.counts.ended

    plan, study = plan_of(small_dataset), tmp_path / "stopped.journal"
    view = StopsAfter()
    trials, ending = swept(plan, fleet, study, view, should_stop=lambda: view.ended >= 3)
    assert ending is Ending.STOPPED
    assert 3 <= len(trials) < 8
    assert trials == [trial for trial in uninterrupted if trial[0] in {t[0] for t in trials}]
    assert swept(plan, fleet, study) == (uninterrupted, Ending.DONE)
    assert swept(plan, fleet, study) == (uninterrupted, Ending.DONE)  # nothing is left to do


def test_a_database_keeps_them_too(small_dataset, fleet, uninterrupted, tmp_path):
    study = f"sqlite:///{tmp_path}/sweep.db"
    few = replace(plan_of(small_dataset), trials=3)
    assert swept(few, fleet, study) == (uninterrupted[:3], Ending.DONE)
    assert swept(plan_of(small_dataset), fleet, study) == (uninterrupted, Ending.DONE)


def test_a_database_that_does_not_answer_is_an_error(small_dataset, fleet, uninterrupted, tmp_path):
    path = tmp_path / "sweep.db"
    study, plan = f"sqlite:///{path}?timeout=0.1", plan_of(small_dataset)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:

        class TakesIt(View):
            def update(self, status):
                if status.counts.ended >= 3 and not other.in_transaction:
                    other.execute("begin exclusive")

        with pytest.raises(SweepError, match=r"written: .*database is locked; .* the same command"):
            swept(plan, fleet, study, TakesIt())
    assert swept(plan, fleet, study) == (uninterrupted, Ending.DONE)


def test_a_time_budget_ends_the_trials(small_dataset, fleet, tmp_path):
    plan = plan_of(small_dataset, trials=10**6)
    start = time.monotonic()
    trials, ending = swept(plan, fleet, tmp_path / "s.journal", deadline=start + 2)
    assert ending is Ending.TIME
    assert time.monotonic() - start < 10
    assert 0 < len(trials) < 10**6


@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_trials_that_are_behind_are_ended_early(small_dataset, fleet, tmp_path, pruner):
    """Half of the learning rates teach nothing. Trials take a second or two, since one that ends
    before anybody had the time to look at it is not ended early.
    """
    space = Space({"lr": Choices((1e-7, 5e-3))}, {"epochs": 500, "hidden": (64,)})
    plan = plan_of(small_dataset, space, trials=16, pruner=pruner)
    with open_ledger(str(tmp_path / "s"), "x", plan.identity(), maximise=True) as ledger:
        assert run_sweep(plan, ledger, fleet, View(), lambda: False) is Ending.DONE
        counts = ledger.counts()
        assert counts.pruned >= 2
        assert counts.pruned + counts.complete == 16
        assert best_trials(ledger, plan, 1)[0].settings["lr"] == 5e-3
        pruned = [t for t in ledger.study.trials if t.state.name == "PRUNED"]
        assert {t.params["lr"] for t in pruned} == {1e-7}
        assert all(max(t.intermediate_values) < RUNGS for t in pruned)


def test_trials_that_diverge_fail_and_no_other(small_dataset, fleet, tmp_path):
    space = Space({"lr": Choices((5e-3, 1e30))}, {"epochs": 1, "hidden": (8,)})
    plan = replace(
        plan_of(small_dataset, trials=12), space=space, base=TrainingConfig(weight_decay=0)
    )
    with open_ledger(str(tmp_path / "s"), "x", plan.identity(), maximise=True) as ledger:
        assert run_sweep(plan, ledger, fleet, View(), lambda: False) is Ending.DONE
        counts = ledger.counts()
        assert counts.failed == len(ledger.failed()) > 0
        assert counts.complete == 12 - counts.failed > 0
        assert all("training diverged at step" in why for why in ledger.failed())
        assert {ranked.settings["lr"] for ranked in best_trials(ledger, plan, 12)} == {5e-3}


def test_what_fails_for_another_reason_ends_the_sweep(small_dataset, fleet, tmp_path):
    plan = replace(plan_of(small_dataset), backend="fortran")
    with pytest.raises(SweepError, match=r"5 trials in a row failed, .*unknown backend 'fortran'"):
        swept_without_identity(plan, fleet, tmp_path / "s")
    with open_ledger(str(tmp_path / "s"), "x", {}, maximise=True) as ledger:
        counts = ledger.counts()  # they are begun again, as what was under way
        assert counts.ended == 0
        assert counts.unfinished >= 5


def test_what_fails_where_others_do_not_is_a_failed_trial(small_dataset, fleet, tmp_path):
    plan, calls = plan_of(small_dataset, trials=6), []

    class Rations(Fleet):
        def submit(self, work, task, *others, name):
            calls.append(name)
            if len(calls) == 2:
                return fleet.submit(_has_no_memory, name=name)
            return fleet.submit(work, task, *others, name=name)

    rationed = Rations(**{f.name: getattr(fleet, f.name) for f in fields(Fleet)})
    with open_ledger(str(tmp_path / "s"), "x", plan.identity(), maximise=True) as ledger:
        assert run_sweep(plan, ledger, rationed, View(), lambda: False) is Ending.DONE
        assert ledger.counts() == Counts(complete=5, failed=1)
        assert ledger.failed() == ["MemoryError: none left"]


# Workers cannot import this module, and are sent what was not made in one.
_has_no_memory = eval("lambda: (_ for _ in ()).throw(MemoryError('none left'))", {})


def test_the_learning_sampler_goes_on_and_repeats_nothing(small_dataset, fleet, tmp_path):
    """Stopped before any trial ended, when it had drawn two."""
    plan = plan_of(small_dataset, SLOW, trials=6, sampler="tpe")
    begun = []

    def drawn(study):
        with open_ledger(str(study), "fmnist-fast", plan.identity(), maximise=True) as ledger:
            return [str(trial.params) for trial in ledger.study.trials]

    class Sees(View):
        def update(self, status):
            begun.append(status.running)

    study = tmp_path / "s.journal"
    assert swept(plan, fleet, study, Sees(), lambda: bool(begun)) == ([], Ending.STOPPED)
    assert len(drawn(study)) == 2
    swept(plan, fleet, study)
    assert len(set(drawn(study))) == 6


def swept_without_identity(plan, fleet, study):
    with open_ledger(str(study), "x", {}, maximise=True) as ledger:
        return run_sweep(plan, ledger, fleet, View(), lambda: False)


def test_seeds_and_folds_are_networks_of_a_trial(small_dataset, fleet, tmp_path):
    from fmnist_fast import train

    plan = plan_of(small_dataset, trials=2, seeds=2, seed=5, folds=3)
    with open_ledger(str(tmp_path / "s"), "x", plan.identity(), maximise=True) as ledger:
        run_sweep(plan, ledger, fleet, View(), lambda: False)
        result = best_trials(ledger, plan, 1)[0].result
    assert len(result.values) == 6
    assert result.value == pytest.approx(sum(result.values) / 6)
    assert result.spread > 0
    plan = plan_of(small_dataset, trials=1, seeds=3)
    trials, _ = swept(plan, fleet, tmp_path / "seeds")
    settings = eval(trials[0][1])
    alone = [train(small_dataset, seed=seed, **settings) for seed in range(3)]
    assert trials[0][2] == tuple(r.model.metrics["validation_accuracy"] for r in alone)


def first_task(plan):
    return plan.task(type("Asked", (), {"number": 0, "params": {"hidden": "8", "lr": 1e-3}})())


@pytest.mark.parametrize(("seeds", "last"), [(1, RUNGS - 1), (2, RUNGS)])
def test_a_trial_that_is_over_cannot_be_ended_early(small_dataset, seeds, last):
    space = replace(SPACE, fixed={"epochs": 2 * RUNGS})
    told = []
    task = first_task(plan_of(small_dataset, space, seeds=seeds))
    run_trial(task, small_dataset, lambda: False, lambda rung, _: told.append(rung))
    assert told == list(range(1, last + 1))


def test_the_folds_of_a_trial_judge_every_row_once(small_dataset, monkeypatch):
    import fmnist_fast.distributed.sweep.trial as module

    judged = []

    class Watched(module.TrainingRun):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            judged.append(self.train_set.validation_rows_n)

    monkeypatch.setattr(module, "TrainingRun", Watched)
    plan = plan_of(small_dataset, folds=4)
    result = run_trial(first_task(plan), small_dataset, lambda: False, lambda *_: None)
    assert len(result.values) == 4
    assert sorted(np.concatenate(judged)) == list(range(600))


def test_validation_loss_is_a_metric_too(small_dataset, fleet, tmp_path):
    plan = plan_of(small_dataset, metric="validation_loss", trials=6)
    with open_ledger(str(tmp_path / "s"), "x", plan.identity(), maximise=False) as ledger:
        run_sweep(plan, ledger, fleet, View(), lambda: False)
        losses = [ranked.result.value for ranked in best_trials(ledger, plan, 6)]
    assert losses == sorted(losses)
    assert losses[0] > 0


def test_what_mattered(small_dataset, fleet, tmp_path):
    space = Space(
        {"lr": Range(1e-7, 1e-2, log=True), "l2": Range(0.0, 1e-9)}, {"epochs": 3, "hidden": (16,)}
    )
    plan = plan_of(small_dataset, space, trials=20)
    with open_ledger(str(tmp_path / "s"), "x", plan.identity(), maximise=True) as ledger:
        run_sweep(plan, ledger, fleet, View(), lambda: False)
        shares = importances(ledger)
    assert list(shares) == ["lr", "l2"]
    assert sum(shares.values()) == pytest.approx(1)


def test_a_worker_killed_in_the_middle_of_its_trial_costs_no_trial(small_dataset, fleet, tmp_path):
    plan = plan_of(small_dataset, SLOW, trials=16)
    whole, _ = swept(plan, fleet, tmp_path / "whole.journal")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address) as victim,
        dask_worker(address, XDG_CACHE_HOME=str(tmp_path / "no data here")),
        open_fleet(address, 0, plan.workers_identity(), data_to_workers(small_dataset)) as remote,
    ):
        wait_for_workers(remote, 2)

        class KillsOne(View):
            killed = False

            def update(self, status):
                busy = status.running > 2  # more than the other worker has
                if status.counts.ended >= 2 and busy and not self.killed:
                    victim.kill()
                    self.killed = True

        view = KillsOne()
        assert swept(plan, remote, tmp_path / "killed.journal", view) == (whole, Ending.DONE)
        assert view.killed
        assert remote.slots == 1


def test_a_worker_that_comes_back_to_its_address_works_again(small_dataset, fleet, tmp_path):
    plan = plan_of(small_dataset, SLOW, trials=5)
    whole, _ = swept(plan, fleet, tmp_path / "whole.journal")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with (
        dask_scheduler(tmp_path) as (_, address),
        ExitStack() as workers,
        open_fleet(address, 0, plan.workers_identity(), data_to_workers(small_dataset)) as remote,
    ):
        first = workers.enter_context(dask_worker(address, "--worker-port", port))
        wait_for_workers(remote, 1)

        class Replaces(View):
            replaced = False

            def update(self, status):
                if status.counts.ended >= 2 and not self.replaced:
                    self.replaced = True
                    first.kill()
                    first.wait()
                    workers.enter_context(dask_worker(address, "--worker-port", port))
                    remote._looked = float("inf")  # as if it had all happened between two looks
                    while list(remote.client.nthreads()) != list(remote.threads):
                        time.sleep(0.05)
                    time.sleep(1)
                    remote._looked = float("-inf")

        assert swept(plan, remote, tmp_path / "s.journal", Replaces()) == (whole, Ending.DONE)


@pytest.mark.parametrize("error", [OSError("gone"), TimeoutError(), CancelledError()])
def test_a_result_that_does_not_come_is_asked_for_again(error):
    class Gone:
        status = "finished"

        def result(self, timeout):
            raise error

    assert _result(Gone()) is None


def test_the_data_goes_to_a_worker_that_lacks_it_once(small_dataset, tmp_path):
    plan = plan_of(small_dataset, trials=4)
    store = tmp_path / "other"
    sent = []
    prepare = data_to_workers(small_dataset)

    def counted(client, workers):
        run = client.run

        def spy(function, *arguments, **options):
            sent.append(function.__name__)
            return run(function, *arguments, **options)

        client.run = spy
        said = prepare(client, workers)
        client.run = run
        return said

    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address, XDG_CACHE_HOME=str(store)),
        dask_worker(address, XDG_CACHE_HOME=str(store)),
        open_fleet(address, 0, plan.workers_identity(), counted) as remote,
    ):
        while len(remote.client.nthreads()) < 2:
            time.sleep(0.05)
        wait_for_workers(remote, 2)
        assert swept(plan, remote, tmp_path / "s.journal")[1] is Ending.DONE
    assert sent.count("receive") == 1
    assert len(list(store.rglob("x_train.npy"))) == 1  # and its mirror images are not wanted


def test_a_worker_of_another_kind_is_refused(small_dataset, uninterrupted, tmp_path):
    plan = plan_of(small_dataset)

    class Notes(View):
        said = ()

        def note(self, message):
            self.said = (*self.said, message)

    ours = plan.workers_identity()["instruction_set"]
    assert ours not in (None, "baseline")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address, FMNIST_FAST_ISA="baseline"),
        open_fleet(address, 0, plan.workers_identity(), data_to_workers(small_dataset)) as remote,
    ):
        wait_for_workers(remote, 1, key=lambda fleet: len(fleet.refused))
        with pytest.raises(ClusterError, match=f"set is baseline, and here it is {ours}"):
            swept(plan, remote, tmp_path / "s.journal")
        notes = Notes()
        with dask_worker(address):
            wait_for_workers(remote, 1)
            assert swept(plan, remote, tmp_path / "s.journal", notes) == (
                *(uninterrupted, Ending.DONE),
            )
        assert len(notes.said) == 1
        assert re.match(r"worker tcp://.* is not used: its instruction set is", notes.said[0])


def test_a_scheduler_that_goes_away_is_an_error_and_the_study_is_whole(
    small_dataset, fleet, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("fmnist_fast.distributed.worker_pool.ANSWER_SECONDS", 2)
    monkeypatch.setattr(logging.getLogger("distributed"), "propagate", True)
    plan, study = plan_of(small_dataset, SLOW, trials=8), tmp_path / "s.journal"
    with (
        dask_scheduler(tmp_path) as (scheduler, address),
        dask_worker(address),
        open_fleet(address, 0, plan.workers_identity(), data_to_workers(small_dataset)) as remote,
    ):
        wait_for_workers(remote, 1)

        class KillsIt(View):
            def update(self, status):
                if status.counts.ended >= 2:
                    scheduler.kill()

        with pytest.raises(ClusterError, match=f"scheduler {address} does not answer any more"):
            swept(plan, remote, study, KillsIt())
    assert not caplog.messages  # Dask says nothing beside our one line
    whole = swept(plan, fleet, tmp_path / "whole.journal")
    assert swept(plan, fleet, study) == whole


def test_what_comes_after_it_has_all_cores_again(small_dataset, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    plan, before = plan_of(small_dataset), dict(os.environ)
    with open_fleet(None, 1, plan.workers_identity(), data_to_workers(small_dataset)) as fleet:
        fleet.look(now=True)
        assert fleet.slots == 1
    assert dict(os.environ) == before


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
def test_what_listens_there_is_no_scheduler(says, small_dataset, monkeypatch):
    """Dask's own client would wait for it for ever, or ask for 8 EB of memory."""
    monkeypatch.setattr("fmnist_fast.distributed.worker_pool.ANSWER_SECONDS", 1.0)
    taken = []

    def greet():
        with suppress(OSError):
            while True:
                taken.append(server.accept()[0])
                taken[-1].sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=greet, daemon=True).start()
        address, start = f"tcp://127.0.0.1:{server.getsockname()[1]}", time.monotonic()
        with (
            pytest.raises(ClusterError, match="no Dask scheduler answers at"),
            open_fleet(address, 1, {}, data_to_workers(small_dataset)),
        ):
            pass
        assert time.monotonic() - start < 10
    for connection in taken:
        connection.close()


def test_a_worker_is_no_scheduler(small_dataset, fleet):
    worker = next(iter(fleet.threads))
    with (
        pytest.raises(ClusterError, match="no Dask scheduler answers at"),
        open_fleet(worker, 1, {}, data_to_workers(small_dataset)),
    ):
        pass


def test_no_scheduler_there(small_dataset, monkeypatch):
    monkeypatch.setattr("fmnist_fast.distributed.worker_pool.ANSWER_SECONDS", 0.5)
    with (
        pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        open_fleet("tcp://127.0.0.1:9", 0, {}, data_to_workers(small_dataset)),
    ):
        pass


# The study.


def test_another_question_is_not_mixed_into_a_study(small_dataset, fleet, tmp_path):
    study, plan = str(tmp_path / "s.journal"), plan_of(small_dataset)
    swept(replace(plan, trials=1), fleet, study)
    with (
        open_ledger(study, "fmnist-fast", plan.identity(), maximise=True),
        pytest.raises(SweepError, match="another sweep is writing to"),
        open_ledger(study, "fmnist-fast", plan.identity(), maximise=True),
    ):
        pass
    for changed, said in (
        (replace(plan, seed=1), "has another seed (0, now 1): go on with the options"),
        (
            replace(plan, space=Space({**SPACE.searched, "l2": Choices((0.0,))}, SPACE.fixed)),
            "has another space: searched: l2 (none, now {'values': [0.0]})",
        ),
        (replace(plan, space=SLOW), "has another space: searched: hidden ("),
        (replace(plan, base=TrainingConfig(l2=0.5)), "has another recipe: l2 ("),
        (replace(plan, backend="numpy"), "has another backend (cython, now numpy): the last bits"),
        (replace(plan, dataset=replace(small_dataset, name="b")), "another dataset (small, now b)"),
    ):
        with (
            pytest.raises(SweepError, match=re.escape(said)),
            open_ledger(study, "fmnist-fast", changed.identity(), maximise=True),
        ):
            pass
    with open_ledger(study, "fmnist-fast", replace(plan, trials=3).identity(), maximise=True):
        pass


def test_a_last_line_without_its_end_is_taken_away(small_dataset, fleet, uninterrupted, tmp_path):
    plan, study = plan_of(small_dataset), tmp_path / "s.journal"
    swept(replace(plan, trials=4), fleet, study)
    with open(study, "ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x", "stu')
    Path(f"{study}.lock").symlink_to(study)  # as Optuna's lock is left by a kill
    start = time.monotonic()
    assert swept(plan, fleet, study) == (uninterrupted, Ending.DONE)
    assert time.monotonic() - start < 20


def test_a_database_is_the_same_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        open_ledger("sqlite:///s.db", "x", {}, maximise=True),
        pytest.raises(SweepError, match="another sweep is writing to"),
        open_ledger(f"sqlite:///{tmp_path}/s.db", "x", {}, maximise=True),
    ):
        pass


def test_a_trial_that_another_machine_ended(small_dataset, tmp_path):
    study, plan = str(tmp_path / "s.journal"), plan_of(small_dataset)
    with (
        pytest.raises(SweepError, match="another sweep, on another machine, writes to"),
        open_ledger(study, "x", plan.identity(), maximise=True) as ledger,
    ):
        _ended_elsewhere(ledger, plan)


def _ended_elsewhere(ledger, plan):
    ledger.choose_with(
        make_sampler("random", plan.space, 0, 0), make_pruner("none"), distributions(SPACE)
    )
    trial = ledger._running[ledger.ask().number]
    ledger._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    ledger.fail(trial.number, "here")


def test_trials_must_be_judged(small_dataset):
    few = replace(
        small_dataset, x_train=small_dataset.x_train[:11], y_train=small_dataset.y_train[:11]
    )
    with pytest.raises(SweepError, match="of 11 rows none is held back"):
        Plan(few, TrainingConfig(batch_size=2), SPACE, 1).checked()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", "text exists and is no journal of Optuna's: name another"),
        ("folder", "folder is not a file: name another"),
        ("missing/s.journal", "does not exist: create it"),
        ("foreign.journal", "is no sweep of fmnist-fast"),
    ],
)
def test_what_is_no_study_of_ours_is_left_alone(name, said, tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    (tmp_path / "text").write_text("my notes")
    (tmp_path / "folder").mkdir()
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "foreign.journal")))
    optuna.create_study(storage=storage, study_name="x").ask()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with (
        pytest.raises(SweepError, match=re.escape(said)),
        open_ledger(str(tmp_path / name), "x", {}, maximise=True),
    ):
        pass
    for path, content in before.items():
        if path.name != "foreign.journal":  # to which Optuna adds that it was opened
            assert path.read_bytes() == content


# The command.

COMMON = ["--sampler", "random", "--pruner", "none", "--workers", "2", "--study", "s.journal"]


@pytest.fixture
def space_file(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("lr = {low = 1e-3, high = 1e-2, log = true}\nepochs = 60\nhidden = [64, 64]\n")
    return path


@pytest.fixture
def quick_space(tmp_path):
    path = tmp_path / "quick.toml"
    path.write_text("lr = {low = 1e-3, high = 1e-2}\nepochs = 1\nhidden = [8]\n")
    return path


def command(small_npz, space_file, *more):
    return ["sweep", *COMMON, "--dataset", str(small_npz), "--space", str(space_file), *more]


def numbers_and_values(study):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(study)))
    trials = optuna.load_study(storage=storage, study_name="fmnist-fast").trials
    return [(trial.number, trial.state.name, trial.params, trial.value) for trial in trials]


def test_the_command_killed_at_any_moment_goes_on(small_npz, space_file, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = command(small_npz, space_file, "--trials", "10", "--json")
    for folder in (whole, killed):
        folder.mkdir()
    program = [sys.executable, "-m", "fmnist_fast", *arguments]
    journal, kills = killed / "s.journal", 0
    for least in (3, 7):  # entries of trials that were completed
        process = subprocess.Popen(program, cwd=killed, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_text().count('"result":') < least:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills == 2
    ran = [
        subprocess.run(program, cwd=folder, capture_output=True, check=True)
        for folder in (killed, whole)
    ]
    documents = [json.loads(one.stdout) for one in ran]
    assert numbers_and_values(journal) == numbers_and_values(whole / "s.journal")
    assert [entry[:2] for entry in numbers_and_values(journal)] == [
        (number, "COMPLETE") for number in range(10)
    ]
    for document in documents:
        for entry in document["best"]:
            del entry["seconds"]
    assert documents[0] == documents[1]
    model = (killed / "model.safetensors").read_bytes()
    assert model == (whole / "model.safetensors").read_bytes()
    # And the command that it prints makes the same model once more.
    words = shlex.split(documents[0]["command"])
    assert words[:2] == ["fmnist-fast", "train"]
    again = [*words[1:-1], str(tmp_path / "again.safetensors"), "--quiet"]
    assert main(again) == 0
    assert (tmp_path / "again.safetensors").read_bytes() == model
    for picture in documents[0]["pictures"]:
        assert (killed / picture).read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_stops_it_and_says_how_to_go_on(small_npz, space_file, tmp_path):
    program = [sys.executable, "-m", "fmnist_fast"]
    process = subprocess.Popen(
        [*program, *command(small_npz, space_file, "--trials", "1000")],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "s.journal"
    while not journal.exists() or journal.read_text().count('"result":') < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.fullmatch(
        r"fmnist-fast: stopped; \d+ of 1000 trials are kept in s\.journal: the same command goes "
        r"on\n",
        said,
    )
    states = [state for _, state, *_ in numbers_and_values(journal)]
    assert "RUNNING" not in states
    assert states.count("WAITING") >= 1


def test_ctrl_c_while_workers_start_is_heard(small_npz, space_file, tmp_path):
    arguments = command(small_npz, space_file, "--trials", "1000")
    process = subprocess.Popen(
        [sys.executable, "-m", "fmnist_fast", *arguments],
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    of_process = psutil.Process(process.pid)
    while len(of_process.children()) < 3:  # two workers, and multiprocessing's own
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.endswith("trials are kept in s.journal: the same command goes on\n")
    assert said.count("\n") == 1


def test_what_the_command_shows(small_npz, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = tmp_path / "space.toml"
    space.write_text("lr = {low = 1e-3, high = 1e-2}\nhidden = {choices = [[8], []]}\nepochs = 1")
    arguments = command(small_npz, space, "--trials", "12", "--seeds", "2")
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "all trials are done: 12 complete, 0 pruned, 0 failed; kept in s.journal" in out
    assert re.search(r"best: trial \d+, \d\d\.\d\d %: epochs 1, hidden (8|none), lr 0\.00", out)
    assert len(re.findall(r"^ +\d+ +\d+\.\d\d % ± \d+\.\d\d ", out, flags=re.MULTILINE)) == 10
    assert "what mattered: " in out
    assert "drawn: s-history.png, s-parallel.png" in out
    assert re.search(r"saved model.safetensors: trial \d+, trained again on all 600 training", out)
    assert "the same again: fmnist-fast train --preset standard --dataset" in out
    assert err == ""


def seen(show):
    """The lines of a terminal of 90 columns."""
    console = Console(file=io.StringIO(), force_terminal=True, width=90)
    show(console)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_what_a_terminal_shows_while_it_goes_on():
    best = 7, {"lr": 0.00125}, Result((0.9123,), (0.9123,), (0.3,), (2,), 1.5)
    status = Status(50, Counts(10, 15, 1), 2, 2, 2, 26, 60.0, best, until_deadline=30.0)

    def show(console):
        with SweepView(console, "validation_accuracy") as view:
            view.update(status)

    bar, how_far, best_line = seen(show)[-3:]
    assert bar == "━" * 60 + "╺" + "━" * 29  # two thirds of the time, if half of the trials
    assert how_far == "26 of 50 trials, 15 pruned, 1 failed, 26.0 a minute, 0:30 left, 2 workers"
    assert best_line == "best: trial 7, 91.23 %: lr 0.00125"


def test_what_a_terminal_shows_while_the_best_are_trained():
    def show(console):
        with FinalProgress(console, "model 2 of 5") as progress:
            progress.begin(None, TrainingConfig(epochs=10), None)
            progress.steps(4, 1, 2)

    assert seen(show)[-1] == "model 2 of 5: epoch 4 of 10"


@pytest.mark.parametrize("width", [40, 80, 103, 104, 200])
def test_the_best_are_readable_on_any_terminal(width):
    settings = {
        **{"batch_size": 256, "dropout": 0.0501, "epochs": 29, "hidden": (256, 128)},
        **{"l2": 2.45e-05, "label_smoothing": 0.00503, "lr": 0.00431, "schedule": "onecycle"},
    }
    result = Result((0.9004, 0.8996), (0.9, 0.9), (0.3, 0.3), (3, 3), 12.3)
    console = Console(file=io.StringIO(), width=width)
    console.print(best_table([Ranked(123, settings, result)], "validation_accuracy", width))
    text = console.file.getvalue()
    assert {word.rstrip(",") for word in text.split()} >= {
        *("123", "90.00", "0.06", "256", "0.0501", "29", "256-128", "2.45e-05", "0.00503"),
        *("0.00431", "onecycle"),
    }
    assert "…" not in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--workers", "0"], "give auto, or a number from 1"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "give only one"),
        (["--folds", "1"], "folds is 1: give 2 or more"),
        (["--space", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--study", "no/where"], "does not exist: create it"),
        (["--study", ""], "it is empty"),
        (["--study", "/"], "study / is not a file: name another"),
        (["--study", "sqlite:////no/where/x.db"], "the folder /no/where does not exist: create it"),
        (["--study", "sqlite://"], "would be lost with this command: name a file"),
        (["--study", "sqlite:///:memory:"], "would be lost with this command: name a file"),
        (["--study", "oracle9://me:secret@there/x"], "is of no kind that Optuna knows"),
        (["--study", "mysql://me:secret@there/x"], "cannot be opened: No module named"),
        (["--study", "drawn.journal"], "picture drawn-history.png exists, and no sweep drew it"),
        (["--scheduler", ""], "it is empty"),
        (["--workers", "1000"], "--workers 1000 is too many for"),
        (["--space", "wide.toml"], "model.safetensors takes"),
        (["--space", "negative.toml"], "negative.toml: lr is -1.0"),
        (["--out", "no/where.safetensors"], "does not exist: create it"),
        (["--out", "x.j", "--study", "x.j"], "model x.j is also another file of this command"),
        (["--time-budget", "0.1s"], "no trial came to its end before the time was over; 0 of 1"),
        (["--preset", "best"], "is not one of"),
        (["--backend", "fortran"], "unknown backend 'fortran'"),
        (["--time-budget", "soon"], "give a time like"),
    ],
)
def test_a_mistake_is_one_line(more, said, small_npz, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("drawn-history.png").write_text("my notes")
    Path("wide.toml").write_text("hidden = {choices = [[2000000000]]}")
    Path("negative.toml").write_text("lr = {choices = [-1.0]}")
    assert main(["sweep", "--dataset", str(small_npz), "--trials", "1", *more]) == 2
    _, err = capsys.readouterr()
    assert said in err
    assert "secret" not in err
    assert err.count("\n") == 1
    assert not (tmp_path / "model.safetensors").exists()
    assert Path("drawn-history.png").read_text() == "my notes"


def test_a_study_without_trials_takes_other_options(small_dataset, tmp_path):
    study, plan = str(tmp_path / "s.journal"), plan_of(small_dataset)
    others = replace(plan, seed=1), replace(plan, space=SLOW), replace(plan, folds=2)
    for changed in (plan, *others):
        with open_ledger(study, "x", changed.identity(), maximise=True):
            pass
    with (
        pytest.raises(SweepError, match="has another metric"),
        open_ledger(
            study, "x", replace(changed, metric="validation_loss").identity(), maximise=False
        ),
    ):
        pass


def test_a_journal_that_is_damaged_is_named_and_not_made_worse(small_dataset, fleet, tmp_path):
    plan, study = plan_of(small_dataset, trials=2), tmp_path / "s.journal"
    trials, _ = swept(plan, fleet, study)
    whole = study.read_bytes()
    lines = whole.splitlines(keepends=True)
    study.write_bytes(whole + b"xxx{garbage\n")
    said = f"is damaged: line {len(lines) + 1} of {len(lines) + 1} is none of Optuna's: take that"
    for _ in range(2):
        with pytest.raises(SweepError, match=said):
            swept(plan, fleet, study)
    study.write_bytes(whole)
    assert swept(plan, fleet, study)[0] == trials


def test_a_journal_that_lost_a_line_is_gone_on_with_rightly_or_not_at_all(
    small_dataset, fleet, tmp_path
):
    plan, study = plan_of(small_dataset, trials=2), tmp_path / "s.journal"
    trials, _ = swept(plan, fleet, study)
    lines = study.read_bytes().splitlines(keepends=True)

    def goes_on_without(n):
        study.write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        try:
            found, _ = swept(plan, fleet, study)
        except SweepError:
            return False
        assert found == trials  # what was lost is of no account, or was run again
        return True

    went_on = defaultdict(set)
    for n, line in enumerate(lines):
        went_on[JournalOperation(json.loads(line)["op_code"]).name].add(goes_on_without(n))
    for lost in ("SET_STUDY_USER_ATTR", "SET_TRIAL_PARAM", "SET_TRIAL_USER_ATTR"):
        assert went_on.pop(lost) == {False}, lost
    assert went_on.pop("SET_TRIAL_STATE_VALUES") == {True}  # the trial is run again
    assert went_on.pop("CREATE_STUDY") == {True}  # all are
    assert went_on.pop("CREATE_TRIAL") == {False, True}  # the last is; others would change numbers
    assert not went_on


def test_no_more_workers_than_trials(small_npz, quick_space, tmp_path, monkeypatch, capsys):
    import fmnist_fast.distributed.worker_pool as module

    begun = []

    def counted(scheduler, workers, *others):
        begun.append(workers)
        return open_fleet(scheduler, workers, *others)

    monkeypatch.setattr(module, "open_fleet", counted)
    monkeypatch.chdir(tmp_path)
    for trials in ("1", "3"):
        assert main([*command(small_npz, quick_space, "--trials", trials), "--quiet"]) == 0
    assert begun == [1, 2]


def test_pictures_of_several_studies_are_several(small_npz, quick_space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for study in (["--study-name", "a/b"], [], []):
        assert main([*command(small_npz, quick_space, "--trials", "1", "--quiet"), *study]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        *("s-a_b-history.png", "s-a_b-parallel.png", "s-history.png", "s-parallel.png"),
    ]


def test_the_space_to_begin_with(capsys):
    from fmnist_fast.distributed.sweep.space import BUILT_IN

    assert main(["sweep", "--show-space"]) == 0
    assert capsys.readouterr().out == BUILT_IN.read_text()


def test_the_space_to_begin_with_names_all_that_may_be_chosen():
    from fmnist_fast.distributed.sweep.space import _FIELDS, BUILT_IN

    said = BUILT_IN.read_text().partition("# Fields: ")[2].partition(".")[0]
    assert set(re.findall(r"[a-z_0-9]+", said)) >= set(_FIELDS)


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep"]) == 2
    assert "pip install 'fmnist-fast[sweep]'" in capsys.readouterr().err


def test_the_best_become_an_ensemble(small_npz, tmp_path, monkeypatch, capsys):
    from fmnist_fast import load_dataset, load_model

    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(
        "epochs = 2\nlr = { low = 1e-3, high = 1e-2, log = true }\nhidden = [8]\n"
    )
    command = ["sweep", "--dataset", str(small_npz), "--trials", "3", "--workers", "1", "--json"]
    command += ["--space", "space.toml", "--sampler", "random", "--pruner", "none"]
    assert main([*command, "--ensemble", "5"]) == 0
    printed = capsys.readouterr()
    assert "the ensemble has 3 networks, not 5" in printed.err
    said = json.loads(printed.out)
    best, ensemble = load_model("model.safetensors"), load_model("model.ensemble.safetensors")
    assert said["ensemble"]["model"] == "model.ensemble.safetensors"
    assert said["ensemble"]["trials"] == [one["trial"] for one in said["best"]]
    assert ensemble.members[0].to_bytes() == best.to_bytes()
    first_weights = {
        member.network.params.weights[0][:, 0].tobytes() for member in ensemble.members
    }
    assert len(first_weights) == 3
    data = load_dataset(small_npz)
    accuracy = (ensemble.predict(data.x_test) == data.y_test).mean()
    assert accuracy == said["ensemble"]["test_accuracy"] == ensemble.metrics["test_accuracy"]
    assert main(["evaluate", "model.ensemble.safetensors", "--dataset", str(small_npz)]) == 0

    Path("other.ensemble.safetensors").write_text("not a model")
    assert main([*command, "--ensemble", "2", "--out", "other.safetensors"]) == 2
    assert "other.ensemble.safetensors exists and is not a model" in capsys.readouterr().err

"""Sweeps with killed, replaced and mismatched workers, and with a lost scheduler."""

import logging
import socket
import time
from contextlib import ExitStack

import pytest
from clusters import dask_scheduler, dask_worker, wait_for_workers
from messages import assert_contains
from sweeps import SLOW, make_config, pool_for, sweep

from fmnist_fast.distributed import worker_pool
from fmnist_fast.distributed.sweep.scheduler import StopReason, SweepObserver, data_to_workers
from fmnist_fast.distributed.worker_pool import open_pool
from fmnist_fast.errors import ClusterError


def test_sweep_survives_killed_worker(small_dataset, pool, tmp_path):
    config = make_config(small_dataset, SLOW, trials=16)
    whole, _ = sweep(config, pool, tmp_path / "whole.journal")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address) as victim,
        dask_worker(address, XDG_CACHE_HOME=str(tmp_path / "no data here")),
        pool_for(config, scheduler=address) as remote,
    ):
        wait_for_workers(remote, 2)

        class KillOneWorker(SweepObserver):
            killed = False

            def update(self, status):
                busy = status.running > 2  # more than the other worker has
                if status.counts.ended >= 2 and busy and not self.killed:
                    victim.kill()
                    self.killed = True

        observer = KillOneWorker()
        assert sweep(config, remote, tmp_path / "killed.journal", observer) == (
            whole,
            StopReason.DONE,
        )
        assert observer.killed
        assert remote.slots == 1


def resources(pool):
    """Return the resources of each worker known to the scheduler."""
    workers = pool.client.sync(pool.client.scheduler.identity)["workers"]
    return [known["resources"] for known in workers.values()]


def test_sweep_uses_worker_restarted_at_same_address(small_dataset, pool, tmp_path, monkeypatch):
    config = make_config(small_dataset, SLOW, trials=5)
    whole, _ = sweep(config, pool, tmp_path / "whole.journal")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with (
        dask_scheduler(tmp_path) as (_, address),
        ExitStack() as workers,
        pool_for(config, scheduler=address) as remote,
    ):
        first = workers.enter_context(dask_worker(address, "--worker-port", port))
        wait_for_workers(remote, 1)

        class ReplaceWorker(SweepObserver):
            replaced = False

            def update(self, status):
                if status.counts.ended >= 2 and not self.replaced:
                    self.replaced = True
                    first.kill()
                    first.wait()
                    workers.enter_context(dask_worker(address, "--worker-port", port))
                    # As if it had all happened between two refreshes.
                    monkeypatch.setattr(worker_pool, "REFRESH_SECONDS", float("inf"))
                    while resources(remote) != [{}]:
                        time.sleep(0.05)
                    monkeypatch.setattr(worker_pool, "REFRESH_SECONDS", 0)

        assert sweep(config, remote, tmp_path / "s.journal", ReplaceWorker()) == (
            whole,
            StopReason.DONE,
        )


def test_sweep_sends_dataset_once_a_machine(small_dataset, tmp_path):
    config = make_config(small_dataset, trials=4)
    store = tmp_path / "other"
    sent = []
    prepare = data_to_workers(small_dataset)

    def counted(client, workers):
        run = client.run

        def spy(function, *arguments, **options):
            sent.append(function.__name__)
            return run(function, *arguments, **options)

        client.run = spy
        errors = prepare(client, workers)
        client.run = run
        return errors

    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address, XDG_CACHE_HOME=str(store)),
        dask_worker(address, XDG_CACHE_HOME=str(store)),
        open_pool(address, 0, config.workers_identity(), counted) as remote,
    ):
        while len(remote.client.nthreads()) < 2:
            time.sleep(0.05)
        wait_for_workers(remote, 2)
        assert sweep(config, remote, tmp_path / "s.journal")[1] is StopReason.DONE
    assert sent.count("receive") == 1
    assert len(list(store.rglob("x_train.npy"))) == 1  # and no flips


def test_sweep_rejects_worker_of_other_instruction_set(small_dataset, full_run, tmp_path):
    config = make_config(small_dataset)

    class Notes(SweepObserver):
        messages = ()

        def note(self, message):
            self.messages = (*self.messages, message)

    ours = config.workers_identity()["instruction_set"]
    assert ours not in (None, "baseline")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address, FMNIST_FAST_ISA="baseline"),
        pool_for(config, scheduler=address) as remote,
    ):
        wait_for_workers(remote, 1, key=lambda pool: len(pool.rejected))
        with pytest.raises(ClusterError) as caught:
            sweep(config, remote, tmp_path / "s.journal")
        assert_contains(str(caught.value), f"set is baseline, and here it is {ours}")
        notes = Notes()
        with dask_worker(address):
            wait_for_workers(remote, 1)
            found = sweep(config, remote, tmp_path / "s.journal", notes)
            assert found == (full_run, StopReason.DONE)
        (message,) = notes.messages
        assert_contains(message, "worker tcp://", "is not used: its instruction set is")


def test_sweep_lost_scheduler_is_an_error_and_resumes(
    small_dataset, pool, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(worker_pool, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(logging.getLogger("distributed"), "propagate", True)
    config, study = make_config(small_dataset, SLOW, trials=8), tmp_path / "s.journal"
    with (
        dask_scheduler(tmp_path) as (scheduler, address),
        dask_worker(address),
        pool_for(config, scheduler=address) as remote,
    ):
        wait_for_workers(remote, 1)

        class KillScheduler(SweepObserver):
            def update(self, status):
                if status.counts.ended >= 2:
                    scheduler.kill()

        with pytest.raises(ClusterError) as caught:
            sweep(config, remote, study, KillScheduler())
        assert_contains(str(caught.value), f"scheduler {address} does not answer any more")
    assert not caplog.messages  # Dask logs nothing beside our one line
    whole = sweep(config, pool, tmp_path / "whole.journal")
    assert sweep(config, pool, study) == whole

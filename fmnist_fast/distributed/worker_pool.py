"""The workers of a Dask cluster: which of them may work for us, and what they do.

A worker gets a resource of a name that only this fleet knows, once it was found to be fit; work
asks for that resource. So a worker that comes later, or is started again, does nothing before it
was looked at, and one that differs does nothing at all.
"""

import asyncio
import logging
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from time import monotonic
from typing import Any, TypeAlias
from uuid import uuid4

import dask
from distributed import Client, Future, LocalCluster, Security, Worker, rpc

from ..errors import ClusterError
from .worker import describe

__all__ = ["Fleet", "Prepare", "open_fleet"]

Prepare: TypeAlias = "Callable[[Client, Sequence[str]], Mapping[str, str]]"

# Seconds to wait for a scheduler, and between two looks at which workers there are.
ANSWER_SECONDS = 10
LOOK_SECONDS = 1.0

# A connection that is away for so long counts as lost: Dask tries for longer, and people wait.
LOST_SECONDS = 3.0

# Workers that cannot be used, of whom people are told why.
SHOWN = 3

# How often a task's worker may die before the task is to blame.
ALLOWED_FAILURES = 3


@dataclass
class Fleet:
    """Workers that may work for us. identity : what they must be, as worker.describe() says it.

    prepare : is given the addresses of new workers, before they work, and says which it could not
    prepare, and why. threads : of each worker that is fit, by address. refused : why others are
    not, by address. generation : another when all workers had gone, and new ones came: Dask gives
    those nothing of what waits for a resource that nobody had.
    """

    client: Client
    identity: dict[str, Any]
    prepare: Prepare
    where: str
    threads: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    resource: str = field(default_factory=lambda: f"fmnist-fast-{uuid4().hex[:12]}")
    generation: int = 0
    _orphaned: bool = False
    _told: set[str] = field(default_factory=set)
    _looked: float = float("-inf")
    _away_since: float | None = None

    @property
    def slots(self) -> int:
        """How many tasks can run at a time."""
        return sum(self.threads.values())

    def look(self, *, now: bool = False) -> None:
        """Admit workers that came, forget those that left; once a second, or now.

        Raises: ClusterError if the scheduler is gone.
        """
        self.check_scheduler()
        if monotonic() - self._looked < LOOK_SECONDS and not now:
            return
        try:
            there = self.client.sync(self.client.scheduler.identity)["workers"]
            # One that was started anew at its old address has not our resource.
            held = {a for a, known in there.items() if self.resource in known["resources"]}
            had_some = bool(self.threads)
            self.threads = {a: n for a, n in self.threads.items() if a in held}
            self._orphaned |= had_some and not self.threads
            self.refused = {a: why for a, why in self.refused.items() if a in there}
            new = [a for a in there if a not in self.threads and a not in self.refused]
            if new:
                self._admit({address: there[address]["nthreads"] for address in new})
            if self._orphaned and self.threads:
                self.generation, self._orphaned = self.generation + 1, False
        except (OSError, TimeoutError):
            self.check_scheduler()  # a worker that left meanwhile is no trouble
        self._looked = monotonic()

    def news(self) -> list[str]:
        """What people should know of the workers and were not told yet.

        Raises: ClusterError if there are workers and none is fit.
        """
        if self.refused and not self.threads:
            named = [f"{address}: {why}" for address, why in self.refused.items()]
            more = f"; and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
            raise ClusterError(f"no worker can be used; {'; '.join(named[:SHOWN])}{more}")
        new = [address for address in self.refused if address not in self._told]
        self._told.update(new)
        return [f"worker {address} is not used: {self.refused[address]}" for address in new]

    def _admit(self, new: dict[str, int]) -> None:
        said = self.client.run(
            describe, self.identity["backend"], workers=list(new), on_error="return"
        )
        fit = [address for address in new if self._is_fit(address, said.get(address))]
        if fit:
            self.refused |= self.prepare(self.client, fit)
        for address in fit:
            if address not in self.refused:
                answers = self.client.run(
                    _grant, self.resource, new[address], workers=[address], on_error="return"
                )
                if answers.get(address) is True:
                    self.threads[address] = new[address]

    def _is_fit(self, address: str, said: Any) -> bool:
        """Whether a worker may work, by what describe() said there; `refused` keeps why not."""
        if said is None or isinstance(said, OSError):
            return False  # it is gone, and if it is not, the next look sees it
        if isinstance(said, Exception):
            self.refused[address] = f"it cannot load fmnist-fast: {said}"
            return False
        for what, ours in self.identity.items():
            if said[what] != ours:
                called = what.replace("_", " ")
                self.refused[address] = f"its {called} is {said[what]}, and here it is {ours}"
                return False
        return True

    def check_scheduler(self) -> None:
        """Raise ClusterError if the scheduler is gone."""
        if self.client.status == "running":
            self._away_since = None
            return
        self._away_since = self._away_since or monotonic()
        if self.client.status == "closed" or monotonic() - self._away_since > LOST_SECONDS:
            raise ClusterError(f"the scheduler {self.where} does not answer any more")

    def submit(self, work: Callable[..., Any], *arguments: Any, name: str) -> Future:
        """Have a worker do it. name : of this task, another for every task."""
        return self.client.submit(
            work,
            *arguments,
            key=f"{self.resource}-{name}",
            resources={self.resource: 1},
            retries=0,
        )

    def release(self) -> None:
        """Take our resource away from the workers."""
        with suppress(OSError, TimeoutError):
            self.client.run(_grant, self.resource, 0, on_error="return")


@contextmanager
def open_fleet(
    scheduler: str | None,
    workers: int,
    identity: dict[str, Any],
    prepare: Prepare,
) -> Iterator[Fleet]:
    """Workers of an existing scheduler, or so many processes of this machine, one thread each,
    which end with the context. Raises: ClusterError if there is no such scheduler.
    """
    for name in ("distributed", "distributed.client"):  # Dask gave both a level
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _configured(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"distributed\.")
        if scheduler:
            with _client_of(scheduler) as client:
                yield from _fleet(Fleet(client, identity, prepare, scheduler))
        else:
            with _local_cluster(workers) as cluster, Client(cluster) as client:
                yield from _fleet(Fleet(client, identity, prepare, cluster.scheduler_address))


@contextmanager
def _local_cluster(workers: int) -> Iterator[LocalCluster]:
    """So many processes of one thread each. Raises: ClusterError if they cannot be started."""
    with ExitStack() as stack:
        stack.enter_context(_environment_kept())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fmnist-fast-"))
        try:
            with _no_ctrl_c():
                cluster = _started(workers, folder)
        except RuntimeError as error:
            raise ClusterError(f"worker processes could not be started: {error}") from error
        yield stack.enter_context(cluster)


def _started(workers: int, folder: str) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        scheduler_port=0,
        dashboard_address=None,
        memory_limit=None,
        local_directory=folder,
        silence_logs=logging.CRITICAL,
    )


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Threads and processes that begin here never hear of Ctrl-C, which a terminal sends to all
    processes of a command: who started them decides what becomes of their work. It comes after.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Which unblocks the signal in the thread that starts it, and starts with the first process.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """What Dask sets for its processes, it sets here: one thread, that all training after it would
    have too.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in before]:
            del os.environ[name]
        os.environ.update(before)


def _fleet(fleet: Fleet) -> Iterator[Fleet]:
    try:
        yield fleet
    finally:
        if fleet.client.status == "running":
            fleet.release()


def _client_of(scheduler: str) -> Client:
    try:
        asyncio.run(asyncio.wait_for(_check_is_scheduler(scheduler), ANSWER_SECONDS))
        return Client(scheduler, timeout=ANSWER_SECONDS)
    except (OSError, TimeoutError, TypeError, ValueError, ImportError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler}: start one with 'dask scheduler', or leave "
            "--scheduler out to use this machine"
        ) from error


async def _check_is_scheduler(address: str) -> None:
    """Raises: ValueError or OSError if something else is there, for which Dask's client would wait
    for ever.
    """
    remote = rpc(address, connection_args=Security().get_connection_args("client"))
    try:
        kind = (await remote.identity())["type"]
    except (MemoryError, OverflowError) as error:  # of a length that was text
        raise ValueError("not Dask's words") from error
    finally:
        await remote.close_rpc()
    if kind != "Scheduler":
        raise ValueError(f"a {kind}")


def _configured() -> Any:
    return dask.config.set(
        {
            "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
            # Dask's own looks at what runs, 100 times a second, at whether its loops still turn, 50
            # times, and at the machine, twice.
            "distributed.worker.profile.enabled": False,
            "distributed.admin.tick.interval": "1s",
            "distributed.admin.system-monitor.interval": "5s",
        }
    )


async def _grant(resource: str, amount: int, dask_worker: Worker) -> bool:
    """So many tasks at a time may ask for the resource on this worker."""
    await dask_worker.set_resources(**{resource: amount})
    return True

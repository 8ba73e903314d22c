"""Worker pool: the workers of a Dask cluster that are equal to this process.

A worker gets a Dask resource, whose name only this pool knows, after its versions were compared and
its data was sent; every task requires that resource. So a worker that joins later, or restarts,
runs nothing before it was compared, and one that differs runs nothing at all. (A worker plugin
cannot do this: it is sent to every process, data included, where one copy a machine is enough, and
the client does not learn why a worker was rejected.)
"""

import asyncio
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeAlias
from uuid import uuid4

import dask
from distributed import Client, Future, LocalCluster, Security, Worker, rpc

from .._signals import terminal_signals_blocked
from ..errors import ClusterError
from .worker import describe

# Sends data to workers; returns why some could not be prepared, by address.
Prepare: TypeAlias = "Callable[[Client, Sequence[str]], Mapping[str, str]]"

CONNECT_SECONDS = 10
REFRESH_SECONDS = 1.0

# A connection lost for so long is an error. Dask keeps trying for longer.
LOST_SECONDS = 3.0

# Rejected workers that an error message names.
MAX_NAMED = 3

DASK_CONFIG = {
    # Deaths of workers after which a task is given up.
    "distributed.scheduler.allowed-failures": 3,
    # Dask samples stacks 100 times a second, event loops 50 times, the machine twice.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


@dataclass
class WorkerPool:
    """Workers that may run tasks.

    identity : what worker.describe() must return there. threads : of accepted workers, by address.
    rejected : why others are not accepted, by address. epoch : incremented when every worker was
    lost and replaced; Dask does not reassign tasks waiting on a resource that no worker had, so
    they are resubmitted.
    """

    client: Client
    identity: dict[str, Any]
    prepare: Prepare
    address: str
    threads: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    resource: str = field(default_factory=lambda: f"fmnist-fast-{uuid4().hex[:12]}")
    epoch: int = 0
    _all_lost: bool = False
    _reported: set[str] = field(default_factory=set)
    _refreshed: float = float("-inf")
    _disconnected: float | None = None

    @property
    def slots(self) -> int:
        """Tasks that can run at a time."""
        return sum(self.threads.values())

    def refresh(self, *, now: bool = False) -> None:
        """Accept or reject new workers, forget lost ones; every REFRESH_SECONDS, or now.

        Raises: ClusterError if the scheduler is gone.
        """
        self.check_scheduler()
        if monotonic() - self._refreshed < REFRESH_SECONDS and not now:
            return
        try:
            workers = self.client.sync(self.client.scheduler.identity)["workers"]
            had_some = bool(self.threads)
            # A worker that restarted at the same address does not have the resource.
            self.threads = {
                address: threads
                for address, threads in self.threads.items()
                if address in workers and self.resource in workers[address]["resources"]
            }
            self._all_lost |= had_some and not self.threads
            self.rejected = {a: why for a, why in self.rejected.items() if a in workers}
            known = self.threads.keys() | self.rejected.keys()
            self._admit({a: w["nthreads"] for a, w in workers.items() if a not in known})
            if self._all_lost and self.threads:
                self.epoch, self._all_lost = self.epoch + 1, False
        except (OSError, TimeoutError):
            self.check_scheduler()  # otherwise only a worker has left
        self._refreshed = monotonic()

    def poll_messages(self) -> list[str]:
        """Return warnings about workers that were not returned before.

        Raises: ClusterError if there are workers and all are rejected.
        """
        if self.rejected and not self.threads:
            named = [f"{address}: {why}" for address, why in self.rejected.items()]
            more = f"; and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
            raise ClusterError(f"no worker can be used; {'; '.join(named[:MAX_NAMED])}{more}")
        new = [address for address in self.rejected if address not in self._reported]
        self._reported.update(new)
        return [f"worker {address} is not used: {self.rejected[address]}" for address in new]

    def _admit(self, new: dict[str, int]) -> None:
        """Accept or reject workers. new : their threads, by address."""
        if not new:
            return
        found = self._run(describe, self.identity["backend"], workers=list(new))
        accepted = [address for address in new if self._accepts(address, found.get(address))]
        if accepted:
            self.rejected |= self.prepare(self.client, accepted)
        for address in accepted:
            if address not in self.rejected:
                done = self._run(_set_resource, self.resource, new[address], workers=[address])
                if done.get(address) is True:
                    self.threads[address] = new[address]

    def _run(self, function: Callable[..., Any], *arguments: Any, workers: list[str]) -> Any:
        return self.client.run(function, *arguments, workers=workers, on_error="return")

    def _accepts(self, address: str, found: Any) -> bool:
        """Compare what describe() returned with `identity`; store in `rejected` what differs."""
        if found is None or isinstance(found, OSError):
            return False  # the worker has left; if not, the next refresh() finds it again
        if isinstance(found, Exception):
            self.rejected[address] = f"it cannot load fmnist-fast: {found}"
            return False
        for name, expected in self.identity.items():
            if found[name] != expected:
                self.rejected[address] = (
                    f"its {name.replace('_', ' ')} is {found[name]}, and here it is {expected}"
                )
                return False
        return True

    def check_scheduler(self) -> None:
        """Raise ClusterError if the scheduler is gone."""
        if self.client.status == "running":
            self._disconnected = None
            return
        self._disconnected = self._disconnected or monotonic()
        if self.client.status == "closed" or monotonic() - self._disconnected > LOST_SECONDS:
            raise ClusterError(f"the scheduler {self.address} does not answer any more")

    def submit(self, function: Callable[..., Any], *arguments: Any, name: str) -> Future:
        """Run function(*arguments) on a worker. name : unique in this pool."""
        return self.client.submit(
            function, *arguments, key=f"{self.resource}-{name}", resources={self.resource: 1}
        )


@contextmanager
def open_pool(
    scheduler: str | None, workers: int, identity: dict[str, Any], prepare: Prepare
) -> Iterator[WorkerPool]:
    """Use the workers of a scheduler, or start `workers` processes of one thread each.

    Raises: ClusterError if there is no such scheduler, or no process can be started.
    """
    for name in ("distributed", "distributed.client"):  # Dask sets a level for both
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(DASK_CONFIG))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"distributed\.")
        if scheduler:
            client = stack.enter_context(_connect(scheduler))
            address = scheduler
        else:
            cluster = stack.enter_context(_local_cluster(workers))
            client = stack.enter_context(Client(cluster))
            address = cluster.scheduler_address
        pool = WorkerPool(client, identity, prepare, address)
        try:
            yield pool
        finally:
            if client.status == "running":
                with suppress(OSError, TimeoutError):
                    client.run(_set_resource, pool.resource, 0, on_error="return")


@contextmanager
def _local_cluster(workers: int) -> Iterator[LocalCluster]:
    """Start worker processes of one thread each. Raises: ClusterError."""
    with _environment_restored(), tempfile.TemporaryDirectory(prefix="fmnist-fast-") as folder:
        try:
            with terminal_signals_blocked():
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    memory_limit=None,
                    local_directory=folder,
                    silence_logs=logging.CRITICAL,
                )
        except RuntimeError as error:
            raise ClusterError(f"worker processes could not be started: {error}") from error
        with cluster:
            yield cluster


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Undo what Dask's nannies set in os.environ: one thread, for all later training, too."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _connect(scheduler: str) -> Client:
    try:
        asyncio.run(asyncio.wait_for(_check_is_scheduler(scheduler), CONNECT_SECONDS))
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, TypeError, ValueError, ImportError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler}: start one with 'dask scheduler', or leave "
            "--scheduler out to use this machine"
        ) from error


async def _check_is_scheduler(address: str) -> None:
    """Raise ValueError or OSError if another program listens there: Client would wait for ever."""
    remote = rpc(address, connection_args=Security().get_connection_args("client"))
    try:
        kind = (await remote.identity())["type"]
    except (MemoryError, OverflowError) as error:  # text taken for the length of a message
        raise ValueError("not Dask's protocol") from error
    finally:
        await remote.close_rpc()
    if kind != "Scheduler":
        raise ValueError(f"a {kind}")


async def _set_resource(resource: str, amount: int, dask_worker: Worker) -> bool:
    """Allow `amount` tasks that require the resource at a time on this worker."""
    await dask_worker.set_resources(**{resource: amount})
    return True

"""What is the overhead of a sweep, and how much faster is it with a second worker?

python benchmarks/sweep_table.py                # some minutes
python benchmarks/sweep_table.py --rounds 1 --trials 4 --late 60    # whether it runs
python benchmarks/sweep_table.py --check        # exit code 1 if a limit is missed

Trials are five epochs of 784-128-64-10, from the random sampler, without pruning. Sweeps with one
and with two workers alternate, after trials that warm up the workers.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter

import click
import psutil
from optuna.distributions import FloatDistribution
from perf_targets import PerfTarget, print_targets

from fmnist_fast import load_dataset
from fmnist_fast.distributed.sweep.config import SweepConfig
from fmnist_fast.distributed.sweep.results import best_trials
from fmnist_fast.distributed.sweep.scheduler import SweepObserver, data_to_workers, run_sweep
from fmnist_fast.distributed.sweep.space import Space, read_space
from fmnist_fast.distributed.sweep.study_store import StudyStore, open_study
from fmnist_fast.distributed.sweep.trial import Result
from fmnist_fast.distributed.worker_pool import WorkerPool, open_pool
from fmnist_fast.training.presets import preset

SPACE = Space(
    {"label_smoothing": FloatDistribution(0.0, 0.1), "lr": FloatDistribution(1e-3, 4e-3, log=True)},
    {"epochs": 5, "hidden": (128, 64)},
)

# The trial whose start is compared with that of a late one, and the trials of each median.
EARLY, AROUND = 10, 20


@dataclass(frozen=True)
class SweepTiming:
    """One sweep. sampling : seconds of the sampler and of its entries in the study."""

    trials: int
    workers: int
    seconds: float
    training: float
    sampling: float

    @property
    def per_minute(self) -> float:
        return 60 * self.trials / self.seconds

    @property
    def overhead(self) -> float:
        """Seconds a trial of a worker that does not train."""
        return (self.workers * self.seconds - self.training) / self.trials


def time_sweep(config: SweepConfig, pool: WorkerPool, folder: Path) -> SweepTiming:
    study = folder / f"{len(list(folder.iterdir()))}.journal"
    with open_study(str(study), "x", config.identity(), maximize=True) as store:
        sampling = time_ask(store)
        start = perf_counter()
        run_sweep(config, store, pool, SweepObserver(), lambda: False)
        seconds = perf_counter() - start
        results = [ranked.result for ranked in best_trials(store, config, config.trials)]
    assert len(results) == config.trials
    training = sum(result.seconds for result in results)
    return SweepTiming(config.trials, pool.slots, seconds, training, sum(sampling))


def time_ask(store: StudyStore) -> list[float]:
    """Record the seconds of every call of ask()."""
    seconds, ask = [], store.ask

    def timed():
        start = perf_counter()
        trial = ask()
        seconds.append(perf_counter() - start)
        return trial

    store.ask = timed  # type: ignore[method-assign]
    return seconds


def start_of_trials(
    config: SweepConfig, sampler: str, late: int, folder: Path
) -> tuple[float, float]:
    """Median seconds to start an early and a late trial, in a study without training."""
    study = folder / f"{sampler}.journal"
    config = replace(config, sampler=sampler, space=read_space())
    with open_study(str(study), "x", config.identity(), maximize=True) as store:
        store.configure(config)
        seconds = time_ask(store)
        result = Result((0.9,), (0.9,), (0.3,), (5,), 1.0)
        for _ in range(late + AROUND // 2):
            store.complete(store.ask(), result)
    early = seconds[EARLY - AROUND // 2 : EARLY + AROUND // 2]
    return median(early), median(seconds[late - AROUND // 2 :])


def memory_of_workers() -> Iterator[tuple[float, float]]:
    """Resident and unique set size of every worker process, MB."""
    for process in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(process.cmdline()):
            info = process.memory_full_info()
            yield info.rss / 1e6, info.uss / 1e6


def measured(trials: int, late: int, rounds: int) -> list[PerfTarget]:
    dataset = load_dataset("fashion-mnist")
    config = SweepConfig(dataset, preset("standard"), SPACE, trials, "random", "none").checked()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        identity, prepare = config.workers_identity(), data_to_workers(dataset)
        pools = [stack.enter_context(open_pool(None, n, identity, prepare)) for n in (1, 2)]
        for pool in pools:
            time_sweep(replace(config, trials=4), pool, folder)
        pairs = [[time_sweep(config, pool, folder) for pool in pools] for _ in range(rounds)]
        memory = list(memory_of_workers())
        starts = {s: start_of_trials(config, s, late, folder) for s in ("random", "qmc")}
    for one in chain(*pairs):
        print(
            f"{one.workers} worker(s): {one.trials} trials in {one.seconds:.2f} s, "
            f"{one.per_minute:.0f} a minute; {1e3 * one.training / one.trials:.0f} ms of training "
            f"a trial, {1e3 * one.overhead:.1f} ms not; {1e3 * one.sampling / one.trials:.1f} ms "
            "to sample"
        )
    print("memory of the workers, resident / unique, MB:", *(f"{r:.0f}/{o:.0f}" for r, o in memory))
    overheads = [1e3 * one.overhead for one, _ in pairs]
    ratios = [two.per_minute / one.per_minute for one, two in pairs]
    rss = max(resident for resident, _ in memory)
    targets = [
        PerfTarget("overhead of a trial, one worker", overheads, "ms", limit=25, at_least=False),
        PerfTarget("two workers over one", ratios, "x", limit=1.8),
        PerfTarget("trials a minute, two workers", [two.per_minute for _, two in pairs], limit=60),
        PerfTarget("memory of a worker, data set included", [rss], "MB", limit=250, at_least=False),
    ]
    for sampler, (early, then) in starts.items():
        name = f"start of trial {late:,} over trial {EARLY}, {sampler}"
        targets.append(PerfTarget(name, [then / early], "x", limit=1.5, at_least=False))
    return targets


@click.command(help=__doc__.partition("\n")[0])
@click.option("--trials", default=40)
@click.option("--late", default=1000, help="The trial that starts late.")
@click.option("--rounds", default=3)
@click.option("--check", is_flag=True)
def main(trials: int, late: int, rounds: int, check: bool) -> None:
    met = print_targets(measured(trials, late, rounds), ("distributed", "optuna"), rounds)
    sys.exit(check and not met)


if __name__ == "__main__":
    main()

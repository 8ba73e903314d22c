"""What is the overhead of a sweep, and how much faster is it with a second worker?

python benchmarks/sweep_table.py                # some minutes
python benchmarks/sweep_table.py --rounds 1 --trials 4 --late 60    # whether it runs
python benchmarks/sweep_table.py --check        # exit code 1 if a limit is missed

Trials are five epochs of 784-128-64-10, from the random sampler, without pruning. Sweeps with one
and with two workers alternate, after trials that warm up the workers.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil
from perf_targets import PerfTarget, print_targets

from fmnist_fast import load_dataset
from fmnist_fast.distributed.sweep.results import best_trials
from fmnist_fast.distributed.sweep.sampler import distributions, make_pruner, make_sampler
from fmnist_fast.distributed.sweep.scheduler import Plan, View, data_to_workers, run_sweep
from fmnist_fast.distributed.sweep.space import Range, Space, read_space
from fmnist_fast.distributed.sweep.study_store import Ledger, open_ledger
from fmnist_fast.distributed.sweep.trial import Result
from fmnist_fast.distributed.worker_pool import Fleet, open_fleet
from fmnist_fast.training.presets import preset

SPACE = Space(
    {"label_smoothing": Range(0.0, 0.1), "lr": Range(1e-3, 4e-3, log=True)},
    {"epochs": 5, "hidden": (128, 64)},
)

# Trials whose beginnings are compared.
EARLY, AROUND = 10, 20


@dataclass(frozen=True)
class Swept:
    """One sweep. choosing : seconds that the sampler and its entry in the study took."""

    trials: int
    workers: int
    seconds: float
    training: float
    choosing: float

    @property
    def per_minute(self) -> float:
        return 60 * self.trials / self.seconds

    @property
    def overhead(self) -> float:
        """Seconds a trial in which a worker did not train."""
        return (self.workers * self.seconds - self.training) / self.trials


def swept(plan: Plan, fleet: Fleet, folder: Path) -> Swept:
    study = folder / f"{len(list(folder.iterdir()))}.journal"
    with open_ledger(str(study), "x", plan.identity(), maximise=True) as ledger:
        choosing = watch(ledger)
        start = perf_counter()
        run_sweep(plan, ledger, fleet, View(), lambda: False)
        seconds = perf_counter() - start
        results = [ranked.result for ranked in best_trials(ledger, plan, plan.trials)]
    assert len(results) == plan.trials
    training = sum(result.seconds for result in results)
    return Swept(plan.trials, fleet.slots, seconds, training, sum(choosing))


def watch(ledger: Ledger) -> list[float]:
    """The seconds of every choice, as they come."""
    seconds, ask = [], ledger.ask

    def timed():
        start = perf_counter()
        asked = ask()
        seconds.append(perf_counter() - start)
        return asked

    ledger.ask = timed  # type: ignore[method-assign]
    return seconds


def start_of_trials(plan: Plan, sampler: str, late: int, folder: Path) -> tuple[float, float]:
    """Median seconds until an early and a late trial has begun, of a study that is not trained."""
    study = folder / f"{sampler}.journal"
    plan = replace(plan, sampler=sampler, space=read_space())
    with open_ledger(str(study), "x", plan.identity(), maximise=True) as ledger:
        space = distributions(plan.space)
        ledger.choose_with(make_sampler(sampler, plan.space, 0, 0), make_pruner("none"), space)
        seconds = watch(ledger)
        result = Result((0.9,), (0.9,), (0.3,), (5,), 1.0)
        for _ in range(late + AROUND // 2):
            ledger.complete(ledger.ask().number, result.value, result.to_dict())
    early = seconds[EARLY - AROUND // 2 : EARLY + AROUND // 2]
    return median(early), median(seconds[late - AROUND // 2 :])


def memory_of_workers() -> Iterator[tuple[float, float]]:
    """(resident, its own alone) of every worker process, MB."""
    for process in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(process.cmdline()):
            info = process.memory_full_info()
            yield info.rss / 1e6, info.uss / 1e6


def measured(trials: int, late: int, rounds: int) -> list[PerfTarget]:
    dataset = load_dataset("fashion-mnist")
    plan = Plan(dataset, preset("standard"), SPACE, trials, "random", "none").checked()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleets = [
            stack.enter_context(
                open_fleet(None, n, plan.workers_identity(), data_to_workers(dataset))
            )
            for n in (1, 2)
        ]
        for fleet in fleets:
            swept(replace(plan, trials=4), fleet, folder)
        turns = [[swept(plan, fleet, folder) for fleet in fleets] for _ in range(rounds)]
        memory = list(memory_of_workers())
        starts = {s: start_of_trials(plan, s, late, folder) for s in ("random", "qmc")}
    for one in chain(*turns):
        print(
            f"{one.workers} worker(s): {one.trials} trials in {one.seconds:.2f} s, "
            f"{one.per_minute:.0f} a minute; {1e3 * one.training / one.trials:.0f} ms of training "
            f"a trial, {1e3 * one.overhead:.1f} ms not; {1e3 * one.choosing / one.trials:.1f} ms "
            "to choose"
        )
    print(
        "memory of the workers, resident / its own, MB:", *(f"{r:.0f}/{o:.0f}" for r, o in memory)
    )
    return [
        PerfTarget(
            "overhead of a trial, one worker",
            [1e3 * one.overhead for one, _ in turns],
            "ms",
            limit=25,
            at_least=False,
        ),
        PerfTarget(
            "two workers over one",
            [two.per_minute / one.per_minute for one, two in turns],
            "x",
            limit=1.8,
        ),
        PerfTarget("trials a minute, two workers", [two.per_minute for _, two in turns], limit=60),
        PerfTarget(
            "memory of a worker, data set included",
            [max(resident for resident, _ in memory)],
            "MB",
            limit=250,
            at_least=False,
        ),
        *(
            PerfTarget(
                f"start of trial {late:,} over trial {EARLY}, {sampler}",
                [then / early],
                "x",
                limit=1.5,
                at_least=False,
            )
            for sampler, (early, then) in starts.items()
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--late", type=int, default=1000, help="the trial that starts late")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    targets = measured(args.trials, args.late, args.rounds)
    met = print_targets(targets, ("distributed", "optuna"), args.rounds)
    return int(args.check and not met)


if __name__ == "__main__":
    sys.exit(main())

"""Does each speed meet its target? Measures them in interleaved rounds, and prints a table.

    python benchmarks/speed_table.py            # some five minutes, on an idle machine
    python benchmarks/speed_table.py --quick    # whether it runs: one round, few rows
    python benchmarks/speed_table.py --check    # exit code 1 if a limit is missed

The measurements are those of `fmnist-fast bench --peers` at batch sizes 64 and 256; epochs on one
and on two threads; and whole runs of the command `train` in a new process. Packages that are not
installed (pip install 'fmnist-fast[bench]') are listed as missing.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
from perf_targets import PerfTarget, print_targets

from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.contenders import BenchConfig, Contender
from fmnist_fast.bench.measurement import Report, measure
from fmnist_fast.bench.rounds import measure_rounds
from fmnist_fast.cli.bench_table import print_report
from fmnist_fast.cli.terminal import make_console

PACKAGES = ("numpy", "numba", "torch", "jax", "scikit-learn", "onnxruntime", "onnx")

QUICK_ROWS = 6400

Seconds = dict[str, list[float]]


class TrainCommand(NamedTuple):
    """One run of `fmnist-fast train` in a new process. peak : bytes of memory."""

    seconds: float
    peak: int
    accuracy: float


def run_child(arguments: list[str]) -> tuple[float, int, str]:
    """Run a command; return seconds, peak memory in bytes, and its output.

    The peak of a process includes what its parent held at the fork: a small one is in between.
    """
    parent = (
        "import json, resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True)\n"
        "seconds = time.perf_counter() - start\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([seconds, peak, done.stdout]))\n"
    )
    command = [sys.executable, "-S", "-c", parent, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, peak, text = json.loads(output)
    return seconds, peak * (1 if sys.platform == "darwin" else 1024), text


def time_train_command(threads: int, epochs: int) -> TrainCommand:
    """Train and save in a new process."""
    program = str(Path(sys.executable).with_name("fmnist-fast"))
    options = ["--epochs", str(epochs), "--threads", str(threads), "--quiet", "--json"]
    with TemporaryDirectory() as folder:
        seconds, peak, text = run_child(
            [program, "train", *options, "--out", f"{folder}/model.safetensors"]
        )
    return TrainCommand(seconds, peak, json.loads(text)["test_accuracy"])


def measure_memory(threads: int) -> float:
    """Return the peak memory of training beyond that of NumPy, in MB."""
    _, numpy, _ = run_child([sys.executable, "-c", "import numpy"])
    return (time_train_command(threads, 1).peak - numpy) / 1e6


def measure_runs(config: BenchConfig, rounds: int) -> dict[str, list[Any]]:
    """Measure the command `train`, and epochs of the cython backend on one and two threads."""
    measurements: dict[str, Callable[[int], Any]] = {
        "train": lambda number: time_train_command(config.threads, 5),
        "memory": lambda number: measure_memory(config.threads),
    }
    with ExitStack() as stack:
        for threads in range(1, min(config.threads, 2) + 1):
            cython = Contender("cython", config._replace(threads=threads))
            stack.callback(cython.close)
            if cython.missing is None:
                cython("prepare")
                measurements[f"threads {threads}"] = partial(cython, "time_epoch")
        return measure_rounds(measurements, rounds)


def seconds_of(report: Report) -> Seconds:
    """Return the seconds of epochs, of each contender and of each of its instruction sets."""
    best = {name: entry.seconds for name, entry in report.best_entries().items()}
    return best | {entry.name: entry.seconds for entry in report.entries if entry.seconds}


def ratios(values: Seconds, slow: str, fast: str) -> list[float] | str:
    """Return slow over fast, round by round, or what is missing."""
    for name in (slow, fast):
        if not values.get(name):
            return f"missing: {name}"
    return [s / f for s, f in zip(values[slow], values[fast])]


def all_targets(small: Report, large: Report, runs: dict[str, list[Any]]) -> Iterator[PerfTarget]:
    """Yield the speeds and their limits. small, large : of batches of 64 and of 256."""
    entries, seconds = small.best_entries(), seconds_of(small)
    rate: list[float] | str = "missing: cython"
    if small.peak_gflops:  # of all rounds: a peak that other load lowered would flatter
        roofline = small.gflop_per_epoch / small.peak_gflops
        rate = [roofline / epoch for epoch in seconds["cython"]]
    yield PerfTarget("cython: rate over the dense fp32 roofline", rate, "", 0.9, 1.3)
    for fast, slow, name, limit, goal in (
        ("cython", "jax", "JAX", 2.5, 4),
        ("cython", "torch", "PyTorch eager", 7, 12),
        ("cython", "scikit-learn", "scikit-learn", 9, 15),
        ("cython", "numpy", "numpy", 3.5, 6),
        ("numba", "numpy", "numpy", 2.5, None),
        ("numba", "cython", "cython", None, 1),
    ):
        yield PerfTarget(f"{fast} over {name}", ratios(seconds, slow, fast), "x", limit, goal)
    two_threads = ratios(runs, "threads 1", "threads 2")
    yield PerfTarget("cython, two threads over one", two_threads, "x", 1.6, 1.9)
    others = seconds_of(large)
    measured = [others[peer] for peer in ("jax", "torch", "numpy") if peer in others]
    others["fastest"] = [min(round_seconds) for round_seconds in zip(*measured)]
    name = "batch 256: cython over the fastest of JAX, PyTorch, NumPy"
    yield PerfTarget(name, ratios(others, "fastest", "cython"), "x", limit=2.5, goal=3.5)
    ours = entries.get("cython")
    one_image = [1e6 * s for s in ours.one_image_seconds] if ours else "missing: cython"
    yield PerfTarget("one image, cython", one_image, "us", 8, 5, False)
    images = {name: entry.images_seconds for name, entry in entries.items()}
    milliseconds = [1e3 * s for s in images["cython"]] if ours else "missing: cython"
    yield PerfTarget("10,000 images, cython", milliseconds, "ms", 8, 5, False)
    over_onnxruntime = ratios(images, "onnxruntime", "cython")
    yield PerfTarget("10,000 images: cython over onnxruntime", over_onnxruntime, "x", 1.7)
    yield PerfTarget("memory of training beyond NumPy's", runs["memory"], "MB", 200, None, False)
    train_seconds = [run.seconds for run in runs["train"]]
    yield PerfTarget("shell to saved model, 5 epochs", train_seconds, "s", 2, 1, False)
    accuracy = [100 * run.accuracy for run in runs["train"]]
    yield PerfTarget("its test accuracy", accuracy, "%", 88)
    avx2 = ratios(seconds, "cython avx512", "cython avx2")
    yield PerfTarget("rate of AVX2 over AVX-512's", avx2, "", 0.75)


@click.command()
@click.option("--rounds", default=5, help="Number of interleaved rounds.")
@click.option("--threads", default=usable_cores(), help="Number of threads.")
@click.option("--quick", is_flag=True, help=f"Measure one round on {QUICK_ROWS:,} rows.")
@click.option("--check", is_flag=True, help="Exit with code 1 if a limit is missed.")
def main(rounds: int, threads: int, quick: bool, check: bool) -> None:
    """Measure, and print the reports and the table of targets."""
    rounds = 1 if quick else rounds
    config = BenchConfig("auto", None, QUICK_ROWS if quick else None, threads, batch_size=64)
    small = measure(config, None, rounds, with_peers=True)
    large = measure(config._replace(batch_size=256), ("cython",), rounds, with_peers=True)
    for report in (small, large):
        print_report(report, make_console())
        if any("another network" in (entry.missing or "") for entry in report.entries):
            sys.exit("a contender does not train the same network")
    targets = all_targets(small, large, measure_runs(config, rounds))
    sys.exit(not print_targets(targets, PACKAGES, rounds) and check)


if __name__ == "__main__":
    main()

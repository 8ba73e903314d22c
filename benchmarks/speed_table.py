"""Does each speed meet its target? Measures them in interleaved rounds, and prints a table.

    python benchmarks/speed_table.py            # some three minutes, on an idle machine
    python benchmarks/speed_table.py --quick    # whether it runs: one round, few rows
    python benchmarks/speed_table.py --check    # exit code 1 if a limit is missed

An epoch of 784-128-64-10 on Fashion-MNIST by every backend, JAX, PyTorch and scikit-learn, at batch
sizes 64 and 256; predictions beside ONNX Runtime; and whole runs of the command `train` in a new
process. Packages that are not installed (pip install 'fmnist-fast[bench]') are listed as missing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from perf_targets import PerfTarget, print_targets

from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.contenders import BenchConfig, Contender
from fmnist_fast.bench.measurement import find_difference
from fmnist_fast.bench.rounds import MAX_SPREAD, measure_rounds, multiply_adds
from fmnist_fast.kernels.interface import NetworkSpec

BACKENDS = ("cython", "numba", "numpy")
TRAINERS = (*BACKENDS, "jax", "torch", "scikit-learn")
PREDICTOR = "onnxruntime"
PACKAGES = ("numpy", "numba", "torch", "jax", "scikit-learn", "onnxruntime", "onnx")

QUICK_ROWS = 6400

Measurements = dict[str, Callable[[int], Any]]


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


def measure_memory(threads: int, number: int) -> float:
    """Return the peak memory of training beyond that of NumPy, in MB."""
    _, numpy, _ = run_child([sys.executable, "-c", "import numpy"])
    return (time_train_command(threads, 1).peak - numpy) / 1e6


def epoch_name(peer: str, batch_size: int, threads: int) -> str:
    return f"{peer}, batch {batch_size}, {threads} thread{'s' * (threads != 1)}"


def check_outputs(
    contenders: dict[str, Contender], epochs: list[tuple[str, int, int]], threads: int
) -> None:
    """Warm up, and check that all compute what the numpy backend does."""
    numpy = contenders["numpy"]
    reference = {batch_size: numpy("prepare", batch_size, threads)[0] for batch_size in (64, 256)}
    found = {}
    for peer, batch_size, n_threads in epochs:
        if peer == "numpy":
            continue
        expected = reference[batch_size]
        if peer == "scikit-learn":
            weights = numpy("weights_with_plain_epsilon", batch_size)
            expected = expected._replace(weights=weights)
        outputs = contenders[peer]("prepare", batch_size, n_threads)
        found[epoch_name(peer, batch_size, n_threads)] = find_difference(outputs, expected)
    if PREDICTOR in contenders:
        outputs = contenders[PREDICTOR]("prepare_predictor")
        found[PREDICTOR] = find_difference(outputs, reference[64])
    for name, difference in found.items():
        if difference:
            sys.exit(f"{name} {difference}")


def time_isa(cython: Contender, instruction_set: str, threads: int, number: int) -> float:
    """Return the seconds of an epoch with these kernels; the widest are selected again after it."""
    cython("select_instruction_set", instruction_set)
    seconds: float = cython("time_epoch", 64, threads, number)
    cython("select_instruction_set", cython("instruction_sets")[0])
    return seconds


def all_measurements(
    contenders: dict[str, Contender], epochs: list[tuple[str, int, int]], threads: int
) -> Measurements:
    """Return every measurement of a round by name."""
    measurements: Measurements = {
        epoch_name(peer, batch_size, n_threads): partial(
            contenders[peer], "time_epoch", batch_size, n_threads
        )
        for peer, batch_size, n_threads in epochs
    }
    for peer in ("cython", PREDICTOR):
        if peer in contenders:
            call = contenders[peer]
            measurements[f"10,000 images, {peer}"] = lambda number, call=call: call("time_images")
    if "cython" in contenders:
        cython = contenders["cython"]
        measurements["peak"] = lambda number: cython("fma_peak")
        measurements["one image"] = lambda number: cython("time_one_image")
        for name in cython("instruction_sets"):
            if name != "baseline":
                measurements[f"cython {name}"] = partial(time_isa, cython, name, threads)
    measurements["train"] = lambda number: time_train_command(threads, 5)
    measurements["memory"] = partial(measure_memory, threads)
    return measurements


def ratios(values: dict[str, list], slow: str, fast: str) -> list[float] | str:
    """Return slow over fast, round by round, or what is missing."""
    for name in (slow, fast):
        if name not in values:
            return f"missing: {name}"
    return [s / f for s, f in zip(values[slow], values[fast])]


def scaled(values: dict[str, list], name: str, factor: float) -> list[float] | str:
    """Return values in another unit, or what is missing."""
    return [factor * v for v in values[name]] if name in values else f"missing: {name}"


def all_targets(values: dict[str, list], gflop: float, threads: int) -> Iterator[PerfTarget]:
    """Yield the speeds and their limits. gflop : arithmetic of an epoch."""

    def epoch(peer: str, batch_size: int = 64, n_threads: int = threads) -> str:
        return epoch_name(peer, batch_size, n_threads)

    def speedup(fast: str, slow: str) -> list[float] | str:
        return ratios(values, epoch(slow), epoch(fast))

    rate: list[float] | str = "missing: cython"
    if "peak" in values:  # of all rounds: a peak that other load lowered would flatter
        rate = [gflop / seconds / max(values["peak"]) for seconds in values[epoch("cython")]]
    yield PerfTarget("cython: rate over the dense fp32 roofline", rate, "", 0.9, 1.3)
    yield PerfTarget("cython over JAX", speedup("cython", "jax"), "x", 2.5, 4)
    yield PerfTarget("cython over PyTorch eager", speedup("cython", "torch"), "x", 7, 12)
    yield PerfTarget("cython over scikit-learn", speedup("cython", "scikit-learn"), "x", 9, 15)
    yield PerfTarget("cython over numpy", speedup("cython", "numpy"), "x", 3.5, 6)
    yield PerfTarget("numba over numpy", speedup("numba", "numpy"), "x", 2.5)
    yield PerfTarget("numba over cython", speedup("numba", "cython"), "x", None, 1)
    one_thread, two_threads = epoch("cython", 64, 1), epoch("cython", 64, 2)
    yield PerfTarget(
        "cython, two threads over one", ratios(values, one_thread, two_threads), "x", 1.6, 1.9
    )
    others = [epoch(peer, 256) for peer in ("jax", "torch", "numpy")]
    measured = [values[name] for name in others if name in values]
    fastest = {**values, "fastest": [min(seconds) for seconds in zip(*measured)]}
    yield PerfTarget(
        "batch 256: cython over the fastest of JAX, PyTorch, NumPy",
        ratios(fastest, "fastest", epoch("cython", 256)),
        "x",
        limit=2.5,
        goal=3.5,
    )
    images, others_images = "10,000 images, cython", f"10,000 images, {PREDICTOR}"
    yield PerfTarget("one image, cython", scaled(values, "one image", 1e6), "us", 8, 5, False)
    yield PerfTarget(images, scaled(values, images, 1e3), "ms", 8, 5, False)
    yield PerfTarget(
        "10,000 images: cython over onnxruntime", ratios(values, others_images, images), "x", 1.7
    )
    yield PerfTarget(
        "memory of training beyond NumPy's", values["memory"], "MB", 200, at_least=False
    )
    seconds = [run.seconds for run in values["train"]]
    yield PerfTarget("shell to saved model, 5 epochs", seconds, "s", 2, 1, False)
    accuracy = [100 * run.accuracy for run in values["train"]]
    yield PerfTarget("its test accuracy", accuracy, "%", 88)
    yield PerfTarget(
        "rate of AVX2 over AVX-512's", ratios(values, "cython avx512", "cython avx2"), "", 0.75
    )


def main() -> int:
    """Measure, and print the table and the seconds behind it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--quick", action="store_true", help=f"one round on {QUICK_ROWS:,} rows")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a limit is missed")
    args = parser.parse_args()
    threads, rounds = args.threads, 1 if args.quick else args.rounds
    config = BenchConfig("auto", None, QUICK_ROWS if args.quick else None, threads)
    with ExitStack() as stack:
        contenders = {peer: Contender(peer, config) for peer in (*TRAINERS, PREDICTOR)}
        for contender in contenders.values():
            stack.callback(contender.close)
            if contender.missing:
                print(f"missing: {contender.peer}: {contender.missing}")
        contenders = {peer: one for peer, one in contenders.items() if one.missing is None}
        epochs = [(peer, 64, threads) for peer in TRAINERS]
        epochs += [(peer, 256, threads) for peer in ("cython", "numpy", "jax", "torch")]
        epochs += [("cython", 64, fewer) for fewer in (1, 2) if fewer < threads]
        epochs = [epoch for epoch in epochs if epoch[0] in contenders]
        dataset, rows, sizes = contenders["numpy"]("workload")
        check_outputs(contenders, epochs, threads)
        values = measure_rounds(all_measurements(contenders, epochs, threads), rounds)
    print(
        f"{dataset}, {rows:,} rows an epoch, {threads} threads\n\nSeconds an epoch: median, minimum"
    )
    timed = {name: v for name, v in values.items() if "thread" in name or "avx" in name}
    for name, seconds in timed.items():
        print(f"- {name}: {median(seconds):.3f}, {min(seconds):.3f}")
    if any(median(seconds) > MAX_SPREAD * min(seconds) for seconds in timed.values()):
        print("in doubt: other processes were running, and epochs differed")
    gflop = 2e-9 * multiply_adds(NetworkSpec(sizes)) * rows
    met = print_targets(all_targets(values, gflop, threads), PACKAGES, rounds)
    return int(args.check and not met)


if __name__ == "__main__":
    sys.exit(main())

"""MLPClassifier beside scikit-learn's: same data, same epochs, in turn. Prints a table.

python benchmarks/estimator_table.py                    # what is promised: some minutes
python benchmarks/estimator_table.py --cases digits,rows --rounds 9
python benchmarks/estimator_table.py --grid             # never slower: sizes from tiny to large
python benchmarks/estimator_table.py --check            # exit code 1 if a promise is broken

Both get the same array and choose the type to compute in: scikit-learn takes float64 for uint8.
Data that is not at hand is generated in its shape. BLAS has as many threads as our kernels.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np
from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from fmnist_fast import MLPClassifier, load_dataset
from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.machine import describe_machine


@dataclass(frozen=True)
class Case:
    """What both are fit to. must : how many times as fast we have to be."""

    must: float
    hidden: tuple[int, ...]
    epochs: int
    make: Callable[[], tuple]  # rows and labels to learn from, rows and labels to judge by


def fashion_mnist(dtype: str) -> tuple:
    """As it comes, pixels 0..255, in uint8; else pixels 0..1."""
    data = load_dataset("fashion-mnist")
    train, test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
    if dtype != "uint8":
        train, test = ((x / 255).astype(dtype) for x in (train, test))
    return train, data.y_train, test, data.y_test


def digits(dtype: str) -> tuple:
    x_ni, y_n = load_digits(return_X_y=True)
    x_ni = (x_ni / 16).astype(dtype)
    return x_ni[:1500], y_n[:1500], x_ni[1500:], y_n[1500:]


def table(rows: int, columns: int, classes: int, dtype: str, seed: int = 0) -> tuple:
    """Normal columns; the label is the nearest of random directions, a tenth of them wrong."""
    rng = np.random.default_rng(seed)
    held = max(rows // 10, 50)
    x_ni = rng.standard_normal((rows + held, columns), np.float32).astype(dtype)
    directions = rng.standard_normal((columns, classes), np.float32)
    y_n = (np.tanh(2 * x_ni) @ directions).argmax(axis=1)
    wrong = rng.random(len(y_n)) < 0.1
    y_n[wrong] = rng.integers(0, classes, wrong.sum())
    y_n[:classes] = np.arange(classes)
    return x_ni[:rows], y_n[:rows], x_ni[rows:], y_n[rows:]


def words(dtype: str) -> tuple:
    """11,000 texts of 100 words of 100,000, some of which say what the text is about."""
    rng = np.random.default_rng(0)
    rows, words, classes, each = 12_000, 100_000, 20, 100
    y_n = rng.integers(0, classes, rows)
    common = (words * rng.power(0.3, (rows, each))).astype(np.int64)
    about = y_n[:, None] * 500 + rng.integers(0, 500, (rows, each))
    column = np.where(rng.random((rows, each)) < 0.1, about, common)
    start = np.arange(0, rows * each + 1, each)
    x_ni = sparse.csr_array((np.ones(rows * each, dtype), column.ravel(), start), (rows, words))
    x_ni.sum_duplicates()
    return x_ni[:11_000], y_n[:11_000], x_ni[11_000:], y_n[11_000:]


FLOATS = ("float64", "float32")
CASES = {
    f"{name} {dtype}": Case(must, hidden, epochs, lambda make=make, dtype=dtype: make(dtype))
    for name, must, hidden, epochs, make, dtypes in (
        ("fashion-mnist", 10, (128, 64), 3, fashion_mnist, ("uint8", *FLOATS)),
        ("digits", 5, (100,), 30, digits, FLOATS),
        ("covtype-shaped", 5, (100,), 1, lambda dtype: table(500_000, 54, 7, dtype), FLOATS),
        ("newsgroups-shaped", 5, (100,), 1, words, FLOATS),
    )
    for dtype in dtypes
}

ROWS_MUST = 10  # one row at a time

# Seconds before every measurement: threads of BLAS spin for a while after they have worked.
SETTLE = 0.2

GRID = [
    (rows, columns, hidden)
    for rows, columns, hidden in product(
        (100, 5_000, 500_000), (1, 20, 2_000), ((1,), (100,), (1_000,))
    )
    if rows * columns * hidden[0] <= 2e10 and rows * columns <= 5e7
]


def fit(model: type, case_data: tuple, hidden: tuple, epochs: int, **more: Any) -> Any:
    estimator = model(
        hidden, max_iter=epochs, tol=0.0, n_iter_no_change=np.inf, random_state=0, **more
    )
    sleep(SETTLE)
    start = perf_counter()
    estimator.fit(*case_data[:2])
    return perf_counter() - start, estimator


def measure(
    data: tuple, hidden: tuple, epochs: int, rounds: int, ours: dict
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of theirs and of ours, round by round, and the accuracy of both."""
    fit(MLPClassifier, tuple(part[:300] for part in data), hidden, 1, **ours)  # loads, compiles
    theirs_s, ours_s, accuracy = [], [], []
    for _ in range(rounds):
        seconds, theirs = fit(neural_network.MLPClassifier, data, hidden, epochs)
        theirs_s.append(seconds)
        seconds, mine = fit(MLPClassifier, data, hidden, epochs, **ours)
        ours_s.append(seconds)
        accuracy = [model.score(*data[2:]) for model in (theirs, mine)]
    return theirs_s, ours_s, accuracy


def one_row_at_a_time(rounds: int, ours: dict, dtype: str) -> tuple[list[float], list[float]]:
    """Seconds of 1,000 calls of predict_proba."""
    data = digits(dtype)
    _, theirs = fit(neural_network.MLPClassifier, data, (100,), 3)
    _, mine = fit(MLPClassifier, data, (100,), 3, **ours)
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for taken, model in zip(seconds, (theirs, mine)):
            sleep(SETTLE)
            start = perf_counter()
            for n in range(1000):
                row = n % len(data[0])
                model.predict_proba(data[0][row : row + 1])
            taken.append(perf_counter() - start)
    return seconds[0], seconds[1]


def line(name: str, theirs: list[float], ours: list[float], must: float, said: str) -> str:
    ratio = median(t / o for t, o in zip(theirs, ours))
    mark = "" if ratio >= must else " **missed**"
    return (
        f"| {name} | {median(theirs):.3f} | {median(ours):.3f} | {ratio:.1f}x | "
        f"{must:g}x{mark} | {said} |"
    )


def lines(args: argparse.Namespace, ours: dict) -> Iterator[str]:
    for name, case in CASES.items():
        if args.cases and not any(name.startswith(part) for part in args.cases.split(",")):
            continue
        data = case.make()
        theirs, mine, accuracy = measure(data, case.hidden, case.epochs, args.rounds, ours)
        yield line(name, theirs, mine, case.must, " / ".join(f"{a:.3f}" for a in accuracy))
    for dtype in FLOATS:
        name = f"rows one by one {dtype}"
        if not args.cases or any(name.startswith(part) for part in args.cases.split(",")):
            yield line(name, *one_row_at_a_time(args.rounds, ours, dtype), ROWS_MUST, "")


def grid_lines(args: argparse.Namespace, ours: dict) -> Iterator[str]:
    for (rows, columns, hidden), dtype in product(GRID, FLOATS):
        data = table(rows, columns, 3, dtype)
        epochs = max(1, min(30, 100_000 // rows))
        theirs, mine, accuracy = measure(data, hidden, epochs, args.rounds, ours)
        name = f"{rows:,} x {columns:,}, hidden {hidden[0]:,}, {dtype}"
        yield line(name, theirs, mine, 1, " / ".join(f"{a:.3f}" for a in accuracy))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", help="names, or how they begin, with commas between them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--grid", action="store_true", help="sizes from tiny to large instead")
    parser.add_argument("--check", action="store_true", help="fail if one is slower than promised")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    ours = {"backend": args.backend}
    print("| | scikit-learn, s | ours, s | ratio | must | accuracy, theirs / ours |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    missed = False
    with threadpool_limits(usable_cores(), user_api="blas"):
        for text in (grid_lines if args.grid else lines)(args, ours):
            missed |= "missed" in text
            print(text, flush=True)
    machine = describe_machine(())
    print(f"\nmedians of {args.rounds} rounds in turn; {machine['cpu']}, {usable_cores()} cores")
    sys.exit(missed and args.check)


if __name__ == "__main__":
    main()

"""How much faster than scikit-learn's is MLPClassifier? Same data, same epochs, interleaved rounds.

python benchmarks/estimator_table.py                    # all cases: some minutes
python benchmarks/estimator_table.py --cases digits,single --rounds 9
python benchmarks/estimator_table.py --grid             # sizes from tiny to large
python benchmarks/estimator_table.py --check            # exit code 1 if a limit is missed

Both get the same array and select the dtype of the computation: scikit-learn takes float64 for
uint8. covtype and newsgroups are generated with the shapes of those data sets. BLAS uses as many
threads as the kernels.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median
from time import perf_counter
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
from fmnist_fast.bench.rounds import measure_rounds, median_ratio


@dataclass(frozen=True)
class Case:
    """A fit. limit : minimum speedup. load : returns training rows, labels, test rows, labels."""

    limit: float
    hidden: tuple[int, ...]
    epochs: int
    load: Callable[[], tuple]


@dataclass(frozen=True)
class Result:
    """Seconds of both, one a round, and their accuracies as text."""

    sklearn: list[float]
    fmnist_fast: list[float]
    accuracies: str = ""

    @property
    def speedup(self) -> float:
        return median_ratio(self.sklearn, self.fmnist_fast) or 0.0


def fashion_mnist(dtype: str) -> tuple:
    """Pixels 0..255 for uint8, else 0..1."""
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
    """Normal columns; labels by random directions, a tenth of them wrong."""
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
    """11,000 texts of 100 words out of 100,000, a tenth of which depend on the class."""
    rng = np.random.default_rng(0)
    rows, words, classes, each = 12_000, 100_000, 20, 100
    y_n = rng.integers(0, classes, rows)
    common = (words * rng.power(0.3, (rows, each))).astype(np.int64)
    topical = y_n[:, None] * 500 + rng.integers(0, 500, (rows, each))
    column = np.where(rng.random((rows, each)) < 0.1, topical, common)
    start = np.arange(0, rows * each + 1, each)
    x_ni = sparse.csr_array((np.ones(rows * each, dtype), column.ravel(), start), (rows, words))
    x_ni.sum_duplicates()
    return x_ni[:11_000], y_n[:11_000], x_ni[11_000:], y_n[11_000:]


FLOATS = ("float64", "float32")
CASES = {
    f"{name} {dtype}": Case(limit, hidden, epochs, partial(load, dtype))
    for name, limit, hidden, epochs, load, dtypes in (
        ("fashion-mnist", 10, (128, 64), 3, fashion_mnist, ("uint8", *FLOATS)),
        ("digits", 5, (100,), 30, digits, FLOATS),
        ("covtype-shaped", 5, (100,), 1, partial(table, 500_000, 54, 7), FLOATS),
        ("newsgroups-shaped", 5, (100,), 1, words, FLOATS),
    )
    for dtype in dtypes
}

SINGLE_ROWS_LIMIT = 10

GRID = [
    (rows, columns, hidden)
    for rows, columns, hidden in product(
        (100, 5_000, 500_000), (1, 20, 2_000), ((1,), (100,), (1_000,))
    )
    if rows * columns * hidden[0] <= 2e10 and rows * columns <= 5e7
]


def fit(model: type, data: tuple, hidden: tuple, epochs: int, **options: Any) -> Any:
    """Fit for exactly so many epochs."""
    estimator = model(
        hidden, max_iter=epochs, tol=0.0, n_iter_no_change=np.inf, random_state=0, **options
    )
    return estimator.fit(*data[:2])


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    start = perf_counter()
    result = function()
    return perf_counter() - start, result


def measure_fit(data: tuple, hidden: tuple, epochs: int, rounds: int, backend: str) -> Result:
    """Fit both in interleaved rounds."""
    few_rows = tuple(part[:300] for part in data)
    fit(MLPClassifier, few_rows, hidden, 1, backend=backend)  # loads and compiles
    fits = {
        "sklearn": partial(fit, neural_network.MLPClassifier, data, hidden, epochs),
        "fmnist_fast": partial(fit, MLPClassifier, data, hidden, epochs, backend=backend),
    }
    results = measure_rounds(
        {name: lambda number, call=call: timed(call) for name, call in fits.items()}, rounds
    )
    seconds = [[taken for taken, _ in results[name]] for name in fits]
    accuracies = [results[name][-1][1].score(*data[2:]) for name in fits]
    return Result(*seconds, " / ".join(f"{accuracy:.3f}" for accuracy in accuracies))


def measure_single_rows(rounds: int, backend: str, dtype: str) -> Result:
    """Call predict_proba for 1,000 single rows in interleaved rounds."""
    data = digits(dtype)
    models = [
        fit(neural_network.MLPClassifier, data, (100,), 3),
        fit(MLPClassifier, data, (100,), 3, backend=backend),
    ]
    rows = [data[0][n : n + 1] for n in range(1000)]

    def predict(number: int, model: Any) -> float:
        return timed(lambda: [model.predict_proba(row) for row in rows])[0]

    names = ("sklearn", "fmnist_fast")
    seconds = measure_rounds(
        {name: partial(predict, model=model) for name, model in zip(names, models)}, rounds
    )
    return Result(seconds["sklearn"], seconds["fmnist_fast"])


def selected_cases(args: argparse.Namespace) -> Iterator[tuple[str, float, Result]]:
    """Yield name, limit and result of the cases."""
    prefixes = tuple(args.cases.split(",")) if args.cases else ("",)
    for name, case in CASES.items():
        if name.startswith(prefixes):
            data = case.load()
            result = measure_fit(data, case.hidden, case.epochs, args.rounds, args.backend)
            yield name, case.limit, result
    for dtype in FLOATS:
        name = f"single rows {dtype}"
        if name.startswith(prefixes):
            yield name, SINGLE_ROWS_LIMIT, measure_single_rows(args.rounds, args.backend, dtype)


def grid_cases(args: argparse.Namespace) -> Iterator[tuple[str, float, Result]]:
    """Yield name, limit and result for sizes from tiny to large."""
    for (rows, columns, hidden), dtype in product(GRID, FLOATS):
        data = table(rows, columns, 3, dtype)
        epochs = max(1, min(30, 100_000 // rows))
        name = f"{rows:,} x {columns:,}, hidden {hidden[0]:,}, {dtype}"
        yield name, 1, measure_fit(data, hidden, epochs, args.rounds, args.backend)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", help="prefixes of names, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--grid", action="store_true", help="sizes from tiny to large instead")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a limit is missed")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("| | scikit-learn, s | fmnist_fast, s | speedup | limit | accuracy |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    missed = False
    with threadpool_limits(usable_cores(), user_api="blas"):
        for name, limit, result in (grid_cases if args.grid else selected_cases)(args):
            missed |= result.speedup < limit
            mark = " **missed**" if result.speedup < limit else ""
            print(
                f"| {name} | {median(result.sklearn):.3f} | {median(result.fmnist_fast):.3f} | "
                f"{result.speedup:.1f}x | {limit:g}x{mark} | {result.accuracies} |",
                flush=True,
            )
    machine = describe_machine(())
    print(
        f"\nmedians of {args.rounds} interleaved rounds; {machine['cpu']}, {usable_cores()} cores"
    )
    return int(missed and args.check)


if __name__ == "__main__":
    sys.exit(main())

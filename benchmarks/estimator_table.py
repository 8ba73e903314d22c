"""How much faster than scikit-learn's is MLPClassifier? Same data, same epochs, interleaved rounds.

python benchmarks/estimator_table.py                    # all cases: some minutes
python benchmarks/estimator_table.py --cases digits,single --rounds 9
python benchmarks/estimator_table.py --grid             # sizes from tiny to large
python benchmarks/estimator_table.py --check            # exit code 1 if a limit is missed

Both get the same array and select the dtype of the computation: scikit-learn takes float64 for
uint8. covtype and newsgroups are generated with the shapes of those data sets. BLAS uses as many
threads as the kernels.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from statistics import median
from time import perf_counter
from typing import Any

import click
import numpy as np
from markdown_tables import markdown_table
from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from fmnist_fast import MLPClassifier, load_dataset
from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.machine import describe_machine
from fmnist_fast.bench.rounds import measure_rounds, median_ratio

Model = Callable[..., Any]
# Seconds of scikit-learn and of fmnist_fast, one a round, and their accuracies as text.
Measured = tuple[list[list[float]], str]


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


def fit(model: Model, data: tuple, hidden: tuple, epochs: int) -> Any:
    """Fit for exactly so many epochs."""
    estimator = model(hidden, max_iter=epochs, tol=0.0, n_iter_no_change=np.inf, random_state=0)
    return estimator.fit(*data[:2])


def timed(call: Callable[[], Any], number: int) -> tuple[float, Any]:
    """Return the seconds of a call, and its result. number : of the round, not used."""
    start = perf_counter()
    result = call()
    return perf_counter() - start, result


def compare(calls: list[Callable[[], Any]], rounds: int) -> tuple[list[list[float]], list[Any]]:
    """Make the calls in interleaved rounds; return the seconds and the last result of each."""
    measurements = {f"call {n}": partial(timed, call) for n, call in enumerate(calls)}
    values = measure_rounds(measurements, rounds).values()
    return [[seconds for seconds, _ in each] for each in values], [each[-1][1] for each in values]


def measure_fit(
    load: Callable[[], tuple], hidden: tuple, epochs: int, models: list[Model], rounds: int
) -> Measured:
    """Fit with both. load : returns training rows, labels, test rows, labels."""
    data = load()
    few_rows = tuple(part[:300] for part in data)
    fit(models[1], few_rows, hidden, 1)  # loads and compiles
    calls = [partial(fit, model, data, hidden, epochs) for model in models]
    seconds, fitted = compare(calls, rounds)
    return seconds, " / ".join(f"{estimator.score(*data[2:]):.3f}" for estimator in fitted)


def measure_single_rows(dtype: str, models: list[Model], rounds: int) -> Measured:
    """Call predict_proba for 1,000 single rows."""
    data = digits(dtype)
    rows = [data[0][n : n + 1] for n in range(1000)]

    def predict(estimator: Any) -> None:
        for row in rows:
            estimator.predict_proba(row)

    calls = [partial(predict, fit(model, data, (100,), 3)) for model in models]
    return compare(calls, rounds)[0], ""


FLOATS = ("float64", "float32")
# Limit of the speedup, and what measures it.
CASES = {
    f"{name} {dtype}": (limit, partial(measure_fit, partial(load, dtype=dtype), hidden, epochs))
    for name, limit, hidden, epochs, load, dtypes in (
        ("fashion-mnist", 10, (128, 64), 3, fashion_mnist, ("uint8", *FLOATS)),
        ("digits", 5, (100,), 30, digits, FLOATS),
        ("covtype-shaped", 5, (100,), 1, partial(table, 500_000, 54, 7), FLOATS),
        ("newsgroups-shaped", 5, (100,), 1, words, FLOATS),
    )
    for dtype in dtypes
}
CASES |= {f"single rows {dtype}": (10, partial(measure_single_rows, dtype)) for dtype in FLOATS}

GRID = {}
for rows, columns, hidden, dtype in product(
    (100, 5_000, 500_000), (1, 20, 2_000), (1, 100, 1_000), FLOATS
):
    if rows * columns * hidden <= 2e10 and rows * columns <= 5e7:
        load, epochs = partial(table, rows, columns, 3, dtype), max(1, min(30, 100_000 // rows))
        name = f"{rows:,} x {columns:,}, hidden {hidden:,}, {dtype}"
        GRID[name] = (1, partial(measure_fit, load, (hidden,), epochs))


@click.command()
@click.option("--cases", default="", help="Prefixes of names, separated by commas.")
@click.option("--rounds", default=5, help="Number of interleaved rounds.")
@click.option("--backend", default="auto")
@click.option("--grid", is_flag=True, help="Measure sizes from tiny to large instead.")
@click.option("--check", is_flag=True, help="Exit with code 1 if a limit is missed.")
def main(cases: str, rounds: int, backend: str, grid: bool, check: bool) -> None:
    """Compare MLPClassifier with scikit-learn's, and print a table."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    models = [neural_network.MLPClassifier, partial(MLPClassifier, backend=backend)]
    missed = []

    def rows() -> Iterator[list[str]]:
        for name, (limit, measure) in (GRID if grid else CASES).items():
            if not name.startswith(tuple(cases.split(","))):
                continue
            seconds, accuracies = measure(models, rounds)
            speedup = median_ratio(*seconds) or 0.0
            mark = ""
            if speedup < limit:
                missed.append(name)
                mark = " **missed**"
            medians = [f"{median(each):.3f}" for each in seconds]
            yield [name, *medians, f"{speedup:.1f}x", f"{limit:g}x{mark}", accuracies]

    titles = ("", "scikit-learn, s", "fmnist_fast, s", "speedup", "limit", "accuracy")
    with threadpool_limits(usable_cores(), user_api="blas"):
        for line in markdown_table(titles, rows()):
            print(line, flush=True)
    cpu = describe_machine(())["cpu"]
    print(f"\nmedians of {rounds} interleaved rounds; {cpu}, {usable_cores()} cores")
    sys.exit(check and bool(missed))


if __name__ == "__main__":
    main()

"""The speeds that this project wants of itself, in one interleaved run. See README.md beside this.

`fmnist-fast bench` measures and reports; this says whether each figure is what is wanted, for
784-128-64-10 at batches of 64 and 256, and measures what needs a new process.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep

import click

from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.contenders import SETTLE, Contender, Form, Setting
from fmnist_fast.bench.machine import machine_facts
from fmnist_fast.bench.measurement import BUSY, difference, multiply_adds
from fmnist_fast.kernels.interface import NetworkSpec

OURS = ("cython", "numba", "numpy")
OTHERS = ("jax", "torch", "scikit-learn")

QUICK_ROWS = 6400

ACCURACY = 0.88
PACKAGES = ("numpy", "numba", "torch", "jax", "scikit-learn", "onnxruntime", "onnx")


def child(arguments: list[str]) -> tuple[float, int, str]:
    """Run a command: seconds, peak memory in bytes, what it printed.

    A process's peak counts what its parent held when it was forked: so a small one is in between.
    """
    between = (
        "import json, resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "seconds = time.perf_counter() - start\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([seconds, peak, done.returncode, done.stdout]))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-S", "-c", between, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, peak, code, text = json.loads(answer.stdout)
    if code:
        raise click.ClickException(f"{' '.join(arguments)} ended with {code}: {answer.stderr}")
    return seconds, peak * (1 if sys.platform == "darwin" else 1024), text


def train_command(threads: int, epochs: int) -> tuple[float, int, float]:
    """A new process that trains and saves: seconds, peak memory, test accuracy."""
    program = Path(sys.executable).with_name("fmnist-fast")
    with TemporaryDirectory() as folder:
        seconds, peak, text = child(
            [
                *(str(program), "train", "--epochs", str(epochs), "--threads", str(threads)),
                *("--quiet", "--json", "--out", f"{folder}/model.safetensors"),
            ]
        )
    return seconds, peak, json.loads(text)["test_accuracy"]


class Ratios(list):
    """slow over fast, round by round. of_leasts : the least of slow over the least of fast."""

    def __init__(self, slow: list[float], fast: list[float]):
        super().__init__(s / f for s, f in zip(slow, fast))
        self.of_leasts = min(slow) / min(fast)


@dataclass
class Row:
    """A line of the table. values : one a round; the median counts. None for must or aim: none."""

    what: str
    values: list[float] | str
    unit: str
    must: float | None = None
    aim: float | None = None
    least: bool = True  # whether the figure must be at least that, or at most

    def line(self) -> tuple[str, ...]:
        """The cells."""
        sign = ">=" if self.least else "<="
        wanted = ["" if v is None else f"{sign} {v:g}{self.unit}" for v in (self.must, self.aim)]
        if isinstance(self.values, str):
            return self.what, self.values, "", "", *wanted, "not measured"
        figure = median(self.values)
        spread = f"{min(self.values):.3g} .. {max(self.values):.3g}"
        best = f"{self.values.of_leasts:.3g}" if isinstance(self.values, Ratios) else ""
        return self.what, f"{figure:.3g}{self.unit}", spread, best, *wanted, self.verdict(figure)

    def verdict(self, figure: float) -> str:
        """Which of must and aim the figure meets."""

        def met(bound: float) -> bool:
            return figure >= bound if self.least else figure <= bound

        if self.aim is not None and met(self.aim):
            return "aim met"
        if self.must is None:
            return "aim not met"
        return "must met" if met(self.must) else "MUST NOT MET"


class Table:
    """All measurements, and the rows that follow from them."""

    def __init__(self, contenders: dict[str, Contender], threads: int):
        self.contenders, self.threads = contenders, threads
        self.seconds: dict[str, list[float]] = {}
        self.epochs = [(p, 64, threads) for p in (*OURS, *OTHERS)]
        self.epochs += [(p, 256, threads) for p in ("cython", "numpy", "jax", "torch")]
        if threads > 1:
            self.epochs.append(("cython", 64, 1))
        if threads > 2:
            self.epochs.append(("cython", 64, 2))
        self.epochs = [entry for entry in self.epochs if self.here(entry[0])]
        self.dataset, self.count, sizes = contenders["numpy"]("facts")
        self.spec, self.sets = NetworkSpec(sizes), ()
        if self.here("cython"):
            self.sets = contenders["cython"]("instruction_sets")

    def here(self, peer: str) -> bool:
        """Whether the contender is there."""
        return self.contenders[peer].missing is None

    def name(self, peer: str, batch: int, threads: int) -> str:
        """How a measured epoch is called."""
        return f"{peer}, batch {batch}, {threads} thread{'s' * (threads != 1)}"

    def prepare(self) -> None:
        """Warm up, and check that all train the same network."""
        truth = {
            batch: self.contenders["numpy"]("prepare", batch, self.threads)[0]
            for batch in (64, 256)
        }
        for peer, batch, threads in self.epochs:
            if peer == "numpy":
                continue
            expected = truth[batch]
            if peer == "scikit-learn":
                weights = self.contenders["numpy"]("plain_epsilon", batch)
                expected = expected._replace(weights=weights)
            self.check(peer, "prepare", expected, batch, threads)
        if self.here("onnxruntime"):
            self.check("onnxruntime", "predict_only", truth[64])

    def check(self, peer: str, method: str, expected: Form, *arguments: int) -> None:
        """It must compute what the numpy backend does."""
        reason = difference(self.contenders[peer](method, *arguments), expected)
        if reason:
            raise click.ClickException(f"{peer} {reason}")

    def round(self, number: int) -> None:
        """Measure all, once."""
        for peer, batch, threads in self.epochs:
            seconds = self.contenders[peer]("epoch", batch, threads, number)
            self.add(self.name(peer, batch, threads), seconds)
        for peer in ("cython", "onnxruntime"):
            if self.here(peer):
                self.add(f"10,000 images, {peer}", self.contenders[peer]("all_images"))
        if self.here("cython"):
            cython = self.contenders["cython"]
            self.add("peak", cython("peak"))
            self.add("one image", cython("one_image"))
            for name in ("avx512", "avx2"):
                if name in self.sets:
                    cython("use", name)
                    self.add(f"cython, {name}", cython("epoch", 64, self.threads, number))
            cython("use", self.sets[0])
        sleep(SETTLE)
        seconds, _, accuracy = train_command(self.threads, 5)
        self.add("shell to model", seconds)
        self.add("accuracy", accuracy)
        _, base, _ = child([sys.executable, "-c", "import numpy"])
        _, peak, _ = train_command(self.threads, 1)
        self.add("memory", (peak - base) / 1e6)

    def add(self, name: str, value: float) -> None:
        """Note one value of this round."""
        self.seconds.setdefault(name, []).append(value)

    def of(self, peer: str, batch: int = 64, threads: int | None = None) -> list[float] | str:
        """Seconds of its epochs, or why there are none."""
        if not self.here(peer):
            return "missing"
        key = self.name(peer, batch, threads or self.threads)
        return self.seconds.get(key, "not with this number of threads")

    def rows(self) -> Iterator[Row]:
        """The table."""
        cython, numba, numpy = self.of("cython"), self.of("numba"), self.of("numpy")
        work = 2e-9 * multiply_adds(self.spec) * self.count
        rate: list[float] | str = cython
        if not isinstance(cython, str):
            # The best round's: a peak that somebody else's work lowered would flatter.
            rate = [work / s / max(self.seconds["peak"]) for s in cython]
        yield Row("cython: rate over the dense fp32 roofline", rate, "", 0.9, 1.3)
        yield Row("cython against JAX", ratios(self.of("jax"), cython), "x", 2.5, 4)
        yield Row("cython against PyTorch eager", ratios(self.of("torch"), cython), "x", 7, 12)
        theirs = self.of("scikit-learn")
        yield Row("cython against scikit-learn", ratios(theirs, cython), "x", 9, 15)
        yield Row("cython against numpy", ratios(numpy, cython), "x", 3.5, 6)
        yield Row("numba against numpy", ratios(numpy, numba), "x", 2.5)
        yield Row("numba against cython", ratios(cython, numba), "x", None, 1)
        one, two = self.of("cython", threads=1), self.of("cython", threads=2)
        yield Row("cython, two threads over one", ratios(one, two), "x", 1.6, 1.9)
        fastest = fastest_of([self.of(p, 256) for p in ("jax", "torch", "numpy")])
        over = ratios(fastest, self.of("cython", 256))
        yield Row(
            "batch 256: cython against the fastest of JAX, PyTorch, NumPy", over, "x", 2.5, 3.5
        )
        yield Row("one image, cython", self.scaled("one image", 1e6), " us", 8, 5, least=False)
        ours = "10,000 images, cython"
        yield Row(ours, self.scaled(ours, 1e3), " ms", 8, 5, least=False)
        over = ratios(self.scaled("10,000 images, onnxruntime", 1), self.scaled(ours, 1))
        yield Row("10,000 images: cython against onnxruntime", over, "x", 1.7)
        yield Row(
            "training's memory above NumPy's", self.scaled("memory", 1), " MB", 200, least=False
        )
        yield Row(
            "shell to saved model, 5 epochs", self.scaled("shell to model", 1), " s", 2, 1, False
        )
        yield Row("its test accuracy", self.scaled("accuracy", 100), " %", 100 * ACCURACY)
        wide, narrow = (self.scaled(f"cython, {name}", 1) for name in ("avx512", "avx2"))
        yield Row("AVX2's rate over AVX-512's", ratios(wide, narrow), "", 0.75)

    def scaled(self, name: str, factor: float) -> list[float] | str:
        """Measured values in another unit."""
        if name not in self.seconds:
            return "missing"
        return [factor * value for value in self.seconds[name]]


def ratios(slow: list[float] | str, fast: list[float] | str) -> list[float] | str:
    """slow over fast, round by round; or what is missing."""
    for side in (slow, fast):
        if isinstance(side, str):
            return side
    return Ratios(slow, fast)


def fastest_of(sides: list[list[float] | str]) -> list[float] | str:
    """The least of those that are there, round by round."""
    there = [side for side in sides if not isinstance(side, str)]
    return [min(values) for values in zip(*there)] if there else "missing"


def header(table: Table, rounds: int) -> str:
    """On what, with what and when this was measured."""
    facts = machine_facts(PACKAGES)
    versions = (f"{name} {number or 'missing'}" for name, number in facts["versions"].items())
    return (
        f"{facts['date']}; {facts['cpu']}; {facts['usable_cores']} usable cores, "
        f"{table.threads} threads, instruction set {table.sets[0] if table.sets else 'none'}\n"
        f"{table.dataset}, {table.count} rows an epoch, n = {rounds} rounds; " + ", ".join(versions)
    )


def print_cells(lines: list[tuple[str, ...]]) -> None:
    """Cells in columns."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        click.echo("  ".join(f"{cell:{w}}" for cell, w in zip(line, widths)).rstrip())


@contextmanager
def all_contenders(threads: int, rows: int | None) -> Iterator[dict[str, Contender]]:
    """Every contender's process, running; ended on the way out."""
    found: dict[str, Contender] = {}
    setting = Setting("auto", None, rows, threads)
    try:
        for peer in (*OURS, *OTHERS, "onnxruntime"):
            found[peer] = Contender(peer, setting)
        yield found
    finally:
        for contender in found.values():
            contender.close()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How often everything is measured, in turn.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads for all.  [default: usable cores]")
@click.option(
    "--quick",
    is_flag=True,
    help=f"One round on {QUICK_ROWS:,} rows: shows that the script works; the figures mean little.",
)
def main(rounds: int, threads: int | None, quick: bool) -> None:
    """Print the project's whole speed table, measured in one interleaved run.

    Compares an epoch of 784-128-64-10 on Fashion-MNIST by every backend with JAX, PyTorch and
    scikit-learn, predictions with ONNX Runtime, and prints whether each figure meets what is
    wanted. Takes about three minutes; wants a machine that does nothing else. Packages that are not
    installed (pip install 'fmnist-fast[bench]') are named as missing.
    """
    threads, rounds = threads or usable_cores(), 1 if quick else rounds
    with all_contenders(threads, QUICK_ROWS if quick else None) as contenders:
        table = Table(contenders, threads)
        table.prepare()
        for number in range(1, rounds + 1):
            table.round(number)
        click.echo(header(table, rounds) + "\n")
        lines = [("what", "median", "least .. most", "of leasts", "must", "aim", "verdict")]
        print_cells(lines + [row.line() for row in table.rows()])
        click.echo("\nSeconds an epoch")
        timed = {name: v for name, v in table.seconds.items() if "thread" in name or "avx" in name}
        lines = [("", "median", "least")]
        print_cells(lines + [(n, f"{median(v):.3f}", f"{min(v):.3f}") for n, v in timed.items()])
        if "peak" in table.seconds:
            peak = table.seconds["peak"]
            click.echo(f"\nFMA peak, GFLOP/s: median {median(peak):.0f}, most {max(peak):.0f}")
        if any(median(values) > BUSY * min(values) for values in timed.values()):
            click.echo("The same epochs differed: the machine was busy, and no verdict is sure.")
        for peer, contender in contenders.items():
            if contender.missing:
                click.echo(f"missing: {peer}: {contender.missing}")


if __name__ == "__main__":
    main()

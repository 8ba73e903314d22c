"""Rounds in which all contenders are measured in turn, and the result.

Machines are shared and noisy, and the same code varies by a half and more: what is compared is
measured in turn, round by round; ratios are taken within a round, and their median is the figure.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import numpy as np

from ..errors import UserError
from ..kernels.interface import NetworkSpec
from ..nn.backend import BACKEND_NAMES, get_backend
from .contenders import CHECKED_STEPS, IMAGES, Contender, Form, Setting
from .machine import machine_facts
from .peers import LR, PACKAGES

__all__ = ["BUSY", "BUSY_LOAD", "Entry", "Report", "difference", "measure", "multiply_adds"]

TRAINERS = ("jax", "torch", "scikit-learn")
PREDICTOR = "onnxruntime"

# A median above this multiple of the least: others were at work. So they were if the load average
# was above this before the run.
BUSY, BUSY_LOAD = 1.2, 0.7

# Seconds of an epoch below which starting threads and calls counts.
SHORT = 0.02

# Share of the weights that may differ by more: where a gradient is zero but for rounding, Adam
# takes a whole step in one direction or the other.
STRAYS = 1e-3

Progress = Callable[[str, int, int], None]


@dataclass
class Entry:
    """What was measured of one contender, with the loops of one instruction set.

    missing : why nothing was measured, else None. ours : whether it is a backend of this project.
    seconds : of an epoch, one a round; one_image_seconds, images_seconds : of predicting one image
    and `Report.images` images, one a round; their medians beside them.
    speedup : the numpy backend's seconds over these, the median of the rounds' ratios.
    gflops : an epoch's arithmetic as if no pixel were zero, a second. of_peak : that, over the
    processor's. phase_seconds : of an epoch by phase, medians of the rounds.
    """

    name: str
    ours: bool
    instruction_set: str | None = None
    missing: str | None = None
    seconds: list[float] = field(default_factory=list)
    seconds_median: float | None = None
    seconds_least: float | None = None
    samples_per_second: float | None = None
    gflops: float | None = None
    of_peak: float | None = None
    speedup: float | None = None
    one_image_seconds: list[float] = field(default_factory=list)
    one_image_median: float | None = None
    images_seconds: list[float] = field(default_factory=list)
    images_median: float | None = None
    phase_seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Report:
    """The result of `measure`, of plain types: what --json prints.

    peak_gflops : of fused multiply-adds in float32 on all threads, the best of the rounds; None
    without the cython backend, which measures it.
    """

    machine: dict[str, Any]
    dataset: str
    rows: int
    sizes: list[int]
    batch_size: int
    threads: int
    rounds: int
    peak_gflops: float | None
    gflop_per_epoch: float
    images: int
    entries: list[Entry]

    def doubts(self) -> Iterator[str]:
        """Why these figures may say little: sentences."""
        load = self.machine["load_before"]
        if load is not None and load > BUSY_LOAD:
            yield f"the machine was busy before the run: its load was {load:.1f}"
        timed = [entry for entry in self.entries if entry.seconds]
        apart = [e.name for e in timed if (e.seconds_median or 0) > BUSY * min(e.seconds)]
        if apart:
            yield f"others were at work: epochs of {', '.join(apart)} differ by more than a fifth"
        if self.threads > self.machine["usable_cores"]:
            yield f"{self.threads} threads share {self.machine['usable_cores']} usable cores"
        if any((entry.seconds_median or 1) < SHORT for entry in timed):
            yield "an epoch of so few rows is too short to be measured well"

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Report":
        """What to_json made."""
        entries = [Entry(**entry) for entry in document["entries"]]
        return cls(**{**document, "entries": entries})


def multiply_adds(spec: NetworkSpec) -> int:
    """Of one sample forward and backward: three products a layer, of which the first layer's inputs
    need only two."""
    products = [i * o for i, o in spec.shapes]
    return 2 * sum(products) + sum(products[1:])


def difference(forms: list[Form], truth: Form) -> str | None:
    """All must train the same network before they are timed: what one does else, or None.

    A step moves a weight by about LR, so a tenth of one step tells a wrong gradient from the
    rounding of a few steps of float32. Probabilities of float32 agree to some 1e-6.
    """
    for form in forms:
        if not np.abs(form.probabilities - truth.probabilities).max() < 1e-5:
            return "computes another network, and is not measured"
        for weights, expected in zip(form.weights, truth.weights):
            off = np.abs(weights - expected)
            if not (np.quantile(off, 1 - STRAYS) < 0.1 * LR and off.max() < 2 * CHECKED_STEPS * LR):
                return "trains another network, and is not measured"
    return None


class _Measured:
    """An entry, and how its contender is asked."""

    def __init__(self, contender: Contender, instruction_set: str | None, ours: bool) -> None:
        self.contender, self.instruction_set = contender, instruction_set
        name = contender.peer + (f" {instruction_set}" if instruction_set else "")
        self.entry = Entry(name, ours, instruction_set, contender.missing)
        self.phases: list[dict[str, float]] = []

    def prepare(self, batch: int, threads: int) -> list[Form]:
        """Warm up; what it computed, to be checked."""
        if self.instruction_set:
            self.contender("use", self.instruction_set)
        if self.contender.peer == PREDICTOR:
            return list(self.contender("predict_only"))
        return list(self.contender("prepare", batch, threads))

    def round(self, number: int, batch: int, threads: int) -> None:
        """Measure it once."""
        entry, ask = self.entry, self.contender
        if self.instruction_set:
            ask("use", self.instruction_set)
        if ask.peer != PREDICTOR:
            entry.seconds.append(ask("epoch", batch, threads, number))
        entry.one_image_seconds.append(ask("one_image"))
        entry.images_seconds.append(ask("all_images"))
        if entry.ours:
            self.phases.append(ask("phases", batch, number))

    def finish(self, rows: int, gflop: float, peak: float | None, numpy: list[float]) -> None:
        """Fill in what follows from the rounds."""
        entry = self.entry
        entry.one_image_median = median(entry.one_image_seconds)
        entry.images_median = median(entry.images_seconds)
        if self.phases:
            entry.phase_seconds = {
                phase: median(round_[phase] for round_ in self.phases) for phase in self.phases[0]
            }
        if entry.seconds:
            entry.seconds_median, entry.seconds_least = median(entry.seconds), min(entry.seconds)
            entry.samples_per_second = rows / entry.seconds_median
            entry.gflops = gflop / entry.seconds_median
            entry.of_peak = entry.gflops / peak if peak else None
            entry.speedup = median(n / s for n, s in zip(numpy, entry.seconds))


def measure(
    setting: Setting,
    backends: tuple[str, ...] | None,
    batch_size: int,
    rounds: int,
    with_peers: bool,
    progress: Progress = lambda *_: None,
) -> Report:
    """Measure backends of ours, and peers if wanted; the numpy backend always, to compare with.

    backends : names; None for all, where one that is missing is an entry that says so.
    progress : told what is being done, how many measurements are done, and of how many.
    Raises: BackendUnavailable for a backend that was named and is not there; UserError.
    """
    packages = ("numpy", "numba", *(name for names in PACKAGES.values() for name in names))
    machine = machine_facts(packages if with_peers else packages[:2])
    for name in backends or ():
        if name not in BACKEND_NAMES:
            raise UserError(f"unknown backend {name!r}: choose from {', '.join(BACKEND_NAMES)}")
        get_backend(name)
    ours = [name for name in BACKEND_NAMES if not backends or name in (*backends, "numpy")]
    others = [*TRAINERS, PREDICTOR] if with_peers else []
    with ExitStack() as stack:
        contenders = {}
        for peer in dict.fromkeys((*ours, *others, "cython")):  # cython also measures the peak
            progress(f"starting {peer}", 0, 1)
            contenders[peer] = Contender(peer, setting)
            stack.callback(contenders[peer].close)
        meter = contenders["cython"]
        dataset, rows, sizes = contenders["numpy"]("facts")
        if batch_size > rows:
            raise UserError(f"batch size {batch_size} is above the {rows} rows of {dataset}")
        everybody = [
            _Measured(contenders[peer], instruction_set, peer in ours)
            for peer in (*ours, *others)
            for instruction_set in _instruction_sets(contenders[peer])
        ]
        _prepare(everybody, contenders["numpy"], setting.threads, batch_size, progress)
        measured = [one for one in everybody if one.entry.missing is None]
        peaks: list[float] = []
        for number in range(rounds):
            for n, one in enumerate(measured):
                text = f"round {number + 1} of {rounds}: {one.entry.name}"
                progress(text, number * len(measured) + n, rounds * len(measured))
                one.round(number + 1, batch_size, setting.threads)
            if meter.missing is None:
                meter("use", meter("instruction_sets")[0])
                peaks.append(meter("peak"))
        gflop = 2e-9 * multiply_adds(NetworkSpec(sizes)) * rows
        numpy = next(one.entry.seconds for one in measured if one.entry.name == "numpy")
        for one in measured:
            one.finish(rows, gflop, max(peaks, default=None), numpy)
        return Report(
            machine,
            dataset,
            rows,
            list(sizes),
            batch_size,
            setting.threads,
            rounds,
            max(peaks, default=None),
            gflop,
            IMAGES,
            [one.entry for one in everybody],
        )


def _instruction_sets(contender: Contender) -> Iterator[str | None]:
    if contender.peer == "cython" and contender.missing is None:
        yield from contender("instruction_sets")
    else:
        yield None


def _prepare(
    everybody: list[_Measured], numpy: Contender, threads: int, batch: int, progress: Progress
) -> None:
    """Let all that are there warm up, and check that they compute the same; who does not is
    not measured."""
    truth = numpy("prepare", batch, threads)[0]
    for n, one in enumerate(everybody):
        if one.entry.missing is not None or one.contender is numpy:
            continue
        progress(f"warming up {one.entry.name}", n, len(everybody))
        expected = truth
        if one.entry.name == "scikit-learn":
            expected = truth._replace(weights=numpy("plain_epsilon", batch))
        one.entry.missing = difference(one.prepare(batch, threads), expected)

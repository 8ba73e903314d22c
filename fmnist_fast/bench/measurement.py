"""Measurement of all contenders in interleaved rounds, and its report."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from ..errors import UserError
from ..kernels.interface import NetworkSpec
from ..nn.backend import BACKEND_NAMES, get_backend
from .contenders import N_IMAGES, BenchConfig, Contender, Outputs
from .machine import describe_machine
from .peers import LR, PACKAGES
from .rounds import (
    CHECKED_STEPS,
    MAX_LOAD,
    MAX_SPREAD,
    Progress,
    measure_rounds,
    median_ratio,
    multiply_adds,
)

TRAINERS = ("jax", "torch", "scikit-learn")
PREDICTOR = "onnxruntime"

# Below this, the seconds of an epoch are mostly those of starting threads and of calls.
MIN_EPOCH_SECONDS = 0.02

# Fraction of the weights that may differ by more: where a gradient is zero but for rounding, Adam
# takes a whole step in one direction or the other.
OUTLIER_FRACTION = 1e-3


@dataclass
class Entry:
    """Measurements of one contender, with the kernels of one instruction set.

    missing : why nothing was measured, else None. ours : whether it is a backend of this project.
    seconds : of an epoch, one a round; one_image_seconds, images_seconds : of predicting one image
    and `Report.images` images, one a round; each with its median. speedup : the numpy backend's
    seconds over these, the median of the rounds' ratios. gflops : arithmetic per second, as if no
    pixel were zero. of_peak : that, over the processor's peak. phase_seconds : of an epoch by
    phase, medians of the rounds.
    """

    name: str
    ours: bool
    instruction_set: str | None = None
    missing: str | None = None
    seconds: list[float] = field(default_factory=list)
    seconds_median: float | None = None
    seconds_min: float | None = None
    samples_per_second: float | None = None
    gflops: float | None = None
    of_peak: float | None = None
    speedup: float | None = None
    one_image_seconds: list[float] = field(default_factory=list)
    one_image_median: float | None = None
    images_seconds: list[float] = field(default_factory=list)
    images_median: float | None = None
    phase_seconds: dict[str, float] = field(default_factory=dict)

    def summarize(
        self, rows: int, gflop: float, peak_gflops: float | None, numpy_seconds: list[float]
    ) -> None:
        """Compute what follows from `seconds`. gflop : arithmetic of an epoch of these rows."""
        if not self.seconds:
            return
        self.seconds_median, self.seconds_min = median(self.seconds), min(self.seconds)
        self.samples_per_second = rows / self.seconds_median
        self.gflops = gflop / self.seconds_median
        self.of_peak = self.gflops / peak_gflops if peak_gflops else None
        self.speedup = median_ratio(numpy_seconds, self.seconds)


@dataclass
class Report:
    """The result of `measure`, of plain types: what --json prints.

    peak_gflops : of fused multiply-adds in float32 on all threads, the maximum of the rounds; None
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
        """Yield reasons why the figures may be unreliable."""
        load = self.machine["load_before"]
        if load is not None and load > MAX_LOAD:
            yield f"the machine was busy before the run: its load was {load:.1f}"
        timed = [entry for entry in self.entries if entry.seconds]
        noisy = [e.name for e in timed if (e.seconds_median or 0) > MAX_SPREAD * min(e.seconds)]
        if noisy:
            yield (
                f"other processes were running: epochs of {', '.join(noisy)} differ by more than a "
                "fifth"
            )
        if self.threads > self.machine["usable_cores"]:
            yield f"{self.threads} threads share {self.machine['usable_cores']} usable cores"
        if any((entry.seconds_median or 1) < MIN_EPOCH_SECONDS for entry in timed):
            yield "an epoch of so few rows is too short to be measured well"

    def best_entries(self) -> dict[str, Entry]:
        """Return the first entry of each contender that was measured: its widest instructions."""
        best: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.missing is None:
                best.setdefault(entry.name.split()[0], entry)
        return best

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Report":
        """Make a report from its fields, as `asdict` returns them."""
        entries = [Entry(**entry) for entry in document["entries"]]
        return cls(**{**document, "entries": entries})


def find_difference(found: list[Outputs], expected: Outputs) -> str | None:
    """Return how a contender's outputs differ from the reference; None if they agree.

    A step moves a weight by about LR, so a tenth of one step tells a wrong gradient from the
    rounding of a few steps of float32. Probabilities of float32 agree to some 1e-6.
    """
    for outputs in found:
        if not np.abs(outputs.probabilities - expected.probabilities).max() < 1e-5:
            return "computes another network, and is not measured"
        for weights, reference in zip(outputs.weights, expected.weights):
            error = np.abs(weights - reference)
            usual = np.quantile(error, 1 - OUTLIER_FRACTION)
            if not (usual < 0.1 * LR and error.max() < 2 * CHECKED_STEPS * LR):
                return "trains another network, and is not measured"
    return None


class _Candidate:
    """A contender with the kernels of one instruction set, and the entry of its measurements."""

    def __init__(self, contender: Contender, instruction_set: str | None, ours: bool) -> None:
        self.contender, self.instruction_set = contender, instruction_set
        name = contender.peer + (f" {instruction_set}" if instruction_set else "")
        self.entry = Entry(name, ours, instruction_set, contender.missing)
        self.phases: list[dict[str, float]] = []

    def _select(self) -> None:
        if self.instruction_set:
            self.contender("select_instruction_set", self.instruction_set)

    def prepare(self) -> list[Outputs]:
        """Warm up; return the outputs to be checked."""
        self._select()
        outputs: list[Outputs] = self.contender("prepare")
        return outputs

    def measure(self, number: int) -> None:
        """Measure one round, and update the entry."""
        call, entry = self.contender, self.entry
        self._select()
        if call.peer != PREDICTOR:
            entry.seconds.append(call("time_epoch", number))
        entry.one_image_seconds.append(call("time_one_image"))
        entry.one_image_median = median(entry.one_image_seconds)
        entry.images_seconds.append(call("time_images"))
        entry.images_median = median(entry.images_seconds)
        if entry.ours:
            self.phases.append(call("time_phases", number))
            entry.phase_seconds = {
                phase: median(one[phase] for one in self.phases) for phase in self.phases[0]
            }


def measure(
    config: BenchConfig,
    backends: tuple[str, ...] | None,
    rounds: int,
    with_peers: bool,
    progress: Progress = lambda *_: None,
) -> Report:
    """Measure backends, and peers if wanted; the numpy backend always, as the reference.

    backends : names; None for all, where one that is missing has an entry with the reason.
    progress : called with a description, the measurements done, and their total.
    Raises: BackendUnavailable for a backend that is named and missing; UserError.
    """
    packages = ("numpy", "numba", *(name for names in PACKAGES.values() for name in names))
    machine = describe_machine(packages if with_peers else packages[:2])
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
            contenders[peer] = Contender(peer, config)
            stack.callback(contenders[peer].close)
        dataset, rows, sizes = contenders["numpy"]("workload")
        if config.batch_size > rows:
            raise UserError(f"batch size {config.batch_size} is above the {rows} rows of {dataset}")
        candidates = [
            _Candidate(contenders[peer], instruction_set, peer in ours)
            for peer in (*ours, *others)
            for instruction_set in _instruction_sets(contenders[peer])
        ]
        _prepare(candidates, contenders["numpy"], progress)
        timed = {one.entry.name: one for one in candidates if one.entry.missing is None}
        measurements: dict[str, Any] = {name: one.measure for name, one in timed.items()}
        cython = contenders["cython"]
        if cython.missing is None:
            widest = _instruction_sets(cython)[0]
            measurements["peak"] = lambda _: cython("fma_peak", widest)
        peaks = measure_rounds(measurements, rounds, progress).get("peak", [])
    peak = max(peaks, default=None)
    gflop = 2e-9 * multiply_adds(NetworkSpec(sizes)) * rows
    for one in timed.values():
        one.entry.summarize(rows, gflop, peak, timed["numpy"].entry.seconds)
    return Report(
        machine=machine,
        dataset=dataset,
        rows=rows,
        sizes=list(sizes),
        batch_size=config.batch_size,
        threads=config.threads,
        rounds=rounds,
        peak_gflops=peak,
        gflop_per_epoch=gflop,
        images=N_IMAGES,
        entries=[one.entry for one in candidates],
    )


def _instruction_sets(contender: Contender) -> tuple[str | None, ...]:
    return (None,) if contender.missing is not None else contender("instruction_sets")


def _prepare(candidates: list[_Candidate], numpy: Contender, progress: Progress) -> None:
    """Warm up all, and mark as missing what does not compute the same as the numpy backend."""
    reference = numpy("prepare")[0]
    for n, one in enumerate(candidates):
        if one.entry.missing is not None or one.contender is numpy:
            continue
        progress(f"warming up {one.entry.name}", n, len(candidates))
        expected = reference
        if one.entry.name == "scikit-learn":
            expected = reference._replace(weights=numpy("weights_with_plain_epsilon"))
        one.entry.missing = find_difference(one.prepare(), expected)

"""Plots of the command line, drawn with matplotlib. All raise UserError if they cannot be saved."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._files import replaced
from ..errors import UserError
from ..kernels.interface import Floats
from ..nn.metrics import Evaluation
from ..training.trainer import TrainingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..bench.measurement import Entry, Report
    from ..training.lr_finder import LRFinderResult


def plot_curves(result: TrainingResult, path: Path) -> None:
    """Plot loss and accuracy over the epochs."""
    figure = _figure(9, 3.6)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [record.epoch for record in result.history]
    loss.plot(epochs, [r.train_loss for r in result.history], "o-", ms=3, label="training")
    if result.config.validation:
        nats = [r.validation_loss or 0 for r in result.history]
        loss.plot(epochs, nats, "o-", ms=3, label="validation")
        percent = [100 * (r.validation_accuracy or 0) for r in result.history]
        accuracy.plot(epochs, percent, "o-", ms=3, color="C1", label="validation")
    accuracy.axhline(100 * result.test_accuracy, color="C2", ls="--", label="test, saved model")
    accuracy.axvline(result.best_epoch, color="0.8", zorder=0)
    loss.set(title="cross-entropy (training: with L2 penalty)", xlabel="epoch", ylabel="nats")
    accuracy.set(title="accuracy", xlabel="epoch", ylabel="%")
    for axes in (loss, accuracy):
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0.5, max(epochs, default=1) + 0.5)
    sizes = "-".join(map(str, result.model.network.spec.sizes))
    title = f"{sizes} on {result.model.dataset_name}: {100 * result.test_accuracy:.2f} % on test"
    figure.suptitle(title, parse_math=False)
    _save(figure, path, box=False)


def plot_confusion(evaluation: Evaluation, class_names: Sequence[str], path: Path) -> None:
    """Plot the confusion matrix with counts, colored by the fraction of the true class."""
    counts_kk = evaluation.confusion_kk
    classes = len(class_names)
    side = 2.5 + 0.5 * min(classes, 30)
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    fraction_kk = counts_kk / np.maximum(counts_kk.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fraction_kk, cmap="Blues", vmin=0, vmax=1)
    if classes <= 30:  # more would not be legible
        axes.set_xticks(range(classes), class_names, rotation=45, ha="right")
        axes.set_yticks(range(classes), class_names)
        style: Any = {"ha": "center", "va": "center", "fontsize": 7}
        for truth, predicted in np.argwhere(counts_kk):
            shade = "white" if fraction_kk[truth, predicted] > 0.5 else "black"
            axes.text(predicted, truth, str(counts_kk[truth, predicted]), color=shade, **style)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"accuracy {100 * evaluation.accuracy:.2f} %")
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    _save(figure, path)


def plot_misclassified(
    images: NDArray,
    probability_nk: Floats,
    labels_n: NDArray[np.integer],
    class_names: Sequence[str],
    path: Path,
    max_images: int = 30,
) -> None:
    """Plot the misclassified images, those predicted with the highest confidence first."""
    predicted_n, confidence_n = probability_nk.argmax(axis=1), probability_nk.max(axis=1)
    wrong_n = np.flatnonzero(predicted_n != labels_n)
    wrong_n = wrong_n[np.argsort(-confidence_n[wrong_n], kind="stable")]
    shown_n = wrong_n[:max_images]
    columns = 6
    rows = max(1, -(-len(shown_n) // columns))
    figure = _figure(1.75 * columns, 2.15 * rows + 0.6)
    note = "; highest confidence first" if len(wrong_n) else ""
    figure.suptitle(
        f"{len(wrong_n):,} of {len(labels_n):,} images are misclassified{note}", fontsize=11
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in axes:
        cell.set_axis_off()
    for cell, row in zip(axes, shown_n):
        cell.imshow(images[row], cmap="gray", vmin=0, vmax=np.max(images[row], initial=1))
        predicted, true = class_names[predicted_n[row]], class_names[labels_n[row]]
        title = f"{predicted} ({100 * confidence_n[row]:.1f} %)\ntrue: {true}"
        cell.set_title(title, fontsize=8, parse_math=False)
    _save(figure, path)


def plot_learning_rates(found: "LRFinderResult", path: Path) -> None:
    """Plot the loss over the learning rates, and the suggested one."""
    figure = _figure(7, 4)
    axes = figure.subplots()
    axes.plot(found.lr_t, found.loss_t, color="0.8", lw=1, label="each step")
    axes.plot(found.lr_t, found.smooth_t, color="C0", label="smoothed")
    axes.axvline(found.advised, color="C3", ls="--", label=f"suggested: {found.advised:.2g}")
    low, first = found.smooth_t.min(), found.smooth_t[0]
    axes.set_ylim(low - 0.1 * (first - low), first + 0.5 * (first - low))
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, nats")
    axes.set_title("learning rate range test")
    axes.legend(frameon=False)
    _save(figure, path, box=False)


OWN_COLOR, PEER_COLOR = "#2a6f97", "#b8b8b8"


def plot_speeds(report: "Report", path: Path) -> None:
    """Plot seconds an epoch of all contenders, and the phases of the own backends."""
    timed = [entry for entry in report.entries if entry.seconds]
    timed.sort(key=lambda entry: entry.seconds_median or 0, reverse=True)
    split = [entry for entry in timed if "barrier" in entry.phase_seconds]
    figure = _figure(10, 1.9 + 0.34 * len(timed))
    doubts = "".join(f"\nin doubt: {doubt}" for doubt in report.doubts())
    axes, where = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_seconds(axes, report, timed)
    _draw_phases(where, split)
    machine, sizes = report.machine, "-".join(map(str, report.sizes))
    figure.suptitle(
        f"An epoch of {sizes} on {report.dataset}, {report.rows:,} rows, batch "
        f"{report.batch_size}\n{machine['cpu']}, {report.threads} threads, n = {report.rounds}, "
        f"{machine['date'][:10]}{doubts}",
        parse_math=False,
        fontsize=10,
    )
    _save(figure, path, box=False)


def _draw_seconds(axes: "Axes", report: "Report", timed: "Sequence[Entry]") -> None:
    """Draw a bar for the median of each contender and a line for its range, fastest first."""
    places = range(len(timed))
    medians = [entry.seconds_median or 0 for entry in timed]
    axes.barh(places, medians, color=[OWN_COLOR if entry.ours else PEER_COLOR for entry in timed])
    for place, entry in zip(places, timed):
        axes.plot([min(entry.seconds), max(entry.seconds)], [place, place], color="0.3", lw=1)
        label = f" {entry.seconds_median:.3f} s"
        if entry.speedup and entry.name != "numpy":
            label += f", {entry.speedup:.1f} x numpy"
        axes.text(max(entry.seconds), place, label, va="center", fontsize=8)
    axes.set_yticks(places, [entry.name for entry in timed])
    if report.peak_gflops:
        roofline = report.gflop_per_epoch / report.peak_gflops
        axes.axvline(roofline, color="C3", ls="--", lw=1)
        axes.text(roofline, len(timed) - 0.4, " roofline at peak FMA rate", color="C3", fontsize=8)
    axes.set(xlabel="seconds an epoch: median and range")
    axes.set_xlim(0, 1.35 * max((max(entry.seconds) for entry in timed), default=1))
    axes.set_ylim(-0.6, len(timed) + 0.1)


def _draw_phases(axes: "Axes", split: "Sequence[Entry]") -> None:
    """Draw the seconds of each phase of the compiled backends."""
    left = np.zeros(len(split))
    for n, phase in enumerate(split[0].phase_seconds if split else ()):
        seconds = np.array([entry.phase_seconds[phase] for entry in split])
        color = "0.8" if phase in ("barrier", "packing") else f"C{n}"
        hatch = "//" if phase == "packing" else None
        axes.barh(range(len(split)), seconds, left=left, label=phase, color=color, hatch=hatch)
        left += seconds
    axes.set_yticks(range(len(split)), [entry.name for entry in split])
    axes.set(xlabel="seconds by phase, mean of the threads")
    axes.set_ylim(-0.6, max(1, len(split)) + 0.9)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")


def _figure(width: float, height: float) -> "Figure":
    """Return a figure of this size in inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path, box: bool = True) -> None:
    """box : whether the axes keep their top and right spines."""
    if not box:
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
    try:
        with warnings.catch_warnings(), replaced(path) as temporary:
            warnings.simplefilter("ignore")  # characters that the font lacks
            figure.savefig(temporary, dpi=130, format=path.suffix[1:].lower())
    except OSError as error:
        raise UserError(f"plot {path} could not be written: {error.strerror}") from error

"""Pictures for the command line, drawn with matplotlib."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..bench.measurement import Entry, Report
from ..errors import UserError
from ..kernels.interface import Floats
from ..nn.metrics import Evaluation
from ..training.trainer import TrainingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..training.lr_finder import LRFinderResult

__all__ = [
    "FORMATS",
    "check_plot_path",
    "plot_confusion",
    "plot_curves",
    "plot_learning_rates",
    "plot_misclassified",
    "plot_speeds",
]

FORMATS = (".png", ".svg", ".pdf")


def check_plot_path(path: Path) -> None:
    """Raise UserError if no picture of that kind can be made."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"plot {path}: the name must end in {', '.join(FORMATS)}")


def plot_curves(result: TrainingResult, path: Path) -> None:
    """Loss and accuracy over the epochs, as a picture file. Raises: UserError."""
    figure = _figure(9, 3.6)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [record.epoch for record in result.history]
    loss.plot(epochs, [r.train_loss for r in result.history], "o-", ms=3, label="training")
    if result.config.validation:
        loss.plot(
            epochs, [r.validation_loss or 0 for r in result.history], "o-", ms=3, label="validation"
        )
        shares = [100 * (r.validation_accuracy or 0) for r in result.history]
        accuracy.plot(epochs, shares, "o-", ms=3, color="C1", label="validation")
    accuracy.axhline(100 * result.test_accuracy, color="C2", ls="--", label="test, saved model")
    accuracy.axvline(result.best_epoch, color="0.8", zorder=0)
    loss.set(title="cross-entropy (training: with penalty)", xlabel="epoch", ylabel="nats")
    accuracy.set(title="accuracy", xlabel="epoch", ylabel="%")
    for axes in (loss, accuracy):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0.5, max(epochs, default=1) + 0.5)
    model = result.model
    sizes = "-".join(map(str, model.network.spec.sizes))
    figure.suptitle(
        f"{sizes} on {model.dataset_name}: {100 * result.test_accuracy:.2f} % on test",
        parse_math=False,
    )
    _save(figure, path)


def plot_confusion(evaluation: Evaluation, class_names: Sequence[str], path: Path) -> None:
    """Confusion matrix as shares of each true class, with the counts. Raises: UserError."""
    counts_kk = evaluation.confusion_kk
    classes = len(class_names)
    side = 2.5 + 0.5 * min(classes, 30)
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    share_kk = counts_kk / np.maximum(counts_kk.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share_kk, cmap="Blues", vmin=0, vmax=1)
    if classes <= 30:  # more labels or numbers would not be legible
        axes.set_xticks(range(classes), class_names, rotation=45, ha="right")
        axes.set_yticks(range(classes), class_names)
        for (truth, guess), count in np.ndenumerate(counts_kk):
            if count:
                shade = "white" if share_kk[truth, guess] > 0.5 else "black"
                axes.text(
                    guess, truth, str(count), ha="center", va="center", color=shade, fontsize=7
                )
    axes.set(
        xlabel="answer", ylabel="true class", title=f"accuracy {100 * evaluation.accuracy:.2f} %"
    )
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    _save(figure, path)


def plot_misclassified(
    images: NDArray,
    probability_nk: Floats,
    labels_n: NDArray[np.integer],
    class_names: Sequence[str],
    path: Path,
    most: int = 30,
) -> None:
    """The answers that were wrong and most sure of themselves, surest first. Raises: UserError."""
    guess_n, sure_n = probability_nk.argmax(axis=1), probability_nk.max(axis=1)
    wrong_n = np.flatnonzero(guess_n != labels_n)
    wrong_n = wrong_n[np.argsort(-sure_n[wrong_n], kind="stable")]
    shown_n = wrong_n[:most]
    columns = 6
    rows = max(1, -(-len(shown_n) // columns))
    figure = _figure(1.75 * columns, 2.15 * rows + 0.6)
    count = f"{len(wrong_n):,} of {len(labels_n):,} answers are wrong"
    figure.suptitle(f"{count}; the surest of them:" if len(wrong_n) else count, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, row in zip(axes, shown_n):
        place.imshow(images[row], cmap="gray", vmin=0, vmax=np.max(images[row], initial=1))
        said = f"{100 * sure_n[row]:.1f} % {class_names[guess_n[row]]}"
        place.set_title(f"{said}\nis {class_names[labels_n[row]]}", fontsize=8, parse_math=False)
    _save(figure, path)


def plot_learning_rates(found: "LRFinderResult", path: Path) -> None:
    """Loss over the learning rates that were tried, and the one advised. Raises: UserError."""
    figure = _figure(7, 4)
    axes = figure.subplots()
    axes.plot(found.lr_t, found.loss_t, color="0.8", lw=1, label="each step")
    axes.plot(found.lr_t, found.smooth_t, color="C0", label="smoothed")
    axes.axvline(found.advised, color="C3", ls="--", label=f"advised: {found.advised:.2g}")
    low, first = found.smooth_t.min(), found.smooth_t[0]
    axes.set_ylim(low - 0.1 * (first - low), first + 0.5 * (first - low))
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, nats")
    axes.set_title("a short run whose learning rate grows at every step")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


OURS, THEIRS = "#2a6f97", "#b8b8b8"


def plot_speeds(report: Report, path: Path) -> None:
    """Seconds of an epoch of all contenders, and where ours spend them. Raises: UserError."""
    timed = [entry for entry in report.entries if entry.seconds]
    timed.sort(key=lambda entry: entry.seconds_median or 0, reverse=True)
    split = [entry for entry in timed if "barrier" in entry.phase_seconds]
    figure = _figure(10, 1.9 + 0.34 * len(timed))
    doubts = "".join(f"\nin doubt: {doubt}" for doubt in report.doubts())
    axes, where = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_seconds(axes, report, timed)
    _draw_phases(where, split)
    machine = report.machine
    sizes = "-".join(map(str, report.sizes))
    figure.suptitle(
        f"An epoch of {sizes} on {report.dataset}, {report.rows:,} rows, batch "
        f"{report.batch_size}\n{machine['cpu']}, {report.threads} threads, n = {report.rounds}, "
        f"{machine['date'][:10]}{doubts}",
        parse_math=False,
        fontsize=10,
    )
    _save(figure, path)


def _draw_seconds(axes: "Axes", report: Report, timed: Sequence[Entry]) -> None:
    """A bar for each, from the fastest down; a line from the least to the most of its rounds."""
    places = range(len(timed))
    medians = [entry.seconds_median or 0 for entry in timed]
    axes.barh(places, medians, color=[OURS if entry.ours else THEIRS for entry in timed])
    for place, entry in zip(places, timed):
        axes.plot([min(entry.seconds), max(entry.seconds)], [place, place], color="0.3", lw=1)
        label = f" {entry.seconds_median:.3f} s" + (
            f", {entry.speedup:.1f} x numpy" if entry.speedup and entry.name != "numpy" else ""
        )
        axes.text(max(entry.seconds), place, label, va="center", fontsize=8)
    axes.set_yticks(places, [entry.name for entry in timed])
    if report.peak_gflops:
        roofline = report.gflop_per_epoch / report.peak_gflops
        axes.axvline(roofline, color="C3", ls="--", lw=1)
        axes.text(
            *(roofline, len(timed) - 0.4, " all arithmetic at the processor's peak"),
            color="C3",
            fontsize=8,
        )
    axes.set(xlabel="seconds an epoch, median; least to most as a line")
    axes.set_xlim(0, 1.35 * max((max(entry.seconds) for entry in timed), default=1))
    axes.set_ylim(-0.6, len(timed) + 0.1)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_phases(axes: "Axes", split: Sequence[Entry]) -> None:
    """Where the compiled backends' seconds go."""
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
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> "Figure":
    """A figure of its own, in inches: no window, no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name may hold characters that the font lacks
            figure.savefig(path, dpi=130)
    except OSError as error:
        raise UserError(f"plot {path} could not be written: {error.strerror}") from error

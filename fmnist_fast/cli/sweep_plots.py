"""Plots of a sweep, drawn by Optuna: optimization history and parallel coordinates."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .._files import replaced
from ..distributed.sweep.study_store import StudyStore
from ..errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Metadata of the files: what drew them.
SOFTWARE = "fmnist-fast sweep"


def plot_paths(study: Path, name: str | None = None) -> tuple[Path, Path]:
    """Return the paths of both plots, beside the study. name : of one of several studies."""
    stem = study.stem if name is None else f"{study.stem}-{name.replace(os.sep, '_')}"
    return study.with_name(f"{stem}-history.png"), study.with_name(f"{stem}-parallel.png")


def check_plots(paths: Iterable[Path]) -> None:
    """Raise UserError if a file exists that no sweep has drawn."""
    for path in paths:
        if path.exists() and not _is_ours(path):
            raise UserError(
                f"plot {path} exists, and no sweep drew it: move it, or name another --study"
            )


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError):
        return False


def draw_plots(store: StudyStore, metric: str, history: Path, parallel: Path) -> None:
    """Write both plots. Raises: UserError if a file cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization.matplotlib import plot_optimization_history, plot_parallel_coordinate

    name = metric.replace("_", " ")
    with warnings.catch_warnings(), pyplot.style.context("default"):
        warnings.simplefilter("ignore")  # ExperimentalWarning
        axes = plot_optimization_history(store.study, target_name=name)
        axes.set_title(f"{name} of the trials, and the best so far")
        axes.legend(frameon=False, loc="best")
        _save(axes, (9, 4.5), history)
        axes = plot_parallel_coordinate(store.study, target_name=name)
        axes.set_title(f"a line for each trial; colour: {name}", y=1.03)
        _improve_contrast(axes)
        _save(axes, (13, 5.5), parallel)


def _improve_contrast(axes: "Axes") -> None:
    """Make lines visible whatever their value, and tick labels readable in front of them."""
    figure: Any = axes.figure
    for lines in axes.collections:
        lines.set(cmap="viridis_r", linewidth=1.2, alpha=0.7)
    for other in figure.axes:
        other.spines[["left", "right"]].set_color("0.6")
        for label in other.get_yticklabels(which="both"):
            label.set(size=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})


def _save(axes: "Axes", inches: tuple[float, float], path: Path) -> None:
    from matplotlib import pyplot

    figure: Any = axes.figure
    figure.set_size_inches(*inches)
    for part in figure.axes:
        part.set_facecolor("white")
        part.grid(False)
    try:
        with replaced(path) as temporary:
            figure.savefig(
                temporary,
                format=path.suffix[1:],
                dpi=130,
                bbox_inches="tight",
                metadata={"Software": SOFTWARE},
            )
    except OSError as error:
        raise UserError(f"plot {path} could not be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)

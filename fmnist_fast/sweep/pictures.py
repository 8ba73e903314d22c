"""Pictures of a sweep, drawn by Optuna: how it went, and which settings went with which values."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .ledger import Ledger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_pictures", "picture_paths"]


def picture_paths(study: Path) -> tuple[Path, Path]:
    """Where the history and the parallel coordinates of a study are drawn: beside it."""
    return study.with_name(f"{study.stem}-history.png"), study.with_name(
        f"{study.stem}-parallel.png"
    )


def draw_pictures(ledger: Ledger, metric: str, history: Path, parallel: Path) -> None:
    """Write both. Raises: UserError if a file cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization.matplotlib import plot_optimization_history, plot_parallel_coordinate

    name = metric.replace("_", " ")
    with warnings.catch_warnings(), pyplot.style.context("default"):
        warnings.simplefilter("ignore")  # of an experiment
        _save(plot_optimization_history(ledger.study, target_name=name), (9, 4.5), history)
        _save(plot_parallel_coordinate(ledger.study, target_name=name), (13, 5), parallel)


def _save(axes: "Axes", size: tuple[float, float], path: Path) -> None:
    from matplotlib import pyplot

    figure: Any = axes.figure
    figure.set_size_inches(*size)
    try:
        figure.savefig(path, dpi=130, bbox_inches="tight")
    except OSError as error:
        raise UserError(f"picture {path} could not be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)

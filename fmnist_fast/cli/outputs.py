"""Files that a command will write: checked before the work, saved whatever happens."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..models.ensemble import Ensemble
    from ..models.model import Model

__all__ = ["check_model_room", "check_outputs", "save", "save_aside"]

# Room that a model file takes beside its weights.
_DESCRIPTION_BYTES = 64 << 10


def check_outputs(outputs: Mapping[str, Path | None], *inputs: Path) -> None:
    """Find out before the work, not after it, that a result could not or must not be written.

    outputs : what each is (model, metrics, plot or misclassified) and its path.
    """
    from .._files import check_room
    from .plots import check_plot_path
    from .report import check_metrics_path

    for what in ("plot", "misclassified"):
        picture = outputs.get(what)
        if picture:
            check_plot_path(picture)
    taken = {Path(os.path.realpath(path)) for path in inputs}
    for what, path in outputs.items():
        if path:
            if path.exists() and not path.is_file() and (what != "metrics" or path.is_fifo()):
                raise UserError(f"{what} {path} is not a regular file: name another")
            check_room(path, 1, what)
            real = Path(os.path.realpath(path))
            if real in taken:
                raise UserError(f"{what} {path} is also another file of this command: name another")
            taken.add(real)
    metrics = outputs.get("metrics")
    if metrics:
        check_metrics_path(metrics)


def check_model_room(out: Path, data: "Dataset", hidden: tuple[int, ...]) -> None:
    from math import prod

    from .._files import check_room
    from ..kernels.interface import NetworkSpec

    spec = NetworkSpec((prod(data.x_train.shape[1:]), *hidden, len(data.class_names)))
    weights = sum((i + 1) * o for i, o in spec.shapes)
    check_room(out, 4 * weights + _DESCRIPTION_BYTES, "model")


def save(model: "Model | Ensemble", out: Path, force: bool) -> None:
    """Save the model; where that must not or cannot be, save it elsewhere and say so."""
    from .._files import write_somewhere
    from ..models.safetensors_io import check_replaceable

    if not force:
        try:
            check_replaceable(out, model.dataset_name, model.dataset_checksum)
        except UserError as error:  # it came while we trained
            raise UserError(f"{error}; {save_aside(model, out)}") from error
    place = write_somewhere(out, model.to_bytes())
    if place != out:
        raise UserError(f"{out} could not be written; the trained model is saved in {place}")


def save_aside(model: "Model | Ensemble | None", out: Path) -> str:
    """Save what an unfinished run has, beside the target and never over it; says what happened."""
    from .._files import free_name, write_somewhere

    if model is None:
        return "there was no model to save yet"
    place = free_name(out.with_name(f"{out.stem}.unfinished{out.suffix}"))
    place = write_somewhere(place, model.to_bytes())
    return f"the best model so far is saved in {place}"

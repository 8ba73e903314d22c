"""Output files of the commands: checked before the work, saved whatever happens."""

import os
import warnings
from collections.abc import Mapping
from math import prod
from pathlib import Path

from .._files import check_disk_space, free_name, write_atomically, write_somewhere
from ..data.datasets import Dataset
from ..errors import UserError
from ..kernels.interface import NetworkSpec
from ..models.ensemble import Ensemble
from ..models.load import PRETRAINED
from ..models.model import Model
from ..models.safetensors_io import check_replaceable, load_file

# Where train and sweep save the model by default.
DEFAULT_MODEL = Path("model.safetensors")

PLOT_FORMATS = (".png", ".svg", ".pdf")

# Upper bound for what a model file holds beside its weights.
_METADATA_BYTES = 64 << 10


def model_or_pretrained(model: Path | None) -> tuple[Path, str]:
    """Return the file of MODEL, or else of the pretrained model, and its name for people."""
    if model is not None:
        return model, str(model)
    if DEFAULT_MODEL.is_file():
        warnings.warn(
            f"this is the pretrained model of the package; name {DEFAULT_MODEL} to use that one",
            stacklevel=2,
        )
    return PRETRAINED, "the pretrained model"


def check_outputs(outputs: Mapping[str, Path | None], *inputs: Path) -> None:
    """Raise UserError for a file that could not or must not be written after the work.

    outputs : kind of file ("model", "metrics", "plot", "misclassified", ...) and its path.
    """
    taken = {Path(os.path.realpath(path)) for path in inputs}
    for kind, path in outputs.items():
        if path is None:
            continue
        if kind in ("plot", "misclassified") and path.suffix.lower() not in PLOT_FORMATS:
            raise UserError(f"plot {path}: the name must end in {', '.join(PLOT_FORMATS)}")
        if path.exists() and not path.is_file() and (kind != "metrics" or path.is_fifo()):
            raise UserError(f"{kind} {path} is not a regular file: name another")
        check_disk_space(path, 1, kind)
        real = Path(os.path.realpath(path))
        if real in taken:
            raise UserError(f"{kind} {path} is also another file of this command: name another")
        taken.add(real)
        if kind == "metrics" and path.is_file():
            with open(path, "rb") as file:
                if file.read(1) not in (b"", b"{"):
                    raise UserError(f"{path} exists and is no file of JSON lines: name another")


def check_model_space(out: Path, data: Dataset, hidden: tuple[int, ...]) -> None:
    """Raise UserError if the disk has no space for the model of these hidden layers."""
    spec = NetworkSpec((prod(data.x_train.shape[1:]), *hidden, len(data.class_names)))
    parameters = sum((i + 1) * o for i, o in spec.shapes)
    check_disk_space(out, 4 * parameters + _METADATA_BYTES, "model")


def save_model(model: Model | Ensemble, out: Path, force: bool) -> Path | None:
    """Save the model; where that is not possible, save it elsewhere and raise UserError.

    An earlier model of the same data set is kept under another name, which is returned, unless the
    new one is at least as accurate on the validation rows. force : replace whatever is there.
    """
    previous = None
    if not force:
        try:
            check_replaceable(out, model.dataset_name, model.dataset_checksum)
            previous = _keep_better(out, model)
        except (OSError, UserError) as error:  # the file appeared during training, or a full disk
            reason = error if isinstance(error, UserError) else f"{out}: {error.strerror}"
            raise UserError(f"{reason}; {save_unfinished(model, out)}") from error
    path = write_somewhere(out, model.to_bytes())
    if path != out:
        raise UserError(f"{out} could not be written; the trained model is saved in {path}")
    return previous


def _keep_better(out: Path, model: Model | Ensemble) -> Path | None:
    """Copy the file unless the model is at least as accurate, or the same; return the copy."""
    if not out.exists() or out.read_bytes() == model.to_bytes():
        return None
    metrics, now = load_file(out)[0].get("metrics"), model.metrics.get("validation_accuracy")
    before = metrics.get("validation_accuracy") if isinstance(metrics, dict) else None
    if isinstance(before, float) and isinstance(now, float) and now >= before:
        return None
    copy = free_name(out.with_name(f"{out.stem}.previous{out.suffix}"))
    write_atomically(copy, out.read_bytes())
    return copy


def kept_note(previous: Path | None) -> str:
    """Return what the last line says of an earlier model that `save_model` has kept."""
    return "" if previous is None else f"; the earlier model may be better: it is now {previous}"


def save_unfinished(model: Model | Ensemble | None, out: Path) -> str:
    """Save the best model so far beside `out`, never over a file; return a note for the user."""
    if model is None:
        return "there was no model to save yet"
    path = free_name(out.with_name(f"{out.stem}.unfinished{out.suffix}"))
    path = write_somewhere(path, model.to_bytes())
    return f"the best model so far is saved in {path}"

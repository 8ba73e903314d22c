"""A trained network as a file for other programs: ONNX, arrays, a Python module, a C file."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..._files import check_room, write_atomically
from ...errors import ArgumentError, UserError
from ...kernels.interface import NetworkSpec, Params
from ...nn.calibration import scale_logits
from . import c_source, onnx_graph, python_source
from . import npz as arrays
from .network_data import NetworkData

__all__ = ["FORMATS", "default_name", "export", "format_from_suffix", "identifier"]

# Name -> what writes it, and the suffix of its files.
FORMATS = {
    "onnx": (onnx_graph.content, ".onnx"),
    "npz": (arrays.content, ".npz"),
    "python": (python_source.content, ".py"),
    "c": (c_source.content, ".c"),
}


def export(
    path: str | Path,
    to: str,
    params: Params,
    spec: NetworkSpec,
    *,
    class_names: Sequence[str],
    scale: float = 1.0,
    temperature: float = 1.0,
    force: bool = False,
) -> None:
    """Write a file that gives the probabilities of this network, for one of FORMATS.

    scale : uint8 inputs are multiplied by it, and the file takes nothing else; 1 for a network that
    takes floats as they are. class_names : one for every output, or two for a single output of the
    loss sigmoid, which is the probability of the second. temperature : logits are divided by it.
    force : replace a file that is there.

    Raises: ArgumentError if these do not fit together; UserError if the file must not or cannot be
    written, or a package is missing.
    """
    path, names = Path(path), tuple(map(str, class_names))
    if to not in FORMATS:
        raise ArgumentError(f"to is {to!r}: choose from {', '.join(FORMATS)}")
    parts = NetworkData(scale_logits(params, temperature), spec, float(scale), names)
    if len(names) != spec.sizes[-1] and not (parts.is_binary and len(names) == 2):
        raise ArgumentError(f"class_names has {len(names)} names for {spec.sizes[-1]} outputs")
    if not all(np.isfinite(array).all() for part in parts.params for array in part):
        raise ArgumentError("the network holds NaN or infinite values: train it again")
    content = FORMATS[to][0](parts, identifier(path.stem))
    check_room(path, len(content), "export")
    if path.exists() and not force:
        raise UserError(f"{path} exists: name another file, or use force (--force) to replace it")
    write_atomically(path, content)


def format_from_suffix(path: str | Path) -> str:
    """The format whose files have such names. Raises: ArgumentError."""
    suffix = Path(path).suffix.lower()
    for name, (_, known) in FORMATS.items():
        if suffix == known:
            return name
    suffixes = ", ".join(known for _, known in FORMATS.values())
    raise ArgumentError(f"{path} ends with none of {suffixes}: say in which format to write (to)")


def default_name(model: Path, to: str) -> str:
    """What the export of a model file is called: so that Python can import it, and C compile it."""
    stem = identifier(model.stem) if to in ("python", "c") else model.stem
    return stem + FORMATS[to][1]


def identifier(stem: str) -> str:
    """The stem as a name in C and Python."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_")
    return name if name and name[0].isalpha() else f"model_{name}".rstrip("_")

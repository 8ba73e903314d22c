"""Export of a network for other programs: ONNX, arrays, a Python module, a C file."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..._files import check_disk_space, write_atomically
from ...errors import ArgumentError, UserError
from ...kernels.interface import NetworkSpec, Params
from ...nn.calibration import scale_logits
from . import c_source, npz, onnx_graph, python_source
from .network_data import NetworkData

# Name -> writer, and suffix of its files.
FORMATS = {
    "onnx": (onnx_graph.serialize, ".onnx"),
    "npz": (npz.serialize, ".npz"),
    "python": (python_source.serialize, ".py"),
    "c": (c_source.serialize, ".c"),
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
    """Write a file that computes the probabilities of a network.

    to : one of FORMATS. scale : factor of uint8 inputs, the only ones that the file takes; 1 for a
    network that takes floats. class_names : one for every output, or two for a single sigmoid
    output, the probability of the second class. temperature : divisor of the logits. force :
    replace an existing file.

    Raises: ArgumentError if the arguments do not match; UserError if the file exists or cannot be
    written, or a package is missing.
    """
    path, names = Path(path), tuple(map(str, class_names))
    if to not in FORMATS:
        raise ArgumentError(f"to is {to!r}: choose from {', '.join(FORMATS)}")
    network = NetworkData(scale_logits(params, temperature), spec, float(scale), names)
    if len(names) != spec.sizes[-1] and not (network.is_binary and len(names) == 2):
        raise ArgumentError(f"class_names has {len(names)} names for {spec.sizes[-1]} outputs")
    if not all(np.isfinite(array).all() for arrays in network.params for array in arrays):
        raise ArgumentError("the network holds NaN or infinite values: train it again")
    content = FORMATS[to][0](network, identifier(path.stem))
    check_disk_space(path, len(content), "export")
    if path.exists() and not force:
        raise UserError(f"{path} exists: name another file, or use force (--force) to replace it")
    write_atomically(path, content)


def format_from_suffix(path: str | Path) -> str:
    """Return the format of a file by its suffix. Raises: ArgumentError."""
    suffix = Path(path).suffix.lower()
    for name, (_, known) in FORMATS.items():
        if suffix == known:
            return name
    suffixes = ", ".join(known for _, known in FORMATS.values())
    raise ArgumentError(f"{path} ends with none of {suffixes}: name the format (to)")


def default_name(model: Path, to: str) -> str:
    """Return the file name of an export; for Python and C it is an identifier."""
    stem = identifier(model.stem) if to in ("python", "c") else model.stem
    return stem + FORMATS[to][1]


def identifier(stem: str) -> str:
    """Return the stem as an identifier in C and Python."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_")
    return name if name and name[0].isalpha() else f"model_{name}".rstrip("_")

"""Model files: tensors and metadata in one safetensors file, without pickle."""

import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFileError
from .metadata import Metadata, upgrade_metadata

Tensors = Mapping[str, NDArray]

# safetensors writes its metadata keys in random order, so all of it is one key with sorted JSON.
_KEY = "fmnist_fast"


def serialize(metadata: Metadata, tensors: Tensors, *, allow_nan: bool = False) -> bytes:
    """Return the content of the file: the same bytes for the same tensors and metadata."""
    from safetensors.numpy import save

    # safetensors stores other than contiguous arrays wrongly, without an error.
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return save(contiguous, {_KEY: json.dumps(metadata, sort_keys=True, allow_nan=allow_nan)})


def check_replaceable(path: Path, dataset_name: str, dataset_checksum: str) -> None:
    """Raise ModelFileError if `path` is another kind of file or a model of another data set."""
    if not os.path.exists(path):
        return
    try:
        metadata, _ = load_file(path)
        dataset = upgrade_metadata(metadata)["dataset"]
        found_name, found_checksum = dataset["name"], dataset["checksum"]
    except (ModelFileError, KeyError, TypeError):
        raise ModelFileError(
            f"{path} exists and is not a model of fmnist-fast: name another file, or use force "
            "(--force) to replace it"
        ) from None
    if found_checksum != dataset_checksum:
        raise ModelFileError(
            f"{path} holds a model trained on {found_name}, and this one is trained on "
            f"{dataset_name}: name another file, or use force (--force) to replace it"
        )


def load_file(path: Path, *, allow_nan: bool = False) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Return the metadata, of any format version, and the tensors of a model file.

    allow_nan : whether numbers in the metadata may be NaN or infinite.
    Raises: ModelFileError, one line.
    """
    from safetensors import SafetensorError, safe_open

    if os.path.exists(path) and not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise ModelFileError(f"{path} is {what}: give a file that 'fmnist-fast train' wrote")
    if not os.path.isfile(path):  # also for a name that is too long
        raise ModelFileError(f"there is no model file {path}: train one with 'fmnist-fast train'")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {})[_KEY]
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except KeyError as error:
        raise ModelFileError(f"{path} is a safetensors file, but not one of fmnist-fast") from error
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if _is_pickle(path):
            raise ModelFileError(
                f"{path} is a pickle, which is never opened here: use MLPClassifier.export()"
            ) from error
        raise ModelFileError(
            f"{path} is damaged or not a safetensors file: {error_text(error)}"
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error_text(error)}") from error
    try:
        metadata = json.loads(text) if allow_nan else _finite_json(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: its metadata {error_text(error)}") from error
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path} is damaged: its metadata is not an object")
    return metadata, tensors


def _finite_json(text: str) -> Any:
    """Parse JSON. Raises: ValueError for NaN, and for numbers that are infinite as floats."""

    def parse(number: str) -> float:
        if not isfinite(value := float(number)):
            raise ValueError(f"holds {number[:20]}")
        return value

    return json.loads(text, parse_float=parse, parse_constant=parse)


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as pickle and joblib write it.

    A safetensors file begins with the size of its header, of which the upper bytes are zero.
    """
    with path.open("rb") as file:
        begin = file.read(8)
    return begin[:1] == b"\x80" and any(begin[3:])


def error_text(error: Exception) -> str:
    """Return the text of an error on one line."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, TypeError):
        return "a part of its metadata has the wrong type"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__

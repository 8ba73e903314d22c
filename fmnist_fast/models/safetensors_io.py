"""Tensors and a description of them, as one safetensors file without pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._files import write_atomically
from ..errors import ModelFileError

__all__ = ["check_replaceable", "serialize", "read", "error_text", "replace_model"]

# safetensors writes its metadata keys in random order, so all of it is one key with sorted JSON.
_KEY = "fmnist_fast"


def serialize(description: Mapping[str, Any], tensors: Mapping[str, NDArray]) -> bytes:
    """The content of the file: the same bytes for the same tensors and description."""
    from safetensors.numpy import save

    # Others than contiguous ones are stored wrongly, silently.
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return save(whole, {_KEY: json.dumps(description, sort_keys=True, allow_nan=False)})


def replace_model(
    path: Path, content: bytes, dataset_name: str, dataset_checksum: str, *, force: bool
) -> None:
    """Write the file: the old one stays whole until the new one is on the disk.

    Raises: ModelFileError if a model of another data set or another kind of file is there and force
    is False; OSError if it cannot be written.
    """
    if not force:
        check_replaceable(path, dataset_name, dataset_checksum)
    write_atomically(path, content)


def check_replaceable(path: Path, dataset_name: str, dataset_checksum: str) -> None:
    """Raise ModelFileError if `path` holds something that training must not replace."""
    if not path.exists():
        return
    try:
        description, _ = read(path)
        there = description["dataset"]["name"], description["dataset"]["checksum"]
    except (ModelFileError, KeyError, TypeError):
        raise ModelFileError(
            f"{path} exists and is not a model of fmnist-fast: name another file, or use force "
            "(--force) to replace it"
        ) from None
    if there[1] != dataset_checksum:
        raise ModelFileError(
            f"{path} holds a model trained on {there[0]}, and this one is trained on "
            f"{dataset_name}: name another file, or use force (--force) to replace it"
        )


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Description and tensors, as the file has them. Raises: ModelFileError, one line."""
    from safetensors import SafetensorError, safe_open

    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise ModelFileError(f"{path} is {what}: give a file that 'fmnist-fast train' wrote")
    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}: train one with 'fmnist-fast train'")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise ModelFileError(f"{path} is a safetensors file, but not one of fmnist-fast")
            description = json.loads(metadata[_KEY])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        if _is_pickle(path):
            raise ModelFileError(
                f"{path} is a pickle, which is never opened here: load it in Python, as it was "
                "kept; an MLPClassifier has export()"
            ) from error
        raise ModelFileError(
            f"{path} is damaged or not a safetensors file: {error_text(error)}"
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error_text(error)}") from error
    if not isinstance(description, dict):
        raise ModelFileError(f"{path} is damaged: its description is not an object")
    return description, tensors


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as pickle and joblib write it, and not with the size of the header of a
    safetensors file, of which the upper bytes are zero."""
    with path.open("rb") as file:
        begin = file.read(8)
    return begin[:1] == b"\x80" and any(begin[3:])


def error_text(error: Exception) -> str:
    """The error's text on one line."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, TypeError):
        return "a part of its description has the wrong type"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__

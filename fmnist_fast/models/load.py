"""Loading of model files, and the pretrained models."""

from pathlib import Path

from .._files import to_path
from ..errors import ModelFileError
from ..nn.backend import get_backend
from ..nn.network import check_threads
from .ensemble import Ensemble
from .metadata import FORMAT_VERSION, upgrade_metadata
from .model import Model
from .safetensors_io import error_text, load_file

# Preset `best`, trained on Fashion-MNIST; pretrained/MODEL_CARD.md describes it.
PRETRAINED = Path(__file__).parent / "pretrained" / "fashion-mnist.safetensors"

# Preset `photos`, for photographs.
PRETRAINED_PHOTOS = PRETRAINED.with_name("photos.safetensors")


def load_model(
    path: str | Path | None = None, backend: str = "auto", threads: int | None = None
) -> Model | Ensemble:
    """Load and validate a model file, of one network or of an ensemble.

    Files of all earlier format versions are read.

    Parameters
    ----------
    path : str or Path, optional
        Model file; by default the pretrained model of the package.
    backend : str, default="auto"
        Backend that computes: ``"numpy"``, ``"numba"``, ``"cython"``, or ``"auto"``, the fastest
        that is available.
    threads : int, optional
        Number of threads; by default as many as the work is worth.

    Returns
    -------
    Model or Ensemble

    Raises
    ------
    ArgumentError
        If the path or the number of threads is not valid.
    ModelFileError
        If the file is missing, damaged, of another kind, or of a newer format version.
    BackendUnavailable
        If the backend cannot run the network.
    """
    path = PRETRAINED if path is None else to_path(path, "path")
    check_threads(threads)  # here: below, an invalid value is damage of the file
    get_backend(backend)
    metadata, tensors = load_file(path)
    version = metadata.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelFileError(f"{path} is damaged: it has no format version")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}, newer than {FORMAT_VERSION}: upgrade fmnist-fast"
        )
    try:
        metadata = upgrade_metadata(metadata)
        kind = Ensemble if "members" in metadata else Model
        return kind.from_state(metadata, tensors, backend, threads)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"{path} is damaged: {error_text(error)}") from error

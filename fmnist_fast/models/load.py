"""Model files: where others find models, and what reads, checks and protects their files."""

from pathlib import Path

from ..errors import BackendUnavailable, ModelFileError
from .ensemble import FORMAT_VERSION, Ensemble
from .model import Model
from .safetensors_io import check_replaceable, error_text, read

__all__ = [
    "PRETRAINED",
    "PRETRAINED_PHOTOS",
    "Ensemble",
    "Model",
    "check_replaceable",
    "load_model",
]

# The model in the box: preset best, trained on Fashion-MNIST; models/MODEL_CARD.md describes it.
PRETRAINED = Path(__file__).parent / "pretrained" / "fashion-mnist.safetensors"

# The one for photographs: preset photos.
PRETRAINED_PHOTOS = PRETRAINED.with_name("photos.safetensors")


def load_model(
    path: str | Path | None = None, backend: str = "auto", threads: int | None = None
) -> Model | Ensemble:
    """Read a model file, of one network or of an ensemble, and check all of it.

    path : None for the model that is in the package.
    Raises: ModelFileError, one line, if it is missing, damaged, foreign or of a newer format;
    BackendUnavailable if the backend cannot run it.
    """
    path = PRETRAINED if path is None else Path(path)
    description, tensors = read(path)
    version = description.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelFileError(f"{path} is damaged: it has no format version")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}, newer than the {FORMAT_VERSION} that this "
            "fmnist-fast reads: upgrade fmnist-fast"
        )
    kind = Ensemble if version == FORMAT_VERSION else Model
    try:
        return kind.from_state(description, tensors, backend, threads)
    except BackendUnavailable:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"{path} is damaged: {error_text(error)}") from error

"""Recognition of garments on pictures: preprocessing, choice of the model, and prediction."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..kernels.interface import Floats
from ..models.ensemble import Ensemble
from ..models.load import PRETRAINED, PRETRAINED_PHOTOS, load_model
from ..models.model import Model
from ..nn.saliency import grad_times_input
from .image_io import Picture
from .preprocessing import PreprocessedImage, passthrough, preprocess


@dataclass(frozen=True)
class Prediction:
    """Prediction for one picture.

    preprocessed : input of the network, and the steps to it. probability_k : (k,), of each class.
    model, model_name : model that predicted, and its name for display.
    """

    preprocessed: PreprocessedImage
    probability_k: Floats
    model: Model | Ensemble
    model_name: str

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(self.probability_k.argmax())

    @property
    def is_confident(self) -> bool | None:
        """Whether the top probability reaches the model's threshold; None: it has no threshold."""
        threshold = self.model.threshold
        return None if threshold is None else bool(self.probability_k.max() >= threshold)

    def top(self, count: int = 3) -> list[tuple[int, str, float]]:
        """Return (label, name, probability) of the most probable classes, in descending order."""
        best = self.probability_k.argsort()[::-1][:count]
        names = self.model.class_names
        return [(int(k), names[k], float(self.probability_k[k])) for k in best]


class Recognizer:
    """Classifier of pictures. Thread-safe.

    model : file, model or ensemble for all pictures; None: the pretrained models, one for images in
    the format of the data set, one for photographs.
    Raises: ModelFileError; BackendUnavailable; DataError if the model does not take images.
    """

    def __init__(
        self,
        model: Path | Model | Ensemble | None = None,
        name: str | None = None,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._load = cache(partial(load_model, backend=backend, threads=threads))
        self._given: tuple[Model | Ensemble, str] | None = None
        if model is not None:
            loaded = model if isinstance(model, Model | Ensemble) else self._load(model)
            self._given = loaded, name or (model.name if isinstance(model, Path) else "your model")
            if len(loaded.input_shape) != 2:
                raise DataError(f"this model takes rows of shape {loaded.input_shape}, not images")

    def _given_or(self, pretrained: Path) -> tuple[Model | Ensemble, str]:
        return self._given or (self._load(pretrained), pretrained.name)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of grayscale pictures that are not preprocessed."""
        height, width = self.data_model.input_shape
        return width, height

    @property
    def data_model(self) -> Model | Ensemble:
        """Model for images in the format of the data set."""
        return self._given_or(PRETRAINED)[0]

    def recognize(
        self, picture: Picture, segmentation: str = "auto", invert: bool = False
    ) -> Prediction:
        """Predict the class of a picture. segmentation, invert : as for `preprocess`.

        A grayscale picture of the model's input size is not preprocessed, unless a segmentation
        method is given.
        Raises: DataError, one line that says what is wrong with the picture; ArgumentError.
        """
        width, height = self.size
        if picture.gray and picture.size == self.size and segmentation in ("auto", "none"):
            model, name = self._given_or(PRETRAINED)
            preprocessed = passthrough(picture, invert)
        else:
            model, name = self._given_or(PRETRAINED_PHOTOS)
            if height != width:
                raise DataError(f"this model takes only grayscale images of {width}x{height}")
            preprocessed = preprocess(picture, segmentation, invert, side=height)
        probability_k = model.predict_proba(preprocessed.pixels[None])[0]
        return Prediction(preprocessed, probability_k, model, name)


def saliency_map(
    model: Model | Ensemble, pixels: NDArray[np.uint8], label: int
) -> NDArray[np.float64]:
    """Return gradient times input of the logit of a class, in the shape of the pixels.

    Positive values are evidence for the class, negative ones against it. For an ensemble, of the
    mean of the members' calibrated logits.
    """
    if isinstance(model, Ensemble):
        maps = [saliency_map(one, pixels, label) / one.temperature for one in model.members]
        mean: NDArray[np.float64] = np.mean(maps, axis=0)
        return mean
    x_i = pixels.reshape(-1).astype(np.float64) * model.network.scale
    return grad_times_input(model.network.params, x_i, label).reshape(pixels.shape)

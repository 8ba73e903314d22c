"""What is on a picture: the path from its pixels to an answer, and which model gives it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..kernels.interface import Floats
from ..models.ensemble import Ensemble
from ..models.load import PRETRAINED, PRETRAINED_PHOTOS, load_model
from ..models.model import Model
from .image_io import Picture
from .preprocessing import PreprocessedImage, passthrough, preprocess

__all__ = ["Prediction", "Recognizer", "grad_times_input"]


@dataclass(frozen=True)
class Prediction:
    """prepared : what the network saw, and how it came about. probability_k : (k,), of each class.
    model : that answered. model_name : its name, for people.
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
        """Whether it is as probable as answers that can be relied on; None: nobody knows."""
        threshold = self.model.threshold
        return None if threshold is None else bool(self.probability_k.max() >= threshold)

    def top(self, count: int = 3) -> list[tuple[int, str, float]]:
        """(label, name, probability) of the most probable classes, first the most probable."""
        best = self.probability_k.argsort()[::-1][:count]
        names = self.model.class_names
        return [(int(k), names[k], float(self.probability_k[k])) for k in best]


class Recognizer:
    """Answers what is on pictures. Any number of threads may ask at once.

    model : a file, a model or an ensemble that answers everything; None: of the two in the box, one
    for pictures that are like the data set's already, one for photographs.
    Raises: ModelFileError; BackendUnavailable; DataError if the model takes no images.
    """

    def __init__(
        self,
        model: Path | Model | Ensemble | None = None,
        name: str | None = None,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._load: Callable[[Path], Model | Ensemble] = lambda path: load_model(
            path, backend, threads
        )
        self._own: tuple[Model | Ensemble, str] | None = None
        if model is not None:
            loaded = model if isinstance(model, Model | Ensemble) else self._load(model)
            self._own = loaded, name or (model.name if isinstance(model, Path) else "your model")
            if len(loaded.input_shape) != 2:
                raise DataError(f"this model takes rows of shape {loaded.input_shape}, not images")

    @cached_property
    def _for_data(self) -> tuple[Model | Ensemble, str]:
        return self._own or (self._load(PRETRAINED), PRETRAINED.name)

    @cached_property
    def _for_photographs(self) -> tuple[Model | Ensemble, str]:
        return self._own or (self._load(PRETRAINED_PHOTOS), PRETRAINED_PHOTOS.name)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the gray pictures that are taken as they are."""
        height, width = self.data_model.input_shape
        return width, height

    @property
    def data_model(self) -> Model | Ensemble:
        """What answers for pictures that are like the data set's already."""
        return self._for_data[0]

    def recognize(
        self, picture: Picture, segmentation: str = "auto", invert: bool = False
    ) -> Prediction:
        """What is on it. cutout, invert : as for photo.prepared.

        A gray picture of just the model's size is taken as it is, if nothing is to be cut out.
        Raises: DataError, one line that says what is wrong with the picture; ArgumentError.
        """
        width, height = self.size
        if picture.gray and picture.size == self.size and segmentation in ("auto", "none"):
            model, name = self._for_data
            ready = passthrough(picture, invert)
        else:
            model, name = self._for_photographs
            if height != width:
                raise DataError(f"this model takes only grayscale images of {width}x{height}")
            ready = preprocess(picture, segmentation, invert, side=height)
        return Prediction(ready, model.predict_proba(ready.pixels[None])[0], model, name)


def grad_times_input(
    model: Model | Ensemble, pixels: NDArray[np.uint8], label: int
) -> NDArray[np.float64]:
    """Which pixels speak for a class and which against it: gradient of its logit times the pixel.

    pixels : uint8, as the model takes them. Returns: of their shape; positive speaks for it. The
    sum and what the biases add make up the logit, since ReLU is linear where it is not 0. Of an
    ensemble it is the mean of the members' calibrated logits.
    Source: Shrikumar, Greenside, Shcherbina, Kundaje (2016), section 2.
    """
    if isinstance(model, Ensemble):
        said = [grad_times_input(one, pixels, label) / one.temperature for one in model.members]
        mean: NDArray[np.float64] = np.mean(said, axis=0)
        return mean
    weights, biases = model.network.params
    x_i = pixels.reshape(-1).astype(np.float64) * model.network.scale
    active, h = [], x_i
    for w_io, b_o in zip(weights[:-1], biases[:-1]):
        h = np.maximum(h @ w_io + b_o, 0)
        active.append(h > 0)
    gradient = weights[-1][:, label].astype(np.float64)
    for w_io, on_o in zip(reversed(weights[:-1]), reversed(active)):
        gradient = w_io @ (gradient * on_o)
    return (gradient * x_i).reshape(pixels.shape)

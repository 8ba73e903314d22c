"""What a network that will see photographs learns from: imitations, and strangers among them."""

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from ..kernels.interface import TrainData
from ..nn.labels import smooth_labels
from .datasets import Dataset
from .fashion_mnist import CLASS_NAMES
from .image_ops import SIDE
from .photo_simulation import simulate_ood_images, simulate_photos

__all__ = ["PhotoAugmentation", "check_photo_augmentation"]

# Images that are none of the classes, for every image that is one.
SHARE = 0.15


def check_photo_augmentation(dataset: Dataset) -> None:
    """Raise ArgumentError if the imitations would not know what they imitate."""
    images = dataset.x_train
    if images.shape[1:] != (SIDE, SIDE) or images.dtype != np.uint8:
        raise ArgumentError("augment photos is for uint8 images of 28x28 pixels")
    if dataset.class_names != CLASS_NAMES:
        raise ArgumentError("augment photos knows only the classes of Fashion-MNIST")


class PhotoAugmentation:
    """The rows of a training set, each a new image in every epoch, and behind them strangers.

    images : uint8 (n, 28, 28). labels_n : (n,). learned : the rows to learn from; held_back : those
    to be judged on, whose images are the same for every seed.
    rows_n : int32, what an epoch visits: the rows to learn from, and the strangers from n on.
    x_validation, x_ood : uint8 (m, 784), imitations of the rows held back, and strangers made
    of them.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels_n: NDArray[np.int32],
        learned: NDArray[np.int32],
        held_back: NDArray[np.int32],
        seed: int,
    ) -> None:
        self._seen, self._labels_n, self._learned = images[learned], labels_n[learned], learned
        self._rows, self._seed = len(images), seed
        self._strangers = int(SHARE * len(learned))
        new_n = np.arange(self._rows, self._rows + self._strangers, dtype=np.int32)
        self.rows_n = np.concatenate([learned, new_n])
        held, its_labels_n = images[held_back], labels_n[held_back]
        self.x_validation = _rows(simulate_photos(held, its_labels_n, 0, 0))
        self.x_ood = _rows(simulate_ood_images(held, its_labels_n, int(SHARE * len(held)), 0, 0))

    def epoch_images(self, epoch: int) -> NDArray[np.uint8]:
        """(rows, 784), at the rows that an epoch visits: a pure function of (seed, epoch)."""
        out = np.zeros((self._rows + self._strangers, SIDE**2), np.uint8)
        out[self._learned] = _rows(simulate_photos(self._seen, self._labels_n, self._seed, epoch))
        out[self._rows :] = _rows(
            simulate_ood_images(self._seen, self._labels_n, self._strangers, self._seed, epoch)
        )
        return out

    def extend_targets(self, data: TrainData, classes: int, dtype: str) -> TrainData:
        """Of strangers, every class is asked alike; each counts as an image does. The images are
        those of no epoch yet.
        """
        targets_nk = data.targets_n
        if targets_nk.ndim == 1:
            targets_nk = smooth_labels(targets_nk, classes, 0.0, dtype)
        alike_nk = np.full((self._strangers, classes), 1 / classes, dtype)
        return data._replace(
            targets_n=np.concatenate([targets_nk, alike_nk]),
            weights_n=np.concatenate([data.weights_n, np.ones(self._strangers)]),
        )


def _rows(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images.reshape(len(images), SIDE**2)

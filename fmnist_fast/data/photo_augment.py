"""Photo augmentation: simulated photographs and out-of-distribution images for training."""

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from ..kernels.interface import TrainData
from ..nn.labels import smooth_labels
from .datasets import Dataset
from .fashion_mnist import CLASS_NAMES
from .image_ops import SIDE
from .photo_simulation import simulate_ood_images, simulate_photos

# Out-of-distribution images per training image.
OOD_FRACTION = 0.15


def check_photo_augmentation(dataset: Dataset) -> None:
    """Raise ArgumentError if photographs of the data set cannot be simulated."""
    images = dataset.x_train
    if images.shape[1:] != (SIDE, SIDE) or images.dtype != np.uint8:
        raise ArgumentError("augment photos: the data set must have uint8 images of 28x28 pixels")
    if dataset.class_names != CLASS_NAMES:
        raise ArgumentError("augment photos: the data set must have the classes of Fashion-MNIST")


class PhotoAugmentation:
    """Simulated photographs of a training set, new in every epoch, and OOD images behind them.

    images : uint8 (n, 28, 28). labels_n : (n,). train_rows, validation_rows : indices; the images
    of validation rows are the same for every seed.
    rows_n : int32, the rows of an epoch: the training rows, and the OOD images from n on.
    x_validation, x_ood : uint8 (m, 784), simulated from the validation rows.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels_n: NDArray[np.int32],
        train_rows: NDArray[np.int32],
        validation_rows: NDArray[np.int32],
        seed: int,
    ) -> None:
        self._images, self._labels_n = images[train_rows], labels_n[train_rows]
        self._train_rows, self._n, self._seed = train_rows, len(images), seed
        self._n_ood = int(OOD_FRACTION * len(train_rows))
        ood_rows = np.arange(self._n, self._n + self._n_ood, dtype=np.int32)
        self.rows_n = np.concatenate([train_rows, ood_rows])
        images, labels_n = images[validation_rows], labels_n[validation_rows]
        n_ood = int(OOD_FRACTION * len(images))
        self.x_validation = _flatten(simulate_photos(images, labels_n, 0, 0))
        self.x_ood = _flatten(simulate_ood_images(images, labels_n, n_ood, 0, 0))

    def epoch_images(self, epoch: int) -> NDArray[np.uint8]:
        """Return the images of an epoch, (rows, 784): a pure function of (seed, epoch)."""
        out = np.zeros((self._n + self._n_ood, SIDE**2), np.uint8)
        images, labels_n = self._images, self._labels_n
        out[self._train_rows] = _flatten(simulate_photos(images, labels_n, self._seed, epoch))
        ood = simulate_ood_images(images, labels_n, self._n_ood, self._seed, epoch)
        out[self._n :] = _flatten(ood)
        return out

    def extend_targets(self, data: TrainData, classes: int, dtype: str) -> TrainData:
        """Append the OOD images to targets and weights: uniform targets, weight 1.

        The pixels in `data` are left alone; they are replaced in every epoch.
        """
        targets_nk = data.targets_n
        if targets_nk.ndim == 1:
            targets_nk = smooth_labels(targets_nk, classes, 0.0, dtype)
        uniform_nk = np.full((self._n_ood, classes), 1 / classes, dtype)
        return data._replace(
            targets_n=np.concatenate([targets_nk, uniform_nk]),
            weights_n=np.concatenate([data.weights_n, np.ones(self._n_ood)]),
        )


def _flatten(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images.reshape(len(images), SIDE**2)

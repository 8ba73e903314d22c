"""More images than there are: new uint8 images, made beside the training. Kernels do not know.

Mirror images are made once, behind the true ones, and an epoch's order names one or the other: that
costs memory (47 MB for Fashion-MNIST) and no time at all.
"""

import numpy as np
from numpy.typing import NDArray

from .network import FLIPS, random_stream

__all__ = ["mirrored", "with_flips"]


def mirrored(images: NDArray) -> NDArray:
    """The images (n, height, width), then all of them with left and right exchanged."""
    return np.concatenate([images, images[:, :, ::-1]])


def with_flips(order_n: NDArray[np.int32], rows: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """An order in which every second row, by chance, is replaced by its mirror image.

    rows : how many true images there are, where the mirror images begin. The chance is that of the
    row, whatever its place in the order: a pure function of (seed, epoch, row).
    """
    flipped_n = random_stream(seed, FLIPS, epoch).integers(0, 2, rows, dtype=np.int32)
    return order_n + rows * flipped_n[order_n]

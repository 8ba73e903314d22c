"""More images than there are: new uint8 images, made beside the training. Kernels do not know.

Mirror images are made once, behind the true ones, and an epoch's order names one or the other: that
costs memory (47 MB for Fashion-MNIST) and no time at all. Images that are new in every epoch are
made while the epoch before trains.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ..nn.random_streams import FLIPS, random_stream

__all__ = ["EpochPrefetcher", "hflip", "flip_rows"]


def hflip(images: NDArray) -> NDArray:
    """The images (n, height, width), then all of them with left and right exchanged."""
    return np.concatenate([images, images[:, :, ::-1]])


def flip_rows(order_n: NDArray[np.int32], rows: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """An order in which every second row, by chance, is replaced by its mirror image.

    rows : how many true images there are, where the mirror images begin. The chance is that of the
    row, whatever its place in the order: a pure function of (seed, epoch, row).
    """
    flipped_n = random_stream(seed, FLIPS, epoch).integers(0, 2, rows, dtype=np.int32)
    return order_n + rows * flipped_n[order_n]


class EpochPrefetcher:
    """Images that are another in every epoch; those of the next are begun when one's are asked for.

    make : images (n, i) of an epoch, a pure function of its number. last : the last epoch there is,
    None if nobody knows.
    """

    def __init__(self, make: Callable[[int], NDArray], last: int | None) -> None:
        self._make, self._last = make, last
        self._pool = ThreadPoolExecutor(1)
        self._begun: dict[int, Future[NDArray]] = {}

    def get(self, epoch: int) -> NDArray:
        """The images of this epoch."""
        begun = self._begun.pop(epoch, None) or self._pool.submit(self._make, epoch)
        if self._last is None or epoch < self._last:
            self._begun = {epoch + 1: self._pool.submit(self._make, epoch + 1)}
        return begun.result()

    def close(self) -> None:
        """Make no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

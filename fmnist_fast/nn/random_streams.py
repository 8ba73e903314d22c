"""Random streams: each is a pure function of a seed, a purpose and an epoch."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """Purposes of random streams. They never change: they decide the weights of a seed."""

    INITIAL_WEIGHTS = 0
    EPOCH_ORDER = 1
    VALIDATION_SPLIT = 2
    FLIPS = 3
    CORRUPTION = 4
    PHOTO_SIMULATION = 5
    OOD = 6
    DROPOUT = 7
    SWEEP = 8


def random_stream(seed: int, purpose: int, epoch: int = 0, *part: int) -> np.random.Generator:
    """Return the generator of (seed, purpose, epoch), and of the part if any."""
    key = np.random.SeedSequence([seed, purpose, epoch, *part])
    return np.random.Generator(np.random.Philox(key))


def epoch_order(rows_n: NDArray[np.int32], seed: int, epoch: int) -> NDArray[np.int32]:
    """Return the rows in the order in which this epoch trains on them."""
    return random_stream(seed, Purpose.EPOCH_ORDER, epoch).permutation(rows_n)


def dropout_key(seed: int, epoch: int) -> int:
    """Return the key of this epoch's dropout masks, in 0..2^64-1."""
    return int(random_stream(seed, Purpose.DROPOUT, epoch).integers(2**64, dtype=np.uint64))

"""What networks that were trained before teach another one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .calibration import tempered
from .kernels import Floats
from .network import Network
from .recipe import Distillation
from .targets import blended

__all__ = ["Teachers"]


@dataclass(frozen=True)
class Teachers:
    """Networks, and how another one learns from them."""

    networks: tuple[Network, ...]
    how: Distillation

    def say(self, x_ni: NDArray) -> NDArray[np.float64]:
        """The mean of softmax(logits / temperature), (n, k), of rows as a network takes them."""
        said_nk = np.zeros((len(x_ni), self.networks[0].spec.sizes[-1]))
        for network in self.networks:
            probability_nk = network.predict_proba(x_ni)
            said_nk += tempered(probability_nk, self.how.temperature) / len(self.networks)
        return said_nk

    def targets(self, x_ni: NDArray, asked_nk: Floats) -> Floats:
        """What the student is asked to say of these rows. asked_nk : by the labels alone."""
        return blended(self.say(x_ni), asked_nk, self.how.share)

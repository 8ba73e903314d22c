"""A network as plain arrays in an .npz file, which np.load(path, allow_pickle=False) reads.

weights_0, biases_0, ...   of every layer, (i, o) and (o,): z = a @ weights + biases
activation                 of the hidden layers: relu, tanh, logistic, identity
loss                       what makes probabilities of the last z: softmax, sigmoid
scale                      uint8 inputs are multiplied by it first
class_names                (k,); two for a sigmoid of one output, the probability of the second
"""

from io import BytesIO
from typing import Any

import numpy as np

from .network_data import NetworkData

__all__ = ["content"]


def content(parts: NetworkData, name: str) -> bytes:
    """The file; this format has no place for a name."""
    arrays: dict[str, Any] = {
        "activation": np.array(parts.spec.activation),
        "loss": np.array(parts.spec.loss),
        "scale": np.array(parts.scale),
        "class_names": np.array(parts.class_names, str),
    }
    for depth, (w_io, b_o) in enumerate(zip(*parts.params)):
        arrays |= {f"weights_{depth}": w_io, f"biases_{depth}": b_o}
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()

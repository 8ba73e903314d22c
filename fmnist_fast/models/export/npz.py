"""Export to arrays in an .npz file, which np.load(path, allow_pickle=False) reads.

weights_0, biases_0, ...   of every layer, (i, o) and (o,): z = a @ weights + biases
activation                 of the hidden layers: relu, tanh, logistic, identity
loss                       function from the last z to probabilities: softmax, sigmoid
scale                      uint8 inputs are multiplied by it first
class_names                (k,); two for a sigmoid of one output, the probability of the second
"""

from io import BytesIO
from typing import Any

import numpy as np

from .network_data import NetworkData


def serialize(network: NetworkData, name: str) -> bytes:
    """Return the content of the file; the format has no place for a name."""
    arrays: dict[str, Any] = {
        "activation": np.array(network.spec.activation),
        "loss": np.array(network.spec.loss),
        "scale": np.array(network.scale),
        "class_names": np.array(network.class_names, str),
    }
    for depth, (w_io, b_o) in enumerate(zip(*network.params)):
        arrays |= {f"weights_{depth}": w_io, f"biases_{depth}": b_o}
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()

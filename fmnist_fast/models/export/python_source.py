"""Export to a Python module that imports only the standard library."""

from base64 import encodebytes
from string import Template

import numpy as np

from ... import __version__
from ...kernels.interface import Floats
from .network_data import NetworkData

_MODULE = Template('''\
"""$summary: a neural network that needs nothing but Python.

    import $name
    $name.predict_proba(row)    # $output_text
    $name.predict(row)          # $returns
    $name.CLASSES               # the names of the classes

row: $input_text. Written by fmnist_fast $version.
"""

import math
from base64 import b64decode
from operator import mul
from struct import unpack

INPUTS = $inputs
CLASSES = (
$classes)
SCALE = $scale


def predict_proba(row):
    """A list: $output_text."""
    if len(row) != INPUTS:
        raise ValueError(f"row holds {len(row)} numbers: give {INPUTS}")
    a = [SCALE * float(x) for x in row]
    for layer in LAYERS[:-1]:
        a = [activation(z) for z in sums(layer, a)]
    return probabilities(sums(LAYERS[-1], a))


def predict(row):
    """$returns_sentence"""
    p = predict_proba(row)
    return $choice


def sums(layer, a):
    """The pre-activations of a layer."""
    return [bias + sum(map(mul, weights, a)) for bias, weights in layer]


${logistic}def activation(z):
    return $activation


def probabilities(z):
    $output


def layer(inputs, outputs, text):
    """Bias and weights of every unit, from base64 of little-endian floats."""
    numbers = unpack(f"<{(1 + inputs) * outputs}$letter", b64decode(text))
    starts = range(0, len(numbers), 1 + inputs)
    return [(numbers[start], numbers[start + 1 : start + 1 + inputs]) for start in starts]


LAYERS = [
$layers]
''')

_LOGISTIC = """\
def logistic(z):
    e = math.exp(-abs(z))
    return (e if z < 0 else 1) / (1 + e)
"""
_ACTIVATIONS = {
    "relu": "0.0 if z <= 0 else z",  # NaN stays NaN
    "tanh": "math.tanh(z)",
    "logistic": "logistic(z)",
    "identity": "z",
}
_OUTPUTS = {
    "softmax": """\
peak = max(z)
    e = [math.exp(z_k - peak) for z_k in z]
    total = sum(e)
    return [e_k / total for e_k in e]""",
    "sigmoid": "return [logistic(z_k) for z_k in z]",
}


def serialize(network: NetworkData, name: str) -> bytes:
    """Return the content of the file. name : of the module."""
    spec = network.spec
    choice, returns = "p.index(max(p))", "the index of the most probable class"
    if spec.loss == "sigmoid":
        choice = "[k for k, p_k in enumerate(p) if p_k > 0.5]"
        returns = "the indices of all classes more probable than not"
        if network.is_binary:
            choice, returns = "int(p[0] > 0.5)", "1 if that is above a half, else 0"
    activation, output = _ACTIVATIONS[spec.activation], _OUTPUTS[spec.loss]
    layers = (
        f'    layer({i}, {o}, """\n{_base64(w_io, b_o)}"""),\n'
        for (i, o), w_io, b_o in zip(spec.shapes, *network.params)
    )
    text = _MODULE.substitute(
        name=name,
        version=__version__,
        summary=network.summary,
        input_text=network.input_text,
        output_text=network.output_text,
        returns=returns,
        returns_sentence=f"{returns[0].upper()}{returns[1:]}.",
        inputs=spec.sizes[0],
        classes="".join(f"    {name!a},\n" for name in network.class_names),
        scale=repr(float(network.scale)),
        choice=choice,
        logistic=f"{_LOGISTIC}\n\n" if "logistic" in activation + output else "",
        activation=activation,
        output=output,
        letter={"float32": "f", "float64": "d"}[spec.dtype],
        layers="".join(layers),
    )
    return text.encode()


def _base64(w_io: Floats, b_o: Floats) -> str:
    """Encode bias and weights of every output, in lines."""
    numbers = np.vstack([b_o, w_io]).T
    return encodebytes(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode()

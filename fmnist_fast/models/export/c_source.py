"""Export to one file of C99 that needs only libm.

Numbers are written in hexadecimal: the standard requires compilers to read those exactly, but not
decimal ones (ISO/IEC 9899:1999, 6.4.4.2).
"""

import re
from collections.abc import Iterator
from string import Template

import numpy as np

from ... import __version__
from ...kernels.interface import Floats
from .network_data import NetworkData

_FILE = Template("""\
/* $summary: a neural network in C99. Link with -lm.
 *
 * Where it is used, declare:
 *
 *     #include <stdint.h>
 *     enum { ${NAME}_INPUTS = $inputs, ${NAME}_CLASSES = $classes };
 *     extern const char *const ${name}_class_names[$names];
 *     void ${name}_predict_proba(const $input *x, $real *probabilities);
 *
 * x: $input_text.
 * probabilities, an array of $classes: $output_text.
 * It keeps no state, so that any number of threads may call it, and takes $stack bytes of stack.
 * Written by fmnist_fast $version.
 */

#include <math.h>
#include <stdint.h>

enum { ${NAME}_INPUTS = $inputs, ${NAME}_CLASSES = $classes };
extern const char *const ${name}_class_names[$names];
void ${name}_predict_proba(const $input *x, $real *probabilities);

const char *const ${name}_class_names[$names] = {
$class_names};

$constants/* z[o] = biases[o] + sum over i of a[i] weights[i][o] */
static void sums(
    const $real *weights, const $real *biases, int inputs, int outputs, const $real *a, $real *z)
{
    for (int o = 0; o < outputs; o++)
        z[o] = biases[o];
    for (int i = 0; i < inputs; i++)
        for (int o = 0; o < outputs; o++)
            z[o] += a[i] * weights[i * outputs + o];
}

${functions}void ${name}_predict_proba(const $input *x, $real *probabilities)
{
    $real $buffers;
    for (int i = 0; i < ${NAME}_INPUTS; i++)
        even[i] = $scaled;
$calls}
""")

_FUNCTIONS = {
    "relu": """\
static void relu($real *z, int count)
{
    for (int o = 0; o < count; o++)
        z[o] = z[o] <= 0 ? 0 : z[o]; /* NaN stays NaN */
}
""",
    "tanh": """\
static void tangent($real *z, int count)
{
    for (int o = 0; o < count; o++)
        z[o] = tanh$f(z[o]);
}
""",
    "logistic": """\
static void logistic($real *z, int count)
{
    for (int o = 0; o < count; o++) {
        const $real e = exp$f(-fabs$f(z[o]));
        z[o] = (z[o] < 0 ? e : 1) / (1 + e);
    }
}
""",
    "softmax": """\
/* Subtracting the largest first changes nothing, and exp cannot overflow. */
static void softmax($real *z, int count)
{
    $real peak = z[0], total = 0;
    for (int k = 1; k < count; k++)
        peak = z[k] > peak ? z[k] : peak;
    for (int k = 0; k < count; k++) {
        z[k] = exp$f(z[k] - peak);
        total += z[k];
    }
    for (int k = 0; k < count; k++)
        z[k] /= total;
}
""",
}
# Numbers per line.
_NUMBERS_PER_LINE = 6


def serialize(network: NetworkData, name: str) -> bytes:
    """Return the content of the file. name : prefix of its functions."""
    spec = network.spec
    real, f = {"float32": ("float", "f"), "float64": ("double", "")}[spec.dtype]
    activations = [spec.activation] * (len(spec.shapes) - 1)
    activations.append("logistic" if spec.loss == "sigmoid" else "softmax")
    # Layers alternate between two buffers; the last one writes to the caller's array.
    widths = {"even": max(spec.sizes[:-1:2]), "odd": max(spec.sizes[1:-1:2], default=0)}
    scale = _number(np.array(network.scale, spec.dtype).item()) + f
    functions = "".join(f"{text}\n" for kind, text in _FUNCTIONS.items() if kind in activations)
    text = _FILE.substitute(
        name=name,
        NAME=name.upper(),
        version=__version__,
        summary=network.summary,
        input_text=network.input_text,
        output_text=network.output_text,
        real=real,
        input="uint8_t" if network.takes_bytes else real,
        inputs=spec.sizes[0],
        classes=spec.sizes[-1],
        names=len(network.class_names),
        class_names="".join(f"    {_string(name)},\n" for name in network.class_names),
        constants="".join(_constants(network, f"static const {real}", f)),
        functions=Template(functions).substitute(real=real, f=f),
        stack=sum(widths.values()) * np.dtype(spec.dtype).itemsize,
        buffers=", ".join(f"{buffer}[{width}]" for buffer, width in widths.items() if width),
        scaled=f"x[i] * {scale}" if network.takes_bytes else "x[i]",
        calls="".join(_calls(network, activations)),
    )
    return text.encode("ascii")


def _constants(network: NetworkData, kind: str, f: str) -> Iterator[str]:
    """Yield the definitions of all weights and biases."""
    for what, arrays in zip(("weights", "biases"), network.params):
        for depth, array in enumerate(arrays):
            yield f"{kind} {what}_{depth}[{array.size}] = {{\n{_numbers(array, f)}}};\n\n"


def _calls(network: NetworkData, activations: list[str]) -> Iterator[str]:
    """Yield the statements of every layer. activations : applied to its sums."""
    for depth, ((i, o), kind) in enumerate(zip(network.spec.shapes, activations)):
        a, z = ("even", "odd") if depth % 2 == 0 else ("odd", "even")
        if depth == len(activations) - 1:
            z = "probabilities"
        yield f"    sums(weights_{depth}, biases_{depth}, {i}, {o}, {a}, {z});\n"
        if kind != "identity":
            yield f"    {'tangent' if kind == 'tanh' else kind}({z}, {o});\n"


def _numbers(array: Floats, f: str) -> str:
    """Return the array's numbers, in lines."""
    numbers = [f"{_number(value)}{f}," for value in array.ravel().tolist()]
    rows = (
        numbers[first : first + _NUMBERS_PER_LINE]
        for first in range(0, len(numbers), _NUMBERS_PER_LINE)
    )
    return "".join(f"    {' '.join(row)}\n" for row in rows)


def _number(value: float) -> str:
    """Return the number like 0x1.8p-3, without trailing zeros."""
    digits, exponent = value.hex().split("p")
    return f"{digits.rstrip('0').rstrip('.')}p{exponent}"


def _string(text: str) -> str:
    """Return a literal of the text in UTF-8, special characters as octal escapes."""
    plain = (c if re.match("[A-Za-z0-9 /-]", c) else _octal(c) for c in text)
    return f'"{"".join(plain)}"'


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors="replace"))

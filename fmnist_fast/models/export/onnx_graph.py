"""Export to an ONNX graph: x in, probabilities out, any number of rows.

x (n, inputs) is uint8 for networks of pixels, scaled inside the graph, and of the network's dtype
for others. Images are flattened before: x.reshape(len(x), -1). The shape is declared, so that
runtimes report it and check it.
"""

import json
from typing import Any

import numpy as np

from ... import __version__
from ...errors import UserError
from .network_data import NetworkData

# The first opset with softmax over one axis (2020), and the file format of its time.
OPSET, IR_VERSION = 13, 7

_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}
_OUTPUTS = {"softmax": "Softmax", "sigmoid": "Sigmoid"}


def serialize(network: NetworkData, name: str) -> bytes:
    """Return the content of the file. name : of the graph. Raises: UserError without onnx."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise UserError("ONNX needs the package onnx: pip install 'fmnist-fast[export]'") from error

    spec = network.spec
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    nodes, constants, a = [], [], "x"

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, spec.dtype), name))
        return name

    if network.takes_bytes:
        scale = constant("scale", np.array(network.scale))
        a = node("Mul", [node("Cast", ["x"], "floats", to=floats), scale], "scaled")
    last = len(spec.shapes) - 1
    for depth, (w_io, b_o) in enumerate(zip(*network.params)):
        layer = [constant(f"weights_{depth}", w_io), constant(f"biases_{depth}", b_o)]
        z = node("Gemm", [a, *layer], f"z_{depth}")
        if depth < last:
            a = node(_ACTIVATIONS[spec.activation], [z], f"a_{depth}")
        else:
            node(_OUTPUTS[spec.loss], [z], "probabilities")

    kind = TensorProto.UINT8 if network.takes_bytes else floats
    shapes = ["n", spec.sizes[0]], ["n", spec.sizes[-1]]
    x = helper.make_tensor_value_info("x", kind, shapes[0], network.input_text)
    out = helper.make_tensor_value_info("probabilities", floats, shapes[1], network.output_text)
    model = helper.make_model(
        helper.make_graph(nodes, name, [x], [out], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fmnist_fast",
        producer_version=__version__,
        doc_string=(
            f"{network.summary}. x: {network.input_text}. probabilities: {network.output_text}."
        ),
    )
    helper.set_model_props(model, {"class_names": json.dumps(network.class_names)})
    onnx.checker.check_model(model, full_check=True)
    file: bytes = model.SerializeToString()
    return file

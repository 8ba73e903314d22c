"""The network to export, as the writers of all formats take it.

onnx_graph      ONNX
npz             arrays in an .npz file
python_source   a module that needs only the standard library
c_source        a file of C99 that needs only libm

Each has one function, `serialize(network, name)`, that returns the bytes of the file. name : of the
network, where the format has a place for it.
"""

from dataclasses import dataclass

from ...kernels.interface import NetworkSpec, Params


@dataclass(frozen=True)
class NetworkData:
    """Parameters and specification of a network, with descriptions of its input and output.

    scale : 1 for a network that takes floats; others take uint8 inputs, multiplied by it.
    """

    params: Params
    spec: NetworkSpec
    scale: float
    class_names: tuple[str, ...]

    @property
    def takes_bytes(self) -> bool:
        return self.scale != 1

    @property
    def is_binary(self) -> bool:
        """Whether it has a single sigmoid output."""
        return self.spec.loss == "sigmoid" and self.spec.sizes[-1] == 1

    @property
    def summary(self) -> str:
        """Text like 784-128-64-10, relu, softmax, float32."""
        spec = self.spec
        return f"{'-'.join(map(str, spec.sizes))}, {spec.activation}, {spec.loss}, {spec.dtype}"

    @property
    def input_text(self) -> str:
        inputs = self.spec.sizes[0]
        return f"{inputs} pixels, 0..255, row by row" if self.takes_bytes else f"{inputs} numbers"

    @property
    def output_text(self) -> str:
        if self.spec.loss == "softmax":
            return "the probability of every class; they sum to 1"
        if self.is_binary:
            return f"one probability, that of the {'second ' * (len(self.class_names) == 2)}class"
        return "the independent probability of every class"

"""Forms in which a network leaves this package: what there is to write, and one writer each.

onnx_graph      for ONNX Runtime and all that reads ONNX
arrays          for whoever wants the numbers: an .npz file
python_source   a module that needs nothing but Python
c_source        a file of C99 that needs nothing but libm

Each has one function, `content(parts, name)`, which gives the bytes of the file. name : what the
network is called where the format gives it a name.
"""

from dataclasses import dataclass

from ...kernels.interface import NetworkSpec, Params

__all__ = ["NetworkData"]


@dataclass(frozen=True)
class NetworkData:
    """A network as a formula, with the words for what goes in and what comes out.

    scale : 1 for a network that takes floats as they are; others take bytes, multiplied by it.
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
        """One output, yes or no."""
        return self.spec.loss == "sigmoid" and self.spec.sizes[-1] == 1

    @property
    def summary(self) -> str:
        """784-128-64-10, relu, softmax, float32"""
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
        return "the probability of every class by itself: any number of them may hold"

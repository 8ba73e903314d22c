"""Start-up: imports, and the first prediction of a new process."""

from .cases import PerBackend


class Import:
    def timeraw_package(self):
        return "import fmnist_fast"

    def timeraw_train(self):
        return "from fmnist_fast import train"


class ColdStart(PerBackend):
    """The first prediction of a network. Numba loads what it compiled before from its cache."""

    number = 1

    def timeraw_first_prediction(self, backend):
        return f"""
        import numpy as np
        from fmnist_fast.kernels.interface import NetworkSpec
        from fmnist_fast.nn.network import Network
        network = Network.random(NetworkSpec((784, 128, 64, 10)), 0, 1 / 255, {backend!r})
        network.predict_proba(np.zeros((1, 784), np.uint8))
        """

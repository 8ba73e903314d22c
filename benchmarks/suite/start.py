"""From a new process: what one waits for before anything happens."""

from .cases import BACKENDS, skip_if_missing


class Import:
    def timeraw_package(self):
        return "import fmnist_fast"

    def timeraw_train(self):
        return "from fmnist_fast import train"


class ColdStart:
    """A network that answers once. What Numba compiled before is on disk by then."""

    params = BACKENDS
    param_names = ("backend",)
    number = 1

    def setup(self, backend):
        skip_if_missing(backend)

    def timeraw_first_answer(self, backend):
        return f"""
        import numpy as np
        from fmnist_fast.kernels import Spec
        from fmnist_fast.network import Network
        network = Network.random(Spec((784, 128, 64, 10)), 0, 1 / 255, {backend!r})
        network.predict_proba(np.zeros((1, 784), np.uint8))
        """

"""Training: time of an epoch, peak memory, and accuracy."""

from fmnist_fast import train

from .cases import BACKENDS, PerBackend, adam_steps, dataset, training


class Epoch(PerBackend):
    params = (BACKENDS, [64, 256], [1, 2])
    param_names = ("backend", "batch_size", "threads")
    number, warmup_time, timeout = 1, 0, 120

    def setup(self, backend, batch_size, threads):
        super().setup(backend)
        self.network, self.state, self.data, self.order_n = training(backend, threads)
        self.count = -(-len(self.order_n) // batch_size)
        self.steps = adam_steps(self.count, batch_size)
        self.train(self.count // 4)  # idle cores are slow at first; and Numba compiles

    def train(self, count):
        self.network.train_steps(self.state, self.data, self.order_n, self.steps, 0, count)

    def time_epoch(self, backend, batch_size, threads):
        self.train(self.count)


class Memory(PerBackend):
    def peakmem_train(self, backend):
        train(dataset(), backend=backend, epochs=1)


class Accuracy(PerBackend):
    """Test accuracy of a fixed configuration, to detect speed gained at its expense."""

    unit = "%"
    timeout = 120

    def track_test_accuracy(self, backend):
        result = train(dataset(), backend=backend, epochs=5, seed=0)
        return round(100 * result.test_accuracy, 2)

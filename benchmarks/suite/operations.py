"""Operations of a backend, one by one; tests/bench/test_suite.py checks that none is missing.

The times include what a caller pays: the compiled backends copy matrices into their layout and back
in each call, which train_steps does once for a range of steps.

A time is that of CALLS calls: asv runs the setup before every timed call, and the first call after
it finds cold caches and idle cores.
"""

from .cases import BACKENDS, DATASET, Batch

CALLS = 20


class Operation:
    params = (BACKENDS, [1, 64, 1024])
    param_names = ("backend", "rows")
    version = DATASET

    def setup(self, backend, rows):
        self.batch = Batch(backend, rows)

    def repeat_calls(self, call):
        for _ in range(CALLS):
            call()


class GatherBatch(Operation):
    def time_gather_batch(self, backend, rows):
        self.repeat_calls(self.batch.gather_batch)


class Forward(Operation):
    def time_forward(self, backend, rows):
        self.repeat_calls(self.batch.forward)


class LossAndGrad(Operation):
    def time_loss_and_grad(self, backend, rows):
        self.repeat_calls(self.batch.loss_and_grad)


class Backward(Operation):
    def time_backward(self, backend, rows):
        self.repeat_calls(self.batch.backward)


class Update(Operation):
    params = (BACKENDS, [64])  # independent of the rows

    def time_update(self, backend, rows):
        self.repeat_calls(self.batch.update)


class TrainSteps(Operation):
    def time_train_steps(self, backend, rows):
        self.repeat_calls(self.batch.train_steps)


class Predict(Operation):
    def time_predict(self, backend, rows):
        self.repeat_calls(self.batch.predict)

"""Every operation of a backend, one by one. tests/test_suite.py holds that none is forgotten.

They are measured as callers see them: the compiled backends copy matrices into their own layout and
back in each call, which train_steps does once for a range of steps.

A time is that of CALLS calls: asv sets up anew before every call that it times, and the first call
after that finds cold caches and sleeping cores.
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


class Gather(Operation):
    def time_gather(self, backend, rows):
        self.repeat_calls(self.batch.gather_batch)


class Forward(Operation):
    def time_forward(self, backend, rows):
        self.repeat_calls(self.batch.forward)


class LossDelta(Operation):
    def time_loss_delta(self, backend, rows):
        self.repeat_calls(self.batch.loss_and_grad)


class Backward(Operation):
    def time_backward(self, backend, rows):
        self.repeat_calls(self.batch.backward)


class Update(Operation):
    params = (BACKENDS, [64])  # it does not depend on the rows

    def time_update(self, backend, rows):
        self.repeat_calls(self.batch.update)


class TrainSteps(Operation):
    def time_train_steps(self, backend, rows):
        self.repeat_calls(self.batch.train_steps)


class Predict(Operation):
    def time_predict(self, backend, rows):
        self.repeat_calls(self.batch.predict)

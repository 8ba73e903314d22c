# cython: language_level=3
"""The network in Cython, for float32 and float64: the operations that reference.py specifies.

Each type has a module of its own, made from operations.pxi; here the spec's is called.
"""

from fmnist_fast.kernels.cython_backend import float32, float64

__all__ = ["SUPPORTS", "available_instruction_sets", "backward", "forward", "gather",
           "instruction_set", "loss_and_grad", "multiply_add_peak", "predict",
           "select_instruction_set", "train_steps", "update"]

SUPPORTS = {
    "activation": ("relu", "tanh", "logistic", "identity"),
    "loss": ("softmax", "sigmoid"),
    "optimizer": ("adam", "sgd", "nesterov"),
    "dtype": ("float32", "float64"),
    "input_format": ("dense", "csr"),
}

_MODULES = {"float32": float32, "float64": float64}

available_instruction_sets = float32.available_instruction_sets
instruction_set = float32.instruction_set
multiply_add_peak = float32.multiply_add_peak


def select_instruction_set(name):
    """Use the loops of this instruction set from now on, for tests and benchmarks.

    Not while a call runs. Raises: ValueError if it was not built or this processor lacks it.
    """
    for module in _MODULES.values():
        module.select_instruction_set(name)


def gather(x_ni, order_n, first, last, scale, out_bi):
    """out[b] = scale * x[order[first + b]]: see reference.gather."""
    module = float64 if out_bi.itemsize == 8 else float32
    module.gather(x_ni, order_n, first, last, scale, out_bi)


def forward(params, x_bi, spec, out_layers, drop=None):
    """What every layer makes of the batch: see reference.forward."""
    _MODULES[spec.dtype].forward(params, x_bi, spec, out_layers, drop)


def loss_and_grad(logits_bk, targets_b, weights_b, spec, out_loss_b, out_grad_logits_bk):
    """The loss of every row and its gradient: see reference.loss_and_grad."""
    _MODULES[spec.dtype].loss_and_grad(
        logits_bk, targets_b, weights_b, spec, out_loss_b, out_grad_logits_bk
    )


def backward(params, x_bi, layers, grad_logits_bk, spec, out_grads, drop=None):
    """Gradients of all parameters: see reference.backward."""
    _MODULES[spec.dtype].backward(params, x_bi, layers, grad_logits_bk, spec, out_grads, drop)


def update(state, grads, numbers, spec):
    """One step: see reference.update."""
    _MODULES[spec.dtype].update(state, grads, numbers, spec)


def train_steps(state, data, order_n, steps, spec, first, last, threads, seconds_tp=None):
    """Steps first..last-1 of an epoch on a team of threads: see reference.train_steps.

    seconds_tp: (threads, phases), to which the time in each phase is added: see kernels.PHASES.
    """
    return _MODULES[spec.dtype].train_steps(
        state, data, order_n, steps, spec, first, last, threads, seconds_tp
    )


def predict(params, x_ni, scale, spec, threads, out_nk):
    """Probabilities: see reference.predict. A row's bits do not depend on the rows beside it."""
    _MODULES[spec.dtype].predict(params, x_ni, scale, spec, threads, out_nk)

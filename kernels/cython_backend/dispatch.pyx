# cython: language_level=3
"""The Cython backend: calls the module of the spec's dtype. kernels/reference.py specifies it."""

from fmnist_fast.kernels.cython_backend import float32, float64
from fmnist_fast.kernels.interface import SUPPORTS

__all__ = ["SUPPORTS", "available_instruction_sets", "backward", "forward", "gather_batch",
           "instruction_set", "loss_and_grad", "multiply_add_peak", "predict",
           "select_instruction_set", "train_steps", "update"]

_MODULES = {"float32": float32, "float64": float64}

available_instruction_sets = float32.available_instruction_sets
instruction_set = float32.instruction_set
multiply_add_peak = float32.multiply_add_peak


def select_instruction_set(name):
    """Select the kernels of an instruction set, for tests and benchmarks; not during a call.

    Raises: ValueError if it was not built or this processor lacks it.
    """
    for module in _MODULES.values():
        module.select_instruction_set(name)


def gather_batch(x_ni, order_n, first, last, scale, out_bi):
    """out[b] = scale * x[order[first + b]]: see reference.gather_batch."""
    module = float64 if out_bi.itemsize == 8 else float32
    module.gather_batch(x_ni, order_n, first, last, scale, out_bi)


def forward(params, x_bi, spec, out_activations, dropout_state=None):
    """Activations of every layer: see reference.forward."""
    _MODULES[spec.dtype].forward(params, x_bi, spec, out_activations, dropout_state)


def loss_and_grad(logits_bk, targets_b, weights_b, spec, out_loss_b, out_grad_logits_bk):
    """Loss of every row and its gradient: see reference.loss_and_grad."""
    _MODULES[spec.dtype].loss_and_grad(
        logits_bk, targets_b, weights_b, spec, out_loss_b, out_grad_logits_bk
    )


def backward(params, x_bi, activations, grad_logits_bk, spec, out_grads, dropout_state=None):
    """Gradients of all parameters: see reference.backward."""
    _MODULES[spec.dtype].backward(
        params, x_bi, activations, grad_logits_bk, spec, out_grads, dropout_state
    )


def update(state, grads, hyperparams, spec):
    """One optimizer step: see reference.update."""
    _MODULES[spec.dtype].update(state, grads, hyperparams, spec)


def train_steps(state, data, order_n, schedule, spec, first, last, threads, seconds_tp=None):
    """Steps first..last-1 on a team of threads: see reference.train_steps.

    seconds_tp: (threads, phases), to which the time in each phase is added: see interface.PHASES.
    """
    return _MODULES[spec.dtype].train_steps(
        state, data, order_n, schedule, spec, first, last, threads, seconds_tp
    )


def predict(params, x_ni, scale, spec, threads, out_nk):
    """Probabilities: see reference.predict. A row's result does not depend on the other rows."""
    _MODULES[spec.dtype].predict(params, x_ni, scale, spec, threads, out_nk)

"""Kernels: the numerical operations of a multilayer perceptron, once for each backend.

`interface` is the contract that all backends keep, `reference` specifies it in NumPy,
`numba_backend` and `cython_backend` compute the same faster. May import `fmnist_fast.errors` and
nothing else of the package. Only `fmnist_fast.nn.backend` names a backend module.
"""

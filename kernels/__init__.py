"""Kernels: the numerical operations of a multilayer perceptron, once for each backend.

`interface` is the contract of all backends, `reference` its executable specification in NumPy;
`numba_backend` and `cython_backend` are the faster implementations. May import `fmnist_fast.errors`
only. Only `fmnist_fast.nn.backend` names a backend module.
"""

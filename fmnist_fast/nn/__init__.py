"""The neural network above the kernels: its parameters, backends, optimizers and schedules.

Also random streams, weight averaging, labels, metrics and calibration. May import `kernels`
(operations through the backend that `get_backend` returns), `errors`, `_files` and `_cpu`.
"""

"""The backend in Cython, compiled ahead of time; the innermost loops are C (`kernels/simd`).

`dispatch` is the backend; it passes each call on to the module of the spec's dtype, `float32` or
`float64`. Both are compiled from the same .pxi files, one for each group of operations.
"""

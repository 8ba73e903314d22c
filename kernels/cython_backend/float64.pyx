# cython: language_level=3
"""The compiled operations for float64: see operations.pxi."""

ctypedef double real

include "operations.pxi"

# cython: language_level=3
"""The compiled operations for float32: see operations.pxi."""

ctypedef float real

include "operations.pxi"

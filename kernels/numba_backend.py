"""The network in Numba, for machines without a C compiler: compiled once, at first use.

Every operation computes what the function of the same name in `reference.py` specifies.

Blocking: matrices are stored in panels of 64 columns while a call runs, and products skip zero
entries by bit masks. Every output element is computed in one tile of work, in one fixed order, so
the bits do not depend on the number of threads.

Vectorization: the innermost loops use a vector type of their own, defined below, instead of LLVM's
auto-vectorizer. No sum is reordered, nothing needs fastmath, and inlined copies of a function give
the same bits.

Compilation: all data of a call is in one array of floats and one of masks, and a table holds their
offsets. Options of the spec are integer codes that kernels read at run time. So one compilation per
dtype serves networks of any depth, sizes and options, and both read-only and writable inputs.

This file is above 600 lines because Numba's disk cache compares the time stamp of the one file that
defines a kernel: functions inlined from another file could change without a recompilation. The
layout is that of the Cython backend (layers.pxi, steps.pxi, simd/kernel_table.h), without its
splitting of inputs in halves and its pairs of panels.
"""

import logging
import math
import operator
import os
import pickle
import platform
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import caching, cgutils, config, event
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numpy.typing import NDArray

from . import interface
from .interface import (
    PHASES,
    DropoutState,
    Floats,
    NetworkSpec,
    Params,
    StepHyperparams,
    StepSchedule,
    TrainData,
    TrainState,
)
from .thread_team import have_cores, run_team

SUPPORTS = interface.SUPPORTS | {"input_format": ("dense",)}

PANEL = 64  # columns of a panel: a 64 x 64 block of weights is 16 KiB, half of the smallest L1
GROUP = 16  # columns of a tile of the update: a cache line of float32 weights
FORWARD_ROWS = 8  # rows of a tile of the first layer: a batch of 64 has 8 tiles a panel
ALL_BITS = -1
ZEROS_OFFSET = 0  # of 64 floats that stay zero
CACHE_LINE = 64  # bytes

# A thread at the barrier spins, then yields, then sleeps. Threads of a balanced step wait for
# microseconds; waiting for a preempted one must not occupy a core.
MAX_SPINS, MAX_YIELDS = 2000, 100
SLEEP_US = 100

if vars(config)["DISABLE_JIT"]:
    raise ImportError("NUMBA_DISABLE_JIT is set, and these kernels only run compiled")

X86 = platform.machine().lower() in ("x86_64", "amd64")


# Vector type and its operations.


class Vector(types.Type):
    """LLVM vector of float32 or float64, in as many registers as it needs."""

    def __init__(self, lanes: int, element: types.Float) -> None:
        super().__init__(name=f"Vector({lanes}, {element})")
        self.lanes, self.element = lanes, element


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        element = manager.lookup(vector.element).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _has_operator(symbol: Callable, emit: str) -> None:
    """Implement a binary operator of vectors by an LLVM instruction."""

    @infer_global(symbol)
    class Typing(AbstractTemplate):
        def generic(self, operands, _):
            if (
                len(operands) == 2
                and isinstance(operands[0], Vector)
                and operands[0] == operands[1]
            ):
                return signature(operands[0], *operands)
            return None

    @lower_builtin(symbol, Vector, Vector)
    def lower(context, builder, signature, operands):
        return getattr(builder, emit)(*operands)


for _symbol, _emit in {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv"}.items():
    _has_operator(getattr(operator, _symbol), _emit)

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _address(context, builder, array_type, array, index, like):
    """Return a pointer to array[index], without bounds check or negative indices."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), like.as_pointer())


def _call(builder, name, result, *operands):
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


def _math(builder, name, vector, *operands):
    """Call an LLVM intrinsic for vectors of this type."""
    suffix = f"v{vector.lanes}f{vector.element.bitwidth}"
    return _call(builder, f"llvm.{name}.{suffix}", operands[0].type, *operands)


def _splat(builder, value, lanes):
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    order = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), order)


@intrinsic(prefer_literal=True)
def load(typing, array, index, lanes):
    """Load a vector from array[index:]."""
    vector = Vector(lanes.literal_value, array.dtype)

    def emit(context, builder, sig, values):
        kind = context.get_value_type(vector)
        at = _address(context, builder, array, values[0], values[1], kind)
        return builder.load(at, align=array.dtype.bitwidth // 8)

    return vector(array, types.int64, lanes), emit


@intrinsic
def load_bytes(typing, array, index, like):
    """Load bytes from array[index:], converted to the type of the vector `like`."""

    def emit(context, builder, sig, values):
        kind = ir.VectorType(ir.IntType(8), like.lanes)
        at = _address(context, builder, array, values[0], values[1], kind)
        return builder.uitofp(builder.load(at, align=1), values[2].type)

    return like(array, types.int64, like), emit


@intrinsic
def store(typing, array, index, vector):
    """Store a vector to array[index:]."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], values[2].type)
        builder.store(values[2], at, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), emit


@intrinsic(prefer_literal=True)
def splat(typing, value, lanes):
    """Return a vector with the value in every lane."""

    def emit(context, builder, sig, values):
        return _splat(builder, values[0], lanes.literal_value)

    return Vector(lanes.literal_value, value)(value, lanes), emit


@intrinsic
def broadcast(typing, like, value):
    """Return a vector of the type of `like` with the value in every lane."""

    def emit(context, builder, sig, values):
        value = context.cast(builder, values[1], types.float64, like.element)
        return _splat(builder, value, like.lanes)

    return like(like, types.float64), emit


@intrinsic
def select_dtype_const(typing, like, single, double):
    """Return a vector of one of two constants, selected by dtype: float32 or float64."""

    def emit(context, builder, sig, values):
        value = values[1] if like.element == types.float32 else values[2]
        value = context.cast(builder, value, types.float64, like.element)
        return _splat(builder, value, like.lanes)

    return like(like, types.float64, types.float64), emit


@intrinsic(prefer_literal=True)
def splat_from(typing, array, index, lanes):
    """Return a vector with array[index] in every lane."""

    def emit(context, builder, sig, values):
        kind = context.get_value_type(array.dtype)
        at = _address(context, builder, array, values[0], values[1], kind)
        return _splat(builder, builder.load(at), lanes.literal_value)

    return Vector(lanes.literal_value, array.dtype)(array, types.int64, lanes), emit


@intrinsic
def fma(typing, a, b, c):
    """Return a b + c, fused where the processor can."""

    def emit(context, builder, sig, values):
        return _math(builder, "fmuladd", a, *values)

    return a(a, a, a), emit


@intrinsic
def sqrt(typing, a):
    """Return the square root of every lane."""

    def emit(context, builder, sig, values):
        return _math(builder, "sqrt", a, *values)

    return a(a), emit


@intrinsic
def maximum(typing, a, lowest_set_bit):
    """Return max(a, lowest) in every lane; NaN stays NaN."""

    def emit(context, builder, sig, values):
        return builder.select(builder.fcmp_ordered("<", *values), values[1], values[0])

    return a(a, a), emit


@intrinsic
def select_positive(typing, a, b, c):
    """Return b where a > 0, else c."""

    def emit(context, builder, sig, values):
        zero = ir.Constant(values[0].type, [0.0] * a.lanes)
        return builder.select(builder.fcmp_ordered(">", values[0], zero), *values[1:])

    return a(a, a, a), emit


@intrinsic
def mask_lanes(typing, mask, a):
    """Return a in the lanes whose bit of the mask is set, else 0."""

    def emit(context, builder, sig, values):
        bits = builder.trunc(values[0], ir.IntType(a.lanes)) if a.lanes < 64 else values[0]
        lanes = builder.bitcast(bits, ir.VectorType(ir.IntType(1), a.lanes))
        return builder.select(lanes, values[1], ir.Constant(values[1].type, [0.0] * a.lanes))

    return a(types.int64, a), emit


@intrinsic
def fabs(typing, a):
    """Return |a|."""

    def emit(context, builder, sig, values):
        return _math(builder, "fabs", a, *values)

    return a(a), emit


@intrinsic
def copysign(typing, a, b):
    """Return |a| with the sign of b."""

    def emit(context, builder, sig, values):
        return _math(builder, "copysign", a, *values)

    return a(a, a), emit


@intrinsic
def dropout_lanes(typing, a, unit, row, threshold, scale):
    """Apply dropout to a vector: see reference.apply_dropout and reference.random_bits.

    unit : index of the first lane's unit. row : the 64 random bits of the row. Both are int64.
    threshold : units with smaller bits are dropped. scale : factor of the others.
    """

    def emit(context, builder, sig, values):
        kind = ir.VectorType(_I32, a.lanes)

        def all_lanes(value):
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), kind([0] * a.lanes))

        def constant(value):
            return kind([value] * a.lanes)

        def xor_shift(bits, places):
            return builder.xor(bits, builder.lshr(bits, constant(places)))

        x, unit, row, threshold, scale = values
        low, high = row, builder.lshr(row, _I64(32))
        unit, low, high, threshold = (
            all_lanes(builder.trunc(value, _I32)) for value in (unit, low, high, threshold)
        )
        unit = builder.add(unit, kind(list(range(a.lanes))))
        bits = builder.add(builder.mul(unit, constant(0x9E3779B9)), low)
        bits = builder.xor(builder.mul(xor_shift(bits, 16), constant(0x7FEB352D)), high)
        bits = xor_shift(builder.mul(xor_shift(bits, 15), constant(0x846CA68B)), 16)
        kept = builder.fmul(x, _splat(builder, scale, a.lanes))
        zero = ir.Constant(values[0].type, [0.0] * a.lanes)
        return builder.select(builder.icmp_unsigned("<", bits, threshold), zero, kept)

    return a(a, types.int64, types.int64, types.int64, a.element), emit


@intrinsic
def nonzero_mask(typing, a):
    """Return a bit mask of the lanes that are not zero; NaN is not."""

    def emit(context, builder, sig, values):
        zero = ir.Constant(values[0].type, [0.0] * a.lanes)
        bits = builder.bitcast(builder.fcmp_unordered("!=", values[0], zero), ir.IntType(a.lanes))
        return bits if a.lanes == 64 else builder.zext(bits, _I64)

    return types.int64(a), emit


@intrinsic
def hsum(typing, a):
    """Return the sum of the lanes, added in order."""

    def emit(context, builder, sig, values):
        total = ir.Constant(values[0].type.element, 0.0)
        for lane in range(a.lanes):
            total = builder.fadd(total, builder.extract_element(values[0], ir.Constant(_I32, lane)))
        return total

    return a.element(a), emit


@intrinsic
def exp2_int(typing, shifted, shift):
    """Return 2^n for the integer n in shifted = shift + n; shift is 1.5 * 2^23 or 1.5 * 2^52."""
    bits, places, bias = (32, 23, 127) if shift.element == types.float32 else (64, 52, 1023)

    def emit(context, builder, sig, values):
        kind = ir.VectorType(ir.IntType(bits), shift.lanes)
        high, low = (builder.bitcast(value, kind) for value in values)
        exponent = builder.add(builder.sub(high, low), kind([bias] * shift.lanes))
        return builder.bitcast(builder.shl(exponent, kind([places] * shift.lanes)), values[0].type)

    return shift(shift, shift), emit


@intrinsic
def exp_polynomial(typing, r):
    """Return q = 1/2! + r/3! + r^2/4! + ..., so that e^r = 1 + r + r^2 q, for |r| <= log(2) / 2."""
    last = 7 if r.element == types.float32 else 13

    def emit(context, builder, sig, values):
        kind = values[0].type
        terms = [kind([1 / math.factorial(n)] * r.lanes) for n in range(last, 1, -1)]
        q = terms[0]
        for term in terms[1:]:
            q = _math(builder, "fmuladd", r, q, values[0], term)
        return q

    return r(r), emit


@intrinsic
def transpose_square(typing, source, start, source_step, target, target_start, target_step):
    """Transpose a 16 x 16 block by recursive swaps of its quadrants, the smallest first."""

    def emit(context, builder, sig, values):
        kind = ir.VectorType(context.get_value_type(source.dtype), GROUP)
        align = source.dtype.bitwidth // 8
        rows = []
        for i in range(GROUP):
            index = builder.add(values[1], builder.mul(values[2], ir.Constant(_I64, i)))
            at = _address(context, builder, source, values[0], index, kind)
            rows.append(builder.load(at, align=align))
        size = 1
        while size < GROUP:
            lanes = range(GROUP)
            upper = [GROUP + j - size if j & size else j for j in lanes]
            lower = [GROUP + j if j & size else j + size for j in lanes]
            for i in range(GROUP):
                if not i & size:
                    pair = rows[i], rows[i + size]
                    rows[i], rows[i + size] = (
                        builder.shuffle_vector(
                            *pair, ir.Constant(ir.VectorType(_I32, GROUP), order)
                        )
                        for order in (upper, lower)
                    )
            size *= 2
        for i in range(GROUP):
            index = builder.add(values[4], builder.mul(values[5], ir.Constant(_I64, i)))
            at = _address(context, builder, target, values[3], index, kind)
            builder.store(rows[i], at, align=align)
        return context.get_dummy_value()

    place = types.int64
    return types.void(source, place, place, target, place, place), emit


@intrinsic
def lowest_set_bit(typing, mask):
    """Return the index of the lowest set bit."""

    def emit(context, builder, sig, values):
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


# Threads: atomics, prefetch, spinning, floating-point mode, clock.


@intrinsic
def atomic_fetch_add(typing, array, index, value):
    """Atomically add to array[index]; return the old value."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], _I64)
        return builder.atomic_rmw("add", at, values[2], "acq_rel")

    return types.int64(array, types.int64, types.int64), emit


@intrinsic
def load_acquire(typing, array, index):
    """Load array[index] with acquire semantics."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], _I64)
        return builder.load_atomic(at, "acquire", 8)

    return types.int64(array, types.int64), emit


@intrinsic
def store_release(typing, array, index, value):
    """Store to array[index] with release semantics."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], _I64)
        builder.store_atomic(values[2], at, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), emit


@intrinsic
def prefetch(typing, array, index):
    """Prefetch array[index] into the second-level cache."""

    def emit(context, builder, sig, values):
        kind = context.get_value_type(array.dtype)
        at = _address(context, builder, array, values[0], values[1], kind)
        at = builder.bitcast(at, ir.IntType(8).as_pointer())
        how = [ir.Constant(_I32, value) for value in (0, 2, 1)]  # read, locality 2 of 3, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), at, *how)
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


@intrinsic
def spin_hint(typing):
    """Tell the processor that this thread spins."""

    def emit(context, builder, sig, values):
        if X86:
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def get_fp_mode(typing):
    """Return the floating-point control register of this thread."""

    def emit(context, builder, sig, values):
        if not X86:
            return ir.Constant(_I32, 0)
        buffer = cgutils.alloca_once(builder, _I32)
        _call(
            builder,
            "llvm.x86.sse.stmxcsr",
            ir.VoidType(),
            builder.bitcast(buffer, ir.IntType(8).as_pointer()),
        )
        return builder.load(buffer)

    return types.int32(), emit


@intrinsic
def set_fp_mode(typing, mode):
    """Set the floating-point control register of this thread."""

    def emit(context, builder, sig, values):
        if X86:
            buffer = cgutils.alloca_once_value(builder, values[0])
            _call(
                builder,
                "llvm.x86.sse.ldmxcsr",
                ir.VoidType(),
                builder.bitcast(buffer, ir.IntType(8).as_pointer()),
            )
        return context.get_dummy_value()

    return types.void(types.int32), emit


FLUSH_DENORMALS = 0x8040  # flush to zero, denormals are zero

if sys.platform == "win32":
    _sched_yield = types.ExternalFunction("SwitchToThread", types.int32())
    _sleep = types.ExternalFunction("Sleep", types.void(types.uint32))
    _SLEEP_UNITS = 1  # milliseconds
else:
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())
    _sleep = types.ExternalFunction("usleep", types.int32(types.uint32))
    _SLEEP_UNITS = SLEEP_US


# Functions that only compiled functions call; LLVM inlines them.
_inner = numba.njit(nogil=True, error_model="numpy")

if sys.platform == "win32":

    @_inner
    def now(buffer):
        """Return 0: phases are not timed on Windows."""
        return 0.0

else:
    _clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
    _CLOCK = time.CLOCK_MONOTONIC

    @_inner
    def now(buffer):
        """Return the monotonic time in seconds. buffer : int64 (2,), for a struct timespec."""
        _clock_gettime(np.int32(_CLOCK), buffer.ctypes.data)
        return buffer[0] + 1e-9 * buffer[1]


_cache_warning_shown = False


def _warn_cache_unusable(error: Exception) -> None:
    global _cache_warning_shown
    if not _cache_warning_shown:
        _cache_warning_shown = True
        warnings.warn(
            f"numba kernels are compiled again in the next process, not kept on disk: {error}; "
            "let NUMBA_CACHE_DIR name a folder that can be written to",
            UserWarning,
            stacklevel=3,
        )


@cache
def _check_cache_folder() -> None:
    """Warn if NUMBA_CACHE_DIR is not writable: Numba would use another folder silently."""
    folder = vars(config)["CACHE_DIR"]
    if not folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        warnings.warn(
            f"NUMBA_CACHE_DIR cannot be written to, numba kernels are kept elsewhere: {error}",
            UserWarning,
            stacklevel=3,
        )


def _kernel(function: Callable) -> Any:
    """Make a kernel that Python calls: compiled at its first call, cached on disk."""
    try:
        return numba.njit(function, nogil=True, error_model="numpy", cache=True)
    except RuntimeError as error:  # no writable folder
        _warn_cache_unusable(error)
        return numba.njit(function, nogil=True, error_model="numpy")


# Columns of the table of layers, which has one row a layer. All but the first two, FIRST_TILE and
# FIRST_UNIT are offsets into the array of floats or of masks:
# W, M, V : weights and their moments, (panels, i, 64). B, M_B, V_B : biases, (panels, 64).
# W_T : transposed weights, (panels of i, o rounded up to a multiple of 16, 64); not in layer 0.
# A, GRAD_Z : outputs, and gradient with respect to z, (panels, capacity, 64).
# A_MASK, GRAD_Z_MASK : bit masks of their nonzero entries, (panels, capacity).
# FIRST_TILE : index of the first tile of the layer's update among those of all layers.
# FIRST_UNIT : index of the layer's first output among the units of all hidden layers.
(
    INPUTS,
    OUTPUTS,
    W,
    M,
    V,
    B,
    M_B,
    V_B,
    W_T,
    A,
    GRAD_Z,
    A_MASK,
    GRAD_Z_MASK,
    FIRST_TILE,
    FIRST_UNIT,
) = range(15)

# Coefficients of a step. sgd and nesterov use two of Adam's places for others: they change a
# parameter by MOMENTUM_COEF * velocity - GRAD_COEF * step_size * gradient.
STEP_SIZE, EPSILON, L2, DECAY_FACTOR, BETA1, ONE_MINUS_BETA1, BETA2, ONE_MINUS_BETA2 = range(8)
MOMENTUM_COEF, GRAD_COEF = BETA2, ONE_MINUS_BETA2

# Codes of the options of a spec, in the order of SUPPORTS.
RELU, TANH, LOGISTIC, IDENTITY = range(4)
SOFTMAX, SIGMOID = range(2)
ADAM, SGD, NESTEROV = range(3)
CODES = {
    name: code
    for option in ("activation", "loss", "optimizer")
    for code, name in enumerate(SUPPORTS[option])
}

# Columns of seconds_tp.
GATHER, FIRST_LAYER, HIDDEN_BACKWARD, UPDATE, BARRIER = range(len(PHASES))

# Words of a barrier, each in its own cache line.
ARRIVED, GENERATION, ABORTED = 0, 8, 16


class Net(NamedTuple):
    """The arrays of a call, the table of layers, and the options of the spec.

    floats : of the spec's dtype; the first 64 stay zero. masks : int64. layers : int64 (layers,
    columns).
    capacity : allocated rows of a batch, a multiple of 64.
    activation, loss, optimizer : codes.
    row_bits : offset of the rows' random bits among the masks; -1: no dropout.
    threshold : units with smaller random bits are dropped.
    inv_keep_prob, keep_prob : 1 / (1 - rate) and 1 - rate; both are 1 without dropout.
    max_loss : per-class loss values are clipped to it.
    """

    floats: NDArray
    masks: NDArray
    layers: NDArray
    capacity: int
    activation: int
    loss: int
    optimizer: int
    row_bits: int
    threshold: int
    inv_keep_prob: np.floating
    keep_prob: np.floating
    max_loss: float


@_inner
def panel_count(columns):
    """Return the number of panels of so many columns."""
    return (columns + PANEL - 1) // PANEL


@_inner
def group_count(columns):
    """Return the number of groups of so many columns."""
    return (columns + GROUP - 1) // GROUP


@_inner
def low_bits_mask(count):
    """Return a mask of the first entries, at most 64."""
    return ALL_BITS if count >= PANEL else (1 << count) - 1


@_inner
def chunk_bounds(count, chunk, chunks):
    """Return the range of one of `chunks` nearly equal chunks of a range of `count`."""
    return count * chunk // chunks, count * (chunk + 1) // chunks


@_inner
def masked_matmul(net, x, mask, only, w, start, start_step, out, first, last):
    """Compute out[s] = start[s] + sum of x[s][k] w[k] over the set bits k of mask[s] & only.

    For rows first..last-1 of x, start and out, 64 columns each. start_step : distance of the rows
    of start; 0: one row for all.
    """
    floats, masks = net.floats, net.masks
    for s in range(first, last):
        total = load(floats, start + s * start_step, PANEL)
        bits = masks[mask + s] & only
        row = x + s * PANEL
        while bits:
            k = lowest_set_bit(bits)
            total = fma(
                splat_from(floats, row + k, PANEL), load(floats, w + k * PANEL, PANEL), total
            )
            bits &= bits - 1
        store(floats, out + s * PANEL, total)


@_inner
def forward_rows(net, depth, x, mask, panel, first, last):
    """Compute rows first..last-1 of one panel of a layer's outputs. x, mask : inputs, in panels."""
    layers, capacity = net.layers, net.capacity
    inputs = layers[depth, INPUTS]
    out = layers[depth, A] + panel * capacity * PANEL
    w = layers[depth, W] + panel * inputs * PANEL
    bias = layers[depth, B] + panel * PANEL
    for block in range(panel_count(inputs)):
        start, start_step = (out, PANEL) if block else (bias, 0)
        block_x, block_mask = x + block * capacity * PANEL, mask + block * capacity
        block_w = w + block * PANEL * PANEL
        masked_matmul(
            net, block_x, block_mask, ALL_BITS, block_w, start, start_step, out, first, last
        )
    if depth < len(layers) - 1:
        mask = layers[depth, A_MASK] + panel * capacity
        if net.activation == RELU:
            relu_rows(net, out, mask, first, last)
            if net.row_bits >= 0:
                dropout_rows(net, out, mask, first, last, layers[depth, FIRST_UNIT] + panel * PANEL)
        else:
            dropout_mask_rows(net, depth, panel, first, last)
            activate_rows(net, out, mask, first, last)


@_inner
def relu_rows(net, x, mask, first, last):
    """Apply ReLU in place and fill the masks of the nonzero outputs."""
    floats, masks = net.floats, net.masks
    for s in range(first, last):
        a = load(floats, x + s * PANEL, PANEL)
        a = maximum(a, broadcast(a, 0))
        store(floats, x + s * PANEL, a)
        masks[mask + s] = nonzero_mask(a)


@_inner
def dropout_mask_rows(net, depth, panel, first, last):
    """Fill the masks of a panel's outputs for activations other than ReLU.

    They name all outputs that dropout keeps, zero or not.
    """
    masks, layers = net.masks, net.layers
    mask, unit = (
        layers[depth, A_MASK] + panel * net.capacity,
        layers[depth, FIRST_UNIT] + panel * PANEL,
    )
    valid = low_bits_mask(layers[depth, OUTPUTS] - panel * PANEL)
    scale = splat(net.inv_keep_prob, PANEL)
    for s in range(first, last):
        kept_bits = valid
        if net.row_bits >= 0:
            bits = masks[net.row_bits + s]
            kept_bits &= nonzero_mask(
                dropout_lanes(scale, unit, bits, net.threshold, net.inv_keep_prob)
            )
        masks[mask + s] = kept_bits


@_inner
def activate_rows(net, x, mask, first, last):
    """Apply tanh, logistic or identity, and dropout by the given masks, in place."""
    floats, masks, scale = net.floats, net.masks, splat(net.inv_keep_prob, GROUP)
    for s in range(first, last):
        for c in range(0, PANEL, GROUP):
            at = x + s * PANEL + c
            a = load(floats, at, GROUP)
            if net.activation == TANH:
                a = tanh(a)
            elif net.activation == LOGISTIC:
                a = logistic(a)
            store(floats, at, mask_lanes(masks[mask + s] >> c, scale * a))


@_inner
def draw_row_bits(net, order, start, key, first, last):
    """Draw the random bits of rows first..last-1 of a batch: see reference.random_bits.

    order[start + s] : index of row s of the batch in the data set.
    """
    for s in range(first, last):
        bits = np.uint64(key) + np.uint64(order[start + s]) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        net.masks[net.row_bits + s] = np.int64(bits ^ (bits >> np.uint64(31)))


@_inner
def dropout_rows(net, x, mask, first, last, unit):
    """Apply dropout to a panel in place and fill the masks of the nonzero outputs.

    unit : index of the panel's first column among the units of all hidden layers.
    """
    floats, masks = net.floats, net.masks
    for s in range(first, last):
        bits = masks[net.row_bits + s]
        a = dropout_lanes(
            load(floats, x + s * PANEL, PANEL), unit, bits, net.threshold, net.inv_keep_prob
        )
        store(floats, x + s * PANEL, a)
        masks[mask + s] = nonzero_mask(a)


@_inner
def backward_rows(net, depth, first, last):
    """Compute the gradient with respect to z of the layer below, for rows first..last-1."""
    layers, capacity = net.layers, net.capacity
    transposed_rows = group_count(layers[depth, OUTPUTS]) * GROUP
    for panel in range(panel_count(layers[depth, INPUTS])):
        out = layers[depth - 1, GRAD_Z] + panel * capacity * PANEL
        for block in range(panel_count(layers[depth, OUTPUTS])):
            start, start_step = (out, PANEL) if block else (ZEROS_OFFSET, 0)
            grad_z = layers[depth, GRAD_Z] + block * capacity * PANEL
            block_mask = layers[depth, GRAD_Z_MASK] + block * capacity
            w = layers[depth, W_T] + (panel * transposed_rows + block * PANEL) * PANEL
            masked_matmul(net, grad_z, block_mask, ALL_BITS, w, start, start_step, out, first, last)
        activation_grad_rows(net, depth - 1, panel, first, last)


@_inner
def activation_grad_rows(net, depth, panel, first, last):
    """Turn the gradient with respect to a panel's outputs into that with respect to z, in place."""
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    start = panel * capacity * PANEL
    x, a = layers[depth, GRAD_Z] + start, layers[depth, A] + start
    mask = layers[depth, GRAD_Z_MASK] + panel * capacity
    a_mask = layers[depth, A_MASK] + panel * capacity
    scale, keep_prob = splat(net.inv_keep_prob, PANEL), splat(net.keep_prob, PANEL)
    zero, one = broadcast(scale, 0), broadcast(scale, 1)
    for s in range(first, last):
        output = load(floats, a + s * PANEL, PANEL)
        grad = scale * load(floats, x + s * PANEL, PANEL)
        if net.activation == RELU:
            grad = select_positive(output, grad, zero)
        else:
            output = keep_prob * output
            if net.activation == TANH:
                grad = grad * fma(zero - output, output, one)
            elif net.activation == LOGISTIC:
                grad = grad * (output * (one - output))
            grad = mask_lanes(masks[a_mask + s], grad)
        store(floats, x + s * PANEL, grad)
        masks[mask + s] = nonzero_mask(grad)


@_inner
def reduce_exp_arg(x):
    """Return 2^n, r and q for x <= 0, with e^x = 2^n (1 + r + r^2 q) and |r| <= log(2) / 2.

    x is clipped so that e^x stays a normal number. The method is that of kernels/simd/vector.h; in
    float64 the two parts of log(2) are those of fdlibm's e_exp.c.
    """
    x = maximum(x, select_dtype_const(x, -87.0, -708.0))
    shift = select_dtype_const(x, 1.5 * 2**23, 1.5 * 2**52)
    shifted = fma(x, broadcast(x, 1.44269504088896341), shift)
    n = shifted - shift
    r = fma(n, select_dtype_const(x, -0.693145751953125, -6.93147180369123816490e-01), x)
    r = fma(n, select_dtype_const(x, -1.42860682030941723e-6, -1.90821492927058770002e-10), r)
    return exp2_int(shifted, shift), r, exp_polynomial(r)


@_inner
def exp(x):
    """Return e^x for x <= 0."""
    one = broadcast(x, 1)
    power, r, q = reduce_exp_arg(x)
    return power * fma(fma(q, r, one), r, one)


@_inner
def logistic(z):
    """Return 1 / (1 + e^-z), computed from e^-|z|, which cannot overflow."""
    one = broadcast(z, 1)
    e = exp(broadcast(z, 0) - fabs(z))
    return select_positive(z, one, e) / (one + e)


@_inner
def tanh(z):
    """Return -t / (2 + t) with the sign of z, where t = e^-2|z| - 1.

    For small z, t is r: subtracting 1 cancels no digits.
    """
    zero, one, two = broadcast(z, 0), broadcast(z, 1), broadcast(z, 2)
    power, r, q = reduce_exp_arg(zero - two * fabs(z))
    t = fma(power, fma(r * r, q, r), power - one)
    return copysign(t / (two + t), z)


@_inner
def softmax_row(net, z, out, classes, s):
    """Compute the softmax of row s of the logits, in panels; return log sum_k e^z[k]."""
    floats, capacity = net.floats, net.capacity
    peak = floats[z + s * PANEL]
    for c in range(1, classes):
        value = floats[z + (c // PANEL * capacity + s) * PANEL + c % PANEL]
        if value > peak:
            peak = value
    for c in range(0, classes, GROUP):
        at = (c // PANEL * capacity + s) * PANEL + c % PANEL
        store(floats, out + at, exp(load(floats, z + at, GROUP) - splat(peak, GROUP)))
    total = 0.0
    for c in range(classes):
        total += floats[out + (c // PANEL * capacity + s) * PANEL + c % PANEL]
    for c in range(classes):
        at = out + (c // PANEL * capacity + s) * PANEL + c % PANEL
        floats[at] = floats[at] / total
    for c in range(classes, group_count(classes) * GROUP):
        floats[out + (c // PANEL * capacity + s) * PANEL + c % PANEL] = 0
    return math.log(total) + peak


@_inner
def sigmoid_row(net, z, out, classes, s):
    """Compute the sigmoid of row s of the logits, in panels."""
    floats, capacity = net.floats, net.capacity
    for c in range(0, classes, GROUP):
        at = (c // PANEL * capacity + s) * PANEL + c % PANEL
        p = mask_lanes(low_bits_mask(classes - c), logistic(load(floats, z + at, GROUP)))
        store(floats, out + at, p)


@_inner
def loss_and_grad_row(net, s, labels, soft_targets, row, weight):
    """Compute loss_and_grad for one row and fill its masks. Return the loss.

    weight : of the row, divided by the sum over the batch.
    labels, soft_targets : of all rows, flat; one is empty. row : index of the row in them.
    """
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    top = len(layers) - 1
    z, grad_z, mask = layers[top, A], layers[top, GRAD_Z], layers[top, GRAD_Z_MASK]
    classes, weight = layers[top, OUTPUTS], floats.dtype.type(weight)
    if net.loss == SIGMOID:
        sigmoid_row(net, z, grad_z, classes, s)
        loss = 0.0
        for c in range(classes):
            at = (c // PANEL * capacity + s) * PANEL + c % PANEL
            value, target = np.float64(floats[z + at]), soft_targets[row * classes + c]
            floats[grad_z + at] -= target
            cost = math.log1p(math.exp(-abs(value))) + (value if value > 0 else 0.0)
            cost -= target * value
            loss += net.max_loss if cost > net.max_loss else cost  # NaN stays NaN
    elif len(soft_targets):
        loss = softmax_row(net, z, grad_z, classes, s)
        expected = 0.0
        for c in range(classes):
            at = (c // PANEL * capacity + s) * PANEL + c % PANEL
            target = soft_targets[row * classes + c]
            expected += target * floats[z + at]
            floats[grad_z + at] -= target
        loss -= expected
    else:
        loss = softmax_row(net, z, grad_z, classes, s)
        target = np.int64(labels[row])
        at = (target // PANEL * capacity + s) * PANEL + target % PANEL
        floats[grad_z + at] -= 1
        loss -= floats[z + at]
        loss = net.max_loss if loss > net.max_loss else loss
    for c in range(classes):
        floats[grad_z + (c // PANEL * capacity + s) * PANEL + c % PANEL] *= weight
    for panel in range(panel_count(classes)):
        masks[mask + panel * capacity + s] = low_bits_mask(classes - panel * PANEL)
    return loss


@_inner
def adam_step(floats, p, m, v, g, coefs, l2, decay_factor):
    """Update a vector of parameters: see reference.adam_step. Return the new values."""
    w = load(floats, p, GROUP)
    g = fma(l2, w, g)
    first_moment = fma(
        splat_from(coefs, BETA1, GROUP),
        load(floats, m, GROUP),
        splat_from(coefs, ONE_MINUS_BETA1, GROUP) * g,
    )
    second_moment = fma(
        splat_from(coefs, BETA2, GROUP),
        load(floats, v, GROUP),
        splat_from(coefs, ONE_MINUS_BETA2, GROUP) * g * g,
    )
    denominator = sqrt(second_moment) + splat_from(coefs, EPSILON, GROUP)
    step = splat_from(coefs, STEP_SIZE, GROUP) * first_moment / denominator
    store(floats, m, first_moment)
    store(floats, v, second_moment)
    w = decay_factor * w - step
    store(floats, p, w)
    return w


@_inner
def momentum_step(floats, p, m, g, coefs, l2, decay_factor):
    """Update a vector of parameters: see reference.momentum_step. Return the new values."""
    w = load(floats, p, GROUP)
    step = splat_from(coefs, STEP_SIZE, GROUP) * fma(l2, w, g)
    velocity = splat_from(coefs, BETA1, GROUP) * load(floats, m, GROUP) - step
    store(floats, m, velocity)
    moved = (
        splat_from(coefs, MOMENTUM_COEF, GROUP) * velocity
        - splat_from(coefs, GRAD_COEF, GROUP) * step
    )
    w = fma(decay_factor, w, moved)
    store(floats, p, w)
    return w


@_inner
def optimizer_step(optimizer, floats, p, m, v, g, coefs, l2, decay_factor):
    """Update a vector of parameters by the spec's optimizer. Return the new values."""
    if optimizer == ADAM:
        return adam_step(floats, p, m, v, g, coefs, l2, decay_factor)
    return momentum_step(floats, p, m, g, coefs, l2, decay_factor)


@_inner
def transpose_grad_z(net, depth, rows, panel, transposed, transposed_mask):
    """Transpose one panel of a layer's GRAD_Z, for the gradients of its weights.

    transposed : blocks (64 outputs, 64 rows). transposed_mask : masks of their nonzero entries.
    """
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    grad_z = layers[depth, GRAD_Z] + panel * capacity * PANEL
    outputs = group_count(min(PANEL, layers[depth, OUTPUTS] - panel * PANEL)) * GROUP
    for s in range(0, rows, PANEL):
        count = min(PANEL, rows - s)
        for c in range(0, outputs, GROUP):
            for r in range(0, count, GROUP):
                transpose_square(
                    floats,
                    grad_z + (s + r) * PANEL + c,
                    PANEL,
                    floats,
                    transposed + (s + c) * PANEL + r,
                    PANEL,
                )
        valid = low_bits_mask(count)  # rows behind them are of an earlier batch
        for c in range(outputs):
            found = nonzero_mask(load(floats, transposed + (s + c) * PANEL, PANEL))
            masks[transposed_mask + s + c] = found & valid


@_inner
def nonzero_rows_mask(masks, mask, rows):
    """Return a mask of the rows, at most 64, that have a nonzero entry."""
    found = 0
    for s in range(rows):
        found |= (1 if masks[mask + s] else 0) << s
    return found


@_inner
def update_tile(
    net, depth, x, mask, rows, panel, block, group, transposed, transposed_mask, coefs, apply_step
):
    """Compute the gradient of 64 inputs (a block of x) x 16 outputs (a group of a panel) and step.

    transpose_grad_z must have filled `transposed`; buffers for the gradient follow it. Return the
    sum of squares of the old weights. apply_step : False: store the gradient to w instead.
    """
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    inputs, base, first = layers[depth, INPUTS], block * PANEL, group * GROUP
    grad = transposed + capacity * PANEL  # (16 outputs, 64 inputs)
    square = grad + GROUP * PANEL  # (16, 16)
    for s in range(0, rows, PANEL):
        start, start_step = (grad, PANEL) if s else (ZEROS_OFFSET, 0)
        only_rows = nonzero_rows_mask(masks, mask + block * capacity + s, min(PANEL, rows - s))
        grad_z, block_mask = transposed + (s + first) * PANEL, transposed_mask + s + first
        block_x = x + (block * capacity + s) * PANEL
        masked_matmul(
            net, grad_z, block_mask, only_rows, block_x, start, start_step, grad, 0, GROUP
        )
    offset = (panel * inputs + base) * PANEL + first
    w, m, v = layers[depth, W] + offset, layers[depth, M] + offset, layers[depth, V] + offset
    l2, decay_factor = splat_from(coefs, L2, GROUP), splat_from(coefs, DECAY_FACTOR, GROUP)
    squares = broadcast(l2, 0)
    transposed_rows = group_count(layers[depth, OUTPUTS]) * GROUP
    w_t = layers[depth, W_T] + (block * transposed_rows + panel * PANEL + first) * PANEL
    for k in range(0, min(PANEL, inputs - base), GROUP):
        transpose_square(floats, grad + k, PANEL, floats, square, GROUP)
        for i in range(min(GROUP, inputs - base - k)):
            g, at = load(floats, square + i * GROUP, GROUP), (k + i) * PANEL
            if apply_step:
                before = load(floats, w + at, GROUP)
                squares = fma(before, before, squares)
                after = optimizer_step(
                    net.optimizer, floats, w + at, m + at, v + at, g, coefs, l2, decay_factor
                )
                store(floats, square + i * GROUP, after)
            else:
                store(floats, w + at, g)
        if apply_step and depth:
            transpose_square(floats, square, GROUP, floats, w_t + k, PANEL)
    return hsum(squares)


@_inner
def update_bias(net, depth, rows, panel, coefs, apply_step):
    """Compute the gradient of 64 biases and step; without apply_step store the gradient to b."""
    floats, layers, capacity = net.floats, net.layers, net.capacity
    nothing = load(floats, ZEROS_OFFSET, GROUP)
    for c in range(0, PANEL, GROUP):
        total = nothing
        for s in range(rows):
            at = layers[depth, GRAD_Z] + (panel * capacity + s) * PANEL + c
            total = total + load(floats, at, GROUP)
        at = panel * PANEL + c
        b = layers[depth, B] + at
        if apply_step:
            m, v = layers[depth, M_B] + at, layers[depth, V_B] + at
            optimizer_step(
                net.optimizer, floats, b, m, v, total, coefs, nothing, broadcast(nothing, 1)
            )
        else:
            store(floats, b, total)


@_inner
def gather_row(net, x_pixels, x_floats, row, scale, out, mask, s):
    """Copy a row of the data set, scaled, to row s of a batch in panels, and fill its masks.

    x_pixels, x_floats : all rows, flat; one is empty.
    """
    floats, masks, capacity, inputs = net.floats, net.masks, net.capacity, net.layers[0, INPUTS]
    for panel in range(panel_count(inputs)):
        count = min(PANEL, inputs - panel * PANEL)
        at = row * inputs + panel * PANEL
        out_offset = out + (panel * capacity + s) * PANEL
        full = count // GROUP * GROUP
        for c in range(0, full, GROUP):
            x = splat(scale, GROUP)
            if len(x_pixels):
                x = x * load_bytes(x_pixels, at + c, x)
            else:
                x = x * load(x_floats, at + c, GROUP)
            store(floats, out_offset + c, x)
        for c in range(full, count):
            if len(x_pixels):
                floats[out_offset + c] = scale * floats.dtype.type(x_pixels[at + c])
            else:
                floats[out_offset + c] = scale * x_floats[at + c]
        for c in range(count, PANEL):
            floats[out_offset + c] = 0
        masks[mask + panel * capacity + s] = nonzero_mask(load(floats, out_offset, PANEL))


class TrainArgs(NamedTuple):
    """Arguments of train_worker: a range of steps, with the data and the schedule.

    dropout_key : of the epoch, as int64. line_floats : floats of a cache line.
    x, x_mask : offsets of two batches of inputs, of which one trains while the next is gathered.
    transposed, transposed_mask : offsets of the first thread's buffers of transpose_grad_z.
    *_step : distance to the second batch, or to the buffers of the next thread.
    starts : see StepSchedule.starts. labels, soft_targets : one is empty.
    coefs_t : (t, 8) of the spec's dtype, coefficients of the steps.
    row_losses : of the batch. tile_squares : float64, sum of squares of every tile's weights.
    losses_t, squares_t : results: the loss without penalty, and the sum of all squared weights.
    seconds_tp : float64 (threads, phases), added to; without rows nothing is timed.
    """

    first: int
    last: int
    threads: int
    spins: int
    dropout_key: int
    line_floats: int
    x: int
    x_step: int
    x_mask: int
    x_mask_step: int
    transposed: int
    transposed_step: int
    transposed_mask: int
    transposed_mask_step: int
    scale: np.floating
    net: Net
    x_pixels: NDArray
    x_floats: NDArray
    order: NDArray
    starts: NDArray
    labels: NDArray
    soft_targets: NDArray
    weights: NDArray
    coefs_t: NDArray
    row_losses: NDArray
    tile_squares: NDArray
    losses_t: NDArray
    squares_t: NDArray
    seconds_tp: NDArray
    barrier: NDArray


@_inner
def barrier_wait(barrier, threads, spins):
    """Wait until all threads have arrived. Return False if the team was aborted."""
    if threads == 1:
        return True
    generation = load_acquire(barrier, GENERATION)
    if atomic_fetch_add(barrier, ARRIVED, 1) == threads - 1:
        store_release(barrier, ARRIVED, 0)
        store_release(barrier, GENERATION, generation + 1)
        return True
    polls = 0
    while load_acquire(barrier, GENERATION) == generation:
        if polls < spins:
            spin_hint()
        elif polls < spins + MAX_YIELDS:
            _sched_yield()
        else:
            if load_acquire(barrier, ABORTED):
                return False
            _sleep(_SLEEP_UNITS)
        polls += 1
    return True


@_inner
def batch_size_at(args, step):
    """Return the rows of a step."""
    return args.starts[step + 1] - args.starts[step]


@_inner
def batch_offsets(args, step):
    """Return the offsets of the inputs of a step and of their masks: two batches alternate."""
    odd = step & 1
    return args.x + odd * args.x_step, args.x_mask + odd * args.x_mask_step


@_inner
def gather_phase(args, step, thread):
    """Gather this thread's rows of a batch."""
    rows = batch_size_at(args, step)
    first, last = chunk_bounds(rows, thread, args.threads)
    x, mask = batch_offsets(args, step)
    if args.net.row_bits >= 0:
        draw_row_bits(args.net, args.order, args.starts[step], args.dropout_key, first, last)
    for s in range(first, last):
        gather_row(
            args.net,
            args.x_pixels,
            args.x_floats,
            args.order[args.starts[step] + s],
            args.scale,
            x,
            mask,
            s,
        )


@_inner
def prefetch_rows(args, step, thread, part, parts):
    """Prefetch one of `parts` parts of the rows that gather_phase will read in this step.

    They are random rows of a data set larger than the caches.
    """
    rows, inputs = batch_size_at(args, step), args.net.layers[0, INPUTS]
    begin, end = chunk_bounds(rows, thread, args.threads)
    first, last = chunk_bounds(end - begin, part, parts)
    for s in range(begin + first, begin + last):
        row = args.order[args.starts[step] + s]
        if len(args.x_pixels):
            for i in range(0, inputs, CACHE_LINE):
                prefetch(args.x_pixels, row * inputs + i)
            prefetch(args.x_pixels, row * inputs + inputs - 1)
        else:
            for line in range((inputs - 1) // args.line_floats + 1):
                prefetch(args.x_floats, row * inputs + line * args.line_floats)
            prefetch(args.x_floats, row * inputs + inputs - 1)


@_inner
def first_layer_phase(args, step, thread):
    """Compute this thread's tiles, FORWARD_ROWS rows of a panel each, of the first layer."""
    rows = batch_size_at(args, step)
    x, mask = batch_offsets(args, step)
    groups = (rows + FORWARD_ROWS - 1) // FORWARD_ROWS
    tiles = groups * panel_count(args.net.layers[0, OUTPUTS])
    tile, end = chunk_bounds(tiles, thread, args.threads)
    while tile < end:
        panel = tile // groups
        stop = min(end, (panel + 1) * groups)
        first, last = (tile - panel * groups) * FORWARD_ROWS, (stop - panel * groups) * FORWARD_ROWS
        forward_rows(args.net, 0, x, mask, panel, first, min(rows, last))
        tile = stop


@_inner
def hidden_phase(args, step, thread):
    """Compute remaining layers, loss and backward pass for this thread's rows."""
    rows, layers = batch_size_at(args, step), args.net.layers
    first, last = chunk_bounds(rows, thread, args.threads)
    top = len(layers) - 1
    if first == last:
        return
    for depth in range(1, len(layers)):
        for panel in range(panel_count(layers[depth, OUTPUTS])):
            forward_rows(
                args.net, depth, layers[depth - 1, A], layers[depth - 1, A_MASK], panel, first, last
            )
    total = 0.0
    for s in range(rows):
        total += args.weights[args.order[args.starts[step] + s]]
    for s in range(first, last):
        row = args.order[args.starts[step] + s]
        args.row_losses[s] = loss_and_grad_row(
            args.net,
            s,
            args.labels,
            args.soft_targets,
            row,
            args.weights[row] / total if total else 0.0,
        )
    for depth in range(top, 0, -1):
        backward_rows(args.net, depth, first, last)


@_inner
def update_phase(args, step, thread):
    """Compute this thread's tiles of the gradients, and apply the optimizer to them."""
    rows, layers = batch_size_at(args, step), args.net.layers
    x_0, mask_0 = batch_offsets(args, step)
    transposed = args.transposed + thread * args.transposed_step
    transposed_mask = args.transposed_mask + thread * args.transposed_mask_step
    coefs = args.coefs_t[step]
    for depth in range(len(layers)):
        x = layers[depth - 1, A] if depth else x_0
        mask = layers[depth - 1, A_MASK] if depth else mask_0
        blocks, all_groups = panel_count(layers[depth, INPUTS]), group_count(layers[depth, OUTPUTS])
        tiles = blocks * all_groups
        begin, end = chunk_bounds(tiles, thread, args.threads)
        tile, panel_before = begin, -1
        while tile < end:
            # Order of the tiles: panels of outputs, their blocks of inputs, groups of outputs.
            panel = tile // (blocks * (PANEL // GROUP))
            groups = min(PANEL // GROUP, all_groups - panel * (PANEL // GROUP))
            within = tile - panel * blocks * (PANEL // GROUP)
            if panel != panel_before:
                transpose_grad_z(args.net, depth, rows, panel, transposed, transposed_mask)
                panel_before = panel
            args.tile_squares[layers[depth, FIRST_TILE] + tile] = update_tile(
                args.net,
                depth,
                x,
                mask,
                rows,
                panel,
                within // groups,
                within % groups,
                transposed,
                transposed_mask,
                coefs,
                True,
            )
            if within == 0:
                update_bias(args.net, depth, rows, panel, coefs, True)
            if depth == 0 and step + 1 < args.last:
                prefetch_rows(args, step + 1, thread, tile - begin, end - begin)
            tile += 1


@_inner
def store_loss(args, step):
    """Store a step's loss without penalty and sum of squares, when all tiles are done."""
    total, loss, squares = 0.0, 0.0, 0.0
    for s in range(batch_size_at(args, step)):
        weight = args.weights[args.order[args.starts[step] + s]]
        total += weight
        loss += weight * args.row_losses[s]
    for tile in range(len(args.tile_squares)):
        squares += args.tile_squares[tile]
    args.losses_t[step - args.first] = loss / total if total else 0.0
    args.squares_t[step - args.first] = squares


@_inner
def record_phase(clock, buffer, phase):
    """Add the time since the last call to a phase.

    clock : seconds by phase, then the time of the last call; empty if nothing is timed.
    """
    if len(clock):
        at = now(buffer)
        clock[phase] += at - clock[-1]
        clock[-1] = at


@_inner
def timed_barrier_wait(args, clock, buffer):
    """Wait at the barrier and time it. Return False if the team was aborted."""
    running = barrier_wait(args.barrier, args.threads, args.spins)
    record_phase(clock, buffer, BARRIER)
    return running


@_kernel
def train_worker(args, thread):
    """Run all steps as one thread of the team."""
    fp_mode = get_fp_mode()
    set_fp_mode(fp_mode | np.int32(FLUSH_DENORMALS))
    buffer = np.zeros(2, np.int64)
    clock = np.zeros(BARRIER + 2 if len(args.seconds_tp) else 0)
    if len(clock):
        clock[-1] = now(buffer)
    gather_phase(args, args.first, thread)
    record_phase(clock, buffer, GATHER)
    running = timed_barrier_wait(args, clock, buffer)
    step = args.first
    while running and step < args.last:
        if thread == 0 and step > args.first:
            store_loss(args, step - 1)
        first_layer_phase(args, step, thread)
        record_phase(clock, buffer, FIRST_LAYER)
        if not timed_barrier_wait(args, clock, buffer):
            break
        hidden_phase(args, step, thread)
        record_phase(clock, buffer, HIDDEN_BACKWARD)
        if not timed_barrier_wait(args, clock, buffer):
            break
        update_phase(args, step, thread)
        record_phase(clock, buffer, UPDATE)
        if step + 1 < args.last:
            gather_phase(args, step + 1, thread)
            record_phase(clock, buffer, GATHER)
        running = timed_barrier_wait(args, clock, buffer)
        step += 1
    if thread == 0 and running:
        store_loss(args, args.last - 1)
    if len(clock):
        args.seconds_tp[thread] += clock[:-1]
    set_fp_mode(fp_mode)


@_inner
def forward_layers(net, x, mask, rows):
    """Compute all layers of the rows at offset x."""
    layers = net.layers
    for depth in range(len(layers)):
        for panel in range(panel_count(layers[depth, OUTPUTS])):
            forward_rows(net, depth, x, mask, panel, 0, rows)
        x, mask = layers[depth, A], layers[depth, A_MASK]


@_kernel
def predict_rows(net, x, mask, x_pixels, x_floats, scale, first, last, out_nk):
    """Predict rows first..last-1, 64 at a time."""
    floats, layers = net.floats, net.layers
    top = len(layers) - 1
    z, classes = layers[top, A], layers[top, OUTPUTS]
    for base in range(first, last, PANEL):
        rows = min(PANEL, last - base)
        for s in range(rows):
            gather_row(net, x_pixels, x_floats, base + s, scale, x, mask, s)
        forward_layers(net, x, mask, rows)
        for s in range(rows):
            if net.loss == SIGMOID:
                sigmoid_row(net, z, z, classes, s)
            else:
                softmax_row(net, z, z, classes, s)
            for c in range(classes):
                out_nk[base + s, c] = floats[z + (c // PANEL * PANEL + s) * PANEL + c % PANEL]


@_kernel
def forward_batch(net, x, mask, x_flat, dropout_rows_b, dropout_key):
    """Compute all layers of a batch. dropout_rows_b, dropout_key : not used without dropout."""
    layers = net.layers
    inputs, nothing = layers[0, INPUTS], np.empty(0, np.uint8)
    rows = len(x_flat) // inputs
    if net.row_bits >= 0:
        draw_row_bits(net, dropout_rows_b, 0, dropout_key, 0, rows)
    for s in range(rows):
        gather_row(net, nothing, x_flat, s, x_flat.dtype.type(1), x, mask, s)
    forward_layers(net, x, mask, rows)


@_kernel
def loss_batch(net, labels, soft_targets, weights, out_loss):
    """Compute loss and gradient of all rows. The logits are the last layer's A."""
    total = 0.0
    for s in range(len(weights)):
        total += weights[s]
    for s in range(len(weights)):
        out_loss[s] = loss_and_grad_row(
            net, s, labels, soft_targets, s, weights[s] / total if total else 0.0
        )


@_kernel
def backward_batch(net, x, mask, x_flat, transposed, transposed_mask, dropout_rows_b, dropout_key):
    """Store the gradients of all parameters to W and B, given A and the last layer's GRAD_Z."""
    masks, layers, capacity = net.masks, net.layers, net.capacity
    inputs, nothing, top = layers[0, INPUTS], np.empty(0, np.uint8), len(layers) - 1
    rows = len(x_flat) // inputs
    coefs = np.zeros(8, x_flat.dtype)  # not used without apply_step
    if net.row_bits >= 0:
        draw_row_bits(net, dropout_rows_b, 0, dropout_key, 0, rows)
    for s in range(rows):
        gather_row(net, nothing, x_flat, s, x_flat.dtype.type(1), x, mask, s)
    for depth in range(top):
        for panel in range(panel_count(layers[depth, OUTPUTS])):
            if net.activation == RELU:
                a = (
                    layers[depth, A] + panel * capacity * PANEL
                )  # the output of ReLU, which it leaves unchanged
                relu_rows(net, a, layers[depth, A_MASK] + panel * capacity, 0, rows)
            else:
                dropout_mask_rows(net, depth, panel, 0, rows)
    for panel in range(panel_count(layers[top, OUTPUTS])):
        for s in range(rows):
            masks[layers[top, GRAD_Z_MASK] + panel * capacity + s] = low_bits_mask(
                layers[top, OUTPUTS] - panel * PANEL
            )
    for depth in range(top, 0, -1):
        backward_rows(net, depth, 0, rows)
    for depth in range(len(layers)):
        below = layers[depth - 1, A] if depth else x
        below_mask = layers[depth - 1, A_MASK] if depth else mask
        for panel in range(panel_count(layers[depth, OUTPUTS])):
            transpose_grad_z(net, depth, rows, panel, transposed, transposed_mask)
            for block in range(panel_count(layers[depth, INPUTS])):
                for group in range(group_count(min(PANEL, layers[depth, OUTPUTS] - panel * PANEL))):
                    update_tile(
                        net,
                        depth,
                        below,
                        below_mask,
                        rows,
                        panel,
                        block,
                        group,
                        transposed,
                        transposed_mask,
                        coefs,
                        False,
                    )
            update_bias(net, depth, rows, panel, coefs, False)


@_kernel
def update_array(optimizer, floats, count, coefs, is_weight):
    """Update `count` parameters. floats : 64 zeros, then p, m, v and g."""
    l2, decay_factor = splat_from(coefs, L2, GROUP), splat_from(coefs, DECAY_FACTOR, GROUP)
    if not is_weight:  # neither penalty nor decay
        l2, decay_factor = broadcast(l2, 0), broadcast(decay_factor, 1)
    for at in range(PANEL, PANEL + count, GROUP):
        g = load(floats, at + 3 * count, GROUP)
        optimizer_step(
            optimizer, floats, at, at + count, at + 2 * count, g, coefs, l2, decay_factor
        )


class _CompileNotice(event.Listener):
    """Logs a notice once in a process, when a kernel is compiled and not read from the cache."""

    shown = False

    def on_start(self, event: event.Event) -> None:
        if not _CompileNotice.shown:
            _CompileNotice.shown = True
            logging.getLogger(__name__).warning("compiling kernels, once")

    def on_end(self, event: event.Event) -> None:
        pass


@contextmanager
def _defer_interrupt() -> Iterator[None]:
    """Defer Ctrl-C: LLVM's callbacks lose the exception or leave a half-compiled kernel."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pending: list[tuple] = []
    signal.signal(signal.SIGINT, lambda *arguments: pending.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pending:
        handler(*pending[0])


_compiled_dtypes: dict[Any, set[str]] = {}  # kernel -> dtypes it is compiled for


def _compiled(kernel: Any, spec: NetworkSpec, *arguments: Any) -> Any:
    """Return the kernel, compiled for these arguments or read from the cache.

    To be called before a thread calls the kernel. The spec's dtype determines the types of the
    arguments; asking Numba for them at every call would take longer.
    """
    if spec.dtype in _compiled_dtypes.setdefault(kernel, set()):
        return kernel
    _check_cache_folder()
    argument_types = tuple(numba.typeof(argument) for argument in arguments)
    with _defer_interrupt(), event.install_listener("numba:compile", _CompileNotice()):
        try:
            kernel.compile(argument_types)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            _warn_cache_unusable(error)
            if argument_types not in kernel.overloads:  # reading failed, not writing
                kernel._cache = caching.NullCache()
                kernel.compile(argument_types)
    _compiled_dtypes[kernel].add(spec.dtype)
    return kernel


def _compile_and_call(kernel: Any, spec: NetworkSpec, *arguments: Any) -> None:
    _compiled(kernel, spec, *arguments)(*arguments)


def _flat_readonly(array: NDArray) -> NDArray:
    """Return a flat read-only view, so writable and read-only inputs share one specialization."""
    view = np.ascontiguousarray(array).reshape(-1).view()
    view.flags.writeable = False
    return view


def _split_pixels_and_floats(x_ni: NDArray, spec: NetworkSpec) -> tuple[NDArray, NDArray]:
    """Return the rows, flat, as bytes and as floats: one of the two is empty."""
    if x_ni.dtype == np.uint8:
        return _flat_readonly(x_ni), _flat_readonly(np.empty(0, spec.dtype))
    x_ni = np.ascontiguousarray(x_ni, spec.dtype)
    return _flat_readonly(np.empty(0, np.uint8)), _flat_readonly(x_ni)


def _split_labels_and_soft(targets: NDArray, spec: NetworkSpec) -> tuple[NDArray, NDArray]:
    """Return the targets, flat, as labels and as soft targets: one of the two is empty."""
    if targets.ndim == 1:
        return _flat_readonly(targets), _flat_readonly(np.empty(0, spec.dtype))
    return _flat_readonly(np.empty(0, np.int32)), _flat_readonly(targets)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


class _Workspace:
    """The arrays of a call, and the table of layers with their offsets.

    rows : largest batch. train : allocate moments. threads : number of buffers of
    transpose_grad_z. dropout : apply the spec's dropout.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        rows: int,
        *,
        train: bool = False,
        threads: int = 0,
        dropout: bool = False,
    ) -> None:
        self._floats_end, self._masks_end = PANEL, 0  # the first 64 floats are zero
        self.capacity = capacity = _round_up(rows, PANEL)
        self.layers = np.zeros((len(spec.shapes), FIRST_UNIT + 1), np.int64)
        tiles = unit = 0
        for depth, (inputs, outputs) in enumerate(spec.shapes):
            row, wide = self.layers[depth], _round_up(outputs, PANEL)
            row[[INPUTS, OUTPUTS, FIRST_TILE, FIRST_UNIT]] = inputs, outputs, tiles, unit
            unit += outputs
            for column in (W, M, V) if train else (W,):
                row[column] = self._allocate_floats(inputs * wide)
            for column in (B, M_B, V_B) if train else (B,):
                row[column] = self._allocate_floats(wide)
            row[W_T] = self._allocate_floats(_round_up(inputs, PANEL) * _round_up(outputs, GROUP))
            row[A], row[GRAD_Z] = (self._allocate_floats(capacity * wide) for _ in range(2))
            row[A_MASK], row[GRAD_Z_MASK] = (
                self._allocate_masks(capacity * wide // PANEL) for _ in range(2)
            )
            tiles += _round_up(inputs, PANEL) // PANEL * (_round_up(outputs, GROUP) // GROUP)
        self.tiles = tiles
        wide = _round_up(spec.sizes[0], PANEL)
        self.x = [self._allocate_floats(capacity * wide) for _ in range(2)]
        self.x_mask = [self._allocate_masks(capacity * wide // PANEL) for _ in range(2)]
        buffer = capacity * PANEL + GROUP * PANEL + GROUP * GROUP
        self.transposed = [self._allocate_floats(buffer) for _ in range(max(threads, 2))]
        self.transposed_mask = [self._allocate_masks(capacity) for _ in range(max(threads, 2))]
        dropout = dropout and spec.dropout > 0
        row_bits = self._allocate_masks(capacity) if dropout else -1
        self.floats = self._aligned_zeros(self._floats_end, np.dtype(spec.dtype))
        self.masks = np.zeros(self._masks_end, np.int64)
        real = self.floats.dtype.type
        self.net = Net(
            floats=self.floats,
            masks=self.masks,
            layers=self.layers,
            capacity=self.capacity,
            activation=CODES[spec.activation],
            loss=CODES[spec.loss],
            optimizer=CODES[spec.optimizer],
            row_bits=row_bits,
            threshold=int(spec.dropout * 2**32),
            inv_keep_prob=real(1 / (1 - spec.dropout) if dropout else 1),
            keep_prob=real(1 - spec.dropout if dropout else 1),
            max_loss=float(spec.max_loss),
        )

    def _allocate_floats(self, count: int) -> int:
        start = self._floats_end
        self._floats_end += _round_up(count, GROUP)
        return start

    def _allocate_masks(self, count: int) -> int:
        start = self._masks_end
        self._masks_end += _round_up(count, 8)  # a cache line
        return start

    @staticmethod
    def _aligned_zeros(count: int, dtype: np.dtype) -> Floats:
        """Allocate zeros aligned to a cache line, so that no vector straddles two."""
        buffer = np.zeros(count + GROUP, dtype)
        start = -buffer.ctypes.data % CACHE_LINE // dtype.itemsize
        return buffer[start : start + count]

    def _panels(self, offset: int, like: Floats, rows: int) -> list[tuple[slice, Floats]]:
        """Return the panels, allocated for so many rows, of a matrix of the shape of `like`.

        A pair for each panel: its columns of the matrix, and a view.
        """
        used_rows, columns = like.shape
        panels = []
        for first in range(0, columns, PANEL):
            width = min(PANEL, columns - first)
            floats = self.floats[offset + first * rows :][: used_rows * PANEL]
            view = floats.reshape(used_rows, PANEL)[:, :width]
            panels.append((slice(first, first + width), view))
        return panels

    def pack(self, offset: int, matrix: Floats, rows: int) -> None:
        """Copy a matrix into panels that were allocated for so many rows."""
        for columns, panel in self._panels(offset, matrix, rows):
            panel[:] = matrix[:, columns]

    def unpack(self, offset: int, out: Floats, rows: int) -> None:
        """Copy panels into a matrix."""
        for columns, panel in self._panels(offset, out, rows):
            out[:, columns] = panel

    def _matrices(self, columns: tuple[int, int], params: Params) -> list[tuple[int, Floats]]:
        """Return the offset of every weight matrix and bias (as a row), and the matrix."""
        matrices = []
        for row, w_io, b_o in zip(self.layers, params.weights, params.biases):
            matrices += [(int(row[columns[0]]), w_io), (int(row[columns[1]]), b_o[None])]
        return matrices

    def pack_params(self, columns: tuple[int, int], params: Params) -> None:
        """Copy weights and biases into the panels at these columns of the table of layers."""
        for offset, matrix in self._matrices(columns, params):
            self.pack(offset, matrix, len(matrix))

    def unpack_params(self, columns: tuple[int, int], params: Params) -> None:
        """Copy panels back into weights and biases."""
        for offset, matrix in self._matrices(columns, params):
            self.unpack(offset, matrix, len(matrix))

    def pack_transposed(self, params: Params) -> None:
        """Copy the transposed weights of all layers but the first, for the backward pass."""
        for depth in range(1, len(self.layers)):
            w_oi = params.weights[depth].T
            self.pack(int(self.layers[depth, W_T]), w_oi, _round_up(len(w_oi), GROUP))


# Columns of params, m and v of a TrainState.
STATE_COLUMNS = ((W, B), (M, M_B), (V, V_B))


def _as_int64(key: int) -> int:
    """Reinterpret a uint64 as int64, the integer type of the kernels."""
    return key - 2**64 if key >= 2**63 else key


def _step_coefs(hyperparams: StepHyperparams, spec: NetworkSpec) -> tuple[float, ...]:
    """Return the coefficients of a step, computed in double, in the order of their indices."""
    step_size, epsilon, l2, decay, beta1, beta2 = hyperparams
    last = {"adam": (beta2, 1 - beta2), "sgd": (1, 0), "nesterov": (beta1, 1)}[spec.optimizer]
    return step_size, epsilon, l2, 1 - decay, beta1, 1 - beta1, *last


def train_steps(
    state: TrainState,
    data: TrainData,
    order_n: NDArray[np.int32],
    schedule: StepSchedule,
    spec: NetworkSpec,
    first: int,
    last: int,
    threads: int,
    seconds_tp: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Train on a team of threads: see `Backend.train_steps` and reference.train_steps."""
    if first >= last:
        return np.empty(0)
    rows = min(schedule.batch_size, len(order_n))
    workspace = _Workspace(spec, rows, train=True, threads=threads, dropout=True)
    for columns, params in zip(STATE_COLUMNS, state):
        workspace.pack_params(columns, params)
    workspace.pack_transposed(state.params)
    x_pixels, x_floats = _split_pixels_and_floats(data.x_ni, spec)
    labels, soft_targets = _split_labels_and_soft(data.targets_n, spec)
    coefs_t = np.zeros((last, 8), spec.dtype)
    for step in range(first, last):
        coefs_t[step] = _step_coefs(schedule.at(step), spec)
    args = TrainArgs(
        first=first,
        last=last,
        threads=threads,
        spins=MAX_SPINS if have_cores(threads) else 0,
        dropout_key=_as_int64(schedule.dropout_key),
        line_floats=CACHE_LINE // workspace.floats.itemsize,
        x=workspace.x[0],
        x_step=workspace.x[1] - workspace.x[0],
        x_mask=workspace.x_mask[0],
        x_mask_step=workspace.x_mask[1] - workspace.x_mask[0],
        transposed=workspace.transposed[0],
        transposed_step=workspace.transposed[1] - workspace.transposed[0],
        transposed_mask=workspace.transposed_mask[0],
        transposed_mask_step=workspace.transposed_mask[1] - workspace.transposed_mask[0],
        scale=workspace.floats.dtype.type(data.scale),
        net=workspace.net,
        x_pixels=x_pixels,
        x_floats=x_floats,
        order=_flat_readonly(order_n),
        starts=_flat_readonly(schedule.starts(len(order_n))),
        labels=labels,
        soft_targets=soft_targets,
        weights=_flat_readonly(data.weights_n),
        coefs_t=coefs_t,
        row_losses=np.empty(workspace.capacity, spec.dtype),
        tile_squares=np.empty(workspace.tiles),
        losses_t=np.empty(last - first),
        squares_t=np.empty(last - first),
        seconds_tp=np.empty((0, len(PHASES))) if seconds_tp is None else seconds_tp,
        barrier=np.zeros(24, np.int64),
    )
    worker = _compiled(train_worker, spec, args, 0)
    try:
        run_team(lambda thread: worker(args, thread), threads)
    except BaseException:
        args.barrier[ABORTED] = 1  # releases threads that wait for one that never started
        raise
    for columns, params in zip(STATE_COLUMNS, state):
        workspace.unpack_params(columns, params)
    losses_t: NDArray[np.float64] = args.losses_t + schedule.l2_t[first:last] / 2 * args.squares_t
    return losses_t


def gather_batch(
    x_ni: NDArray, order_n: NDArray[np.int32], first: int, last: int, scale: float, out_bi: Floats
) -> None:
    """Gather and scale a batch: see reference.gather_batch."""
    rows = x_ni[np.asarray(order_n[first:last])].astype(out_bi.dtype)
    np.multiply(rows, out_bi.dtype.type(scale), out=out_bi)


def forward(
    params: Params,
    x_bi: Floats,
    spec: NetworkSpec,
    out_activations: tuple[Floats, ...],
    dropout_state: DropoutState | None = None,
) -> None:
    """Compute the outputs of all layers: see reference.forward."""
    workspace = _Workspace(spec, len(x_bi), dropout=dropout_state is not None)
    rows_b, key = dropout_state or (np.empty(0, np.int32), 0)
    workspace.pack_params((W, B), params)
    _compile_and_call(
        forward_batch,
        spec,
        workspace.net,
        workspace.x[0],
        workspace.x_mask[0],
        _flat_readonly(x_bi),
        _flat_readonly(rows_b),
        _as_int64(key),
    )
    for row, out_bo in zip(workspace.layers, out_activations):
        workspace.unpack(int(row[A]), out_bo, workspace.capacity)


def loss_and_grad(
    logits_bk: Floats,
    targets_b: NDArray,
    weights_b: Floats,
    spec: NetworkSpec,
    out_loss_b: Floats,
    out_grad_logits_bk: Floats,
) -> None:
    """Compute the cross-entropy and its gradient: see reference.loss_and_grad."""
    workspace = _Workspace(replace(spec, sizes=(1, logits_bk.shape[1])), len(logits_bk))
    top = workspace.layers[0]
    workspace.pack(int(top[A]), logits_bk, workspace.capacity)
    labels, soft_targets = _split_labels_and_soft(targets_b, spec)
    _compile_and_call(
        loss_batch,
        spec,
        workspace.net,
        labels,
        soft_targets,
        _flat_readonly(weights_b),
        out_loss_b,
    )
    workspace.unpack(int(top[GRAD_Z]), out_grad_logits_bk, workspace.capacity)


def backward(
    params: Params,
    x_bi: Floats,
    activations: tuple[Floats, ...],
    grad_logits_bk: Floats,
    spec: NetworkSpec,
    out_grads: Params,
    dropout_state: DropoutState | None = None,
) -> None:
    """Compute the gradients of all parameters: see reference.backward."""
    workspace = _Workspace(spec, len(x_bi), threads=1, dropout=dropout_state is not None)
    rows_b, key = dropout_state or (np.empty(0, np.int32), 0)
    workspace.pack_transposed(params)
    for row, a_bo in zip(workspace.layers[:-1], activations):
        workspace.pack(int(row[A]), a_bo, workspace.capacity)
    workspace.pack(int(workspace.layers[-1, GRAD_Z]), grad_logits_bk, workspace.capacity)
    _compile_and_call(
        backward_batch,
        spec,
        workspace.net,
        workspace.x[0],
        workspace.x_mask[0],
        _flat_readonly(x_bi),
        workspace.transposed[0],
        workspace.transposed_mask[0],
        _flat_readonly(rows_b),
        _as_int64(key),
    )
    workspace.unpack_params((W, B), out_grads)


def update(
    state: TrainState, grads: Params, hyperparams: StepHyperparams, spec: NetworkSpec
) -> None:
    """Apply one optimizer step: see reference.update."""
    coefs = np.array(_step_coefs(hyperparams, spec), spec.dtype)
    for kind in ("weights", "biases"):
        for arrays in zip(*(getattr(params, kind) for params in (*state, grads))):
            size, count = arrays[0].size, _round_up(arrays[0].size, GROUP)
            floats = np.zeros(PANEL + 4 * count, spec.dtype)
            parts = floats[PANEL:].reshape(4, count)[:, :size]  # p, m, v, g
            for part, array in zip(parts, arrays):
                part[:] = array.reshape(-1)
            _compile_and_call(
                update_array, spec, CODES[spec.optimizer], floats, count, coefs, kind == "weights"
            )
            for part, array in zip(parts[:3], arrays):
                array[...] = part.reshape(array.shape)


def predict(
    params: Params, x_ni: NDArray, scale: float, spec: NetworkSpec, threads: int, out_nk: Floats
) -> None:
    """Compute class probabilities: see reference.predict. A row's bits depend on no other row."""
    count, blocks = len(x_ni), -(-len(x_ni) // PANEL)
    if count == 0:
        return
    x_pixels, x_floats = _split_pixels_and_floats(x_ni, spec)
    threads = min(threads, blocks)

    def arguments(thread: int) -> tuple[Any, ...]:
        workspace = _Workspace(spec, PANEL)
        workspace.pack_params((W, B), params)
        return (
            workspace.net,
            workspace.x[0],
            workspace.x_mask[0],
            x_pixels,
            x_floats,
            workspace.floats.dtype.type(scale),
            blocks * thread // threads * PANEL,
            min(count, blocks * (thread + 1) // threads * PANEL),
            out_nk,
        )

    _compiled(predict_rows, spec, *arguments(0))
    run_team(lambda thread: predict_rows(*arguments(thread)), threads)

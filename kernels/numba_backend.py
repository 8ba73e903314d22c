"""The network in Numba: for machines without a C compiler, compiled once at first use.

Every operation computes what the one of the same name in reference.py specifies. The plan is that
of layers.pxi, steps.pxi and simd/kernel_table.h, without its halves of inputs and pairs of panels:
matrices lie in panels of 64 columns while a call runs, products run over the entries that are not
zero, which masks name, and every number is computed by one part in one fixed order, so that the
bits do not depend on the number of threads.

The innermost loops work on vectors, a type of their own below, and not on what LLVM may or may not
make of loops over numbers: no sum is reordered, nothing needs fastmath, and two copies of a
function cannot differ in a bit.

All that a call computes with lies in one array of floats and one of masks, and a table says where.
So one compilation serves networks of any depth and size, and arrays that are read-only are the same
type as others. What the spec chooses is a number there, too, that kernels look at while they run.
Only the type of that array makes Numba compile anew: the same code for float32 and for float64.
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

__all__ = [
    "SUPPORTS",
    "backward",
    "forward",
    "gather_batch",
    "loss_and_grad",
    "predict",
    "train_steps",
    "update",
]

SUPPORTS = interface.SUPPORTS | {"input_format": ("dense",)}

PANEL = 64  # columns of a panel: a 64 x 64 block of weights is 16 KiB, half of the smallest L1
GROUP = 16  # outputs of a part of the update: a cache line of weights
FORWARD_ROWS = 8  # a part of the forward phase: 8 row groups x 2 panels feed 8 threads
ALL = -1  # the mask that names every entry
ZEROS = 0  # where 64 floats lie that stay zero
CACHE_LINE = 64  # bytes

# Turns of spinning before a waiting thread lets others run, and how often it does so before it
# sleeps: a balanced step makes a thread wait for microseconds, a stopped one must cost nothing.
SPINS, YIELDS = 2000, 100
NAP = 100  # microseconds

if vars(config)["DISABLE_JIT"]:
    raise ImportError("NUMBA_DISABLE_JIT is set, and these kernels are nothing uncompiled")

X86 = platform.machine().lower() in ("x86_64", "amd64")


# Vectors of floats.


class Vector(types.Type):
    """Some float32 or float64 that LLVM keeps in registers, however many of them it takes."""

    def __init__(self, lanes: int, element: types.Float) -> None:
        super().__init__(name=f"Vector({lanes}, {element})")
        self.lanes, self.element = lanes, element


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        element = manager.lookup(vector.element).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _has_operator(symbol: Callable, emit: str) -> None:
    """Vectors have this operator, which is that instruction."""

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
    """Pointer to array[index] as an LLVM type: no check, and no index from the end."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), like.as_pointer())


def _call(builder, name, result, *operands):
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


def _math(builder, name, vector, *operands):
    """LLVM's function of that name for vectors of this type."""
    suffix = f"v{vector.lanes}f{vector.element.bitwidth}"
    return _call(builder, f"llvm.{name}.{suffix}", operands[0].type, *operands)


def _splat(builder, number, lanes):
    kind = ir.VectorType(number.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_I32, 0))
    order = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), order)


@intrinsic(prefer_literal=True)
def load(typing, array, index, lanes):
    """The vector that begins at array[index]."""
    vector = Vector(lanes.literal_value, array.dtype)

    def emit(context, builder, sig, values):
        kind = context.get_value_type(vector)
        at = _address(context, builder, array, values[0], values[1], kind)
        return builder.load(at, align=array.dtype.bitwidth // 8)

    return vector(array, types.int64, lanes), emit


@intrinsic
def load_bytes(typing, array, index, like):
    """The bytes that begin at array[index], as a vector like that."""

    def emit(context, builder, sig, values):
        kind = ir.VectorType(ir.IntType(8), like.lanes)
        at = _address(context, builder, array, values[0], values[1], kind)
        return builder.uitofp(builder.load(at, align=1), values[2].type)

    return like(array, types.int64, like), emit


@intrinsic
def store(typing, array, index, vector):
    """array[index] and on become the vector."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], values[2].type)
        builder.store(values[2], at, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), emit


@intrinsic(prefer_literal=True)
def splat(typing, number, lanes):
    """A number in every lane."""

    def emit(context, builder, sig, values):
        return _splat(builder, values[0], lanes.literal_value)

    return Vector(lanes.literal_value, number)(number, lanes), emit


@intrinsic
def filled(typing, like, number):
    """A number in every lane of a vector like that."""

    def emit(context, builder, sig, values):
        number = context.cast(builder, values[1], types.float64, like.element)
        return _splat(builder, number, like.lanes)

    return like(like, types.float64), emit


@intrinsic
def either(typing, like, single, double):
    """The same of one of two numbers: the first for float32, the second for float64."""

    def emit(context, builder, sig, values):
        number = values[1] if like.element == types.float32 else values[2]
        number = context.cast(builder, number, types.float64, like.element)
        return _splat(builder, number, like.lanes)

    return like(like, types.float64, types.float64), emit


@intrinsic(prefer_literal=True)
def splat_from(typing, array, index, lanes):
    """array[index] in every lane."""

    def emit(context, builder, sig, values):
        kind = context.get_value_type(array.dtype)
        at = _address(context, builder, array, values[0], values[1], kind)
        return _splat(builder, builder.load(at), lanes.literal_value)

    return Vector(lanes.literal_value, array.dtype)(array, types.int64, lanes), emit


@intrinsic
def fma(typing, a, b, c):
    """a b + c, rounded once where the processor can."""

    def emit(context, builder, sig, values):
        return _math(builder, "fmuladd", a, *values)

    return a(a, a, a), emit


@intrinsic
def root(typing, a):
    """The square root of every lane."""

    def emit(context, builder, sig, values):
        return _math(builder, "sqrt", a, *values)

    return a(a), emit


@intrinsic
def at_least(typing, a, lowest):
    """lowest where a is below it; NaN is not, and stays."""

    def emit(context, builder, sig, values):
        return builder.select(builder.fcmp_ordered("<", *values), values[1], values[0])

    return a(a, a), emit


@intrinsic
def where_positive(typing, a, b, c):
    """b where a is above 0, else c."""

    def emit(context, builder, sig, values):
        zero = ir.Constant(values[0].type, [0.0] * a.lanes)
        return builder.select(builder.fcmp_ordered(">", values[0], zero), *values[1:])

    return a(a, a, a), emit


@intrinsic
def only_in(typing, mask, a):
    """a in the lanes whose bit of the mask is set, else 0."""

    def emit(context, builder, sig, values):
        bits = builder.trunc(values[0], ir.IntType(a.lanes)) if a.lanes < 64 else values[0]
        lanes = builder.bitcast(bits, ir.VectorType(ir.IntType(1), a.lanes))
        return builder.select(lanes, values[1], ir.Constant(values[1].type, [0.0] * a.lanes))

    return a(types.int64, a), emit


@intrinsic
def magnitude(typing, a):
    """|a|."""

    def emit(context, builder, sig, values):
        return _math(builder, "fabs", a, *values)

    return a(a), emit


@intrinsic
def with_sign_of(typing, a, b):
    """|a| with the sign of b."""

    def emit(context, builder, sig, values):
        return _math(builder, "copysign", a, *values)

    return a(a, a), emit


@intrinsic
def dropped(typing, a, unit, row, least, scale):
    """scale a, but 0 in the lanes that dropout leaves out: reference.py, dropout and random_bits.

    unit : the number of the first lane's. row : the 64 random bits of the row. All are int64.
    """

    def emit(context, builder, sig, values):
        kind = ir.VectorType(_I32, a.lanes)

        def in_lanes(number):
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _I32(0))
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), kind([0] * a.lanes))

        def constant(number):
            return kind([number] * a.lanes)

        def mixed(bits, places):
            return builder.xor(bits, builder.lshr(bits, constant(places)))

        x, unit, row, least, scale = values
        low, high = row, builder.lshr(row, _I64(32))
        unit, low, high, least = (
            in_lanes(builder.trunc(number, _I32)) for number in (unit, low, high, least)
        )
        unit = builder.add(unit, kind(list(range(a.lanes))))
        bits = builder.add(builder.mul(unit, constant(0x9E3779B9)), low)
        bits = builder.xor(builder.mul(mixed(bits, 16), constant(0x7FEB352D)), high)
        bits = mixed(builder.mul(mixed(bits, 15), constant(0x846CA68B)), 16)
        kept = builder.fmul(x, _splat(builder, scale, a.lanes))
        zero = ir.Constant(values[0].type, [0.0] * a.lanes)
        return builder.select(builder.icmp_unsigned("<", bits, least), zero, kept)

    return a(a, types.int64, types.int64, types.int64, a.element), emit


@intrinsic
def nonzero(typing, a):
    """A bit for every lane that is not zero; NaN is not."""

    def emit(context, builder, sig, values):
        zero = ir.Constant(values[0].type, [0.0] * a.lanes)
        bits = builder.bitcast(builder.fcmp_unordered("!=", values[0], zero), ir.IntType(a.lanes))
        return bits if a.lanes == 64 else builder.zext(bits, _I64)

    return types.int64(a), emit


@intrinsic
def sum_of(typing, a):
    """The sum of the lanes, in their order."""

    def emit(context, builder, sig, values):
        total = ir.Constant(values[0].type.element, 0.0)
        for lane in range(a.lanes):
            total = builder.fadd(total, builder.extract_element(values[0], ir.Constant(_I32, lane)))
        return total

    return a.element(a), emit


@intrinsic
def power_of_two(typing, shifted, shift):
    """2^n, where adding the integer n to shift, 1.5 * 2^23 or 1.5 * 2^52, made it `shifted`."""
    bits, places, bias = (32, 23, 127) if shift.element == types.float32 else (64, 52, 1023)

    def emit(context, builder, sig, values):
        kind = ir.VectorType(ir.IntType(bits), shift.lanes)
        high, low = (builder.bitcast(value, kind) for value in values)
        exponent = builder.add(builder.sub(high, low), kind([bias] * shift.lanes))
        return builder.bitcast(builder.shl(exponent, kind([places] * shift.lanes)), values[0].type)

    return shift(shift, shift), emit


@intrinsic
def taylor(typing, r):
    """1/2! + r/3! + r^2/4! + ..., so that e^r = 1 + r + r^2 of that, for |r| <= log(2) / 2."""
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
def turn_square(typing, source, start, source_step, target, target_start, target_step):
    """A square of 16 by 16 floats across its diagonal, by swapping ever larger squares."""

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
def lowest(typing, mask):
    """Number of the lowest bit that is set."""

    def emit(context, builder, sig, values):
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


# What threads need: numbers that all see, rest, and the processor's mode.


@intrinsic
def add_and_get_old(typing, array, index, number):
    """array[index] += number, as one action of all threads; what it was before."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], _I64)
        return builder.atomic_rmw("add", at, values[2], "acq_rel")

    return types.int64(array, types.int64, types.int64), emit


@intrinsic
def read_shared(typing, array, index):
    """array[index], and all that the thread that wrote it had done by then."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], _I64)
        return builder.load_atomic(at, "acquire", 8)

    return types.int64(array, types.int64), emit


@intrinsic
def write_shared(typing, array, index, number):
    """array[index] = number, for threads that read it to see all that was done before."""

    def emit(context, builder, sig, values):
        at = _address(context, builder, array, values[0], values[1], _I64)
        builder.store_atomic(values[2], at, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), emit


@intrinsic
def prefetch(typing, array, index):
    """A hint that array[index] will be read: into the second cache, it is some time until then."""

    def emit(context, builder, sig, values):
        kind = context.get_value_type(array.dtype)
        at = _address(context, builder, array, values[0], values[1], kind)
        at = builder.bitcast(at, ir.IntType(8).as_pointer())
        how = [ir.Constant(_I32, number) for number in (0, 2, 1)]  # to read, this near, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), at, *how)
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


@intrinsic
def relax(typing):
    """A hint that this thread only waits."""

    def emit(context, builder, sig, values):
        if X86:
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def float_mode(typing):
    """How this thread rounds and what it does with denormals."""

    def emit(context, builder, sig, values):
        if not X86:
            return ir.Constant(_I32, 0)
        room = cgutils.alloca_once(builder, _I32)
        _call(
            builder,
            "llvm.x86.sse.stmxcsr",
            ir.VoidType(),
            builder.bitcast(room, ir.IntType(8).as_pointer()),
        )
        return builder.load(room)

    return types.int32(), emit


@intrinsic
def set_float_mode(typing, mode):
    """Sets what float_mode returned."""

    def emit(context, builder, sig, values):
        if X86:
            room = cgutils.alloca_once_value(builder, values[0])
            _call(
                builder,
                "llvm.x86.sse.ldmxcsr",
                ir.VoidType(),
                builder.bitcast(room, ir.IntType(8).as_pointer()),
            )
        return context.get_dummy_value()

    return types.void(types.int32), emit


FLUSH = 0x8040  # flush to zero, denormals are zero

if sys.platform == "win32":
    _let_others_run = types.ExternalFunction("SwitchToThread", types.int32())
    _sleep = types.ExternalFunction("Sleep", types.void(types.uint32))
    _NAP = 1  # its unit is a millisecond
else:
    _let_others_run = types.ExternalFunction("sched_yield", types.int32())
    _sleep = types.ExternalFunction("usleep", types.int32(types.uint32))
    _NAP = NAP


# For functions that only compiled functions call, and become part of.
_inner = numba.njit(nogil=True, error_model="numpy")

if sys.platform == "win32":

    @_inner
    def now(room):
        """Phases are not timed there."""
        return 0.0

else:
    _clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
    _CLOCK = time.CLOCK_MONOTONIC

    @_inner
    def now(room):
        """Seconds. room : int64 (2,), for a struct timespec."""
        _clock_gettime(np.int32(_CLOCK), room.ctypes.data)
        return room[0] + 1e-9 * room[1]


_warned = False


def _warn_of_cache(error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"numba kernels are compiled again in the next process, not kept on disk: {error}; "
            "let NUMBA_CACHE_DIR name a folder that can be written to",
            UserWarning,
            stacklevel=3,
        )


@cache
def _check_named_folder() -> None:
    """Warn if NUMBA_CACHE_DIR cannot be used, where Numba would quietly take another folder."""
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
    """A function that Python calls: compiled at its first call, and kept on disk."""
    try:
        return numba.njit(function, nogil=True, error_model="numpy", cache=True)
    except RuntimeError as error:  # no folder for it
        _warn_of_cache(error)
        return numba.njit(function, nogil=True, error_model="numpy")


# The table of layers: one row a layer, what its columns hold.
# w, m, v : (panels, i, 64) floats. b, m_b, v_b : (panels, 64). turned : the weights transposed,
# (panels of i, o up to a multiple of 16, 64); not for the first layer. a, delta : outputs and the
# gradient at the sums, (panels, capacity, 64). a_mask, delta_mask : (panels, capacity) masks.
# squares : number of the first part of its update. unit : number of its first output among those
# of all hidden layers.
INPUTS, OUTPUTS, W, M, V, B, M_B, V_B, TURNED, A, DELTA, A_MASK, DELTA_MASK, SQUARES, UNIT = range(
    15
)

# The numbers of a step: of Adam, and of plain steps, which move a parameter by
# AHEAD times the velocity less OWN times this step.
STEP_SIZE, EPSILON, L2, KEEP, BETA1, REST1, BETA2, REST2 = range(8)
AHEAD, OWN = BETA2, REST2

# What a spec chooses, as kernels know it.
RELU, TANH, LOGISTIC, IDENTITY = range(4)
SOFTMAX, SIGMOID = range(2)
ADAM, SGD, NESTEROV = range(3)
NUMBER_OF = {
    **{"relu": RELU, "tanh": TANH, "logistic": LOGISTIC, "identity": IDENTITY},
    **{"softmax": SOFTMAX, "sigmoid": SIGMOID},
    **{"adam": ADAM, "sgd": SGD, "nesterov": NESTEROV},
}

# The columns of seconds_tp.
GATHER, FIRST_LAYER, MIDDLE, UPDATE, WAITING = range(len(PHASES))

# The words of a meeting, each in a cache line of its own.
ARRIVED, ROUND, GIVEN_UP = 0, 8, 16


class Net(NamedTuple):
    """The arrays that a call computes with, and the table of what lies where in them.

    floats : of the spec's dtype; the first 64 stay zero. masks : int64. layers : int64 (layers,
    columns).
    capacity : rows of a batch that there is room for, a multiple of 64.
    activation, loss, rule : numbers of what the spec chooses.
    row_bits : where dropout's random bits of every row lie among the masks; -1: nothing is left
    out. least : units whose bits are below it are. scale : what the others are multiplied by;
    kept_share : what undoes that. Both are 1 where nothing is left out. max_loss : of an answer.
    """

    floats: NDArray
    masks: NDArray
    layers: NDArray
    capacity: int
    activation: int
    loss: int
    optimizer: int
    row_bits: int
    least: int
    scale: np.floating
    kept_share: np.floating
    max_loss: float


@_inner
def panels_of(columns):
    return (columns + PANEL - 1) // PANEL


@_inner
def groups_of(columns):
    return (columns + GROUP - 1) // GROUP


@_inner
def first_bits(count):
    """The mask of the first entries, at most 64."""
    return ALL if count >= PANEL else (1 << count) - 1


@_inner
def share(parts, thread, threads):
    """Where the parts of a thread begin."""
    return parts * thread // threads


@_inner
def multiply(net, x, mask, only, w, start, start_step, out, first, last):
    """out[s] = start[s] + sum over the set bits k of mask[s] & only of x[s][k] w[k].

    For rows first..last-1 of x, start and out, 64 wide; start_step 0: one row for all.
    """
    floats, masks = net.floats, net.masks
    for s in range(first, last):
        total = load(floats, start + s * start_step, PANEL)
        bits = masks[mask + s] & only
        row = x + s * PANEL
        while bits:
            k = lowest(bits)
            total = fma(
                splat_from(floats, row + k, PANEL), load(floats, w + k * PANEL, PANEL), total
            )
            bits &= bits - 1
        store(floats, out + s * PANEL, total)


@_inner
def forward_rows(net, depth, x, mask, panel, first, last):
    """Rows first..last-1 of one panel of a layer's outputs. x, mask: the inputs, in panels."""
    layers, capacity = net.layers, net.capacity
    inputs = layers[depth, INPUTS]
    out = layers[depth, A] + panel * capacity * PANEL
    w = layers[depth, W] + panel * inputs * PANEL
    bias = layers[depth, B] + panel * PANEL
    for block in range(panels_of(inputs)):
        start, start_step = (out, PANEL) if block else (bias, 0)
        here, its_mask = x + block * capacity * PANEL, mask + block * capacity
        its_w = w + block * PANEL * PANEL
        multiply(net, here, its_mask, ALL, its_w, start, start_step, out, first, last)
    if depth < len(layers) - 1:
        mask = layers[depth, A_MASK] + panel * capacity
        if net.activation == RELU:
            relu_rows(net, out, mask, first, last)
            if net.row_bits >= 0:
                drop_rows(net, out, mask, first, last, layers[depth, UNIT] + panel * PANEL)
        else:
            kept_rows(net, depth, panel, first, last)
            smooth_rows(net, out, mask, first, last)


@_inner
def relu_rows(net, x, mask, first, last):
    """x = max(0, x), NaN stays NaN; the masks of what is not zero."""
    floats, masks = net.floats, net.masks
    for s in range(first, last):
        a = load(floats, x + s * PANEL, PANEL)
        a = at_least(a, filled(a, 0))
        store(floats, x + s * PANEL, a)
        masks[mask + s] = nonzero(a)


@_inner
def kept_rows(net, depth, panel, first, last):
    """The masks of a panel's outputs that an activation other than ReLU makes, which may be zero
    or not: all that are there, without those that dropout leaves out."""
    masks, layers = net.masks, net.layers
    mask, unit = layers[depth, A_MASK] + panel * net.capacity, layers[depth, UNIT] + panel * PANEL
    there = first_bits(layers[depth, OUTPUTS] - panel * PANEL)
    scale = splat(net.scale, PANEL)
    for s in range(first, last):
        kept = there
        if net.row_bits >= 0:
            bits = masks[net.row_bits + s]
            kept &= nonzero(dropped(scale, unit, bits, net.least, net.scale))
        masks[mask + s] = kept


@_inner
def smooth_rows(net, x, mask, first, last):
    """Any activation but ReLU, and dropout; 0 in what the masks, which are given, leave out."""
    floats, masks, scale = net.floats, net.masks, splat(net.scale, GROUP)
    for s in range(first, last):
        for c in range(0, PANEL, GROUP):
            at = x + s * PANEL + c
            a = load(floats, at, GROUP)
            if net.activation == TANH:
                a = tanh(a)
            elif net.activation == LOGISTIC:
                a = logistic(a)
            store(floats, at, only_in(masks[mask + s] >> c, scale * a))


@_inner
def draw_rows(net, order, start, key, first, last):
    """The random bits of rows first..last-1 of a batch: see reference.random_bits.

    order[start + s] is row s of the batch.
    """
    for s in range(first, last):
        bits = np.uint64(key) + np.uint64(order[start + s]) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        net.masks[net.row_bits + s] = np.int64(bits ^ (bits >> np.uint64(31)))


@_inner
def drop_rows(net, x, mask, first, last, unit):
    """Dropout of one panel, whose first column is this unit; the masks of what is not zero."""
    floats, masks = net.floats, net.masks
    for s in range(first, last):
        bits = masks[net.row_bits + s]
        a = dropped(load(floats, x + s * PANEL, PANEL), unit, bits, net.least, net.scale)
        store(floats, x + s * PANEL, a)
        masks[mask + s] = nonzero(a)


@_inner
def delta_rows(net, depth, first, last):
    """The gradient at the sums of the layer below, for rows first..last-1."""
    layers, capacity = net.layers, net.capacity
    rows_turned = groups_of(layers[depth, OUTPUTS]) * GROUP
    for panel in range(panels_of(layers[depth, INPUTS])):
        out = layers[depth - 1, DELTA] + panel * capacity * PANEL
        for block in range(panels_of(layers[depth, OUTPUTS])):
            start, start_step = (out, PANEL) if block else (ZEROS, 0)
            delta = layers[depth, DELTA] + block * capacity * PANEL
            its_mask = layers[depth, DELTA_MASK] + block * capacity
            w = layers[depth, TURNED] + (panel * rows_turned + block * PANEL) * PANEL
            multiply(net, delta, its_mask, ALL, w, start, start_step, out, first, last)
        pass_rows(net, depth - 1, panel, first, last)


@_inner
def pass_rows(net, depth, panel, first, last):
    """Deltas of one panel of a hidden layer, from its outputs to its sums: times the slope."""
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    start = panel * capacity * PANEL
    x, a = layers[depth, DELTA] + start, layers[depth, A] + start
    mask = layers[depth, DELTA_MASK] + panel * capacity
    a_mask = layers[depth, A_MASK] + panel * capacity
    scale, kept_share = splat(net.scale, PANEL), splat(net.kept_share, PANEL)
    zero, one = filled(scale, 0), filled(scale, 1)
    for s in range(first, last):
        output = load(floats, a + s * PANEL, PANEL)
        passed = scale * load(floats, x + s * PANEL, PANEL)
        if net.activation == RELU:
            passed = where_positive(output, passed, zero)
        else:
            output = kept_share * output
            if net.activation == TANH:
                passed = passed * fma(zero - output, output, one)
            elif net.activation == LOGISTIC:
                passed = passed * (output * (one - output))
            passed = only_in(masks[a_mask + s], passed)
        store(floats, x + s * PANEL, passed)
        masks[mask + s] = nonzero(passed)


@_inner
def reduced(x):
    """2^n, r and q of an x <= 0, where e^x = 2^n (1 + r + r^2 q) and |r| <= log(2) / 2.

    Where e^x is not a normal number x counts as about the least of which it is. How it is done:
    kernels/simd/vector.h, exp_; in double the two parts of log(2) are those of fdlibm's e_exp.c.
    """
    x = at_least(x, either(x, -87.0, -708.0))
    shift = either(x, 1.5 * 2**23, 1.5 * 2**52)
    shifted = fma(x, filled(x, 1.44269504088896341), shift)
    n = shifted - shift
    r = fma(n, either(x, -0.693145751953125, -6.93147180369123816490e-01), x)
    r = fma(n, either(x, -1.42860682030941723e-6, -1.90821492927058770002e-10), r)
    return power_of_two(shifted, shift), r, taylor(r)


@_inner
def exponential(x):
    """e^x for x <= 0."""
    one = filled(x, 1)
    power, r, q = reduced(x)
    return power * fma(fma(q, r, one), r, one)


@_inner
def logistic(z):
    """1 / (1 + e^-z); e^-|z| does not overflow."""
    one = filled(z, 1)
    e = exponential(filled(z, 0) - magnitude(z))
    return where_positive(z, one, e) / (one + e)


@_inner
def tanh(z):
    """-t / (2 + t) where t = e^-2|z| - 1, with the sign of z. For small z, t is r: no digit of it
    is lost to the 1."""
    zero, one, two = filled(z, 0), filled(z, 1), filled(z, 2)
    power, r, q = reduced(zero - two * magnitude(z))
    t = fma(power, fma(r * r, q, r), power - one)
    return with_sign_of(t / (two + t), z)


@_inner
def softmax_row(net, z, out, classes, s):
    """Softmax of row s of the logits, in panels; returns log sum_k e^z[k]."""
    floats, capacity = net.floats, net.capacity
    peak = floats[z + s * PANEL]
    for c in range(1, classes):
        value = floats[z + (c // PANEL * capacity + s) * PANEL + c % PANEL]
        if value > peak:
            peak = value
    for c in range(0, classes, GROUP):
        at = (c // PANEL * capacity + s) * PANEL + c % PANEL
        store(floats, out + at, exponential(load(floats, z + at, GROUP) - splat(peak, GROUP)))
    total = 0.0
    for c in range(classes):
        total += floats[out + (c // PANEL * capacity + s) * PANEL + c % PANEL]
    for c in range(classes):
        at = out + (c // PANEL * capacity + s) * PANEL + c % PANEL
        floats[at] = floats[at] / total
    for c in range(classes, groups_of(classes) * GROUP):
        floats[out + (c // PANEL * capacity + s) * PANEL + c % PANEL] = 0
    return math.log(total) + peak


@_inner
def sigmoid_row(net, z, out, classes, s):
    """Sigmoid of row s of the logits, in panels."""
    floats, capacity = net.floats, net.capacity
    for c in range(0, classes, GROUP):
        at = (c // PANEL * capacity + s) * PANEL + c % PANEL
        p = only_in(first_bits(classes - c), logistic(load(floats, z + at, GROUP)))
        store(floats, out + at, p)


@_inner
def loss_row(net, s, targets, soft, row, weight):
    """loss_and_grad for one row; weight: its share of the batch's. Fills the row's masks.

    targets, soft : classes, or distributions, one after the other, of all rows; one is empty.
    row : which of them is this one's.
    """
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    top = len(layers) - 1
    z, delta, mask = layers[top, A], layers[top, DELTA], layers[top, DELTA_MASK]
    classes, weight = layers[top, OUTPUTS], floats.dtype.type(weight)
    if net.loss == SIGMOID:
        sigmoid_row(net, z, delta, classes, s)
        loss = 0.0
        for c in range(classes):
            at = (c // PANEL * capacity + s) * PANEL + c % PANEL
            value, target = np.float64(floats[z + at]), soft[row * classes + c]
            floats[delta + at] -= target
            cost = math.log1p(math.exp(-abs(value))) + (value if value > 0 else 0.0)
            cost -= target * value
            loss += net.max_loss if cost > net.max_loss else cost  # NaN is not above, and stays
    elif len(soft):
        loss = softmax_row(net, z, delta, classes, s)
        expected = 0.0
        for c in range(classes):
            at = (c // PANEL * capacity + s) * PANEL + c % PANEL
            target = soft[row * classes + c]
            expected += target * floats[z + at]
            floats[delta + at] -= target
        loss -= expected
    else:
        loss = softmax_row(net, z, delta, classes, s)
        target = np.int64(targets[row])
        at = (target // PANEL * capacity + s) * PANEL + target % PANEL
        floats[delta + at] -= 1
        loss -= floats[z + at]
        loss = net.max_loss if loss > net.max_loss else loss
    for c in range(classes):
        floats[delta + (c // PANEL * capacity + s) * PANEL + c % PANEL] *= weight
    for panel in range(panels_of(classes)):
        masks[mask + panel * capacity + s] = first_bits(classes - panel * PANEL)
    return loss


@_inner
def adam(floats, p, m, v, g, numbers, l2, keep):
    """A vector of parameters: reference.py, update and adam. Returns the new ones."""
    w = load(floats, p, GROUP)
    g = fma(l2, w, g)
    mean = fma(
        splat_from(numbers, BETA1, GROUP),
        load(floats, m, GROUP),
        splat_from(numbers, REST1, GROUP) * g,
    )
    square = fma(
        splat_from(numbers, BETA2, GROUP),
        load(floats, v, GROUP),
        splat_from(numbers, REST2, GROUP) * g * g,
    )
    below = root(square) + splat_from(numbers, EPSILON, GROUP)
    step = splat_from(numbers, STEP_SIZE, GROUP) * mean / below
    store(floats, m, mean)
    store(floats, v, square)
    w = keep * w - step
    store(floats, p, w)
    return w


@_inner
def momentum(floats, p, m, g, numbers, l2, keep):
    """The same by sgd and nesterov: reference.py, update and momentum."""
    w = load(floats, p, GROUP)
    step = splat_from(numbers, STEP_SIZE, GROUP) * fma(l2, w, g)
    velocity = splat_from(numbers, BETA1, GROUP) * load(floats, m, GROUP) - step
    store(floats, m, velocity)
    moved = splat_from(numbers, AHEAD, GROUP) * velocity - splat_from(numbers, OWN, GROUP) * step
    w = fma(keep, w, moved)
    store(floats, p, w)
    return w


@_inner
def take_step(optimizer, floats, p, m, v, g, numbers, l2, keep):
    """A vector of parameters by the spec's rule. Returns the new ones."""
    if optimizer == ADAM:
        return adam(floats, p, m, v, g, numbers, l2, keep)
    return momentum(floats, p, m, g, numbers, l2, keep)


@_inner
def turn_delta(net, depth, rows, panel, turned, turned_mask):
    """One panel of a layer's deltas, turned, for the gradients of its weights.

    turned : of 64 rows after the other, (64 outputs, 64 rows); turned_mask : what is not zero.
    """
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    delta = layers[depth, DELTA] + panel * capacity * PANEL
    outputs = groups_of(min(PANEL, layers[depth, OUTPUTS] - panel * PANEL)) * GROUP
    for s in range(0, rows, PANEL):
        count = min(PANEL, rows - s)
        for c in range(0, outputs, GROUP):
            for r in range(0, count, GROUP):
                turn_square(
                    floats,
                    delta + (s + r) * PANEL + c,
                    PANEL,
                    floats,
                    turned + (s + c) * PANEL + r,
                    PANEL,
                )
        valid = first_bits(count)  # behind them lie rows of another batch
        for c in range(outputs):
            found = nonzero(load(floats, turned + (s + c) * PANEL, PANEL))
            masks[turned_mask + s + c] = found & valid


@_inner
def rows_with_any(masks, mask, rows):
    """Which of up to 64 rows have an entry that is not zero."""
    found = 0
    for s in range(rows):
        found |= (1 if masks[mask + s] else 0) << s
    return found


@_inner
def update_part(
    net, depth, x, mask, rows, panel, block, group, turned, turned_mask, numbers, learn
):
    """Gradient of 64 inputs (one block of x) and 16 outputs (one group of a panel), and the step.

    Needs turn_delta, whose room has that of the gradient behind it. Returns the sum of the squares
    of w before. Without `learn` w becomes the gradient.
    """
    floats, masks, layers, capacity = net.floats, net.masks, net.layers, net.capacity
    inputs, base, first = layers[depth, INPUTS], block * PANEL, group * GROUP
    gradient = turned + capacity * PANEL  # (16 outputs, 64 inputs)
    square = gradient + GROUP * PANEL  # (16, 16)
    for s in range(0, rows, PANEL):
        start, start_step = (gradient, PANEL) if s else (ZEROS, 0)
        only = rows_with_any(masks, mask + block * capacity + s, min(PANEL, rows - s))
        delta, its_mask = turned + (s + first) * PANEL, turned_mask + s + first
        here = x + (block * capacity + s) * PANEL
        multiply(net, delta, its_mask, only, here, start, start_step, gradient, 0, GROUP)
    place = (panel * inputs + base) * PANEL + first
    w, m, v = layers[depth, W] + place, layers[depth, M] + place, layers[depth, V] + place
    l2, keep = splat_from(numbers, L2, GROUP), splat_from(numbers, KEEP, GROUP)
    squares = filled(l2, 0)
    rows_turned = groups_of(layers[depth, OUTPUTS]) * GROUP
    transposed = layers[depth, TURNED] + (block * rows_turned + panel * PANEL + first) * PANEL
    for k in range(0, min(PANEL, inputs - base), GROUP):
        turn_square(floats, gradient + k, PANEL, floats, square, GROUP)
        for i in range(min(GROUP, inputs - base - k)):
            g, at = load(floats, square + i * GROUP, GROUP), (k + i) * PANEL
            if learn:
                before = load(floats, w + at, GROUP)
                squares = fma(before, before, squares)
                after = take_step(
                    net.optimizer, floats, w + at, m + at, v + at, g, numbers, l2, keep
                )
                store(floats, square + i * GROUP, after)
            else:
                store(floats, w + at, g)
        if learn and depth:
            turn_square(floats, square, GROUP, floats, transposed + k, PANEL)
    return sum_of(squares)


@_inner
def update_bias(net, depth, rows, panel, numbers, learn):
    """Gradient of 64 biases, and the step; without `learn` b becomes the gradient."""
    floats, layers, capacity = net.floats, net.layers, net.capacity
    nothing = load(floats, ZEROS, GROUP)
    for c in range(0, PANEL, GROUP):
        total = nothing
        for s in range(rows):
            at = layers[depth, DELTA] + (panel * capacity + s) * PANEL + c
            total = total + load(floats, at, GROUP)
        at = panel * PANEL + c
        b = layers[depth, B] + at
        if learn:
            m, v = layers[depth, M_B] + at, layers[depth, V_B] + at
            take_step(net.optimizer, floats, b, m, v, total, numbers, nothing, filled(nothing, 1))
        else:
            store(floats, b, total)


@_inner
def gather_row(net, pixels, numbers, row, scale, out, mask, s):
    """One row of the data set as row s of a batch, in panels. One of pixels, numbers is empty."""
    floats, masks, capacity, inputs = net.floats, net.masks, net.capacity, net.layers[0, INPUTS]
    for panel in range(panels_of(inputs)):
        count = min(PANEL, inputs - panel * PANEL)
        at = row * inputs + panel * PANEL
        to = out + (panel * capacity + s) * PANEL
        whole = count // GROUP * GROUP
        for c in range(0, whole, GROUP):
            x = splat(scale, GROUP)
            if len(pixels):
                x = x * load_bytes(pixels, at + c, x)
            else:
                x = x * load(numbers, at + c, GROUP)
            store(floats, to + c, x)
        for c in range(whole, count):
            if len(pixels):
                floats[to + c] = scale * floats.dtype.type(pixels[at + c])
            else:
                floats[to + c] = scale * numbers[at + c]
        for c in range(count, PANEL):
            floats[to + c] = 0
        masks[mask + panel * capacity + s] = nonzero(load(floats, to, PANEL))


class Plan(NamedTuple):
    """A range of steps. The names of data and steps are those of Data and Steps.

    dropout_key : of the epoch, read as a signed number. in_line : floats in a cache line.
    x, x_mask : where two batches of inputs lie, the one that trains and the next one.
    turned, turned_mask : room of the first thread, and how far it is to that of the next one.
    starts : where in order the steps begin, and where the last one ends.
    numbers_t : (t, 8) of the spec's dtype. squares : float64, of every part. losses_t, squares_t :
    the results.
    seconds_tp : float64 (threads, phases), to add to; without rows nothing is timed.
    """

    first: int
    last: int
    threads: int
    spins: int
    dropout_key: int
    in_line: int
    x: int
    x_step: int
    x_mask: int
    x_mask_step: int
    turned: int
    turned_step: int
    turned_mask: int
    turned_mask_step: int
    scale: np.floating
    net: Net
    pixels: NDArray
    numbers: NDArray
    order: NDArray
    starts: NDArray
    targets: NDArray
    soft: NDArray
    weights: NDArray
    numbers_t: NDArray
    loss: NDArray
    squares: NDArray
    losses_t: NDArray
    squares_t: NDArray
    seconds_tp: NDArray
    meeting: NDArray


@_inner
def meet(meeting, threads, spins):
    """Wait until all threads have come. False if one of them never will."""
    if threads == 1:
        return True
    turn = read_shared(meeting, ROUND)
    if add_and_get_old(meeting, ARRIVED, 1) == threads - 1:
        write_shared(meeting, ARRIVED, 0)
        write_shared(meeting, ROUND, turn + 1)
        return True
    waited = 0
    while read_shared(meeting, ROUND) == turn:
        if waited < spins:
            relax()
        elif waited < spins + YIELDS:
            _let_others_run()
        else:
            if read_shared(meeting, GIVEN_UP):
                return False
            _sleep(_NAP)
        waited += 1
    return True


@_inner
def rows_of(plan, step):
    return plan.starts[step + 1] - plan.starts[step]


@_inner
def batch_of(plan, step):
    """Where the inputs of a step lie, and their masks: two batches take turns."""
    odd = step & 1
    return plan.x + odd * plan.x_step, plan.x_mask + odd * plan.x_mask_step


@_inner
def gather_phase(plan, step, thread):
    rows = rows_of(plan, step)
    first, last = share(rows, thread, plan.threads), share(rows, thread + 1, plan.threads)
    x, mask = batch_of(plan, step)
    if plan.net.row_bits >= 0:
        draw_rows(plan.net, plan.order, plan.starts[step], plan.dropout_key, first, last)
    for s in range(first, last):
        gather_row(
            plan.net,
            plan.pixels,
            plan.numbers,
            plan.order[plan.starts[step] + s],
            plan.scale,
            x,
            mask,
            s,
        )


@_inner
def prefetch_rows(plan, step, thread, done, now_done, total):
    """Fetch what gather_phase will read in this step, from done/total to now_done/total of it:
    random rows of a data set larger than the caches."""
    rows, inputs = rows_of(plan, step), plan.net.layers[0, INPUTS]
    begin, end = share(rows, thread, plan.threads), share(rows, thread + 1, plan.threads)
    for s in range(
        begin + share(end - begin, done, total), begin + share(end - begin, now_done, total)
    ):
        row = plan.order[plan.starts[step] + s]
        if len(plan.pixels):
            for i in range(0, inputs, CACHE_LINE):
                prefetch(plan.pixels, row * inputs + i)
            prefetch(plan.pixels, row * inputs + inputs - 1)
        else:
            for line in range((inputs - 1) // plan.in_line + 1):
                prefetch(plan.numbers, row * inputs + line * plan.in_line)
            prefetch(plan.numbers, row * inputs + inputs - 1)


@_inner
def forward_phase(plan, step, thread):
    rows = rows_of(plan, step)
    x, mask = batch_of(plan, step)
    groups = (rows + FORWARD_ROWS - 1) // FORWARD_ROWS
    parts = groups * panels_of(plan.net.layers[0, OUTPUTS])
    part, end = share(parts, thread, plan.threads), share(parts, thread + 1, plan.threads)
    while part < end:
        panel = part // groups
        stop = min(end, (panel + 1) * groups)
        first, last = (part - panel * groups) * FORWARD_ROWS, (stop - panel * groups) * FORWARD_ROWS
        forward_rows(plan.net, 0, x, mask, panel, first, min(rows, last))
        part = stop


@_inner
def middle_phase(plan, step, thread):
    rows, layers = rows_of(plan, step), plan.net.layers
    first, last = share(rows, thread, plan.threads), share(rows, thread + 1, plan.threads)
    top = len(layers) - 1
    if first == last:
        return
    for depth in range(1, len(layers)):
        for panel in range(panels_of(layers[depth, OUTPUTS])):
            forward_rows(
                plan.net, depth, layers[depth - 1, A], layers[depth - 1, A_MASK], panel, first, last
            )
    total = 0.0
    for s in range(rows):
        total += plan.weights[plan.order[plan.starts[step] + s]]
    for s in range(first, last):
        row = plan.order[plan.starts[step] + s]
        plan.loss[s] = loss_row(
            plan.net,
            s,
            plan.targets,
            plan.soft,
            row,
            plan.weights[row] / total if total else 0.0,
        )
    for depth in range(top, 0, -1):
        delta_rows(plan.net, depth, first, last)


@_inner
def update_phase(plan, step, thread):
    rows, layers = rows_of(plan, step), plan.net.layers
    x_0, mask_0 = batch_of(plan, step)
    turned = plan.turned + thread * plan.turned_step
    turned_mask = plan.turned_mask + thread * plan.turned_mask_step
    numbers = plan.numbers_t[step]
    for depth in range(len(layers)):
        x = layers[depth - 1, A] if depth else x_0
        mask = layers[depth - 1, A_MASK] if depth else mask_0
        blocks, all_groups = panels_of(layers[depth, INPUTS]), groups_of(layers[depth, OUTPUTS])
        parts = blocks * all_groups
        begin, end = share(parts, thread, plan.threads), share(parts, thread + 1, plan.threads)
        part, panel_before = begin, -1
        while part < end:
            # Panel by panel, its blocks of inputs, their groups of outputs.
            panel = part // (blocks * (PANEL // GROUP))
            groups = min(PANEL // GROUP, all_groups - panel * (PANEL // GROUP))
            within = part - panel * blocks * (PANEL // GROUP)
            if panel != panel_before:
                turn_delta(plan.net, depth, rows, panel, turned, turned_mask)
                panel_before = panel
            plan.squares[layers[depth, SQUARES] + part] = update_part(
                plan.net,
                depth,
                x,
                mask,
                rows,
                panel,
                within // groups,
                within % groups,
                turned,
                turned_mask,
                numbers,
                True,
            )
            if within == 0:
                update_bias(plan.net, depth, rows, panel, numbers, True)
            part += 1
            if depth == 0 and step + 1 < plan.last:
                done = part - begin
                prefetch_rows(plan, step + 1, thread, done - 1, done, end - begin)


@_inner
def finish_loss(plan, step):
    """The loss of a step without the penalty, and the sum of squares, when all parts are done."""
    total, loss, squares = 0.0, 0.0, 0.0
    for s in range(rows_of(plan, step)):
        weight = plan.weights[plan.order[plan.starts[step] + s]]
        total += weight
        loss += weight * plan.loss[s]
    for part in range(len(plan.squares)):
        squares += plan.squares[part]
    plan.losses_t[step - plan.first] = loss / total if total else 0.0
    plan.squares_t[step - plan.first] = squares


@_inner
def lap(watch, room, phase):
    """What has passed since the last lap was spent in this phase. watch : seconds by phase, and
    when the last lap ended; empty if nobody asks."""
    if len(watch):
        at = now(room)
        watch[phase] += at - watch[-1]
        watch[-1] = at


@_inner
def meet_timed(plan, watch, room):
    going = meet(plan.meeting, plan.threads, plan.spins)
    lap(watch, room, WAITING)
    return going


@_kernel
def work(plan, thread):
    """What one thread of the team does, from the first step to the last."""
    before = float_mode()
    set_float_mode(before | np.int32(FLUSH))
    room = np.zeros(2, np.int64)
    watch = np.zeros(WAITING + 2 if len(plan.seconds_tp) else 0)
    if len(watch):
        watch[-1] = now(room)
    gather_phase(plan, plan.first, thread)
    lap(watch, room, GATHER)
    going = meet_timed(plan, watch, room)
    step = plan.first
    while going and step < plan.last:
        if thread == 0 and step > plan.first:
            finish_loss(plan, step - 1)
        forward_phase(plan, step, thread)
        lap(watch, room, FIRST_LAYER)
        if not meet_timed(plan, watch, room):
            break
        middle_phase(plan, step, thread)
        lap(watch, room, MIDDLE)
        if not meet_timed(plan, watch, room):
            break
        update_phase(plan, step, thread)
        lap(watch, room, UPDATE)
        if step + 1 < plan.last:
            gather_phase(plan, step + 1, thread)
            lap(watch, room, GATHER)
        going = meet_timed(plan, watch, room)
        step += 1
    if thread == 0 and going:
        finish_loss(plan, plan.last - 1)
    if len(watch):
        plan.seconds_tp[thread] += watch[:-1]
    set_float_mode(before)


@_inner
def forward_all(net, x, mask, rows):
    """All layers, for the rows that gather_row put at x."""
    layers = net.layers
    for depth in range(len(layers)):
        for panel in range(panels_of(layers[depth, OUTPUTS])):
            forward_rows(net, depth, x, mask, panel, 0, rows)
        x, mask = layers[depth, A], layers[depth, A_MASK]


@_kernel
def predict_rows(net, x, mask, pixels, numbers, scale, first, last, out_nk):
    """Rows first..last-1 through all layers, 64 at a time."""
    floats, layers = net.floats, net.layers
    top = len(layers) - 1
    z, classes = layers[top, A], layers[top, OUTPUTS]
    for base in range(first, last, PANEL):
        rows = min(PANEL, last - base)
        for s in range(rows):
            gather_row(net, pixels, numbers, base + s, scale, x, mask, s)
        forward_all(net, x, mask, rows)
        for s in range(rows):
            if net.loss == SIGMOID:
                sigmoid_row(net, z, z, classes, s)
            else:
                softmax_row(net, z, z, classes, s)
            for c in range(classes):
                out_nk[base + s, c] = floats[z + (c // PANEL * PANEL + s) * PANEL + c % PANEL]


@_kernel
def forward_batch(net, x, mask, x_flat, drop_rows_b, drop_key):
    """All rows of a batch through all layers; drop_rows_b is read where there is dropout."""
    layers = net.layers
    inputs, nothing = layers[0, INPUTS], np.empty(0, np.uint8)
    rows = len(x_flat) // inputs
    if net.row_bits >= 0:
        draw_rows(net, drop_rows_b, 0, drop_key, 0, rows)
    for s in range(rows):
        gather_row(net, nothing, x_flat, s, x_flat.dtype.type(1), x, mask, s)
    forward_all(net, x, mask, rows)


@_kernel
def loss_batch(net, targets, soft, weights, out_loss):
    """The loss of every row, and the gradients at the logits, which are the last layer's A."""
    total = 0.0
    for s in range(len(weights)):
        total += weights[s]
    for s in range(len(weights)):
        out_loss[s] = loss_row(net, s, targets, soft, s, weights[s] / total if total else 0.0)


@_kernel
def backward_batch(net, x, mask, x_flat, turned, turned_mask, drop_rows_b, drop_key):
    """Gradients of all parameters, into W and B; A and the last layer's DELTA are given."""
    masks, layers, capacity = net.masks, net.layers, net.capacity
    inputs, nothing, top = layers[0, INPUTS], np.empty(0, np.uint8), len(layers) - 1
    rows = len(x_flat) // inputs
    numbers = np.zeros(8, x_flat.dtype)  # not used: nothing is learnt
    if net.row_bits >= 0:
        draw_rows(net, drop_rows_b, 0, drop_key, 0, rows)
    for s in range(rows):
        gather_row(net, nothing, x_flat, s, x_flat.dtype.type(1), x, mask, s)
    for depth in range(top):
        for panel in range(panels_of(layers[depth, OUTPUTS])):
            if net.activation == RELU:
                a = layers[depth, A] + panel * capacity * PANEL  # ReLU's output: nothing changes
                relu_rows(net, a, layers[depth, A_MASK] + panel * capacity, 0, rows)
            else:
                kept_rows(net, depth, panel, 0, rows)
    for panel in range(panels_of(layers[top, OUTPUTS])):
        for s in range(rows):
            masks[layers[top, DELTA_MASK] + panel * capacity + s] = first_bits(
                layers[top, OUTPUTS] - panel * PANEL
            )
    for depth in range(top, 0, -1):
        delta_rows(net, depth, 0, rows)
    for depth in range(len(layers)):
        below = layers[depth - 1, A] if depth else x
        below_mask = layers[depth - 1, A_MASK] if depth else mask
        for panel in range(panels_of(layers[depth, OUTPUTS])):
            turn_delta(net, depth, rows, panel, turned, turned_mask)
            for block in range(panels_of(layers[depth, INPUTS])):
                for group in range(groups_of(min(PANEL, layers[depth, OUTPUTS] - panel * PANEL))):
                    update_part(
                        net,
                        depth,
                        below,
                        below_mask,
                        rows,
                        panel,
                        block,
                        group,
                        turned,
                        turned_mask,
                        numbers,
                        False,
                    )
            update_bias(net, depth, rows, panel, numbers, False)


@_kernel
def step_all(optimizer, floats, count, numbers, decays):
    """A step of `count` numbers; p, m, v and g follow each other in floats, after 64 zeros."""
    l2, keep = splat_from(numbers, L2, GROUP), splat_from(numbers, KEEP, GROUP)
    if not decays:
        l2, keep = filled(l2, 0), filled(keep, 1)
    for at in range(PANEL, PANEL + count, GROUP):
        g = load(floats, at + 3 * count, GROUP)
        take_step(optimizer, floats, at, at + count, at + 2 * count, g, numbers, l2, keep)


class _CompilingIsSaid(event.Listener):
    """Says it once in a process, and only when something is compiled and not read from disk."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not _CompilingIsSaid.said:
            _CompilingIsSaid.said = True
            logging.getLogger(__name__).warning("compiling kernels, once")

    def on_end(self, event: event.Event) -> None:
        pass


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Keep Ctrl-C for afterwards: LLVM's callbacks lose an exception, or leave half a kernel."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[tuple] = []
    signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        handler(*held[0])


_ready_for: dict[Any, set[str]] = {}  # kernel -> the dtypes it is compiled for


def _ready(kernel: Any, spec: NetworkSpec, *arguments: Any) -> Any:
    """The kernel, compiled for these arguments or read from disk: before any thread calls it.

    The spec's dtype tells the arguments' types, which Numba would take longer to find out.
    """
    if spec.dtype in _ready_for.setdefault(kernel, set()):
        return kernel
    _check_named_folder()
    kinds = tuple(numba.typeof(argument) for argument in arguments)
    with _ctrl_c_later(), event.install_listener("numba:compile", _CompilingIsSaid()):
        try:
            kernel.compile(kinds)
        except (OSError, EOFError, pickle.UnpicklingError) as error:  # what the disk can do to it
            _warn_of_cache(error)
            if kinds not in kernel.overloads:  # reading failed; writing comes after compiling
                kernel._cache = caching.NullCache()
                kernel.compile(kinds)
    _ready_for[kernel].add(spec.dtype)
    return kernel


def _run(kernel: Any, spec: NetworkSpec, *arguments: Any) -> None:
    _ready(kernel, spec, *arguments)(*arguments)


def _fixed(array: NDArray) -> NDArray:
    """A read-only view, flat: all inputs are of one type, whoever may write to them."""
    view = np.ascontiguousarray(array).reshape(-1).view()
    view.flags.writeable = False
    return view


def _rows(x_ni: NDArray, spec: NetworkSpec) -> NDArray:
    """Rows that the kernels read: bytes, or floats of the spec's dtype."""
    return x_ni if x_ni.dtype == np.uint8 else np.ascontiguousarray(x_ni, spec.dtype)


def _pixels_and_numbers(x_ni: NDArray, spec: NetworkSpec) -> tuple[NDArray, NDArray]:
    """The rows as bytes and as floats: one of the two is empty."""
    x_ni = _rows(x_ni, spec)
    is_bytes = x_ni.dtype == np.uint8
    return (
        _fixed(x_ni if is_bytes else np.empty(0, np.uint8)),
        _fixed(np.empty(0, spec.dtype) if is_bytes else x_ni),
    )


def _classes_and_soft(targets: NDArray, spec: NetworkSpec) -> tuple[NDArray, NDArray]:
    """The targets as classes and as distributions: one of the two is empty."""
    if targets.ndim == 1:
        return _fixed(targets), _fixed(np.empty(0, spec.dtype))
    return _fixed(np.empty(0, np.int32)), _fixed(targets)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


class _Network:
    """The arrays of a call and the table of what lies where.

    rows : as many of a batch fit. train : with moments, turned weights, and two batches of inputs.
    threads : as many get room for turned deltas. drop : leave out what the spec's dropout says.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        rows: int,
        *,
        train: bool = False,
        threads: int = 0,
        drop: bool = False,
    ) -> None:
        self._floats_end, self._masks_end = PANEL, 0  # the first 64 floats are zero
        self.capacity = capacity = _up(rows, PANEL)
        self.layers = np.zeros((len(spec.shapes), UNIT + 1), np.int64)
        parts = unit = 0
        for depth, (inputs, outputs) in enumerate(spec.shapes):
            row, wide = self.layers[depth], _up(outputs, PANEL)
            row[[INPUTS, OUTPUTS, SQUARES, UNIT]] = inputs, outputs, parts, unit
            unit += outputs
            for column in (W, M, V) if train else (W,):
                row[column] = self._add_floats(inputs * wide)
            for column in (B, M_B, V_B) if train else (B,):
                row[column] = self._add_floats(wide)
            row[TURNED] = self._add_floats(_up(inputs, PANEL) * _up(outputs, GROUP))
            row[A], row[DELTA] = (self._add_floats(capacity * wide) for _ in range(2))
            row[A_MASK], row[DELTA_MASK] = (
                self._add_masks(capacity * wide // PANEL) for _ in range(2)
            )
            parts += _up(inputs, PANEL) // PANEL * (_up(outputs, GROUP) // GROUP)
        self.parts = parts
        wide = _up(spec.sizes[0], PANEL)
        self.x = [self._add_floats(capacity * wide) for _ in range(2)]
        self.x_mask = [self._add_masks(capacity * wide // PANEL) for _ in range(2)]
        room = capacity * PANEL + GROUP * PANEL + GROUP * GROUP
        self.turned = [self._add_floats(room) for _ in range(max(threads, 2))]
        self.turned_mask = [self._add_masks(capacity) for _ in range(max(threads, 2))]
        drop = drop and spec.dropout > 0
        row_bits = self._add_masks(capacity) if drop else -1
        self.floats = self._zeros(self._floats_end, np.dtype(spec.dtype))
        self.masks = np.zeros(self._masks_end, np.int64)
        self.net = Net(
            *(self.floats, self.masks, self.layers, self.capacity),
            *(NUMBER_OF[spec.activation], NUMBER_OF[spec.loss], NUMBER_OF[spec.optimizer]),
            row_bits,
            int(spec.dropout * 2**32),
            self.floats.dtype.type(1 / (1 - spec.dropout) if drop else 1),
            self.floats.dtype.type(1 - spec.dropout if drop else 1),
            float(spec.max_loss),
        )

    def _add_floats(self, count: int) -> int:
        start = self._floats_end
        self._floats_end += _up(count, GROUP)
        return start

    def _add_masks(self, count: int) -> int:
        start = self._masks_end
        self._masks_end += _up(count, 8)  # a cache line
        return start

    @staticmethod
    def _zeros(count: int, dtype: np.dtype) -> Floats:
        """Floats that begin at a cache line, which no vector then straddles."""
        room = np.zeros(count + GROUP, dtype)
        start = -room.ctypes.data % CACHE_LINE // dtype.itemsize
        return room[start : start + count]

    def _panels(self, at: int, like: Floats, apart: int) -> list[tuple[slice, Floats]]:
        """Panels of a matrix of that shape that begins at `at`: which columns, and where."""
        rows, columns = like.shape
        return [
            (
                slice(first, min(first + PANEL, columns)),
                self.floats[at + first * apart :][: rows * PANEL].reshape(rows, PANEL)[
                    :, : min(PANEL, columns - first)
                ],
            )
            for first in range(0, columns, PANEL)
        ]

    def write(self, at: int, matrix: Floats, apart: int) -> None:
        """Copy a matrix into panels that have room for `apart` rows each."""
        for columns, panel in self._panels(at, matrix, apart):
            panel[:] = matrix[:, columns]

    def read(self, at: int, out: Floats, apart: int) -> None:
        """Copy panels into a matrix."""
        for columns, panel in self._panels(at, out, apart):
            out[:, columns] = panel

    def _placed(self, kinds: tuple[int, int], arrays: Params) -> list[tuple[int, Floats]]:
        """Where a network's arrays begin, and the arrays as matrices."""
        placed = []
        for row, w_io, b_o in zip(self.layers, *arrays):
            placed += [(int(row[kinds[0]]), w_io), (int(row[kinds[1]]), b_o[None])]
        return placed

    def write_all(self, kinds: tuple[int, int], arrays: Params) -> None:
        """Copy what one array pair per layer holds, like the parameters."""
        for at, matrix in self._placed(kinds, arrays):
            self.write(at, matrix, len(matrix))

    def read_all(self, kinds: tuple[int, int], arrays: Params) -> None:
        """Copy it back."""
        for at, matrix in self._placed(kinds, arrays):
            self.read(at, matrix, len(matrix))

    def write_turned(self, params: Params) -> None:
        """The weights of all layers but the first, transposed, for the way back."""
        for depth in range(1, len(self.layers)):
            w_oi = params.weights[depth].T
            self.write(int(self.layers[depth, TURNED]), w_oi, _up(len(w_oi), GROUP))


STATE = ((W, B), (M, M_B), (V, V_B))


def _signed(key: int) -> int:
    """A number of 64 bits as the kernels take it, which count with signed ones."""
    return key - 2**64 if key >= 2**63 else key


def _numbers(numbers: StepHyperparams, spec: NetworkSpec) -> tuple[float, ...]:
    """The numbers of a step as the kernels take them; the rests are taken in double."""
    beta1, beta2 = numbers.beta1, numbers.beta2
    last = {"adam": (beta2, 1 - beta2), "sgd": (1, 0), "nesterov": (beta1, 1)}[spec.optimizer]
    keep = 1 - numbers.decay
    return numbers.step_size, numbers.epsilon, numbers.l2, keep, beta1, 1 - beta1, *last


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
    """Steps first..last-1 on a team of threads: see reference.train_steps.

    seconds_tp : (threads, phases), to which the time in each phase is added: see kernels.PHASES.
    """
    if first >= last:
        return np.empty(0)
    rows = min(schedule.batch_size, len(order_n))
    network = _Network(spec, rows, train=True, threads=threads, drop=True)
    for kinds, arrays in zip(STATE, state):
        network.write_all(kinds, arrays)
    network.write_turned(state.params)
    pixels, numbers = _pixels_and_numbers(data.x_ni, spec)
    numbers_t = np.zeros((last, 8), spec.dtype)
    for step in range(first, last):
        numbers_t[step] = _numbers(schedule.at(step), spec)
    plan = Plan(
        first,
        last,
        threads,
        SPINS if have_cores(threads) else 0,
        _signed(schedule.dropout_key),
        CACHE_LINE // network.floats.itemsize,
        network.x[0],
        network.x[1] - network.x[0],
        network.x_mask[0],
        network.x_mask[1] - network.x_mask[0],
        network.turned[0],
        network.turned[1] - network.turned[0],
        network.turned_mask[0],
        network.turned_mask[1] - network.turned_mask[0],
        network.floats.dtype.type(data.scale),
        network.net,
        pixels,
        numbers,
        _fixed(order_n),
        _fixed(schedule.starts(len(order_n))),
        *_classes_and_soft(data.targets_n, spec),
        _fixed(data.weights_n),
        numbers_t,
        np.empty(network.capacity, spec.dtype),
        np.empty(network.parts),
        np.empty(last - first),
        np.empty(last - first),
        np.empty((0, len(PHASES))) if seconds_tp is None else seconds_tp,
        np.zeros(24, np.int64),
    )
    job = _ready(work, spec, plan, 0)
    try:
        run_team(lambda thread: job(plan, thread), threads)
    except BaseException:
        plan.meeting[GIVEN_UP] = 1  # who waits for a thread that never began must not wait on
        raise
    for kinds, arrays in zip(STATE, state):
        network.read_all(kinds, arrays)
    losses_t: NDArray[np.float64] = plan.losses_t + schedule.l2_t[first:last] / 2 * plan.squares_t
    return losses_t


def gather_batch(
    x_ni: NDArray, order_n: NDArray[np.int32], first: int, last: int, scale: float, out_bi: Floats
) -> None:
    """out[b] = scale * x[order[first + b]]: see reference.gather."""
    rows = x_ni[np.asarray(order_n[first:last])].astype(out_bi.dtype)
    np.multiply(rows, out_bi.dtype.type(scale), out=out_bi)


def forward(
    params: Params,
    x_bi: Floats,
    spec: NetworkSpec,
    out_activations: tuple[Floats, ...],
    dropout_state: DropoutState | None = None,
) -> None:
    """What every layer makes of the batch: see reference.forward."""
    network = _Network(spec, len(x_bi), drop=dropout_state is not None)
    rows_b, key = dropout_state or (np.empty(0, np.int32), 0)
    network.write_all((W, B), params)
    _run(
        forward_batch,
        spec,
        network.net,
        network.x[0],
        network.x_mask[0],
        _fixed(x_bi),
        _fixed(rows_b),
        _signed(key),
    )
    for row, out_bo in zip(network.layers, out_activations):
        network.read(int(row[A]), out_bo, network.capacity)


def loss_and_grad(
    logits_bk: Floats,
    targets_b: NDArray,
    weights_b: Floats,
    spec: NetworkSpec,
    out_loss_b: Floats,
    out_grad_logits_bk: Floats,
) -> None:
    """Cross-entropy of every row and its gradient: see reference.loss_and_grad."""
    network = _Network(replace(spec, sizes=(1, logits_bk.shape[1])), len(logits_bk))
    top = network.layers[0]
    network.write(int(top[A]), logits_bk, network.capacity)
    _run(
        loss_batch,
        spec,
        network.net,
        *_classes_and_soft(targets_b, spec),
        _fixed(weights_b),
        out_loss_b,
    )
    network.read(int(top[DELTA]), out_grad_logits_bk, network.capacity)


def backward(
    params: Params,
    x_bi: Floats,
    activations: tuple[Floats, ...],
    grad_logits_bk: Floats,
    spec: NetworkSpec,
    out_grads: Params,
    dropout_state: DropoutState | None = None,
) -> None:
    """Gradients of all parameters: see reference.backward."""
    network = _Network(spec, len(x_bi), threads=1, drop=dropout_state is not None)
    rows_b, key = dropout_state or (np.empty(0, np.int32), 0)
    network.write_turned(params)
    for row, a_bo in zip(network.layers[:-1], activations):
        network.write(int(row[A]), a_bo, network.capacity)
    network.write(int(network.layers[-1, DELTA]), grad_logits_bk, network.capacity)
    _run(
        backward_batch,
        spec,
        network.net,
        network.x[0],
        network.x_mask[0],
        _fixed(x_bi),
        network.turned[0],
        network.turned_mask[0],
        _fixed(rows_b),
        _signed(key),
    )
    network.read_all((W, B), out_grads)


def update(
    state: TrainState, grads: Params, hyperparams: StepHyperparams, spec: NetworkSpec
) -> None:
    """One step of the spec's rule: see reference.update."""
    rounded = np.array(_numbers(hyperparams, spec), spec.dtype)
    for kind in range(2):
        for arrays in zip(*(part[kind] for part in (*state, grads))):
            size, count = arrays[0].size, _up(arrays[0].size, GROUP)
            room = np.zeros(PANEL + 4 * count, spec.dtype)
            places = room[PANEL:].reshape(4, count)[:, :size]
            for place, array in zip(places, arrays):
                place[:] = array.reshape(-1)
            _run(step_all, spec, NUMBER_OF[spec.optimizer], room, count, rounded, kind == 0)
            for place, array in zip(places[:3], arrays):
                array[...] = place.reshape(array.shape)


def predict(
    params: Params, x_ni: NDArray, scale: float, spec: NetworkSpec, threads: int, out_nk: Floats
) -> None:
    """Probabilities: see reference.predict. A row's bits do not depend on the rows beside it."""
    count, blocks = len(x_ni), -(-len(x_ni) // PANEL)
    if count == 0:
        return
    pixels, numbers = _pixels_and_numbers(x_ni, spec)
    threads = min(threads, blocks)

    def arguments(thread: int) -> tuple[Any, ...]:
        network = _Network(spec, PANEL)
        network.write_all((W, B), params)
        return (
            network.net,
            network.x[0],
            network.x_mask[0],
            pixels,
            numbers,
            network.floats.dtype.type(scale),
            blocks * thread // threads * PANEL,
            min(count, blocks * (thread + 1) // threads * PANEL),
            out_nk,
        )

    _ready(predict_rows, spec, *arguments(0))
    run_team(lambda thread: predict_rows(*arguments(thread)), threads)

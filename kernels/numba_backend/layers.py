"""The layers in compiled Python: products, activations, dropout, probabilities.

docs/SPEED.md explains what makes it fast:

- Loops run over blocks of 64 columns. LLVM turns a loop with a constant trip count into a few
  vector instructions.
- Sums are kept in an array on the stack, which LLVM keeps in registers.
- Zeros are skipped: bit k of a mask says whether entry k of a block of a row differs from zero.

The rows of every matrix are padded to blocks of 64. The padding of weights stays zero; other
padding is computed like all else, and what it holds is not used.
"""

import math

import numba
import numpy as np
from numba import carray

from ..interface import SUPPORTS
from .compilation import OPTIONS
from .intrinsics import lowest_set_bit, nonzero_bits, on_stack, pointer

BLOCK = 64  # columns of a block, and bits of a mask
PAIR = 2 * BLOCK

RELU, TANH, LOGISTIC, IDENTITY = range(len(SUPPORTS["activation"]))
SOFTMAX, SIGMOID = range(len(SUPPORTS["loss"]))

# For e^x: least argument, log2(e), log(2) in two parts, the first with few bits, and the Taylor
# series of (e^r - 1 - r) / r^2, last coefficient first. Source of the parts: Cephes, exp.c.
LEAST, LOG2_E = -708.0, 1 / math.log(2)
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.42860682030941723e-6
SERIES = tuple(1 / math.factorial(n) for n in range(13, 1, -1))
POWERS = np.ldexp(1.0, -np.arange(1030))  # 2^-n

# Functions with many arguments are inlined by Numba, before types are inferred: compiling one long
# function takes less time than compiling every part and their union.
compiled = numba.njit(**OPTIONS)
inlined = numba.njit(inline="always", **OPTIONS)


@inlined
def block_at(matrix, row, column):
    """Return 64 entries of a row, from a column on. Bounds are not checked."""
    return carray(pointer(matrix, row * matrix.shape[1] + column), BLOCK)


@compiled
def fill(matrix, value):
    """Set all entries."""
    entries = carray(pointer(matrix, 0), matrix.size)
    for n in range(len(entries)):
        entries[n] = value


def make_product(width, transposed):
    """Return a function that multiplies by 64 or 128 columns of a matrix.

    128 float32 or 64 float64 are eight registers of AVX-512. An addition takes four cycles, and the
    next one to the same register waits for it; meanwhile those to the other registers begin.
    """

    @compiled
    def product(x, masks, in_use, w, column, before, out):
        """Compute out[s] = before[s] + sum_k x[s, k] w[k, column:] for all k in masks[s] & in_use.

        before : like out, or one row that every s begins with. w : 64 rows, of which in_use has a
        bit for each that exists. If transposed, x.T replaces x.
        """
        total = carray(on_stack(x, width), width)
        for s in range(len(out)):
            out_s = carray(pointer(out, s * out.shape[1] + column), width)
            s_before = min(s, len(before) - 1)
            start = carray(pointer(before, s_before * before.shape[1] + column), width)
            for o in range(width):
                total[o] = start[o]
            bits = masks[s] & in_use
            while bits:
                k = lowest_set_bit(bits)
                bits &= bits - 1
                x_k = x[k, s] if transposed else x[s, k]
                w_k = carray(pointer(w, k * w.shape[1] + column), width)
                for o in range(width):
                    total[o] += x_k * w_k[o]
            for o in range(width):
                out_s[o] = total[o]

    return product


def make_multiply(transposed):
    """Return a function that multiplies matrices."""
    narrow, wide = make_product(BLOCK, transposed), make_product(PAIR, transposed)

    @compiled
    def multiply(x, distance, masks, skip_zeros, w, depth, columns, initial, out):
        """Compute out = initial + x @ w, or out = initial + x.T @ w if transposed.

        x : its first block of 64 columns, or, if transposed, the 64 columns to multiply.
        distance : of two blocks of 64 columns of x, or, if transposed, of 64 rows.
        masks : from `fill_column_masks` if transposed, else a buffer: one for each row.
        depth, columns : shape of w. initial : one row, which is added to every row of out.
        """
        # 64 rows of w, so many columns wide, are 32 KB and stay in the first-level cache.
        step = PAIR * 4 // w.itemsize
        for first in range(0, depth, BLOCK):
            in_use = -1 if depth - first >= BLOCK else (1 << (depth - first)) - 1
            x_block = carray(pointer(x, first // BLOCK * distance), x.shape)
            w_block = carray(pointer(w, first * w.shape[1]), (BLOCK, w.shape[1]))
            bits = carray(pointer(masks, first if transposed else 0), len(out))
            for s in range(0 if transposed else len(out)):
                bits[s] = nonzero_bits(block_at(x_block, s, 0)) if skip_zeros else -1
            before = out if first else initial
            for column in range(0, columns, step):
                if step == PAIR and columns - column > BLOCK:
                    wide(x_block, bits, in_use, w_block, column, before, out)
                else:
                    narrow(x_block, bits, in_use, w_block, column, before, out)

    return multiply


multiply, multiply_transposed = make_multiply(False), make_multiply(True)


@compiled
def add_row(factor, x, i, columns, out, s):
    """Compute out[s] += factor * x[i]."""
    for column in range(0, columns, BLOCK):
        x_i, out_s = block_at(x, i, column), block_at(out, s, column)
        for o in range(BLOCK):
            out_s[o] += factor * x_i[o]


@compiled
def fill_column_masks(x, masks):
    """Compute masks[n, k] for 64 columns of x: bit s is set if x[64 n + s, k] is not zero."""
    bits = carray(on_stack(masks, BLOCK), BLOCK)
    for first in range(0, len(x), BLOCK):
        for s in range(first, min(len(x), first + BLOCK)):
            row, bit = block_at(x, s, 0), 1 << s - first
            for k in range(BLOCK):
                bits[k] = (bits[k] if s > first else 0) | (bit if row[k] != 0 else 0)
        for k in range(BLOCK):
            masks[first // BLOCK, k] = bits[k]


@compiled
def activate(activation, x, columns):
    """Apply the activation of the hidden layers in place. NaN stays NaN."""
    zero = x.dtype.type(0)
    for s in range(len(x)):
        for column in range(0, columns, BLOCK):
            row = block_at(x, s, column)
            if activation == RELU:
                for o in range(BLOCK):
                    row[o] = zero if row[o] < zero else row[o]
            elif activation != IDENTITY:
                squash(activation == TANH, row)


@compiled
def squash(tanh, z):
    """Compute tanh or logistic of 64 entries in place, from e^-2|z| - 1 or e^-|z|.

    e^x = 2^n (1 + r + r^2 q) with n = round(x / log(2)) <= 0 and |r| <= log(2) / 2. For tanh, 1 is
    subtracted from 2^n before the small terms are added, which keeps the digits of small results.
    The series ends below half a unit in the last place.
    """
    real = z.dtype.type
    power, r = carray(on_stack(z, BLOCK), BLOCK), carray(on_stack(z, BLOCK), BLOCK)
    q = carray(on_stack(z, BLOCK), BLOCK)
    scale, offset, one, two = real(-2 if tanh else -1), real(tanh), real(1), real(2)
    for o in range(BLOCK):
        x = scale * abs(z[o])
        x = real(LEAST) if x < real(LEAST) else x  # NaN stays NaN
        n = np.floor(x * real(LOG2_E) + real(0.5))
        r[o] = (x - n * real(LN2_HIGH)) - n * real(LN2_LOW)
        power[o] = POWERS[np.int64(-n if n < 0 else 0)]
        q[o] = SERIES[0]
    for coefficient in SERIES[1:]:
        for o in range(BLOCK):
            q[o] = q[o] * r[o] + real(coefficient)
    for o in range(BLOCK):
        e = power[o] * (q[o] * r[o] * r[o] + r[o]) + (power[o] - offset)
        numerator = -e if tanh else one
        z[o] = (e if z[o] < 0 else numerator) / ((two if tanh else one) + e)


@compiled
def multiply_by_derivative(activation, grad, a, keep_prob):
    """Multiply gradients with respect to a by the derivative of the activation, in place."""
    size, zero, one = a.size, a.dtype.type(0), a.dtype.type(1)
    grad, a = carray(pointer(grad, 0), size), carray(pointer(a, 0), size)
    for n in range(size):
        a_n = a[n] * keep_prob
        if activation == RELU:
            grad[n] = grad[n] if a_n > zero else zero
        elif activation == TANH:
            grad[n] *= one - a_n * a_n
        elif activation == LOGISTIC:
            grad[n] *= a_n * (one - a_n)


@compiled
def probabilities(loss, z, out, classes):
    """Compute softmax or sigmoid of a row of logits; return log sum_k e^z[k], 0 for sigmoid."""
    peak, total = z[0], 0.0
    for c in range(1, classes):
        peak = z[c] if z[c] > peak else peak
    for c in range(classes):
        if loss == SIGMOID:
            e = math.exp(-abs(z[c]))  # cannot overflow
            out[c] = (e if z[c] < 0 else 1) / (1 + e)
        else:
            out[c] = math.exp(z[c] - peak)
            total += out[c]
    for c in range(classes if loss == SOFTMAX else 0):
        out[c] /= total
    return math.log(total) + peak if loss == SOFTMAX else 0.0

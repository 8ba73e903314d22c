"""From a naive loop to the product of the Numba backend, in four steps, each measured.

    python examples/numba_steps.py

The product of the first layer: 64 images times 784 x 128 weights. docs/SPEED.md explains the steps.
"""

from time import perf_counter

import numba
import numpy as np
from numba import carray

from fmnist_fast import load_dataset
from fmnist_fast.kernels.numba_backend.intrinsics import (
    lowest_set_bit,
    nonzero_bits,
    on_stack,
    pointer,
)

ROWS, INPUTS, OUTPUTS, BLOCK, ROUNDS = 64, 784, 128, 64, 15
compiled = numba.njit(fastmath={"contract"}, error_model="numpy")


@compiled
def naive(x, w, out):
    """Skip zeros with a branch, in a loop whose trip count is known at run time only."""
    for s in range(x.shape[0]):
        for o in range(w.shape[1]):
            out[s, o] = 0
        for k in range(x.shape[1]):
            if x[s, k] != 0:
                for o in range(w.shape[1]):
                    out[s, o] += x[s, k] * w[k, o]


@compiled
def constant_trip_count(x, w, out):
    """Read x once, and tell the compiler how many outputs there are."""
    for s in range(x.shape[0]):
        out_s = carray(pointer(out, s * OUTPUTS), OUTPUTS)
        for o in range(OUTPUTS):
            out_s[o] = 0
        for k in range(x.shape[1]):
            x_k = x[s, k]
            if x_k != 0:
                w_k = carray(pointer(w, k * OUTPUTS), OUTPUTS)
                for o in range(OUTPUTS):
                    out_s[o] += x_k * w_k[o]


@compiled
def masks(x, w, out):
    """Iterate over the set bits of a mask; 64 rows of weights stay in the cache for all images."""
    for base in range(0, w.shape[0], BLOCK):
        for s in range(x.shape[0]):
            out_s = carray(pointer(out, s * OUTPUTS), OUTPUTS)
            if base == 0:
                for o in range(OUTPUTS):
                    out_s[o] = 0
            x_s = carray(pointer(x, s * x.shape[1] + base), BLOCK)
            bits = nonzero_bits(x_s)
            while bits:
                k = lowest_set_bit(bits)
                bits &= bits - 1
                x_k, w_k = x_s[k], carray(pointer(w, (base + k) * OUTPUTS), OUTPUTS)
                for o in range(OUTPUTS):
                    out_s[o] += x_k * w_k[o]


@compiled
def sums_on_stack(x, w, out):
    """Keep the sums in an array on the stack, in registers: nothing else points to it."""
    total = carray(on_stack(x, OUTPUTS), OUTPUTS)
    for base in range(0, w.shape[0], BLOCK):
        for s in range(x.shape[0]):
            out_s = carray(pointer(out, s * OUTPUTS), OUTPUTS)
            for o in range(OUTPUTS):
                total[o] = out_s[o] if base else 0
            x_s = carray(pointer(x, s * x.shape[1] + base), BLOCK)
            bits = nonzero_bits(x_s)
            while bits:
                k = lowest_set_bit(bits)
                bits &= bits - 1
                x_k, w_k = x_s[k], carray(pointer(w, (base + k) * OUTPUTS), OUTPUTS)
                for o in range(OUTPUTS):
                    total[o] += x_k * w_k[o]
            for o in range(OUTPUTS):
                out_s[o] = total[o]


@compiled
def dense(x, w, out):
    """NumPy's product, which Numba passes to BLAS; zeros are not skipped."""
    np.dot(x, w, out)


def aligned(shape):
    """Return zeros whose first byte begins a cache line."""
    buffer = np.zeros(np.prod(shape) + 16, np.float32)
    start = -buffer.ctypes.data % 64 // 4
    return buffer[start : start + np.prod(shape)].reshape(shape)


def seconds_of(step, *arguments):
    """Return the time of a call: the minimum of 20."""
    times = []
    for _ in range(20):
        start = perf_counter()
        step(*arguments)
        times.append(perf_counter() - start)
    return min(times)


def main():
    """Measure the steps, interleaved, and print medians."""
    rng, depth = np.random.default_rng(0), -(-INPUTS // BLOCK) * BLOCK
    x, w, out = aligned((ROWS, depth)), aligned((depth, OUTPUTS)), aligned((ROWS, OUTPUTS))
    x[:, :INPUTS] = load_dataset().x_train[:ROWS].reshape(ROWS, INPUTS) / np.float32(255)
    w[:INPUTS] = rng.normal(size=(INPUTS, OUTPUTS))
    arguments = dict.fromkeys((naive, constant_trip_count, masks, sums_on_stack), (x, w, out))
    arguments[dense] = np.ascontiguousarray(x[:, :INPUTS]), w[:INPUTS], out  # without the padding
    exact, size = x.astype(float) @ w, np.abs(x).astype(float) @ np.abs(w)
    for step in arguments:  # compiles
        step(*arguments[step])
        assert (np.abs(out - exact) <= (INPUTS + 1) * 2.0**-24 * size).all()
    rounds = np.array(
        [[seconds_of(step, *arguments[step]) for step in arguments] for _ in range(ROUNDS)]
    )
    ratios = np.median(rounds / rounds[:, -1:], axis=0)
    print("step                 microseconds  ratio to dense")
    for step, seconds, ratio in zip(arguments, np.median(rounds, axis=0), ratios):
        print(f"{step.__name__:19}  {1e6 * seconds:12.0f}  {ratio:14.2f}")


if __name__ == "__main__":
    main()

# The operations of reference.py in Cython, for numbers of the type `real`, which float32.pyx and
# float64.pyx define. Blocking and threads are here, the innermost loops in simd/.
#
# Matrices are kept in panels of 64 columns while a call runs (simd/loops.h); callers see plain
# row-major arrays.
#
# Threads: a training step is three phases, and all threads meet after each; not after the first
# where it is cut into the same rows as the second.
#     forward   the first layer, cut into (two panels, half of the inputs, 8 rows)
#     middle    the other layers, the loss and the way back to the first layer, cut into rows
#     update    gradients and the rule for all layers, cut into (two panels, 64 inputs, 16 outputs);
#               the next batch
# Every number is computed by one part in one fixed order, whatever the number of threads, so that
# the bits do not depend on it. A thread takes neighbouring parts, the same in every step: what it
# updates is what it reads in the next step.
#
# Zeros are skipped where there are many: in the first layer if the data has them, and in outputs
# and deltas of ReLU, which makes them. Those of other activations have few: products are dense.
# Rows that come as entries alone have a first layer of their own: sparse.pxi.

import os
from time import perf_counter

import numpy as np

from fmnist_fast.kernels.team import have_cores, run_team

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign


cdef extern from "simd/real.h" nogil:
    real log_of(real x)

cdef extern from "simd/loops.h" nogil:
    enum: PANEL, OUTPUTS, GROUPS
    enum: RELU, TANH, LOGISTIC, IDENTITY
    enum: ADAM, SGD, NESTEROV
    enum: BYTES, FLOATS, DOUBLES

    ctypedef struct step_numbers:
        real step_size, epsilon, l2, keep, beta1, rest1, beta2, rest2

    ctypedef struct panels:
        const real *p
        long ld, next

    ctypedef struct dropout:
        const uint64_t *row
        uint32_t least
        real scale, stays

    ctypedef struct loops:
        const char *name
        void (*multiply)(const real *x, long ldx, const uint64_t *mask, uint64_t only, panels w,
                         panels start, real *out, long ldo, long next, long first, long last,
                         long width) noexcept nogil
        void (*multiply_dense)(const real *x, long ldx, long inputs, panels w, panels start,
                               real *out, long ldo, long next, long first, long last,
                               long width) noexcept nogil
        void (*sum_entries)(const real *values, const int64_t *at, long count, const real *w,
                            long ldw, const real *start, real *out, long columns) noexcept nogil
        void (*turn)(const real *x, long ldi, long rows, long width, real *out,
                     uint64_t *mask) noexcept nogil
        real (**update_turned)(const real *g, long inputs, real *w, real *m, real *v, long ldw,
                               real *turned, long ldt, const step_numbers *numbers) noexcept nogil
        void (*gradient_turned)(const real *g, long inputs, real *out, long ldo) noexcept nogil
        void (*column_sums)(const real *delta, long ldd, long rows, real *out,
                            long width) noexcept nogil
        real (**update)(real *p, real *m, real *v, const real *g, long count,
                        const step_numbers *numbers) noexcept nogil
        void (*add)(real *x, const real *y, long count) noexcept nogil
        void (**activate)(real *x, long ldx, uint64_t *mask, long first, long last,
                          long columns) noexcept nogil
        void (*drop_out)(real *x, long ldx, uint64_t *mask, long first, long last, long width,
                         const dropout *drop, uint32_t unit) noexcept nogil
        void (**backward)(const real *a, real *delta, long ldd, uint64_t *mask, long first,
                          long last, long width, const dropout *drop, uint32_t unit) noexcept nogil
        real (*largest)(const real *z, real so_far, long count) noexcept nogil
        real (*exponential)(const real *z, real peak, real *out, long count) noexcept nogil
        void (*share_out)(real *p, real factor, long target, real share,
                          long width) noexcept nogil
        real (*share_out_soft)(real *p, real factor, const real *target, const real *z,
                               real share, long width) noexcept nogil
        real (*independent)(const real *z, const real *target, real share, real most, real *delta,
                            long count) noexcept nogil
        void (**row_of)(const void *x, real scale, long count, real *out, long next,
                        uint64_t *mask, long next_mask, long s) noexcept nogil
        double (*multiply_adds)(long turns) noexcept nogil

    const loops *find_loops(const char *name)

cdef extern from "simd/prefetch.h" nogil:
    void prefetch(const void *data, long size)

cdef extern from "simd/clock.h" nogil:
    ctypedef struct stopwatch:
        pass
    void stopwatch_start(stopwatch *watch, double *seconds)
    void stopwatch_lap(stopwatch *watch, int phase)

cdef extern from "simd/team.h" nogil:
    ctypedef struct team:
        pass
    void team_begin(team *t, int size, bint spin)
    void team_end(team *t)
    void team_meet(team *t)
    long team_claim(long *next, long count)
    int team_run(void (*job)(void *plan, long thread) noexcept nogil, void *plan, long threads)
    unsigned flush_denormals()
    void restore_denormals(unsigned before)


DTYPE = np.float64 if sizeof(real) == 8 else np.float32
_ACTIVATION = {"relu": RELU, "tanh": TANH, "logistic": LOGISTIC, "identity": IDENTITY}
_RULE = {"adam": ADAM, "sgd": SGD, "nesterov": NESTEROV}

cdef enum Phase:  # the order of kernels.PHASES
    GATHER, FIRST_LAYER, MIDDLE, UPDATE, WAITING
    PHASES

cdef long FORWARD_ROWS = 8  # a part of the forward phase: 8 row groups x 2 halves feed 8 threads

cdef uint64_t ALL = ~<uint64_t>0
cdef real[64] ZEROS
memset(ZEROS, 0, sizeof(ZEROS))

_ISAS = ("avx512", "avx2", "baseline")


cdef const loops *_choose() except NULL:
    """The best instruction set of this processor, or the one in FMNIST_FAST_ISA.

    Raises: ValueError if that one cannot be had; another is never taken in its place.
    """
    wanted = os.environ.get("FMNIST_FAST_ISA")
    cdef const loops *found
    for name in (wanted,) if wanted else _ISAS:
        encoded = name.encode()
        found = find_loops(encoded)
        if found != NULL:
            return found
    raise ValueError(
        f"FMNIST_FAST_ISA is {wanted!r}, which was not built or which this processor lacks: "
        f"choose from {', '.join(available_instruction_sets())}"
    )


def available_instruction_sets():
    """Names of the instruction sets that were built and that this processor has, widest first."""
    found = []
    for name in _ISAS:
        encoded = name.encode()
        if find_loops(encoded) != NULL:
            found.append(name)
    return tuple(found)


cdef const loops *run = _choose()


def select_instruction_set(name):
    """Use the loops of this instruction set from now on, for tests and benchmarks.

    Not while a call runs. Raises: ValueError if it was not built or this processor lacks it.
    """
    global run
    encoded = name.encode()
    cdef const loops *found = find_loops(encoded)
    if found == NULL:
        raise ValueError(f"no instruction set {name!r}: {', '.join(available_instruction_sets())}")
    run = found


def instruction_set():
    """Name of the instruction set in use."""
    return run.name.decode()


# Panels: where things are.

cdef inline long panels_of(long columns) noexcept nogil:
    return (columns + PANEL - 1) // PANEL


cdef inline long width_of(long columns, long panel) noexcept nogil:
    """Numbers in a row of a panel: 64, in the last panel what is left, rounded up to 16."""
    cdef long left = columns - panel * PANEL
    return PANEL if left >= PANEL else (left + 15) // 16 * 16


cdef inline long joined(long columns, long panel) noexcept nogil:
    """Columns of a panel that one call takes: those of the next one too, if both are full."""
    return 2 * PANEL if columns > (panel + 2) * PANEL - OUTPUTS else width_of(columns, panel)


cdef inline long padded(long columns) noexcept nogil:
    cdef long last = panels_of(columns) - 1
    return last * PANEL + width_of(columns, last)


cdef struct Layer:
    long inputs, outputs
    long first_unit         # its number among the outputs of all hidden layers
    int activation          # of a hidden layer
    bint dense_delta        # few of its deltas are zero, none of them is skipped
    const real *w_read      # panel p begins at w_read + p * panel_step, its rows are ldw(p) apart
    long panel_step, row_step  # row_step 0: rows are as long as the panel is wide
    const int64_t *every    # the numbers of all inputs, if w_read is the caller's, not padded
    real *w                 # the same, and the moments, while training: in panels
    real *m
    real *v
    real *b
    real *m_b
    real *v_b
    real *transposed        # (outputs, inputs) in panels; not for the first layer
    real *a                 # outputs (rows, outputs) in panels
    real *half              # sums over the second half of the inputs, the same shape; or null
    real *delta             # gradient of the loss at the layer's sums, the same shape
    uint64_t *a_mask        # (panels, rows): which outputs are not zero
    uint64_t *delta_mask
    long *part_of           # where the update parts of every thread begin, and where the last end


cdef inline long row_step(const Layer *layer, long panel) noexcept nogil:
    return layer.row_step if layer.row_step else width_of(layer.outputs, panel)


# The first layer's inputs have two halves, pairs of blocks in turn, so that images have about as
# many pixels in both. Two threads may take one each: what a thread updates is what it reads next.

cdef inline long halves_of(const Layer *layer) noexcept nogil:
    return 2 if layer.half != NULL else 1


cdef inline long blocks_of(const Layer *layer, long half) noexcept nogil:
    """How many blocks of 64 inputs a half has."""
    cdef long blocks = panels_of(layer.inputs), first = blocks // 4 * 2 + min(blocks % 4, 2)
    if layer.half == NULL:
        return blocks
    return blocks - first if half else first


cdef inline long block_at(const Layer *layer, long half, long n) noexcept nogil:
    """The n-th block of a half."""
    return 4 * (n // 2) + 2 * half + n % 2 if layer.half != NULL else n


cdef void sum_rows(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long panel, long width,
    long half, long first, long last, bint dense
) noexcept nogil:
    """The sums of rows first..last-1 over a half of the inputs, without ReLU: `width` outputs.

    x, mask: the inputs, in panels. dense: do not skip zeros; for 16 outputs or fewer skipping never
    pays, since a row's few multiplications do not hide the branch that nobody can predict.
    """
    cdef long step = row_step(layer, panel), n, block, ldo = min(width, PANEL)
    cdef real *out = (layer.half if half else layer.a) + panel * capacity * PANEL
    cdef panels w, start
    w.ld, w.next = step, layer.panel_step
    start.p, start.ld, start.next = ZEROS, 0, 0
    if half == 0:
        start.p, start.next = layer.b + panel * PANEL, PANEL
    for n in range(blocks_of(layer, half)):
        block = block_at(layer, half, n)
        w.p = layer.w_read + panel * layer.panel_step + block * PANEL * step
        if dense or width == OUTPUTS:
            run.multiply_dense(
                x + block * capacity * PANEL, width_of(layer.inputs, block),
                min(PANEL, layer.inputs - block * PANEL), w, start, out, ldo, capacity * PANEL,
                first, last, width,
            )
        else:
            run.multiply(
                x + block * capacity * PANEL, width_of(layer.inputs, block),
                mask + block * capacity, ALL, w, start, out, ldo, capacity * PANEL, first, last,
                width,
            )
        start.p, start.ld, start.next = out, ldo, capacity * PANEL


cdef void finish_rows(
    const Layer *layer, long capacity, long first, long last, bint hidden, const dropout *drop
) noexcept nogil:
    """The outputs of rows first..last-1, whose sums are there. drop: null: nothing is left out."""
    cdef long panel, width
    cdef real *out
    for panel in range(panels_of(layer.outputs)):
        width = width_of(layer.outputs, panel)
        out = layer.a + panel * capacity * PANEL
        if layer.half != NULL:
            run.add(
                out + first * width, layer.half + panel * capacity * PANEL + first * width,
                (last - first) * width,
            )
        if hidden:
            run.activate[layer.activation](
                out, width, layer.a_mask + panel * capacity, first, last,
                min(PANEL, layer.outputs - panel * PANEL),
            )
        if hidden and drop != NULL:
            run.drop_out(
                out, width, layer.a_mask + panel * capacity, first, last, width, drop,
                <uint32_t>(layer.first_unit + panel * PANEL),
            )


cdef void draw_rows(
    const int32_t *rows, uint64_t key, long first, long last, uint64_t *out
) noexcept nogil:
    """The random bits of rows first..last-1 of a batch, for dropout: see reference.random_bits."""
    cdef uint64_t bits
    cdef long s
    for s in range(first, last):
        bits = key + <uint64_t>rows[s] * <uint64_t>0x9E3779B97F4A7C15
        bits = (bits ^ (bits >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        bits = (bits ^ (bits >> 27)) * <uint64_t>0x94D049BB133111EB
        out[s] = bits ^ (bits >> 31)


cdef void sum_lone_row(const Layer *layer, const real *x) noexcept nogil:
    """The sums of a batch of one row, whose panels follow each other without a gap: what sum_rows
    computes, without a copy of the weights, which would take longer than to read them once."""
    cdef long panel
    for panel in range(panels_of(layer.outputs)):
        run.sum_entries(
            x, layer.every, layer.inputs, layer.w_read + panel * PANEL, layer.outputs,
            layer.b + panel * PANEL, layer.a + panel * PANEL,
            min(PANEL, layer.outputs - panel * PANEL),
        )


cdef void forward_rows(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long first, long last,
    bint dense, bint hidden, const dropout *drop
) noexcept nogil:
    """Rows first..last-1 of a layer's outputs.

    x, mask: the inputs, in panels; dense: none of them is skipped.
    """
    cdef long panel = 0, width, half
    if layer.every != NULL:
        sum_lone_row(layer, x)
        panel = panels_of(layer.outputs)
    while panel < panels_of(layer.outputs):
        width = joined(layer.outputs, panel)
        for half in range(halves_of(layer)):
            sum_rows(layer, x, mask, capacity, panel, width, half, first, last, dense)
        panel += 1 + width // (2 * PANEL)
    finish_rows(layer, capacity, first, last, hidden, drop)


cdef void delta_rows(
    const Layer *layer, Layer *below, long capacity, long first, long last, const dropout *drop
) noexcept nogil:
    """The gradient at the sums of the layer below, for rows first..last-1.

    drop: what finish_rows was given.
    """
    cdef long panel = 0, block, width, rows_t = padded(layer.outputs), ldo
    cdef real *out
    cdef panels w, start
    w.next = rows_t * PANEL
    while panel < panels_of(layer.inputs):
        width = joined(layer.inputs, panel)
        ldo = w.ld = min(width, PANEL)
        out = below.delta + panel * capacity * PANEL
        start.p, start.ld, start.next = ZEROS, 0, 0
        for block in range(panels_of(layer.outputs)):
            w.p = layer.transposed + panel * rows_t * PANEL + block * PANEL * ldo
            if layer.dense_delta:
                run.multiply_dense(
                    layer.delta + block * capacity * PANEL, width_of(layer.outputs, block),
                    min(PANEL, layer.outputs - block * PANEL), w, start, out, ldo,
                    capacity * PANEL, first, last, width,
                )
            else:
                run.multiply(
                    layer.delta + block * capacity * PANEL, width_of(layer.outputs, block),
                    layer.delta_mask + block * capacity, ALL, w, start, out, ldo,
                    capacity * PANEL, first, last, width,
                )
            start.p, start.ld, start.next = out, ldo, capacity * PANEL
        panel += 1 + width // (2 * PANEL)
    for panel in range(panels_of(layer.inputs)):
        width = width_of(layer.inputs, panel)
        run.backward[below.activation](
            below.a + panel * capacity * PANEL, below.delta + panel * capacity * PANEL, width,
            below.delta_mask + panel * capacity, first, last, width, drop,
            <uint32_t>(below.first_unit + panel * PANEL),
        )


cdef real exponentials(
    const real *z, real *out, long capacity, long classes, long s, real *total
) noexcept nogil:
    """e^(z - the largest) of row s of the logits, in panels, and their sum. Returns the largest."""
    cdef long panel, at
    cdef real peak = -INFINITY
    total[0] = 0
    for panel in range(panels_of(classes)):
        at = panel * capacity * PANEL + s * width_of(classes, panel)
        peak = run.largest(z + at, peak, min(PANEL, classes - panel * PANEL))
    for panel in range(panels_of(classes)):
        at = panel * capacity * PANEL + s * width_of(classes, panel)
        total[0] += run.exponential(z + at, peak, out + at, min(PANEL, classes - panel * PANEL))
    return peak


cdef real softmax_row(
    const real *z, real *out, long capacity, long classes, long s, long target, real share
) noexcept nogil:
    """(softmax(z) - [the target]) * share of row s of the logits; no target is below 0.

    Returns log sum_k e^z[k].
    """
    cdef long panel
    cdef real total, peak = exponentials(z, out, capacity, classes, s, &total)
    for panel in range(panels_of(classes)):
        run.share_out(
            out + panel * capacity * PANEL + s * width_of(classes, panel), 1 / total,
            target - panel * PANEL, share, width_of(classes, panel),
        )
    return log_of(total) + peak


cdef real loss_row(
    const real *z, real *delta, uint64_t *mask, long capacity, long classes, long s, long target,
    const real *soft, real share, bint independent, real most
) noexcept nogil:
    """loss_delta for one row; share is its weight over the batch's. Fills the row's masks.

    soft: the target distributions, in panels as z is; null: the target is a class.
    independent: the loss is sigmoid. most: no answer costs more.
    """
    cdef long panel, at
    cdef real total, expected = 0, log_sum, loss
    for panel in range(panels_of(classes)):
        mask[panel * capacity + s] = ALL >> (PANEL - min(PANEL, classes - panel * PANEL))
    if independent:
        total = 0
        for panel in range(panels_of(classes)):
            at = panel * capacity * PANEL + s * width_of(classes, panel)
            total += run.independent(
                z + at, soft + at, share, most, delta + at, min(PANEL, classes - panel * PANEL)
            )
        return total
    if soft == NULL:
        log_sum = softmax_row(z, delta, capacity, classes, s, target, share)
        panel = target // PANEL
        at = panel * capacity * PANEL + s * width_of(classes, panel) + target % PANEL
        loss = log_sum - z[at]
        return most if loss > most else loss  # NaN is not above, and stays
    log_sum = exponentials(z, delta, capacity, classes, s, &total)
    log_sum += log_of(total)
    for panel in range(panels_of(classes)):
        at = panel * capacity * PANEL + s * width_of(classes, panel)
        expected += run.share_out_soft(
            delta + at, 1 / total, soft + at, z + at, share, width_of(classes, panel)
        )
    return log_sum - expected


cdef inline void spread_row(
    const real *row, long columns, real *flat, long capacity, long s
) noexcept nogil:
    """A row as row s of a matrix in panels."""
    cdef long panel
    for panel in range(panels_of(columns)):
        memcpy(
            flat + panel * capacity * PANEL + s * width_of(columns, panel), row + panel * PANEL,
            min(PANEL, columns - panel * PANEL) * sizeof(real),
        )


cdef struct Turned:
    long rows          # of the largest batch, rounded up to 64
    long panel         # the first of the two
    real *delta        # of two panels, of 64 rows after the other: (64 outputs, 64 rows)
    uint64_t *mask     # in the same order: which deltas of an output are not zero
    real *gradient     # (64 outputs, 64 inputs), of two blocks of inputs


cdef void turn_delta(const Layer *layer, long capacity, long rows, long panel, long first,
                     long last, Turned *turned) noexcept nogil:
    """Groups first..last-1 of a layer's deltas, turned, for the gradients of its weights.

    They are counted from this panel on, and end with the next.
    """
    cdef long width, column, count, n, s, at, tile
    turned.panel = panel
    for n in range(2):
        column = max(0, first - n * GROUPS) * OUTPUTS
        count = min(GROUPS, last - n * GROUPS) * OUTPUTS - column
        if count <= 0:
            continue
        width = width_of(layer.outputs, panel + n)
        for tile in range(panels_of(rows)):
            s = tile * PANEL
            at = n * turned.rows + s
            run.turn(
                layer.delta + (panel + n) * capacity * PANEL + s * width + column, width,
                min(PANEL, rows - s), count, turned.delta + at * PANEL + column * PANEL,
                turned.mask + at + column,
            )


cdef inline uint64_t rows_with_any(
    const uint64_t *mask, const uint64_t *other, long rows
) noexcept nogil:
    """Which of up to 64 rows have an entry that is not zero, in one mask or the other."""
    cdef uint64_t found = 0
    cdef long s
    for s in range(rows):
        found |= <uint64_t>((mask[s] | other[s]) != 0) << s
    return found


cdef void gradient_of(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long rows, long block,
    long width, long panel, long first, long last, Turned *turned
) noexcept nogil:
    """Gradient of `width` inputs (one block of x or two) and the outputs first..last-1 of a panel.

    panel: which of the turned ones.
    """
    cdef long at = panel * turned.rows, s, tile
    # From which output on zeros are skipped: among them all columns beyond the matrix, if any.
    cdef long skipping = first
    if layer.dense_delta:
        skipping = max(first, min(last, layer.outputs - (turned.panel + panel) * PANEL))
    cdef const uint64_t *blocks = mask + block * capacity
    cdef const uint64_t *next_block = blocks + capacity * (width // (2 * PANEL))
    cdef panels x_rows, start
    x_rows.ld, x_rows.next = min(width, PANEL), capacity * PANEL
    start.p, start.ld, start.next = ZEROS, 0, 0
    for tile in range(panels_of(rows)):
        s = tile * PANEL
        x_rows.p = x + block * capacity * PANEL + s * x_rows.ld
        if first < skipping:
            run.multiply_dense(
                turned.delta + (at + s) * PANEL, PANEL, min(PANEL, rows - s), x_rows, start,
                turned.gradient, PANEL, PANEL * PANEL, first, skipping, width,
            )
        if skipping < last:
            run.multiply(
                turned.delta + (at + s) * PANEL, PANEL, turned.mask + at + s,
                rows_with_any(blocks + s, next_block + s, min(PANEL, rows - s)), x_rows, start,
                turned.gradient, PANEL, PANEL * PANEL, skipping, last, width,
            )
        start.p, start.ld, start.next = turned.gradient, PANEL, PANEL * PANEL


cdef real update_part(
    const Layer *layer, long panel, long block, long group, const real *gradient, int rule,
    const step_numbers *numbers
) noexcept nogil:
    """The rule on 64 inputs and 16 outputs, one group of a panel, with the gradient of that panel.

    Returns the sum of the squares of w before.
    """
    cdef long width = width_of(layer.outputs, panel), width_x = width_of(layer.inputs, block)
    cdef long base = block * PANEL, first = group * OUTPUTS
    cdef real *w = layer.w + panel * layer.panel_step + base * width + first
    cdef long offset = w - layer.w
    cdef real *transposed = NULL
    if layer.transposed != NULL:
        transposed = layer.transposed + (
            base * padded(layer.outputs) + (panel * PANEL + first) * width_x
        )
    return run.update_turned[rule](
        gradient + first * PANEL, min(PANEL, layer.inputs - base), w, layer.m + offset,
        layer.v + offset, width, transposed, width_x, numbers,
    )


cdef struct Rows:
    const char *x       # of a data set, which need not be aligned
    long inputs
    long size           # of a number, in bytes
    int type


cdef inline const char *number_at(const Rows *rows, long row, long column) noexcept nogil:
    return rows.x + (row * rows.inputs + column) * rows.size


cdef void gather_blocks(
    const Rows *rows, long row, real scale, long block, long count, real *out, uint64_t *mask,
    long capacity, long s
) noexcept nogil:
    """`count` blocks of 64 inputs of one row of the data set as row s of a batch, in panels."""
    run.row_of[rows.type](
        number_at(rows, row, block * PANEL), scale,
        min(count * PANEL, rows.inputs - block * PANEL), out + block * capacity * PANEL,
        capacity * PANEL, mask + block * capacity, capacity, s,
    )


include "sparse.pxi"


cdef struct Plan:
    long depth, capacity, first, last, threads
    int rule
    bint independent        # the loss is sigmoid
    real most_loss
    Layer *layers
    Rows rows
    real scale
    bint dense
    Sparse *sparse          # the first layer of rows of which only the entries are stored, or null
    const int32_t *order
    const int64_t *starts   # where in order the steps begin, and where the last one ends
    const int32_t *targets  # or null, and
    const real *soft        # the target distributions
    const double *weights
    const double *step_size
    const double *epsilon
    const double *l2
    const double *decay
    double beta1, beta2
    dropout drop
    uint64_t drop_key
    uint64_t *drop_rows     # what drop.row points to; null without dropout
    real *x[2]              # this batch, of a step with an even number or an odd one, and the next
    uint64_t *x_mask[2]
    int32_t *batch_targets[2]
    real *batch_soft[2]     # in panels, as the logits are
    double *batch_weights[2]
    Turned *turned          # one for every thread
    real *loss              # of every row of two batches in turn: one is summed while one goes on
    real *squares           # of every update part
    double *losses
    double *seconds         # (threads, phases), or null
    team meeting


cdef inline long share(long parts, long thread, long threads) noexcept nogil:
    """Where the parts of a thread begin."""
    return parts * thread // threads


# The parts of an update: two panels of outputs after the other, their blocks of 64 inputs, their
# groups of 16 outputs. Parts cost as much as their inputs are many, in units of 16.

cdef struct Part:
    long panel, groups  # the first of two panels, and how many groups both have
    long block, group
    bint joined         # the next groups have the next block, which is as wide


cdef inline long groups_of(const Layer *layer, long panel) noexcept nogil:
    """Groups of 16 outputs in this panel and the next."""
    return min(2 * PANEL, padded(layer.outputs) - panel * PANEL) // OUTPUTS


cdef inline long block_in_order(const Layer *layer, long n) noexcept nogil:
    """The n-th block of inputs, one half after the other."""
    cdef long first = blocks_of(layer, 0)
    return block_at(layer, 0, n) if n < first else block_at(layer, 1, n - first)


cdef inline long parts_of(const Layer *layer) noexcept nogil:
    return panels_of(layer.inputs) * (padded(layer.outputs) // OUTPUTS)


cdef Part find_part(const Layer *layer, long part) noexcept nogil:
    cdef Part found
    cdef long blocks = panels_of(layer.inputs), pair = part // (blocks * 2 * GROUPS)
    found.panel = 2 * pair
    found.groups = groups_of(layer, found.panel)
    part -= pair * blocks * 2 * GROUPS
    found.block = block_in_order(layer, part // found.groups)
    found.group = part % found.groups
    found.joined = found.block % 2 == 0 and joined(layer.inputs, found.block) > PANEL
    return found


cdef inline long units_of(const Layer *layer, long n) noexcept nogil:
    """What a part of the n-th block costs."""
    return width_of(layer.inputs, block_in_order(layer, n)) // 16


cdef inline long cost_of(const Layer *layer) noexcept nogil:
    """Of all parts."""
    return padded(layer.inputs) // 16 * (padded(layer.outputs) // OUTPUTS)


cdef long part_at(const Layer *layer, long cost, long *before) noexcept nogil:
    """The part that begins at this cost of those before it, or is under way; theirs is `before`."""
    cdef long units = padded(layer.inputs) // 16, pair = cost // (units * 2 * GROUPS)
    cdef long groups = groups_of(layer, 2 * pair), n = 0, part
    before[0] = pair * units * 2 * GROUPS
    if cost >= cost_of(layer):
        before[0] = cost_of(layer)
        return parts_of(layer)
    while cost - before[0] >= groups * units_of(layer, n):
        before[0] += groups * units_of(layer, n)
        n += 1
    part = (cost - before[0]) // units_of(layer, n)
    before[0] += part * units_of(layer, n)
    return pair * panels_of(layer.inputs) * 2 * GROUPS + n * groups + part


cdef void divide_parts(Layer *layers, long depth, long threads) noexcept nogil:
    """Fill part_of: the parts of every layer for every thread, so that all have the same cost.

    What a thread has too few of in one layer, since a part is not divided, it gets in the next.
    """
    cdef long thread, d, up_to, given, before, part
    for thread in range(threads + 1):
        up_to, given = 0, 0
        for d in range(depth):
            up_to += cost_of(layers + d)
            part = part_at(layers + d, max(0, share(up_to, thread, threads) - given), &before)
            given += before
            layers[d].part_of[thread] = max(part, layers[d].part_of[thread - 1] if thread else 0)


cdef inline long rows_of(const Plan *plan, long step) noexcept nogil:
    return plan.starts[step + 1] - plan.starts[step]


cdef void gather_phase(Plan *plan, long step, long thread) noexcept nogil:
    """A part of it is half a row of a batch."""
    cdef const Layer *layer = plan.layers
    cdef long classes = plan.layers[plan.depth - 1].outputs
    cdef long rows = rows_of(plan, step), parts = rows * halves_of(layer), part, half, s, block
    cdef long begin = share(parts, thread, plan.threads), row
    for s in range(share(rows, thread, plan.threads), share(rows, thread + 1, plan.threads)):
        row = plan.order[plan.starts[step] + s]
        if plan.soft == NULL:
            plan.batch_targets[step & 1][s] = plan.targets[row]
        else:
            spread_row(
                plan.soft + row * classes, classes, plan.batch_soft[step & 1], plan.capacity, s
            )
        plan.batch_weights[step & 1][s] = plan.weights[row]
    if plan.sparse != NULL:
        collect_entries(plan.sparse, plan.order + plan.starts[step], rows, thread)
        return
    for part in range(begin, share(parts, thread + 1, plan.threads)):
        half = part // rows
        s = part - half * rows
        block = 2 * half
        while block < panels_of(layer.inputs):
            gather_blocks(
                &plan.rows, plan.order[plan.starts[step] + s], plan.scale, block, 2,
                plan.x[step & 1], plan.x_mask[step & 1], plan.capacity, s,
            )
            block += 2 * halves_of(layer)


cdef void prefetch_rows(
    Plan *plan, long step, long thread, long done, long now, long total
) noexcept nogil:
    """Fetch what gather_phase will read in this step, from done/total to now/total of it: random
    rows of a data set larger than the caches."""
    cdef const Layer *layer = plan.layers
    cdef long classes = plan.layers[plan.depth - 1].outputs
    cdef long rows = rows_of(plan, step), parts = rows * halves_of(layer), part, half, s, block
    cdef long begin = share(parts, thread, plan.threads)
    cdef long count = share(parts, thread + 1, plan.threads) - begin, row
    cdef long end = begin + share(count, now, total)
    for part in range(begin + share(count, done, total), end):
        half = part // rows
        s = part - half * rows
        row = plan.order[plan.starts[step] + s]
        if plan.soft == NULL:
            prefetch(plan.targets + row, sizeof(int32_t))
        else:
            prefetch(plan.soft + row * classes, classes * sizeof(real))
        prefetch(plan.weights + row, sizeof(double))
        block = 2 * half
        while block < panels_of(layer.inputs):
            prefetch(
                number_at(&plan.rows, row, block * PANEL),
                min(2 * PANEL, layer.inputs - block * PANEL) * plan.rows.size,
            )
            block += 2 * halves_of(layer)


cdef inline bint rows_alone(const Plan *plan) noexcept nogil:
    """Whether the forward phase is cut into rows alone, those of the middle phase: no thread then
    has to wait for the others between the two."""
    cdef const Layer *layer = plan.layers
    return plan.sparse != NULL or (halves_of(layer) == 1 and panels_of(layer.outputs) <= 2)


cdef void forward_sums(
    Plan *plan, long step, long pair, long half, long first, long last
) noexcept nogil:
    """The first layer's sums of these rows over a half of the inputs, for two panels."""
    cdef Layer *layer = plan.layers
    cdef long panel = 2 * pair, width
    while panel < min(panels_of(layer.outputs), 2 * pair + 2):
        width = joined(layer.outputs, panel)
        sum_rows(
            layer, plan.x[step & 1], plan.x_mask[step & 1], plan.capacity, panel, width, half,
            first, last, plan.dense,
        )
        panel += 1 + width // (2 * PANEL)


cdef void forward_phase(Plan *plan, long step, long thread) noexcept nogil:
    cdef Layer *layer = plan.layers
    cdef long rows = rows_of(plan, step), groups = (rows + FORWARD_ROWS - 1) // FORWARD_ROWS
    cdef long halves = halves_of(layer), pairs = (panels_of(layer.outputs) + 1) // 2
    cdef long parts = pairs * halves * groups
    cdef long part = share(parts, thread, plan.threads)
    cdef long end = share(parts, thread + 1, plan.threads), stop, run_of
    if plan.sparse != NULL:
        sum_entries_of_rows(
            layer, &plan.sparse.rows, &plan.sparse.buckets[thread].entries,
            plan.order + plan.starts[step], plan.capacity,
            share(rows, thread, plan.threads), share(rows, thread + 1, plan.threads),
        )
        return
    if rows_alone(plan):
        forward_sums(
            plan, step, 0, 0, share(rows, thread, plan.threads),
            share(rows, thread + 1, plan.threads),
        )
        return
    while part < end:
        run_of = part // groups  # parts of the same two panels and the same half
        stop = min(end, (run_of + 1) * groups)
        forward_sums(
            plan, step, run_of // halves, run_of % halves,
            (part - run_of * groups) * FORWARD_ROWS,
            min(rows, (stop - run_of * groups) * FORWARD_ROWS),
        )
        part = stop


cdef void middle_phase(Plan *plan, long step, long thread) noexcept nogil:
    cdef long rows = rows_of(plan, step), depth, s
    cdef long first = share(rows, thread, plan.threads)
    cdef long last = share(rows, thread + 1, plan.threads)
    cdef Layer *top = plan.layers + plan.depth - 1
    cdef const int32_t *targets = plan.batch_targets[step & 1]
    cdef const double *weights = plan.batch_weights[step & 1]
    cdef const dropout *drop = &plan.drop if plan.drop_rows != NULL else NULL
    cdef real *loss = plan.loss + (step & 1) * plan.capacity
    cdef double total = 0
    if first == last:
        return
    if drop != NULL:
        draw_rows(plan.order + plan.starts[step], plan.drop_key, first, last, plan.drop_rows)
    finish_rows(plan.layers, plan.capacity, first, last, plan.depth > 1, drop)
    for depth in range(1, plan.depth):
        forward_rows(
            plan.layers + depth, plan.layers[depth - 1].a, plan.layers[depth - 1].a_mask,
            plan.capacity, first, last, plan.layers[depth - 1].activation != RELU,
            depth < plan.depth - 1, drop,
        )
    for s in range(rows):
        total += weights[s]
    for s in range(first, last):
        loss[s] = loss_row(
            top.a, top.delta, top.delta_mask, plan.capacity, top.outputs, s, targets[s],
            plan.batch_soft[step & 1], <real>(weights[s] / total) if total else 0,
            plan.independent, plan.most_loss,
        )
    for depth in range(plan.depth - 1, 0, -1):
        delta_rows(
            plan.layers + depth, plan.layers + depth - 1, plan.capacity, first, last, drop
        )


cdef void update_groups(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long rows, Part at,
    long stop, long blocks, Turned *turned, int rule, const step_numbers *numbers, real *squares
) noexcept nogil:
    """Groups at.group..stop-1 of one block of inputs or of two."""
    cdef long width = min(blocks * PANEL, padded(layer.inputs) - at.block * PANEL)
    cdef long group = at.group, panel, first, last, block
    while group < stop:
        panel = group // GROUPS
        first = group - panel * GROUPS
        last = min(GROUPS, first + stop - group)
        gradient_of(
            layer, x, mask, capacity, rows, at.block, width, panel, first * OUTPUTS,
            last * OUTPUTS, turned,
        )
        for first in range(first, last):
            for block in range(blocks):
                squares[block * at.groups + group - at.group] = update_part(
                    layer, at.panel + panel, at.block + block, first,
                    turned.gradient + block * PANEL * PANEL, rule, numbers,
                )
            group += 1


cdef void update_bias(
    const Plan *plan, const Layer *layer, long panel, long rows, const step_numbers *bias_numbers
) noexcept nogil:
    cdef real[64] sums
    cdef long width = width_of(layer.outputs, panel)
    run.column_sums(
        layer.delta + panel * plan.capacity * PANEL, width, rows, sums, width
    )
    run.update[plan.rule](
        layer.b + panel * PANEL, layer.m_b + panel * PANEL, layer.v_b + panel * PANEL, sums, width,
        bias_numbers,
    )


cdef inline long sums_of(const Plan *plan, long depth) noexcept nogil:
    """How many sums of squares the update of a layer leaves."""
    if depth == 0 and plan.sparse != NULL:
        return runs_of(plan.layers)
    return parts_of(plan.layers + depth)


cdef void update_entries(
    Plan *plan, long rows, long thread, const step_numbers *numbers,
    const step_numbers *bias_numbers
) noexcept nogil:
    """A thread's share of the first layer of rows of which only the entries are stored."""
    cdef const Layer *layer = plan.layers
    cdef long panels = panels_of(layer.outputs), panel, r = thread
    for panel in range(
        share(panels, thread, plan.threads), share(panels, thread + 1, plan.threads)
    ):
        update_bias(plan, layer, panel, rows, bias_numbers)
    while r < runs_of(layer):
        plan.squares[r] = update_run(
            plan.sparse, layer, plan.capacity, r, thread, plan.rule, numbers
        )
        r += plan.threads


cdef void update_phase(
    Plan *plan, long step, long thread, const step_numbers *numbers
) noexcept nogil:
    cdef long rows = rows_of(plan, step), depth, begin, end, part, panel, turned_panel, blocks
    cdef long group, stop, done
    cdef Layer *layer
    cdef Part at
    cdef const real *x
    cdef const uint64_t *mask
    cdef Turned *turned = plan.turned + thread
    cdef real *squares = plan.squares
    cdef step_numbers bias_numbers = numbers[0]
    bias_numbers.l2 = 0
    bias_numbers.keep = 1
    for depth in range(plan.depth):
        if depth == 0 and plan.sparse != NULL:
            update_entries(plan, rows, thread, numbers, &bias_numbers)
            squares += sums_of(plan, 0)
            continue
        layer = plan.layers + depth
        x = plan.layers[depth - 1].a if depth else plan.x[step & 1]
        mask = plan.layers[depth - 1].a_mask if depth else plan.x_mask[step & 1]
        begin, end = layer.part_of[thread], layer.part_of[thread + 1]
        part, turned_panel = begin, -1
        while part < end:
            at = find_part(layer, part)
            if turned_panel != at.panel:
                turned_panel = at.panel
                stop = at.group + end - part  # no further than the thread's last part
                turn_delta(
                    layer, plan.capacity, rows, at.panel, at.group if stop <= at.groups else 0,
                    min(stop, at.groups), turned,
                )
            blocks = 2 if at.joined and not at.group and part + 2 * at.groups <= end else 1
            stop = min(at.groups, at.group + end - part)
            update_groups(
                layer, x, mask, plan.capacity, rows, at, stop, blocks, turned, plan.rule, numbers,
                squares + part,
            )
            if at.block == 0:
                for group in range(at.group, stop):
                    if group % GROUPS == 0:
                        update_bias(
                            plan, layer, at.panel + group // GROUPS, rows,
                            &bias_numbers,
                        )
            done = part
            part += stop - at.group + (blocks - 1) * at.groups
            if depth == 0 and step + 1 < plan.last:
                prefetch_rows(plan, step + 1, thread, done - begin, part - begin, end - begin)
        squares += parts_of(layer)


cdef void finish_loss(Plan *plan, long step) noexcept nogil:
    """The loss of a step, when all its parts are done."""
    cdef long rows = rows_of(plan, step), s, depth, part, parts = 0
    cdef const double *weights = plan.batch_weights[step & 1]
    cdef double total = 0, loss = 0, squares = 0
    for s in range(rows):
        total += weights[s]
        loss += weights[s] * plan.loss[(step & 1) * plan.capacity + s]
    for depth in range(plan.depth):
        parts += sums_of(plan, depth)
    for part in range(parts):
        squares += plan.squares[part]
    plan.losses[step - plan.first] = (
        (loss / total if total else 0) + plan.l2[step] / 2 * squares
    )


cdef step_numbers rounded(
    double step_size, double epsilon, double l2, double decay, double beta1, double beta2
) noexcept nogil:
    """The numbers of a step as the loops take them."""
    cdef step_numbers numbers
    numbers.step_size, numbers.epsilon = <real>step_size, <real>epsilon
    numbers.l2, numbers.keep = <real>l2, <real>(1 - decay)
    numbers.beta1, numbers.rest1 = <real>beta1, <real>(1 - beta1)
    numbers.beta2, numbers.rest2 = <real>beta2, <real>(1 - beta2)
    return numbers


cdef inline void meet(Plan *plan, stopwatch *watch) noexcept nogil:
    team_meet(&plan.meeting)
    stopwatch_lap(watch, WAITING)


cdef void work(Plan *plan, long thread) noexcept nogil:
    """What one thread of the team does, from the first step to the last."""
    cdef unsigned before = flush_denormals()
    cdef long step
    cdef step_numbers numbers
    cdef double[<int>PHASES] seconds  # its own cache line until the end
    cdef stopwatch watch
    memset(seconds, 0, sizeof(seconds))
    stopwatch_start(&watch, seconds if plan.seconds != NULL else NULL)
    gather_phase(plan, plan.first, thread)
    stopwatch_lap(&watch, GATHER)
    meet(plan, &watch)
    for step in range(plan.first, plan.last):
        if thread == 0 and step > plan.first:
            finish_loss(plan, step - 1)
        forward_phase(plan, step, thread)
        stopwatch_lap(&watch, FIRST_LAYER)
        if not rows_alone(plan):
            meet(plan, &watch)
        middle_phase(plan, step, thread)
        stopwatch_lap(&watch, MIDDLE)
        meet(plan, &watch)
        numbers = rounded(
            plan.step_size[step], plan.epsilon[step], plan.l2[step], plan.decay[step], plan.beta1,
            plan.beta2,
        )
        update_phase(plan, step, thread, &numbers)
        stopwatch_lap(&watch, UPDATE)
        if step + 1 < plan.last:
            gather_phase(plan, step + 1, thread)
            stopwatch_lap(&watch, GATHER)
        meet(plan, &watch)
    if thread == 0:
        finish_loss(plan, plan.last - 1)
    if plan.seconds != NULL:
        for step in range(PHASES):
            plan.seconds[thread * PHASES + step] += seconds[step]
    restore_denormals(before)


cdef void work_on(void *plan, long thread) noexcept nogil:
    work(<Plan *>plan, thread)


cdef const char *_memory_of(array) except? NULL:
    """Where an array's numbers are; it must live on.

    By way of the plain buffer, since a typed view would cost as much as predicting a row.
    """
    cdef Py_buffer memory
    PyObject_GetBuffer(array, &memory, PyBUF_SIMPLE)
    cdef const char *numbers = <const char *>memory.buf
    PyBuffer_Release(&memory)
    return numbers


cdef int _spread(matrix, real *flat, long capacity) except -1:
    """Copy rows into panels of a network with that capacity."""
    cdef const real *numbers = <const real *>_memory_of(matrix)
    cdef long rows = matrix.shape[0], columns = matrix.shape[1], s
    for s in range(rows):
        spread_row(numbers + s * columns, columns, flat, capacity, s)
    return 0


cdef void _collect(const real *flat, real[:, ::1] matrix, long capacity) noexcept:
    """Copy panels of a network with that capacity into rows."""
    cdef long columns = matrix.shape[1], s, panel, width, count
    for panel in range(panels_of(columns)):
        width, count = width_of(columns, panel), min(PANEL, columns - panel * PANEL)
        for s in range(matrix.shape[0]):
            memcpy(
                &matrix[s, panel * PANEL], flat + panel * capacity * PANEL + s * width,
                count * sizeof(real),
            )


cdef class _Network:
    """Layers with room for `capacity` rows, and the arrays that they point into."""

    cdef Layer *layers
    cdef long depth, capacity, pieces
    cdef bint sparse     # rows come as csr: the first layer's weights are not copied into panels
    cdef dropout drop    # without the rows
    cdef void **memory
    cdef list read_from  # keeps the arrays alive that layers point into

    def __cinit__(self, spec, long capacity):
        self.depth, self.capacity, self.read_from = len(spec.sizes) - 1, capacity, []
        self.sparse = spec.inputs == "csr"
        self.layers = <Layer *>calloc(self.depth, sizeof(Layer))
        if self.layers == NULL:
            raise MemoryError
        self.drop.least = <uint32_t>(<double>spec.dropout * 4294967296.0)  # 2^32
        self.drop.scale = <real>(1 / (1 - <double>spec.dropout))
        self.drop.stays = <real>(1 - <double>spec.dropout)
        cdef Layer *layer
        cdef long d, first_unit = 0
        for d in range(self.depth):
            layer = self.layers + d
            layer.inputs, layer.outputs = spec.sizes[d], spec.sizes[d + 1]
            layer.first_unit = first_unit
            first_unit += layer.outputs
            layer.activation = _ACTIVATION[spec.activation]
            layer.dense_delta = layer.activation != RELU
            layer.a = self.numbers(capacity * padded(layer.outputs))
            layer.a_mask = self.bits(capacity * panels_of(layer.outputs))
        layer = self.layers
        if panels_of(layer.inputs) > 2 and not self.sparse:
            layer.half = self.numbers(capacity * padded(layer.outputs))

    def __dealloc__(self):
        cdef long piece
        for piece in range(self.pieces):
            free(self.memory[piece])
        free(self.memory)
        free(self.layers)

    cdef void *room(self, size_t size) except NULL:
        """Zeroed memory that begins at a cache line and lives as long as this object."""
        cdef void *piece
        cdef void **longer = <void **>realloc(self.memory, (self.pieces + 1) * sizeof(void *))
        if longer == NULL:
            raise MemoryError
        self.memory = longer
        if posix_memalign(&piece, 64, size or 1) != 0:
            raise MemoryError
        memset(piece, 0, size)
        self.memory[self.pieces] = piece
        self.pieces += 1
        return piece

    cdef real *numbers(self, long count) except NULL:
        return <real *>self.room(count * sizeof(real))

    cdef uint64_t *bits(self, long count) except NULL:
        return <uint64_t *>self.room(count * sizeof(uint64_t))

    cdef int64_t *numbers_up_to(self, long end) except NULL:
        """0, 1, 2, ..., end - 1."""
        cdef int64_t *room = <int64_t *>self.room(end * sizeof(int64_t))
        cdef long n
        for n in range(end):
            room[n] = n
        return room

    cdef Turned turned(self) except *:
        """Room of one thread for the deltas of a panel."""
        cdef Turned turned
        cdef long rows = (self.capacity + PANEL - 1) // PANEL * PANEL
        turned.rows = rows
        turned.delta = self.numbers(2 * rows * PANEL)
        turned.mask = self.bits(2 * rows)
        turned.gradient = self.numbers(2 * PANEL * PANEL)
        return turned

    cdef real *panels(self, matrix) except NULL:
        """A copy of a matrix in panels."""
        cdef real *room = self.numbers(matrix.shape[0] * padded(matrix.shape[1]))
        _spread(matrix, room, matrix.shape[0])
        return room

    cdef real *in_place(self, real[:, ::1] matrix) except NULL:
        """A matrix where the caller has it."""
        self.read_from.append(matrix)
        return &matrix[0, 0]

    cdef real *vector(self, row) except NULL:
        """A copy of a vector, zeros up to the padded width."""
        cdef long columns = row.shape[0]
        cdef real *room = self.numbers(padded(columns))
        memcpy(room, _memory_of(row), columns * sizeof(real))
        return room

    cdef int read(self, params, bint copy=False) except -1:
        """Use these parameters for the forward pass: as they are where rows are whole vectors,
        unless `copy` asks for panels, which pay from about two batches on."""
        cdef Layer *layer
        cdef long depth
        cdef bint alone
        for depth, (w_io, b_o) in enumerate(zip(*params)):
            layer = self.layers + depth
            alone = self.capacity == 1 and layer.half == NULL  # its sums are not in two halves
            if (depth == 0 and self.sparse) or ((layer.outputs % 16 == 0 or alone) and not copy):
                self.read_from.append(w_io)
                layer.w_read = <const real *>_memory_of(w_io)
                layer.panel_step, layer.row_step = PANEL, layer.outputs
                if layer.outputs % 16 and not (depth == 0 and self.sparse):
                    layer.every = self.numbers_up_to(layer.inputs)
            else:
                layer.w_read = self.panels(w_io)
                layer.panel_step, layer.row_step = layer.inputs * PANEL, 0
            layer.b = self.vector(b_o)
        return 0

    cdef int share_weights(self, _Network other) except -1:
        """Use what another network, which must live on, uses for the forward pass."""
        cdef long depth
        for depth in range(self.depth):
            self.layers[depth].w_read = other.layers[depth].w_read
            self.layers[depth].panel_step = other.layers[depth].panel_step
            self.layers[depth].row_step = other.layers[depth].row_step
            self.layers[depth].b = other.layers[depth].b
        return 0

    cdef const dropout *drop_rows(self, drop, spec) except? NULL:
        """Dropout in a batch; null where nothing is left out."""
        if drop is None or not spec.dropout:
            return NULL
        cdef const int32_t[::1] rows_b = drop.rows_b
        cdef uint64_t *bits = self.bits(rows_b.shape[0])
        draw_rows(&rows_b[0], drop.key, 0, rows_b.shape[0], bits)
        self.drop.row = bits
        return &self.drop

    cdef int add_deltas(self) except -1:
        cdef Layer *layer
        cdef long depth
        for depth in range(self.depth):
            layer = self.layers + depth
            layer.delta = self.numbers(self.capacity * padded(layer.outputs))
            layer.delta_mask = self.bits(self.capacity * panels_of(layer.outputs))
        return 0

    cdef int add_transposed(self, params) except -1:
        """The weights of all layers but the first, turned, for the way back."""
        cdef long depth
        for depth in range(1, self.depth):
            w_io = params.weights[depth]
            turned = np.zeros((padded(w_io.shape[1]), w_io.shape[0]), DTYPE)
            turned[: w_io.shape[1]] = w_io.T
            self.layers[depth].transposed = self.panels(turned)
        return 0


cdef class _Training(_Network):
    """The whole state in panels, for a range of steps."""

    cdef Plan plan

    cdef int load(self, state) except -1:
        """Only Adam has a v: nothing reads it with the other rules, and m is there in its place."""
        cdef Layer *layer
        cdef long depth
        cdef bint adam = self.plan.rule == ADAM
        self.add_deltas()
        self.add_transposed(state.params)
        for depth in range(self.depth):
            layer = self.layers + depth
            if depth == 0 and self.sparse:
                layer.w = self.in_place(state.params.weights[0])
                layer.m = self.in_place(state.m.weights[0])
                layer.v = self.in_place(state.v.weights[0])
            else:
                layer.w = self.panels(state.params.weights[depth])
                layer.m = self.panels(state.m.weights[depth])
                layer.v = self.panels(state.v.weights[depth]) if adam else layer.m
            layer.b = self.vector(state.params.biases[depth])
            layer.m_b = self.vector(state.m.biases[depth])
            layer.v_b = self.vector(state.v.biases[depth]) if adam else layer.m_b
            layer.w_read, layer.panel_step = layer.w, layer.inputs * PANEL
        return 0

    cdef int store(self, state) except -1:
        """Write the state back to the caller's arrays."""
        cdef Layer *layer
        cdef long depth
        cdef bint in_panels
        for depth in range(self.depth):
            layer = self.layers + depth
            in_panels = depth > 0 or not self.sparse
            if in_panels:
                _collect(layer.w, state.params.weights[depth], layer.inputs)
                _collect(layer.m, state.m.weights[depth], layer.inputs)
            _collect(layer.b, state.params.biases[depth][None], 1)
            _collect(layer.m_b, state.m.biases[depth][None], 1)
            if self.plan.rule == ADAM:
                if in_panels:
                    _collect(layer.v, state.v.weights[depth], layer.inputs)
                _collect(layer.v_b, state.v.biases[depth][None], 1)
        return 0


cdef Rows _rows(x_ni) except *:
    """Rows of a data set as the kernels read them; x_ni must live on."""
    cdef Rows rows
    rows.x = _memory_of(x_ni)
    rows.inputs, rows.size = x_ni.shape[1], x_ni.itemsize
    rows.type = BYTES if rows.size == 1 else FLOATS if rows.size == sizeof(float) else DOUBLES
    return rows


cdef int _run(
    void (*job)(void *plan, long thread) noexcept nogil, void *plan, long threads
) except -1:
    """A team of threads does the job. Raises: RuntimeError if they cannot be started."""
    cdef int error
    with nogil:
        error = team_run(job, plan, threads)
    if error:
        raise RuntimeError(f"{threads} threads cannot be started: {os.strerror(error)}")
    return 0


def train_steps(
    state, data, const int32_t[::1] order_n, steps, spec, long first, long last, long threads,
    double[:, ::1] seconds_tp=None
):
    """Steps first..last-1 on a team of threads: see reference.train_steps.

    seconds_tp: (threads, phases), to which the time in each phase is added: see kernels.PHASES.
    """
    if first >= last:
        return np.empty(0)
    cdef long capacity = min(steps.batch_size, len(order_n)), depth, parts = 0
    cdef _Training training = _Training(spec, capacity)
    cdef Plan *plan = &training.plan
    plan.rule, plan.independent = _RULE[spec.rule], spec.loss == "sigmoid"
    plan.most_loss = spec.most_loss
    training.load(state)
    plan.depth, plan.layers, plan.capacity = training.depth, training.layers, capacity
    plan.first, plan.last, plan.threads = first, last, threads

    if not training.sparse:
        plan.rows = _rows(data.x_ni)
    plan.scale, plan.dense = data.scale, data.dense
    cdef const int32_t[::1] targets
    cdef const real[:, ::1] soft
    if data.targets_n.ndim == 1:
        targets = data.targets_n
        plan.targets = &targets[0]
    else:
        soft = data.targets_n
        plan.soft = &soft[0, 0]
    cdef const double[::1] weights = data.weights_n, step_size = steps.step_size_t
    cdef const double[::1] epsilon = steps.epsilon_t, l2 = steps.l2_t, decay = steps.decay_t
    cdef const int64_t[::1] starts = steps.starts(len(order_n))
    plan.order, plan.starts, plan.weights = &order_n[0], &starts[0], &weights[0]
    plan.step_size, plan.epsilon, plan.l2, plan.decay = (
        &step_size[0], &epsilon[0], &l2[0], &decay[0]
    )
    plan.beta1, plan.beta2 = steps.beta1, steps.beta2
    plan.drop, plan.drop_key = training.drop, steps.dropout_key
    if spec.dropout:
        plan.drop_rows = training.bits(capacity)
        plan.drop.row = plan.drop_rows
    for depth in range(2):
        if not training.sparse:
            plan.x[depth] = training.numbers(capacity * padded(spec.sizes[0]))
            plan.x_mask[depth] = training.bits(capacity * panels_of(spec.sizes[0]))
        plan.batch_targets[depth] = <int32_t *>training.room(capacity * sizeof(int32_t))
        if plan.soft != NULL:
            plan.batch_soft[depth] = training.numbers(
                capacity * padded(training.layers[training.depth - 1].outputs)
            )
        plan.batch_weights[depth] = <double *>training.room(capacity * sizeof(double))
    if training.sparse:
        plan.sparse = _sparse(training, data.x_ni, data.scale)
    for depth in range(training.depth):
        training.layers[depth].part_of = <long *>training.room((threads + 1) * sizeof(long))
        parts += sums_of(plan, depth)
    depth = 1 if training.sparse else 0  # the first layer of sparse rows has other parts
    divide_parts(training.layers + depth, training.depth - depth, threads)
    plan.squares, plan.loss = training.numbers(parts), training.numbers(2 * capacity)
    losses_t = np.empty(last - first)
    cdef double[::1] losses = losses_t
    plan.losses = &losses[0]
    if seconds_tp is not None:
        plan.seconds = &seconds_tp[0, 0]
    plan.turned = <Turned *>training.room(threads * sizeof(Turned))
    for depth in range(threads):
        plan.turned[depth] = training.turned()
    team_begin(&plan.meeting, threads, have_cores(threads))
    try:
        _run(work_on, plan, threads)
    finally:
        team_end(&plan.meeting)
    training.store(state)
    return losses_t


def gather(x_ni, const int32_t[::1] order_n, long first, long last, scale, out_bi):
    """out[b] = scale * x[order[first + b]]: see reference.gather."""
    rows_bi = x_ni[np.asarray(order_n[first:last])].astype(DTYPE, copy=False)
    np.multiply(rows_bi, DTYPE(scale), out=out_bi)


cdef struct Inputs:
    real *x
    uint64_t *mask


cdef Inputs _inputs(_Network network, const real[:, ::1] x_bi) except *:
    """A batch in panels, with its masks."""
    cdef Inputs inputs
    cdef Rows rows
    cdef long s, columns = x_bi.shape[1]
    rows.x, rows.inputs, rows.size = <const char *>&x_bi[0, 0], columns, sizeof(real)
    rows.type = DOUBLES if sizeof(real) == 8 else FLOATS
    inputs.x = network.numbers(network.capacity * padded(columns))
    inputs.mask = network.bits(network.capacity * panels_of(columns))
    for s in range(x_bi.shape[0]):
        gather_blocks(
            &rows, s, 1, 0, panels_of(columns), inputs.x, inputs.mask, network.capacity, s
        )
    return inputs


def forward(params, x_bi, spec, out_layers, drop=None):
    """What every layer makes of the batch: see reference.forward."""
    cdef long rows = x_bi.shape[0], depth
    cdef _Network network = _Network(spec, rows)
    cdef const dropout *dropping = network.drop_rows(drop, spec)
    cdef Inputs inputs
    cdef Layer *layer
    network.read(params)
    if network.sparse:
        _forward_entries(network, x_bi)
    else:
        inputs = _inputs(network, x_bi)
    for depth in range(network.depth):
        layer = network.layers + depth
        if depth == 0 and network.sparse:
            finish_rows(layer, rows, 0, rows, network.depth > 1, dropping)
        else:
            forward_rows(
                layer, inputs.x, inputs.mask, rows, 0, rows,
                depth > 0 and layer.activation != RELU, depth < network.depth - 1, dropping,
            )
        inputs.x, inputs.mask = layer.a, layer.a_mask
        _collect(layer.a, out_layers[depth], rows)


def loss_delta(
    const real[:, ::1] logits_bk, targets_b, const real[::1] weights_b, spec,
    real[::1] out_loss_b, real[:, ::1] out_delta_bk
):
    """Cross-entropy of every row and its gradient: see reference.loss_delta."""
    cdef long rows = logits_bk.shape[0], classes = logits_bk.shape[1], s
    cdef _Network network = _Network(spec, rows)
    cdef real *z = network.numbers(rows * padded(classes))
    cdef real *delta = network.numbers(rows * padded(classes))
    cdef uint64_t *mask = network.bits(rows * panels_of(classes))
    cdef double total = 0
    cdef const int32_t[::1] targets
    cdef real *soft = NULL
    _spread(logits_bk, z, rows)
    if targets_b.ndim == 1:
        targets = targets_b
    else:
        soft = network.numbers(rows * padded(classes))
        _spread(targets_b, soft, rows)
    for s in range(rows):
        total += weights_b[s]
    for s in range(rows):
        out_loss_b[s] = loss_row(
            z, delta, mask, rows, classes, s, 0 if soft != NULL else targets[s], soft,
            <real>(weights_b[s] / total) if total else 0, spec.loss == "sigmoid", spec.most_loss,
        )
    _collect(delta, out_delta_bk, rows)


def backward(params, x_bi, layers, const real[:, ::1] delta_bk, spec,
             out_grads, drop=None):
    """Gradients of all parameters: see reference.backward."""
    cdef long rows = x_bi.shape[0], depth, panel, block, width, classes = delta_bk.shape[1]
    cdef _Network network = _Network(spec, rows)
    cdef Inputs inputs
    cdef const dropout *dropping = network.drop_rows(drop, spec)
    cdef Turned turned = network.turned()
    cdef Layer *layer
    network.add_deltas()
    network.add_transposed(params)
    for depth in range(network.depth - 1):
        layer = network.layers + depth
        _spread(layers[depth], layer.a, rows)
        for panel in range(panels_of(layer.outputs)):
            run.activate[<int>IDENTITY](  # only the masks are wanted
                layer.a + panel * rows * PANEL, width_of(layer.outputs, panel),
                layer.a_mask + panel * rows, 0, rows, min(PANEL, layer.outputs - panel * PANEL),
            )
    layer = network.layers + network.depth - 1
    _spread(delta_bk, layer.delta, rows)
    for panel in range(panels_of(classes)):
        for block in range(rows):
            layer.delta_mask[panel * rows + block] = (
                ~<uint64_t>0 >> (PANEL - min(PANEL, classes - panel * PANEL))
            )
    for depth in range(network.depth - 1, 0, -1):
        delta_rows(network.layers + depth, network.layers + depth - 1, rows, 0, rows, dropping)
    if not network.sparse:
        inputs = _inputs(network, x_bi)
    for depth in range(network.depth):
        layer = network.layers + depth
        layer.b = network.numbers(padded(layer.outputs))
        for panel in range(panels_of(layer.outputs)):
            width = width_of(layer.outputs, panel)
            run.column_sums(
                layer.delta + panel * rows * PANEL, width, rows, layer.b + panel * PANEL, width
            )
        _collect(layer.b, out_grads.biases[depth][None], 1)
        if depth == 0 and network.sparse:
            _gradient_of_entries(network, x_bi, out_grads.weights[0])
        else:
            _gradient(network, layer, inputs, &turned, out_grads.weights[depth])
        inputs.x, inputs.mask = layer.a, layer.a_mask


cdef int _gradient(
    _Network network, Layer *layer, Inputs inputs, Turned *turned, real[:, ::1] out_io
) except -1:
    """The gradient of a layer's weights."""
    cdef long rows = network.capacity, panel, block, group, width
    layer.w = network.numbers(layer.inputs * padded(layer.outputs))
    for panel in range(panels_of(layer.outputs)):
        width = width_of(layer.outputs, panel)
        turn_delta(layer, rows, rows, panel, 0, width // OUTPUTS, turned)
        for block in range(panels_of(layer.inputs)):
            gradient_of(
                layer, inputs.x, inputs.mask, rows, rows, block, width_of(layer.inputs, block), 0,
                0, width, turned,
            )
            for group in range(width // OUTPUTS):
                run.gradient_turned(
                    turned.gradient + group * OUTPUTS * PANEL,
                    min(PANEL, layer.inputs - block * PANEL),
                    layer.w + panel * layer.inputs * PANEL + block * PANEL * width
                    + group * OUTPUTS,
                    width,
                )
    _collect(layer.w, out_io, layer.inputs)
    return 0


def update(state, grads, numbers, spec):
    """One step: see reference.update."""
    cdef step_numbers weight_numbers = rounded(
        numbers.step_size, numbers.epsilon, numbers.l2, numbers.decay, numbers.beta1, numbers.beta2
    )
    cdef step_numbers bias_numbers = weight_numbers
    cdef int rule = _RULE[spec.rule]
    cdef real[::1] p, m, v
    cdef const real[::1] g
    bias_numbers.l2, bias_numbers.keep = 0, 1
    for kind in range(2):
        for arrays in zip(*(part[kind] for part in (*state, grads))):
            p, m, v, g = (array.reshape(-1) for array in arrays)
            run.update[rule](&p[0], &m[0], &v[0], &g[0], p.shape[0],
                             &bias_numbers if kind else &weight_numbers)


cdef void predict_rows(
    Layer *layers, long depth, long capacity, real *x, uint64_t *mask, const Rows *all_rows,
    const SparseRows *sparse, Entries *entries, real scale, bint independent, long first,
    long last, long end, real *out
) noexcept nogil:
    """Rows first..last-1, at most `capacity`, through all layers; up to `end` others follow.

    sparse: not null: the rows are these, and entries has room for one.
    """
    cdef long rows = last - first, s, d, panel, c, width, classes = layers[depth - 1].outputs
    cdef real *top
    cdef SparseRows from_first
    for s in range(rows if sparse == NULL else 0):
        if first + capacity + s < end:
            prefetch(
                number_at(all_rows, first + capacity + s, 0), all_rows.inputs * all_rows.size
            )
        gather_blocks(
            all_rows, first + s, scale, 0, panels_of(layers[0].inputs), x, mask, capacity, s
        )
    if sparse != NULL:
        from_first = sparse[0]
        from_first.start += first
        sum_entries_of_rows(layers, &from_first, entries, NULL, capacity, 0, rows)
        finish_rows(layers, capacity, 0, rows, depth > 1, NULL)
    for d in range(0 if sparse == NULL else 1, depth):
        forward_rows(
            layers + d, layers[d - 1].a if d else x, layers[d - 1].a_mask if d else mask, capacity,
            0, rows, d > 0 and layers[d].activation != RELU, d < depth - 1, NULL,
        )
    top = layers[depth - 1].a
    for panel in range(panels_of(classes) if independent else 0):
        run.activate[<int>LOGISTIC](
            top + panel * capacity * PANEL, width_of(classes, panel),
            layers[depth - 1].a_mask + panel * capacity, 0, rows,
            min(PANEL, classes - panel * PANEL),
        )
    for s in range(rows):
        if not independent:
            softmax_row(top, top, capacity, classes, s, -1, 1)
        for panel in range(panels_of(classes)):
            width = width_of(classes, panel)
            for c in range(min(PANEL, classes - panel * PANEL)):
                out[(first + s) * classes + panel * PANEL + c] = (
                    top[panel * capacity * PANEL + s * width + c]
                )


cdef struct Asked:
    Rows rows            # or, not null,
    SparseRows *sparse
    long longest         # entries of one of those
    long count, blocks
    long at_once         # blocks that a thread takes at once
    long claimed         # blocks that somebody has begun
    real scale
    bint independent
    real *out
    Predictor *predictors  # one for every thread


cdef struct Predictor:
    Layer *layers
    long depth, capacity
    real *x
    uint64_t *mask
    Entries entries


cdef int _add_predictor(_Network network, const Asked *asked, Predictor *out) except -1:
    cdef long inputs = 0 if network.sparse else network.layers.inputs
    out.layers, out.depth, out.capacity = network.layers, network.depth, network.capacity
    out.x = network.numbers(network.capacity * padded(inputs))
    out.mask = network.bits(network.capacity * panels_of(inputs))
    out.entries = _entries(network, asked.longest)
    return 0


cdef void predict_on(void *plan, long thread) noexcept nogil:
    """Blocks of rows, as long as there are any that nobody has begun: a thread that begins late
    does not hold up the others."""
    cdef Asked *asked = <Asked *>plan
    cdef Predictor *own = asked.predictors + thread
    cdef long first, last, block
    while True:
        first = team_claim(&asked.claimed, asked.at_once)
        if first >= asked.blocks:
            break
        last = min(first + asked.at_once, asked.blocks)
        for block in range(first, last):
            predict_rows(
                own.layers, own.depth, own.capacity, own.x, own.mask, &asked.rows, asked.sparse,
                &own.entries, asked.scale, asked.independent, block * PANEL,
                min(asked.count, (block + 1) * PANEL), min(asked.count, last * PANEL), asked.out,
            )


def predict(params, x_ni, double scale, spec, long threads, out_nk):
    """Probabilities: see reference.predict. A row's bits do not depend on the rows beside it."""
    cdef Asked asked
    cdef SparseRows sparse
    cdef long thread
    cdef _Network network
    asked.count = x_ni.shape[0]
    if asked.count == 0:
        return
    asked.blocks, asked.claimed = (asked.count + PANEL - 1) // PANEL, 0
    cdef _Network shared = _Network(spec, min(asked.count, PANEL))
    shared.read(params, copy=asked.blocks > 2)
    asked.sparse, asked.longest = NULL, 0
    if shared.sparse:
        sparse = _sparse_rows(shared, x_ni, scale)
        asked.sparse, asked.longest = &sparse, longest_row(&sparse, NULL, asked.count)
    else:
        asked.rows = _rows(x_ni)
    asked.scale, asked.independent = <real>scale, spec.loss == "sigmoid"
    asked.out = <real *>_memory_of(out_nk)
    threads = min(threads, asked.blocks)
    asked.at_once = max(1, min(4, asked.blocks // (4 * threads)))
    asked.predictors = <Predictor *>shared.room(threads * sizeof(Predictor))
    networks = [shared]  # they must live as long as the call
    for thread in range(threads):
        network = _Network(spec, shared.capacity) if thread else shared
        network.share_weights(shared)
        networks.append(network)
        _add_predictor(network, &asked, asked.predictors + thread)
    _run(predict_on, &asked, threads)


def multiply_add_peak(long threads, double seconds=0.3):
    """What this processor can do at most, in GFLOP/s: fused multiply-adds on all threads at once.

    The best of bursts of about 50 ms, for at least that many seconds. For benchmarks.
    """
    operations = [0.0] * threads
    turns, best, end = 1 << 16, 0.0, perf_counter() + seconds

    def job(long thread):
        cdef long count = turns
        cdef double done
        with nogil:
            done = run.multiply_adds(count)
        operations[thread] = done

    while perf_counter() < end:
        start = perf_counter()
        run_team(job, threads)
        elapsed = perf_counter() - start
        best = max(best, sum(operations) / elapsed / 1e9)
        if elapsed < 0.05:
            turns *= 2
    return best

# The operations of reference.py in Cython, for numbers of the type `real`, which float32.pyx and
# float64.pyx define. What they are made of is in the files that are included below, the innermost
# loops are in simd/.
#
# Matrices are kept in panels of 64 columns while a call runs (simd/loops.h); callers see plain
# row-major arrays.

import os
from time import perf_counter

import numpy as np

from fmnist_fast.kernels.thread_team import have_cores, run_team

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
        void (*turn)(const real *x, long ldi, long rows, long width, real *out, uint64_t *mask,
                     real *sums) noexcept nogil
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


include "layers.pxi"
include "sparse.pxi"
include "steps.pxi"
include "network.pxi"
include "prediction.pxi"


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
    plan.rule, plan.independent = _RULE[spec.optimizer], spec.loss == "sigmoid"
    plan.max_loss = spec.max_loss
    training.load(state)
    plan.depth, plan.layers, plan.capacity = training.depth, training.layers, capacity
    plan.first, plan.last, plan.threads = first, last, threads

    if not training.sparse:
        plan.rows = _rows(data.x_ni)
    plan.scale, plan.dense = data.scale, not data.skip_zeros
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


def loss_and_grad(
    const real[:, ::1] logits_bk, targets_b, const real[::1] weights_b, spec,
    real[::1] out_loss_b, real[:, ::1] out_grad_logits_bk
):
    """The loss of every row and its gradient: see reference.loss_and_grad."""
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
            <real>(weights_b[s] / total) if total else 0, spec.loss == "sigmoid", spec.max_loss,
        )
    _collect(delta, out_grad_logits_bk, rows)


def backward(params, x_bi, layers, const real[:, ::1] grad_logits_bk, spec,
             out_grads, drop=None):
    """Gradients of all parameters: see reference.backward."""
    cdef long rows = x_bi.shape[0], depth, panel, block, width, classes = grad_logits_bk.shape[1]
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
    _spread(grad_logits_bk, layer.delta, rows)
    for panel in range(panels_of(classes)):
        for block in range(rows):
            layer.delta_mask[panel * rows + block] = (
                ALL >> (PANEL - min(PANEL, classes - panel * PANEL))
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
    cdef int rule = _RULE[spec.optimizer]
    cdef real[::1] p, m, v
    cdef const real[::1] g
    bias_numbers.l2, bias_numbers.keep = 0, 1
    for kind in range(2):
        for arrays in zip(*(part[kind] for part in (*state, grads))):
            p, m, v, g = (array.reshape(-1) for array in arrays)
            run.update[rule](&p[0], &m[0], &v[0], &g[0], p.shape[0],
                             &bias_numbers if kind else &weight_numbers)


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

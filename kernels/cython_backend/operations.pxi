# The operations of reference.py in Cython, for the type `real`: included by float32.pyx and
# float64.pyx. The files included below implement them; the innermost loops are in simd/.
#
# Matrices are packed into panels of 64 columns during a call (simd/kernel_table.h); callers pass
# plain row-major arrays.

import os
from time import perf_counter

import numpy as np

from fmnist_fast.kernels.thread_team import have_cores, run_team

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

include "kernel_table.pxd"

cdef extern from "simd/prefetch.h" nogil:
    void prefetch(const void *data, long size)

cdef extern from "simd/clock.h" nogil:
    ctypedef struct stopwatch:
        pass
    void stopwatch_start(stopwatch *watch, double *seconds)
    void stopwatch_lap(stopwatch *watch, int phase)

cdef extern from "simd/thread_team.h" nogil:
    ctypedef struct barrier:
        pass
    void barrier_init(barrier *b, int size, bint spin)
    void barrier_destroy(barrier *b)
    void barrier_wait(barrier *b)
    long claim_items(long *next, long count)
    int team_run(void (*job)(void *args, long thread) noexcept nogil, void *args, long threads)
    unsigned flush_denormals()
    void restore_denormals(unsigned before)


DTYPE = np.float64 if sizeof(real) == 8 else np.float32
_ACTIVATION = {"relu": RELU, "tanh": TANH, "logistic": LOGISTIC, "identity": IDENTITY}
_OPTIMIZER = {"adam": ADAM, "sgd": SGD, "nesterov": NESTEROV}

cdef uint64_t ALL = ~<uint64_t>0
cdef real[64] ZEROS
memset(ZEROS, 0, sizeof(ZEROS))

_INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


cdef const kernel_table *_default_kernels() except NULL:
    """Kernels of the instruction set in FMNIST_FAST_ISA, else of the best of this processor.

    Raises: ValueError if the one in FMNIST_FAST_ISA is not available.
    """
    requested = os.environ.get("FMNIST_FAST_ISA")
    cdef const kernel_table *found
    for name in (requested,) if requested else _INSTRUCTION_SETS:
        found = find_kernels(name.encode())
        if found != NULL:
            return found
    raise ValueError(
        f"FMNIST_FAST_ISA is {requested!r}, which was not built or which this processor lacks: "
        f"choose from {', '.join(available_instruction_sets())}"
    )


def available_instruction_sets():
    """Instruction sets that were built and that this processor has, widest first."""
    return tuple([name for name in _INSTRUCTION_SETS if find_kernels(name.encode()) != NULL])


cdef const kernel_table *simd = _default_kernels()


def select_instruction_set(name):
    """Select the kernels of an instruction set, for tests and benchmarks; not during a call.

    Raises: ValueError if it was not built or this processor lacks it.
    """
    global simd
    cdef const kernel_table *found = find_kernels(name.encode())
    if found == NULL:
        raise ValueError(f"no instruction set {name!r}: {', '.join(available_instruction_sets())}")
    simd = found


def instruction_set():
    """Name of the selected instruction set."""
    return simd.name.decode()


include "layers.pxi"
include "sparse.pxi"
include "steps.pxi"
include "network.pxi"
include "prediction.pxi"


def train_steps(
    state, data, const int32_t[::1] order_n, schedule, spec, long first, long last, long threads,
    double[:, ::1] seconds_tp=None
):
    """Steps first..last-1 on a team of threads: see reference.train_steps.

    seconds_tp: (threads, phases), to which the time in each phase is added: see interface.PHASES.
    """
    if first >= last:
        return np.empty(0)
    cdef long capacity = min(schedule.batch_size, len(order_n)), n, tiles = 0
    cdef long classes = spec.sizes[len(spec.sizes) - 1]
    cdef _Training training = _Training(spec, capacity)
    cdef TrainArgs *args = &training.args
    args.optimizer, args.sigmoid = _OPTIMIZER[spec.optimizer], spec.loss == "sigmoid"
    args.max_loss = spec.max_loss
    training.load(state)
    args.depth, args.layers, args.capacity = training.depth, training.layers, capacity
    args.first, args.last, args.threads = first, last, threads

    if not training.sparse:
        args.rows = _dense_rows(data.x_ni)
    args.scale, args.skip_zeros = data.scale, data.skip_zeros
    cdef const int32_t[::1] targets
    cdef const real[:, ::1] soft
    if data.targets_n.ndim == 1:
        targets = data.targets_n
        args.targets = &targets[0]
    else:
        soft = data.targets_n
        args.soft = &soft[0, 0]
    cdef const double[::1] weights = data.weights_n, step_size = schedule.step_size_t
    cdef const double[::1] epsilon = schedule.epsilon_t, l2 = schedule.l2_t
    cdef const double[::1] decay = schedule.decay_t
    cdef const int64_t[::1] starts = schedule.starts(len(order_n))
    args.order, args.starts, args.weights = &order_n[0], &starts[0], &weights[0]
    args.step_size, args.epsilon = &step_size[0], &epsilon[0]
    args.l2, args.decay = &l2[0], &decay[0]
    args.beta1, args.beta2 = schedule.beta1, schedule.beta2
    args.drop, args.dropout_key = training.drop, schedule.dropout_key
    if spec.dropout:
        args.row_bits = training.alloc_masks(capacity)
        args.drop.row_bits = args.row_bits
    for n in range(2):
        if not training.sparse:
            args.x[n] = training.alloc_real(capacity * padded_width(spec.sizes[0]))
            args.x_mask[n] = training.alloc_masks(capacity * panel_count(spec.sizes[0]))
        args.batch_targets[n] = <int32_t *>training.alloc(capacity * sizeof(int32_t))
        if args.soft != NULL:
            args.batch_soft[n] = training.alloc_real(capacity * padded_width(classes))
        args.batch_weights[n] = <double *>training.alloc(capacity * sizeof(double))
    if training.sparse:
        args.sparse = _alloc_sparse_workspace(training, data.x_ni, data.scale)
    for n in range(training.depth):
        training.layers[n].tile_bounds = <long *>training.alloc((threads + 1) * sizeof(long))
        tiles += square_sum_count(args, n)
    n = 1 if training.sparse else 0  # the first layer of CSR input is divided into runs
    divide_tiles(training.layers + n, training.depth - n, threads)
    args.squares, args.loss = training.alloc_real(tiles), training.alloc_real(2 * capacity)
    losses_t = np.empty(last - first)
    cdef double[::1] losses = losses_t
    args.losses = &losses[0]
    if seconds_tp is not None:
        args.seconds = &seconds_tp[0, 0]
    args.workspaces = <GradWorkspace *>training.alloc(threads * sizeof(GradWorkspace))
    for n in range(threads):
        args.workspaces[n] = training.alloc_workspace()
    barrier_init(&args.barrier, threads, have_cores(threads))
    try:
        _run_team(train_job, args, threads)
    finally:
        barrier_destroy(&args.barrier)
    training.store(state)
    return losses_t


def gather_batch(x_ni, const int32_t[::1] order_n, long first, long last, scale, out_bi):
    """out[b] = scale * x[order[first + b]]: see reference.gather_batch."""
    rows_bi = x_ni[np.asarray(order_n[first:last])].astype(DTYPE, copy=False)
    np.multiply(rows_bi, DTYPE(scale), out=out_bi)


cdef struct Inputs:
    real *x
    uint64_t *mask


cdef Inputs _pack_inputs(_Network network, const real[:, ::1] x_bi) except *:
    """A packed batch with its zero masks."""
    cdef Inputs inputs
    cdef DenseRows rows
    cdef long s, columns = x_bi.shape[1]
    rows.x, rows.inputs, rows.itemsize = <const char *>&x_bi[0, 0], columns, sizeof(real)
    rows.type = ROW_F64 if sizeof(real) == 8 else ROW_F32
    inputs.x = network.alloc_real(network.capacity * padded_width(columns))
    inputs.mask = network.alloc_masks(network.capacity * panel_count(columns))
    for s in range(x_bi.shape[0]):
        gather_blocks(
            &rows, s, 1, 0, panel_count(columns), inputs.x, inputs.mask, network.capacity, s
        )
    return inputs


def forward(params, x_bi, spec, out_activations, dropout_state=None):
    """Activations of every layer: see reference.forward."""
    cdef long rows = x_bi.shape[0], depth
    cdef _Network network = _Network(spec, rows)
    cdef const dropout *drop = network.batch_dropout(dropout_state, spec)
    cdef Inputs inputs
    cdef Layer *layer
    network.read_params(params)
    if network.sparse:
        _sum_sparse(network, x_bi)
    else:
        inputs = _pack_inputs(network, x_bi)
    for depth in range(network.depth):
        layer = network.layers + depth
        if depth == 0 and network.sparse:
            finish_rows(layer, rows, 0, rows, network.depth > 1, drop)
        else:
            forward_rows(
                layer, inputs.x, inputs.mask, rows, 0, rows,
                depth == 0 or layer.activation == RELU, depth < network.depth - 1, drop,
            )
        inputs.x, inputs.mask = layer.a, layer.a_mask
        _unpack(layer.a, out_activations[depth], rows)


def loss_and_grad(
    const real[:, ::1] logits_bk, targets_b, const real[::1] weights_b, spec,
    real[::1] out_loss_b, real[:, ::1] out_grad_logits_bk
):
    """Loss of every row and its gradient: see reference.loss_and_grad."""
    cdef long rows = logits_bk.shape[0], classes = logits_bk.shape[1], s
    cdef _Network network = _Network(spec, rows)
    cdef real *z = network.alloc_real(rows * padded_width(classes))
    cdef real *grad_z = network.alloc_real(rows * padded_width(classes))
    cdef uint64_t *mask = network.alloc_masks(rows * panel_count(classes))
    cdef double total = 0
    cdef const int32_t[::1] targets
    cdef real *soft = NULL
    _pack(logits_bk, z, rows)
    if targets_b.ndim == 1:
        targets = targets_b
    else:
        soft = network.alloc_real(rows * padded_width(classes))
        _pack(targets_b, soft, rows)
    for s in range(rows):
        total += weights_b[s]
    for s in range(rows):
        out_loss_b[s] = loss_row(
            z, grad_z, mask, rows, classes, s, 0 if soft != NULL else targets[s], soft,
            <real>(weights_b[s] / total) if total else 0, spec.loss == "sigmoid", spec.max_loss,
        )
    _unpack(grad_z, out_grad_logits_bk, rows)


def backward(
    params, x_bi, activations, const real[:, ::1] grad_logits_bk, spec, out_grads,
    dropout_state=None
):
    """Gradients of all parameters: see reference.backward."""
    cdef long rows = x_bi.shape[0], depth, panel, s, width, classes = grad_logits_bk.shape[1]
    cdef _Network network = _Network(spec, rows)
    cdef Inputs inputs
    cdef const dropout *drop = network.batch_dropout(dropout_state, spec)
    cdef GradWorkspace workspace = network.alloc_workspace()
    cdef Layer *layer
    network.alloc_grads()
    network.pack_transposed(params)
    for depth in range(network.depth - 1):
        layer = network.layers + depth
        _pack(activations[depth], layer.a, rows)
        for panel in range(panel_count(layer.outputs)):
            simd.activate[<int>IDENTITY](  # computes the masks
                layer.a + panel * rows * PANEL, panel_width(layer.outputs, panel),
                layer.a_mask + panel * rows, 0, rows, min(PANEL, layer.outputs - panel * PANEL),
            )
    layer = network.layers + network.depth - 1
    _pack(grad_logits_bk, layer.grad_z, rows)
    for panel in range(panel_count(classes)):
        for s in range(rows):
            layer.grad_mask[panel * rows + s] = (
                ALL >> (PANEL - min(PANEL, classes - panel * PANEL))
            )
    for depth in range(network.depth - 1, 0, -1):
        backward_rows(network.layers + depth, network.layers + depth - 1, rows, 0, rows, drop)
    if not network.sparse:
        inputs = _pack_inputs(network, x_bi)
    for depth in range(network.depth):
        layer = network.layers + depth
        layer.b = network.alloc_real(padded_width(layer.outputs))
        for panel in range(panel_count(layer.outputs)):
            width = panel_width(layer.outputs, panel)
            simd.column_sums(
                layer.grad_z + panel * rows * PANEL, width, rows, layer.b + panel * PANEL, width
            )
        _unpack(layer.b, out_grads.biases[depth][None], 1)
        if depth == 0 and network.sparse:
            _sparse_weight_grad(network, x_bi, out_grads.weights[0])
        else:
            _weight_grad(network, layer, inputs, &workspace, out_grads.weights[depth])
        inputs.x, inputs.mask = layer.a, layer.a_mask


cdef int _weight_grad(
    _Network network, Layer *layer, Inputs inputs, GradWorkspace *workspace, real[:, ::1] out_io
) except -1:
    """Weight gradient of a layer."""
    cdef long rows = network.capacity, panel, block, group, width
    layer.w = network.alloc_real(layer.inputs * padded_width(layer.outputs))
    for panel in range(panel_count(layer.outputs)):
        width = panel_width(layer.outputs, panel)
        transpose_grad(layer, rows, rows, panel, 0, width // GROUP, workspace)
        for block in range(panel_count(layer.inputs)):
            weight_grad(
                layer, inputs.x, inputs.mask, rows, rows, block, panel_width(layer.inputs, block),
                0, 0, width, workspace,
            )
            for group in range(width // GROUP):
                simd.transpose_gradient(
                    workspace.grad_w + group * GROUP * PANEL,
                    min(PANEL, layer.inputs - block * PANEL),
                    layer.w + panel * layer.inputs * PANEL + block * PANEL * width + group * GROUP,
                    width,
                )
    _unpack(layer.w, out_io, layer.inputs)
    return 0


def update(state, grads, hyperparams, spec):
    """One optimizer step: see reference.update."""
    cdef step_hyperparams weight_hyperparams = round_hyperparams(
        hyperparams.step_size, hyperparams.epsilon, hyperparams.l2, hyperparams.decay,
        hyperparams.beta1, hyperparams.beta2,
    )
    cdef step_hyperparams bias_hyperparams = weight_hyperparams
    cdef int optimizer = _OPTIMIZER[spec.optimizer], kind
    cdef real[::1] p, m, v
    cdef const real[::1] g
    bias_hyperparams.l2, bias_hyperparams.decay_factor = 0, 1
    for kind in range(2):  # weights, biases
        for arrays in zip(state.params[kind], state.m[kind], state.v[kind], grads[kind]):
            p, m, v, g = (array.reshape(-1) for array in arrays)
            simd.update[optimizer](
                &p[0], &m[0], &v[0], &g[0], p.shape[0],
                &bias_hyperparams if kind else &weight_hyperparams,
            )


def multiply_add_peak(long threads, double seconds=0.3):
    """Peak of fused multiply-adds on all threads, in GFLOP/s, for benchmarks.

    The best of bursts of about 50 ms, for at least that many seconds.
    """
    operations = [0.0] * threads
    iterations, best, end = 1 << 16, 0.0, perf_counter() + seconds

    def job(long thread):
        cdef long count = iterations
        cdef double done
        with nogil:
            done = simd.multiply_adds(count)
        operations[thread] = done

    while perf_counter() < end:
        start = perf_counter()
        run_team(job, threads)
        elapsed = perf_counter() - start
        best = max(best, sum(operations) / elapsed / 1e9)
        if elapsed < 0.05:
            iterations *= 2
    return best

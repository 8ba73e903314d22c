# Training steps on a team of threads: included by operations.pxi.
#
# A step has three phases with a barrier after each. The first barrier is omitted if both phases
# beside it are split by the same rows.
#     forward   first layer, split into work items of (two panels, half of the inputs, 8 rows)
#     hidden    remaining layers, loss, and backward pass to the first layer, split by rows
#     update    weight gradients and optimizer, split into tiles of (64 inputs, 16 outputs);
#               gather the next batch
# Every element is computed by one work item in one fixed order, so that results do not depend on
# the number of threads. A thread processes adjacent items, the same in every step: if the first
# layer is split by inputs, it reads mostly what it updated in the step before.

cdef enum Phase:  # the order of PHASES in kernels/interface.py
    GATHER, FIRST_LAYER, HIDDEN_BACKWARD, UPDATE, BARRIER
    PHASES

cdef long FORWARD_ROWS = 8  # of a work item: 8 row groups x 2 halves feed 8 threads


cdef struct TrainArgs:
    long depth, capacity, first, last, threads
    int optimizer
    bint sigmoid            # the loss
    real max_loss
    Layer *layers
    DenseRows rows
    real scale
    bint skip_zeros
    SparseWorkspace *sparse  # of CSR input, or null
    const int32_t *order
    const int64_t *starts   # StepSchedule.starts
    const int32_t *targets  # class labels; null:
    const real *soft        # target probabilities
    const double *weights
    const double *step_size
    const double *epsilon
    const double *l2
    const double *decay
    double beta1, beta2
    dropout drop
    uint64_t dropout_key
    uint64_t *row_bits      # those of drop; null without dropout
    real *x[2]              # packed batches of even and odd steps: the current and the next one
    uint64_t *x_mask[2]
    int32_t *batch_targets[2]
    real *batch_soft[2]     # packed
    double *batch_weights[2]
    GradWorkspace *workspaces  # of each thread
    real *loss              # of the rows of two batches: one is summed while the next is computed
    real *squares           # sum of squared weights of each update tile
    double *losses
    double *seconds         # (threads, phases), or null
    barrier barrier


cdef inline long chunk_start(long items, long thread, long threads) noexcept nogil:
    """First of the work items of a thread."""
    return items * thread // threads


# Update tiles of 64 inputs by 16 outputs, ordered by pair of panels, block of inputs, group of
# outputs. The cost of a tile is its number of inputs in units of 16.

cdef struct Tile:
    long panel, groups  # first panel of the pair, number of groups in the pair
    long block, group
    bint joint          # the next block is adjacent and full: both are processed in one call


cdef inline long group_count(const Layer *layer, long panel) noexcept nogil:
    """Groups of 16 outputs in this panel and the next."""
    return min(2 * PANEL, padded_width(layer.outputs) - panel * PANEL) // GROUP


cdef inline long nth_block(const Layer *layer, long n) noexcept nogil:
    """The n-th block of inputs: those of the first half come first."""
    cdef long first = block_count(layer, 0)
    return block_index(layer, 0, n) if n < first else block_index(layer, 1, n - first)


cdef inline long tile_count(const Layer *layer) noexcept nogil:
    return panel_count(layer.inputs) * (padded_width(layer.outputs) // GROUP)


cdef Tile find_tile(const Layer *layer, long tile) noexcept nogil:
    cdef Tile found
    cdef long blocks = panel_count(layer.inputs), pair = tile // (blocks * 2 * PANEL_GROUPS)
    found.panel = 2 * pair
    found.groups = group_count(layer, found.panel)
    tile -= pair * blocks * 2 * PANEL_GROUPS
    found.block = nth_block(layer, tile // found.groups)
    found.group = tile % found.groups
    found.joint = found.block % 2 == 0 and joint_width(layer.inputs, found.block) > PANEL
    return found


cdef inline long tile_cost(const Layer *layer, long n) noexcept nogil:
    """Cost of a tile of the n-th block."""
    return panel_width(layer.inputs, nth_block(layer, n)) // 16


cdef inline long total_cost(const Layer *layer) noexcept nogil:
    """Cost of all tiles."""
    return padded_width(layer.inputs) // 16 * (padded_width(layer.outputs) // GROUP)


cdef long tile_at_cost(const Layer *layer, long cost, long *preceding) noexcept nogil:
    """The tile in which this cumulative cost is reached. preceding: cost of the tiles before it."""
    cdef long units = padded_width(layer.inputs) // 16, pair = cost // (units * 2 * PANEL_GROUPS)
    cdef long groups = group_count(layer, 2 * pair), n = 0, tile
    preceding[0] = pair * units * 2 * PANEL_GROUPS
    if cost >= total_cost(layer):
        preceding[0] = total_cost(layer)
        return tile_count(layer)
    while cost - preceding[0] >= groups * tile_cost(layer, n):
        preceding[0] += groups * tile_cost(layer, n)
        n += 1
    tile = (cost - preceding[0]) // tile_cost(layer, n)
    preceding[0] += tile * tile_cost(layer, n)
    return pair * panel_count(layer.inputs) * 2 * PANEL_GROUPS + n * groups + tile


cdef void divide_tiles(Layer *layers, long depth, long threads) noexcept nogil:
    """Fill tile_bounds of every layer, so that all threads have the same total cost.

    Tiles are not divided: a thread with too few in one layer gets more in the next.
    """
    cdef long thread, d, total, assigned, preceding, cost, tile
    cdef long *bounds
    for thread in range(threads + 1):
        total, assigned = 0, 0
        for d in range(depth):
            total += total_cost(layers + d)
            cost = max(0, chunk_start(total, thread, threads) - assigned)
            tile = tile_at_cost(layers + d, cost, &preceding)
            assigned += preceding
            bounds = layers[d].tile_bounds
            bounds[thread] = max(tile, bounds[thread - 1] if thread else 0)


cdef inline long batch_size_at(const TrainArgs *args, long step) noexcept nogil:
    return args.starts[step + 1] - args.starts[step]


cdef void gather_phase(TrainArgs *args, long step, long thread) noexcept nogil:
    """Gather a thread's work items of a batch, each half a row."""
    cdef const Layer *layer = args.layers
    cdef long classes = args.layers[args.depth - 1].outputs
    cdef long rows = batch_size_at(args, step), items = rows * half_count(layer)
    cdef long item, half, s, block
    cdef long first = chunk_start(rows, thread, args.threads), row
    for s in range(first, chunk_start(rows, thread + 1, args.threads)):
        row = args.order[args.starts[step] + s]
        if args.soft == NULL:
            args.batch_targets[step & 1][s] = args.targets[row]
        else:
            pack_row(
                args.soft + row * classes, classes, args.batch_soft[step & 1], args.capacity, s
            )
        args.batch_weights[step & 1][s] = args.weights[row]
    if args.sparse != NULL:
        convert_batch(args.sparse, args.order + args.starts[step], rows, thread)
        return
    first = chunk_start(items, thread, args.threads)
    for item in range(first, chunk_start(items, thread + 1, args.threads)):
        half = item // rows
        s = item - half * rows
        block = 2 * half
        while block < panel_count(layer.inputs):
            gather_blocks(
                &args.rows, args.order[args.starts[step] + s], args.scale, block, 2,
                args.x[step & 1], args.x_mask[step & 1], args.capacity, s,
            )
            block += 2 * half_count(layer)


cdef void prefetch_rows(
    TrainArgs *args, long step, long thread, long done, long now, long total
) noexcept nogil:
    """Prefetch the fraction done/total to now/total of what gather_phase reads in this step:
    random rows of a data set larger than the caches."""
    cdef const Layer *layer = args.layers
    cdef long classes = args.layers[args.depth - 1].outputs
    cdef long rows = batch_size_at(args, step), items = rows * half_count(layer)
    cdef long item, half, s, block
    cdef long begin = chunk_start(items, thread, args.threads)
    cdef long count = chunk_start(items, thread + 1, args.threads) - begin, row
    cdef long end = begin + chunk_start(count, now, total)
    for item in range(begin + chunk_start(count, done, total), end):
        half = item // rows
        s = item - half * rows
        row = args.order[args.starts[step] + s]
        if args.soft == NULL:
            prefetch(args.targets + row, sizeof(int32_t))
        else:
            prefetch(args.soft + row * classes, classes * sizeof(real))
        prefetch(args.weights + row, sizeof(double))
        block = 2 * half
        while block < panel_count(layer.inputs):
            prefetch(
                element_at(&args.rows, row, block * PANEL),
                min(2 * PANEL, layer.inputs - block * PANEL) * args.rows.itemsize,
            )
            block += 2 * half_count(layer)


cdef inline bint split_by_rows(const TrainArgs *args) noexcept nogil:
    """Whether the forward phase is split by the same rows as the hidden phase, without a barrier
    between the two."""
    cdef const Layer *layer = args.layers
    return args.sparse != NULL or (half_count(layer) == 1 and panel_count(layer.outputs) <= 2)


cdef void forward_pair(
    TrainArgs *args, long step, long pair, long half, long first, long last
) noexcept nogil:
    """sum_rows of the first layer for a pair of panels."""
    cdef Layer *layer = args.layers
    cdef long panel = 2 * pair, width
    while panel < min(panel_count(layer.outputs), 2 * pair + 2):
        width = joint_width(layer.outputs, panel)
        sum_rows(
            layer, args.x[step & 1], args.x_mask[step & 1], args.capacity, panel, width, half,
            first, last, args.skip_zeros,
        )
        panel += 1 + width // (2 * PANEL)


cdef void forward_phase(TrainArgs *args, long step, long thread) noexcept nogil:
    cdef Layer *layer = args.layers
    cdef long rows = batch_size_at(args, step), groups = (rows + FORWARD_ROWS - 1) // FORWARD_ROWS
    cdef long halves = half_count(layer), pairs = (panel_count(layer.outputs) + 1) // 2
    cdef long items = pairs * halves * groups
    cdef long item = chunk_start(items, thread, args.threads)
    cdef long end = chunk_start(items, thread + 1, args.threads), stop, section
    cdef long first = chunk_start(rows, thread, args.threads)
    cdef long last = chunk_start(rows, thread + 1, args.threads)
    if args.sparse != NULL:
        sum_csr_rows(
            layer, &args.sparse.rows, &args.sparse.csc[thread].row,
            args.order + args.starts[step], args.capacity, first, last,
        )
        return
    if split_by_rows(args):
        forward_pair(args, step, 0, 0, first, last)
        return
    while item < end:
        section = item // groups  # items of the same pair of panels and half
        stop = min(end, (section + 1) * groups)
        forward_pair(
            args, step, section // halves, section % halves,
            (item - section * groups) * FORWARD_ROWS,
            min(rows, (stop - section * groups) * FORWARD_ROWS),
        )
        item = stop


cdef void hidden_phase(TrainArgs *args, long step, long thread) noexcept nogil:
    cdef long rows = batch_size_at(args, step), depth, s
    cdef long first = chunk_start(rows, thread, args.threads)
    cdef long last = chunk_start(rows, thread + 1, args.threads)
    cdef Layer *top = args.layers + args.depth - 1
    cdef const int32_t *targets = args.batch_targets[step & 1]
    cdef const double *weights = args.batch_weights[step & 1]
    cdef const dropout *drop = &args.drop if args.row_bits != NULL else NULL
    cdef real *loss = args.loss + (step & 1) * args.capacity
    cdef double total = 0
    if first == last:
        return
    if drop != NULL:
        draw_row_bits(args.order + args.starts[step], args.dropout_key, first, last, args.row_bits)
    finish_rows(args.layers, args.capacity, first, last, args.depth > 1, drop)
    for depth in range(1, args.depth):
        forward_rows(
            args.layers + depth, args.layers[depth - 1].a, args.layers[depth - 1].a_mask,
            args.capacity, first, last, args.layers[depth - 1].activation == RELU,
            depth < args.depth - 1, drop,
        )
    for s in range(rows):
        total += weights[s]
    for s in range(first, last):
        loss[s] = loss_row(
            top.a, top.grad_z, top.grad_mask, args.capacity, top.outputs, s, targets[s],
            args.batch_soft[step & 1], <real>(weights[s] / total) if total else 0,
            args.sigmoid, args.max_loss,
        )
    for depth in range(args.depth - 1, 0, -1):
        backward_rows(
            args.layers + depth, args.layers + depth - 1, args.capacity, first, last, drop
        )


cdef void update_tiles(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long rows, Tile at,
    long stop, long blocks, GradWorkspace *workspace, int optimizer,
    const step_hyperparams *hyperparams, real *squares
) noexcept nogil:
    """Weight gradient and optimizer step of groups at.group..stop-1, one block of inputs or two."""
    cdef long width = min(blocks * PANEL, padded_width(layer.inputs) - at.block * PANEL)
    cdef long group = at.group, panel, first, last, block
    while group < stop:
        panel = group // PANEL_GROUPS
        first = group - panel * PANEL_GROUPS
        last = min(PANEL_GROUPS, first + stop - group)
        weight_grad(
            layer, x, mask, capacity, rows, at.block, width, panel, first * GROUP,
            last * GROUP, workspace,
        )
        for first in range(first, last):
            for block in range(blocks):
                squares[block * at.groups + group - at.group] = update_tile(
                    layer, at.panel + panel, at.block + block, first,
                    workspace.grad_w + block * PANEL * PANEL, optimizer, hyperparams,
                )
            group += 1


cdef inline void update_biases(
    const TrainArgs *args, const Layer *layer, long first, long count, const real *grad,
    const step_hyperparams *bias_hyperparams
) noexcept nogil:
    """Optimizer step of `count` biases."""
    simd.update[args.optimizer](
        layer.b + first, layer.m_b + first, layer.v_b + first, grad, count, bias_hyperparams
    )


cdef inline long square_sum_count(const TrainArgs *args, long depth) noexcept nogil:
    """Number of partial sums of squared weights that the update of a layer returns."""
    if depth == 0 and args.sparse != NULL:
        return run_count(args.layers)
    return tile_count(args.layers + depth)


cdef void update_sparse_layer(
    TrainArgs *args, long rows, long thread, const step_hyperparams *hyperparams,
    const step_hyperparams *bias_hyperparams
) noexcept nogil:
    """A thread's tile of the update of the first layer over CSR rows."""
    cdef const Layer *layer = args.layers
    cdef long panels = panel_count(layer.outputs), panel, width, r = thread
    cdef long first = chunk_start(panels, thread, args.threads)
    cdef real[64] sums
    for panel in range(first, chunk_start(panels, thread + 1, args.threads)):
        width = panel_width(layer.outputs, panel)
        simd.column_sums(layer.grad_z + panel * args.capacity * PANEL, width, rows, sums, width)
        update_biases(args, layer, panel * PANEL, width, sums, bias_hyperparams)
    while r < run_count(layer):
        args.squares[r] = update_run(
            args.sparse, layer, args.capacity, r, thread, args.optimizer, hyperparams
        )
        r += args.threads


cdef void update_phase(
    TrainArgs *args, long step, long thread, const step_hyperparams *hyperparams
) noexcept nogil:
    cdef long rows = batch_size_at(args, step), depth, begin, end, tile, transposed_panel, blocks
    cdef long stop, done
    cdef Layer *layer
    cdef Tile at
    cdef const real *x
    cdef const uint64_t *mask
    cdef GradWorkspace *workspace = args.workspaces + thread
    cdef real *squares = args.squares
    cdef step_hyperparams bias_hyperparams = hyperparams[0]
    bias_hyperparams.l2 = 0
    bias_hyperparams.decay_factor = 1
    for depth in range(args.depth):
        if depth == 0 and args.sparse != NULL:
            update_sparse_layer(args, rows, thread, hyperparams, &bias_hyperparams)
            squares += square_sum_count(args, 0)
            continue
        layer = args.layers + depth
        x = args.layers[depth - 1].a if depth else args.x[step & 1]
        mask = args.layers[depth - 1].a_mask if depth else args.x_mask[step & 1]
        begin, end = layer.tile_bounds[thread], layer.tile_bounds[thread + 1]
        tile, transposed_panel = begin, -1
        while tile < end:
            at = find_tile(layer, tile)
            if transposed_panel != at.panel:
                transposed_panel = at.panel
                stop = at.group + end - tile  # at most the thread's last tile
                transpose_grad(
                    layer, args.capacity, rows, at.panel, at.group if stop <= at.groups else 0,
                    min(stop, at.groups), workspace,
                )
            blocks = 2 if at.joint and not at.group and tile + 2 * at.groups <= end else 1
            stop = min(at.groups, at.group + end - tile)
            update_tiles(
                layer, x, mask, args.capacity, rows, at, stop, blocks, workspace,
                args.optimizer, hyperparams, squares + tile,
            )
            if at.block == 0:
                update_biases(
                    args, layer, at.panel * PANEL + at.group * GROUP, (stop - at.group) * GROUP,
                    workspace.sums + at.group * GROUP, &bias_hyperparams,
                )
            done = tile
            tile += stop - at.group + (blocks - 1) * at.groups
            if depth == 0 and step + 1 < args.last:
                prefetch_rows(args, step + 1, thread, done - begin, tile - begin, end - begin)
        squares += tile_count(layer)


cdef void finish_loss(TrainArgs *args, long step) noexcept nogil:
    """Sum up the loss of a step, after its last barrier."""
    cdef long rows = batch_size_at(args, step), s, depth, n, count = 0
    cdef const double *weights = args.batch_weights[step & 1]
    cdef double total = 0, loss = 0, squares = 0
    for s in range(rows):
        total += weights[s]
        loss += weights[s] * args.loss[(step & 1) * args.capacity + s]
    for depth in range(args.depth):
        count += square_sum_count(args, depth)
    for n in range(count):
        squares += args.squares[n]
    args.losses[step - args.first] = (
        (loss / total if total else 0) + args.l2[step] / 2 * squares
    )


cdef step_hyperparams round_hyperparams(
    double step_size, double epsilon, double l2, double decay, double beta1, double beta2
) noexcept nogil:
    """Hyperparameters of a step, rounded to real."""
    cdef step_hyperparams out
    out.step_size, out.epsilon, out.l2 = <real>step_size, <real>epsilon, <real>l2
    out.decay_factor = <real>(1 - decay)
    out.beta1, out.one_minus_beta1 = <real>beta1, <real>(1 - beta1)
    out.beta2, out.one_minus_beta2 = <real>beta2, <real>(1 - beta2)
    return out


cdef inline void wait_at_barrier(TrainArgs *args, stopwatch *watch) noexcept nogil:
    barrier_wait(&args.barrier)
    stopwatch_lap(watch, BARRIER)


cdef void train_job(void *job_args, long thread) noexcept nogil:
    """Job of one thread of the team: all steps."""
    cdef TrainArgs *args = <TrainArgs *>job_args
    cdef unsigned before = flush_denormals()
    cdef long step
    cdef step_hyperparams hyperparams
    cdef double[<int>PHASES] seconds  # its own cache line until the end
    cdef stopwatch watch
    memset(seconds, 0, sizeof(seconds))
    stopwatch_start(&watch, seconds if args.seconds != NULL else NULL)
    gather_phase(args, args.first, thread)
    stopwatch_lap(&watch, GATHER)
    wait_at_barrier(args, &watch)
    for step in range(args.first, args.last):
        if thread == 0 and step > args.first:
            finish_loss(args, step - 1)
        forward_phase(args, step, thread)
        stopwatch_lap(&watch, FIRST_LAYER)
        if not split_by_rows(args):
            wait_at_barrier(args, &watch)
        hidden_phase(args, step, thread)
        stopwatch_lap(&watch, HIDDEN_BACKWARD)
        wait_at_barrier(args, &watch)
        hyperparams = round_hyperparams(
            args.step_size[step], args.epsilon[step], args.l2[step], args.decay[step], args.beta1,
            args.beta2,
        )
        update_phase(args, step, thread, &hyperparams)
        stopwatch_lap(&watch, UPDATE)
        if step + 1 < args.last:
            gather_phase(args, step + 1, thread)
            stopwatch_lap(&watch, GATHER)
        wait_at_barrier(args, &watch)
    if thread == 0:
        finish_loss(args, args.last - 1)
    if args.seconds != NULL:
        for step in range(PHASES):
            args.seconds[thread * PHASES + step] += seconds[step]
    restore_denormals(before)

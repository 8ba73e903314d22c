# Training steps on a team of threads: for operations.pxi.
#
# A step is three phases, and all threads meet after each; not after the first where it is cut into
# the same rows as the second.
#     forward   the first layer, cut into (two panels, half of the inputs, 8 rows)
#     middle    the other layers, the loss and the way back to the first layer, cut into rows
#     update    gradients and the rule for all layers, cut into (two panels, 64 inputs, 16 outputs);
#               the next batch
# Every number is computed by one part in one fixed order, whatever the number of threads, so that
# the bits do not depend on it. A thread takes neighbouring parts, the same in every step: what it
# updates is, where the first layer is cut by inputs, most of what it reads in the next step.

cdef enum Phase:  # the order of kernels.PHASES
    GATHER, FIRST_LAYER, MIDDLE, UPDATE, WAITING
    PHASES

cdef long FORWARD_ROWS = 8  # a part of the forward phase: 8 row groups x 2 halves feed 8 threads


cdef struct Plan:
    long depth, capacity, first, last, threads
    int rule
    bint independent        # the loss is sigmoid
    real max_loss
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
            plan.independent, plan.max_loss,
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


cdef inline void update_biases(
    const Plan *plan, const Layer *layer, long first, long count, const real *gradient,
    const step_numbers *bias_numbers
) noexcept nogil:
    """The rule on `count` biases."""
    run.update[plan.rule](
        layer.b + first, layer.m_b + first, layer.v_b + first, gradient, count, bias_numbers
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
    cdef long panels = panels_of(layer.outputs), panel, width, r = thread
    cdef real[64] sums
    for panel in range(
        share(panels, thread, plan.threads), share(panels, thread + 1, plan.threads)
    ):
        width = width_of(layer.outputs, panel)
        run.column_sums(layer.delta + panel * plan.capacity * PANEL, width, rows, sums, width)
        update_biases(plan, layer, panel * PANEL, width, sums, bias_numbers)
    while r < runs_of(layer):
        plan.squares[r] = update_run(
            plan.sparse, layer, plan.capacity, r, thread, plan.rule, numbers
        )
        r += plan.threads


cdef void update_phase(
    Plan *plan, long step, long thread, const step_numbers *numbers
) noexcept nogil:
    cdef long rows = rows_of(plan, step), depth, begin, end, part, turned_panel, blocks
    cdef long stop, done
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
                update_biases(
                    plan, layer, at.panel * PANEL + at.group * OUTPUTS,
                    (stop - at.group) * OUTPUTS, turned.sums + at.group * OUTPUTS, &bias_numbers,
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

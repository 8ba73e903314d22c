# Matrices in panels, and what a layer computes of rows of them: for operations.pxi.
#
# Zeros are skipped where there are many: in the first layer if the data has them (in prediction,
# always), and in outputs and deltas of ReLU, which makes them. Those of other activations have few:
# products are dense. Rows that come as entries alone have a first layer of their own: sparse.pxi.

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
    const real *w_read      # panel p is at w_read + p * panel_step, its rows are row_step() apart
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
    """The sums of rows first..last-1 over a half of the inputs, not activated: `width` outputs.

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
    """loss_and_grad for one row; share is its weight over the batch's. Fills the row's masks.

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
    real *sums         # of all deltas of each output of the two panels
    real *gradient     # (64 outputs, 64 inputs), of two blocks of inputs


cdef void turn_delta(const Layer *layer, long capacity, long rows, long panel, long first,
                     long last, Turned *turned) noexcept nogil:
    """Groups first..last-1 of a layer's deltas, turned and summed up, for its gradients.

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
        memset(turned.sums + n * PANEL + column, 0, count * sizeof(real))
        for tile in range(panels_of(rows)):
            s = tile * PANEL
            at = n * turned.rows + s
            run.turn(
                layer.delta + (panel + n) * capacity * PANEL + s * width + column, width,
                min(PANEL, rows - s), count, turned.delta + at * PANEL + column * PANEL,
                turned.mask + at + column, turned.sums + n * PANEL + column,
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

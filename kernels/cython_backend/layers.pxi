# Layers over packed matrices (panels, see simd/kernel_table.h): included by operations.pxi.
#
# Zeros are skipped where they are frequent: in the first layer's inputs if TrainData.skip_zeros
# (always in prediction), and in activations and gradients of ReLU. Other products are dense. The
# first layer of CSR input is in sparse.pxi.

cdef inline long panel_count(long columns) noexcept nogil:
    return (columns + PANEL - 1) // PANEL


cdef inline long panel_width(long columns, long panel) noexcept nogil:
    """Row length of a panel: 64, in the last panel the remaining columns rounded up to 16."""
    cdef long remaining = columns - panel * PANEL
    return PANEL if remaining >= PANEL else (remaining + 15) // 16 * 16


cdef inline long joint_width(long columns, long panel) noexcept nogil:
    """Columns per kernel call: 128 if this panel and the next are full, else this panel's."""
    return 2 * PANEL if columns > (panel + 2) * PANEL - GROUP else panel_width(columns, panel)


cdef inline long padded_width(long columns) noexcept nogil:
    cdef long last = panel_count(columns) - 1
    return last * PANEL + panel_width(columns, last)


cdef struct Layer:
    long inputs, outputs
    long first_unit         # index of its first output among the outputs of all hidden layers
    int activation          # of a hidden layer
    bint skip_zero_grads    # many elements of grad_z are zero
    const real *w_read      # forward weights: panel p is at w_read + p * panel_stride
    long panel_stride, row_stride  # row_stride 0: the panel's width
    const int64_t *input_indices  # 0..inputs-1, if w_read is the caller's array, without padding
    real *w                 # weights and moments in training, packed
    real *m
    real *v
    real *b
    real *m_b
    real *v_b
    real *transposed        # weights (outputs, inputs), packed; not in the first layer
    real *a                 # activations (rows, outputs), packed
    real *half_sums         # partial sums over the second half of the inputs, same shape; or null
    real *grad_z            # gradient with respect to the pre-activations z, same shape
    uint64_t *a_mask        # zero masks (panels, rows) of a
    uint64_t *grad_mask     # of grad_z
    long *tile_bounds       # (threads + 1,): first update tile of each thread, and the end


cdef inline long row_stride(const Layer *layer, long panel) noexcept nogil:
    return layer.row_stride if layer.row_stride else panel_width(layer.outputs, panel)


# The inputs of the first layer are split in two halves of alternating pairs of blocks, which have
# about as many nonzero pixels. With two threads each processes one half: the weights that a thread
# updates are those that it reads in the next step.

cdef inline long half_count(const Layer *layer) noexcept nogil:
    return 2 if layer.half_sums != NULL else 1


cdef inline long block_count(const Layer *layer, long half) noexcept nogil:
    """Number of blocks of 64 inputs in a half."""
    cdef long blocks = panel_count(layer.inputs), first = blocks // 4 * 2 + min(blocks % 4, 2)
    if layer.half_sums == NULL:
        return blocks
    return blocks - first if half else first


cdef inline long block_index(const Layer *layer, long half, long n) noexcept nogil:
    """Index of the n-th block of a half."""
    return 4 * (n // 2) + 2 * half + n % 2 if layer.half_sums != NULL else n


cdef void sum_rows(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long panel, long width,
    long half, long first, long last, bint skip_zeros
) noexcept nogil:
    """x @ w + b over a half of the inputs, for rows first..last-1 and `width` outputs.

    x, mask: packed inputs. Zeros are never skipped for 16 outputs or fewer: so few multiplications
    do not hide the cost of an unpredictable branch.
    """
    cdef long stride = row_stride(layer, panel), n, block, ldo = min(width, PANEL)
    cdef real *out = (layer.half_sums if half else layer.a) + panel * capacity * PANEL
    cdef panel_matrix w, init
    w.ld, w.panel_stride = stride, layer.panel_stride
    init.data, init.ld, init.panel_stride = ZEROS, 0, 0
    if half == 0:
        init.data, init.panel_stride = layer.b + panel * PANEL, PANEL
    for n in range(block_count(layer, half)):
        block = block_index(layer, half, n)
        w.data = layer.w_read + panel * layer.panel_stride + block * PANEL * stride
        if skip_zeros and width != GROUP:
            simd.masked_matmul(
                x + block * capacity * PANEL, panel_width(layer.inputs, block),
                mask + block * capacity, ALL, w, init, out, ldo, capacity * PANEL, first, last,
                width,
            )
        else:
            simd.matmul(
                x + block * capacity * PANEL, panel_width(layer.inputs, block),
                min(PANEL, layer.inputs - block * PANEL), w, init, out, ldo, capacity * PANEL,
                first, last, width,
            )
        init.data, init.ld, init.panel_stride = out, ldo, capacity * PANEL


cdef void finish_rows(
    const Layer *layer, long capacity, long first, long last, bint hidden, const dropout *drop
) noexcept nogil:
    """Activate rows first..last-1 of z in layer.a, and apply dropout unless drop is null."""
    cdef long panel, width
    cdef real *out
    for panel in range(panel_count(layer.outputs)):
        width = panel_width(layer.outputs, panel)
        out = layer.a + panel * capacity * PANEL
        if layer.half_sums != NULL:
            simd.add(
                out + first * width, layer.half_sums + panel * capacity * PANEL + first * width,
                (last - first) * width,
            )
        if hidden:
            simd.activate[layer.activation](
                out, width, layer.a_mask + panel * capacity, first, last,
                min(PANEL, layer.outputs - panel * PANEL),
            )
        if hidden and drop != NULL:
            simd.apply_dropout(
                out, width, layer.a_mask + panel * capacity, first, last, width, drop,
                <uint32_t>(layer.first_unit + panel * PANEL),
            )


cdef void draw_row_bits(
    const int32_t *rows, uint64_t key, long first, long last, uint64_t *out
) noexcept nogil:
    """Random bits of rows first..last-1 of a batch for dropout: see reference.random_bits."""
    cdef uint64_t bits
    cdef long s
    for s in range(first, last):
        bits = key + <uint64_t>rows[s] * <uint64_t>0x9E3779B97F4A7C15
        bits = (bits ^ (bits >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        bits = (bits ^ (bits >> 27)) * <uint64_t>0x94D049BB133111EB
        out[s] = bits ^ (bits >> 31)


cdef void sum_single_row(const Layer *layer, const real *x) noexcept nogil:
    """sum_rows for a batch of one row, whose panels are contiguous, with the caller's weights:
    packing them would take longer than reading them once."""
    cdef long panel
    for panel in range(panel_count(layer.outputs)):
        simd.csr_row_matmul(
            x, layer.input_indices, layer.inputs, layer.w_read + panel * PANEL, layer.outputs,
            layer.b + panel * PANEL, layer.a + panel * PANEL,
            min(PANEL, layer.outputs - panel * PANEL),
        )


cdef void forward_rows(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long first, long last,
    bint skip_zeros, bint hidden, const dropout *drop
) noexcept nogil:
    """Rows first..last-1 of a layer's outputs. x, mask: packed inputs."""
    cdef long panel = 0, width, half
    if layer.input_indices != NULL:
        sum_single_row(layer, x)
        panel = panel_count(layer.outputs)
    while panel < panel_count(layer.outputs):
        width = joint_width(layer.outputs, panel)
        for half in range(half_count(layer)):
            sum_rows(layer, x, mask, capacity, panel, width, half, first, last, skip_zeros)
        panel += 1 + width // (2 * PANEL)
    finish_rows(layer, capacity, first, last, hidden, drop)


cdef void backward_rows(
    const Layer *layer, Layer *below, long capacity, long first, long last, const dropout *drop
) noexcept nogil:
    """grad_z of the layer below, for rows first..last-1. drop: as in finish_rows."""
    cdef long panel = 0, block, width, rows_t = padded_width(layer.outputs), ldo
    cdef real *out
    cdef panel_matrix w, init
    w.panel_stride = rows_t * PANEL
    while panel < panel_count(layer.inputs):
        width = joint_width(layer.inputs, panel)
        ldo = w.ld = min(width, PANEL)
        out = below.grad_z + panel * capacity * PANEL
        init.data, init.ld, init.panel_stride = ZEROS, 0, 0
        for block in range(panel_count(layer.outputs)):
            w.data = layer.transposed + panel * rows_t * PANEL + block * PANEL * ldo
            if layer.skip_zero_grads:
                simd.masked_matmul(
                    layer.grad_z + block * capacity * PANEL, panel_width(layer.outputs, block),
                    layer.grad_mask + block * capacity, ALL, w, init, out, ldo,
                    capacity * PANEL, first, last, width,
                )
            else:
                simd.matmul(
                    layer.grad_z + block * capacity * PANEL, panel_width(layer.outputs, block),
                    min(PANEL, layer.outputs - block * PANEL), w, init, out, ldo,
                    capacity * PANEL, first, last, width,
                )
            init.data, init.ld, init.panel_stride = out, ldo, capacity * PANEL
        panel += 1 + width // (2 * PANEL)
    for panel in range(panel_count(layer.inputs)):
        width = panel_width(layer.inputs, panel)
        simd.activation_backward[below.activation](
            below.a + panel * capacity * PANEL, below.grad_z + panel * capacity * PANEL, width,
            below.grad_mask + panel * capacity, first, last, width, drop,
            <uint32_t>(below.first_unit + panel * PANEL),
        )


cdef real exp_logits(
    const real *z, real *out, long capacity, long classes, long s, real *total
) noexcept nogil:
    """e^(z - max z) of row s of the packed logits, and their sum. Returns max z."""
    cdef long panel, at
    cdef real max_z = -INFINITY
    total[0] = 0
    for panel in range(panel_count(classes)):
        at = panel * capacity * PANEL + s * panel_width(classes, panel)
        max_z = simd.row_max(z + at, max_z, min(PANEL, classes - panel * PANEL))
    for panel in range(panel_count(classes)):
        at = panel * capacity * PANEL + s * panel_width(classes, panel)
        total[0] += simd.exp_and_sum(z + at, max_z, out + at, min(PANEL, classes - panel * PANEL))
    return max_z


cdef real softmax_row(
    const real *z, real *out, long capacity, long classes, long s, long target, real row_weight
) noexcept nogil:
    """(softmax(z) - one_hot(target)) * row_weight of row s; target < 0: without the one-hot vector.

    Returns log sum_k e^z[k].
    """
    cdef long panel
    cdef real total, max_z = exp_logits(z, out, capacity, classes, s, &total)
    for panel in range(panel_count(classes)):
        simd.softmax_grad(
            out + panel * capacity * PANEL + s * panel_width(classes, panel), 1 / total,
            target - panel * PANEL, row_weight, panel_width(classes, panel),
        )
    return LOG(total) + max_z


cdef real loss_row(
    const real *z, real *grad_z, uint64_t *mask, long capacity, long classes, long s, long target,
    const real *soft, real row_weight, bint sigmoid, real max_loss
) noexcept nogil:
    """loss_and_grad for one row; row_weight is normalized by the batch's. Fills the row's masks.

    soft: packed target probabilities, null: the target is a class. sigmoid: the loss is sigmoid.
    """
    cdef long panel, at
    cdef real total, expected = 0, log_sum, loss
    for panel in range(panel_count(classes)):
        mask[panel * capacity + s] = ALL >> (PANEL - min(PANEL, classes - panel * PANEL))
    if sigmoid:
        total = 0
        for panel in range(panel_count(classes)):
            at = panel * capacity * PANEL + s * panel_width(classes, panel)
            total += simd.sigmoid_bce_grad(
                z + at, soft + at, row_weight, max_loss, grad_z + at,
                min(PANEL, classes - panel * PANEL),
            )
        return total
    if soft == NULL:
        log_sum = softmax_row(z, grad_z, capacity, classes, s, target, row_weight)
        panel = target // PANEL
        at = panel * capacity * PANEL + s * panel_width(classes, panel) + target % PANEL
        loss = log_sum - z[at]
        return max_loss if loss > max_loss else loss  # NaN stays
    log_sum = exp_logits(z, grad_z, capacity, classes, s, &total)
    log_sum += LOG(total)
    for panel in range(panel_count(classes)):
        at = panel * capacity * PANEL + s * panel_width(classes, panel)
        expected += simd.softmax_grad_soft(
            grad_z + at, 1 / total, soft + at, z + at, row_weight, panel_width(classes, panel)
        )
    return log_sum - expected


cdef inline void pack_row(
    const real *row, long columns, real *packed, long capacity, long s
) noexcept nogil:
    """Copy a row to row s of a packed matrix."""
    cdef long panel
    for panel in range(panel_count(columns)):
        memcpy(
            packed + panel * capacity * PANEL + s * panel_width(columns, panel),
            row + panel * PANEL, min(PANEL, columns - panel * PANEL) * sizeof(real),
        )


cdef struct GradWorkspace:  # of a thread, for the weight gradients of a pair of panels
    long rows          # capacity in rows, a multiple of 64
    long panel         # first panel of the pair
    real *grad_z       # grad_z transposed: (64 outputs, 64 rows) per block of rows and panel
    uint64_t *mask     # its zero masks, in the same order
    real *sums         # column sums of grad_z of both panels
    real *grad_w       # (64 outputs, 64 inputs) per block of inputs, of two blocks


cdef void transpose_grad(
    const Layer *layer, long capacity, long rows, long panel, long first, long last,
    GradWorkspace *workspace
) noexcept nogil:
    """Transpose and sum groups first..last-1 of the pair of panels of grad_z from `panel` on."""
    cdef long width, column, count, n, s, at, row_block
    workspace.panel = panel
    for n in range(2):
        column = max(0, first - n * PANEL_GROUPS) * GROUP
        count = min(PANEL_GROUPS, last - n * PANEL_GROUPS) * GROUP - column
        if count <= 0:
            continue
        width = panel_width(layer.outputs, panel + n)
        memset(workspace.sums + n * PANEL + column, 0, count * sizeof(real))
        for row_block in range(panel_count(rows)):
            s = row_block * PANEL
            at = n * workspace.rows + s
            simd.transpose(
                layer.grad_z + (panel + n) * capacity * PANEL + s * width + column, width,
                min(PANEL, rows - s), count, workspace.grad_z + at * PANEL + column * PANEL,
                workspace.mask + at + column, workspace.sums + n * PANEL + column,
            )


cdef inline uint64_t rows_with_any(
    const uint64_t *mask, const uint64_t *other, long rows
) noexcept nogil:
    """Bit set of up to 64 rows that have a nonzero element in one mask or the other."""
    cdef uint64_t found = 0
    cdef long s
    for s in range(rows):
        found |= <uint64_t>((mask[s] | other[s]) != 0) << s
    return found


cdef void weight_grad(
    const Layer *layer, const real *x, const uint64_t *mask, long capacity, long rows, long block,
    long width, long panel, long first, long last, GradWorkspace *workspace
) noexcept nogil:
    """x.T @ grad_z for `width` inputs (one block or two) and the outputs first..last-1 of a panel.

    panel: 0 or 1, of the pair in the workspace.
    """
    cdef long at = panel * workspace.rows, s, row_block
    # First output whose zeros are skipped; padding columns always are.
    cdef long skipping = first
    if not layer.skip_zero_grads:
        skipping = max(first, min(last, layer.outputs - (workspace.panel + panel) * PANEL))
    cdef const uint64_t *blocks = mask + block * capacity
    cdef const uint64_t *next_block = blocks + capacity * (width // (2 * PANEL))
    cdef panel_matrix x_rows, init
    x_rows.ld, x_rows.panel_stride = min(width, PANEL), capacity * PANEL
    init.data, init.ld, init.panel_stride = ZEROS, 0, 0
    for row_block in range(panel_count(rows)):
        s = row_block * PANEL
        x_rows.data = x + block * capacity * PANEL + s * x_rows.ld
        if first < skipping:
            simd.matmul(
                workspace.grad_z + (at + s) * PANEL, PANEL, min(PANEL, rows - s), x_rows, init,
                workspace.grad_w, PANEL, PANEL * PANEL, first, skipping, width,
            )
        if skipping < last:
            simd.masked_matmul(
                workspace.grad_z + (at + s) * PANEL, PANEL, workspace.mask + at + s,
                rows_with_any(blocks + s, next_block + s, min(PANEL, rows - s)), x_rows, init,
                workspace.grad_w, PANEL, PANEL * PANEL, skipping, last, width,
            )
        init.data, init.ld, init.panel_stride = workspace.grad_w, PANEL, PANEL * PANEL


cdef real update_tile(
    const Layer *layer, long panel, long block, long group, const real *grad_w, int optimizer,
    const step_hyperparams *hyperparams
) noexcept nogil:
    """Optimizer step of one tile: a block of 64 inputs by a group of 16 outputs.

    grad_w: of the whole panel. Returns the sum of the squares of the old w.
    """
    cdef long width = panel_width(layer.outputs, panel), width_x = panel_width(layer.inputs, block)
    cdef long base = block * PANEL, first = group * GROUP
    cdef real *w = layer.w + panel * layer.panel_stride + base * width + first
    cdef long offset = w - layer.w
    cdef real *transposed = NULL
    if layer.transposed != NULL:
        transposed = layer.transposed + (
            base * padded_width(layer.outputs) + (panel * PANEL + first) * width_x
        )
    return simd.update_transposed[optimizer](
        grad_w + first * PANEL, min(PANEL, layer.inputs - base), w, layer.m + offset,
        layer.v + offset, width, transposed, width_x, hyperparams,
    )


cdef struct DenseRows:
    const char *x       # rows of a data set, not necessarily aligned
    long inputs
    long itemsize
    int type


cdef inline const char *element_at(const DenseRows *rows, long row, long column) noexcept nogil:
    return rows.x + (row * rows.inputs + column) * rows.itemsize


cdef void gather_blocks(
    const DenseRows *rows, long row, real scale, long block, long count, real *out, uint64_t *mask,
    long capacity, long s
) noexcept nogil:
    """Scale and pack `count` blocks of 64 inputs of a row of the data set as row s of a batch."""
    simd.load_row[rows.type](
        element_at(rows, row, block * PANEL), scale,
        min(count * PANEL, rows.inputs - block * PANEL), out + block * capacity * PANEL,
        capacity * PANEL, mask + block * capacity, capacity, s,
    )

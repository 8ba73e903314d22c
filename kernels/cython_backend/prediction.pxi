# Probabilities of rows, block by block: for operations.pxi.

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
    networks = []  # they must live as long as the call
    for thread in range(threads):
        network = shared
        if thread:
            network = _Network(spec, shared.capacity)
            network.share_weights(shared)
        networks.append(network)
        _add_predictor(network, &asked, asked.predictors + thread)
    _run(predict_on, &asked, threads)

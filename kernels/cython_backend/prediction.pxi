# Prediction, block by block of 64 rows: included by operations.pxi.

cdef struct PredictWorkspace:  # of a thread
    Layer *layers
    long depth, capacity
    real *x
    uint64_t *mask
    SparseVector row      # buffer for one row of CSR input


cdef struct PredictArgs:
    DenseRows rows
    CsrRows *sparse       # CSR input; null: rows
    long longest          # maximum number of entries of a CSR row
    long count, blocks
    long blocks_per_claim
    long next_block       # first block that no thread has claimed
    real scale
    bint sigmoid          # the loss
    real *out
    PredictWorkspace *workspaces  # of each thread


cdef void predict_rows(
    const PredictArgs *args, PredictWorkspace *own, long first, long last, long end
) noexcept nogil:
    """Rows first..last-1, at most the capacity, through all layers; prefetches rows up to `end`."""
    cdef Layer *layers = own.layers
    cdef long depth = own.depth, capacity = own.capacity, classes = layers[depth - 1].outputs
    cdef long rows = last - first, s, d, panel, c, width, ahead = first + capacity
    cdef real *top = layers[depth - 1].a
    cdef CsrRows from_first
    for s in range(rows if args.sparse == NULL else 0):
        if ahead + s < end:
            prefetch(
                element_at(&args.rows, ahead + s, 0), args.rows.inputs * args.rows.itemsize
            )
        gather_blocks(
            &args.rows, first + s, args.scale, 0, panel_count(layers[0].inputs), own.x, own.mask,
            capacity, s,
        )
    if args.sparse != NULL:
        from_first = args.sparse[0]
        from_first.indptr += first
        sum_csr_rows(layers, &from_first, &own.row, NULL, capacity, 0, rows)
        finish_rows(layers, capacity, 0, rows, depth > 1, NULL)
    for d in range(0 if args.sparse == NULL else 1, depth):
        forward_rows(
            layers + d, layers[d - 1].a if d else own.x, layers[d - 1].a_mask if d else own.mask,
            capacity, 0, rows, d == 0 or layers[d].activation == RELU, d < depth - 1, NULL,
        )
    for panel in range(panel_count(classes) if args.sigmoid else 0):
        simd.activate[<int>LOGISTIC](
            top + panel * capacity * PANEL, panel_width(classes, panel),
            layers[depth - 1].a_mask + panel * capacity, 0, rows,
            min(PANEL, classes - panel * PANEL),
        )
    for s in range(rows):
        if not args.sigmoid:
            softmax_row(top, top, capacity, classes, s, -1, 1)
        for panel in range(panel_count(classes)):
            width = panel_width(classes, panel)
            for c in range(min(PANEL, classes - panel * PANEL)):
                args.out[(first + s) * classes + panel * PANEL + c] = (
                    top[panel * capacity * PANEL + s * width + c]
                )


cdef int _init_workspace(
    _Network network, const PredictArgs *args, PredictWorkspace *out
) except -1:
    cdef long inputs = 0 if network.sparse else network.layers.inputs
    out.layers, out.depth, out.capacity = network.layers, network.depth, network.capacity
    out.x = network.alloc_real(network.capacity * padded_width(inputs))
    out.mask = network.alloc_masks(network.capacity * panel_count(inputs))
    out.row = _alloc_sparse(network, args.longest)
    return 0


cdef void predict_job(void *job_args, long thread) noexcept nogil:
    """Job of one thread of the team: claims blocks until none is left, so that a thread that starts
    late does not delay the others."""
    cdef PredictArgs *args = <PredictArgs *>job_args
    cdef long first, last, block
    while True:
        first = claim_items(&args.next_block, args.blocks_per_claim)
        if first >= args.blocks:
            break
        last = min(first + args.blocks_per_claim, args.blocks)
        for block in range(first, last):
            predict_rows(
                args, args.workspaces + thread, block * PANEL,
                min(args.count, (block + 1) * PANEL), min(args.count, last * PANEL),
            )


def predict(params, x_ni, double scale, spec, long threads, out_nk):
    """Probabilities: see reference.predict. A row's result does not depend on the other rows."""
    cdef PredictArgs args
    cdef CsrRows sparse
    cdef long thread
    cdef _Network network
    args.count = x_ni.shape[0]
    if args.count == 0:
        return
    args.blocks, args.next_block = (args.count + PANEL - 1) // PANEL, 0
    cdef _Network shared = _Network(spec, min(args.count, PANEL))
    shared.read_params(params, pack=args.blocks > 2)
    args.sparse, args.longest = NULL, 0
    if shared.sparse:
        sparse = _csr_rows(shared, x_ni, scale)
        args.sparse, args.longest = &sparse, longest_row(&sparse, NULL, args.count)
    else:
        args.rows = _dense_rows(x_ni)
    args.scale, args.sigmoid = <real>scale, spec.loss == "sigmoid"
    args.out = <real *>_data_pointer(out_nk)
    threads = min(threads, args.blocks)
    args.blocks_per_claim = max(1, min(4, args.blocks // (4 * threads)))
    args.workspaces = <PredictWorkspace *>shared.alloc(threads * sizeof(PredictWorkspace))
    networks = []  # keeps the workspaces alive
    for thread in range(threads):
        network = shared
        if thread:
            network = _Network(spec, shared.capacity)
            network.borrow_params(shared)
        networks.append(network)
        _init_workspace(network, &args, args.workspaces + thread)
    _run_team(predict_job, &args, threads)

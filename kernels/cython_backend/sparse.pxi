# CSR input and the first layer over it: included by operations.pxi.
#
# The weights of an input are a row of the caller's matrix and are not packed. Each thread owns
# every n-th run of inputs, so that frequent inputs are spread over the threads, and only it updates
# their weights. A step updates all weights by moments and L2 penalty, with or without a gradient,
# in one pass over weights and moments, which may exceed every cache.

cdef class _Network  # network.pxi
cdef class _Training(_Network)

cdef enum: RUN = 16  # inputs; adjacent inputs without entries are updated in one call

cdef struct CsrRows:  # scipy.sparse.csr_array
    const int64_t *indptr
    const char *data
    long itemsize         # of data
    const char *indices
    bint int64_indices    # else int32
    double scale


cdef struct SparseVector:
    long count
    real *values
    int64_t *indices


cdef void load_csr_row(const CsrRows *rows, long row, SparseVector *out) noexcept nogil:
    """A row of the data set, scaled, then rounded to real."""
    cdef long first = rows.indptr[row], count = rows.indptr[row + 1] - first, e
    cdef const char *data = rows.data + first * rows.itemsize
    cdef const int32_t *indices32 = <const int32_t *>rows.indices + first
    cdef double scale = rows.scale
    cdef real *values = out.values
    cdef int64_t *indices = out.indices
    out.count = count
    if rows.int64_indices:
        memcpy(indices, <const int64_t *>rows.indices + first, count * sizeof(int64_t))
    else:
        for e in range(count):
            indices[e] = indices32[e]
    if rows.itemsize == 1:
        for e in range(count):
            values[e] = <real>((<const uint8_t *>data)[e] * scale)
    elif rows.itemsize == sizeof(float):
        for e in range(count):
            values[e] = <real>((<const float *>data)[e] * scale)
    else:
        for e in range(count):
            values[e] = <real>((<const double *>data)[e] * scale)


cdef void sum_csr_row(
    const Layer *layer, const SparseVector *row, long capacity, long s
) noexcept nogil:
    """x @ w + b for row s of a batch."""
    cdef long panel
    for panel in range(panel_count(layer.outputs)):
        simd.csr_row_matmul(
            row.values, row.indices, row.count, layer.w_read + panel * PANEL,
            layer.outputs, layer.b + panel * PANEL,
            layer.a + panel * capacity * PANEL + s * panel_width(layer.outputs, panel),
            min(PANEL, layer.outputs - panel * PANEL),
        )


cdef void sum_csr_rows(
    const Layer *layer, const CsrRows *rows, SparseVector *buffer, const int32_t *order,
    long capacity, long first, long last
) noexcept nogil:
    """x @ w + b for rows first..last-1 of a batch.

    order: their rows in the data set, null: the same; buffer: holds one row.
    """
    cdef long s
    for s in range(first, last):
        load_csr_row(rows, order[s] if order != NULL else s, buffer)
        sum_csr_row(layer, buffer, capacity, s)


# The columns of a batch that a thread owns, converted from CSR to CSC.

cdef struct CscBatch:
    SparseVector row   # buffer for a row of the data set
    SparseVector coo   # the thread's entries by row; indices: columns
    int32_t *coo_rows  # the row of the batch of each
    long columns       # number of nonempty columns
    int64_t *column    # their inputs
    int64_t *end       # of the entries of each column, which follow those of the column before
    SparseVector csc   # the entries by column; indices: rows of the batch
    real *grad_w       # weight gradient of one input


cdef struct SparseWorkspace:
    CsrRows rows
    long threads
    int32_t *slot   # of each input: its position in its owner's `column`, -1 if not in the batch
    CscBatch *csc   # of each thread


cdef void select_entries(
    const CsrRows *rows, const int32_t *order, long count, long thread, long threads, CscBatch *csc
) noexcept nogil:
    """Fill coo with a thread's entries of `count` rows of a batch; order as in sum_csr_rows."""
    cdef long s, e, n = 0
    cdef uint32_t team_size = <uint32_t>threads, own = <uint32_t>thread
    cdef SparseVector row = csc.row, coo = csc.coo
    cdef int32_t *coo_rows = csc.coo_rows
    for s in range(count):
        load_csr_row(rows, order[s] if order != NULL else s, &row)
        for e in range(row.count):  # branchless: the condition is unpredictable
            coo.values[n] = row.values[e]
            coo.indices[n] = row.indices[e]
            coo_rows[n] = <int32_t>s
            n += <uint32_t>(row.indices[e] // RUN) % team_size == own
    csc.coo.count = n


cdef void sort_by_column(CscBatch *csc, int32_t *slot) noexcept nogil:
    """Counting sort of coo by column into csc. slot: all -1 for the thread's inputs."""
    cdef long e, n, columns = 0, begin = 0
    cdef int64_t index
    cdef SparseVector coo = csc.coo, by_column = csc.csc
    cdef int64_t *column = csc.column
    cdef int64_t *end = csc.end
    for e in range(coo.count):
        index = coo.indices[e]
        if slot[index] < 0:
            slot[index] = <int32_t>columns
            column[columns], end[columns] = index, 0
            columns += 1
        end[slot[index]] += 1
    for n in range(columns):  # from counts to the first position of each column
        end[n], begin = begin, begin + end[n]
    for e in range(coo.count):
        n = slot[coo.indices[e]]
        by_column.values[end[n]] = coo.values[e]
        by_column.indices[end[n]] = csc.coo_rows[e]
        end[n] += 1
    csc.columns = columns


cdef void column_grad(const Layer *layer, long capacity, long n, CscBatch *csc) noexcept nogil:
    """Weight gradient of the input in the n-th column, into grad_w."""
    cdef long panel, width, begin = csc.end[n - 1] if n else 0
    for panel in range(panel_count(layer.outputs)):
        width = panel_width(layer.outputs, panel)
        simd.csr_row_matmul(
            csc.csc.values + begin, csc.csc.indices + begin, csc.end[n] - begin,
            layer.grad_z + panel * capacity * PANEL, width, ZEROS, csc.grad_w + panel * PANEL,
            width,
        )


cdef void convert_batch(
    SparseWorkspace *sparse, const int32_t *order, long rows, long thread
) noexcept nogil:
    """Convert a thread's columns of a batch to CSC, replacing the previous batch."""
    cdef CscBatch *csc = sparse.csc + thread
    cdef long n
    for n in range(csc.columns):
        sparse.slot[csc.column[n]] = -1
    select_entries(&sparse.rows, order, rows, thread, sparse.threads, csc)
    sort_by_column(csc, sparse.slot)


cdef inline long run_count(const Layer *layer) noexcept nogil:
    return (layer.inputs + RUN - 1) // RUN


cdef real update_run(
    SparseWorkspace *sparse, const Layer *layer, long capacity, long r, long thread, int optimizer,
    const step_hyperparams *hyperparams
) noexcept nogil:
    """Optimizer step of a run of inputs. Returns the sum of the squares of the old weights."""
    cdef CscBatch *csc = sparse.csc + thread
    cdef long column = r * RUN, last = min(column + RUN, layer.inputs), next, at
    cdef real squares = 0
    cdef const real *grad
    while column < last:
        next, grad, at = column + 1, NULL, column * layer.outputs
        if sparse.slot[column] >= 0:
            column_grad(layer, capacity, sparse.slot[column], csc)
            grad = csc.grad_w
        else:
            while next < last and sparse.slot[next] < 0:
                next += 1
        squares += simd.update[optimizer](
            layer.w + at, layer.m + at, layer.v + at, grad, (next - column) * layer.outputs,
            hyperparams,
        )
        column = next
    return squares


# Allocation and whole-batch operations.

cdef CsrRows _csr_rows(_Network network, x_ni, double scale) except *:
    """View of a scipy.sparse CSR array, valid as long as the network."""
    cdef CsrRows rows
    indptr = np.require(x_ni.indptr, np.int64, "CA")
    data, indices = np.require(x_ni.data, None, "CA"), np.require(x_ni.indices, None, "CA")
    network.referenced += [indptr, data, indices]
    rows.indptr = <const int64_t *>_data_pointer(indptr)
    rows.data, rows.itemsize = _data_pointer(data), data.itemsize
    rows.scale = scale
    rows.indices = _data_pointer(indices)
    rows.int64_indices = indices.itemsize == sizeof(int64_t)
    return rows


cdef long entry_count(
    const CsrRows *rows, const int32_t *order, long first, long last
) noexcept nogil:
    """Number of entries in rows first..last-1; order as in sum_csr_rows."""
    cdef long s, row, count = 0
    for s in range(first, last):
        row = order[s] if order != NULL else s
        count += rows.indptr[row + 1] - rows.indptr[row]
    return count


cdef long longest_row(const CsrRows *rows, const int32_t *order, long count) noexcept nogil:
    """Maximum number of entries of a row."""
    cdef long s, longest = 0
    for s in range(count):
        longest = max(longest, entry_count(rows, order, s, s + 1))
    return longest


cdef SparseVector _alloc_sparse(_Network network, long count) except *:
    cdef SparseVector out
    out.count = 0
    out.values = network.alloc_real(count)
    out.indices = <int64_t *>network.alloc(count * sizeof(int64_t))
    return out


cdef CscBatch _alloc_csc(_Network network, long longest, long entries) except *:
    """Workspace of one thread. longest: entries of a row; entries: of a batch."""
    cdef CscBatch csc
    cdef long columns = min(entries, network.layers.inputs)
    csc.columns = 0
    csc.row, csc.csc = _alloc_sparse(network, longest), _alloc_sparse(network, entries)
    csc.coo = _alloc_sparse(network, entries + 1)  # select_entries stores before it tests ownership
    csc.coo_rows = <int32_t *>network.alloc((entries + 1) * sizeof(int32_t))
    csc.column = <int64_t *>network.alloc(columns * sizeof(int64_t))
    csc.end = <int64_t *>network.alloc(columns * sizeof(int64_t))
    csc.grad_w = network.alloc_real(padded_width(network.layers.outputs))
    return csc


cdef int32_t *_alloc_slots(_Network network) except NULL:
    """A slot for every input, -1."""
    cdef int32_t *slot = <int32_t *>network.alloc(network.layers.inputs * sizeof(int32_t))
    memset(slot, 0xFF, network.layers.inputs * sizeof(int32_t))
    return slot


cdef SparseWorkspace *_alloc_sparse_workspace(_Training training, x_ni, double scale) except NULL:
    """Workspace for the steps of training.args."""
    cdef TrainArgs *args = &training.args
    cdef SparseWorkspace *sparse = <SparseWorkspace *>training.alloc(sizeof(SparseWorkspace))
    cdef long entries = 0, longest, start, step, thread
    sparse.rows, sparse.threads = _csr_rows(training, x_ni, scale), args.threads
    sparse.slot = _alloc_slots(training)
    for step in range(args.first, args.last):
        entries = max(entries, entry_count(
            &sparse.rows, args.order, args.starts[step], args.starts[step + 1]
        ))
    start = args.starts[args.first]
    longest = longest_row(&sparse.rows, args.order + start, args.starts[args.last] - start)
    sparse.csc = <CscBatch *>training.alloc(args.threads * sizeof(CscBatch))
    for thread in range(args.threads):
        sparse.csc[thread] = _alloc_csc(training, longest, entries)
    return sparse


cdef int _sum_sparse(_Network network, x_bi) except -1:
    """x @ w + b of the first layer."""
    cdef CsrRows rows = _csr_rows(network, x_bi, 1)
    cdef SparseVector row = _alloc_sparse(network, longest_row(&rows, NULL, network.capacity))
    sum_csr_rows(network.layers, &rows, &row, NULL, network.capacity, 0, network.capacity)
    return 0


cdef int _sparse_weight_grad(_Network network, x_bi, real[:, ::1] out_io) except -1:
    """Weight gradient of the first layer, given its grad_z."""
    cdef long rows = network.capacity, n
    cdef CsrRows sparse = _csr_rows(network, x_bi, 1)
    cdef CscBatch csc = _alloc_csc(
        network, longest_row(&sparse, NULL, rows), entry_count(&sparse, NULL, 0, rows)
    )
    select_entries(&sparse, NULL, rows, 0, 1, &csc)
    sort_by_column(&csc, _alloc_slots(network))
    out_io[:] = 0
    for n in range(csc.columns):
        column_grad(network.layers, rows, n, &csc)
        memcpy(&out_io[csc.column[n], 0], csc.grad_w, out_io.shape[1] * sizeof(real))
    return 0

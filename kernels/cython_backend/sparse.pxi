# Rows of which only the entries are stored (scipy.sparse's CSR), and the first layer over them, for
# operations.pxi.
#
# The weights of an input are a row of the matrix where the caller has it: nothing is copied into
# panels. A thread owns every n-th run of inputs, so that all have some of the frequent ones, and it
# alone changes their weights. Every step moves them all, by their moments and the penalty, whatever
# the batch has a gradient for: in one pass over weights and moments, which no cache may hold.

cdef class _Network  # network.pxi
cdef class _Training(_Network)

cdef enum: OWNED = 16  # inputs of a run: so many neighbours without an entry are moved at once

cdef struct SparseRows:
    const int64_t *start  # of each row's entries, and where the last one's end
    const char *values
    long size             # of a value, in bytes
    const char *columns
    bint wide             # columns are int64, else int32
    double scale


cdef struct Entries:
    long count
    real *values
    int64_t *at  # a column, or whatever is numbered


cdef void read_row(const SparseRows *rows, long row, Entries *out) noexcept nogil:
    """The entries of a row of the data set, scaled, then rounded."""
    cdef long first = rows.start[row], count = rows.start[row + 1] - first, e
    cdef const char *values = rows.values + first * rows.size
    cdef const int32_t *columns = <const int32_t *>rows.columns + first
    cdef double scale = rows.scale
    cdef real *to = out.values
    cdef int64_t *at = out.at
    out.count = count
    if rows.wide:
        memcpy(at, <const int64_t *>rows.columns + first, count * sizeof(int64_t))
    else:
        for e in range(count):
            at[e] = columns[e]
    if rows.size == 1:
        for e in range(count):
            to[e] = <real>((<const uint8_t *>values)[e] * scale)
    elif rows.size == sizeof(float):
        for e in range(count):
            to[e] = <real>((<const float *>values)[e] * scale)
    else:
        for e in range(count):
            to[e] = <real>((<const double *>values)[e] * scale)


cdef void sum_entries_of(
    const Layer *layer, const Entries *entries, long capacity, long s
) noexcept nogil:
    """The sums of row s of a batch, without the activation."""
    cdef long panel
    for panel in range(panels_of(layer.outputs)):
        run.sum_entries(
            entries.values, entries.at, entries.count, layer.w_read + panel * PANEL,
            layer.outputs, layer.b + panel * PANEL,
            layer.a + panel * capacity * PANEL + s * width_of(layer.outputs, panel),
            min(PANEL, layer.outputs - panel * PANEL),
        )


cdef void sum_entries_of_rows(
    const Layer *layer, const SparseRows *rows, Entries *room, const int32_t *order, long capacity,
    long first, long last
) noexcept nogil:
    """The sums of rows first..last-1 of a batch; order: which rows of the data set those are, null:
    the same ones."""
    cdef long s
    for s in range(first, last):
        read_row(rows, order[s] if order != NULL else s, room)
        sum_entries_of(layer, room, capacity, s)


# The entries of a batch, by columns.

cdef struct Bucket:
    Entries entries    # room for one row of the data set
    Entries found      # a thread's own, as they come, and
    int32_t *found_in  # in which row of the batch each is
    long columns       # how many of its inputs are in the batch
    int64_t *column
    int64_t *end       # of the entries of each, which begin where those before end
    Entries sorted     # by column, then by row of the batch, which at numbers
    real *gradient     # of the weights of one input


cdef struct Sparse:
    SparseRows rows
    long threads
    int32_t *slot    # of each input that is in the batch: which column of its owner's bucket; or -1
    Bucket *buckets  # one for every thread


cdef void find_entries(
    const SparseRows *rows, const int32_t *order, long count, long thread, long threads,
    Bucket *bucket
) noexcept nogil:
    """A thread's own of the entries of `count` rows; order as in sum_entries_of_rows."""
    cdef long s, e, n = 0
    cdef uint32_t team_size = <uint32_t>threads, me = <uint32_t>thread
    cdef Entries entries = bucket.entries, found = bucket.found
    cdef int32_t *found_in = bucket.found_in
    for s in range(count):
        read_row(rows, order[s] if order != NULL else s, &entries)
        for e in range(entries.count):  # without a branch that nobody can predict
            found.values[n] = entries.values[e]
            found.at[n] = entries.at[e]
            found_in[n] = <int32_t>s
            n += <uint32_t>(entries.at[e] // OWNED) % team_size == me
    bucket.found.count = n


cdef void sort_entries(Bucket *bucket, int32_t *slot) noexcept nogil:
    """The entries found, by column. slot: of each input; below 0 as yet."""
    cdef long e, n, columns = 0, begin = 0
    cdef int64_t at
    cdef Entries found = bucket.found, sorted = bucket.sorted
    cdef int64_t *column = bucket.column
    cdef int64_t *end = bucket.end
    for e in range(found.count):
        at = found.at[e]
        if slot[at] < 0:
            slot[at] = <int32_t>columns
            column[columns], end[columns] = at, 0
            columns += 1
        end[slot[at]] += 1
    for n in range(columns):  # from how many they are to where they begin
        end[n], begin = begin, begin + end[n]
    for e in range(found.count):
        n = slot[found.at[e]]
        sorted.values[end[n]] = found.values[e]
        sorted.at[end[n]] = bucket.found_in[e]
        end[n] += 1
    bucket.columns = columns


cdef void gradient_of_column(
    const Layer *layer, long capacity, long n, Bucket *bucket
) noexcept nogil:
    """The gradient of the weights of the bucket's n-th column, into its room for one."""
    cdef long panel, width, begin = bucket.end[n - 1] if n else 0
    for panel in range(panels_of(layer.outputs)):
        width = width_of(layer.outputs, panel)
        run.sum_entries(
            bucket.sorted.values + begin, bucket.sorted.at + begin, bucket.end[n] - begin,
            layer.delta + panel * capacity * PANEL, width, ZEROS, bucket.gradient + panel * PANEL,
            width,
        )


cdef void collect_entries(
    Sparse *sparse, const int32_t *order, long rows, long thread
) noexcept nogil:
    """A thread's own of the entries of a batch, in place of those of the batch before."""
    cdef Bucket *bucket = sparse.buckets + thread
    cdef long n
    for n in range(bucket.columns):
        sparse.slot[bucket.column[n]] = -1
    find_entries(&sparse.rows, order, rows, thread, sparse.threads, bucket)
    sort_entries(bucket, sparse.slot)


cdef inline long runs_of(const Layer *layer) noexcept nogil:
    return (layer.inputs + OWNED - 1) // OWNED


cdef real update_run(
    Sparse *sparse, const Layer *layer, long capacity, long r, long thread, int rule,
    const step_numbers *numbers
) noexcept nogil:
    """The rule on the weights of a run of inputs. Returns the sum of their squares before."""
    cdef Bucket *bucket = sparse.buckets + thread
    cdef long column = r * OWNED, last = min(column + OWNED, layer.inputs), next, at
    cdef real squares = 0
    cdef const real *gradient
    while column < last:
        next, gradient, at = column + 1, NULL, column * layer.outputs
        if sparse.slot[column] >= 0:
            gradient_of_column(layer, capacity, sparse.slot[column], bucket)
            gradient = bucket.gradient
        else:
            while next < last and sparse.slot[next] < 0:
                next += 1
        squares += run.update[rule](
            layer.w + at, layer.m + at, layer.v + at, gradient, (next - column) * layer.outputs,
            numbers,
        )
        column = next
    return squares


# What calls need to have at hand.

cdef SparseRows _sparse_rows(_Network network, x_ni, double scale) except *:
    """The rows of a scipy.sparse CSR array, which lives as long as the network."""
    cdef SparseRows rows
    start = np.require(x_ni.indptr, np.int64, "CA")
    values, columns = np.require(x_ni.data, None, "CA"), np.require(x_ni.indices, None, "CA")
    network.read_from += [start, values, columns]
    rows.start = <const int64_t *>_memory_of(start)
    rows.values, rows.size = _memory_of(values), values.itemsize
    rows.scale = scale
    rows.columns, rows.wide = _memory_of(columns), columns.itemsize == sizeof(int64_t)
    return rows


cdef long entries_of(
    const SparseRows *rows, const int32_t *order, long first, long last
) noexcept nogil:
    """How many entries rows first..last-1 have; order as in sum_entries_of_rows."""
    cdef long s, row, found = 0
    for s in range(first, last):
        row = order[s] if order != NULL else s
        found += rows.start[row + 1] - rows.start[row]
    return found


cdef long longest_row(const SparseRows *rows, const int32_t *order, long count) noexcept nogil:
    """The most entries that one of these rows has."""
    cdef long s, most = 0
    for s in range(count):
        most = max(most, entries_of(rows, order, s, s + 1))
    return most


cdef Entries _entries(_Network network, long count) except *:
    cdef Entries entries
    entries.count = 0
    entries.values = network.numbers(count)
    entries.at = <int64_t *>network.room(count * sizeof(int64_t))
    return entries


cdef Bucket _bucket(_Network network, long longest, long most) except *:
    """Room of one thread. most: entries of a batch; longest: of a row."""
    cdef Bucket bucket
    cdef long columns = min(most, network.layers.inputs)
    bucket.columns = 0
    bucket.entries, bucket.sorted = _entries(network, longest), _entries(network, most)
    bucket.found = _entries(network, most + 1)  # find_entries writes before it knows whose it is
    bucket.found_in = <int32_t *>network.room((most + 1) * sizeof(int32_t))
    bucket.column = <int64_t *>network.room(columns * sizeof(int64_t))
    bucket.end = <int64_t *>network.room(columns * sizeof(int64_t))
    bucket.gradient = network.numbers(padded(network.layers.outputs))
    return bucket


cdef int32_t *_slots(_Network network) except NULL:
    """A slot for every input, not taken."""
    cdef int32_t *slot = <int32_t *>network.room(network.layers.inputs * sizeof(int32_t))
    memset(slot, 0xFF, network.layers.inputs * sizeof(int32_t))
    return slot


cdef Sparse *_sparse(_Training training, x_ni, double scale) except NULL:
    """What the plan of a training needs, which is made otherwise."""
    cdef Plan *plan = &training.plan
    cdef Sparse *sparse = <Sparse *>training.room(sizeof(Sparse))
    cdef long most = 0, longest, start, step, thread
    sparse.rows, sparse.threads = _sparse_rows(training, x_ni, scale), plan.threads
    sparse.slot = _slots(training)
    for step in range(plan.first, plan.last):
        most = max(most, entries_of(
            &sparse.rows, plan.order, plan.starts[step], plan.starts[step + 1]
        ))
    start = plan.starts[plan.first]
    longest = longest_row(&sparse.rows, plan.order + start, plan.starts[plan.last] - start)
    sparse.buckets = <Bucket *>training.room(plan.threads * sizeof(Bucket))
    for thread in range(plan.threads):
        sparse.buckets[thread] = _bucket(training, longest, most)
    return sparse


cdef int _forward_entries(_Network network, x_bi) except -1:
    """The first layer's sums."""
    cdef SparseRows rows = _sparse_rows(network, x_bi, 1)
    cdef Entries entries = _entries(network, longest_row(&rows, NULL, network.capacity))
    sum_entries_of_rows(
        network.layers, &rows, &entries, NULL, network.capacity, 0, network.capacity
    )
    return 0


cdef int _gradient_of_entries(_Network network, x_bi, real[:, ::1] out_io) except -1:
    """The gradient of the first layer's weights, whose deltas are there."""
    cdef long rows = network.capacity, n
    cdef SparseRows sparse = _sparse_rows(network, x_bi, 1)
    cdef Bucket bucket = _bucket(
        network, longest_row(&sparse, NULL, rows), entries_of(&sparse, NULL, 0, rows)
    )
    find_entries(&sparse, NULL, rows, 0, 1, &bucket)
    sort_entries(&bucket, _slots(network))
    out_io[:] = 0
    for n in range(bucket.columns):
        gradient_of_column(network.layers, rows, n, &bucket)
        memcpy(&out_io[bucket.column[n], 0], bucket.gradient, out_io.shape[1] * sizeof(real))
    return 0

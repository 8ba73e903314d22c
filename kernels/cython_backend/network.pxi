# A network's layers and the arrays that they point into, from and to the caller's: for
# operations.pxi.

cdef const char *_memory_of(array) except? NULL:
    """Where an array's numbers are; it must live on.

    By way of the plain buffer, since a typed view would cost as much as predicting a row.
    """
    cdef Py_buffer memory
    PyObject_GetBuffer(array, &memory, PyBUF_SIMPLE)
    cdef const char *numbers = <const char *>memory.buf
    PyBuffer_Release(&memory)
    return numbers


cdef int _spread(matrix, real *flat, long capacity) except -1:
    """Copy rows into panels of a network with that capacity."""
    cdef const real *numbers = <const real *>_memory_of(matrix)
    cdef long rows = matrix.shape[0], columns = matrix.shape[1], s
    for s in range(rows):
        spread_row(numbers + s * columns, columns, flat, capacity, s)
    return 0


cdef void _collect(const real *flat, real[:, ::1] matrix, long capacity) noexcept:
    """Copy panels of a network with that capacity into rows."""
    cdef long columns = matrix.shape[1], s, panel, width, count
    for panel in range(panels_of(columns)):
        width, count = width_of(columns, panel), min(PANEL, columns - panel * PANEL)
        for s in range(matrix.shape[0]):
            memcpy(
                &matrix[s, panel * PANEL], flat + panel * capacity * PANEL + s * width,
                count * sizeof(real),
            )


cdef class _Network:
    """Layers with room for `capacity` rows, and the arrays that they point into."""

    cdef Layer *layers
    cdef long depth, capacity, pieces
    cdef bint sparse     # rows come as csr: the first layer's weights are not copied into panels
    cdef dropout drop    # without the rows
    cdef void **memory
    cdef list read_from  # keeps the arrays alive that layers point into

    def __cinit__(self, spec, long capacity):
        self.depth, self.capacity, self.read_from = len(spec.sizes) - 1, capacity, []
        self.sparse = spec.input_format == "csr"
        self.layers = <Layer *>calloc(self.depth, sizeof(Layer))
        if self.layers == NULL:
            raise MemoryError
        self.drop.least = <uint32_t>(<double>spec.dropout * 4294967296.0)  # 2^32
        self.drop.scale = <real>(1 / (1 - <double>spec.dropout))
        self.drop.stays = <real>(1 - <double>spec.dropout)
        cdef Layer *layer
        cdef long d, first_unit = 0
        for d in range(self.depth):
            layer = self.layers + d
            layer.inputs, layer.outputs = spec.sizes[d], spec.sizes[d + 1]
            layer.first_unit = first_unit
            first_unit += layer.outputs
            layer.activation = _ACTIVATION[spec.activation]
            layer.dense_delta = layer.activation != RELU
            layer.a = self.numbers(capacity * padded(layer.outputs))
            layer.a_mask = self.bits(capacity * panels_of(layer.outputs))
        layer = self.layers
        if panels_of(layer.inputs) > 2 and not self.sparse:
            layer.half = self.numbers(capacity * padded(layer.outputs))

    def __dealloc__(self):
        cdef long piece
        for piece in range(self.pieces):
            free(self.memory[piece])
        free(self.memory)
        free(self.layers)

    cdef void *room(self, size_t size) except NULL:
        """Zeroed memory that begins at a cache line and lives as long as this object."""
        cdef void *piece
        cdef void **longer = <void **>realloc(self.memory, (self.pieces + 1) * sizeof(void *))
        if longer == NULL:
            raise MemoryError
        self.memory = longer
        if posix_memalign(&piece, 64, size or 1) != 0:
            raise MemoryError
        memset(piece, 0, size)
        self.memory[self.pieces] = piece
        self.pieces += 1
        return piece

    cdef real *numbers(self, long count) except NULL:
        return <real *>self.room(count * sizeof(real))

    cdef uint64_t *bits(self, long count) except NULL:
        return <uint64_t *>self.room(count * sizeof(uint64_t))

    cdef int64_t *numbers_up_to(self, long end) except NULL:
        """0, 1, 2, ..., end - 1."""
        cdef int64_t *room = <int64_t *>self.room(end * sizeof(int64_t))
        cdef long n
        for n in range(end):
            room[n] = n
        return room

    cdef Turned turned(self) except *:
        """Room of one thread for the deltas of a panel."""
        cdef Turned turned
        cdef long rows = (self.capacity + PANEL - 1) // PANEL * PANEL
        turned.rows = rows
        turned.delta = self.numbers(2 * rows * PANEL)
        turned.mask = self.bits(2 * rows)
        turned.sums = self.numbers(2 * PANEL)
        turned.gradient = self.numbers(2 * PANEL * PANEL)
        return turned

    cdef real *panels(self, matrix) except NULL:
        """A copy of a matrix in panels."""
        cdef real *room = self.numbers(matrix.shape[0] * padded(matrix.shape[1]))
        _spread(matrix, room, matrix.shape[0])
        return room

    cdef real *in_place(self, real[:, ::1] matrix) except NULL:
        """A matrix where the caller has it."""
        self.read_from.append(matrix)
        return &matrix[0, 0]

    cdef real *vector(self, row) except NULL:
        """A copy of a vector, zeros up to the padded width."""
        cdef long columns = row.shape[0]
        cdef real *room = self.numbers(padded(columns))
        memcpy(room, _memory_of(row), columns * sizeof(real))
        return room

    cdef int read(self, params, bint copy=False) except -1:
        """Use these parameters for the forward pass: as they are where rows are whole vectors, or
        for a batch of one row, unless `copy` asks for panels, which pay from about two batches on.
        The first layer of sparse rows is always read where it is."""
        cdef Layer *layer
        cdef long depth
        cdef bint alone
        for depth, (w_io, b_o) in enumerate(zip(*params)):
            layer = self.layers + depth
            alone = self.capacity == 1 and layer.half == NULL  # its sums are not in two halves
            if (depth == 0 and self.sparse) or ((layer.outputs % 16 == 0 or alone) and not copy):
                self.read_from.append(w_io)
                layer.w_read = <const real *>_memory_of(w_io)
                layer.panel_step, layer.row_step = PANEL, layer.outputs
                if layer.outputs % 16 and not (depth == 0 and self.sparse):
                    layer.every = self.numbers_up_to(layer.inputs)
            else:
                layer.w_read = self.panels(w_io)
                layer.panel_step, layer.row_step = layer.inputs * PANEL, 0
            layer.b = self.vector(b_o)
        return 0

    cdef int share_weights(self, _Network other) except -1:
        """Use what another network, which must live on, uses for the forward pass."""
        cdef long depth
        for depth in range(self.depth):
            self.layers[depth].w_read = other.layers[depth].w_read
            self.layers[depth].panel_step = other.layers[depth].panel_step
            self.layers[depth].row_step = other.layers[depth].row_step
            self.layers[depth].every = other.layers[depth].every
            self.layers[depth].b = other.layers[depth].b
        return 0

    cdef const dropout *drop_rows(self, drop, spec) except? NULL:
        """Dropout in a batch; null where nothing is left out."""
        if drop is None or not spec.dropout:
            return NULL
        cdef const int32_t[::1] rows_b = drop.rows_b
        cdef uint64_t *bits = self.bits(rows_b.shape[0])
        draw_rows(&rows_b[0], drop.key, 0, rows_b.shape[0], bits)
        self.drop.row = bits
        return &self.drop

    cdef int add_deltas(self) except -1:
        cdef Layer *layer
        cdef long depth
        for depth in range(self.depth):
            layer = self.layers + depth
            layer.delta = self.numbers(self.capacity * padded(layer.outputs))
            layer.delta_mask = self.bits(self.capacity * panels_of(layer.outputs))
        return 0

    cdef int add_transposed(self, params) except -1:
        """The weights of all layers but the first, turned, for the way back."""
        cdef long depth
        for depth in range(1, self.depth):
            w_io = params.weights[depth]
            turned = np.zeros((padded(w_io.shape[1]), w_io.shape[0]), DTYPE)
            turned[: w_io.shape[1]] = w_io.T
            self.layers[depth].transposed = self.panels(turned)
        return 0


cdef class _Training(_Network):
    """The whole state in panels, for a range of steps."""

    cdef Plan plan

    cdef int load(self, state) except -1:
        """Only Adam has a v: nothing reads it with the other rules, and m is there in its place."""
        cdef Layer *layer
        cdef long depth
        cdef bint adam = self.plan.rule == ADAM
        self.add_deltas()
        self.add_transposed(state.params)
        for depth in range(self.depth):
            layer = self.layers + depth
            if depth == 0 and self.sparse:
                layer.w = self.in_place(state.params.weights[0])
                layer.m = self.in_place(state.m.weights[0])
                layer.v = self.in_place(state.v.weights[0])
            else:
                layer.w = self.panels(state.params.weights[depth])
                layer.m = self.panels(state.m.weights[depth])
                layer.v = self.panels(state.v.weights[depth]) if adam else layer.m
            layer.b = self.vector(state.params.biases[depth])
            layer.m_b = self.vector(state.m.biases[depth])
            layer.v_b = self.vector(state.v.biases[depth]) if adam else layer.m_b
            layer.w_read, layer.panel_step = layer.w, layer.inputs * PANEL
        return 0

    cdef int store(self, state) except -1:
        """Write the state back to the caller's arrays."""
        cdef Layer *layer
        cdef long depth
        cdef bint in_panels
        for depth in range(self.depth):
            layer = self.layers + depth
            in_panels = depth > 0 or not self.sparse
            if in_panels:
                _collect(layer.w, state.params.weights[depth], layer.inputs)
                _collect(layer.m, state.m.weights[depth], layer.inputs)
            _collect(layer.b, state.params.biases[depth][None], 1)
            _collect(layer.m_b, state.m.biases[depth][None], 1)
            if self.plan.rule == ADAM:
                if in_panels:
                    _collect(layer.v, state.v.weights[depth], layer.inputs)
                _collect(layer.v_b, state.v.biases[depth][None], 1)
        return 0


cdef Rows _rows(x_ni) except *:
    """Rows of a data set as the kernels read them; x_ni must live on."""
    cdef Rows rows
    rows.x = _memory_of(x_ni)
    rows.inputs, rows.size = x_ni.shape[1], x_ni.itemsize
    rows.type = BYTES if rows.size == 1 else FLOATS if rows.size == sizeof(float) else DOUBLES
    return rows


cdef int _run(
    void (*job)(void *plan, long thread) noexcept nogil, void *plan, long threads
) except -1:
    """A team of threads does the job. Raises: RuntimeError if they cannot be started."""
    cdef int error
    with nogil:
        error = team_run(job, plan, threads)
    if error:
        raise RuntimeError(f"{threads} threads cannot be started: {os.strerror(error)}")
    return 0

# Layers and their buffers, and conversion from and to the caller's arrays: included by
# operations.pxi.

cdef const char *_data_pointer(array) except? NULL:
    """Address of an array's data, valid as long as the array.

    Uses the buffer protocol directly: a typed memoryview would cost as much as predicting a row.
    """
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, PyBUF_SIMPLE)
    cdef const char *data = <const char *>buffer.buf
    PyBuffer_Release(&buffer)
    return data


cdef int _pack(matrix, real *packed, long capacity) except -1:
    """Copy a matrix into panels of `capacity` rows."""
    cdef const real *data = <const real *>_data_pointer(matrix)
    cdef long rows = matrix.shape[0], columns = matrix.shape[1], s
    for s in range(rows):
        pack_row(data + s * columns, columns, packed, capacity, s)
    return 0


cdef void _unpack(const real *packed, real[:, ::1] matrix, long capacity) noexcept:
    """Copy panels of `capacity` rows into a matrix."""
    cdef long columns = matrix.shape[1], s, panel, width, count
    for panel in range(panel_count(columns)):
        width, count = panel_width(columns, panel), min(PANEL, columns - panel * PANEL)
        for s in range(matrix.shape[0]):
            memcpy(
                &matrix[s, panel * PANEL], packed + panel * capacity * PANEL + s * width,
                count * sizeof(real),
            )


cdef class _Network:
    """Layers for batches of up to `capacity` rows; owns their buffers."""

    cdef Layer *layers
    cdef long depth, capacity, allocations
    cdef bint sparse       # CSR input: the first layer's weights are not packed
    cdef dropout drop      # without row_bits
    cdef void **memory
    cdef list referenced   # arrays that layers point into

    def __cinit__(self, spec, long capacity):
        self.depth, self.capacity, self.referenced = len(spec.sizes) - 1, capacity, []
        self.sparse = spec.input_format == "csr"
        self.layers = <Layer *>calloc(self.depth, sizeof(Layer))
        if self.layers == NULL:
            raise MemoryError
        self.drop.threshold = <uint32_t>(<double>spec.dropout * 4294967296.0)  # 2^32
        self.drop.inv_keep_prob = <real>(1 / (1 - <double>spec.dropout))
        self.drop.keep_prob = <real>(1 - <double>spec.dropout)
        cdef Layer *layer
        cdef long d, first_unit = 0
        for d in range(self.depth):
            layer = self.layers + d
            layer.inputs, layer.outputs = spec.sizes[d], spec.sizes[d + 1]
            layer.first_unit = first_unit
            first_unit += layer.outputs
            layer.activation = _ACTIVATION[spec.activation]
            layer.skip_zero_grads = layer.activation == RELU
            layer.a = self.alloc_real(capacity * padded_width(layer.outputs))
            layer.a_mask = self.alloc_masks(capacity * panel_count(layer.outputs))
        layer = self.layers
        if panel_count(layer.inputs) > 2 and not self.sparse:
            layer.half_sums = self.alloc_real(capacity * padded_width(layer.outputs))

    def __dealloc__(self):
        cdef long n
        for n in range(self.allocations):
            free(self.memory[n])
        free(self.memory)
        free(self.layers)

    cdef void *alloc(self, size_t size) except NULL:
        """Zeroed memory, aligned to a cache line, that lives as long as this object."""
        cdef void *new
        cdef void **longer = <void **>realloc(self.memory, (self.allocations + 1) * sizeof(void *))
        if longer == NULL:
            raise MemoryError
        self.memory = longer
        if posix_memalign(&new, 64, size or 1) != 0:
            raise MemoryError
        memset(new, 0, size)
        self.memory[self.allocations] = new
        self.allocations += 1
        return new

    cdef real *alloc_real(self, long count) except NULL:
        return <real *>self.alloc(count * sizeof(real))

    cdef uint64_t *alloc_masks(self, long count) except NULL:
        return <uint64_t *>self.alloc(count * sizeof(uint64_t))

    cdef int64_t *alloc_arange(self, long end) except NULL:
        """0, 1, 2, ..., end - 1."""
        cdef int64_t *out = <int64_t *>self.alloc(end * sizeof(int64_t))
        cdef long n
        for n in range(end):
            out[n] = n
        return out

    cdef GradWorkspace alloc_workspace(self) except *:
        cdef GradWorkspace workspace
        cdef long rows = (self.capacity + PANEL - 1) // PANEL * PANEL
        workspace.rows = rows
        workspace.grad_z = self.alloc_real(2 * rows * PANEL)
        workspace.mask = self.alloc_masks(2 * rows)
        workspace.sums = self.alloc_real(2 * PANEL)
        workspace.grad_w = self.alloc_real(2 * PANEL * PANEL)
        return workspace

    cdef real *packed(self, matrix) except NULL:
        """A packed copy of a matrix."""
        cdef real *out = self.alloc_real(matrix.shape[0] * padded_width(matrix.shape[1]))
        _pack(matrix, out, matrix.shape[0])
        return out

    cdef real *reference(self, real[:, ::1] matrix) except NULL:
        """The caller's matrix itself."""
        self.referenced.append(matrix)
        return &matrix[0, 0]

    cdef real *padded(self, row) except NULL:
        """A copy of a vector, zero up to the padded width."""
        cdef long columns = row.shape[0]
        cdef real *out = self.alloc_real(padded_width(columns))
        memcpy(out, _data_pointer(row), columns * sizeof(real))
        return out

    cdef int read_params(self, params, bint pack=False) except -1:
        """Use these parameters for the forward pass. Weights are not packed in the first layer of
        CSR input and, unless `pack`, where rows are whole vectors or for a batch of one row.
        Packing pays from about two batches on."""
        cdef Layer *layer
        cdef long depth
        cdef bint single
        for depth, (w_io, b_o) in enumerate(zip(*params)):
            layer = self.layers + depth
            single = self.capacity == 1 and layer.half_sums == NULL
            if (depth == 0 and self.sparse) or ((layer.outputs % 16 == 0 or single) and not pack):
                self.referenced.append(w_io)
                layer.w_read = <const real *>_data_pointer(w_io)
                layer.panel_stride, layer.row_stride = PANEL, layer.outputs
                if layer.outputs % 16 and not (depth == 0 and self.sparse):
                    layer.input_indices = self.alloc_arange(layer.inputs)
            else:
                layer.w_read = self.packed(w_io)
                layer.panel_stride, layer.row_stride = layer.inputs * PANEL, 0
            layer.b = self.padded(b_o)
        return 0

    cdef int borrow_params(self, _Network other) except -1:
        """Use the forward parameters of another network, which must outlive this one."""
        cdef long depth
        for depth in range(self.depth):
            self.layers[depth].w_read = other.layers[depth].w_read
            self.layers[depth].panel_stride = other.layers[depth].panel_stride
            self.layers[depth].row_stride = other.layers[depth].row_stride
            self.layers[depth].input_indices = other.layers[depth].input_indices
            self.layers[depth].b = other.layers[depth].b
        return 0

    cdef const dropout *batch_dropout(self, dropout_state, spec) except? NULL:
        """Dropout of a batch; null: none."""
        if dropout_state is None or not spec.dropout:
            return NULL
        cdef const int32_t[::1] rows_b = dropout_state.rows_b
        cdef uint64_t *row_bits = self.alloc_masks(rows_b.shape[0])
        draw_row_bits(&rows_b[0], dropout_state.key, 0, rows_b.shape[0], row_bits)
        self.drop.row_bits = row_bits
        return &self.drop

    cdef int alloc_grads(self) except -1:
        cdef Layer *layer
        cdef long depth
        for depth in range(self.depth):
            layer = self.layers + depth
            layer.grad_z = self.alloc_real(self.capacity * padded_width(layer.outputs))
            layer.grad_mask = self.alloc_masks(self.capacity * panel_count(layer.outputs))
        return 0

    cdef int pack_transposed(self, params) except -1:
        """Transpose the weights of all layers but the first for the backward pass."""
        cdef long depth
        for depth in range(1, self.depth):
            w_io = params.weights[depth]
            transposed = np.zeros((padded_width(w_io.shape[1]), w_io.shape[0]), DTYPE)
            transposed[: w_io.shape[1]] = w_io.T
            self.layers[depth].transposed = self.packed(transposed)
        return 0


cdef class _Training(_Network):
    """A network with the packed training state, for a range of steps."""

    cdef TrainArgs args

    cdef int load(self, state) except -1:
        """Pack the state. Only Adam has v; with other optimizers v points to m and is not read."""
        cdef Layer *layer
        cdef long depth
        cdef bint adam = self.args.optimizer == ADAM
        self.alloc_grads()
        self.pack_transposed(state.params)
        for depth in range(self.depth):
            layer = self.layers + depth
            if depth == 0 and self.sparse:
                layer.w = self.reference(state.params.weights[0])
                layer.m = self.reference(state.m.weights[0])
                layer.v = self.reference(state.v.weights[0])
            else:
                layer.w = self.packed(state.params.weights[depth])
                layer.m = self.packed(state.m.weights[depth])
                layer.v = self.packed(state.v.weights[depth]) if adam else layer.m
            layer.b = self.padded(state.params.biases[depth])
            layer.m_b = self.padded(state.m.biases[depth])
            layer.v_b = self.padded(state.v.biases[depth]) if adam else layer.m_b
            layer.w_read, layer.panel_stride = layer.w, layer.inputs * PANEL
        return 0

    cdef int store(self, state) except -1:
        """Copy the state back to the caller's arrays."""
        cdef Layer *layer
        cdef long depth
        cdef bint packed
        for depth in range(self.depth):
            layer = self.layers + depth
            packed = depth > 0 or not self.sparse
            if packed:
                _unpack(layer.w, state.params.weights[depth], layer.inputs)
                _unpack(layer.m, state.m.weights[depth], layer.inputs)
            _unpack(layer.b, state.params.biases[depth][None], 1)
            _unpack(layer.m_b, state.m.biases[depth][None], 1)
            if self.args.optimizer == ADAM:
                if packed:
                    _unpack(layer.v, state.v.weights[depth], layer.inputs)
                _unpack(layer.v_b, state.v.biases[depth][None], 1)
        return 0


cdef DenseRows _dense_rows(x_ni) except *:
    """View of a data set's rows, valid as long as x_ni."""
    cdef DenseRows rows
    rows.x = _data_pointer(x_ni)
    rows.inputs, rows.itemsize = x_ni.shape[1], x_ni.itemsize
    rows.type = ROW_U8 if rows.itemsize == 1 else ROW_F32 if rows.itemsize == 4 else ROW_F64
    return rows


cdef int _run_team(
    void (*job)(void *args, long thread) noexcept nogil, void *args, long threads
) except -1:
    """Run the job on a team of threads. Raises: RuntimeError if they cannot be started."""
    cdef int error
    with nogil:
        error = team_run(job, args, threads)
    if error:
        raise RuntimeError(f"{threads} threads cannot be started: {os.strerror(error)}")
    return 0

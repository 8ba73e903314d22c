"""Memory of a call: matrices in rows of blocks, and the arguments of `run_steps`."""

import numpy as np

from ..interface import PHASES, SUPPORTS
from ..thread_team import have_cores, run_team
from .compilation import compiled_for
from .layers import BLOCK
from .training import ABORTED, LAYER, MAX_SPINS, Call, Network, Rows, run_steps

CACHE_LINE = 64  # bytes


def readonly(array, dtype, ndim=1):
    """Return a read-only view, so that writable and read-only inputs are of one type to Numba.

    None stands for an empty array.
    """
    view = np.ascontiguousarray(np.empty((0,) * ndim) if array is None else array, dtype).view()
    view.flags.writeable = False
    return view


def data_rows(x_ni, spec, scale=1.0, targets=None, skip_zeros=True):
    """Return rows as the compiled functions take them. Floats of another dtype are copied."""
    sparse, pixels = spec.input_format == "csr", x_ni.dtype == np.uint8
    values = None if not sparse else x_ni.data if scale == 1 else x_ni.data * scale
    labels = targets is not None and targets.ndim == 1
    return Rows(
        pixels=readonly(x_ni if pixels and not sparse else None, np.uint8, 2),
        floats=readonly(None if pixels or sparse else x_ni, spec.dtype, 2),
        indptr=readonly(x_ni.indptr if sparse else None, np.int64),
        indices=readonly(x_ni.indices if sparse else None, np.int32),
        values=readonly(values, spec.dtype),
        scale=np.dtype(spec.dtype).type(scale),
        skip_zeros=skip_zeros,
        labels=readonly(targets if labels else None, np.int32),
        soft_targets=readonly(None if labels else targets, spec.dtype, 2),
    )


class Workspace:
    """The matrices of a network and of a batch of at most `capacity` rows.

    whole_g : whether g has a row for every row of w. dropout : whether to apply the spec's.
    """

    def __init__(self, spec, capacity, threads=1, whole_g=False, dropout=False):
        self.spec, self.threads = spec, threads
        self.layers, size, unit = np.zeros(len(spec.shapes), LAYER), 0, 0
        itemsize = np.dtype(spec.dtype).itemsize
        line = CACHE_LINE // itemsize
        for depth, (inputs, outputs) in enumerate(spec.shapes):
            layer, sparse = self.layers[depth], depth == 0 and spec.input_format == "csr"
            g_rows = inputs + 1 if whole_g or sparse else threads * BLOCK
            shapes = {"x": (0 if depth or sparse else capacity, inputs), "g": (g_rows, outputs)}
            shapes |= dict.fromkeys(("z", "grad"), (capacity, outputs))
            shapes |= dict.fromkeys(("w", "m", "v"), (inputs + 1, outputs))
            shapes |= {"w_t": (outputs if depth else 0, inputs), "zeros": (1, outputs)}
            for field, (rows, columns) in shapes.items():
                # Wide rows are an odd number of cache lines long, so that those of a block do not
                # fall into the same few sets of the cache.
                width = -(-columns // BLOCK) * BLOCK
                stride = width + (line if width * itemsize > 512 else 0)
                layer[field] = size, stride, BLOCK
                size += rows * stride
            first_x = (layer["x"]["start"], BLOCK, BLOCK * capacity)
            layer["x"] = self.layers[depth - 1]["z"] if depth else first_x
            layer["inputs"], layer["outputs"], layer["first_unit"] = inputs, outputs, unit
            layer["whole_g"], unit = whole_g or sparse, unit + outputs
        rate, real = spec.dropout if dropout else 0.0, np.dtype(spec.dtype).type
        # Aligned to a cache line, so that no vector straddles two.
        buffer = np.zeros(size + line, spec.dtype)
        start = -buffer.ctypes.data % CACHE_LINE // buffer.itemsize
        self.floats = buffer[start : start + size]
        self.net = Network(
            floats=self.floats,
            layers=self.layers,
            activation=SUPPORTS["activation"].index(spec.activation),
            loss=SUPPORTS["loss"].index(spec.loss),
            optimizer=SUPPORTS["optimizer"].index(spec.optimizer),
            dropped=int(rate * 2**32),
            keep_prob=real(1 - rate),
            max_loss=float(spec.max_loss),
        )

    def view(self, matrix, rows, columns):
        """Return a matrix without padding."""
        start, stride = matrix["start"], matrix["stride"]
        return self.floats[start : start + rows * stride].reshape(rows, stride)[:, :columns]

    def views(self, **params):
        """Yield every view of weights or biases with the array of Params that it corresponds to."""
        for field, (weights, biases) in params.items():
            for layer, w_io, b_o in zip(self.layers, weights, biases):
                view = self.view(layer[field], len(w_io) + 1, len(b_o))
                yield from ((view[:-1], w_io), (view[-1], b_o))

    def pack(self, **params):
        """Copy Params to fields; weights also transposed, for the backward pass."""
        for view, array in self.views(**params):
            view[:] = array
        for layer, w_io in zip(self.layers[1:], params["w"].weights[1:] if "w" in params else ()):
            self.view(layer["w_t"], *w_io.T.shape)[:] = w_io.T

    def unpack(self, **params):
        """Copy Params from fields."""
        for view, array in self.views(**params):
            array[:] = view

    def run(self, parts, rows, order, starts, dropout_state=None, **fields):
        """Run parts of steps on a team of threads; return the arguments, which hold results."""
        real, threads = self.spec.dtype, self.threads
        dropout_rows, key = dropout_state or (None, 0)
        call = Call(
            parts=parts,
            threads=threads,
            spins=MAX_SPINS if have_cores(threads) else 0,
            net=self.net,
            rows=rows,
            order=readonly(order, np.int32),
            starts=readonly(starts, np.int64),
            weights_n=np.empty(0),
            dropout_rows=readonly(dropout_rows, np.int32),
            dropout_key=int(np.uint64(key).view(np.int64)),
            coefs_t=np.zeros((1, 8), real),
            squares_ln=np.zeros((len(self.layers), -(-max(self.spec.sizes) // BLOCK))),
            losses_n=np.empty(len(order), real),
            out_nk=np.empty((0, 0), real),
            squares_t=np.empty(len(starts) - 1),
            seconds_tp=np.empty((0, len(PHASES))),
            barrier=np.zeros(24, np.int64),
        )._replace(**fields)
        kernel = compiled_for(run_steps, real, call, 0)
        try:
            run_team(lambda thread: kernel(call, thread), threads)
        except BaseException:
            call.barrier[ABORTED] = 1  # releases threads that wait for one that never started
            raise
        return call

"""Five operations of LLVM that Numba does not expose.

`numba.extending.intrinsic` is documented in Numba's manual: the outer function returns the types
of result and arguments, and the inner one emits LLVM code into the function that calls it.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I1, I64 = ir.IntType(1), ir.IntType(64)


@intrinsic(prefer_literal=True)
def on_stack(typing, like, count):
    """Return a pointer to `count` elements on the stack, of the dtype of `like`.

    Nothing else points to them, so LLVM can keep them in registers.
    """

    def emit(context, builder, signature, values):
        element = context.get_data_type(like.dtype)
        with builder.goto_entry_block():  # once a call of the function, not once an iteration
            array = builder.alloca(ir.ArrayType(element, count.literal_value))
        array.align = 64
        return builder.bitcast(array, element.as_pointer())

    return types.CPointer(like.dtype)(like, count), emit


@intrinsic
def pointer(typing, array, index):
    """Return a pointer to entry `index`, in memory, of a C-contiguous array.

    `numba.carray(pointer, shape)` makes an array of it that does not check bounds and, unlike a
    slice, does not count references, which is an atomic instruction.
    """

    def emit(context, builder, signature, values):
        data = context.make_array(array)(context, builder, values[0]).data
        return builder.gep(data, [values[1]])

    return types.CPointer(array.dtype)(array, types.int64), emit


@intrinsic
def nonzero_bits(typing, row):
    """Return a mask: bit k is set if entry k of a row of 64 is not zero. NaN counts as nonzero.

    A comparison of vector registers yields such bits.
    """

    def emit(context, builder, signature, values):
        kind = ir.VectorType(context.get_data_type(row.dtype), 64)
        data = context.make_array(row)(context, builder, values[0]).data
        lanes = builder.load(builder.bitcast(data, kind.as_pointer()), align=4)
        return builder.bitcast(builder.fcmp_unordered("!=", lanes, kind([0.0] * 64)), I64)

    return types.int64(row), emit


@intrinsic
def lowest_set_bit(typing, mask):
    """Return the index of the lowest set bit of a mask that is not zero."""

    def emit(context, builder, signature, values):
        return builder.cttz(values[0], I1(1))

    return types.int64(types.int64), emit


@intrinsic
def atomic_add(typing, address, value):
    """Add to an int64 and return the old value, as one step for all threads."""

    def emit(context, builder, signature, values):
        return builder.atomic_rmw("add", *values, "seq_cst")

    return types.int64(address, types.int64), emit

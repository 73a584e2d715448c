"""A tile of the matrix memory as one vector of 64 lanes: `width` key columns beside each other, 64 / width rows.

The state is stored row by row, so a tile is 64 numbers in a row. Four ways in and out of it, for kernels:

    spread_rows(array, row, column, width)          array[row, column:][i] for all lanes of the tile's row i
    repeat_columns(array, row, column, width)       array[row, column:][j] for all lanes of the tile's column j
    store_row_sums(value, array, row, column, width)    array[row, column:][i] = sum over the columns
    add_column_sums(value, array, row, column, width)   array[row, column:][j] += sum over the rows

`width` is a power of two up to 64 that is known when the kernel is compiled. Sums go by halves, in an order that
depends on nothing else.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from unscan.trainer.recurrence.vector import FINGERPRINT as VECTOR
from unscan.trainer.recurrence.vector import LANES, Vector

# As in `vector`: part of the key of every kernel that is cached on disk.
FINGERPRINT = VECTOR + sha256(Path(__file__).read_bytes()).hexdigest()


def _place(context: Any, builder: Any, array_type: Any, array: Any, at: Any, count: int) -> Any:
    """The pointer to `count` elements of a 2-D array from [row, column] on."""
    made = context.make_array(array_type)(context, builder, array)
    get_pointer: Any = cgutils.get_item_pointer
    start = get_pointer(context, builder, array_type, made, at)
    return builder.bitcast(start, ir.VectorType(start.type.pointee, count).as_pointer())


def _picked(builder: Any, vector: Any, places: list[int]) -> Any:
    """The elements of a vector at these places."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _gather(rows: bool) -> Any:
    """Make `spread_rows` or `repeat_columns`."""

    def typed(typing: Any, array: Any, row: Any, column: Any, width: Any) -> Any:
        vector, columns = Vector(array.dtype), width.literal_value

        def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            count = LANES // columns if rows else columns
            place = _place(context, builder, sig.args[0], arguments[0], arguments[1:3], count)
            few = builder.load(place, align=array.dtype.bitwidth // 8)
            return _picked(builder, few, [i // columns if rows else i % columns for i in range(LANES)])

        return vector(array, types.intp, types.intp, width), generate

    return typed


def _row_sums(typing: Any, value: Any, array: Any, row: Any, column: Any, width: Any) -> Any:
    """Halve each row until one number of it is left."""
    columns = width.literal_value

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        vector = arguments[0]
        left = columns
        while left > 1:
            half = left // 2
            firsts = [i for i in range(vector.type.count) if i % left < half]
            vector = builder.fadd(
                _picked(builder, vector, firsts), _picked(builder, vector, [i + half for i in firsts])
            )
            left = half
        place = _place(context, builder, sig.args[1], arguments[1], arguments[2:4], LANES // columns)
        builder.store(vector, place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(value, array, types.intp, types.intp, width), generate


def _column_sums(typing: Any, value: Any, array: Any, row: Any, column: Any, width: Any) -> Any:
    """Add the lower half of the rows to the upper until one row is left, then that to the array."""
    columns = width.literal_value

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        vector = arguments[0]
        while (half := vector.type.count // 2) >= columns:
            upper, lower = list(range(half)), list(range(half, 2 * half))
            vector = builder.fadd(_picked(builder, vector, upper), _picked(builder, vector, lower))
        place = _place(context, builder, sig.args[1], arguments[1], arguments[2:4], columns)
        align = array.dtype.bitwidth // 8
        builder.store(builder.fadd(builder.load(place, align=align), vector), place, align=align)
        return context.get_dummy_value()

    return types.void(value, array, types.intp, types.intp, width), generate


_with_width: Any = intrinsic(prefer_literal=True)
spread_rows: Any = _with_width(_gather(rows=True))
repeat_columns: Any = _with_width(_gather(rows=False))
store_row_sums: Any = _with_width(_row_sums)
add_column_sums: Any = _with_width(_column_sums)

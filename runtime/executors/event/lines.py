"""Sixty-four bytes of numbers at once: 16 of float32 or 8 of float64, at any place of an array.

Short rows of weights are made of such lines: a loop over 64 numbers would be longer than many a row.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from unscan.runtime.executors.event.vector import INDEX

LINE_BYTES = 64


def at_line(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return the pointer to the line of an array that starts at `at`."""
    vector = ir.VectorType(
        context.get_data_type(array_type.dtype), LINE_BYTES * 8 // array_type.dtype.bitwidth
    )
    start = builder.gep(context.make_array(array_type)(context, builder, array).data, [at])
    return builder.bitcast(start, vector.as_pointer())


def addition() -> Any:
    """Return the intrinsic (y, at, w, start, number): the line of y at `at` += that of w at `start`, times a number."""

    @intrinsic
    def add(typing: Any, y: Any, at: Any, w: Any, start: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            y_type, _, w_type, _, _ = signature.args
            y_array, here, w_array, there, factor = arguments
            align, index = y_type.dtype.bitwidth // 8, ir.IntType(32)
            line = builder.load(at_line(context, builder, w_type, w_array, there), align=align)
            nothing = ir.Constant(line.type, ir.Undefined)
            one = builder.insert_element(nothing, factor, ir.Constant(index, 0))
            first = ir.Constant(ir.VectorType(index, line.type.count), [0] * line.type.count)
            product = builder.fmul(builder.shuffle_vector(one, nothing, first), line)
            place = at_line(context, builder, y_type, y_array, here)
            builder.store(builder.fadd(builder.load(place, align=align), product), place, align=align)
            return context.get_dummy_value()

        return types.void(y, types.int64, w, types.int64, w.dtype), generate

    return add


add_line = addition()


def transposition() -> Any:
    """Return the intrinsic (x, starts, first, shift, tile): n lines of x, n numbers each, become columns of a tile.

    Line k of x starts at starts[first + k] + shift. Lines i and i + n / 2 are interleaved, log2 n times: each time
    the bits of the index (line, number) rotate by one.
    """

    @intrinsic
    def transpose(typing: Any, x: Any, starts: Any, first: Any, shift: Any, tile: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x_type, starts_type, _, _, tile_type = signature.args
            x_array, starts_array, begin, beyond, tile_array = arguments
            align, lines = x_type.dtype.bitwidth // 8, LINE_BYTES * 8 // x_type.dtype.bitwidth
            index = ir.IntType(32)
            base = context.make_array(starts_type)(context, builder, starts_array).data
            rows = []
            for k in range(lines):
                where = builder.load(builder.gep(base, [builder.add(begin, ir.Constant(INDEX, k))]))
                place = builder.add(builder.sext(where, INDEX), beyond)
                rows.append(builder.load(at_line(context, builder, x_type, x_array, place), align=align))
            half = lines // 2
            low, high = (
                ir.Constant(
                    ir.VectorType(index, lines),
                    [part + k // 2 + k % 2 * lines for k in range(lines)],
                )
                for part in (0, half)
            )
            for _ in range(lines.bit_length() - 1):
                rows = [
                    builder.shuffle_vector(rows[i], rows[i + half], mask)
                    for i in range(half)
                    for mask in (low, high)
                ]
            for k, row in enumerate(rows):
                place = at_line(context, builder, tile_type, tile_array, ir.Constant(INDEX, k * lines))
                builder.store(row, place, align=align)
            return context.get_dummy_value()

        return types.void(x, starts, types.int64, types.int64, tile), generate

    return transpose


transpose = transposition()

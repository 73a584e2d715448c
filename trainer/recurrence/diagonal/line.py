"""Sixteen lanes as one number: `vector`'s arithmetic in the width at which many numbers fit in registers at once.

In float32 a line is one AVX-512 register (two of AVX2): a kernel with two dozen coefficients and states keeps
them all where it computes. Multiply-adds are fused where the processor has an instruction for it, so results
may differ from separate operations in the last bit.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from unscan.trainer.recurrence import vector

WIDTH = 16
FINGERPRINT = vector.FINGERPRINT + sha256(Path(__file__).read_bytes()).hexdigest()  # see `vector.FINGERPRINT`

_pointer: Any = cgutils.get_item_pointer
_insert: Any = cgutils.get_or_insert_function


class Line(vector.Vector):
    """16 floats of one type. Operators come from `Vector`; both sides are lines."""

    def __init__(self, element: Any) -> None:
        super().__init__(element)
        self.name = f"Line({element})"


@register_model(Line)
class _LineModel(models.PrimitiveModel):
    def __init__(self, manager: Any, line: Any) -> None:
        element = manager.lookup(line.element).get_value_type()
        super().__init__(manager, line, ir.VectorType(element, WIDTH))  # type: ignore[no-untyped-call]


def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        called = _insert(
            builder.module,
            ir.FunctionType(kind, [kind] * 3),
            f"llvm.fmuladd.v{WIDTH}f{sig.return_type.element.bitwidth}",
        )
        return builder.call(called, arguments)

    return a(a, b, c), generate


def _nothing(typing: Any, array: Any) -> Any:
    """16 zeros of an array's type."""
    line = Line(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(line), [0.0] * WIDTH)

    return line(array), generate


def _place(context: Any, builder: Any, array_type: Any, array: Any, start: Any, line: Any) -> Any:
    """The pointer to the 16 elements of a 1-D array from `start` on."""
    made = context.make_array(array_type)(context, builder, array)
    first = _pointer(context, builder, array_type, made, [start])
    return builder.bitcast(first, context.get_value_type(line).as_pointer())


def _get(typing: Any, array: Any, start: Any) -> Any:
    """array[start : start + 16]."""
    line = Line(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = _place(context, builder, sig.args[0], arguments[0], arguments[1], line)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return line(array, types.intp), generate


def _put(typing: Any, value: Any, array: Any, start: Any) -> Any:
    """array[start : start + 16] = value."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = _place(context, builder, sig.args[1], arguments[1], arguments[2], value)
        builder.store(arguments[0], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(value, array, types.intp), generate


# What kernels call on arrays of one dimension: fma(a, b, c), zeros(array), get(array, start),
# put(value, array, start).
fma: Any = intrinsic(_fma)
zeros: Any = intrinsic(_nothing)
get: Any = intrinsic(_get)
put: Any = intrinsic(_put)

"""What a kernel needs when its 64 lanes are rows of a matrix: their sum, and a way to and from memory by rows."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from unscan.trainer.recurrence import vector
from unscan.trainer.recurrence.vector import LANES

BLOCK = 16
# What a kernel's cache on disk must depend on besides the kernel's own file.
FINGERPRINT = vector.FINGERPRINT + sha256(Path(__file__).read_bytes()).hexdigest()

_pointer: Any = cgutils.get_item_pointer


def _shuffled(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """Pick numbers from a and b, which count on from a's."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))


def _total(typing: Any, value: Any) -> Any:
    """Add the upper half to the lower half until one number is left: the same order on every machine."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        (rest,) = arguments
        width = LANES
        while width > 1:
            width //= 2
            lower, upper = (_shuffled(builder, rest, rest, list(range(i, i + width))) for i in (0, width))
            rest = builder.fadd(lower, upper)
        return builder.extract_element(rest, ir.IntType(32)(0))

    return value.element(value), generate


def _flip(
    typing: Any, source: Any, row: Any, column: Any, stride: Any, out: Any, to_row: Any, to_column: Any, to_stride: Any
) -> Any:  # fmt: skip
    """Transpose 16 x 16 numbers: rows begin `stride` numbers apart in source, `to_stride` apart in out.

    Four rounds exchange halves, quarters, pairs and neighbours of two rows each.
    """

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = ir.VectorType(context.get_value_type(source.dtype), BLOCK)
        align = source.dtype.bitwidth // 8

        def places(array_type: Any, array: Any, at: Any, apart: Any) -> list[Any]:
            made = context.make_array(array_type)(context, builder, array)
            start = _pointer(context, builder, array_type, made, at)
            steps = [builder.mul(apart, apart.type(i)) for i in range(BLOCK)]
            return [builder.bitcast(builder.gep(start, [step]), kind.as_pointer()) for step in steps]

        rows = [builder.load(place, align=align) for place in places(sig.args[0], *_three(arguments[:4]))]
        apart = BLOCK
        while apart > 1:
            apart //= 2
            for i in [i for i in range(BLOCK) if not i & apart]:
                a, b = rows[i], rows[i + apart]
                upper = [BLOCK + lane - apart if lane & apart else lane for lane in range(BLOCK)]
                lower = [BLOCK + lane if lane & apart else lane + apart for lane in range(BLOCK)]
                rows[i], rows[i + apart] = _shuffled(builder, a, b, upper), _shuffled(builder, a, b, lower)
        for value, place in zip(rows, places(sig.args[4], *_three(arguments[4:])), strict=True):
            builder.store(value, place, align=align)
        return context.get_dummy_value()

    integers = (types.intp, types.intp, types.intp)
    return types.void(source, *integers, out, *integers), generate


def _bits(typing: Any, mask: Any) -> Any:
    """The mask as one integer, lane 0 in its lowest bit."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(LANES))

    return types.uint64(mask), generate


def _first_bit(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set, of at least one."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.intp(types.uint64), generate


def _three(arguments: Any) -> tuple[Any, list[Any], Any]:
    """Sort array, row, column and stride into what a place is made of."""
    array, row, column, stride = arguments
    return array, [row, column], stride


# What kernels call: total(vector), flip(source, row, column, stride, out, row, column, stride), bits(mask) and
# first_bit(bits).
total: Any = intrinsic(_total)
bits: Any = intrinsic(_bits)
first_bit: Any = intrinsic(_first_bit)
flip: Any = intrinsic(_flip)

"""Sixty-four lanes as one number: a numba type, so that a kernel reads like the equation of a single neuron.

A loop over 64 lanes inside the loop over time is turned into vector code by LLVM too, but its state then goes
through memory at every step, since LLVM cannot know that no output overlaps it. A value of this type stays in
registers. LLVM lowers it to what the processor has: four AVX-512 registers of float32, or eight of AVX2.

Both sides of an operator are vectors, `spread` makes one of a scalar. Comparisons give a mask, for `select`.
Each operation is the one IEEE operation, rounded once: nothing is contracted or reordered.
"""

import operator
from hashlib import sha256
from pathlib import Path
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 64
# numba's cache on disk sees the file of a kernel, not this one: kernels name this, so that it is part of the key.
FINGERPRINT = sha256(Path(__file__).read_bytes()).hexdigest()

_lower: Any = lower_builtin
_pointer: Any = cgutils.get_item_pointer
_signature: Any = signature
_typed: Any = infer_global


class Vector(types.Type):
    """64 numbers of one type: a float, or types.boolean for a mask."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Vector({element})")


MASK = Vector(types.boolean)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Any) -> None:
        element = ir.IntType(1) if vector == MASK else manager.lookup(vector.element).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, LANES))  # type: ignore[no-untyped-call]


def _operator(operation: Any, arity: int, result: Any, build: Any) -> None:
    """Let kernels apply a Python operator to vectors of floats of one type."""

    @_typed(operation)
    class _Typing(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            first = arguments[0]
            masks = operation is operator.mul and arguments == (first, MASK)
            if isinstance(first, Vector) and first != MASK and (masks or arguments == (first,) * arity):
                return _signature(result or first, *arguments)
            return None

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return build(builder, *arguments)

    _lower(operation, *(Vector,) * arity)(generate)


def _product(builder: Any, a: Any, b: Any) -> Any:
    """a b; b may be a mask, which counts as 0 or 1."""
    if b.type == a.type:
        return builder.fmul(a, b)
    return builder.select(b, a, ir.Constant(a.type, [0.0] * LANES))


def _absolute(builder: Any, a: Any) -> Any:
    """Clear the bit of the sign."""
    bits = 32 if isinstance(a.type.element, ir.FloatType) else 64
    whole = ir.VectorType(ir.IntType(bits), LANES)
    rest = ir.Constant(whole, [(1 << bits - 1) - 1] * LANES)
    return builder.bitcast(builder.and_(builder.bitcast(a, whole), rest), a.type)


_operator(operator.add, 2, None, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, 2, None, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, 2, None, _product)
_operator(operator.truediv, 2, None, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.neg, 1, None, lambda builder, a: builder.fneg(a))
_operator(abs, 1, None, _absolute)
_operator(operator.ge, 2, MASK, lambda builder, a, b: builder.fcmp_ordered(">=", a, b))
_operator(operator.le, 2, MASK, lambda builder, a, b: builder.fcmp_ordered("<=", a, b))


def _spread(typing: Any, scalar: Any) -> Any:
    """64 times the same number."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = context.get_value_type(sig.return_type)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), arguments[0], ir.IntType(32)(0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), places)

    return Vector(scalar)(scalar), generate


def _select(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """Take a where the mask is set, else b."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(mask, a, b), generate


def _place(context: Any, builder: Any, array_type: Any, array: Any, at: Any, vector: Any) -> Any:
    """The pointer to the 64 elements of a 2-D array from [row, column] on."""
    made = context.make_array(array_type)(context, builder, array)
    start = _pointer(context, builder, array_type, made, at)
    return builder.bitcast(start, context.get_value_type(vector).as_pointer())


def _load(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """array[row, column : column + 64]."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = _place(context, builder, sig.args[0], arguments[0], arguments[1:], vector)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp, types.intp), generate


def _store(typing: Any, value: Any, array: Any, row: Any, column: Any) -> Any:
    """array[row, column : column + 64] = value."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = _place(context, builder, sig.args[1], arguments[1], arguments[2:], value)
        builder.store(arguments[0], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(value, array, types.intp, types.intp), generate


# What kernels call: spread(scalar), select(mask, a, b), load(array, row, column), store(value, array, row, column).
spread: Any = intrinsic(_spread)
select: Any = intrinsic(_select)
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)

"""Sixty-four numbers at once, as one LLVM vector: what numba's own vectoriser does not reach.

A comparison of 64 numbers becomes one 64-bit mask, from which the indices of those that fire are read bit by bit;
through bytes the same takes three times as long. LLVM lowers the vectors to what the processor has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

LANES = 64
INDEX = ir.IntType(64)

instructions: Callable[[Callable[..., Any]], Any] = intrinsic
"""numba's `intrinsic`: the function returns the signature, and what writes the instructions."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function to machine code that runs without the interpreter lock; cached on disk.

    numba's cache sees the file of a kernel, not those of what it calls: after a change there, delete `__pycache__`.
    """
    compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled


def loops(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that returns no array, as `kernel` does, to stand where it is called.

    Otherwise numba counts at every call who holds an array, and passes each as seven numbers: some 20 ns.
    """
    options: Any = {"_nrt": False, "forceinline": True}
    compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    return compiled


def vector_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any, lanes: int = LANES) -> Any:
    """Return the pointer to the elements of an array from `at` on."""
    vector = ir.VectorType(context.get_data_type(array_type.dtype), lanes)
    start = builder.gep(context.make_array(array_type)(context, builder, array).data, [at])
    return builder.bitcast(start, vector.as_pointer())


def load(context: Any, builder: Any, array_type: Any, array: Any, at: Any, lanes: int = LANES) -> Any:
    """Return the elements from `at` on."""
    place = vector_at(context, builder, array_type, array, at, lanes)
    return builder.load(place, align=array_type.dtype.bitwidth // 8)


def store(context: Any, builder: Any, array_type: Any, array: Any, at: Any, value: Any) -> None:
    """Write the elements from `at` on."""
    place = vector_at(context, builder, array_type, array, at, value.type.count)
    builder.store(value, place, align=array_type.dtype.bitwidth // 8)


def broadcast(builder: Any, number: Any, vector: Any) -> Any:
    """Return a vector of one number."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    lanes = ir.VectorType(ir.IntType(32), vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(lanes, None))


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once."""
    return each(builder, "fma", a, b, c)


def each(builder: Any, function: str, *vectors: Any) -> Any:
    """Return what a function of LLVM's makes of each number of some vectors."""
    kind = vectors[0].type
    bits = 32 if kind.element == ir.FloatType() else 64
    signature = ir.FunctionType(kind, [kind] * len(vectors))
    name = f"llvm.{function}.v{kind.count}f{bits}"
    called = get_or_insert_function(builder.module, signature, name)  # type: ignore[no-untyped-call]
    return builder.call(called, vectors)


@instructions
def count_nonzero(typing: Any, array: Any, at: Any, counter: Any, place: Any) -> Any:
    """Add 1 to the counters from `place` on of those of 64 elements, from `at` on, that are not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, (array, at, counter, place) = signature.args, arguments
        found = load(context, builder, kinds[0], array, at)
        some = builder.fcmp_unordered("!=", found, ir.Constant(found.type, None))
        before = load(context, builder, kinds[2], counter, place)
        store(
            context, builder, kinds[2], counter, place, builder.sub(before, builder.sext(some, before.type))
        )
        return context.get_dummy_value()

    return types.void(array, types.int64, counter, types.int64), generate


@instructions
def clear(typing: Any, array: Any, at: Any) -> Any:
    """Set 64 elements to 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(context.get_data_type(signature.args[0].dtype), LANES)
        array, at = arguments
        store(context, builder, signature.args[0], array, at, ir.Constant(kind, None))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@instructions
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c of three numbers, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, b, c), generate


@instructions
def nonzero(typing: Any, array: Any, at: Any) -> Any:
    """Return the mask of the 64 elements from `at` on that are not 0; nan is not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = load(context, builder, signature.args[0], *arguments)
        none = ir.Constant(found.type, None)
        real = isinstance(signature.args[0].dtype, types.Float)
        differ = builder.fcmp_unordered if real else builder.icmp_unsigned
        return builder.bitcast(differ("!=", found, none), INDEX)

    return types.uint64(array, types.int64), generate


@instructions
def above(typing: Any, a: Any, b: Any, at: Any) -> Any:
    """Return the mask of the 64 elements of a, from `at` on, that are greater than those of b."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a_type, b_type, _ = signature.args
        left = load(context, builder, a_type, arguments[0], arguments[2])
        right = load(context, builder, b_type, arguments[1], arguments[2])
        return builder.bitcast(builder.fcmp_ordered(">", left, right), INDEX)

    return types.uint64(a, b, types.int64), generate


@instructions
def lowest_bit(typing: Any, mask: Any) -> Any:
    """Return the index of the lowest bit that is set, of a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@instructions
def call_at(
    typing: Any, address: Any, code: Any, room: Any, row: Any, state: Any, spikes: Any, membranes: Any,
    recording: Any, slots: Any, slot: Any, samples: Any, steps: Any, last: Any,
) -> Any:  # fmt: skip
    """Call the function at an address, which `apart.address` compiled."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
        function = ir.FunctionType(context.get_value_type(signature.return_type), kinds)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    arrays = (code, room, row, state, spikes, membranes)
    return types.void(types.int64, *arrays, *(types.int64,) * 6), generate

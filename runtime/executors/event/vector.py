"""Sixty-four neurons at once, as one LLVM vector: what numba's own vectoriser does not reach.

A comparison of 64 numbers becomes one 64-bit mask, from which the indices of those that fire are read bit by bit;
through bytes the same takes three times as long. LLVM lowers the vectors to what the processor has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

LANES = 64
INDEX = ir.IntType(64)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function to machine code that runs without the interpreter lock; cached on disk.

    numba's cache sees the file of a kernel, not those of what it calls: after a change there, delete `__pycache__`.
    """
    compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled


def vector_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return the pointer to the 64 elements of an array from `at` on."""
    vector = ir.VectorType(context.get_data_type(array_type.dtype), LANES)
    start = builder.gep(context.make_array(array_type)(context, builder, array).data, [at])
    return builder.bitcast(start, vector.as_pointer())


def load(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return 64 elements."""
    return builder.load(
        vector_at(context, builder, array_type, array, at), align=array_type.dtype.bitwidth // 8
    )


def comparison(sign: str, constant: int) -> Any:
    """Return the intrinsic (array, at) -> mask of the 64 elements that are != 0, or == 1 (nan is neither 0 nor 1)."""

    @intrinsic
    def compare(typing: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            element = signature.args[0].dtype
            found = load(context, builder, signature.args[0], *arguments)
            wanted = ir.Constant(found.type, [constant] * LANES)
            if isinstance(element, types.Float):
                ordered = builder.fcmp_ordered if sign == "==" else builder.fcmp_unordered
                return builder.bitcast(ordered(sign, found, wanted), INDEX)
            return builder.bitcast(builder.icmp_unsigned(sign, found, wanted), INDEX)

        return types.uint64(array, types.int64), generate

    return compare


nonzero = comparison("!=", 0)
ones = comparison("==", 1)


def order() -> Any:
    """Return the intrinsic (a, b, at) -> mask of the 64 elements of a that are greater than those of b."""

    @intrinsic
    def greater(typing: Any, a: Any, b: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a_type, b_type, _ = signature.args
            left = load(context, builder, a_type, arguments[0], arguments[2])
            right = load(context, builder, b_type, arguments[1], arguments[2])
            return builder.bitcast(builder.fcmp_ordered(">", left, right), INDEX)

        return types.uint64(a, b, types.int64), generate

    return greater


above = order()


def scan() -> Any:
    """Return the intrinsic mask -> index of the lowest bit that is set, of a uint64 that is not 0."""

    @intrinsic
    def lowest(typing: Any, mask: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

        return types.int64(types.uint64), generate

    return lowest


lowest_bit = scan()


def neuron(reset: str, phase: str) -> Any:
    """Return the intrinsic that runs one step of 64 LIF neurons: (p, u, x, reached, at) -> mask of those that fire.

    p (4, C): beta, gain, the level at which a neuron fires, theta. u: membranes, replaced by their next ones;
    reached: membranes before the reset. beta u + g x is two products and a sum, each rounded.
    """

    @intrinsic
    def fire(typing: Any, p: Any, u: Any, x: Any, reached: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            p_type, u_type, x_type, reached_type, _ = signature.args
            p_array, u_array, x_array, reached_array, start = arguments
            pitch = builder.extract_value(context.make_array(p_type)(context, builder, p_array).shape, 1)

            def parameter(k: int) -> Any:
                row = builder.add(start, builder.mul(pitch, ir.Constant(INDEX, k)))
                return load(context, builder, p_type, p_array, row)

            def store(value: Any, array_type: Any, array: Any) -> None:
                where = vector_at(context, builder, array_type, array, start)
                builder.store(value, where, align=array_type.dtype.bitwidth // 8)

            before = load(context, builder, u_type, u_array, start)
            current = load(context, builder, x_type, x_array, start)
            membrane = builder.fadd(builder.fmul(parameter(0), before), builder.fmul(parameter(1), current))
            level = parameter(2)
            zero = ir.Constant(membrane.type, [0.0] * LANES)

            def emptied(value: Any, fired: Any) -> Any:
                lowered = builder.fsub(value, parameter(3)) if reset == "subtract" else zero
                return builder.select(fired, lowered, value)

            if reset != "none" and phase == "next":
                membrane = emptied(membrane, builder.fcmp_ordered(">=", before, level))
            fired = builder.fcmp_ordered(">=", membrane, level)
            store(membrane, reached_type, reached_array)
            kept = emptied(membrane, fired) if reset != "none" and phase == "now" else membrane
            store(kept, u_type, u_array)
            return builder.bitcast(fired, INDEX)

        return types.uint64(p, u, x, reached, types.int64), generate

    return fire


fire_none = neuron("none", "now")
fire_subtract = neuron("subtract", "now")
fire_zero = neuron("zero", "now")
fire_subtract_next = neuron("subtract", "next")
fire_zero_next = neuron("zero", "next")


def call() -> Any:
    """Return the intrinsic that calls the function at an address, which `apart.address` compiled."""

    @intrinsic
    def call_at(
        typing: Any, address: Any, code: Any, room: Any, row: Any, state: Any, spikes: Any, membranes: Any,
        recording: Any, slots: Any, slot: Any, samples: Any, steps: Any, last: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
            function = ir.FunctionType(context.get_value_type(signature.return_type), kinds)
            builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
            return context.get_dummy_value()

        arrays = (code, room, row, state, spikes, membranes)
        return types.void(types.int64, *arrays, *(types.int64,) * 6), generate

    return call_at


call_at = call()

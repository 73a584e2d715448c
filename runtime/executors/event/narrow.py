"""Weights of 8 or 16 bits, added as whole numbers, and a step of 64 neurons of whole numbers with them.

Sums of weights are exact in 32 bits, and so in float64, in which the neurons compute: bit for bit what `integers` does.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from unscan.runtime.executors.event.gather import loop
from unscan.runtime.executors.event.lif import Parameters, chosen, parametrised, take_off_zeros
from unscan.runtime.executors.event.vector import (
    INDEX,
    LANES,
    broadcast,
    each,
    instructions,
    load,
    store,
)

TOGETHER = 255
"""Rows of 8-bit weights whose sum 16 bits hold."""
WORDS = ir.VectorType(ir.IntType(32), LANES)


def added(context: Any, builder: Any, kinds: tuple[Any, ...], given: tuple[Any, ...], at: Any) -> Any:
    """Write the sum, as 64 numbers of 32 bits, of the columns from `at` on of the rows of weights that are named.

    kinds, given: the types and values of weights (rows, columns) of 8 or 16 bits, of ids, and of how many count.
    """
    weights, ids = (context.make_array(kinds[k])(context, builder, given[k]) for k in (0, 1))
    pitch, bits = builder.extract_value(weights.shape, 1), kinds[0].dtype.bitwidth
    first, narrow = builder.gep(weights.data, [at]), ir.VectorType(ir.IntType(bits), LANES)
    wide = ir.VectorType(ir.IntType(2 * bits), LANES)

    def row(k: Any) -> Any:
        place = builder.mul(builder.sext(builder.load(builder.gep(ids.data, [k])), INDEX), pitch)
        pointer = builder.bitcast(builder.gep(first, [place]), narrow.as_pointer())
        return builder.sext(builder.load(pointer, align=bits // 8), wide)

    def part(start: Any, many: Any) -> Any:
        (found,) = loop(
            builder, many, [ir.Constant(wide, None)], lambda k, sums: [builder.add(sums[0], row(builder.add(start, k)))]
        )  # fmt: skip
        return found

    if bits == 16:
        return part(ir.Constant(INDEX, 0), given[2])

    def parts(turn: Any, sums: list[Any]) -> list[Any]:
        start = builder.mul(turn, ir.Constant(INDEX, TOGETHER))
        left = builder.sub(given[2], start)
        few = builder.icmp_signed("<", left, ir.Constant(INDEX, TOGETHER))
        many = builder.select(few, left, ir.Constant(INDEX, TOGETHER))
        return [builder.add(sums[0], builder.sext(part(start, many), WORDS))]

    turns = builder.sdiv(
        builder.add(given[2], ir.Constant(INDEX, TOGETHER - 1)), ir.Constant(INDEX, TOGETHER)
    )
    (total,) = loop(builder, turns, [ir.Constant(WORDS, None)], parts)
    return total


@instructions
def add_narrow(typing: Any, weights: Any, ids: Any, total: Any, target: Any, at: Any) -> Any:
    """Add the rows of weights that the first `total` ids name to 64 numbers, from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, array, at = signature.args[3], arguments[3], arguments[4]
        found = added(context, builder, signature.args, arguments, at)
        start = load(context, builder, kind, array, at)
        store(context, builder, kind, array, at, builder.fadd(start, builder.sitofp(found, start.type)))
        return context.get_dummy_value()

    return types.void(weights, ids, types.int64, target, types.int64), generate


def limited(builder: Any, value: Any, top: Any, wraps: Any, lost: Any) -> Any:
    """Write numbers as they are held: clipped to +-top, or wrapped into 2 (top + 1); count those that were beyond."""
    kind, before = value.type, builder.block
    beyond = builder.fcmp_ordered(">", each(builder, "fabs", value), broadcast(builder, top, kind))
    mask = builder.bitcast(beyond, INDEX)
    with builder.if_then(builder.icmp_unsigned("!=", mask, ir.Constant(INDEX, 0)), likely=False):
        one = ir.Constant(top.type, 1.0)
        around = broadcast(builder, builder.fmul(builder.fadd(top, one), ir.Constant(top.type, 2.0)), kind)
        half = ir.Constant(kind, [0.5] * LANES)
        turns = each(builder, "ceil", builder.fsub(builder.fdiv(value, around), half))
        wrapped = builder.fsub(value, builder.fmul(around, turns))
        high, low = broadcast(builder, top, kind), broadcast(builder, builder.fneg(top), kind)
        clipped = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        clipped = builder.select(builder.fcmp_ordered("<", value, low), low, clipped)
        held = builder.select(wraps, wrapped, clipped)
        changed = builder.bitcast(builder.fcmp_ordered("!=", held, value), INDEX)
        builder.store(builder.add(builder.load(lost), builder.ctpop(changed)), lost)
        behind = builder.block
    found = builder.phi(kind)
    found.add_incoming(value, before)
    found.add_incoming(held, behind)
    return found


@instructions
def integrate_64(
    typing: Any, weights: Any, ids: Any, total: Any, start: Any, counter: Any, variant: Any, wraps: Any, alike: Any,
    p: Any, unit: Any, top: Any, u: Any, recording: Any, reached: Any, lost: Any, at: Any,
) -> Any:  # fmt: skip
    """Run one step of the neurons of whole numbers from `at` on; return the mask of those that fire.

    x = start + the rows of weights that the first `total` ids name; where one is 0, that is taken off its counter.
    I = limit(unit x); u' = sat(trunc(beta u) + I + bias); fires where u' > theta; then the reset, by `variant` (of
    `program.VARIANTS`). p (4, C): beta, bias, theta and what is not read here; where all neurons are `alike`, its first
    column alone. Numbers beyond +-top are saturated, or, of I and where it `wraps`, wrapped, and counted in lost[0].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, at, truth = signature.args, arguments[-1], ir.IntType(1)
        unit, top = arguments[9], arguments[10]

        def held(k: int) -> Any:
            return load(context, builder, kinds[k], arguments[k], at)

        sums = added(context, builder, kinds, arguments, at)
        bias = held(3)
        current = builder.fadd(bias, builder.sitofp(sums, bias.type))
        take_off_zeros(context, builder, kinds[4], arguments[4], at, current)
        losses = context.make_array(kinds[14])(context, builder, arguments[14]).data
        never = ir.Constant(truth, 0)

        def step(parameter: Parameters) -> Any:
            theta, before = parameter(2), held(11)

            def emptied(value: Any, reset: str, fired: Any) -> Any:
                lowered = builder.fsub(value, theta) if reset == "subtract" else ir.Constant(value.type, None)
                return builder.select(fired, lowered, value)

            def earlier(value: Any, reset: str) -> Any:
                return emptied(value, reset, builder.fcmp_ordered(">", before, theta))

            arriving = builder.fmul(current, broadcast(builder, unit, current.type))
            arriving = limited(builder, arriving, top, builder.trunc(arguments[6], truth), losses)
            arriving = chosen(builder, arguments[5], [("subtract", "next")], arriving, earlier)
            faded = each(builder, "trunc", builder.fmul(parameter(0), before))
            membrane = builder.fadd(arriving, builder.fadd(faded, parameter(1)))
            membrane = limited(builder, membrane, top, never, losses)
            membrane = chosen(builder, arguments[5], [("zero", "next")], membrane, earlier)
            fired = builder.fcmp_ordered(">", membrane, theta)
            kept = chosen(
                builder, arguments[5], [("subtract", "now"), ("zero", "now")], membrane,
                lambda value, reset: emptied(value, reset, fired),
            )  # fmt: skip
            store(context, builder, kinds[11], arguments[11], at, kept)
            with builder.if_then(builder.trunc(arguments[12], truth)):
                store(context, builder, kinds[13], arguments[13], at, membrane)
            return builder.bitcast(fired, INDEX)

        return parametrised(context, builder, kinds[8], arguments[8], arguments[7], at, current.type, step)

    flag, number = types.boolean, types.float64
    driven = (weights, ids, types.int64, start, counter, types.int64, flag, flag, p, number, number)
    return types.uint64(*driven, u, flag, reached, lost, types.int64), generate

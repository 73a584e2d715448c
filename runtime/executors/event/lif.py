"""A step of 64 LIF neurons, with the weights that feed them, in registers from the first weight to the spike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from unscan.runtime.executors.event.gather import gathered, loop
from unscan.runtime.executors.event.program import VARIANTS
from unscan.runtime.executors.event.vector import INDEX, broadcast, instructions, load, store

Choice = Callable[[Any, Any], Any]
Parameters = Callable[[int], Any]


def chosen(builder: Any, variant: Any, those: list[tuple[str, str]], value: Any, change: Choice) -> Any:
    """Write value, or what `change` makes of it for the variants that are named: change(value, reset)."""
    before, behind = builder.block, builder.append_basic_block("behind")
    switch = builder.switch(variant, behind)
    arriving = [(value, before)]
    for reset, phase in those:
        block = builder.append_basic_block(reset)
        switch.add_case(VARIANTS[reset, phase], block)
        builder.position_at_end(block)
        arriving.append((change(value, reset), builder.block))
        builder.branch(behind)
    builder.position_at_end(behind)
    found = builder.phi(value.type)
    for each, block in arriving:
        found.add_incoming(each, block)
    return found


def parametrised(
    context: Any, builder: Any, kind: Any, table: Any, alike: Any, at: Any, vector: Any,
    step: Callable[[Parameters], Any],
) -> Any:  # fmt: skip
    """Write what a step makes of the numbers of 64 neurons, those of all of them where they are `alike`.

    kind, table: the type and value of the numbers (k, C); step(parameter) writes a mask, parameter(k) being a vector.
    """
    held = context.make_array(kind)(context, builder, table)
    pitch = builder.extract_value(held.shape, 1)

    def column(k: int) -> Any:
        place = builder.add(at, builder.mul(pitch, ir.Constant(INDEX, k)))
        return load(context, builder, kind, table, place)

    def first(k: int) -> Any:
        place = builder.gep(held.data, [builder.mul(pitch, ir.Constant(INDEX, k))])
        return broadcast(builder, builder.load(place), vector)

    with builder.if_else(builder.trunc(alike, ir.IntType(1))) as (same, other):
        with same:
            uniform = step(first), builder.block
        with other:
            various = step(column), builder.block
    mask = builder.phi(INDEX)
    for found in (uniform, various):
        mask.add_incoming(*found)
    return mask


def take_off_zeros(context: Any, builder: Any, kind: Any, counter: Any, at: Any, current: Any) -> None:
    """Write 1 less into the counters of the currents that are 0; `kind` is the type of the counters."""
    none = builder.fcmp_ordered("==", current, ir.Constant(current.type, None))
    some = builder.icmp_unsigned("!=", builder.bitcast(none, INDEX), ir.Constant(INDEX, 0))
    with builder.if_then(some, likely=False):
        before = load(context, builder, kind, counter, at)
        store(context, builder, kind, counter, at, builder.add(before, builder.sext(none, before.type)))


def membranes(
    builder: Any, variant: Any, parameter: Parameters, before: Any, current: Any
) -> tuple[Any, Any, Any]:
    """Write one step of 64 neurons: return their membranes before the reset, those after it, and who fires.

    parameter(k): the vector k of beta, gain, the level at which a neuron fires, theta. beta u + g x is two products
    and a sum, each rounded. variant: of `program.VARIANTS`.
    """
    level = parameter(2)

    def emptied(value: Any, reset: str, fired: Any) -> Any:
        lowered = builder.fsub(value, parameter(3)) if reset == "subtract" else ir.Constant(value.type, None)
        return builder.select(fired, lowered, value)

    def early(value: Any, reset: str) -> Any:
        return emptied(value, reset, builder.fcmp_ordered(">=", before, level))

    def late(value: Any, reset: str) -> Any:
        return emptied(value, reset, fired)

    integrated = builder.fadd(builder.fmul(parameter(0), before), builder.fmul(parameter(1), current))
    reached = chosen(builder, variant, [("subtract", "next"), ("zero", "next")], integrated, early)
    fired = builder.fcmp_ordered(">=", reached, level)
    kept = chosen(builder, variant, [("subtract", "now"), ("zero", "now")], reached, late)
    return reached, kept, fired


@instructions
def fire_64(
    typing: Any, weights: Any, ids: Any, total: Any, spiking: Any, numbers: Any, start: Any, counting: Any,
    counter: Any, variant: Any, alike: Any, p: Any, u: Any, missed: Any, recording: Any, reached: Any, at: Any,
) -> Any:  # fmt: skip
    """Run one step of the neurons from `at` on, after the decays of some that they missed; return who fires, as a mask.

    The currents are start + what `gathered` adds (weights, ids, total, spiking, numbers); where `counting`, each one
    that is 0 is taken off its counter. p (4, C): what `membranes` reads; where all neurons are `alike`, its first
    column alone. u: membranes, replaced by their next ones. reached: membranes before the reset, where `recording`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, at = signature.args, arguments[-1]
        truth = ir.IntType(1)

        def held(k: int) -> Any:
            return load(context, builder, kinds[k], arguments[k], at)

        current = gathered(context, builder, kinds, arguments, at, held(5))
        with builder.if_then(builder.trunc(arguments[6], truth)):
            take_off_zeros(context, builder, kinds[7], arguments[7], at, current)

        def step(parameter: Parameters) -> Any:
            beta = parameter(0)
            (before,) = loop(builder, arguments[12], [held(11)], lambda _, u: [builder.fmul(u[0], beta)])
            membrane, kept, fired = membranes(builder, arguments[8], parameter, before, current)
            store(context, builder, kinds[11], arguments[11], at, kept)
            with builder.if_then(builder.trunc(arguments[13], truth)):
                store(context, builder, kinds[14], arguments[14], at, membrane)
            return builder.bitcast(fired, INDEX)

        return parametrised(context, builder, kinds[10], arguments[10], arguments[9], at, current.type, step)

    listed, flag = (weights, ids, types.int64, types.boolean, numbers), types.boolean
    rest = (start, flag, counter, types.int64, flag, p, u, types.int64, flag, reached, types.int64)
    return types.uint64(*listed, *rest), generate


@instructions
def decay_64(typing: Any, p: Any, u: Any, steps: Any, at: Any) -> Any:
    """Let the neurons from `at` on decay for some steps, in which nothing arrives and none fires."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, (p, u, steps, at) = signature.args, arguments
        beta = load(context, builder, kinds[0], p, at)
        start = load(context, builder, kinds[1], u, at)
        (found,) = loop(builder, steps, [start], lambda _, kept: [builder.fmul(kept[0], beta)])
        store(context, builder, kinds[1], u, at, found)
        return context.get_dummy_value()

    return types.void(p, u, types.int64, types.int64), generate

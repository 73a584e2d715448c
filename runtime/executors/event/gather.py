"""Weights added in registers: what events bring to a stretch of neurons.

Every sum starts at what is there (a bias, or 0) and takes the presynaptic neurons in their order, products fused with
the sum, whichever of the loops here, in `dense` or in `synapses` computes it; so all give the same bits, and the choice
between them is one of time alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from unscan.runtime.executors.event.vector import (
    INDEX,
    LANES,
    broadcast,
    fused,
    instructions,
    load,
    store,
)


def loop(builder: Any, total: Any, kept: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Write a loop over k < total that carries values in registers, body(k, values) -> the next; return the last."""
    before = builder.block
    head, inside, behind = (builder.append_basic_block(name) for name in ("head", "inside", "behind"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(INDEX)
    k.add_incoming(ir.Constant(INDEX, 0), before)
    carried = [builder.phi(value.type) for value in kept]
    for held, value in zip(carried, kept, strict=True):
        held.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", k, total), inside, behind)
    builder.position_at_end(inside)
    found = body(k, carried)
    k.add_incoming(builder.add(k, ir.Constant(INDEX, 1)), builder.block)
    for held, value in zip(carried, found, strict=True):
        held.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(behind)
    return carried


def gathered(
    context: Any, builder: Any, kinds: tuple[Any, ...], given: tuple[Any, ...], at: Any, start: Any
) -> Any:
    """Write start + some columns, from `at` on, of every row of the weights that is named, times its number.

    kinds, given: the types and values of weights (rows, columns), ids, how many of them count, whether all numbers are
    1, and the numbers, of every row.
    """
    weights, ids, numbers = (context.make_array(kinds[k])(context, builder, given[k]) for k in (0, 1, 4))
    pitch = builder.extract_value(weights.shape, 1)
    first, align = builder.gep(weights.data, [at]), kinds[0].dtype.bitwidth // 8

    def row(k: Any) -> tuple[Any, Any]:
        place = builder.sext(builder.load(builder.gep(ids.data, [k])), INDEX)
        pointer = builder.gep(first, [builder.mul(place, pitch)])
        return place, builder.load(builder.bitcast(pointer, start.type.as_pointer()), align=align)

    def add(k: Any, sums: list[Any]) -> list[Any]:
        return [builder.fadd(sums[0], row(k)[1])]

    def add_product(k: Any, sums: list[Any]) -> list[Any]:
        place, weight = row(k)
        number = broadcast(builder, builder.load(builder.gep(numbers.data, [place])), start.type)
        return [fused(builder, weight, number, sums[0])]

    with builder.if_else(builder.trunc(given[3], ir.IntType(1))) as (spiking, sending):
        with spiking:
            (plain,) = loop(builder, given[2], [start], add)
            from_plain = builder.block
        with sending:
            (weighted,) = loop(builder, given[2], [start], add_product)
            from_weighted = builder.block
    found = builder.phi(start.type)
    found.add_incoming(plain, from_plain)
    found.add_incoming(weighted, from_weighted)
    return found


def gather(lanes: int) -> Any:
    """Return the intrinsic (weights, ids, total, spiking, numbers, target, at): add what is named to some numbers."""

    @instructions
    def add(
        typing: Any, weights: Any, ids: Any, total: Any, spiking: Any, numbers: Any, target: Any, at: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind, (array, at) = signature.args[5], arguments[5:]
            start = load(context, builder, kind, array, at, lanes)
            found = gathered(context, builder, signature.args, arguments, at, start)
            store(context, builder, kind, array, at, found)
            return context.get_dummy_value()

        listed = (weights, ids, types.int64, types.boolean, numbers)
        return types.void(*listed, target, types.int64), generate

    return add


add_64, add_16 = gather(LANES), gather(16)

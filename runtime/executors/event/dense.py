"""The dense product of some steps at once, for layers in which so much arrives that listing it saves nothing.

The numbers of GROUP steps lie side by side, so that a weight that was read is used for all of them. Each sum takes the
presynaptic neurons in their order, as `gather` does: what is 0 adds nothing, so the bits are the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.gather import loop
from unscan.runtime.executors.event.vector import INDEX, broadcast, fused, instructions, kernel

GROUP = 8
"""Steps that are multiplied at once."""
ROWS = 128
"""Presynaptic neurons whose weights are read before those of the next, so that they come in long stretches."""
NEAR = 1 << 21
"""Bytes of weights up to which a core finds them in its own cache."""
NEAREST = 1 << 15
"""Bytes of weights that are read so fast that events are always cheaper."""
SHARE = 0.5
"""The share of inputs that send, over a group, from which the product is cheaper (`unscan bench density`)."""


def product(lanes: int) -> Any:
    """Return the intrinsic (block, inputs, weights, target, at): add block^T weights to some columns of GROUP rows."""

    @instructions
    def add(typing: Any, block: Any, inputs: Any, weights: Any, target: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            left, right, sums = (
                context.make_array(kinds[k])(context, builder, arguments[k]) for k in (0, 2, 3)
            )
            vector = ir.VectorType(context.get_data_type(kinds[2].dtype), lanes)
            align = kinds[2].dtype.bitwidth // 8
            at, pitch = arguments[4], builder.extract_value(right.shape, 1)

            def place(base: Any, offset: Any) -> Any:
                return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

            distance = builder.extract_value(sums.shape, 1)
            targets = [
                place(sums.data, builder.add(at, builder.mul(distance, ir.Constant(INDEX, s))))
                for s in range(GROUP)
            ]

            def step(k: Any, carried: list[Any]) -> list[Any]:
                weight = builder.load(place(right.data, builder.add(at, builder.mul(k, pitch))), align=align)
                numbers = builder.gep(left.data, [builder.mul(k, ir.Constant(INDEX, GROUP))])
                found = []
                for s, total in enumerate(carried):
                    number = builder.load(builder.gep(numbers, [ir.Constant(INDEX, s)]))
                    found.append(fused(builder, weight, broadcast(builder, number, vector), total))
                return found

            start = [builder.load(each, align=align) for each in targets]
            for each, total in zip(targets, loop(builder, arguments[1], start, step), strict=True):
                builder.store(total, each, align=align)
            return context.get_dummy_value()

        return types.void(block, types.int64, weights, target, types.int64), generate

    return add


product_32, product_16 = product(32), product(16)


@kernel
def near(weights: Array) -> bool:
    """Say whether weights stay in the cache of a core from one step to the next."""
    return weights.size * weights.itemsize <= NEAR


@kernel
def denser(weights: Array, sent: Array) -> bool:
    """Say whether the product is cheaper for a group of steps that receive so many events."""
    many = 0
    for t in range(GROUP):
        many += sent[t]
    size = weights.size * weights.itemsize
    cheaper: bool = size > NEAREST and many > SHARE * GROUP * weights.shape[0]
    return cheaper


@kernel
def multiply(
    weights: Array, ids: Array, sent: Array, spiking: bool, numbers: Array, block: Array, target: Array
) -> None:
    """Add to target (GROUP, C) what arrives in a group of steps: ids, and numbers where not all are 1, (GROUP, ...).

    block: room for the numbers of a group.
    """
    inputs = weights.shape[0]
    given = block[: inputs * GROUP].reshape(inputs, GROUP)
    given[:] = 0
    for t in range(GROUP):
        for k in range(sent[t]):
            place = ids[t, k]
            given[place, t] = weights.dtype.type(1) if spiking else numbers[t, place]
    for first in range(0, inputs, ROWS):
        many, at = min(ROWS, inputs - first), 0
        if weights.itemsize == 4:
            while at + 32 <= weights.shape[1]:
                product_32(given[first:], many, weights[first:], target, at)
                at += 32
        while at < weights.shape[1]:
            product_16(given[first:], many, weights[first:], target, at)
            at += 16

"""Whole numbers for nodes without memory, between layers of neurons: weights, functions, products, pools."""

from __future__ import annotations

from functools import singledispatch
from math import ceil, log2, prod
from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.functions import FUNCTIONS
from unscan.compiler.ir import Array, Edge, Kind, Node
from unscan.compiler.nodes import (
    GLU,
    Activation,
    AdaptiveLIF,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    Convolution,
    Delay,
    DeltaMemory,
    Embedding,
    Flatten,
    Input,
    IntegerGLU,
    LayerNorm,
    Linear,
    Lookup,
    MaxPool2d,
    Multiply,
    Pool2d,
    Quantize,
    Reshape,
    RMSNorm,
    Scale,
    Shift,
    SumPool2d,
    TopK,
)
from unscan.compiler.passes.quantize_lowering import (
    Carried,
    Lowering,
    compact,
    held,
    most_of,
    uniform_fraction,
)
from unscan.compiler.passes.quantize_weights import (
    ROOM,
    Grid,
    Weights,
    largest_factor,
    on_units,
    rounded,
    rows,
    whole,
)
from unscan.compiler.passes.weighted import per_channel

SATURATES = {"sigmoid": 8.0, "tanh": 4.0, "hardsigmoid": 3.0, "hardtanh": 1.0, "relu6": 6.0}
"""Beyond these, functions stay about what they are."""
REFUSED: dict[type[Node], str] = {
    LayerNorm: "its mean and variance change at each step, and no integer node computes them; train with BatchNorm, "
    "which is folded, or without a norm",
    RMSNorm: "its mean square changes at each step, and no integer node computes it; train with BatchNorm, which is "
    "folded, or without a norm",
    DeltaMemory: "it scales keys to length 1 and reads what it overwrites at each step, and no integer node does; "
    "train an AssociativeLeaky in its place",
    AdaptiveLIF: "its threshold moves, and no integer node has one that does; train a Leaky in its place",
}


def refused(node: Node, name: str, reason: str | None = None) -> Unsupported:
    """Return the refusal of a node."""
    kind = type(node)
    if kind is BatchNorm:
        reason = "its numbers differ within a channel, and fold-norm found no weights to fold it into"
    why = reason or REFUSED.get(kind) or "no integer node computes what it does"
    return Unsupported(f"{kind.__name__} {name!r} cannot become whole numbers: {why}.")


@singledispatch
def lower(node: Node, name: str, made: Lowering) -> None:
    """Write a node in whole numbers. Raises Unsupported where it has none."""
    raise refused(node, name)


def keep(node: Node, name: str, made: Lowering, parts: list[Carried], unit: Array, most: float) -> None:
    """Write a node that computes with whole numbers as it is."""
    made.add(name, node, [part.name for part in parts])
    made.carried[name] = Carried(name, unit, most, all(part.counts for part in parts))


@lower.register
def _(node: Input, name: str, made: Lowering) -> None:
    made.add(name, node, [])
    if node.kind in (Kind.REAL, Kind.GRADED):
        signed = bool(np.min(made.ranges[name].low) < 0)
        bits = made.balanced.get(name, made.profile.signal_bits)
        entry = Quantize(bits=bits, fraction=made.fractions[name], signed=signed)
        where = made.add(f"{name}.quantized", entry, [name])
        carried = made.at(name, where)
        made.carried[name] = carried._replace(most=Fixed(bits, signed=signed).max)
        made.notes.append(f"{name}: counted in units of 2^-{entry.fraction}, as {entry.format}")


@lower.register(Linear)
@lower.register(Convolution)
@lower.register(Embedding)
@lower.register(Scale)
def _(node: Weights, name: str, made: Lowering) -> None:
    made.carried[name] = weighted(node, name, made, 2.0 ** made.fractions[name], made.profile.signal_bits)


def weighted(
    node: Weights,
    name: str,
    made: Lowering,
    unit: Array | float,
    bits: int,
    *,
    gain: Array | float = 1.0,
    bias: bool = True,
) -> Carried:
    """Write weights whose output, times a gain, is to count `unit`, both one number or one for each row.

    They are as fine as they can be, in powers of two of the unit, and a shift behind them makes the unit of it.
    """
    parts, x = reading(node, name, made)
    shape = made.graph.signals[name].shape
    each = np.zeros(len(rows(x))) + unit
    finest, shift = finely(x, name, made, most_of(parts), each * gain, bias=bias)
    made.add(name, finest, [part.name for part in parts])
    return shifted(name, name, made, shift, channelwise(each, shape), bits)


def finely(
    x: Any, name: str, made: Lowering, most: float, wanted: Array, *, bias: bool = True
) -> tuple[Node, Array]:
    """Return weights of `on_units` in whole numbers, as fine as they can be, and the shifts to what is wanted."""
    grid = Grid.of(made.profile, [rows(x)])
    shift = np.floor(np.log2(largest_factor(x, most, grid.limit) / np.where(wanted > 0, wanted, 1.0)))
    shift = np.clip(shift, -31, 31)
    done = rounded(x, wanted * 2.0**shift, made.profile, grid, bias=bias)
    if done.said:
        made.notes.append(f"{name}: {done.said}")
    return done.node, shift


def shifted(source: str, name: str, made: Lowering, shift: Array, unit: Array, bits: int) -> Carried:
    """Write a shift behind weights, a number for each row, and return what leaves it."""
    by = compact(channelwise(shift, unit.shape))
    behind = Shift(shift=whole(by), bits=bits, fraction=uniform_fraction(unit))
    return Carried(made.add(f"{name}.units", behind, [source]), unit, float(Fixed(bits).max))


def channelwise(values: Array, shape: tuple[int, ...]) -> Array:
    """Return one number for each channel as one for each neuron."""
    return np.broadcast_to(values.reshape(-1, *(1,) * (len(shape) - 1)), shape)


@lower.register
def _(node: BatchNorm, name: str, made: Lowering) -> None:
    shape = made.graph.signals[name].shape
    gains = [per_channel(np.broadcast_to(part, shape), shape) for part in node.affine()]
    if any(gain is None for gain in gains) or len(shape) > 3:
        raise refused(node, name)
    gain, offset = (np.asarray(each) for each in gains)
    parts = made.arriving(name, channels=True, narrow=True)
    sources = [part.name for part in parts]
    units = parts[0].unit.reshape(len(gain), -1)[:, 0]
    kind = Conv2d if len(shape) == 3 else Conv1d
    weight = (gain / units).reshape(-1, *(1,) * (kind.axes + 1))
    x = kind(weight=weight, bias=offset, groups=len(gain))
    f, bits = made.fractions[name], made.profile.signal_bits
    finest, shift = finely(x, name, made, most_of(parts), np.full(len(gain), 2.0**f))
    if len(shape) == 1:
        sources = [made.add(f"{name}.column", Reshape((*shape, 1)), sources)]
    made.add(name, finest, sources)
    column = (*shape, 1) if len(shape) == 1 else shape
    carried = shifted(name, name, made, shift, np.full(column, 2.0**f), bits)
    if len(shape) == 1:
        row = made.add(f"{name}.row", Reshape(shape), [carried.name])
        carried = carried._replace(name=row, unit=carried.unit.reshape(shape))
    made.carried[name] = carried


def reading(node: Weights, name: str, made: Lowering) -> tuple[list[Carried], Any]:
    """Return what feeds weights, and the weights in float64 on its units."""
    if isinstance(node, Embedding):
        (edge,) = made.graph.into(name)
        return [Carried(edge.source, np.ones(1), 1.0, counts=True)], on_units(node, np.ones(1))
    parts = made.arriving(name, channels=isinstance(node, Convolution), narrow=True)
    return parts, on_units(node, parts[0].unit)


@lower.register
def _(node: Flatten, name: str, made: Lowering) -> None:
    parts = made.arriving(name)
    keep(node, name, made, parts, parts[0].unit.reshape(-1), most_of(parts))


@lower.register
def _(node: Reshape, name: str, made: Lowering) -> None:
    parts = made.arriving(name)
    keep(node, name, made, parts, parts[0].unit.reshape(node.shape), most_of(parts))


@lower.register
def _(node: TopK, name: str, made: Lowering) -> None:
    parts = made.arriving(name, uniform=True)
    keep(node, name, made, parts, parts[0].unit, most_of(parts))


@lower.register
def _(node: Delay, name: str, made: Lowering) -> None:
    if made.graph.recurrent:
        made.nodes[name] = node
    else:
        parts = made.arriving(name)
        keep(node, name, made, parts, parts[0].unit, most_of(parts))


def close(name: str, made: Lowering) -> None:
    """Feed a delay line that stands in a loop, once what feeds it is written."""
    for edge in made.graph.into(name):
        part = made.rescaled(made.carried[edge.source], made.carried[name].unit)
        made.edges.append(edge._replace(source=part.name))


@lower.register
def _(node: Pool2d, name: str, made: Lowering) -> None:
    pool(node, name, made, made.arriving(name, channels=True))


def pool(node: Pool2d, name: str, made: Lowering, parts: list[Carried]) -> None:
    """Write a pool; a mean as a sum, whose unit is larger."""
    assert isinstance(node.kernel, tuple)
    window = prod(node.kernel)
    channels = parts[0].unit.reshape(len(parts[0].unit), -1)[:, 0]
    shape = made.graph.signals[name].shape
    unit = np.broadcast_to(channels[:, None, None], shape)
    if isinstance(node, AvgPool2d):
        node = SumPool2d(kernel=node.kernel, stride=node.stride, padding=node.padding)
        unit = unit * window
    most = most_of(parts) * (1 if isinstance(node, MaxPool2d) else window)
    keep(node, name, made, parts, unit, held(most))


@lower.register
def _(node: Activation, name: str, made: Lowering) -> None:
    if node.function == "relu":
        parts = made.arriving(name)
        keep(node, name, made, parts, parts[0].unit, most_of(parts))
        return
    parts = made.arriving(name, uniform=True, narrow=True)
    unit = parts[0].unit.flat[0]
    places, shift = tabulated(made, most_of(parts), unit, SATURATES.get(node.function))
    f = made.fractions[name]
    decays = f == made.profile.decay_bits and f != 0 and node.function in ("sigmoid", "hardsigmoid")
    most = 2**f - 1 if decays else Fixed(made.profile.signal_bits).max
    table = np.clip(np.rint(FUNCTIONS[node.function](places) * 2.0**f), -most, most)
    entry = Lookup(table=whole(table), shift=shift, fraction=f)
    made.add(name, entry, [part.name for part in parts])
    made.carried[name] = made.at(name, name)._replace(
        most=held(np.abs(table).max()), positive=bool(np.all(table >= 0))
    )


def tabulated(made: Lowering, most: float, unit: float, saturates: float | None) -> tuple[Array, int]:
    """Return the numbers at which a function is tabulated, and by how much what it reads is shifted."""
    half = 2 ** (made.profile.table_bits - 1)
    needed = most if saturates is None else min(most, saturates * unit)
    shift = max(0, ceil(log2(max(needed, 1.0) / half)))
    return np.arange(-half, half) * 2.0**shift / unit, shift


@lower.register
def _(node: GLU, name: str, made: Lowering) -> None:
    parts = made.arriving(name, uniform=True, narrow=True)
    unit = float(parts[0].unit.flat[0])
    places, index = tabulated(made, most_of(parts), unit, SATURATES["sigmoid"])
    gate = min(made.profile.weight_bits - 1, int(log2(ROOM / most_of(parts))))
    table = np.minimum(np.rint(FUNCTIONS["sigmoid"](places) * 2.0**gate), 2.0**gate - 1)
    f, bits = made.fractions[name], made.profile.signal_bits
    entry = IntegerGLU(
        table=whole(table), index_shift=index, shift=int(log2(unit)) + gate - f, bits=bits, fraction=f
    )
    made.add(name, entry, [part.name for part in parts])
    made.carried[name] = made.at(name, name)


@lower.register
def _(node: Multiply, name: str, made: Lowering) -> None:
    sides = {port: made.arriving(name, port) for port in ("a", "b")}
    if most_of(sides["a"]) * most_of(sides["b"]) > ROOM:
        sides = {port: made.arriving(name, port, narrow=True) for port in ("a", "b")}
    most = {port: most_of(parts) for port, parts in sides.items()}
    if most["a"] * most["b"] > ROOM:
        raise refused(
            node,
            name,
            f"the product of numbers up to {most['a']:.0f} and {most['b']:.0f} does not fit in 32 bits",
        )
    unit = sides["a"][0].unit * sides["b"][0].unit
    made.nodes[name] = node
    for port, parts in sides.items():
        made.edges += [Edge(part.name, name, port) for part in parts]
    counts = all(part.counts for parts in sides.values() for part in parts)
    product = Carried(name, unit, held(most["a"] * most["b"]), counts)
    made.carried[name] = product
    if name in made.fractions and not counts:
        made.carried[name] = made.rescaled(product, np.full(unit.shape, 2.0 ** made.fractions[name]))


@lower.register
def _(node: Concatenate, name: str, made: Lowering) -> None:
    sides = {port: made.arriving(name, port) for port in node.ports}
    unit = np.concatenate([parts[0].unit for parts in sides.values()], axis=node.axis)
    made.nodes[name] = node
    for port, parts in sides.items():
        made.edges += [Edge(part.name, name, port) for part in parts]
    counts = all(part.counts for parts in sides.values() for part in parts)
    made.carried[name] = Carried(name, unit, max(most_of(parts) for parts in sides.values()), counts)

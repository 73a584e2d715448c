"""Which whole numbers leave each node: worked out from weights and formats, so that no sum can pass what holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from math import prod
from types import MappingProxyType

import numpy as np

from unscan.compiler.errors import InvalidGraph
from unscan.compiler.fixed import SPIKES, Fixed
from unscan.compiler.ir import INTEGERS, Array, Graph, Kind, Node, Signal
from unscan.compiler.nodes import (
    Activation,
    Concatenate,
    Convolution,
    Delay,
    Embedding,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Memory,
    Multiply,
    Output,
    Reshape,
    Scale,
    Spiking,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.integer import Integer, IntegerMemory

Ask = Callable[[str], Fixed | None]
"""The format of what arrives at a port, several edges added; None where real numbers do."""
WIDEST = 32
"""Bits of the widest sum."""


@singledispatch
def format_of(node: Node, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    """Return the format of what leaves a node that gets such inputs; None where it is real numbers."""
    return None


@format_of.register
def _(node: Integer, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    return node.format


@format_of.register
def _(node: Spiking | Threshold, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    return SPIKES


@format_of.register
def _(node: Input, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    return SPIKES if node.kind is Kind.SPIKE else None


@format_of.register
def _(
    node: Output | Flatten | Reshape | MaxPool2d | TopK | Delay, ask: Ask, inputs: Mapping[str, Signal]
) -> Fixed | None:
    return ask("x")


@format_of.register
def _(node: Activation, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    return ask("x") if node.function == "relu" else None


@format_of.register
def _(node: Linear | Convolution, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    x = ask("x") if node.weight.dtype in INTEGERS else None
    if x is None:
        return None
    reach = np.abs(whole(node.weight)).reshape(len(node.weight), -1).sum(axis=1) * x.max
    if node.bias is not None:
        reach = reach + np.abs(whole(node.bias))
    return Fixed.holding(int(reach.max()), x.fraction)


@format_of.register
def _(node: Embedding, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    if node.weight.dtype not in INTEGERS:
        return None
    return Fixed.holding(int(np.abs(whole(node.weight)).max()))


@format_of.register
def _(node: Scale, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    x = ask("x") if node.scale.dtype in INTEGERS else None
    return None if x is None else Fixed.holding(int(np.abs(whole(node.scale)).max()) * x.max, x.fraction)


@format_of.register
def _(node: SumPool2d, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    x = ask("x")
    assert isinstance(node.kernel, tuple)
    return None if x is None else Fixed.holding(prod(node.kernel) * x.max, x.fraction, signed=x.signed)


@format_of.register
def _(node: Multiply, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    a, b = ask("a"), ask("b")
    if a is None or b is None:
        return None
    return Fixed.holding(a.max * b.max, a.fraction + b.fraction, signed=a.signed or b.signed)


@format_of.register
def _(node: Concatenate, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    parts = [ask(port) for port in node.ports]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    largest, signed = max(part.max for part in known), any(part.signed for part in known)
    return Fixed.holding(largest, known[0].fraction, signed=signed)


@format_of.register
def _(node: Memory, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    return SPIKES if node.queries is None else None


@format_of.register
def _(node: IntegerMemory, ask: Ask, inputs: Mapping[str, Signal]) -> Fixed | None:
    if node.queries is None:
        return SPIKES
    q = ask("q")
    return None if q is None else Fixed.holding(inputs["k"].shape[0] * q.max, q.fraction, signed=q.signed)


def whole(values: Array) -> Array:
    """Return whole numbers in 64 bits."""
    return values.astype(np.int64)


def formats(graph: Graph) -> Mapping[str, Fixed | None]:
    """Return the format of what leaves each node, None where it is real numbers.

    Raises:
        InvalidGraph: whole numbers feed each other in a loop in which nothing bounds them.
    """
    found: dict[str, Fixed | None] = {}
    asked: list[str] = []

    def known(name: str) -> Fixed | None:
        if name not in found:
            if name in asked:
                loop = " -> ".join([*asked[asked.index(name) :], name])
                raise InvalidGraph(
                    f"In the loop {loop} nothing bounds the numbers; put a neuron or a Shift into it."
                )
            asked.append(name)
            found[name] = format_of(graph.nodes[name], lambda port: met(name, port), graph.inputs(name))
            asked.pop()
        return found[name]

    def met(name: str, port: str) -> Fixed | None:
        return added([known(edge.source) for edge in graph.into(name) if edge.port == port])

    return MappingProxyType({name: known(name) for name in graph.order})


def added(parts: list[Fixed | None]) -> Fixed | None:
    """Return the format of a sum of signals; None where one of them is real numbers."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if len(known) == 1:
        return known[0]
    fraction = known[0].fraction if len({part.fraction for part in known}) == 1 else 0
    return Fixed.holding(sum(part.max for part in known), fraction, signed=any(part.signed for part in known))


def arriving(graph: Graph, found: Mapping[str, Fixed | None], name: str, port: str) -> Fixed | None:
    """Return the format of what arrives at a port of a node, among the formats of a graph."""
    return added([found[edge.source] for edge in graph.into(name) if edge.port == port])

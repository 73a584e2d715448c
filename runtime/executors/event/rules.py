"""Compile a graph into a program: the rule of each node class says which rows it becomes.

Weights are stored so that the fan-out of one presynaptic neuron is contiguous. A Linear gathers by events where
spikes feed it, and multiplies by numbers otherwise: another way to compute it would be another `Op`, chosen here.
"""

from __future__ import annotations

from functools import singledispatch
from math import prod
from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Dialect, Graph, Kind, Node
from unscan.compiler.nodes import LI, LIF, Activation, BatchNorm, Flatten, Input, Linear, Output, Scale
from unscan.compiler.nodes.neurons import Leaky
from unscan.compiler.nodes.stateless import FUNCTIONS
from unscan.compiler.spec import check
from unscan.runtime.executors.event.program import LINE, VARIANTS, Assembly, Op, Program, Value
from unscan.runtime.executors.event.vector import LANES


def compile_graph(graph: Graph, dtype: np.dtype[Any]) -> Program:
    """Compile a graph of the iterative dialect, to compute in float32 or float64.

    Raises:
        Unsupported: a node of the parallel dialect, or a number that the format cannot hold.
        InvalidGraph: the graph breaks an invariant.
    """
    for name in graph.order:
        if graph.nodes[name].dialect is Dialect.PARALLEL:
            raise Unsupported(
                f"The event executor runs one step at a time and {type(graph.nodes[name]).__name__} {name!r} "
                "is a node of the parallel form; run the pass `unroll` on the graph first."
            )
    check(graph, Dialect.ITERATIVE, where="The graph given to the event executor")
    assembly = Assembly(graph, dtype)
    for name in graph.order:
        arriving = [assembly.sent[edge.source] for edge in graph.into(name)]
        assembly.sent[name] = rule(graph.nodes[name], name, assembly, arriving)
    return assembly.program()


@singledispatch
def rule(node: Node, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    """Write the rows of one node, fed by the values that arrive; return what it sends."""
    raise Unsupported(f"The event executor has no rule for {type(node).__name__} {name!r}.")


@rule.register
def _(node: Input, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    width, counter = prod(node.shape), assembly.counter(name)
    if node.kind is Kind.SPIKE:
        return Value(width, counter, events=assembly.events(width))
    buffer = assembly.buffer(width)
    assembly.emit(Op.COUNT, width, source=buffer, counter=counter)
    return Value(width, counter, buffer=buffer)


@rule.register
def _(node: Output, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    value = assembly.passed(name, arriving)
    assembly.emit(Op.STORE, value.width, source=assembly.numbers_of(value))
    return value


@rule.register
def _(node: Flatten, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    return assembly.passed(name, arriving)


@rule.register
def _(node: Linear, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    width = node.weight.shape[0]
    target = assembly.buffer(width)
    bias = 0 if node.bias is None else assembly.constants(node.bias[None], name)[0]
    assembly.emit(Op.START, width, target=target, params=bias, variant=int(node.bias is not None))
    start, pitch = assembly.constants(node.weight.T, name, LINE)
    for value in arriving:
        columns = {"target": target, "params": start, "pitch": pitch, "inputs": value.width}
        if value.events is not None:
            assembly.emit(Op.GATHER, width, list=value.events, **columns)
        else:
            source = assembly.numbers_of(value)
            assembly.emit(
                Op.MULTIPLY, width, source=source, list=assembly.found(source, value.width), **columns
            )
    return assembly.counted(name, target)


@rule.register
def _(node: Scale, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    shape = assembly.graph.signals[name].shape
    return affine(name, assembly, arriving, per_neuron(node.scale, shape), None)


@rule.register
def _(node: BatchNorm, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    shape = assembly.graph.signals[name].shape
    gain, offset = (per_neuron(a, shape) for a in node.affine())
    return affine(name, assembly, arriving, gain, offset)


def affine(name: str, assembly: Assembly, arriving: list[Value], gain: Array, offset: Array | None) -> Value:
    """Write y = g x + c; without an offset, what is silent stays silent."""
    source, target = assembly.joined(arriving), assembly.buffer(gain.size)
    both = np.stack([gain, np.zeros_like(gain) if offset is None else offset])
    start, pitch = assembly.constants(both, name)
    columns = {"params": start, "pitch": pitch, "variant": int(offset is not None)}
    assembly.emit(Op.AFFINE, gain.size, source=source, target=target, **columns)
    return assembly.counted(name, target)


@rule.register
def _(node: Activation, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    source = assembly.joined(arriving)
    width = arriving[0].width
    target = assembly.buffer(width)
    function = FUNCTIONS.index(node.function)
    assembly.emit(Op.ACTIVATE, width, source=source, target=target, variant=function)
    return assembly.counted(name, target)


@rule.register
def _(node: LI, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    shape = assembly.graph.signals[name].shape
    source, target = assembly.joined(arriving), assembly.buffer(prod(shape))
    start, pitch = assembly.constants(np.stack(decay_and_gain(node, shape, assembly.dtype)), name)
    assembly.emit(
        Op.LEAK,
        prod(shape),
        source=source,
        target=target,
        params=start,
        pitch=pitch,
        state=assembly.reserve(assembly.states, f"{name}.u", shape, LANES),
        membranes=assembly.reserve(assembly.membranes, name, shape),
    )
    return assembly.counted(name, target)


@rule.register
def _(node: LIF, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    shape = assembly.graph.signals[name].shape
    width, dtype = prod(shape), assembly.dtype
    source, target, counter = assembly.joined(arriving), assembly.events(width), assembly.counter(name)
    with np.errstate(over="ignore"):
        theta = per_neuron(node.threshold, shape).astype(dtype)
    if not (theta > 0).all():
        raise Unsupported(
            f"LIF {name!r} has a threshold that {dtype} rounds to 0; run the event executor in float64."
        )
    level = theta if node.fires == ">=" else np.nextafter(theta, dtype.type(np.inf))
    start, pitch = assembly.constants(np.stack([*decay_and_gain(node, shape, dtype), level, theta]), name)
    assembly.numbers[-1].reshape(4, pitch)[2, width:] = np.inf
    assembly.emit(
        Op.FIRE,
        width,
        source=source,
        list=target,
        params=start,
        pitch=pitch,
        counter=counter,
        state=assembly.reserve(assembly.states, f"{name}.u", shape, LANES),
        variant=VARIANTS[node.reset, node.phase],
        unit=assembly.units,
        spikes=assembly.reserve(assembly.spikes, name, shape),
        membranes=assembly.reserve(assembly.membranes, name, shape),
    )
    assembly.units += 1
    return Value(width, counter, events=target)


def decay_and_gain(node: Leaky, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return beta and g of every neuron, 1 - beta taken from the beta that is used."""
    beta = per_neuron(node.beta, shape).astype(dtype).astype(np.float64)
    return beta, np.ones_like(beta) if node.gain == "1" else 1 - beta


def per_neuron(parameter: Array, shape: tuple[int, ...]) -> Array:
    """Return a parameter (one number, or one per neuron of the last axis) for every neuron, flat, in float64."""
    return np.broadcast_to(parameter.astype(np.float64), shape).ravel()

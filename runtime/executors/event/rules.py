"""The rule of each node class says which rows of a program it becomes; here those of the nodes without memory.

Weights are stored so that the fan-out of one presynaptic neuron is contiguous. A Linear gathers by events where
spikes feed it, and multiplies by numbers otherwise: another way to compute it would be another `Op`, chosen here.
"""

from __future__ import annotations

from functools import singledispatch
from math import prod

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Kind, Node
from unscan.compiler.nodes import (
    GLU,
    Activation,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Convolution,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    Pool2d,
    Reshape,
    RMSNorm,
    Scale,
    TopK,
)
from unscan.compiler.nodes.stateless import FUNCTIONS
from unscan.runtime.executors.event.assembly import LINE, Assembly, Ports, Table, Value
from unscan.runtime.executors.event.fan_out import fans, mostly_zero, pairs, waking
from unscan.runtime.executors.event.geometry import Patches, reach
from unscan.runtime.executors.event.lines import LINE_BYTES
from unscan.runtime.executors.event.program import Op


@singledispatch
def rule(node: Node, name: str, assembly: Assembly, ports: Ports) -> Value:
    """Write the rows of one node, each port fed by the values that arrive there; return what it sends."""
    raise Unsupported(f"The event executor has no rule for {type(node).__name__} {name!r}.")


@rule.register
def _(node: Input, name: str, assembly: Assembly, ports: Ports) -> Value:
    width = prod(node.shape)
    if node.kind is Kind.SPIKE:
        return Value(width, assembly.counter(name), events=assembly.events(width))
    buffer = assembly.buffer(width)
    return Value(width, assembly.tell(name, buffer), buffer=buffer)


@rule.register
def _(node: Output, name: str, assembly: Assembly, ports: Ports) -> Value:
    value = assembly.passed(name, ports["x"])
    assembly.emit(Op.STORE, value.width, source=assembly.numbers_of(value))
    return value


@rule.register
def _(node: Flatten | Reshape, name: str, assembly: Assembly, ports: Ports) -> Value:
    return assembly.passed(name, ports["x"])


@rule.register
def _(node: Linear, name: str, assembly: Assembly, ports: Ports) -> Value:
    width = node.weight.shape[0]
    if any(waking(assembly.graph, edge.target) for edge in assembly.graph.out_of(name)):
        return Value(width, assembly.counter(name), fans=fans(node, name, assembly, ports["x"]))
    arriving = [(value, assembly.listed(value)) for value in ports["x"]]
    target = biased(name, assembly, width, node.bias)
    if mostly_zero(node.weight):
        whole, start = pairs(node, name, assembly)
        for value in ports["x"]:
            slide(Op.SCATTER, assembly, value, target, params=start, whole=whole, inputs=value.width)
        return assembly.counted(name, target)
    for value, events in arriving:
        columns = {"target": target, "inputs": value.width, "list": events}
        narrow = assembly.narrow_weights(node.weight.T) if value.events is not None else None
        if narrow is not None:
            start, pitch, bits = narrow
            assembly.emit(Op.NARROW, width, params=start, pitch=pitch, variant=bits, **columns)
            continue
        columns["params"], columns["pitch"] = assembly.constants(node.weight.T, name, LINE)
        assembly.widest = max(assembly.widest, value.width)
        if value.events is not None:
            assembly.emit(Op.GATHER, width, **columns)
        else:
            assembly.emit(Op.MULTIPLY, width, source=assembly.numbers_of(value), **columns)
    return assembly.counted(name, target)


@rule.register
def _(node: Convolution, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape, outs = assembly.graph.inputs(name)["x"].shape, len(node.weight) // node.groups
    places = assembly.graph.signals[name].shape[1:]
    bias = None if node.bias is None else np.repeat(node.bias, prod(places))
    target = biased(name, assembly, len(node.weight) * prod(places), bias)
    line = LINE_BYTES // assembly.dtype.itemsize
    made = Patches.of(node, shape[1:], places, line)
    start, pitch = assembly.constants(made.weights, name, LINE)
    sizes = (prod(shape[1:]), prod(places), node.weight.shape[1], outs, node.groups, pitch)
    whole = assembly.whole_numbers(*sizes, made.area, made.span, made.run, made.points, made.starts)
    assembly.scratch = max(assembly.scratch, node.groups * made.area + line * line)
    columns = {"params": start, "pitch": pitch, "inputs": shape[0], "whole": whole}
    for value in ports["x"]:
        slide(Op.CONVOLVE, assembly, value, target, **columns)
    return assembly.counted(name, target)


@rule.register
def _(node: Pool2d, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape, places = assembly.graph.inputs(name)["x"].shape, assembly.graph.signals[name].shape[1:]
    width = shape[0] * prod(places)
    target = biased(name, assembly, width, None)
    assert isinstance(node.kernel, tuple)
    whole = assembly.whole_numbers(prod(shape[1:]), prod(places), reach(node, shape[1:], node.kernel, places))
    slide(Op.POOL, assembly, assembly.together(ports["x"]), target, whole=whole)
    if isinstance(node, AvgPool2d):
        numbers, _ = assembly.constants(np.full((1, 1), prod(node.kernel), np.float64), name)
        assembly.emit(Op.DIVIDE, width, source=target, params=numbers)
    return assembly.counted(name, target)


@rule.register
def _(node: MaxPool2d, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape, places = assembly.graph.inputs(name)["x"].shape, assembly.graph.signals[name].shape[1:]
    target = assembly.buffer(shape[0] * prod(places))
    assert isinstance(node.kernel, tuple)
    whole = assembly.whole_numbers(prod(shape[1:]), prod(places), reach(node, shape[1:], node.kernel, places))
    value = assembly.together(ports["x"])
    columns = {"target": target, "whole": whole}
    if value.events is not None:
        assembly.emit(Op.LARGEST, value.width, list=value.events, variant=1, **columns)
    else:
        assembly.emit(Op.LARGEST, value.width, source=assembly.numbers_of(value), **columns)
    return assembly.counted(name, target)


def slide(op: Op, assembly: Assembly, value: Value, target: int, **columns: int) -> None:
    """Write the row in which events spread over space: those of spikes, or numbers that are not 0."""
    source = 0 if value.events is not None else assembly.numbers_of(value)
    variant = int(value.events is not None)
    events = assembly.listed(value)
    assembly.emit(op, value.width, source=source, list=events, target=target, variant=variant, **columns)


def biased(name: str, assembly: Assembly, width: int, bias: Array | None) -> int:
    """Return a buffer that starts every step at the bias, or at 0."""
    target = assembly.buffer(width)
    start = 0 if bias is None else assembly.constants(bias[None], name)[0]
    assembly.emit(Op.START, width, target=target, params=start, variant=int(bias is not None))
    return target


@rule.register
def _(node: Embedding, name: str, assembly: Assembly, ports: Ports) -> Value:
    rows, width = node.weight.shape
    if rows > 1 << np.finfo(assembly.dtype).nmant + 1:
        raise Unsupported(
            f"Embedding {name!r} has {rows} rows, more than {assembly.dtype} can count; run the event executor in "
            "float64."
        )
    words, counter = assembly.joined(ports["x"]), assembly.counter(name)
    start, pitch = assembly.constants(node.weight, name, LINE)
    held = node.weight.astype(assembly.dtype) != 0
    most = 2 * np.count_nonzero(held, axis=1) > width
    rare = held ^ most[:, None]
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(rare, axis=1))]) + rows + 1
    whole = assembly.whole_numbers(most, starts, np.nonzero(rare)[1])
    assembly.emit(Op.TELL, width, source=words, whole=whole, inputs=rows, counter=counter)
    return Value(width, counter, table=Table(words, rows, start, pitch, -1 if most.any() else whole + rows))


@rule.register
def _(node: Scale, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape = assembly.graph.signals[name].shape
    return affine(name, assembly, ports["x"], per_neuron(node.scale, shape), None)


@rule.register
def _(node: BatchNorm, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape = assembly.graph.signals[name].shape
    gain, offset = (per_neuron(a, shape) for a in node.affine())
    return affine(name, assembly, ports["x"], gain, offset)


def affine(name: str, assembly: Assembly, arriving: list[Value], gain: Array, offset: Array | None) -> Value:
    """Write y = g x + c; without an offset, what is silent stays silent."""
    source, target = assembly.joined(arriving), assembly.buffer(gain.size)
    both = np.stack([gain, np.zeros_like(gain) if offset is None else offset])
    start, pitch = assembly.constants(both, name)
    columns = {"params": start, "pitch": pitch, "variant": int(offset is not None)}
    assembly.emit(Op.AFFINE, gain.size, source=source, target=target, **columns)
    return assembly.counted(name, target)


@rule.register
def _(node: LayerNorm | RMSNorm, name: str, assembly: Assembly, ports: Ports) -> Value:
    bias = node.bias if isinstance(node, LayerNorm) else None
    offset = np.zeros_like(node.weight) if bias is None else bias
    numbers = np.stack([each.ravel() for each in (node.weight, offset, np.full_like(offset, node.epsilon))])
    start, pitch = assembly.constants(numbers, name)
    columns = {"params": start, "pitch": pitch, "inputs": node.weight.size}
    return mapped(Op.NORM, name, assembly, ports, variant=int(isinstance(node, LayerNorm)), **columns)


@rule.register
def _(node: Activation, name: str, assembly: Assembly, ports: Ports) -> Value:
    return mapped(Op.ACTIVATE, name, assembly, ports, variant=FUNCTIONS.index(node.function))


@rule.register
def _(node: GLU, name: str, assembly: Assembly, ports: Ports) -> Value:
    return mapped(Op.GATE, name, assembly, ports, inputs=assembly.graph.signals[name].shape[-1])


@rule.register
def _(node: TopK, name: str, assembly: Assembly, ports: Ports) -> Value:
    row = assembly.graph.signals[name].shape[-1]
    return mapped(Op.KEEP, name, assembly, ports, inputs=row, variant=node.count)


def mapped(op: Op, name: str, assembly: Assembly, ports: Ports, **columns: int) -> Value:
    """Write the row that makes one buffer out of another."""
    width, source = prod(assembly.graph.signals[name].shape), assembly.joined(ports["x"])
    target = assembly.buffer(width)
    assembly.emit(op, width, source=source, target=target, **columns)
    return assembly.counted(name, target)


@rule.register
def _(node: Multiply, name: str, assembly: Assembly, ports: Ports) -> Value:
    width = prod(assembly.graph.signals[name].shape)
    source, second, target = assembly.joined(ports["a"]), assembly.joined(ports["b"]), assembly.buffer(width)
    assembly.emit(Op.PRODUCT, width, source=source, second=second, target=target)
    return assembly.counted(name, target)


@rule.register
def _(node: Concatenate, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape, inputs = assembly.graph.signals[name].shape, assembly.graph.inputs(name)
    target, start, stride = assembly.buffer(prod(shape)), 0, prod(shape[node.axis :])
    for port in node.ports:
        source, block = assembly.joined(ports[port]), prod(inputs[port].shape[node.axis :])
        whole = assembly.whole_numbers(prod(shape[: node.axis]), block, stride, start)
        first = int(start == 0)
        assembly.emit(Op.PLACE, prod(shape), source=source, target=target, whole=whole, variant=first)
        start += block
    return assembly.counted(name, target)


def per_neuron(parameter: Array, shape: tuple[int, ...]) -> Array:
    """Return a parameter that broadcasts to a shape for every neuron, flat, in float64."""
    return np.broadcast_to(parameter.astype(np.float64), shape).ravel()

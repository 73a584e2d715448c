"""The rules of the nodes that keep a state: neurons, filters, delay lines and matrix memories."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array
from unscan.compiler.nodes import (
    LI,
    LIF,
    AdaptiveLIF,
    CubaLIF,
    Delay,
    Delta,
    DiagonalSSM,
    Linear,
    Memory,
    Spiking,
    StoredMemory,
    Threshold,
)
from unscan.compiler.nodes.neurons import RESETS, Leaky
from unscan.runtime.executors.event.assembly import Assembly, Ports, Value
from unscan.runtime.executors.event.dense import NEAR
from unscan.runtime.executors.event.program import VARIANTS, Column, Op, padded
from unscan.runtime.executors.event.rules import per_neuron, rule
from unscan.runtime.executors.event.vector import LANES


@rule.register
def _(node: LI, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape = assembly.graph.signals[name].shape
    numbers, source = decay_and_gain(node, shape, assembly.dtype), assembly.joined(ports["x"])
    places = {"membranes": assembly.reserve(assembly.membranes, name, shape)}
    return assembly.counted(name, leak(f"{name}.u", shape, assembly, source, numbers, **places))


def leak(
    state: str,
    shape: tuple[int, ...],
    assembly: Assembly,
    source: int,
    numbers: tuple[Array, Array],
    **columns: int,
) -> int:
    """Write the row of a leaking state of the given decay and gain; return the buffer that it fills."""
    target, (start, pitch) = assembly.buffer(prod(shape)), assembly.constants(np.stack(numbers), state)
    columns |= {"source": source, "target": target, "params": start, "pitch": pitch}
    place = assembly.reserve(assembly.states, state, shape, LANES)
    assembly.emit(Op.LEAK, prod(shape), state=place, **columns)
    return target


@rule.register
def _(node: LIF, name: str, assembly: Assembly, ports: Ports) -> Value:
    if all(value.fans for value in ports["x"]):
        return wake(node, name, assembly, ports["x"])
    return fire(node, name, assembly, assembly.joined(ports["x"]))


def wake(node: LIF, name: str, assembly: Assembly, arriving: list[Value]) -> Value:
    """Write the row of neurons that sleep in blocks, and which sparse weights feed."""
    columns = neurons(node, name, assembly)
    fed = [(*fan, layer) for layer, value in enumerate(arriving) for fan in value.fans]
    pitch, blocks = columns["pitch"], columns["pitch"] // LANES
    numbers = assembly.decays_late(name, len(arriving) * pitch, 1 + padded(blocks, LANES) + blocks)
    assembly.scratch = max(assembly.scratch, pitch)
    counters = np.array([value.counter for value in arriving])
    columns["whole"] = assembly.whole_numbers(len(arriving), len(fed), *numbers, counters, np.array(fed))
    return spiking(Op.WAKE, name, assembly, tally=assembly.touched[name], **columns)


@rule.register
def _(node: CubaLIF, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape, source = assembly.graph.signals[name].shape, assembly.joined(ports["x"])
    alpha = per_neuron(node.alpha, shape)
    numbers = (alpha, np.ones_like(alpha))
    current = leak(f"{name}.i", shape, assembly, source, numbers, variant=1)
    return fire(node, name, assembly, current)


def fire(node: LIF | CubaLIF, name: str, assembly: Assembly, source: int) -> Value:
    """Write the row of neurons that a buffer drives."""
    columns = neurons(node, name, assembly)
    layer(Op.LAYER, name, assembly, source)
    return spiking(Op.FIRE, name, assembly, source=source, **columns)


def neurons(node: LIF | CubaLIF, name: str, assembly: Assembly) -> dict[str, int]:
    """Hold the numbers of a layer of neurons, and reserve its membranes; return the columns that name them."""
    shape, dtype = assembly.graph.signals[name].shape, assembly.dtype
    level, theta = levels(node, name, shape, dtype)
    numbers = np.stack([*decay_and_gain(node, shape, dtype), level, theta])
    start, pitch = assembly.constants(numbers, name)
    return {
        "params": start,
        "pitch": pitch,
        "state": assembly.reserve(assembly.states, f"{name}.u", shape, LANES),
        "unit": assembly.unit(),
        "inputs": int((numbers == numbers[:, :1]).all()),
        "variant": VARIANTS[node.reset, node.phase],
    }


ARRIVING = {Op.LAYER: (Op.GATHER, Op.MULTIPLY), Op.WHOLE_LAYER: (Op.NARROW,)}
"""What weights a layer may have whose rows run at once."""


def layer(op: Op, name: str, assembly: Assembly, source: int) -> None:
    """Say that the rows of a Linear and those of the neurons that alone read it run at once, where they may.

    So they do if the Linear has one source, and weights that stay near; otherwise row after row.
    """
    graph, rows = assembly.graph, assembly.rows[-3:]
    (*_, before) = graph.into(name)
    linear = isinstance(graph.nodes[before.source], Linear) and len(graph.out_of(before.source)) == 1
    if not linear or [row[Column.OP] for row in rows[::2]] != [Op.START, Op.COUNT]:
        return
    start, arrive, count = rows
    bytes_each = arrive[Column.VARIANT] // 8 if op == Op.WHOLE_LAYER else assembly.dtype.itemsize
    size = arrive[Column.INPUTS] * arrive[Column.PITCH] * bytes_each
    if arrive[Column.OP] in ARRIVING[op] and count[Column.SOURCE] == source and size <= NEAR:
        if start[Column.VARIANT] == 0:
            start[Column.PARAMS], _ = assembly.constants(np.zeros((1, start[Column.WIDTH])), name)
        assembly.emit(op, 0, inputs=len(assembly.rows) - 2)
        assembly.rows[-4:] = [assembly.rows[-1], *rows]


@rule.register
def _(node: Threshold, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape, source = assembly.graph.signals[name].shape, assembly.joined(ports["x"])
    level, _ = levels(node, name, shape, assembly.dtype)
    start, pitch = assembly.constants(level[None], name)
    return spiking(Op.CROSS, name, assembly, source=source, params=start, pitch=pitch, inputs=1)


@rule.register
def _(node: AdaptiveLIF, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape, source = assembly.graph.signals[name].shape, assembly.joined(ports["x"])
    _, theta = levels(node, name, shape, assembly.dtype)
    tiring = (per_neuron(each, shape) for each in (node.kappa, node.rho))
    numbers = np.stack([*decay_and_gain(node, shape, assembly.dtype), theta, *tiring])
    start, pitch = assembly.constants(numbers, name)
    columns = {"params": start, "pitch": pitch, "inputs": len(numbers)}
    columns["state"] = assembly.reserve(assembly.states, f"{name}.u", shape, LANES)
    columns["held"] = assembly.reserve(assembly.states, f"{name}.a", shape, LANES)
    variant = RESETS.index(node.reset) + 3 * (node.fires == ">")
    return spiking(Op.TIRE, name, assembly, source=source, variant=variant, **columns)


def spiking(op: Op, name: str, assembly: Assembly, **columns: int) -> Value:
    """Write the row of a layer of neurons that fire."""
    shape = assembly.graph.signals[name].shape
    target, counter = assembly.events(prod(shape)), assembly.counter(name)
    columns["spikes"] = assembly.reserve(assembly.spikes, name, shape)
    columns["membranes"] = assembly.reserve(assembly.membranes, name, shape)
    assembly.emit(op, prod(shape), list=target, counter=counter, **columns)
    return Value(prod(shape), counter, events=target)


def decay_and_gain(node: Leaky, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return beta and g of every neuron, 1 - beta taken from the beta that is used."""
    beta = per_neuron(node.beta, shape).astype(dtype).astype(np.float64)
    return beta, np.ones_like(beta) if node.gain == "1" else 1 - beta


def levels(
    node: Spiking | Threshold | Memory, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """Return for every neuron the least membrane at which it fires, and theta, in the number format.

    Raises:
        Unsupported: the format rounds a threshold to 0.
    """
    with np.errstate(over="ignore"):
        theta = per_neuron(node.threshold, shape).astype(dtype)
    if not (theta > 0).all():
        raise Unsupported(
            f"{type(node).__name__} {name!r} has a threshold that {dtype} rounds to 0; run the event executor in "
            "float64."
        )
    return theta if node.fires == ">=" else np.nextafter(theta, dtype.type(np.inf)), theta


@rule.register
def _(node: DiagonalSSM, name: str, assembly: Assembly, ports: Ports) -> Value:
    channels, modes, _ = node.a.shape
    source, target = assembly.joined(ports["x"]), assembly.buffer(channels)
    numbers = np.zeros((3, max(node.a.size, channels)))
    numbers[0, : node.a.size], numbers[1, : node.a.size], numbers[2, :channels] = (
        node.a.flat,
        node.c.flat,
        node.d,
    )
    start, pitch = assembly.constants(numbers, name)
    columns = {"source": source, "target": target, "params": start, "pitch": pitch, "inputs": modes}
    state = assembly.reserve(assembly.states, f"{name}.h", node.a.shape, LANES)
    assembly.emit(Op.FILTER, channels, state=state, **columns)
    return assembly.counted(name, target)


BOTH, READ, TAKE = range(3)
"""What a row does with a delay line: both, give what it holds, or take what arrives."""


@rule.register
def _(node: Delay, name: str, assembly: Assembly, ports: Ports) -> Value:
    target, columns = assembly.buffer(prod(node.shape)), delay_line(node, name, assembly)
    variant = READ if assembly.graph.recurrent else BOTH
    source = 0 if assembly.graph.recurrent else assembly.joined(ports["x"])
    assembly.emit(Op.DELAY, prod(node.shape), source=source, target=target, variant=variant, **columns)
    return assembly.counted(name, target)


def delay_line(node: Delay, name: str, assembly: Assembly) -> dict[str, int]:
    """Reserve a delay line; return the columns that name it."""
    steps = np.broadcast_to(node.steps, node.shape)
    assembly.lines[name] = {
        "inputs": node.longest,
        "unit": assembly.unit(),
        "state": assembly.reserve(assembly.states, f"{name}.past", (node.longest, *node.shape), LANES),
        "whole": assembly.whole_numbers(steps),
    }
    return assembly.lines[name]


def take(name: str, assembly: Assembly, arriving: list[Value]) -> None:
    """Write the row in which a delay line of a loop takes what arrives, at the end of a step."""
    source = assembly.joined(arriving)
    assembly.emit(Op.DELAY, arriving[0].width, source=source, variant=TAKE, **assembly.lines[name])


@rule.register
def _(node: StoredMemory, name: str, assembly: Assembly, ports: Ports) -> Value:
    d, n = assembly.graph.membranes()[name]
    delta, scalar = isinstance(node, Delta), node.decay == "scalar"
    (level,), (theta,) = levels(node, name, (), assembly.dtype)
    bound = assembly.dtype.type(node.bound)
    if scalar and bound < np.finfo(assembly.dtype).tiny:
        raise Unsupported(
            f"{type(node).__name__} {name!r} rescales below {node.bound:g}, less than {assembly.dtype} holds in full; "
            "run the event executor in float64, or raise its bound."
        )
    columns = {"params": assembly.constants(np.array([[level, theta, bound]]), name)[0]}
    found = {port: assembly.port(ports[port], listed=port in ("v", "k")) for port in node.ports}
    settings = (d, n, node.queries or 0, int(delta), int(scalar), RESETS.index(node.reset))
    places = [found.get(port, found["v"]) for port in ("v", "k", "alpha", "beta", "q")]
    columns["whole"] = assembly.whole_numbers(*settings, assembly.may_fire(d * n), *np.ravel(places))
    assembly.scratch = max(assembly.scratch, n)
    columns["state"] = assembly.reserve(assembly.states, f"{name}.{'M' if scalar else 'S'}", (d, n), LANES)
    if scalar:
        columns["held"] = assembly.reserve(assembly.states, f"{name}.A", (1 if delta else n,), LANES)
    columns["tally"] = assembly.tally(name, "writes", "fired", *(["rescaled"] if scalar else []))
    return remembering(Op.MEMORY, node.queries, name, assembly, **columns)


def remembering(op: Op, queries: int | None, name: str, assembly: Assembly, **columns: int) -> Value:
    """Write the row of a matrix memory."""
    d, n = assembly.graph.membranes()[name]
    columns["spikes"] = assembly.reserve(assembly.spikes, name, (d, n))
    columns["membranes"] = assembly.reserve(assembly.membranes, name, (d, n))
    columns["unit"] = assembly.unit()
    if queries is None:
        target, counter = assembly.events(d * n), assembly.counter(name)
        assembly.emit(op, d * n, list=target, counter=counter, **columns)
        return Value(d * n, counter, events=target)
    target, counter = assembly.buffer(d * queries), assembly.counter(name)
    assembly.lengths[name] = assembly.events(LANES)
    assembly.emit(op, d * n, target=target, list=assembly.lengths[name], counter=counter, **columns)
    return Value(d * queries, counter, buffer=target)

"""The rules of the nodes on whole numbers; powers of two that scale them are held as numbers, exact in float64."""

from __future__ import annotations

from math import prod

import numpy as np

from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array
from unscan.compiler.nodes import (
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLeaky,
    IntegerLI,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    Lookup,
    Quantize,
    Shift,
)
from unscan.compiler.nodes.neurons import RESETS
from unscan.runtime.executors.event.assembly import Assembly, Ports, Value
from unscan.runtime.executors.event.integers import INTEGRATOR
from unscan.runtime.executors.event.program import STEPS, VARIANTS, Op, padded
from unscan.runtime.executors.event.rules import mapped, per_neuron, rule
from unscan.runtime.executors.event.stateful import layer, remembering, spiking
from unscan.runtime.executors.event.vector import LANES


@rule.register
def _(node: Quantize | Shift, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape = assembly.graph.signals[name].shape
    upwards = isinstance(node, Shift)
    exponent = -node.shift.astype(np.float64) if isinstance(node, Shift) else np.full((), node.fraction)
    start, pitch = assembly.constants(2.0 ** per_neuron(exponent, shape)[None], name)
    numbers(assembly, name, node.format.min, node.format.max)
    columns = {"params": start, "pitch": pitch, "tally": assembly.tally(name, "saturated")}
    return mapped(Op.RESCALE, name, assembly, ports, variant=int(upwards), **columns)


def numbers(assembly: Assembly, name: str, *values: float) -> None:
    """Hold numbers behind those of a row."""
    assembly.constants(np.array([values]), name)


@rule.register
def _(node: Lookup, name: str, assembly: Assembly, ports: Ports) -> Value:
    start, pitch = assembly.constants(node.table[None], name)
    numbers(assembly, name, 2.0**node.shift)
    speaks = int(node.table[len(node.table) // 2] != 0)
    columns = {"params": start, "pitch": pitch, "inputs": len(node.table), "variant": speaks}
    return mapped(Op.LOOKUP, name, assembly, ports, **columns)


@rule.register
def _(node: IntegerGLU, name: str, assembly: Assembly, ports: Ports) -> Value:
    start, pitch = assembly.constants(node.table[None], name)
    numbers(assembly, name, 2.0**node.index_shift, 2.0**node.shift, node.format.min, node.format.max)
    columns = {"params": start, "pitch": pitch, "inputs": assembly.graph.signals[name].shape[-1]}
    columns |= {"whole": assembly.whole_numbers(len(node.table)), "tally": assembly.tally(name, "saturated")}
    return mapped(Op.TABLE_GATE, name, assembly, ports, **columns)


@rule.register
def _(node: IntegerLI, name: str, assembly: Assembly, ports: Ports) -> Value:
    shape = assembly.graph.signals[name].shape
    target, nothing = assembly.buffer(prod(shape)), np.zeros(())
    columns = integrating(node, name, assembly, ports, nothing, nothing)
    columns["membranes"] = assembly.reserve(assembly.membranes, name, shape)
    assembly.emit(Op.INTEGRATE, prod(shape), target=target, variant=INTEGRATOR, **columns)
    return assembly.counted(name, target)


@rule.register
def _(node: IntegerLIF, name: str, assembly: Assembly, ports: Ports) -> Value:
    alpha = node.alpha if isinstance(node, IntegerCubaLIF) else np.zeros(())
    columns = integrating(node, name, assembly, ports, node.threshold, alpha)
    if not isinstance(node, IntegerCubaLIF):
        layer(Op.WHOLE_LAYER, name, assembly, columns["source"])
    return spiking(Op.INTEGRATE, name, assembly, variant=VARIANTS[node.reset, node.phase], **columns)


def integrating(
    node: IntegerLeaky, name: str, assembly: Assembly, ports: Ports, theta: Array, alpha: Array
) -> dict[str, int]:
    """Hold the numbers and reserve the states of a layer that integrates what arrives; return its columns."""
    shape, one = assembly.graph.signals[name].shape, 2.0**node.decay_bits
    bias = np.zeros(()) if node.bias is None else node.bias
    held = isinstance(node, IntegerCubaLIF)
    each = (node.beta / one, bias, theta, alpha / one)
    vectors = np.stack([per_neuron(values, shape) for values in each])
    start, pitch = assembly.constants(vectors, name)
    numbers(assembly, name, 2.0**node.shift, 2.0**node.bits)
    alike = int((vectors == vectors[:, :1]).all())
    columns = {"source": assembly.joined(ports["x"]), "params": start, "pitch": pitch, "inputs": alike}
    columns["whole"] = assembly.whole_numbers(int(node.wraps), int(held), int(bias.any()))
    if held:
        columns["held"] = assembly.reserve(assembly.states, f"{name}.i", shape, LANES)
    columns["state"] = assembly.reserve(assembly.states, f"{name}.u", shape, LANES)
    return columns | {"unit": assembly.unit(), "tally": assembly.tally(name, "saturated")}


@rule.register
def _(node: IntegerSSM, name: str, assembly: Assembly, ports: Ports) -> Value:
    channels, modes, _ = node.a.shape
    rows = np.zeros((3, max(node.a.size, channels)))
    rows[0, : node.a.size] = node.a.ravel() / 2.0**node.decay_bits
    rows[1, : node.a.size], rows[2, :channels] = node.c.flat, node.d
    start, pitch = assembly.constants(rows, name)
    numbers(assembly, name, 2.0**node.shift, 2.0**node.out_shift, Fixed(node.bits).max, node.format.max)
    columns = {"params": start, "pitch": pitch, "inputs": modes, "unit": assembly.unit()}
    columns["whole"] = assembly.whole_numbers(padded(node.a.size, LANES))
    columns["state"] = assembly.reserve(assembly.states, f"{name}.h", node.a.shape, LANES)
    return mapped(Op.TURN, name, assembly, ports, tally=assembly.tally(name, "saturated"), **columns)


@rule.register
def _(node: IntegerMemory, name: str, assembly: Assembly, ports: Ports) -> Value:
    d, n = assembly.graph.membranes()[name]
    v, k = (assembly.together(ports[port]) for port in ("v", "k"))
    columns = {"source": assembly.numbers_of(v), "second": assembly.numbers_of(k)}
    columns["params"] = assembly.params
    numbers(assembly, name, int(node.threshold), Fixed(node.bits).max, 2.0**node.shift, 2.0**node.decay_bits)
    alpha = assembly.joined(ports["alpha"])
    q = 0 if node.queries is None else assembly.joined(ports["q"])
    read = (alpha, q, assembly.listed(v), assembly.listed(k))
    columns["tally"] = assembly.tally(name, "writes", "fired", "saturated")
    kept = (*assembly.bitmap(d * n), *assembly.decays_late(name, n * STEPS, 2 * d * n + 2))
    columns["whole"] = assembly.whole_numbers(d, n, node.queries or 0, RESETS.index(node.reset), *read, *kept)
    columns["state"] = assembly.reserve(assembly.states, f"{name}.S", (d, n), LANES)
    return remembering(Op.RECALL, node.queries, name, assembly, **columns)

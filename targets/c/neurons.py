"""C for neurons on real numbers, and for what all layers of neurons share: their loop, their list, their rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unscan.compiler.nodes import LI, LIF, AdaptiveLIF, CubaLIF, Leaky, Threshold
from unscan.targets.c.program import Program, emit_node
from unscan.targets.c.values import Numbers, Spikes, Value, index_type


class Firing:
    """The parts of the loop over neurons that fire: `r` is the membrane, `fired` whether it fires.

    Attributes:
        spikes: what leaves the layer.
        lines: record both, and mark the neuron.
        after: lists those that fire, once the loop is over.
        recorded: members that a recording step writes.
    """

    def __init__(self, program: Program, name: str, membrane: str) -> None:
        shape = program.graph.membranes()[name]
        width = program.width(name)
        of = index_type(width)
        count = program.called(name, "n")
        marks = program.work(name, "uint8_t", width)
        self.spikes = Spikes(width, program.work(name, of, width), count, marks)
        self.after = program.listing(self.spikes)
        reached = program.records(name, "membrane", membrane, shape)
        fired = program.records(name, "spikes", "uint8_t", shape)
        self.recorded = (reached, fired)
        self.lines = tuple(
            line
            for line in (
                None if reached is None else f"{reached}[i] = ({membrane})r;",
                None if fired is None else f"{fired}[i] = (uint8_t)fired;",
                f"{marks}[i] = (uint8_t)fired;",
            )
            if line is not None
        )
        program.say(f"int32_t {count} = 0;")


def awake_layer(
    program: Program,
    name: str,
    x: Value,
    body: Sequence[str],
    awake: str | None,
    recorded: tuple[str | None, ...],
    after: str | None = None,
) -> None:
    """Write the loop over the neurons of a layer that gets x, `v` in it, and the line `after` it.

    A layer sleeps while nothing arrives and nothing is left: `awake` is not 0 where a neuron keeps something, None for
    a layer that never sleeps. What is `recorded` of one that sleeps is 0.
    """
    read = program.numbers(name, x)
    width = program.width(name)
    if read.silent is None or awake is None:
        read = program.filled(read)
        program.each(width, f"const {read.type} v = {read.array}[i];", *body)
        program.say(after)
        return
    flag = program.member(name, "awake", "uint8_t", 0)
    program.resting.append(flag)
    program.say(f"if (!({read.silent}) || {flag}) {{")
    ready = program.filled(read)
    program.say("int some = 0;")
    program.each(width, f"const {read.type} v = {ready.array}[i];", *body, f"some |= {awake} != 0;")
    program.say(f"{flag} = (uint8_t)some;", after, "}")
    places = [place for place in recorded if place is not None]
    if places:
        program.say("else {", *(f"memset({place}, 0, sizeof({place}));" for place in places), "}")


def gain(node: Leaky, program: Program, name: str, x: str) -> str:
    """Return g x."""
    if node.gain == "1":
        return x
    kept = 1 - node.beta.astype(program.real_type).astype(np.float64)
    return f"{program.parameter(name, 'gain', kept, program.real)('i')} * {x}"


def number(program: Program, name: str, what: str, values: np.ndarray) -> str:
    """Return a parameter of neuron i."""
    return program.parameter(name, what, values, program.real)("i")


def as_real(program: Program, of: str, expression: str) -> str:
    """Return a number as a real one."""
    return expression if of == program.real else f"({program.real}){expression}"


@emit_node.register
def _(node: LI, program: Program, name: str, x: Value) -> Value:
    shape, read, real = program.graph.signals[name].shape, program.dense(name, x), program.real
    u = program.state(name, "u", real, shape)
    beta = number(program, name, "beta", node.beta)
    drive = gain(node, program, name, as_real(program, read.type, f"{read.array}[i]"))
    membrane = program.records(name, "membrane", real, shape)
    program.each(
        program.width(name),
        f"{u}[i] = {beta} * {u}[i] + {drive};",
        *(() if membrane is None else (f"{membrane}[i] = {u}[i];",)),
    )
    return Numbers(program.width(name), real, u)


@emit_node.register
def _(node: Threshold, program: Program, name: str, x: Value) -> Value:
    held = program.meets(name)
    read = program.dense(name, x)
    kind = program.real if held is None else read.type
    firing = Firing(program, name, kind)
    if held is None:
        theta = number(program, name, "threshold", node.threshold)
        v = as_real(program, read.type, f"{read.array}[i]")
    else:
        least = np.ceil(node.threshold.astype(np.float64)) if node.fires == ">=" else np.floor(node.threshold)
        theta = program.parameter(name, "threshold", np.minimum(least, 2**62).astype(np.int64))("i")
        v = f"{read.array}[i]"
    program.each(
        program.width(name),
        f"const {kind} r = {v};",
        f"const int fired = r {node.fires} {theta};",
        *firing.lines,
    )
    program.say(firing.after)
    return firing.spikes


@emit_node.register
def _(node: LIF, program: Program, name: str, x: Value) -> Value:
    return fire(node, program, name, x, ())


@emit_node.register
def _(node: CubaLIF, program: Program, name: str, x: Value) -> Value:
    i = program.state(name, "i", program.real, program.graph.signals[name].shape)
    alpha = number(program, name, "alpha", node.alpha)
    return fire(node, program, name, x, (f"{i}[i] = {alpha} * {i}[i] + VALUE;",), f"{i}[i]")


def fire(
    node: LIF | CubaLIF, program: Program, name: str, x: Value, before: tuple[str, ...], drive: str = "VALUE"
) -> Value:
    """Write the neurons that `drive` drives, after the lines `before`, in which VALUE stands for what arrives."""
    real = program.real
    beta, theta = (number(program, name, what, getattr(node, what)) for what in ("beta", "threshold"))
    firing = Firing(program, name, real)
    u = f"{program.state(name, 'u', real, program.graph.signals[name].shape)}[i]"
    read = program.dense(name, x)
    v = as_real(program, read.type, f"{read.array}[i]")
    reached = f"{beta} * {u} + {gain(node, program, name, drive.replace('VALUE', v))}"
    lines = [line.replace("VALUE", v) for line in before]
    kept = "r"
    if node.phase == "next" and node.reset != "none":
        lines.append(f"const int last = {u} {node.fires} {theta};")
        after = f"last ? 0 : {reached}" if node.reset == "zero" else f"{reached} - (last ? {theta} : 0)"
        lines.append(f"const {real} r = {after};")
    else:
        lines.append(f"const {real} r = {reached};")
        kept = {"none": "r", "zero": "fired ? 0 : r", "subtract": f"fired ? r - {theta} : r"}[node.reset]
    lines += [
        f"const int fired = r {node.fires} {theta};",
        *firing.lines,
    ]
    program.each(program.width(name), *lines, f"{u} = {kept};")
    program.say(firing.after)
    return firing.spikes


@emit_node.register
def _(node: AdaptiveLIF, program: Program, name: str, x: Value) -> Value:
    real, shape = program.real, program.graph.signals[name].shape
    beta, theta, kappa, rho = (
        number(program, name, what, getattr(node, what)) for what in ("beta", "threshold", "kappa", "rho")
    )
    firing = Firing(program, name, real)
    u, a = (f"{program.state(name, what, real, shape)}[i]" for what in ("u", "a"))
    read = program.dense(name, x)
    v = gain(node, program, name, as_real(program, read.type, f"{read.array}[i]"))
    kept = {"none": "r", "zero": "fired ? 0 : r", "subtract": f"fired ? r - {theta} : r"}[node.reset]
    program.each(
        program.width(name),
        f"const {real} r = {beta} * {u} + {v};",
        f"const int fired = r {node.fires} {theta} + {kappa} * {a};",
        *firing.lines,
        f"{u} = {kept};",
        f"{a} = {rho} * {a} + ({real})fired;",
    )
    program.say(firing.after)
    return firing.spikes

"""C for what remembers without firing: delay lines and state-space filters."""

from __future__ import annotations

import numpy as np

from unscan.compiler.nodes import Delay, DiagonalSSM, Flatten, Output, Reshape
from unscan.targets.c.neurons import as_real
from unscan.targets.c.program import Program, emit_node, push_node
from unscan.targets.c.values import BYTES, Numbers, Value


@emit_node.register
def _(node: Delay, program: Program, name: str) -> Value:
    kind, width, longest = program.type_of(name), program.width(name), node.longest
    head = None if longest == 1 else program.member(name, "head", "int32_t", 0)
    past = program.state(
        name, "past", kind, (longest, *node.shape), None if head is None else head.removeprefix("s->")
    )
    steps = np.broadcast_to(node.steps.astype(np.int64), node.shape)
    uniform = bool((steps == steps.flat[0]).all())
    onward = [program.graph.nodes[edge.target] for edge in program.graph.out_of(name)]
    if uniform:
        row, at = program.called(name, "row"), past
        if head is not None:
            at = f"{past} + ({head} + {int(steps.flat[0]) - 1}) % {longest} * {width}"
        program.say(f"const {kind} *const {row} = {at};")
        if not any(isinstance(target, Delay | Flatten | Reshape | Output) for target in onward):
            return program.listed(name, row, width) if kind == "uint8_t" else Numbers(width, kind, row)
        array, read = program.work(name, kind, width), f"{row}[i]"
    else:
        back = program.parameter(name, "steps", steps - 1)("i")
        array, read = program.work(name, kind, width), f"{past}[({head} + {back}) % {longest} * {width} + i]"
    program.each(width, f"{array}[i] = {read};")
    return program.listed(name, array, width) if kind == "uint8_t" else Numbers(width, kind, array)


@push_node.register
def _(node: Delay, program: Program, name: str, x: Value) -> None:
    kind, width, longest = program.type_of(name), program.width(name), node.longest
    past = f"s->{program.called(name, 'past')}"
    row = past
    if longest > 1:
        head, row = f"s->{program.called(name, 'head')}", program.called(name, "newest")
        program.say(
            "",
            f"{head} = ({head} + {longest - 1}) % {longest};",
            f"{kind} *const {row} = {past} + {head} * {width};",
        )
    if not isinstance(x, Numbers):
        program.say(f"memset(&{row}[0], 0, {BYTES[kind] * width});")
        program.each(x.count, f"{row}[{x.list}[k]] = 1;", index="k")
        return
    read = program.dense(name, x)
    program.each(width, f"{row}[i] = ({kind}){read.array}[i];")


@emit_node.register
def _(node: DiagonalSSM, program: Program, name: str, x: Value) -> Value:
    real, (channels, modes, _) = program.real, node.a.shape
    read = program.dense(name, x)
    a, c, d = (program.table(name, what, getattr(node, what), real) for what in ("a", "c", "d"))
    h = program.state(name, "h", real, node.a.shape)
    array = program.work(name, real, channels)
    program.each(
        channels,
        f"const {real} drive = {as_real(program, read.type, f'{read.array}[i]')};",
        f"{real} sum = 0;",
        f"for (int32_t m = i * {2 * modes}; m < (i + 1) * {2 * modes}; m += 2) {{",
        f"const {real} real = {a}[m] * {h}[m] - {a}[m + 1] * {h}[m + 1] + drive;",
        f"const {real} imaginary = {a}[m] * {h}[m + 1] + {a}[m + 1] * {h}[m];",
        f"{h}[m] = real;",
        f"{h}[m + 1] = imaginary;",
        f"sum += {c}[m] * real - {c}[m + 1] * imaginary;",
        "}",
        f"{array}[i] = 2 * sum + {d}[i] * drive;",
    )
    return Numbers(channels, real, array)

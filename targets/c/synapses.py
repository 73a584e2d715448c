"""C for what spreads events: Linear, convolutions, sums over windows, Embedding."""

from __future__ import annotations

from math import prod

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array
from unscan.compiler.nodes import AvgPool2d, Convolution, Embedding, Linear, MaxPool2d, Pool2d
from unscan.compiler.nodes.convolution import Window
from unscan.targets.c.program import Program, emit_node
from unscan.targets.c.values import BYTES, Numbers, Spikes, Value, integer_type, literal, narrowest


def number_type(program: Program, name: str, values: Array) -> str:
    """Return the type in which a node's weights are stored: real, or the narrowest whole numbers that hold them."""
    return program.real if program.is_real(program.type_of(name)) else narrowest(values)


def spread(
    program: Program, name: str, x: Value, bias: Array | None, repeat: int, body: tuple[str, ...]
) -> Numbers:
    """Write the sums that events make: `body` adds those of the event at j (of number v, where x carries numbers).

    bias: what the sums begin with, each number of it `repeat` times; 0 where None, and then they are silent where
    nothing arrives.
    """
    kind, width = program.type_of(name), program.width(name)
    y = Numbers(width, kind, program.work(name, kind, width))
    pointer = f"{kind} *const y = {y.array};"
    if bias is not None:
        table = program.table(name, "bias", bias, number_type(program, name, bias))
        program.each(width, f"{y.array}[i] = {table}[{'i' if repeat == 1 else f'i / {repeat}'}];")
    if isinstance(x, Spikes):
        quiet, start = (None, None) if bias is not None else (f"{x.count} == 0", program.cleared(y))
        program.say("{" if quiet is None else f"if ({x.count} != 0) {{", pointer, start)
        program.each(x.count, f"const int32_t j = {x.list}[e];", *body, index="e")
    else:
        quiet, first = None, tuple[str, ...]()
        if bias is None:
            counted = program.called(name, "n")
            quiet, first = f"{counted} == 0", (f"if ({counted}++ == 0) {{", program.cleared(y), "}")
            program.say(f"int32_t {counted} = 0;")
        program.say("{" if x.silent is None else f"if (!({x.silent})) {{", pointer)
        none = ("if (v == 0) {", "continue;", "}")
        program.each(x.width, f"const {x.type} v = {x.array}[j];", *none, *first, *body, index="j")
    program.say("}")
    return Numbers(width, kind, y.array, quiet)


def product(program: Program, name: str, x: Value, weight: str) -> str:
    """Return what one event adds through a weight, in the type of the sums."""
    kind = program.type_of(name)
    if isinstance(x, Spikes):
        return weight
    if program.is_real(kind):
        return f"{weight} * {'v' if x.type == kind else f'({kind})v'}"
    return f"({'int64_t' if kind == 'int64_t' else 'int32_t'}){weight} * v"


def added(program: Program, name: str, target: str, what: str) -> str:
    """Return the line that adds to a sum."""
    kind = program.type_of(name)
    return f"{target} = ({kind})({target} + {what});" if BYTES[kind] < 4 else f"{target} += {what};"


@emit_node.register
def _(node: Linear, program: Program, name: str, x: Value) -> Value:
    kind = number_type(program, name, node.weight)
    sums = program.width(name)
    fan_out = np.ascontiguousarray(node.weight.T)
    present = fan_out != 0
    links, place = int(present.sum()), integer_type(max(sums - 1, 0))
    offset = integer_type(links)
    short = links * (BYTES[kind] + BYTES[place]) + (len(fan_out) + 1) * BYTES[offset]
    if 2 * short < BYTES[kind] * fan_out.size:
        weight = program.table(name, "weight", fan_out[present], kind)
        target = program.table(name, "target", np.nonzero(present)[1], place)
        first = program.table(name, "first", np.concatenate([[0], np.cumsum(present.sum(axis=1))]), offset)
        loop = f"for (int32_t k = {first}[j]; k < {first}[j + 1]; k++) {{"
        at, read = f"{target}[k]", f"{weight}[k]"
        head: tuple[str, ...] = ()
    else:
        weight = program.table(name, "weight", fan_out, kind)
        head = (f"const {kind} *const w = {weight} + (size_t)j * {sums};",)
        loop, at, read = f"for (int32_t o = 0; o < {sums}; o++) {{", "o", "w[o]"
    return spread(
        program,
        name,
        x,
        node.bias,
        1,
        (*head, loop, added(program, name, f"y[{at}]", product(program, name, x, read)), "}"),
    )


@emit_node.register
def _(node: Embedding, program: Program, name: str, x: Value) -> Value:
    kind, width = program.type_of(name), node.weight.shape[1]
    if not isinstance(x, Numbers) or x.type != "int32_t":
        raise Unsupported("it is read by an index, which the Input alone gives")
    table, row = program.table(name, "weight", node.weight, kind), program.called(name, "row")
    program.say(f"const {kind} *const {row} = {table} + (size_t){x.array}[0] * {width};")
    return Numbers(width, kind, row)


def over_windows(
    node: Window, kernel: tuple[int, ...], dilation: tuple[int, ...], space: tuple[int, ...], places: tuple[int, ...],
    body: tuple[str, ...],
) -> tuple[str, ...]:  # fmt: skip
    """Return the loops over the windows that see the number j = (c, row, column).

    For each, `body` runs with p, the window's place among all of a channel, and `ky`, `kx`, where it sees the number.
    """
    assert isinstance(node.stride, tuple)
    assert isinstance(node.padding, tuple)
    lead = (1,) * (2 - node.axes)
    (height, width), (rows, columns) = (*lead, *space), (*lead, *places)
    sizes, steps, strides = (*lead, *kernel), (*lead, *dilation), (*lead, *node.stride)
    before = (*(0,) * (2 - node.axes), *node.padding[: node.axes])
    return (
        f"const int32_t c = j / {height * width};",
        f"const int32_t row = j / {width} % {height} + {before[0]}, column = j % {width} + {before[1]};",
        f"for (int32_t ky = 0; ky < {sizes[0]}; ky++) {{",
        f"const int32_t down = row - ky * {steps[0]};",
        f"if (down < 0 || down % {strides[0]} != 0 || down / {strides[0]} >= {rows}) {{",
        "continue;",
        "}",
        f"for (int32_t kx = 0; kx < {sizes[1]}; kx++) {{",
        f"const int32_t along = column - kx * {steps[1]};",
        f"if (along < 0 || along % {strides[1]} != 0 || along / {strides[1]} >= {columns}) {{",
        "continue;",
        "}",
        f"const int32_t p = down / {strides[0]} * {columns} + along / {strides[1]};",
        *body,
        "}",
        "}",
    )


@emit_node.register
def _(node: Convolution, program: Program, name: str, x: Value) -> Value:
    assert isinstance(node.dilation, tuple)
    shape, places = program.graph.inputs(name)["x"].shape, program.graph.signals[name].shape[1:]
    (out, part, *kernel), groups, sites = node.weight.shape, node.groups, prod(places)
    each, size = out // groups, prod(kernel)
    spread_out = node.weight.reshape(groups, each, part, size).transpose(0, 2, 3, 1)
    kind = number_type(program, name, node.weight)
    weight = program.table(name, "weight", spread_out, kind)
    group = "" if groups == 1 else f" + c / {part} * {each * sites}"
    body = over_windows(
        node,
        tuple(kernel),
        node.dilation,
        shape[1:],
        places,
        (
            f"const {kind} *const w = {weight} + ((size_t)c * {size} + ky * {kernel[-1]} + kx) * {each};",
            f"for (int32_t o = 0; o < {each}; o++) {{",
            added(
                program,
                name,
                f"y[{f'o * {sites} + p' if sites > 1 else 'o + p'}{group}]",
                product(program, name, x, "w[o]"),
            ),
            "}",
        ),
    )
    return spread(program, name, x, node.bias, sites, body)


@emit_node.register
def _(node: Pool2d, program: Program, name: str, x: Value) -> Value:
    assert isinstance(node.kernel, tuple)
    shape, places = program.graph.inputs(name)["x"].shape, program.graph.signals[name].shape[1:]
    kind = program.type_of(name)
    value = "1" if isinstance(x, Spikes) else f"({kind})v"
    body = (added(program, name, f"y[c * {prod(places)} + p]", value),)
    y = spread(program, name, x, None, 1, over_windows(node, node.kernel, (1, 1), shape[1:], places, body))
    if not isinstance(node, AvgPool2d):
        return y
    with program.unless(y.silent):
        program.each(y.width, f"{y.array}[i] /= {literal(prod(node.kernel), program.real)};")
    return y


@emit_node.register
def _(node: MaxPool2d, program: Program, name: str, x: Value) -> Value:
    assert isinstance(node.kernel, tuple)
    assert isinstance(node.stride, tuple)
    assert isinstance(node.padding, tuple)
    height, width = program.graph.inputs(name)["x"].shape[1:]
    rows, columns = program.graph.signals[name].shape[1:]
    seen = program.numbers(name, x)
    kind = seen.type
    y = Numbers(program.width(name), kind, program.work(name, kind, program.width(name)), seen.silent)
    with program.unless(seen.silent):
        program.each(
            y.width,
            f"const int32_t c = i / {rows * columns};",
            f"const int32_t top = i / {columns} % {rows} * {node.stride[0]} - {node.padding[0]};",
            f"const int32_t left = i % {columns} * {node.stride[1]} - {node.padding[1]};",
            "int some = 0;",
            f"{kind} most = 0;",
            f"for (int32_t row = top; row < top + {node.kernel[0]}; row++) {{",
            f"for (int32_t column = left; column < left + {node.kernel[1]}; column++) {{",
            f"if (row < 0 || row >= {height} || column < 0 || column >= {width}) {{",
            "continue;",
            "}",
            f"const {kind} v = {seen.array}[(c * {height} + row) * {width} + column];",
            "if (!some || v > most) {",
            "most = v;",
            "}",
            "some = 1;",
            "}",
            "}",
            f"{y.array}[i] = most;",
        )
    return y

"""C for operators without memory: elementwise ones, norms, shapes, products, the largest of a row."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, prod, sqrt

from unscan.compiler.ir import Kind
from unscan.compiler.nodes import (
    GLU,
    Activation,
    BatchNorm,
    Concatenate,
    Flatten,
    Input,
    LayerNorm,
    Multiply,
    Output,
    Reshape,
    RMSNorm,
    Scale,
    TopK,
)
from unscan.compiler.nodes.stateless import ZERO_AT_ZERO
from unscan.targets.c.program import Program, emit_node
from unscan.targets.c.values import REALS, Numbers, Value, literal


def elementwise(
    program: Program,
    name: str,
    x: Value,
    result: Callable[[str, str], str],
    *,
    keeps: bool = True,
    bind: bool = False,
    of: str | None = None,
) -> Numbers:
    """Write y = f(x) number by number: `result` is f in C, given x and the index.

    keeps: f(0) = 0. bind: the number stands in a variable `v`, for an f that reads it more than once. of: the type in
    which f reads it, its own where None.
    """
    read = program.numbers(name, x)
    if not keeps:
        read = program.filled(read)
    kind, width = program.type_of(name), program.width(name)
    y = Numbers(width, kind, program.work(name, kind, width), read.silent)
    number = f"{read.array}[i]" if of in (None, read.type) else f"({of}){read.array}[i]"
    value = result("v" if bind else number, "i")
    before = (f"const {of or read.type} v = {number};",) if bind else ()
    stored = value if kind in REALS else f"({kind})({value})"
    with program.unless(read.silent):
        program.each(width, *before, f"{y.array}[i] = {stored};")
    return y


@emit_node.register
def _(node: Input, program: Program, name: str) -> Value:
    width = program.width(name)
    if node.kind is Kind.SPIKE:
        return program.listed(name, "in", width)
    if node.kind is Kind.INDEX:
        return Numbers(width, "int32_t", "in")
    return Numbers(width, program.real if program.encoder is None else program.type_of(program.encoder), "in")


@emit_node.register
def _(node: Output | Flatten | Reshape, program: Program, name: str, x: Value) -> Value:
    return x


@emit_node.register
def _(node: Scale, program: Program, name: str, x: Value) -> Value:
    kind = program.type_of(name)
    if kind in REALS:
        scale = program.parameter(name, "scale", node.scale, kind)
    else:
        scale = program.parameter(name, "scale", node.scale)
        kind = "int64_t" if kind == "int64_t" else "int32_t"
    return elementwise(program, name, x, lambda v, i: f"{scale(i)} * {v}", of=kind)


@emit_node.register
def _(node: BatchNorm, program: Program, name: str, x: Value) -> Value:
    gain, offset = node.affine()
    by, plus = (
        program.parameter(name, what, v, program.real) for what, v in (("gain", gain), ("offset", offset))
    )
    return elementwise(
        program, name, x, lambda v, i: f"{by(i)} * {v} + {plus(i)}", keeps=False, of=program.real
    )


@emit_node.register
def _(node: LayerNorm, program: Program, name: str, x: Value) -> Value:
    real, read = program.real, program.dense(name, x)
    width, span = program.width(name), node.weight.size
    array = program.work(name, real, width)
    weight = program.table(name, "weight", node.weight, real)
    bias = "" if node.bias is None else f" + {program.table(name, 'bias', node.bias, real)}[i]"
    program.say(
        f"for (int32_t at = 0; at < {width}; at += {span}) {{",
        f"{real} mean = 0, variance = 0;",
        f"for (int32_t i = 0; i < {span}; i++) {{",
        f"mean += ({real}){read.array}[at + i];",
        "}",
        f"mean /= {span};",
        f"for (int32_t i = 0; i < {span}; i++) {{",
        f"const {real} centred = ({real}){read.array}[at + i] - mean;",
        f"{array}[at + i] = centred;",
        "variance += centred * centred;",
        "}",
        f"const {real} size = {function(real, 'sqrt')}(variance / {span} + {literal(node.epsilon, real)});",
        f"for (int32_t i = 0; i < {span}; i++) {{",
        f"{array}[at + i] = {array}[at + i] / size * {weight}[i]{bias};",
        "}",
        "}",
    )
    return Numbers(width, real, array)


@emit_node.register
def _(node: RMSNorm, program: Program, name: str, x: Value) -> Value:
    real, read = program.real, program.dense(name, x)
    width, span = program.width(name), node.weight.size
    array = program.work(name, real, width)
    weight = program.table(name, "weight", node.weight, real)
    program.say(
        f"for (int32_t at = 0; at < {width}; at += {span}) {{",
        f"{real} square = 0;",
        f"for (int32_t i = 0; i < {span}; i++) {{",
        f"const {real} v = ({real}){read.array}[at + i];",
        "square += v * v;",
        "}",
        f"const {real} size = {function(real, 'sqrt')}(square / {span} + {literal(node.epsilon, real)});",
        f"for (int32_t i = 0; i < {span}; i++) {{",
        f"{array}[at + i] = ({real}){read.array}[at + i] / size * {weight}[i];",
        "}",
        "}",
    )
    return Numbers(width, real, array)


def function(real: str, name: str) -> str:
    """Return the name of a function of <math.h> for a type."""
    return f"{name}f" if real == "float" else name


def activation(name: str, real: str, v: str) -> str:
    """Return one of the functions of `Activation` in C; v is a variable."""

    def n(value: float) -> str:
        return literal(value, real)

    def f(called: str) -> str:
        return function(real, called)

    sigmoid = f"{n(0.5)} * ({n(1)} + {f('tanh')}({v} / {n(2)}))"
    cubic = f"{v} + {n(0.044715)} * {v} * {v} * {v}"
    return {
        "relu": f"{v} > 0 ? {v} : 0",
        "sigmoid": sigmoid,
        "tanh": f"{f('tanh')}({v})",
        "silu": f"{v} * ({sigmoid})",
        "gelu": f"{v} * {n(0.5)} * ({n(1)} + {f('erf')}({v} / {n(sqrt(2))}))",
        "gelu-tanh": f"{v} * {n(0.5)} * ({n(1)} + {f('tanh')}({n(sqrt(2 / pi))} * ({cubic})))",
        "elu": f"{v} > 0 ? {v} : {f('expm1')}({v})",
        "softplus": f"({v} > 0 ? {v} : 0) + {f('log1p')}({f('exp')}(-{f('fabs')}({v})))",
        "relu6": f"{v} > 6 ? 6 : {v} > 0 ? {v} : 0",
        "hardtanh": f"{v} > 1 ? 1 : {v} > -1 ? {v} : -1",
        "hardsigmoid": f"{v} > 3 ? 1 : {v} > -3 ? {v} / {n(6)} + {n(0.5)} : 0",
    }[name]


@emit_node.register
def _(node: Activation, program: Program, name: str, x: Value) -> Value:
    of = program.type_of(name)
    keeps = node.function in ZERO_AT_ZERO
    return elementwise(
        program, name, x, lambda v, i: activation(node.function, of, v), keeps=keeps, bind=True, of=of
    )


@emit_node.register
def _(node: GLU, program: Program, name: str, x: Value) -> Value:
    real, span, width = program.real, program.graph.signals[name].shape[-1], program.width(name)
    read = program.numbers(name, x)
    y = Numbers(width, real, program.work(name, real, width), read.silent)
    with program.unless(read.silent):
        program.each(
            width,
            f"const int32_t at = i / {span} * {2 * span} + i % {span};",
            f"const {real} a = ({real}){read.array}[at], b = ({real}){read.array}[at + {span}];",
            f"{y.array}[i] = a * ({activation('sigmoid', real, 'b')});",
        )
    return y


@emit_node.register
def _(node: Multiply, program: Program, name: str, a: Value, b: Value) -> Value:
    kind, width = program.type_of(name), program.width(name)
    left, right = program.dense(name, a), program.dense(name, b)
    array = program.work(name, kind, width)
    wide = kind if kind in (*REALS, "int64_t") else "int32_t"
    program.each(width, f"{array}[i] = ({kind})(({wide}){left.array}[i] * ({wide}){right.array}[i]);")
    if kind == "uint8_t":
        return program.listed(name, array, width)
    return Numbers(width, kind, array)


@emit_node.register
def _(node: Concatenate, program: Program, name: str, **ports: Value) -> Value:
    kind, shape = program.type_of(name), program.graph.signals[name].shape
    array, size, start = program.work(name, kind, prod(shape)), prod(shape[node.axis :]), 0
    for port in node.ports:
        read = program.dense(name, ports[port])
        part = prod(program.graph.inputs(name)[port].shape[node.axis :])
        at = f"i / {part} * {size} + i % {part} + {start}" if read.width != part else f"i + {start}"
        program.each(read.width, f"{array}[{at}] = ({kind}){read.array}[i];")
        start += part
    if kind == "uint8_t":
        return program.listed(name, array, prod(shape))
    return Numbers(prod(shape), kind, array)


@emit_node.register
def _(node: TopK, program: Program, name: str, x: Value) -> Value:
    kind, shape = program.type_of(name), program.graph.signals[name].shape
    width, span, read = prod(shape), shape[-1], program.dense(name, x)
    array = program.work(name, kind, width)
    size = kind if kind in (*REALS, "int64_t") else "int32_t"
    program.say(program.cleared(Numbers(width, kind, array)))
    program.say(
        f"for (int32_t at = 0; at < {width}; at += {span}) {{",
        "int32_t last = -1;",
        f"{size} bound = 0;",
        f"for (int32_t k = 0; k < {node.count}; k++) {{",
        "int32_t found = -1;",
        f"{size} most = 0;",
        f"for (int32_t i = 0; i < {span}; i++) {{",
        f"const {size} v = {read.array}[at + i], size = v < 0 ? -v : v;",
        "if ((last < 0 || size < bound || (size == bound && i > last)) && (found < 0 || size > most)) {",
        "found = i;",
        "most = size;",
        "}",
        "}",
        f"{array}[at + found] = {read.array}[at + found];",
        "last = found;",
        "bound = most;",
        "}",
        "}",
    )
    if kind == "uint8_t":
        return program.listed(name, array, width)
    return Numbers(width, kind, array)

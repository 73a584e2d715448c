"""C for operators on whole numbers: bit for bit what the reference computes, in 32 bits wherever they are enough."""

from __future__ import annotations

import numpy as np

from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array
from unscan.compiler.nodes import (
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLeaky,
    IntegerLI,
    IntegerLIF,
    IntegerSSM,
    Lookup,
    Quantize,
    Shift,
)
from unscan.targets.c.neurons import Firing, awake_layer
from unscan.targets.c.program import Program, emit_node
from unscan.targets.c.stateless import elementwise
from unscan.targets.c.values import (
    BYTES,
    Numbers,
    Value,
    Whole,
    bracketed,
    format_type,
    integer_type,
    literal,
)


def largest(values: Array) -> int:
    """Return the largest magnitude of whole numbers."""
    return int(np.abs(values.astype(np.int64)).max(initial=0))


def narrowed(x: Whole, of: str) -> Whole:
    """Return a number whose expression is of a type as one of its own."""
    return x if x.type == of else Whole(f"({x.type}){bracketed(x.text)}", x.reach)


def clipped(program: Program, x: Whole, low: int, high: int) -> Whole:
    """Return the nearest number in low .. high."""
    helper = program.call(f"within{8 * BYTES[x.type]}")
    return narrowed(Whole(f"{helper}({x.text}, {low}, {high})", max(-low, high)), x.type)


def saturated(program: Program, x: Whole, held: Fixed) -> Whole:
    """Return a number as a format holds it."""
    return x if x.reach <= held.max and held.signed else clipped(program, x, held.min, held.max)


def wrapped(program: Program, x: Whole, bits: int) -> Whole:
    """Return a number modulo 2^bits, in -2^(bits - 1) + 1 .. 2^(bits - 1)."""
    return narrowed(Whole(f"{program.call('wrapped')}({x.text}, {bits})", 2 ** (bits - 1)), "int64_t")


def fade(program: Program, decay: str, most: int, x: Whole, bits: int) -> Whole:
    """Return decay x / 2^bits, truncated towards zero, for a decay in 0 .. most."""
    if most == 0:
        return Whole("0", 0)
    if decay == str(2**bits):
        return x
    reach = x.reach * most >> bits
    if x.type == "int32_t" and x.reach * most >= 2**31:
        return Whole(f"{program.call('fade')}({decay}, {x.text}, {bits})", reach)
    product = x.times(decay, most)
    return narrowed(Whole(f"{product.text} / {2**bits}", reach), product.type)


def rescaled(program: Program, x: Whole, shift: int) -> Whole:
    """Return x >> shift, rounded."""
    if shift == 0:
        return x
    if shift < 0:
        return x.times(literal(2**-shift, "int64_t"), 2**-shift)
    wide = Whole(x.text, x.reach + 2 ** (shift - 1))
    moved = Whole(
        f"{program.call(f'rescaled{8 * BYTES[wide.type]}')}({x.text}, {shift})", wide.reach >> shift
    )
    return moved if moved.type == wide.type else Whole(f"({moved.type}){moved.text}", moved.reach)


def quantize(node: Quantize, x: str, of: str) -> str:
    """Return one real number, of type `of`, as the whole one that stands for it."""
    real, f = ("float", "f") if of == "float" and node.bits <= 24 else ("double", "")
    low, high = (literal(end, real) for end in (node.format.min, node.format.max))
    number = x if real == of else f"({real}){x}"
    return f"fmax{f}(fmin{f}(rint{f}({number} * {literal(2.0**node.fraction, real)}), {high}), {low})"


@emit_node.register
def _(node: Quantize, program: Program, name: str, x: Value) -> Value:
    if program.encoder == name:
        return x
    of = program.real if program.meets(name) is None else "double"
    return elementwise(program, name, x, lambda v, i: quantize(node, v, of), of=of)


@emit_node.register
def _(node: Shift, program: Program, name: str, x: Value) -> Value:
    v = Whole("v", program.whole(name))
    shifts = sorted({int(shift) for shift in node.shift.flat})
    if len(shifts) == 1:
        y = saturated(program, rescaled(program, v, shifts[0]), node.format).text
        return elementwise(program, name, x, lambda v, i: y, bind=True)
    shift = program.parameter(name, "shift", node.shift)
    moved = Whole("", max(v.reach << max(0, -shifts[0]), v.reach + 2 ** max(0, shifts[-1] - 1)))
    helper = program.call(f"rescaled{8 * BYTES[moved.type]}")

    def result(v: str, i: str) -> str:
        return clipped(
            program, Whole(f"{helper}({v}, {shift(i)})", moved.reach), node.format.min, node.format.max
        ).text

    return elementwise(program, name, x, result, bind=True)


def looked_up(program: Program, table: str, size: int, x: Whole, shift: int) -> str:
    """Return table[clip(x >> shift, -n/2, n/2 - 1) + n/2]."""
    half = size // 2
    return f"{table}[{clipped(program, rescaled(program, x, shift), -half, half - 1).text} + {half}]"


@emit_node.register
def _(node: Lookup, program: Program, name: str, x: Value) -> Value:
    table = program.table(name, "table", node.table, integer_type(largest(node.table)))
    at = looked_up(program, table, len(node.table), Whole("v", program.whole(name)), node.shift)
    keeps = int(node.table[len(node.table) // 2]) == 0
    return elementwise(program, name, x, lambda v, i: at, keeps=keeps, bind=True)


@emit_node.register
def _(node: IntegerGLU, program: Program, name: str, x: Value) -> Value:
    reach, most = program.whole(name), largest(node.table)
    kind, size = program.type_of(name), program.width(name)
    span, read = program.graph.signals[name].shape[-1], program.numbers(name, x)
    table = program.table(name, "table", node.table, integer_type(most))
    y = Numbers(size, kind, program.work(name, kind, size), read.silent)
    gate = looked_up(program, table, len(node.table), Whole("b", reach), node.index_shift)
    product = Whole(f"{read.array}[at]", reach).times(gate, most)
    held = saturated(program, rescaled(program, Whole("product", product.reach), node.shift), node.format)
    with program.unless(read.silent):
        program.each(
            size,
            f"const int32_t at = i / {span} * {2 * span} + i % {span};",
            f"const {read.type} b = {read.array}[at + {span}];",
            f"const {product.type} product = {product.text};",
            f"{y.array}[i] = {held.to(kind)};",
        )
    return y


class Driven:
    """The parts of a leaky integrator of whole numbers, as lines that the loop over its neurons runs.

    Attributes:
        u: the membrane that neuron i keeps, of type `kind`.
        before: compute `current`, and the sum `total` that is the membrane before saturation, from what arrives, `v`.
        reached: the membrane that is reached, from `total`.
        awake: is not 0 where a neuron keeps something; None where it is driven at rest.
    """

    def __init__(
        self, node: IntegerLeaky, program: Program, name: str, drop: str = "", most: int = 0
    ) -> None:
        """`drop` is taken off before saturation, at most `most`."""
        self._node, self._program, self._name = node, program, name
        width = Fixed(node.bits)
        self.kind = format_type(width)
        current, self.before = self._driving()
        self.u = f"{program.state(name, 'u', self.kind, program.graph.signals[name].shape)}[i]"
        kept = fade(
            program, self._each("beta"), largest(node.beta), Whole(self.u, width.max), node.decay_bits
        )
        reach = kept.reach + current.reach + most
        terms = "current"
        biased = node.bias is not None and bool(node.bias.any())
        if node.bias is not None and biased:
            terms += f" + {self._each('bias')}"
            reach += largest(node.bias)
        total = Whole("total", reach)
        self.before.append(f"const {total.type} total = {kept.to(total.type)} + {terms}{drop};")
        self.reached = saturated(program, total, width).text
        keeps = isinstance(node, IntegerCubaLIF)
        self.awake = None if biased else "(current | kept)" if keeps else "kept"

    def _each(self, what: str) -> str:
        return self._program.parameter(self._name, what, getattr(self._node, what))("i")

    def _driving(self) -> tuple[Whole, list[str]]:
        """Return the current that drives the membrane, and the lines that compute it."""
        node, program, name = self._node, self._program, self._name
        width, lines = Fixed(node.bits), list[str]()
        drive = Whole("v", program.whole(name))
        if node.shift:
            drive = drive.times(str(2**node.shift), 2**node.shift)
        if isinstance(node, IntegerCubaLIF):
            ends = 2 ** (node.bits - 1) if node.wraps else width.max
            kind = integer_type(ends)
            i = f"{program.state(name, 'i', kind, program.graph.signals[name].shape)}[i]"
            kept = fade(program, self._each("alpha"), largest(node.alpha), Whole(i, ends), node.decay_bits)
            both = Whole("", kept.reach + drive.reach)
            drive = Whole(f"{kept.to(both.type)} + {drive.text}", both.reach)
            lines = [f"{i} = {Whole('current', min(ends, both.reach)).to(kind)};"]
        if drive.reach > width.max:
            drive = (wrapped if node.wraps else limited)(program, drive, node.bits)
        return drive, [f"const {drive.type} current = {drive.text};", *lines]


def limited(program: Program, x: Whole, bits: int) -> Whole:
    """Return a number as so many bits hold it."""
    return saturated(program, x, Fixed(bits))


@emit_node.register
def _(node: IntegerLI, program: Program, name: str, x: Value) -> Value:
    driven = Driven(node, program, name)
    membrane = program.records(name, "membrane", driven.kind, program.graph.signals[name].shape)
    kept = Whole("kept", Fixed(node.bits).max).to(driven.kind)
    body = [*driven.before, f"const int32_t kept = {driven.reached};", f"{driven.u} = {kept};"]
    body += [] if membrane is None else [f"{membrane}[i] = {kept};"]
    awake_layer(program, name, x, body, driven.awake, (membrane,))
    return Numbers(program.width(name), driven.kind, driven.u.removesuffix("[i]"))


@emit_node.register
def _(node: IntegerLIF, program: Program, name: str, x: Value) -> Value:
    theta = program.parameter(name, "threshold", node.threshold)("i")
    late = node.phase == "next" and node.reset != "none"
    taken = (f" - (last ? {theta} : 0)", largest(node.threshold)) if late and node.reset == "subtract" else ()
    driven = Driven(node, program, name, *taken)
    firing = Firing(program, name, driven.kind)
    reached, body = driven.reached, driven.before
    kept = {"none": "r", "subtract": f"fired ? r - {theta} : r", "zero": "fired ? 0 : r"}[node.reset]
    if late:
        body = [f"const int last = {driven.u} > {theta};", *body]
        kept, reached = "r", f"last ? 0 : {reached}" if node.reset == "zero" else reached
    body += [f"const int32_t r = {reached};", f"const int fired = r > {theta};", *firing.lines]
    body += [
        f"const int32_t kept = {kept};",
        f"{driven.u} = {Whole('kept', Fixed(node.bits).max).to(driven.kind)};",
    ]
    awake_layer(program, name, x, body, driven.awake, firing.recorded, firing.after)
    return firing.spikes


@emit_node.register
def _(node: IntegerSSM, program: Program, name: str, x: Value) -> Value:
    channels, modes, _ = node.a.shape
    width, one, read = Fixed(node.bits), 2**node.decay_bits, program.dense(name, x)
    a, c, d = (
        program.table(name, what, values, integer_type(largest(values)))
        for what, values in (("a", node.a), ("c", node.c), ("d", node.d))
    )
    store = format_type(width)
    h = program.state(name, "h", store, node.a.shape)
    drive = Whole(f"{read.array}[i]", program.whole(name)).times(str(2**node.shift), 2**node.shift)
    turned = Whole("", 2 * largest(node.a) * width.max)
    part = Whole("", turned.reach // one + drive.reach)
    held = {what: saturated(program, Whole(what, part.reach), width) for what in ("real", "imaginary")}
    weights = int(np.abs(node.c.astype(np.int64)).sum(axis=(1, 2)).max())
    total = Whole("sum", weights * width.max + largest(node.d) * drive.reach)
    kind = program.type_of(name)
    y = Numbers(channels, kind, program.work(name, kind, channels))
    out = saturated(program, rescaled(program, total, node.out_shift), node.format)
    program.each(
        channels,
        f"const {drive.type} drive = {drive.text};",
        f"{total.type} sum = ({total.type}){d}[i] * drive;",
        f"for (int32_t m = i * {2 * modes}; m < (i + 1) * {2 * modes}; m += 2) {{",
        f"const {turned.type} x = {h}[m], y = {h}[m + 1];",
        f"const {part.type} real = ({part.type})(({a}[m] * x - {a}[m + 1] * y) / {one}) + drive;",
        f"const {part.type} imaginary = ({part.type})(({a}[m] * y + {a}[m + 1] * x) / {one});",
        f"{h}[m] = {held['real'].to(store)};",
        f"{h}[m + 1] = {held['imaginary'].to(store)};",
        f"sum += ({total.type}){c}[m] * {h}[m] - ({total.type}){c}[m + 1] * {h}[m + 1];",
        "}",
        f"{y.array}[i] = {out.to(kind)};",
    )
    return y

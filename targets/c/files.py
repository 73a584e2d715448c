"""The two files of a model in C: the header, which documents it, and the source."""

from __future__ import annotations

import re

from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Input, Quantize
from unscan.targets.base import producer_version
from unscan.targets.c.helpers import HELPERS
from unscan.targets.c.integer import quantize
from unscan.targets.c.members import RECORD, STATE, WORK, Constant, Field
from unscan.targets.c.program import Program
from unscan.targets.c.values import Numbers, Spikes, indented, literal, remark

LINE = 100
INCLUDED = "#include <math.h>"
MATH = re.compile(r"\b(sqrt|tanh|exp|expm1|erf|log1p|fabs|rint)f?\(")


class Boundary:
    """What a step reads and writes.

    Attributes:
        read, written: the types of `in` and `out`.
        inputs, outputs: how many there are.
    """

    def __init__(self, program: Program) -> None:
        node, value = program.graph.nodes[program.source], program.values[program.sink]
        assert isinstance(node, Input)
        self.kind, self.inputs = node.kind, program.width(program.source)
        self.read = {Kind.SPIKE: "uint8_t", Kind.INDEX: "int32_t"}.get(node.kind, program.real)
        if program.encoder is not None:
            self.read = program.type_of(program.encoder)
        self.outputs = value.width
        self.written = "uint8_t" if isinstance(value, Spikes) else value.type
        if self.written in ("int8_t", "int16_t"):
            self.written = "int32_t"


def step_lines(program: Program) -> list[str]:
    """Return the lines that write what leaves the model to `out`."""
    value, boundary = program.values[program.sink], Boundary(program)
    if isinstance(value, Spikes) and value.marks is None:
        return [
            f"memset(out, 0, {value.width});",
            f"for (int32_t k = 0; k < {value.count}; k++) {{",
            f"out[{value.list}[k]] = 1;",
            "}",
        ]
    if isinstance(value, Spikes):
        silent = None if value.always else f"{value.count} == 0"
        value = Numbers(value.width, "uint8_t", value.marks or "", silent)
    of = boundary.written
    cast = "" if of == value.type else f"({of})"
    copy = [f"for (int32_t i = 0; i < {value.width}; i++) {{", f"out[i] = {cast}{value.array}[i];", "}"]
    if value.silent is None:
        return copy
    return [
        f"if ({value.silent}) {{",
        f"memset(out, 0, sizeof(*out) * {value.width});",
        "} else {",
        *copy,
        "}",
    ]


def constant(table: Constant) -> str:
    """Write a table."""
    lines, line = [], "   "
    for value in table.values.tolist():
        text = f" {literal(value, table.type)},"
        if len(line) + len(text) > LINE:
            lines.append(line)
            line = "   "
        line += text
    body = "\n".join([*lines, line])
    return f"static const {table.type} {table.name}[{table.values.size}] = {{\n{body}\n}};\n"


def declared(field: Field) -> str:
    """Write a member of the state struct."""
    return f"    {field.type} {field.name}{f'[{field.count}]' if field.count else ''};"


def ordered(fields: list[Field]) -> list[Field]:
    """Return the members of the state struct as they stand in it: what is kept first, wide numbers before narrow."""
    rank = {STATE: 0, WORK: 1, RECORD: 2}
    return sorted(fields, key=lambda field: (rank[field.role], -field.bytes // max(field.count, 1)))


def header(program: Program, sizes: str, made: str) -> str:
    """Return the header of the source that was made; `sizes` are its lines about bytes."""
    needs = "<stdint.h>, <string.h>"
    needs += " and <math.h> (link with -lm)" if INCLUDED in made else ""
    graph, name, boundary = program.graph, program.name, Boundary(program)
    guard, signature = f"{name.upper()}_H", prototype(program, "state")
    meta = graph.meta
    source, sink = (graph.signals[each] for each in (program.source, program.sink))
    real = {"float": "32 bits", "double": "64 bits"}
    kinds = "whole numbers" if graph.integer else f"real numbers of {real[program.real]}"
    said = "0 or 1 for each neuron" if boundary.kind is Kind.SPIKE else "numbers, all finite"
    if boundary.kind is Kind.INDEX:
        said = f"a whole number that names a row of a table: {rows(program)}"
    encoder = ""
    if program.encoder is not None:
        node = graph.nodes[program.encoder]
        assert isinstance(node, Quantize)
        said = (
            f"whole numbers from {node.format.min} to {node.format.max} that count units of 2^{-node.fraction}; "
            f"{name}_encode makes them"
        )
        encoder = f"""
/* Makes the input of a step from real numbers: the nearest whole number of units of 2^{-node.fraction}, half to even,
 * clipped to {node.format.min} .. {node.format.max}. */
void {name}_encode(const {program.real} in[{boundary.inputs}], {boundary.read} out[{boundary.inputs}]);
"""
    out = "0 or 1 for each neuron" if boundary.written == "uint8_t" else "numbers"
    held = program.formats[program.sink]
    if held is not None and boundary.written != "uint8_t":
        out = f"whole numbers that count units of 2^{-held.fraction}"
    decided = remark(f"Decision over time: {meta['decision']} of the outputs.") if "decision" in meta else ""
    decision = f"\n *\n * {decided}" if decided else ""
    members = "\n".join(declared(field) for field in ordered(program.fields)) or "    uint8_t nothing;"
    return f"""/* {name}: a spiking network in {kinds}, one step at a time. Written by unscan {producer_version()}.
 *
 *     {name}_state state;              one for each stream of inputs; {name}_init before the first step
 *     {name}_init(&state);
 *     {name}_step(&state, in, out);    once for each step of time
 *
 * in:  {boundary.inputs} ({shape(source.shape)}) {boundary.read}: {said}.
 * out: {boundary.outputs} ({shape(sink.shape)}) {boundary.written}: {out}.{decision}
 *
{sizes}
 *
 * Needs C11 and no more than {needs}. A step allocates nothing, has no
 * static variables and calls no system. Real numbers are rounded as written where the compiler does not contract
 * products and sums: gcc and clang want -ffp-contract=off.
 *
 * Graph: sha256 {graph.digest}
 */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {name.upper()}_INPUTS {boundary.inputs}
#define {name.upper()}_OUTPUTS {boundary.outputs}

typedef struct {name}_state {{
{members}
}} {name}_state;

/* Sets everything to rest, as before the first step. */
void {name}_init({name}_state *state);
{encoder}
/* Runs one step of time. `in` and `out` must not overlap. */
{signature};

#ifdef __cplusplus
}}
#endif

#endif
"""


def prototype(program: Program, state: str) -> str:
    """Return the head of the step."""
    name, boundary = program.name, Boundary(program)
    read = f"const {boundary.read} in[{boundary.inputs}]"
    return f"void {name}_step({name}_state *{state}, {read}, {boundary.written} out[{boundary.outputs}])"


def shape(axes: tuple[int, ...]) -> str:
    """Write the axes of a signal."""
    return " x ".join(map(str, axes))


def rows(program: Program) -> str:
    """Say which rows an index may name."""
    tables = [program.graph.nodes[edge.target] for edge in program.graph.out_of(program.source)]
    return f"0 to {min(len(getattr(table, 'weight', ())) for table in tables) - 1}"


def source(program: Program, include: str) -> str:
    """Return the source, which includes the header of the given name."""
    boundary, name = Boundary(program), program.name
    lines = indented([*program.lines, "", "/* output */", *step_lines(program)]).strip("\n")
    encode = ""
    if program.encoder is not None:
        node = program.graph.nodes[program.encoder]
        assert isinstance(node, Quantize)
        encode = f"""
void {name}_encode(const {program.real} in[{boundary.inputs}], {boundary.read} out[{boundary.inputs}])
{{
    for (int32_t i = 0; i < {boundary.inputs}; i++) {{
        out[i] = ({boundary.read}){quantize(node, "in[i]", program.real)};
    }}
}}
"""
    body = "\n".join(f"    {line}" if line else "" for line in lines.split("\n"))
    used = "s->" in body
    helpers = "\n".join(text for helper, text in HELPERS.items() if helper in program.helpers)
    tables = "\n".join(constant(table) for table in program.constants)
    text = f"{tables}{helpers}{body}{encode}"
    math = f"{INCLUDED}\n" if MATH.search(text) else ""
    unused = "" if used else "    (void)s;\n"
    return f"""/* {name}: see {include}. */
#include "{include}"

{math}#include <string.h>

{tables}
{helpers}
void {name}_init({name}_state *state)
{{
    memset(state, 0, sizeof(*state));
}}
{encode}
{prototype(program, "s")}
{{
{unused}{body}
}}
"""

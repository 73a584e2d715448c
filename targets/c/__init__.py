"""C11: one .c and one .h file for a model, for any microcontroller; no dependency, no allocation, no system.

`NAME_step(&state, in, out)` runs one step. All that changes stands in a struct `NAME_state`, so that there may be
several instances; weights are constants. Inside it is event-driven: a spike adds the row of its weights, which stands
in one piece, and a layer that gets nothing costs its decays, or nothing where whole numbers are at rest.

Real numbers are float, or double where the graph's are float64. Whole numbers take the narrowest of int8_t, int16_t
and int32_t that holds them, and products 64 bits where they need them; they are the reference's bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Graph
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets.base import Report, Target, collect, insist
from unscan.targets.c import integer, lines, memory, neurons, stateless, synapses
from unscan.targets.c.files import header, source
from unscan.targets.c.program import Program
from unscan.targets.c.sizes import Sizes, excess, lines_of, measured, rows, sizes_of
from unscan.targets.c.values import identifier

RULES = (stateless, synapses, neurons, lines, memory, integer)
"""Where the rule of each node stands."""
BUDGET = ("flash", "ram", "compiler")
"""The options of `emit` that say what a model may take."""


@dataclass(frozen=True)
class Model:
    """A model in C.

    Attributes:
        name: what its functions begin with.
        source, header: the text of both files; the source includes `NAME.h`.
        program: what they were written from.
    """

    name: str
    source: str
    header: str
    program: Program


def build(graph: Graph, name: str = "model", *, record: bool = False) -> Model:
    """Return an iterative graph as C.

    Args:
        graph: what is written.
        name: what the functions begin with; what C does not allow in it becomes an underscore.
        record: let the state struct hold the spikes and membranes of the last step, too.

    Raises:
        Unsupported: a node has no form in C.
        InvalidGraph: the graph breaks an invariant of the IR, or is not iterative.
    """
    check(graph)
    program = Program(graph, identifier(name), record)
    insist(graph, "c", collect(graph.order, program.emit))
    program.push()
    made = source(program, f"{program.name}.h")
    return Model(program.name, made, header(program, lines_of(sizes_of(program)), made), program)


def sizes(graph: Graph, name: str = "model", *, compiler: str | None = None) -> Sizes:
    """Return how many bytes a model takes; those of its code are measured where there is a compiler.

    Args:
        graph: an iterative graph.
        name: as in `build`.
        compiler: the command that compiles for the machine that is meant, with its flags; that of the variable CC, or
            the system's, where None.

    Raises what `build` raises.
    """
    return _measured(build(graph, name), compiler)


def _measured(model: Model, compiler: str | None) -> Sizes:
    return measured(model.source, model.header, model.name, sizes_of(model.program), compiler)


def report(graph: Graph, **options: Any) -> Report:
    """Return what a model takes part by part, and by how much it passes a budget. Options: as of `emit`."""
    flash, ram, compiler = (options.get(key) for key in BUDGET)
    found = sizes(graph, compiler=compiler)
    lines = () if found.code is not None else ("Its code is not measured: there is no C compiler.",)
    problems = tuple(f"It does not fit: it takes {clause}." for clause in excess(found, flash, ram))
    columns = ("part", "bytes of flash", "bytes of memory")
    return Report("In C", columns, rows(found, graph.order), lines, problems, found.to_json())


def emit(graph: Graph, path: Path | str, **options: Any) -> None:
    """Write an iterative graph as NAME.c and NAME.h.

    Options: `flash` and `ram`, a budget in bytes (or as text, "256K"); `compiler`, as in `sizes`; `record`, as in
    `build`.

    Raises:
        InvalidInput: the path does not end in .c, or a budget is not a size.
        MissingDependency: a budget of flash is given, and there is no compiler to measure the code with.
        Unsupported: a node has no form in C, or the model does not fit the budget; nothing is written.
    """
    path = Path(path)
    if path.suffix != ".c":
        raise InvalidInput(
            f"The target c writes a file .c and a file .h beside it, and got {path}; name it NAME.c."
        )
    flash, ram, compiler = (options.pop(key, None) for key in BUDGET)
    model = build(graph, path.stem, **options)
    found = sizes_of(model.program) if flash is None else _measured(model, compiler)
    if clauses := excess(found, flash, ram):
        raise Unsupported(
            f"The model does not fit: it takes {'; and '.join(clauses)}. Quantise it to fewer bits, make its largest "
            "layers smaller, or choose a larger chip."
        )
    beside = path.with_suffix(".h")
    text = model.source.replace(f'#include "{model.name}.h"', f'#include "{beside.name}"')
    with writing(path) as to_source, writing(beside) as to_header:
        to_source.write_text(text)
        to_header.write_text(model.header)


def refusals(graph: Graph, **options: Any) -> dict[str, str]:
    """Return node -> reason for every node that has no form in C."""
    return collect(check(graph).order, Program(graph, "model").emit)


TARGET = Target(
    name="c",
    suffix=".c",
    summary="a step in C11 for microcontrollers: a .c and a .h file, no dependency",
    emit=emit,
    refusals=refusals,
    options=(*BUDGET, "record"),
    report=report,
)

__all__ = ["TARGET", "Model", "Sizes", "build", "emit", "refusals", "report", "sizes"]

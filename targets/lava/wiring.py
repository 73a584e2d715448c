"""Which process feeds which. Operators that feed each other alone share a process: fewer to wait for at each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from unscan.compiler.formats import formats
from unscan.compiler.ir import Edge, Graph
from unscan.compiler.nodes import Concatenate, Quantize
from unscan.targets.lava.cells import Cell, cells, part


@dataclass(frozen=True)
class Wiring:
    """The processes of a graph by name, in data-flow order, and what feeds what; edges into one port add up."""

    cells: Mapping[str, Cell]
    edges: tuple[Edge, ...]


def wiring(graph: Graph) -> Wiring:
    """Return the processes of a graph. Raises Unsupported where no process says a node."""
    known = formats(graph)
    made = {name: cells(graph, name, known) for name in graph.order}
    edges = [
        Edge(source, *end(graph, edge))
        for edge in graph.edges
        if not isinstance(graph.nodes[edge.target], Quantize)
        for source in made[edge.source]
    ]
    return joined(Wiring({name: cell for each in made.values() for name, cell in each.items()}, tuple(edges)))


def end(graph: Graph, edge: Edge) -> tuple[str, str]:
    """Return the process and the port at which an edge ends."""
    if isinstance(graph.nodes[edge.target], Concatenate):
        return part(edge.target, edge.port), "x"
    return edge.target, edge.port


def joined(wires: Wiring) -> Wiring:
    """Return the wiring with each Operator that feeds one Operator alone, and alone, in that one's process."""
    into, out_of = (Counter(getattr(edge, side) for edge in wires.edges) for side in ("target", "source"))
    found, edges, place = dict(wires.cells), wires.edges, {name: i for i, name in enumerate(wires.cells)}
    for source, target, _ in sorted(wires.edges, key=lambda edge: place[edge.source]):
        operators = wires.cells[source].process == wires.cells[target].process == "Operator"
        if operators and out_of[source] == into[target] == 1:
            found[target] = after(found.pop(source), found[target])
            edges = tuple(
                edge._replace(target=target) if edge.target == source else edge
                for edge in edges
                if edge.source != source
            )
    return Wiring(found, edges)


def after(first: Cell, second: Cell) -> Cell:
    """Return the Operator that computes the functions of one, and then those of another, of what they give."""
    ahead = first.settings["functions"]
    later = {
        f"{int(number) + len(ahead)}.{name}": array
        for (number, _, name), array in ((key.partition("."), array) for key, array in second.arrays.items())
    }
    functions = [*ahead, *second.settings["functions"]]
    return replace(
        second, settings={"functions": functions}, arrays={**first.arrays, **later}, inputs=first.inputs
    )

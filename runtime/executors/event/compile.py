"""Compile a graph into a program, node by node, each by its rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Dialect, Graph
from unscan.compiler.nodes import Delay
from unscan.compiler.spec import check
from unscan.runtime.executors.event import integer_rules, rules, stateful
from unscan.runtime.executors.event.assembly import Assembly, Ports
from unscan.runtime.executors.event.program import Program

RULES = (rules, stateful, integer_rules)
"""Where the rule of each node stands."""


def compile_graph(graph: Graph, dtype: np.dtype[Any]) -> Program:
    """Compile a graph of the iterative dialect, to compute in float32 or float64.

    Raises:
        Unsupported: a node of the parallel dialect, or a number that the format cannot hold.
        InvalidGraph: the graph breaks an invariant.
    """
    for name in graph.order:
        if graph.nodes[name].dialect is Dialect.PARALLEL:
            raise Unsupported(
                f"The event executor runs one step at a time and {type(graph.nodes[name]).__name__} {name!r} "
                "is a node of the parallel form; run the pass `unroll` on the graph first."
            )
    check(graph, Dialect.ITERATIVE, where="The graph given to the event executor")
    assembly = Assembly(graph, dtype)
    late = graph.of(Delay) if graph.recurrent else []
    for name in graph.order:
        ports = {} if name in late else arriving(name, assembly)
        assembly.sent[name] = rules.rule(graph.nodes[name], name, assembly, ports)
    for name in late:
        stateful.take(name, assembly, arriving(name, assembly)["x"])
    return assembly.program()


def arriving(name: str, assembly: Assembly) -> Ports:
    """Return what arrives at each port of a node, in the order of its edges."""
    ports: Ports = {}
    for edge in assembly.graph.into(name):
        ports.setdefault(edge.port, []).append(assembly.sent[edge.source])
    return ports

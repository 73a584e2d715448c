"""Remove what no output depends on, and what does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import ClassVar

import networkx as nx
import numpy as np

from unscan.compiler.errors import InvalidGraph
from unscan.compiler.ir import Graph, Node, Signal
from unscan.compiler.nodes import Flatten, Input, Output, Reshape, Scale, TopK
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class PruneDead(Pass):
    """Remove nodes that no output depends on, and those that change nothing.

    Changing nothing: a Scale by 1, a Flatten of one axis, a Reshape to the same shape, a TopK that keeps the whole row.
    They stay where one node would come to feed a port twice, a Delay would not carry what it states, or signals that
    they add before others do would be added in another order, which rounds otherwise.

    Given and result: iterative nodes. Preserves: outputs, and spikes of every node that stays, exactly.
    """

    name: ClassVar[str] = "prune-dead"

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph without dead nodes."""
        (output,) = graph.of(Output)
        alive = nx.ancestors(graph.topology, output) | {output, *graph.of(Input)}
        dead = [name for name in graph.nodes if name not in alive]
        notes = [f"{name}: removed, no output depends on it" for name in dead]
        graph = graph.without(dead)
        for name in graph.of(Scale, Flatten, Reshape, TopK):
            if does_nothing(graph.nodes[name], graph.inputs(name)["x"]) and not regroups(graph, name):
                shorter = graph.bypass(name)
                if fits_together(shorter):
                    graph = shorter
                    notes.append(f"{name}: removed, it changes nothing")
        return Rewrite(graph, notes)


@singledispatch
def does_nothing(node: Node, x: Signal) -> bool:
    """Say whether a node's output is its input."""
    return False


@does_nothing.register
def _(node: Scale, x: Signal) -> bool:
    return bool(np.all(node.scale == 1))


@does_nothing.register
def _(node: Flatten, x: Signal) -> bool:
    return len(x.shape) == 1


@does_nothing.register
def _(node: Reshape, x: Signal) -> bool:
    return node.shape == x.shape


@does_nothing.register
def _(node: TopK, x: Signal) -> bool:
    return node.count == x.shape[-1]


def regroups(graph: Graph, name: str) -> bool:
    """Say whether without the node one source would feed a port twice, or a sum would be added in another order."""
    into, targets = graph.into(name), {(e.target, e.port) for e in graph.out_of(name)}
    twice = any((e.target, e.port) in targets for source in into for e in graph.out_of(source.source))
    beside = any((e.target, e.port) in targets and e.source != name for e in graph.edges)
    return twice or (len(into) > 1 and beside)


def fits_together(graph: Graph) -> bool:
    """Say whether every node takes what feeds it."""
    try:
        _ = graph.signals
    except InvalidGraph:
        return False
    return True

"""Remove what no output depends on, and what does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import networkx as nx
import numpy as np

from unscan.compiler.ir import Graph
from unscan.compiler.nodes import Flatten, Input, Output, Scale
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class PruneDead(Pass):
    """Remove nodes that no output depends on, scales by 1, and flattens of one axis.

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
        for name in graph.of(Scale, Flatten):
            if does_nothing(graph, name) and not makes_double_edge(graph, name):
                graph = graph.bypass(name)
                notes.append(f"{name}: removed, it changes nothing")
        return Rewrite(graph, notes)


def does_nothing(graph: Graph, name: str) -> bool:
    """Say whether a node's output is its input."""
    if isinstance(graph.nodes[name], Scale):
        return bool(np.all(cast(Scale, graph.nodes[name]).scale == 1))
    return len(graph.inputs(name)["x"].shape) == 1


def makes_double_edge(graph: Graph, name: str) -> bool:
    """Say whether a source of the node already feeds one of its targets, so that it could not be bypassed."""
    ports = {(e.target, e.port) for e in graph.out_of(name)}
    return any(
        (e.target, e.port) in ports for source in graph.into(name) for e in graph.out_of(source.source)
    )

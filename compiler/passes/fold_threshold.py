"""Fold scales into weights, so that every threshold is the one that a target wants.

A neuron's recurrence and each of its resets are homogeneous: with the input and the threshold both multiplied
by a > 0, the membrane is multiplied by a and the spikes stay (003, property 1, equation 12). So where all that
feeds a neuron are Linears that feed nothing else, their rows and biases are multiplied by a = wanted / theta,
per channel. A Scale before or after a Linear is folded the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph, Node
from unscan.compiler.nodes import LIF, Linear, Scale
from unscan.compiler.passes.base import Pass, Rewrite
from unscan.compiler.passes.fold_norm import (
    only_linear_before,
    only_linears_after,
    scaled_columns,
    scaled_rows,
)


@dataclass(frozen=True)
class FoldThreshold(Pass):
    """Fold every Scale into a Linear, and every threshold into the Linears that feed the neuron.

    Given and result: iterative nodes. Preserves: spikes, to rounding of the weights (exactly where wanted /
    theta is a power of two); membranes are multiplied by wanted / theta. What cannot be folded stays, and the
    note says why.

    Raises:
        InvalidInput: a wanted threshold that is not greater than 0.
    """

    name: ClassVar[str] = "fold-threshold"
    threshold: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.threshold) and self.threshold > 0):
            raise InvalidInput(
                f"fold-threshold got the threshold {self.threshold}; it takes a number greater than 0."
            )

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its scales and thresholds folded."""
        notes: list[str] = []
        for name in graph.of(Scale):
            graph = self._fold_scale(graph, name, notes)
        for name in graph.of(LIF):
            graph = self._fold_neuron(graph, name, notes)
        return Rewrite(graph, notes)

    def _fold_scale(self, graph: Graph, name: str, notes: list[str]) -> Graph:
        scale = cast(Scale, graph.nodes[name]).scale.astype(np.float64)
        before, after = only_linear_before(graph, name), only_linears_after(graph, name)
        changed: dict[str, Node] = {}
        if before:
            changed[before] = scaled_rows(cast(Linear, graph.nodes[before]), scale)
        elif after:
            changed = {t: scaled_columns(cast(Linear, graph.nodes[t]), scale) for t in after}
        else:
            notes.append(f"{name}: stays, because no Linear stands alone before or after it")
            return graph
        notes.append(f"{name}: folded into {', '.join(changed)}")
        return graph.with_nodes(changed).bypass(name)

    def _fold_neuron(self, graph: Graph, name: str, notes: list[str]) -> Graph:
        neuron = cast(LIF, graph.nodes[name])
        if np.all(neuron.threshold == self.threshold):
            if neuron.threshold.shape == ():
                return graph
            return graph.with_nodes({name: replace(neuron, threshold=neuron.threshold[0])})
        sources = [edge.source for edge in graph.into(name)]
        blocked = [s for s in sources if not isinstance(graph.nodes[s], Linear) or len(graph.out_of(s)) > 1]
        if blocked:
            notes.append(
                f"{name}: threshold stays, because {blocked[0]} feeds it and is no Linear of its own"
            )
            return graph
        factor = self.threshold / neuron.threshold.astype(np.float64)
        changed: dict[str, Node] = {s: scaled_rows(cast(Linear, graph.nodes[s]), factor) for s in sources}
        changed[name] = replace(neuron, threshold=neuron.threshold.dtype.type(self.threshold))
        notes.append(f"{name}: threshold folded into {', '.join(sources)}")
        return graph.with_nodes(changed)

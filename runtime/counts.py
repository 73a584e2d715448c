"""What an execution costs, counted: synaptic operations (AC, MAC) and, apart, the updates of states.

Nearly all of it follows from the graph and from how often each neuron sent something that is not zero, so executors
count events. What a matrix memory does depends on which values meet which keys: of it they keep tallies, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from unscan.compiler.ir import Array, Graph, Signal
from unscan.compiler.nodes import Convolution, Linear
from unscan.runtime.costs import Operations, Work, cost

Tallies = Mapping[str, Mapping[str, int]]
"""Node -> what events do not tell of it, over steps and samples.

Of a memory, writes: entries that were written (rows of v x columns of k that are not 0; all rows in a delta memory).
fired: entries that fired. rescaled: accumulators of scalar decay that were set back to 1 after use.
Of a node on whole numbers, saturated: numbers that its format could not hold, and that it clipped or wrapped.
"""


@dataclass(frozen=True)
class Counts:
    """Operations of an execution.

    Args:
        graph: what ran.
        events: node -> how often each of its neurons sent something that is not zero, over steps and samples.
        steps: T.
        samples: B.
        tallies: what events do not tell; see `Tallies`.
    """

    graph: Graph = field(repr=False)
    events: Mapping[str, Array] = field(repr=False)
    steps: int
    samples: int
    tallies: Tallies = field(default_factory=dict, repr=False)

    @cached_property
    def by_node(self) -> dict[str, Operations]:
        """Operations of each node."""
        found = {}
        turns = self.steps * self.samples
        for name in self.graph.order:
            node, sources = self.graph.nodes[name], self._sources(name)
            slots = prod(self.graph.signals[name].shape) * turns
            work = Work(sources, int(self.events[name].sum()), slots, turns, self.tallies.get(name, {}))
            found[name] = cost(node, work)
            if not isinstance(node, Linear | Convolution):
                joined = sum((len(fed) - 1) * prod(fed[0][0].shape) for fed in sources.values()) * turns
                found[name] += Operations(updates={"join": joined} if joined else {})
        return found

    def _sources(self, name: str) -> dict[str, list[tuple[Signal, Array]]]:
        sources: dict[str, list[tuple[Signal, Array]]] = {}
        for edge in self.graph.into(name):
            fed = self.graph.signals[edge.source], self.events[edge.source]
            sources.setdefault(edge.port, []).append(fed)
        return sources

    @cached_property
    def total(self) -> Operations:
        """Operations of all nodes."""
        return sum(self.by_node.values(), Operations())

    def __add__(self, other: Counts) -> Counts:
        """Join the counts of two runs of one graph over equally long sequences, or of one sequence cut in two."""
        events = {name: self.events[name] + other.events[name] for name in self.events}
        tallies = tallied(self.tallies, other.tallies)
        if self.steps == other.steps:
            return Counts(self.graph, events, self.steps, self.samples + other.samples, tallies)
        return Counts(self.graph, events, self.steps + other.steps, self.samples, tallies)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "total": self.total.to_json(),
            "nodes": {name: operations.to_json() for name, operations in self.by_node.items()},
        }


def tallied(a: Tallies, b: Tallies) -> Tallies:
    """Return the sum of two tallies; nodes that have none are left out."""
    return {
        name: {
            kind: a.get(name, {}).get(kind, 0) + b.get(name, {}).get(kind, 0)
            for kind in {**a.get(name, {}), **b.get(name, {})}
        }
        for name in {**a, **b}
        if a.get(name) or b.get(name)
    }

"""What an execution costs, counted: synaptic operations (AC, MAC) and, apart, the updates of states.

All of it follows from the graph and from how often each neuron sent something that is not zero, so every
executor need only count events. AC and MAC are NeuroBench's effective operations: one per event and nonzero
weight that it meets, AC where the event is a spike, MAC where it carries a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, singledispatch
from math import prod
from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Graph, Kind, Node, Signal
from unscan.compiler.nodes import Activation, BatchNorm, Flatten, Input, Linear, Output, Scale
from unscan.compiler.nodes.neurons import Leaky, Spiking


@dataclass(frozen=True)
class Operations:
    """Operations of one node, or of all, over every step and sample.

    Attributes:
        acs: additions of a weight because of a spike.
        macs: multiplications and additions because of a number that is not zero.
        dense_macs: the same work without sparsity: every weight at every step.
        spikes: spikes that the node sent.
        slots: neurons x steps x samples of a spiking node, so that spikes / slots is its firing rate.
        updates: state updates by kind (decay, integrate, compare, reset, bias, scale, norm, activation).
        weight_reads: weights fetched by ACs, MACs and elementwise work.
        state_accesses: states read and written.
    """

    acs: int = 0
    macs: int = 0
    dense_macs: int = 0
    spikes: int = 0
    slots: int = 0
    updates: Mapping[str, int] = field(default_factory=dict)
    weight_reads: int = 0
    state_accesses: int = 0

    def __add__(self, other: Operations) -> Operations:
        kinds = [*self.updates, *(kind for kind in other.updates if kind not in self.updates)]
        updates = {kind: self.updates.get(kind, 0) + other.updates.get(kind, 0) for kind in kinds}
        numbers = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__
            if name != "updates"
        }
        return Operations(**numbers, updates=updates)

    @property
    def rate(self) -> float:
        """Spikes per neuron and step; nan where nothing spikes."""
        return self.spikes / self.slots if self.slots else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "updates": dict(self.updates),
            "rate": self.rate if self.slots else None,
        }


@dataclass(frozen=True)
class Counts:
    """Operations of an execution.

    Args:
        graph: what ran.
        events: node -> how often each of its neurons sent something that is not zero, over steps and samples.
        steps: T.
        samples: B.
    """

    graph: Graph = field(repr=False)
    events: Mapping[str, Array] = field(repr=False)
    steps: int
    samples: int

    @cached_property
    def by_node(self) -> dict[str, Operations]:
        """Operations of each node."""
        found = {}
        for name in self.graph.order:
            node = self.graph.nodes[name]
            sources = [
                (self.graph.signals[edge.source], self.events[edge.source]) for edge in self.graph.into(name)
            ]
            slots = prod(self.graph.signals[name].shape) * self.steps * self.samples
            found[name] = cost(node, sources, int(self.events[name].sum()), slots)
            joins = len(sources) - 1
            if joins > 0 and not isinstance(node, Linear):
                width = prod(sources[0][0].shape) * self.steps * self.samples
                found[name] += Operations(updates={"join": joins * width})
        return found

    @cached_property
    def total(self) -> Operations:
        """Operations of all nodes."""
        return sum(self.by_node.values(), Operations())

    def __add__(self, other: Counts) -> Counts:
        """Join the counts of two runs of one graph over equally long sequences, or of one sequence cut in two."""
        events = {name: self.events[name] + other.events[name] for name in self.events}
        if self.steps == other.steps:
            return Counts(self.graph, events, self.steps, self.samples + other.samples)
        return Counts(self.graph, events, self.steps + other.steps, self.samples)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "total": self.total.to_json(),
            "nodes": {name: operations.to_json() for name, operations in self.by_node.items()},
        }


Sources = list[tuple[Signal, Array]]
"""For each edge into a node: its signal, and the events of each neuron behind it."""


@singledispatch
def cost(node: Node, sources: Sources, sent: int, slots: int) -> Operations:
    """Return what a node did.

    Args:
        node: the node.
        sources: what fed it, with the events of each neuron.
        sent: how often its own neurons sent something.
        slots: its neurons x steps x samples.

    Raises:
        Unsupported: a node whose cost is not defined.
    """
    raise Unsupported(f"The operations of a {type(node).__name__} are not defined.")


@cost.register
def _(node: Linear, sources: Sources, sent: int, slots: int) -> Operations:
    fan_out = np.count_nonzero(node.weight, axis=0)
    met = [(signal.kind is Kind.SPIKE, int(events @ fan_out)) for signal, events in sources]
    acs, macs = (sum(n for spiking, n in met if spiking is wanted) for wanted in (True, False))
    return Operations(
        acs=acs,
        macs=macs,
        dense_macs=slots * node.weight.shape[1],
        updates={} if node.bias is None else {"bias": slots},
        weight_reads=acs + macs + (0 if node.bias is None else slots),
    )


@cost.register
def _(node: Scale, sources: Sources, sent: int, slots: int) -> Operations:
    events = sum(int(events.sum()) for _, events in sources)
    return Operations(updates={"scale": events}, weight_reads=events)


@cost.register
def _(node: BatchNorm, sources: Sources, sent: int, slots: int) -> Operations:
    return Operations(updates={"norm": slots}, weight_reads=2 * slots)


@cost.register
def _(node: Activation, sources: Sources, sent: int, slots: int) -> Operations:
    return Operations(updates={"activation": slots})


@cost.register
def _(node: Leaky, sources: Sources, sent: int, slots: int) -> Operations:
    updates = {"decay": slots, "integrate": slots}
    if node.gain != "1":
        updates["scale"] = slots
    return Operations(updates=updates, state_accesses=2 * slots)


@cost.register
def _(node: Spiking, sources: Sources, sent: int, slots: int) -> Operations:
    leaky = cost.dispatch(Leaky)(node, sources, sent, slots)
    spiking = {"compare": slots} | ({} if node.reset == "none" else {"reset": sent})
    return leaky + Operations(spikes=sent, slots=slots, updates=spiking)


@cost.register
def _(node: Input | Output | Flatten, sources: Sources, sent: int, slots: int) -> Operations:
    return Operations()

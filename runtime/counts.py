"""What an execution costs, counted: synaptic operations (AC, MAC) and, apart, the updates of states.

Nearly all of it follows from the graph and from how often each neuron sent something that is not zero, so executors
count events. What a matrix memory does depends on which values meet which keys: of it they keep tallies, too. Nothing
that is kept grows with the number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind, Signal
from unscan.compiler.nodes import SPIKING, Convolution, Input, IntegerMemory, Linear, Memory
from unscan.runtime.costs import Operations, cost
from unscan.runtime.work import Work, together

Tallies = Mapping[str, Mapping[str, int]]
"""Node -> what events do not tell of it, over steps and samples.

Of a memory, writes: entries that were written (rows of v x columns of k that are not 0; all rows in a delta memory).
fired: entries that fired. rescaled: accumulators of scalar decay that were set back to 1 after use.
Of a node on whole numbers, saturated: numbers that its format could not hold, and that it clipped or wrapped.
"""

Apart = Mapping[str, Operations]
"""Node -> its operations, each number an array (B,) with one for each sample."""


@dataclass(frozen=True)
class Each:
    """What happened in each sample.

    Attributes:
        events: node -> (B, ...) how often each of its neurons sent something that is not zero, over the steps.
        tallies: node -> what events do not tell of it, (B,) each.
    """

    events: Mapping[str, Array]
    tallies: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class Peaks:
    """The most events in one step of one sample: what a queue, a link or a deadline has to be made for.

    Attributes:
        nodes: node -> the most that it sent, for each node that `senders` names.
        graph: the most that its input and its spiking nodes sent together.
    """

    nodes: Mapping[str, int]
    graph: int

    def __or__(self, other: Peaks) -> Peaks:
        """Return the peaks of two runs of one graph."""
        nodes = {name: max(peak, other.nodes[name]) for name, peak in self.nodes.items()}
        return Peaks(nodes, max(self.graph, other.graph))


def senders(graph: Graph) -> list[str]:
    """Name the nodes whose numbers travel as events: what sends spikes or graded numbers, and an input of real ones."""
    return [
        name
        for name in graph.order
        if graph.signals[name].kind in (Kind.SPIKE, Kind.GRADED)
        or (isinstance(graph.nodes[name], Input) and graph.signals[name].kind is Kind.REAL)
    ]


def origins(graph: Graph) -> list[str]:
    """Name the nodes that events come from: the input, and what spikes. Others hand on what they got from these."""
    return [name for name in graph.of(Input, *SPIKING) if name in senders(graph)]


@dataclass(frozen=True)
class Counts:
    """Operations of an execution.

    Args:
        graph: what ran.
        events: node -> how often each of its neurons sent something that is not zero, over steps and samples.
        steps: T.
        samples: B.
        tallies: what events do not tell; see `Tallies`.
        peaks: the most events in one step, where they were looked for.
        each: what happened in each sample, or what it cost, where samples were told apart.
    """

    graph: Graph = field(repr=False)
    events: Mapping[str, Array] = field(repr=False)
    steps: int
    samples: int
    tallies: Tallies = field(default_factory=dict, repr=False)
    peaks: Peaks | None = field(default=None, repr=False)
    each: Each | Apart | None = field(default=None, repr=False)

    @classmethod
    def of(cls, graph: Graph, each: Each, steps: int, peaks: Peaks | None = None) -> Counts:
        """Count a run over T steps from what happened in each sample."""
        samples = len(next(iter(each.events.values())))
        events = {name: held.sum(axis=0, dtype=np.int64) for name, held in each.events.items()}
        tallies = {
            name: {kind: int(held.sum()) for kind, held in kinds.items()}
            for name, kinds in each.tallies.items()
        }
        return cls(graph, events, steps, samples, tallies, peaks, each)

    @cached_property
    def by_node(self) -> dict[str, Operations]:
        """Operations of each node."""
        done = operations(self.graph, self.events, self.tallies, self.steps * self.samples)
        return {name: each.each(int) for name, each in done.items()}

    @cached_property
    def total(self) -> Operations:
        """Operations of all nodes."""
        return sum(self.by_node.values(), Operations())

    @cached_property
    def apart(self) -> Apart:
        """Operations of each node in each sample: every number is an array (B,).

        Raises:
            InvalidInput: these counts do not tell samples apart.
        """
        if self.each is None and self.samples == 1:
            events = {name: held[None] for name, held in self.events.items()}
            return self._apart(
                Each(events, {n: {k: np.array([v]) for k, v in t.items()} for n, t in self.tallies.items()})
            )
        if self.each is None:
            raise InvalidInput(
                f"These counts are sums over {self.samples} samples and do not tell them apart; run the graph with the "
                "event executor, the reference, or a recorded onnx, and take the counts of that execution."
            )
        return self._apart(self.each) if isinstance(self.each, Each) else self.each

    def _apart(self, each: Each) -> Apart:
        turns = np.full(self.samples, self.steps, np.int64)
        done = operations(self.graph, each.events, each.tallies, turns)
        return {name: ops.each(lambda n: np.broadcast_to(n, turns.shape)) for name, ops in done.items()}

    @cached_property
    def per_sample(self) -> list[Operations]:
        """Operations of all nodes, sample by sample. Raises InvalidInput where samples are not told apart."""
        total = sum(self.apart.values(), Operations())
        return [of_sample(total, number) for number in range(self.samples)]

    def sample(self, number: int) -> dict[str, Operations]:
        """Return the operations of each node in one sample, 0 <= number < B.

        Raises:
            InvalidInput: there is no such sample, or samples are not told apart.
        """
        if not 0 <= number < self.samples:
            raise InvalidInput(f"There is no sample {number}: the run had {self.samples}, counted from 0.")
        return {name: of_sample(done, number) for name, done in self.apart.items()}

    @cached_property
    def activation_sparsity(self) -> dict[str, float]:
        """Share of zeros among the numbers that a node sent, over steps and samples, for each that sends events.

        1 - events / (neurons x steps x samples): NeuroBench's activation sparsity, layer by layer. That of the whole
        network, over its spiking neurons, is 1 - `total.rate`.
        """
        turns = self.steps * self.samples
        return {
            name: 1 - int(self.events[name].sum()) / (prod(self.graph.signals[name].shape) * turns)
            for name in senders(self.graph)
        }

    @cached_property
    def weight_sparsity(self) -> dict[str, float]:
        """Share of zeros among the weights of each Linear and convolution."""
        return {
            name: 1 - int(np.count_nonzero(node.weight)) / node.weight.size
            for name, node in self.graph.nodes.items()
            if isinstance(node, Linear | Convolution)
        }

    def __add__(self, other: Counts) -> Counts:
        """Join the counts of two runs of one graph over equally long sequences, or of one sequence cut in two."""
        return self.beside(other) if self.steps == other.steps else self.then(other)

    def beside(self, other: Counts) -> Counts:
        """Join the counts of other samples, of equally many steps."""
        return self._joined(other, later=False)

    def then(self, other: Counts) -> Counts:
        """Join the counts of later steps of the same samples."""
        return self._joined(other, later=True)

    def _joined(self, other: Counts, *, later: bool) -> Counts:
        known = all(counts.each is not None or counts.samples == 1 for counts in (self, other))
        return Counts(
            graph=self.graph,
            events={name: self.events[name] + other.events[name] for name in self.events},
            steps=self.steps + other.steps if later else self.steps,
            samples=self.samples if later else self.samples + other.samples,
            tallies=tallied(self.tallies, other.tallies),
            peaks=self.peaks | other.peaks if self.peaks and other.peaks else None,
            each=joined(self.apart, other.apart, later=later) if known else None,
        )

    def to_json(self, *, samples: bool = False) -> dict[str, Any]:
        """Return the numbers as JSON.

        Args:
            samples: add the peaks, and the operations of every sample, where they are known.
        """
        found: dict[str, Any] = {
            "steps": self.steps,
            "samples": self.samples,
            "total": self.total.to_json(),
            "nodes": {name: operations.to_json() for name, operations in self.by_node.items()},
            "sparsity": {"activations": self.activation_sparsity, "weights": self.weight_sparsity},
        }
        if samples:
            found["peaks"] = self.peaks and {"graph": self.peaks.graph, "nodes": dict(self.peaks.nodes)}
            known = self.each is not None or self.samples == 1
            found["each"] = [done.to_json() for done in self.per_sample] if known else None
        return found


class Tallying:
    """Counts of an execution while it runs, of arrays that show what every node sent.

    Args:
        graph: what runs.
        samples: B.
    """

    def __init__(self, graph: Graph, samples: int) -> None:
        self._graph, self._samples = graph, samples
        self._events = {
            name: np.zeros((samples, *signal.shape), np.int64) for name, signal in graph.signals.items()
        }
        self._tallies: dict[str, dict[str, Any]] = {}
        self._peaks, self._senders, self._origins = Peaks({}, 0), senders(graph), origins(graph)
        self._peaks = Peaks(dict.fromkeys(self._senders, 0), 0)

    def add(self, sent: Mapping[str, Array], tallies: Mapping[str, Mapping[str, Any]]) -> None:
        """Add a step: node -> (B, ...) what it sent, and what it tallied, over the samples or (B,) for each."""
        many = {}
        for name, value in sent.items():
            fired = value != 0
            self._events[name] += fired
            many[name] = fired.reshape(self._samples, -1).sum(axis=1)
        for name, kinds in tallies.items():
            held = self._tallies.setdefault(name, {})
            for kind, number in kinds.items():
                held[kind] = held.get(kind, 0) + number
        nodes = {name: int(many[name].max()) for name in self._senders}
        self._peaks |= Peaks(nodes, int(np.max(sum(many[name] for name in self._origins))))

    def counts(self, steps: int) -> Counts:
        """Return the counts after so many steps."""
        known = {
            name: {
                kind: np.reshape(n, self._samples) for kind, n in kinds.items() if np.size(n) == self._samples
            }
            for name, kinds in self._tallies.items()
        }
        summed = {
            name: {kind: int(np.sum(n)) for kind, n in kinds.items()} for name, kinds in self._tallies.items()
        }
        return Counts(
            graph=self._graph,
            events={name: held.sum(axis=0) for name, held in self._events.items()},
            steps=steps,
            samples=self._samples,
            tallies={name: kinds for name, kinds in summed.items() if kinds},
            peaks=self._peaks,
            each=Each(self._events, known)
            if all(known[name] for name in self._graph.of(Memory, IntegerMemory))
            else None,
        )


def operations(
    graph: Graph, events: Mapping[str, Array], tallies: Mapping[str, Mapping[str, Any]], turns: Any
) -> dict[str, Operations]:
    """Return the operations of each node.

    Args:
        graph: what ran.
        events: node -> (...), and `turns` is steps x samples; or (B, ...), and it is (B,), the steps of each.
        tallies: what events do not tell, likewise.
        turns: steps.
    """
    found = {}
    for name in graph.order:
        sources: dict[str, list[tuple[Signal, Array]]] = {}
        for edge in graph.into(name):
            sources.setdefault(edge.port, []).append((graph.signals[edge.source], events[edge.source]))
        shape = graph.signals[name].shape
        work = Work(sources, together(events[name], shape), prod(shape) * turns, turns, tallies.get(name, {}))
        arrived = sum(work.arrived(port) for port in sources)
        found[name] = cost(graph.nodes[name], work) + Operations(events_in=arrived, events_out=work.sent)
        extra = {} if isinstance(graph.nodes[name], Linear | Convolution) else sources
        added = sum((len(fed) - 1) * prod(fed[0][0].shape) for fed in extra.values())
        if added:
            found[name] += Operations(updates={"join": added * turns})
    return found


def updating(graph: Graph) -> dict[str, list[str]]:
    """Return kind -> the nodes of a graph that make updates of this kind where everything sends and fires.

    Raises:
        Unsupported: a node whose cost is not defined.
    """
    busy = {name: np.ones(signal.shape, np.int64) for name, signal in graph.signals.items()}
    tallies = {name: {"writes": 1, "fired": 1, "rescaled": 1} for name in graph.nodes}
    found: dict[str, list[str]] = {}
    for name, done in operations(graph, busy, tallies, 1).items():
        for kind in (kind for kind, n in done.updates.items() if n):
            found.setdefault(kind, []).append(name)
    return found


def joined(a: Apart, b: Apart, *, later: bool) -> Apart:
    """Return the operations of later steps added to those before, or of other samples behind those before."""
    if later:
        return {name: done + b[name] for name, done in a.items()}
    return {name: followed(done, b[name]) for name, done in a.items()}


def of_sample(done: Operations, number: int) -> Operations:
    """Return the operations of one sample out of those of all (B,)."""
    return done.each(lambda n: int(n[number]))


def followed(a: Operations, b: Operations) -> Operations:
    """Return the operations of some samples (B,) with those of others (B',) behind them."""
    numbers: dict[str, Any] = {
        name: np.concatenate([getattr(a, name), getattr(b, name)])
        for name in a.__dataclass_fields__
        if name != "updates"
    }
    updates: dict[str, Any] = {kind: np.concatenate([n, b.updates[kind]]) for kind, n in a.updates.items()}
    return Operations(**numbers, updates=updates)


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

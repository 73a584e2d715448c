"""What quantisation keeps while it goes through a graph: which node carries which signal, in which units.

Every signal of the graph of real numbers is carried by whole numbers that count U of a unit to one, a number U for each
neuron. Spikes count 1. Other signals count 2^f, with f by what was measured on samples; those that are added up share
one f, and so do those that are passed on unchanged. What is fed by several, or needs one unit, has them rescaled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, NamedTuple, get_args

import networkx as nx
import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Activation,
    Associative,
    Delay,
    Flatten,
    MaxPool2d,
    Reshape,
    Scale,
    Shift,
    TopK,
)
from unscan.compiler.passes.quantize_weights import ROOM, whole
from unscan.compiler.profiles import Profile, fraction

WIDER = 4
"""By how many bits a sum of signals may be wider than a signal before it is narrowed to be multiplied."""
SoftReset = Literal["node", "recurrent"]
SOFT_RESETS: tuple[str, ...] = get_args(SoftReset)


class Range(NamedTuple):
    """The least and the largest number that each neuron sent or kept, over samples and steps."""

    low: Array
    high: Array

    def __or__(self, other: Range) -> Range:
        """Return the range of both."""
        return Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def largest(self) -> Array:
        """The largest size of each."""
        return np.maximum(np.abs(self.low), np.abs(self.high)).astype(np.float64)


Ranges = Callable[[Graph], Mapping[str, Range]]
"""Runs a graph on samples and returns what each node sends under its name, its membranes before the reset (of the nodes
that have some) under `node.membrane`, and each of its states under `node.state`."""


class Leaf(NamedTuple):
    """A node with weights, or a filter, whose output goes to one neuron alone, and takes its units.

    Attributes:
        name: the node.
        divisor: what means between it and the neuron divide by.
        straight: whether its output channels are those of the neuron.
        alone: whether nothing stands between them.
    """

    name: str
    divisor: float = 1.0
    straight: bool = True
    alone: bool = True


class Carried(NamedTuple):
    """A signal in whole numbers.

    Attributes:
        name: the node that sends it.
        unit: what 1 counts, for each neuron.
        most: the largest size that it can have.
        counts: whether it counts spikes, exactly.
        positive: whether it is known to be unsigned.
    """

    name: str
    unit: Array
    most: float
    counts: bool = False
    positive: bool = False

    @property
    def uniform(self) -> bool:
        """Whether all neurons have one unit."""
        return bool(np.all(self.unit == self.unit.flat[0]))


class Lowering:
    """A graph of real numbers, and the one of whole numbers that is made of it.

    Args:
        graph: iterative nodes.
        profile: the widths.
        ranges: what was measured on samples; see `Ranges`.
        headroom: how many times what was measured has room.
        leaves: node -> for each edge into it, the leaves behind that edge, or None where it carries a signal that has
            units already.
        folded: the leaves, and what stands between them and their readers.
        soft_reset: see `Quantize`.
    """

    def __init__(
        self,
        graph: Graph,
        profile: Profile,
        ranges: Mapping[str, Range],
        headroom: float,
        leaves: Mapping[str, list[list[Leaf] | None]],
        folded: Collection[str],
        soft_reset: SoftReset = "node",
    ) -> None:
        self.graph, self.profile, self.ranges, self.headroom = graph, profile, ranges, headroom
        self.leaves, self.folded, self.soft_reset = leaves, folded, soft_reset
        self.balanced: dict[str, int] = {}
        """Real inputs that neurons read directly, with a fraction that leaves their weights room -> their bits."""
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.notes: list[str] = []
        self.units: dict[str, Array] = {}
        """Spiking node -> what a membrane of 1 counts, for each neuron."""
        self.carried: dict[str, Carried] = {}
        self._rescaled: dict[tuple[str, bytes], Carried] = {}
        self.fractions = self._planned()
        for name, signal in graph.signals.items():
            if signal.kind is Kind.SPIKE:
                self.carried[name] = Carried(name, np.ones(signal.shape), 1.0, counts=True)
        if graph.recurrent:
            for name in graph.of(Delay):
                if name in self.fractions:
                    self.carried[name] = self.at(name, name)

    def at(self, name: str, carrier: str) -> Carried:
        """Return a signal carried by a node in the units that are planned for it."""
        unit = np.full(self.graph.signals[name].shape, 2.0 ** self.fractions[name])
        return Carried(carrier, unit, Fixed(self.profile.signal_bits).max)

    def largest(self, key: str) -> Array:
        """Return the largest size of what was measured, for each neuron, and its headroom."""
        if key not in self.ranges:
            raise InvalidInput(
                f"quantize: the ranges that were measured lack {key!r}; measure this very graph."
            )
        return self.ranges[key].largest * self.headroom

    def add(self, name: str, node: Node, sources: Iterable[str], port: str = "x") -> str:
        """Add a node that some nodes feed; return its name, which is another where one of that name stands."""
        taken = {*self.nodes, *self.graph.nodes} - ({name} if name not in self.nodes else set())
        free = name
        while free in taken:
            free += "_"
        self.nodes[free] = node
        self.edges += [Edge(source, free, port) for source in sources]
        return free

    def _planned(self) -> dict[str, int]:
        """Return the fraction of every signal that is neither spikes nor folded."""
        signals = self.graph.signals
        real = [
            name
            for name, s in signals.items()
            if s.kind in (Kind.REAL, Kind.GRADED) and name not in self.folded
        ]
        together: nx.Graph[str] = nx.Graph()
        together.add_nodes_from(real)
        for name in self.graph.order:
            for port in self.graph.nodes[name].ports:
                sources = [e.source for e in self.graph.into(name) if e.port == port and e.source in together]
                same = [name] if name in together and passes_on(self.graph.nodes[name]) else []
                nx.add_path(together, [*sources, *same])
        found: dict[str, int] = {}
        for group in nx.connected_components(together):
            largest = max(float(self.largest(name).max()) for name in group)
            shared = fraction(largest, self.profile.signal_bits)
            decays = all(self._only_decays(name) for name in group)
            found |= dict.fromkeys(group, self.profile.decay_bits if decays else shared)
        return found

    def _only_decays(self, name: str) -> bool:
        """Say whether a signal is the decays of memories and nothing else."""
        targets = self.graph.out_of(name)
        return bool(targets) and all(
            isinstance(self.graph.nodes[edge.target], Associative) and edge.port == "alpha"
            for edge in targets
        )

    def arriving(
        self,
        name: str,
        port: str = "x",
        *,
        uniform: bool = False,
        channels: bool = False,
        narrow: bool = False,
    ) -> list[Carried]:
        """Return what feeds a port, all in the same units: one for all neurons where `uniform` says so.

        `channels`: one unit for each channel at least. `narrow`: states and sums, which are far wider than signals,
        in the bits of a signal, as they are multiplied.
        """
        into = [edge for edge in self.graph.into(name) if edge.port == port]
        parts = [self.carried[edge.source] for edge in into]
        first = parts[0].unit
        alike = all(np.array_equal(part.unit, first) for part in parts)
        flat = first.reshape(len(first), -1)
        if channels:
            alike = alike and bool((flat == flat[:, :1]).all())
        if uniform:
            alike = alike and parts[0].uniform
        wide = narrow and any(part.most >= 2.0 ** (self.profile.signal_bits + WIDER) for part in parts)
        if alike and not wide:
            return parts
        known = [self.fractions[edge.source] for edge in into if edge.source in self.fractions]
        return [self.rescaled(part, np.full(first.shape, 2.0 ** min(known, default=0))) for part in parts]

    def rescaled(self, part: Carried, unit: Array, bits: int | None = None) -> Carried:
        """Return a signal in other units, saturated in so many bits (by default those of a signal).

        By a shift where the units differ by powers of two, else by a product and a shift.
        """
        unit = np.broadcast_to(unit, part.unit.shape)
        bits = bits or self.profile.signal_bits
        factor = unit / part.unit
        if np.all(factor == 1):
            return part
        key = (part.name, unit.tobytes() + bytes([bits]))
        if key not in self._rescaled:
            self._rescaled[key] = self._rescale(part, unit, factor, bits)
        return self._rescaled[key]

    def _rescale(self, part: Carried, unit: Array, factor: Array, bits: int) -> Carried:
        exponent = np.floor(np.log2(np.where(factor > 0, factor, 1.0)))
        source = part.name
        if not np.all(factor == 2.0**exponent):
            finest = self.profile.weight_bits - 1
            spare = int(np.floor(np.log2(ROOM / part.most))) - finest
            if spare < 0:
                return self.rescaled(self.rescaled(part, part.unit * 2.0**spare, 32 - finest), unit, bits)
            numbers = np.rint(factor * 2.0 ** (finest - 1 - exponent))
            source = self.add(f"{source}.factor", Scale(whole(compact(numbers))), [source])
            exponent = exponent + 1 - finest
        most = part.most * float(factor.max()) + 1
        bits = min(bits, max(2, Fixed.holding(int(min(most, ROOM))).bits))
        shift = Shift(
            shift=whole(compact(np.minimum(-exponent, 31))), bits=bits, fraction=uniform_fraction(unit)
        )
        counts = part.counts and bool(np.all(factor >= 1))
        return Carried(self.add(f"{part.name}.units", shift, [source]), unit, Fixed(bits).max, counts)


def most_of(parts: list[Carried]) -> float:
    """Return the largest size of a sum of signals, by the bits that hold it."""
    return held(sum(part.most for part in parts)) if len(parts) > 1 else parts[0].most


def held(most: float) -> float:
    """Return the largest number of the narrowest format that holds one."""
    return float(Fixed.holding(int(most)).max)


def uniform_fraction(unit: Array) -> int:
    """Return f where all units are 2^f, else 0."""
    first = float(unit.flat[0])
    return int(np.log2(first)) if np.all(unit == first) and first > 0 and np.log2(first) % 1 == 0 else 0


def compact(values: Array) -> Array:
    """Return one number in place of an array of equal ones, and one for each channel where those are equal."""
    if np.all(values == values.flat[0]):
        return np.asarray(values.flat[0])
    flat = values.reshape(len(values), -1)
    if values.ndim > 1 and bool((flat == flat[:, :1]).all()):
        return np.asarray(flat[:, 0].reshape(-1, *(1,) * (values.ndim - 1)))
    return values


def passes_on(node: Node) -> bool:
    """Say whether a node sends numbers that it gets, so that they keep their units."""
    relu = isinstance(node, Activation) and node.function == "relu"
    return relu or isinstance(node, Flatten | Reshape | Delay | TopK | MaxPool2d)

"""The intermediate representation: a graph of named nodes whose edges carry typed signals.

A `Node` says what is computed (numpy arrays and settings, nothing executable); a `Graph` says what feeds what.
Both are immutable: a pass makes a new graph. What a node means is written in `unscan.runtime.executors.reference`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from unscan.compiler.errors import InvalidGraph

Array = NDArray[Any]
FLOATS = (np.float32, np.float64)
INTEGERS = (np.int8, np.int16, np.int32)


class Kind(StrEnum):
    """What an edge carries: it decides AC or MAC, and what an event-driven core must send."""

    SPIKE = "spike"
    """0 or 1."""
    GRADED = "graded"
    """Sparse numbers, sent as events with a payload."""
    REAL = "real"
    """A number at every step."""
    INDEX = "index"
    """A whole number from 0 up that names a row of an Embedding."""


class Dialect(StrEnum):
    """Which form a node belongs to."""

    ANY = "any"
    """Without memory: the same in both forms."""
    PARALLEL = "parallel"
    """The whole sequence at once, as trained."""
    ITERATIVE = "iterative"
    """State in, one step, state out, as deployed."""


@dataclass(frozen=True)
class Signal:
    """What leaves a node at one step for one sample: its kind and shape (neurons, no time and no batch)."""

    kind: Kind
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.shape}"


class Edge(NamedTuple):
    """`source` feeds the input `port` of `target`. Edges into one port add up."""

    source: str
    target: str
    port: str = "x"


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. Subclasses are frozen dataclasses of arrays (float32, float64, int8, int16 or int32) and settings.

    Arrays are copied, unless nobody can write to them any more; other numbers become float32.
    """

    dialect: ClassVar[Dialect] = Dialect.ANY
    delays: ClassVar[bool] = False
    """Whether what leaves it at a step depends on its state alone, so that it may stand in a loop."""
    whole: ClassVar[bool] = False
    """Whether it makes whole numbers, whatever it holds."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if str(field.type).startswith("Array") and value is not None:
                array = value if frozen(value) else np.array(value, order="C")
                if array.dtype not in FLOATS + INTEGERS or not isinstance(value, np.ndarray | np.generic):
                    array = array.astype(np.float32)
                array.setflags(write=False)
                object.__setattr__(self, field.name, array)
            elif isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of its inputs."""
        return ("x",)

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Yield (field, value) for every field that holds an array."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray | np.generic):
                yield field.name, np.asarray(value)

    def settings(self) -> dict[str, Any]:
        """Return the fields that are not arrays."""
        held = dict(self.arrays())
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in held}

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Infer what leaves the node. Raises ValueError with one clause where the inputs do not fit."""
        return inputs["x"]

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name and shape (without batch) what the node keeps between steps; every state starts at zero."""
        return {}

    def membrane(self, inputs: Mapping[str, Signal]) -> tuple[int, ...] | None:
        """Shape of the membranes that an execution records, those before the reset; None where there are none."""
        return None

    def map_arrays(self, function: Callable[[Array], Array]) -> Self:
        """Return the node with `function` applied to each of its arrays."""
        return replace(self, **{name: function(value) for name, value in self.arrays()})


def frozen(value: Any) -> bool:
    """Say whether a value is an array that nobody can write to any more, so that it need not be copied."""
    owner = value
    while isinstance(owner, np.ndarray) and not owner.flags.writeable:
        owner = owner.base
    return owner is None and value is not None and value.flags.c_contiguous


class Graph:
    """Named nodes, the edges between them, and what is known of their past.

    Args:
        nodes: name -> node, in the order in which they are listed.
        edges: what feeds what; several edges into one port add up.
        history: one line per pass that made this graph, oldest first.
        meta: JSON facts that travel with the model (task, decision over time, how it was trained).

    Raises:
        InvalidGraph: an edge names a node or port that is not there, or stands twice.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        edges: Iterable[Edge],
        *,
        history: Iterable[str] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.nodes: Mapping[str, Node] = MappingProxyType(dict(nodes))
        self.edges = tuple(edges)
        self.history = tuple(history)
        self.meta: Mapping[str, Any] = MappingProxyType(dict(meta or {}))
        self.topology: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        self.topology.add_nodes_from(self.nodes)
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in self.nodes:
                    raise InvalidGraph(
                        f"The edge {edge.source} -> {edge.target} names a node {end!r} that the graph does not "
                        f"have; its nodes are {', '.join(self.nodes)}."
                    )
            if edge.port not in self.nodes[edge.target].ports:
                raise InvalidGraph(
                    f"The edge {edge.source} -> {edge.target} names a port {edge.port!r}; "
                    f"{type(self.nodes[edge.target]).__name__} has {self.nodes[edge.target].ports}."
                )
            if self.topology.has_edge(edge.source, edge.target, key=edge.port):
                raise InvalidGraph(
                    f"The edge {edge.source} -> {edge.target} stands twice on port {edge.port!r}; "
                    "write a Scale node where a signal is to be added to itself."
                )
            self.topology.add_edge(edge.source, edge.target, key=edge.port)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Node names so that each comes after what feeds it; equal ones as they were listed.

        Where the graph has a loop, a Delay comes before what feeds it: what leaves it is known already.
        """
        rank = {name: i for i, name in enumerate(self.nodes)}
        within = self.topology
        if self.recurrent:
            within = nx.MultiDiGraph(within)
            within.remove_edges_from(
                [edge for edge in self.topology.edges(keys=True) if self.nodes[edge[1]].delays]
            )
        try:
            return tuple(nx.lexicographical_topological_sort(within, key=rank.__getitem__))
        except nx.NetworkXUnfeasible:
            loop = " -> ".join(str(edge[0]) for edge in nx.find_cycle(within))
            raise InvalidGraph(
                f"The nodes {loop} feed each other in one step. A loop needs a Delay in it: put one where the signal "
                "is to arrive a step later."
            ) from None

    @cached_property
    def recurrent(self) -> bool:
        """Whether nodes feed each other in a loop."""
        return not nx.is_directed_acyclic_graph(self.topology)

    @cached_property
    def signals(self) -> Mapping[str, Signal]:
        """What leaves each node. Raises InvalidGraph naming both ends where two do not fit."""
        found: dict[str, Signal] = {}
        behind = [name for name in self.order if self.recurrent and self.nodes[name].delays]
        for name in behind:
            found[name] = self.nodes[name].signal({})
        for name in (*(name for name in self.order if name not in found), *behind):
            inputs = self._inputs(name, found)
            try:
                found[name] = self.nodes[name].signal(inputs)
            except ValueError as fault:
                fed = ", ".join(f"{e.source} ({found[e.source]})" for e in self.into(name)) or "nothing"
                raise InvalidGraph(
                    f"{type(self.nodes[name]).__name__} {name!r} does not fit what feeds it, {fed}: {fault}."
                ) from None
        return MappingProxyType(found)

    def inputs(self, name: str) -> dict[str, Signal]:
        """Return what arrives at each port of a node, after several edges into one port are added."""
        return self._inputs(name, self.signals)

    def _inputs(self, name: str, signals: Mapping[str, Signal]) -> dict[str, Signal]:
        arriving: dict[str, Signal] = {}
        for port in self.nodes[name].ports:
            parts = [(e.source, signals[e.source]) for e in self.into(name) if e.port == port]
            if not parts:
                raise InvalidGraph(
                    f"Nothing feeds port {port!r} of {type(self.nodes[name]).__name__} {name!r}."
                )
            shapes = {part.shape for _, part in parts}
            if len(shapes) > 1:
                ends = ", ".join(f"{source} ({part})" for source, part in parts)
                raise InvalidGraph(f"Signals of different shapes are added at {name!r}: {ends}.")
            if len(parts) == 1:
                kind = parts[0][1].kind
            else:
                kind = Kind.REAL if any(part.kind is Kind.REAL for _, part in parts) else Kind.GRADED
            arriving[port] = Signal(kind, parts[0][1].shape)
        return arriving

    def into(self, name: str) -> list[Edge]:
        """Return the edges that feed a node, in the order in which they were written."""
        return [edge for edge in self.edges if edge.target == name]

    def out_of(self, name: str) -> list[Edge]:
        """Return the edges that a node feeds."""
        return [edge for edge in self.edges if edge.source == name]

    def of(self, *classes: type[Node]) -> list[str]:
        """Return the names of the nodes of the given classes, in topological order."""
        return [name for name in self.order if isinstance(self.nodes[name], classes)]

    def membranes(self) -> dict[str, tuple[int, ...]]:
        """Return node -> shape of its membranes at one step, for every node that has some, in topological order."""
        found = {name: self.nodes[name].membrane(self.inputs(name)) for name in self.order}
        return {name: shape for name, shape in found.items() if shape is not None}

    @cached_property
    def states(self) -> Mapping[str, tuple[int, ...]]:
        """Every state of the graph as `node.state` -> shape without batch."""
        return MappingProxyType(
            {
                f"{name}.{state}": shape
                for name in self.order
                for state, shape in self.nodes[name].state(self.inputs(name)).items()
            }
        )

    def with_nodes(self, changed: Mapping[str, Node]) -> Graph:
        """Return the graph with some nodes exchanged for others of the same name."""
        return Graph({**self.nodes, **changed}, self.edges, history=self.history, meta=self.meta)

    def bypass(self, name: str) -> Graph:
        """Return the graph without a one-port node: what fed it feeds what it fed."""
        sources = [edge.source for edge in self.into(name)]
        edges = []
        for edge in self.edges:
            if edge.source == name:
                edges += [Edge(source, edge.target, edge.port) for source in sources]
            elif edge.target != name:
                edges.append(edge)
        nodes = {key: node for key, node in self.nodes.items() if key != name}
        return Graph(nodes, edges, history=self.history, meta=self.meta)

    def without(self, names: Iterable[str]) -> Graph:
        """Return the graph without some nodes and without the edges that touch them."""
        gone = set(names)
        return Graph(
            {name: node for name, node in self.nodes.items() if name not in gone},
            [edge for edge in self.edges if edge.source not in gone and edge.target not in gone],
            history=self.history,
            meta=self.meta,
        )

    def annotate(self, *, history: Iterable[str] = (), meta: Mapping[str, Any] | None = None) -> Graph:
        """Return the graph with lines added to its history and facts added to its meta."""
        return Graph(
            self.nodes, self.edges, history=(*self.history, *history), meta={**self.meta, **(meta or {})}
        )

    def astype(self, dtype: type[np.floating[Any]]) -> Graph:
        """Return the graph with its real numbers in another format (float32 or float64); whole ones stay."""
        return self.with_nodes(
            {
                name: node.map_arrays(lambda a: a.astype(dtype) if a.dtype in FLOATS else a)
                for name, node in self.nodes.items()
            }
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest number format of the graph's arrays; float32 where it has none.

        Whole numbers count as float64, which holds them exactly up to 2^53.
        """
        found = [value.dtype for node in self.nodes.values() for _, value in node.arrays()]
        wide = [dtype for dtype in found if dtype in FLOATS]
        return np.result_type(np.float64 if self.integer else np.float32, *wide)

    @property
    def integer(self) -> bool:
        """Whether it computes with whole numbers."""
        return any(
            node.whole or any(value.dtype in INTEGERS for _, value in node.arrays())
            for node in self.nodes.values()
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of nodes and edges: equal for graphs that compute the same in the same number format."""
        sha = hashlib.sha256()
        for name in sorted(self.nodes):
            node = self.nodes[name]
            sha.update(json.dumps([name, type(node).__name__, node.settings()], sort_keys=True).encode())
            for field, value in node.arrays():
                sha.update(f"{field} {value.dtype.str} {value.shape}".encode())
                sha.update(np.ascontiguousarray(value).data)
        sha.update(json.dumps(sorted(self.edges)).encode())
        return sha.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes: {' -> '.join(self.nodes)})"

    def save(self, path: Any) -> None:
        """Write the graph as one `.unscan` file (see `unscan.compiler.storage`)."""
        from unscan.compiler.storage import save

        save(self, path)

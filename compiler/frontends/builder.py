"""A graph while it is read from somewhere: nodes are added one by one, each fed by values read before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Edge, Graph, Kind, Node, Signal
from unscan.compiler.nodes import Scale

Value = tuple[str, ...]
"""Nodes whose outputs add up to a signal."""

Axes = Literal["sequence", "folded", "step"]
AXES: dict[Axes, str] = {
    "sequence": "a whole sequence, (T, B, ...)",
    "folded": "a sequence with time and batch folded into one axis, (T B, ...)",
    "step": "one step, (B, ...)",
}
"""What stands before the neurons of a tensor."""
REMEDIES: dict[Axes, str] = {
    "sequence": "call it on the sequence, outside of the loop over the steps",
    "folded": "fold it with x.flatten(0, 1), and unfold what comes out with .unflatten(0, (T, B))",
    "step": "call it in a loop over the steps; if the model is one step, say so (stepwise=True, --stepwise), or if it "
    "repeats one, as an image (static=True, --static)",
}


@dataclass(frozen=True)
class Results:
    """What a module returns that returns several things, in its own order; None is what has no place in a graph."""

    values: tuple[Value | None, ...]


class Builder:
    """Nodes and edges so far, and the number format of constants that have none of their own.

    A reader of modules also says here, for the module at hand, what its input is (`axes`, None: not known) and which
    of its results are used by others than its own next step (`wanted`, positions from 0).
    """

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.notes: list[str] = []
        self._signals: dict[str, Signal] = {}
        self.axes: Axes | None = None
        self.wanted: frozenset[int] = frozenset({0})
        self.expected: tuple[Axes, ...] = ()

    def add(self, name: str, node: Node, *values: Value, **ports: Value) -> Value:
        """Add a node and return what leaves it.

        Values feed its ports in order, or by the port's name. A name that is taken gets a number.
        """
        unique, number = name, 1
        while unique in self.nodes:
            number += 1
            unique = f"{name}_{number}"
        self.nodes[unique] = node
        for port, value in {**dict(zip(node.ports, values, strict=False)), **ports}.items():
            self.feed(unique, value, port)
        return (unique,)

    def feed(self, name: str, value: Value, port: str = "x") -> None:
        """Let a value feed a port of a node that is there: also one that came before it, which makes a loop."""
        for source in dict.fromkeys(value):
            times = value.count(source)
            fed = source
            if times > 1:
                (fed,) = self.add(f"{source}_times_{times}", Scale(self.number(times)), (source,))
            self.edges.append(Edge(fed, name, port))

    def signal(self, value: Value) -> Signal:
        """Return what a value carries: its kind, and the shape of a step."""
        into: dict[str, dict[str, Value]] = {name: {} for name in self.nodes}
        for source, target, port in self.edges:
            into[target][port] = (*into[target].get(port, ()), source)
        for name, node in self.nodes.items():
            if node.delays:
                self._signals[name] = node.signal({})
            elif name not in self._signals:
                self._signals[name] = node.signal({p: self._added(v) for p, v in into[name].items()})
        return self._added(value)

    def _added(self, value: Value) -> Signal:
        parts = [self._signals[name] for name in value]
        if len(parts) == 1:
            return parts[0]
        kind = Kind.REAL if any(part.kind is Kind.REAL for part in parts) else Kind.GRADED
        return Signal(kind, parts[0].shape)

    def number(self, value: Any) -> Any:
        """Return a constant in the format of the graph."""
        return np.asarray(value, self.dtype)

    def expects(self, *wanted: Axes) -> None:
        """Say in which of the forms of `AXES` the module at hand takes its input.

        Raises Unsupported, as a clause "the module 'name' is ...", where it is handed another.
        """
        self.expected = wanted
        if self.axes is not None and self.axes not in wanted:
            raise Unsupported(
                f"handed {AXES[self.axes]}, and it takes {' or '.join(AXES[axes] for axes in wanted)}; "
                f"{REMEDIES[wanted[0]]}"
            )

    def graph(self, *, history: tuple[str, ...] = (), meta: Mapping[str, Any] | None = None) -> Graph:
        """Return the graph. Its history ends with the notes that were taken."""
        return Graph(self.nodes, self.edges, history=(*history, *self.notes), meta=meta)

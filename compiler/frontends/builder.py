"""A graph while it is read from somewhere: nodes are added one by one, each fed by values read before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Edge, Graph, Node
from unscan.compiler.nodes import Scale

Value = tuple[str, ...]
"""Nodes whose outputs add up to a signal."""

Axes = Literal["sequence", "step"]
"""What stands before the neurons of a tensor: (T, B), a whole sequence; or (B,), one step."""


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
        self.axes: Axes | None = None
        self.wanted: frozenset[int] = frozenset({0})
        self.expected: Axes | None = None

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

    def number(self, value: Any) -> Any:
        """Return a constant in the format of the graph."""
        return np.asarray(value, self.dtype)

    def expects(self, axes: Axes) -> None:
        """Raise Unsupported unless the module at hand is handed a whole sequence, or one step, as it needs it."""
        self.expected = axes
        if self.axes not in (axes, None):
            whole, one = "a whole sequence (T, B, ...)", "one step (B, ...)"
            got, wanted = (one, whole) if axes == "sequence" else (whole, one)
            remedy = "call it on the sequence" if axes == "sequence" else "call it in a loop over the steps"
            raise Unsupported(f"a module that takes {wanted}, and it is handed {got}; {remedy}")

    def graph(self, *, history: tuple[str, ...] = (), meta: Mapping[str, Any] | None = None) -> Graph:
        """Return the graph. Its history ends with the notes that were taken."""
        return Graph(self.nodes, self.edges, history=(*history, *self.notes), meta=meta)

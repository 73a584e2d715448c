"""One step at a time with the state kept: the loop of a sensor."""

from __future__ import annotations

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Input
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import State


class Stream:
    """Feed a graph one step after another.

    Args:
        graph: an iterative graph.
        using: name of the executor that runs it.
    """

    def __init__(self, graph: Graph, *, using: str = "event") -> None:
        self._executor = executor(using, graph)
        self.state: State | None = None

    def step(self, x: Array) -> Array:
        """Run one step: x (...) of one sample or (B, ...) of a batch; returns outputs of the same leading axis."""
        graph = self._executor.graph
        single = np.ndim(x) == len(graph.signals[graph.of(Input)[0]].shape)
        y, self.state = self._executor.step(np.asarray(x)[None] if single else np.asarray(x), self.state)
        return y[0] if single else y

    def reset(self) -> None:
        """Go back to the zero state."""
        self.state = None

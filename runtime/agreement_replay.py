"""What arrived at a layer in one sample of an execution, and what the layer makes of it in the reference.

An execution records spikes and membranes. What was sent between is computed again by the reference, in float64, from
the input and from the spikes as they were recorded: each side is judged by what it itself sent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import SPIKING, Delay, Input
from unscan.runtime.executors import integer_steps  # noqa: F401 (it gives whole numbers their steps)
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.steps import delayed, remembered, step


@dataclass(frozen=True)
class Side:
    """One of two executions that are compared.

    Attributes:
        execution: recorded, from a state of zeros.
        graph: what ran; None where it is not known, as of a file that holds spikes alone.
        x: the input (T, B, ...), likewise.
        name: what to call it.
        exact: whether it computed in float64.
    """

    execution: Execution
    graph: Graph | None = None
    x: Array | None = None
    name: str = ""
    exact: bool = False

    @property
    def ran(self) -> Graph:
        """The graph, where it has to be known."""
        assert self.graph is not None
        return self.graph

    def only(self, sample: int) -> Side:
        """Return one sample of it."""
        part = slice(sample, sample + 1)
        run = self.execution
        kept = Execution(
            run.outputs[:, part].copy(),
            {name: spikes[:, part].copy() for name, spikes in run.spikes.items()},
            {name: membranes[:, part].copy() for name, membranes in run.membranes.items()},
            {name: state[part].copy() for name, state in run.state.items()},
            None,
        )
        x = None if self.x is None else self.x[:, part].copy()
        return Side(kept, self.graph, x, self.name, self.exact)


class Followed(NamedTuple):
    """What the reference makes of what arrived at a layer.

    Attributes:
        membranes: (t + 1, ...) of the layer.
        state: what the layer kept when the last step began, without batch.
    """

    membranes: Array
    state: Mapping[str, Array]


@dataclass(frozen=True)
class Replay:
    """One sample of an execution up to a step, from which what was sent between layers can be had.

    Attributes:
        graph: what ran.
        side: the execution, with its input.
        sample: which sample.
        steps: how many steps, from the first.
    """

    graph: Graph
    side: Side
    sample: int
    steps: int
    _sent: dict[str, Array] = field(default_factory=dict, repr=False)

    @cached_property
    def heard(self) -> frozenset[str]:
        """The nodes that fire and were recorded."""
        return frozenset(name for name in self.graph.of(*SPIKING) if name in self.side.execution.spikes)

    def spikes(self, name: str) -> Array:
        """Return (steps, ...) the recorded spikes of a layer."""
        return self.side.execution.spikes[name][: self.steps, self.sample]

    def arriving(self, name: str) -> dict[str, Array]:
        """Return port -> (steps, ...) what arrived at a layer."""
        edges = self.graph.into(name)
        self._run({edge.source for edge in edges})
        return _added(self.graph, name, self._sent)

    def sent(self, name: str) -> Array:
        """Return (steps, ...) what a node sent."""
        self._run({name})
        return self._sent[name]

    def follow(self, name: str) -> Followed:
        """Run the step of one layer over what arrived at it, from a state of zeros."""
        node = self.graph.nodes[name]
        arrived = self.arriving(name)
        state = _zeros(self.graph, name)
        before, membranes = state, []
        for s in range(self.steps):
            before = state
            done = step(node, dict(state), **{port: each[s : s + 1] for port, each in arrived.items()})
            state = dict(done.state)
            membranes.append(cast(Array, done.membrane)[0])
        return Followed(np.stack(membranes), {key: value[0] for key, value in before.items()})

    def _run(self, wanted: Collection[str]) -> None:
        """Run all that is needed for what some nodes send, with the recorded spikes in the place of those that fire."""
        missing = {name for name in wanted if name not in self._sent}
        if not missing:
            return
        needed = self._needed(missing)
        order = [name for name in self.graph.order if name in needed]
        late = [name for name in order if self.graph.recurrent and isinstance(self.graph.nodes[name], Delay)]
        states = {name: _zeros(self.graph, name) for name in order if name not in self.heard}
        sent: dict[str, list[Array]] = {name: [] for name in missing}
        for s in range(self.steps):
            made: dict[str, Array] = {}
            for name in order:
                made[name] = self._step(name, s, made, states, name in late)
            for name in late:
                node = cast(Delay, self.graph.nodes[name])
                states[name] = remembered(node, states[name], _added(self.graph, name, made)["x"])
            for name, values in sent.items():
                values.append(made[name][0])
        self._sent.update({name: np.stack(values) for name, values in sent.items()})

    def _step(
        self, name: str, s: int, made: dict[str, Array], states: dict[str, dict[str, Array]], late: bool
    ) -> Array:
        """Return what a node sends at a step, (1, ...)."""
        node: Any = self.graph.nodes[name]
        if isinstance(node, Input):
            assert self.side.x is not None
            return np.asarray(self.side.x[s, [self.sample]], np.float64)
        if name in self.heard:
            fired = self.spikes(name)[[s]].astype(np.float64)
            if self.graph.signals[name].kind is not Kind.SPIKE:
                q = _added(self.graph, name, made)["q"]
                fired = fired @ q.reshape(1, fired.shape[2], -1)
            return fired.reshape(1, *self.graph.signals[name].shape)
        if late:
            return delayed(node, states[name])
        done = step(node, states[name], **_added(self.graph, name, made))
        states[name] = dict(done.state)
        return done.value

    def _needed(self, wanted: Collection[str]) -> set[str]:
        found: set[str] = set()
        ahead = list(wanted)
        while ahead:
            name = ahead.pop()
            if name in found:
                continue
            found.add(name)
            read = self.graph.into(name)
            if name in self.heard:
                graded = self.graph.signals[name].kind is not Kind.SPIKE
                read = [edge for edge in read if graded and edge.port == "q"]
            ahead += [edge.source for edge in read]
        return found


def _zeros(graph: Graph, name: str) -> dict[str, Array]:
    shapes = graph.nodes[name].state(graph.inputs(name)) if graph.nodes[name].ports else {}
    return {key: np.zeros((1, *shape)) for key, shape in shapes.items()}


def _added(graph: Graph, name: str, sent: Mapping[str, Array]) -> dict[str, Array]:
    """Return what arrives at each port whose sources are known."""
    found: dict[str, Array] = {}
    for edge in graph.into(name):
        if edge.source in sent:
            value = sent[edge.source]
            found[edge.port] = found[edge.port] + value if edge.port in found else value
    return found

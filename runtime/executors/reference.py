"""The reference: a graph step by step in float64, each node by its `step`. The truth, and slow."""

from __future__ import annotations

from typing import cast

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING, Delay, Output
from unscan.compiler.spec import check
from unscan.runtime.counts import Tallying
from unscan.runtime.executors import integer_steps, steps
from unscan.runtime.executors.base import Execution, State, check_input, check_state
from unscan.runtime.executors.steps import Stepped, delayed, remembered, step

MEANINGS = (steps, integer_steps)
"""Where the step of each node stands."""


class Reference:
    """Run a graph of either dialect. Raises InvalidGraph where it breaks an invariant."""

    def __init__(self, graph: Graph) -> None:
        self.graph = check(graph)
        (self._output,) = graph.of(Output)
        self._into = {name: self.graph.into(name) for name in graph.order}
        self._keeps = {name: tuple(graph.nodes[name].state(graph.inputs(name))) for name in graph.order}
        self._late = [name for name in graph.of(Delay) if graph.recurrent]

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...); see `Executor.run`."""
        x = check_input(self.graph, x)
        kept = check_state(self.graph, state, x.shape[1], np.float64)
        outputs: list[Array] = []
        spikes: dict[str, list[Array]] = {name: [] for name in self.graph.of(*SPIKING) if record}
        membranes: dict[str, list[Array]] = {name: [] for name in self.graph.membranes() if record}
        tallying = Tallying(self.graph, x.shape[1])
        for x_t in x:
            made, kept = self.advance(x_t, kept)
            outputs.append(made[self._output].value)
            tallying.add(
                {name: each.value for name, each in made.items()},
                {name: each.tallies for name, each in made.items()},
            )
            for name, fired in spikes.items():
                fired.append(cast(Array, made[name].spikes))
            for name, reached in membranes.items():
                reached.append(cast(Array, made[name].membrane))
        return Execution(
            outputs=np.stack(outputs),
            spikes={name: np.stack(recorded) for name, recorded in spikes.items()},
            membranes={name: np.stack(recorded) for name, recorded in membranes.items()},
            state=kept,
            counts=tallying.counts(steps=len(x)),
        )

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...); see `Executor.step`."""
        x = check_input(self.graph, x, steps=False)
        made, kept = self.advance(x, check_state(self.graph, state, len(x), np.float64))
        return made[self._output].value, kept

    def advance(self, x: Array, kept: State) -> tuple[dict[str, Stepped], dict[str, Array]]:
        """Run one step x (B, ...) from a state; return what each node made, and the next state."""
        made: dict[str, Stepped] = {}
        after: dict[str, Array] = {}
        for name in self.graph.order:
            node, state = self.graph.nodes[name], self._state(name, kept)
            if name in self._late:
                made[name] = Stepped(delayed(cast(Delay, node), state))
                continue
            made[name] = step(node, state, **self._arriving(name, made, x))
            after |= {f"{name}.{key}": value for key, value in made[name].state.items()}
        for name in self._late:
            x_late = self._arriving(name, made, x)["x"]
            past = remembered(cast(Delay, self.graph.nodes[name]), self._state(name, kept), x_late)
            after |= {f"{name}.{key}": value for key, value in past.items()}
        return made, after

    def _state(self, name: str, kept: State) -> dict[str, Array]:
        return {key: kept[f"{name}.{key}"] for key in self._keeps[name]}

    def _arriving(self, name: str, made: dict[str, Stepped], x: Array) -> dict[str, Array]:
        if not self._into[name]:
            return {"x": x.astype(np.float64)}
        arriving: dict[str, Array] = {}
        for edge in self._into[name]:
            value = made[edge.source].value
            arriving[edge.port] = arriving[edge.port] + value if edge.port in arriving else value
        return arriving

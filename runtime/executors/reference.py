"""What every node means: one step in float64 numpy, written to be read. Every other executor is tested against it."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from math import erf, sqrt

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Graph, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    Activation,
    BatchNorm,
    Flatten,
    Input,
    LIConvolution,
    LIFConvolution,
    LIFScan,
    Linear,
    Output,
    Scale,
)
from unscan.compiler.nodes.neurons import Leaky, Spiking
from unscan.compiler.spec import check
from unscan.runtime.counts import Counts
from unscan.runtime.executors.base import INTEGRATING, SPIKING, Execution, State, check_input, check_state

Stepped = tuple[Array, dict[str, Array], Array | None]
"""What leaves the node, its next state, and its membrane before the reset where it has one."""


@singledispatch
def step(node: Node, x: Array, state: dict[str, Array]) -> Stepped:
    """Run one step of one node: x (B, ...) is what arrives, `state` what the node kept."""
    raise Unsupported(f"The reference has no meaning for {type(node).__name__}.")


@step.register
def _(node: Output | Input, x: Array, state: dict[str, Array]) -> Stepped:
    return x, {}, None


@step.register
def _(node: Linear, x: Array, state: dict[str, Array]) -> Stepped:
    y = x @ node.weight.astype(np.float64).T
    return (y if node.bias is None else y + node.bias), {}, None


@step.register
def _(node: Scale, x: Array, state: dict[str, Array]) -> Stepped:
    return node.scale.astype(np.float64) * x, {}, None


@step.register
def _(node: BatchNorm, x: Array, state: dict[str, Array]) -> Stepped:
    gain, offset = node.affine()
    return gain * x + offset, {}, None


@step.register
def _(node: Flatten, x: Array, state: dict[str, Array]) -> Stepped:
    return x.reshape(len(x), -1), {}, None


@step.register
def _(node: Activation, x: Array, state: dict[str, Array]) -> Stepped:
    return FUNCTIONS[node.function](x), {}, None


@step.register(LIF)
@step.register(LIFScan)
@step.register(LIFConvolution)
def _(node: Spiking, x: Array, state: dict[str, Array]) -> Stepped:
    theta = node.threshold.astype(np.float64)
    u = integrate(node, x, state["u"])
    if node.phase == "next":
        fired = fires(node, state["u"])
        if node.reset == "subtract":
            u = u - theta * fired
        elif node.reset == "zero":
            u = u * ~fired
        return fires(node, u).astype(np.float64), {"u": u}, u
    spikes = fires(node, u)
    if node.reset == "subtract":
        kept = u - theta * spikes
    elif node.reset == "zero":
        kept = u * ~spikes
    else:
        kept = u
    return spikes.astype(np.float64), {"u": kept}, u


@step.register(LI)
@step.register(LIConvolution)
def _(node: Leaky, x: Array, state: dict[str, Array]) -> Stepped:
    u = integrate(node, x, state["u"])
    return u, {"u": u}, u


def integrate(node: Leaky, x: Array, u: Array) -> Array:
    """Return beta u + g x."""
    beta = node.beta.astype(np.float64)
    return beta * u + (x if node.gain == "1" else (1 - beta) * x)


def fires(node: Spiking, u: Array) -> Array:
    """Return H(u - theta) as bool, a tie counted as the node says."""
    return u >= node.threshold if node.fires == ">=" else u > node.threshold


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(x / 2)),
    "tanh": np.tanh,
    "silu": lambda x: x * 0.5 * (1 + np.tanh(x / 2)),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(erf, otypes=[np.float64])(x / sqrt(2))),
}


class Reference:
    """Run a graph step by step in float64, each node by its `step`. The truth, and slow."""

    def __init__(self, graph: Graph) -> None:
        self.graph = check(graph)
        (self._output,) = graph.of(Output)
        self._keeps = {name: tuple(graph.nodes[name].state(graph.inputs(name))) for name in graph.order}

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...); see `Executor.run`."""
        x = check_input(self.graph, x)
        kept = check_state(self.graph, state, x.shape[1], np.float64)
        outputs: list[Array] = []
        spikes: dict[str, list[Array]] = {name: [] for name in self.graph.of(*SPIKING) if record}
        membranes: dict[str, list[Array]] = {name: [] for name in self.graph.of(*INTEGRATING) if record}
        events = {name: np.zeros(signal.shape, np.int64) for name, signal in self.graph.signals.items()}
        for x_t in x:
            values, kept, reached = self._advance(x_t, kept)
            outputs.append(values[self._output])
            for name, value in values.items():
                events[name] += np.count_nonzero(value, axis=0)
            for name, recorded in spikes.items():
                recorded.append(values[name] > 0)
            for name, recorded in membranes.items():
                recorded.append(reached[name])
        return Execution(
            outputs=np.stack(outputs),
            spikes={name: np.stack(recorded) for name, recorded in spikes.items()},
            membranes={name: np.stack(recorded) for name, recorded in membranes.items()},
            state=kept,
            counts=Counts(self.graph, events, steps=x.shape[0], samples=x.shape[1]),
        )

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...); see `Executor.step`."""
        x = check_input(self.graph, x, steps=False)
        values, kept, _ = self._advance(x, check_state(self.graph, state, len(x), np.float64))
        return values[self._output], kept

    def _advance(self, x: Array, kept: State) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        values: dict[str, Array] = {}
        next_kept: dict[str, Array] = {}
        reached: dict[str, Array] = {}
        for name in self.graph.order:
            arriving = [values[edge.source] for edge in self.graph.into(name)] or [x.astype(np.float64)]
            state = {key: kept[f"{name}.{key}"] for key in self._keeps[name]}
            values[name], state, membrane = step(
                self.graph.nodes[name], sum(arriving[1:], arriving[0]), state
            )
            next_kept |= {f"{name}.{key}": value for key, value in state.items()}
            if membrane is not None:
                reached[name] = membrane
        return values, next_kept, reached

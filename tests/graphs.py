"""Graphs and inputs that several tests share."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import LI, LIF, Activation, BatchNorm, Input, Linear, Output, Scale
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES, RESETS
from unscan.compiler.nodes.stateless import FUNCTIONS


def chain(**nodes: Node) -> Graph:
    """A graph in which each node feeds the next."""
    names = list(nodes)
    return Graph(nodes, [Edge(a, b) for a, b in itertools.pairwise(names)])


def linear(
    rng: np.random.Generator, inputs: int, outputs: int, *, bias: bool = True, dtype: Any = np.float64
) -> Linear:
    weight = rng.normal(0, 1.5 / np.sqrt(inputs), (outputs, inputs)).astype(dtype)
    return Linear(weight, rng.normal(0, 0.1, outputs).astype(dtype) if bias else None)


def lif(beta: Any = 0.9, threshold: Any = 1.0, *, dtype: Any = np.float64, **settings: Any) -> LIF:
    reset = settings.setdefault("reset", "zero")
    settings.setdefault("trained_reset", reset)
    return LIF(beta=np.asarray(beta, dtype), threshold=np.asarray(threshold, dtype), **settings)


def two_layers(
    reset: str = "zero", *, seed: int = 0, kind: Kind = Kind.REAL, dtype: Any = np.float64
) -> Graph:
    """Input 6 -> Linear -> LIF 12 -> Linear -> LIF 9 -> Linear -> LI 4."""
    rng = np.random.default_rng(seed)
    return chain(
        input=Input((6,), kind),
        fc1=linear(rng, 6, 12, dtype=dtype),
        lif1=lif(0.9, 0.7, reset=reset, dtype=dtype),
        fc2=linear(rng, 12, 9, dtype=dtype),
        lif2=lif(0.8, 0.6, reset=reset, dtype=dtype),
        fc3=linear(rng, 9, 4, bias=False, dtype=dtype),
        readout=LI(beta=np.asarray(0.95, dtype)),
        output=Output(),
    )


def sequence(graph: Graph, steps: int, batch: int, seed: int = 1, *, rate: float = 0.3) -> Array:
    """A random input (T, B, ...) of the kind that the graph takes."""
    rng = np.random.default_rng(seed)
    (name,) = graph.of(Input)
    signal = graph.signals[name]
    size = (steps, batch, *signal.shape)
    return rng.random(size) < rate if signal.kind is Kind.SPIKE else rng.normal(0, 1, size)


@st.composite
def graphs(draw: st.DrawFn, *, dtype: Any = np.float64) -> Graph:
    """Random chains with residual adds: every iterative node, every setting of a neuron, scalar and per-channel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def parameter(low: float, high: float, width: int) -> Array:
        size = (width,) if draw(st.booleans()) else ()
        return np.asarray(rng.uniform(low, high, size), dtype)

    width = draw(st.integers(1, 9))
    nodes: dict[str, Node] = {"input": Input((width,), draw(st.sampled_from([Kind.SPIKE, Kind.REAL])))}
    edges: list[Edge] = []
    last, same_width = ["input"], ["input"]
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["linear", "lif", "lif", "li", "scale", "norm", "activation"]))
        name = f"n{i}"
        if kind == "linear":
            wider = draw(st.integers(1, 9))
            nodes[name] = linear(rng, width, wider, bias=draw(st.booleans()), dtype=dtype)
            width, same_width = wider, []
        elif kind == "lif":
            nodes[name] = lif(
                parameter(0, 1, width),
                parameter(0.2, 1, width),
                dtype=dtype,
                reset=draw(st.sampled_from(RESETS)),
                phase=draw(st.sampled_from(PHASES)),
                fires=draw(st.sampled_from(FIRES)),
                gain=draw(st.sampled_from(GAINS)),
            )
        elif kind == "li":
            nodes[name] = LI(beta=parameter(0, 0.95, width), gain=draw(st.sampled_from(GAINS)))
        elif kind == "scale":
            nodes[name] = Scale(parameter(-1.5, 1.5, width))
        elif kind == "norm":
            arrays = [rng.uniform(0.5, 1.5, width).astype(dtype) for _ in range(4)]
            nodes[name] = BatchNorm(*arrays)
        else:
            nodes[name] = Activation(draw(st.sampled_from(FUNCTIONS)))
        edges += [Edge(source, name) for source in last]
        earlier = [n for n in same_width if n not in last]
        last = [name]
        if earlier and draw(st.booleans()):
            last.append(draw(st.sampled_from(earlier)))
        same_width.append(name)
    nodes["output"] = Output()
    edges += [Edge(source, "output") for source in last]
    return Graph(nodes, edges)

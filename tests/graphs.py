"""Graphs and inputs that several tests share."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import LI, LIF, Activation, BatchNorm, Flatten, Input, Linear, Output, Scale
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


def lif(
    beta: Any = 0.9, threshold: Any = 1.0, reset: Any = "zero", *, dtype: Any = np.float64, **settings: Any
) -> LIF:
    settings.setdefault("trained_reset", reset)
    return LIF(beta=np.asarray(beta, dtype), threshold=np.asarray(threshold, dtype), reset=reset, **settings)


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


def sequence(graph: Graph, steps: int, batch: int, seed: int = 1, *, rate: float | None = None) -> Array:
    """A random input (T, B, ...) of the kind that the graph takes; a share `rate` of it is not zero.

    By default 0.3 of the spikes, and every number.
    """
    rng = np.random.default_rng(seed)
    signal = graph.signals[graph.of(Input)[0]]
    size = (steps, batch, *signal.shape)
    spikes = signal.kind is Kind.SPIKE
    here = rng.random(size) < (rate if rate is not None else 0.3 if spikes else 1.0)
    return here if spikes else here * rng.normal(0, 1, size)


KINDS = (Linear, Scale, BatchNorm, Flatten, Activation, LIF, LI)


def random_node(rng: np.random.Generator, node: type[Node], shape: tuple[int, ...]) -> Node:
    """Make a node of a class, its settings drawn, that fits an input shape."""
    channels = shape[-1]

    def scalar_or_channels(low: float, high: float) -> Any:
        return rng.uniform(low, high, () if rng.random() < 0.5 else (channels,))

    if node is Linear:
        out = int(rng.choice([1, 2, 15, 16, 17, 64, 65, 80]))
        weight = rng.standard_normal((out, channels)) * 1.5 / np.sqrt(channels)
        weight[rng.random(weight.shape) < 0.2] = 0
        return Linear(weight, rng.standard_normal(out) * 0.1 if rng.random() < 0.4 else None)
    if node is Scale:
        return Scale(scalar_or_channels(-1, 1.5))
    if node is BatchNorm:
        mean, weight, bias = rng.standard_normal((3, channels)) * 0.5
        return BatchNorm(weight=weight, bias=bias, mean=mean, variance=rng.uniform(0.5, 2, channels))
    if node is Flatten:
        return Flatten()
    if node is Activation:
        return Activation(FUNCTIONS[rng.integers(len(FUNCTIONS))])  # type: ignore[arg-type]
    gain = GAINS[rng.integers(2)]
    beta = np.asarray(rng.choice([0.0, 1.0])) if rng.random() < 0.15 else scalar_or_channels(0, 1)
    if node is LI:
        return LI(beta=beta, gain=gain)  # type: ignore[arg-type]
    reset = RESETS[rng.integers(3)]
    phase, fires = PHASES[rng.integers(2)], FIRES[rng.integers(2)]
    threshold = scalar_or_channels(0.1, 0.8)
    return lif(beta, threshold, reset=reset, phase=phase, fires=fires, gain=gain)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Acyclic graphs of every iterative node, with residual adds, nodes with several readers and with none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(1,), (3,), (64,), (70,), (128,), (5, 3), (2, 3, 4)]))
    kind = draw(st.sampled_from(list(Kind)))
    nodes: dict[str, Node] = {"in": Input(shape, kind)}
    edges: list[Edge] = []
    shapes = {"in": shape}
    for i, node in enumerate(draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=9))):
        names = [name for name in shapes if node is not Linear or len(shapes[name]) == 1]
        if not names:
            continue
        source = names[-1] if rng.random() < 0.7 else names[rng.integers(len(names))]
        peers = [name for name in names if shapes[name] == shapes[source] and name != source]
        sources = [source, *(name for name in peers if rng.random() < 0.3)]
        made = random_node(rng, node, shapes[source])
        if isinstance(made, Activation) and made.function not in ("relu", "tanh"):
            # where these saturate, rounding decides whether a number is 0, and so whether it is an event
            nodes[f"bound{i}"] = Activation("tanh")
            edges += [Edge(source, f"bound{i}") for source in sources]
            shapes[f"bound{i}"], sources = shapes[source], [f"bound{i}"]
        nodes[f"n{i}"] = made
        edges += [Edge(source, f"n{i}") for source in sources]
        shapes[f"n{i}"] = Graph(nodes, edges).signals[f"n{i}"].shape
    last = list(nodes)[-1]
    peers = [name for name in shapes if shapes[name] == shapes[last] and name != last and rng.random() < 0.2]
    nodes["out"] = Output()
    return Graph(nodes, [*edges, *(Edge(source, "out") for source in [last, *peers])])

"""Graphs that the tests of targets share."""

from itertools import pairwise
from typing import Any

import numpy as np

from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import LI, LIF, Activation, BatchNorm, Flatten, Input, Linear, Node, Output, Scale

STEPS = 100


def chain(nodes: dict[str, Node], **facts: Any) -> Graph:
    return Graph(nodes, [Edge(a, b) for a, b in pairwise(nodes)], **facts)


def weight(rng: np.random.Generator, rows: int, columns: int, dtype: Any, size: float = 2.0) -> Any:
    return (rng.normal(size=(rows, columns)) * size / np.sqrt(columns)).astype(dtype)


def lif(dtype: Any = np.float64, beta: Any = 0.9, threshold: Any = 1.0137, **settings: Any) -> LIF:
    return LIF(
        beta=np.asarray(beta, dtype),
        threshold=np.asarray(threshold, dtype),
        trained_reset=settings.pop("trained_reset", "none"),
        **settings,
    )


def feed_forward(
    *,
    seed: int = 0,
    dtype: Any = np.float64,
    readout: bool = False,
    sizes: Any = (12, 24, 16, 5),
    **neuron: Any,
) -> Graph:
    """Input -> Linear -> LIF -> Linear -> LIF -> Linear -> LI or LIF -> Output."""
    rng = np.random.default_rng(seed)
    a, b, c, d = sizes
    last: Node = LI(beta=np.asarray(0.8, dtype)) if readout else lif(dtype, **neuron)
    return chain(
        {
            "in": Input((a,), kind=Kind.SPIKE),
            "first": Linear(weight(rng, b, a, dtype, 3), rng.normal(size=b).astype(dtype) * dtype(0.1)),
            "hidden.0": lif(dtype, **neuron),
            "second": Linear(weight(rng, c, b, dtype, 3)),
            "hidden.1": lif(dtype, **{**neuron, "beta": neuron.get("beta", 0.8)}),
            "third": Linear(weight(rng, d, c, dtype, 3)),
            "last": last,
            "out": Output(),
        },
        history=("traced", "unroll"),
        meta={"task": "test", "decision": "sum"},
    )


def zoo(dtype: Any = np.float64, *, seed: int = 1, gelu: bool = False) -> Graph:
    """Every iterative node, a residual add into a neuron and one into a Linear."""
    rng = np.random.default_rng(seed)
    n = 10

    def draw(low: float, high: float, size: int = n) -> Any:
        return rng.uniform(low, high, size).astype(dtype)

    nodes: dict[str, Node] = {
        "in": Input((2, 3)),
        "scale in": Scale(draw(0.5, 2, 3)),
        "flat": Flatten(),
        "w0": Linear(weight(rng, n, 6, dtype), draw(-0.1, 0.3)),
        "norm": BatchNorm(draw(0.5, 2), draw(-0.2, 0.6), draw(-0.1, 0.1), draw(0.5, 1.5)),
        "lif0": lif(dtype, draw(0.5, 0.95), draw(0.5, 1.5), reset="subtract", phase="next", gain="1-beta"),
        "graded": Scale(np.asarray(1.25, dtype)),
        "w1": Linear(weight(rng, n, n, dtype)),
        "lif1": lif(dtype, 0.9, draw(0.5, 1.5), reset="zero", phase="next", fires=">"),
        "w2": Linear(weight(rng, n, n, dtype), draw(-0.1, 0.1)),
        "relu": Activation("relu"),
        "tanh": Activation("tanh"),
        "w3": Linear(weight(rng, n, n, dtype)),
        "lif2": lif(dtype, 0.7, 0.8, reset="zero"),
        "sigmoid": Activation("sigmoid"),
        "silu": Activation("silu"),
        "gelu": Activation("gelu" if gelu else "silu"),
        "w4": Linear(weight(rng, 4, n, dtype)),
        "li": LI(beta=draw(0.5, 0.9, 4), gain="1-beta"),
        "out": Output(),
    }
    edges = [Edge(a, b) for a, b in pairwise(nodes)]
    edges += [Edge("graded", "w2"), Edge("norm", "lif2"), Edge("lif0", "lif2"), Edge("lif1", "w4")]
    return Graph(nodes, edges, meta={"decision": "mean"})


def drive(graph: Graph, steps: int = STEPS, batch: int = 3, *, seed: int = 2, rate: float = 0.3) -> Any:
    """Spikes or normal numbers, as the graph's Input takes them."""
    rng = np.random.default_rng(seed)
    (name,) = graph.of(Input)
    signal = graph.signals[name]
    shape = (steps, batch, *signal.shape)
    if signal.kind is Kind.SPIKE:
        return (rng.random(shape) < rate).astype(np.float64)
    return rng.normal(0.3, 1, shape)

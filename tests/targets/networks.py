"""Graphs that the tests of targets share."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LI,
    LIF,
    Activation,
    AdaptiveLIF,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    CubaLIF,
    Delay,
    DiagonalSSM,
    Flatten,
    Input,
    Linear,
    Node,
    Output,
    Scale,
    SumPool2d,
    Threshold,
)

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


def with_neuron(neuron: Node, *, dtype: Any = np.float32, seed: int = 3) -> Graph:
    """Spikes 12 -> Linear -> a neuron of 16 -> Linear -> LIF 6."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, Node] = {
        "in": Input((12,), kind=Kind.SPIKE),
        "first": Linear(weight(rng, 16, 12, dtype, 2), rng.normal(size=16).astype(dtype) * dtype(0.1)),
        "it": neuron,
        "second": Linear(weight(rng, 6, 16, dtype, 3)),
        "last": lif(dtype, 0.8, 0.9137, reset="zero"),
        "out": Output(),
    }
    return chain(nodes).astype(dtype)


def cuba(**settings: Any) -> CubaLIF:
    settings = {"alpha": np.asarray(0.6), "beta": np.asarray(0.8), "threshold": np.asarray(0.9137)} | settings
    return CubaLIF(**{"reset": "zero", "trained_reset": "none"} | settings)


def adaptive(**settings: Any) -> AdaptiveLIF:
    numbers = {"beta": np.linspace(0.5, 0.95, 16), "kappa": np.asarray(0.3), "rho": np.linspace(0.5, 0.9, 16)}
    return AdaptiveLIF(**numbers, threshold=np.asarray(0.7137), **{"trained_reset": "none"} | settings)


def diagonal(channels: int = 16, modes: int = 4, *, seed: int = 5) -> DiagonalSSM:
    rng = np.random.default_rng(seed)
    size, angle = rng.uniform(0.3, 0.99, (channels, modes)), rng.uniform(0, np.pi, (channels, modes))
    a = np.stack([size * np.cos(angle), size * np.sin(angle)], axis=-1)
    c = rng.normal(0, 0.3, (channels, modes, 2))
    return DiagonalSSM(a=a, c=c, d=rng.normal(0, 0.5, channels))


def images(*, dtype: Any = np.float32, seed: int = 4, reset: Any = "zero") -> Graph:
    """Spikes (2, 8, 8) -> two convolutions with neurons and pools -> Flatten -> Linear -> LIF 5."""
    rng = np.random.default_rng(seed)

    def conv(out: int, part: int, **settings: Any) -> Conv2d:
        return Conv2d(weight=rng.normal(size=(out, part, 3, 3)) * 0.5, **settings)

    nodes: dict[str, Node] = {
        "in": Input((2, 8, 8), kind=Kind.SPIKE),
        "conv1": conv(4, 2, bias=rng.normal(size=4) * 0.1, padding=1),
        "lif1": lif(dtype, 0.8, 0.9137, reset="zero"),
        "sum": SumPool2d(kernel=2, stride=2),
        "conv2": conv(6, 2, groups=2, padding=2, dilation=2),
        "lif2": lif(dtype, rng.uniform(0.5, 0.9, (6, 1, 1)) if reset != "zero" else 0.7, 0.9137, reset=reset),
        "mean": AvgPool2d(kernel=3, stride=2, padding=1),
        "flat": Flatten(),
        "read": Linear(rng.normal(size=(5, 24)) * 0.8),
        "last": lif(dtype, 0.9, 0.9137, reset="subtract"),
        "out": Output(),
    }
    return chain(nodes).astype(dtype)


def looped(
    steps: Any = 1,
    *,
    bias: bool = False,
    layers: int = 1,
    back: bool = True,
    dtype: Any = np.float32,
    **neuron: Any,
) -> Graph:
    """Spikes 12 -> Linear -> layers of 8 LIF, the last of which feeds the first through a Delay and a Linear."""
    rng = np.random.default_rng(6)
    nodes: dict[str, Node] = {
        "in": Input((12,), kind=Kind.SPIKE),
        "w0": Linear(weight(rng, 8, 12, dtype), rng.normal(size=8) * 0.1),
    }
    edges = [("in", "w0"), ("w0", "lif0")]
    if back:
        nodes["back"] = Linear(weight(rng, 8, 8, dtype, 1.0), rng.normal(size=8) * 0.2 if bias else None)
    for i in range(layers):
        nodes[f"lif{i}"] = lif(dtype, 0.8, 0.9137, **{"reset": "zero"} | neuron)
        if i:
            nodes[f"w{i}"] = Linear(weight(rng, 8, 8, dtype, 3.0))
            edges += [(f"lif{i - 1}", f"w{i}"), (f"w{i}", f"lif{i}")]
    nodes |= {
        "late": Delay(steps=np.asarray(steps, np.float64), shape=(8,), kind=Kind.SPIKE),
        "read": Linear(weight(rng, 4, 8, dtype, 1.5)),
        "last": lif(dtype, 0.7, 0.9137, reset="zero"),
        "out": Output(),
    }
    edges += [(f"lif{layers - 1}", "late"), ("late", "back" if back else "lif0")]
    edges += [("back", "lif0")] if back else []
    edges += [(f"lif{layers - 1}", "read"), ("read", "last"), ("last", "out")]
    return Graph(nodes, [Edge(a, b) for a, b in edges]).astype(dtype)


DEPLOYED: dict[str, Callable[[], Graph]] = {
    "threshold": lambda: with_neuron(Threshold(threshold=np.asarray(0.9137))),
    "cuba-zero": lambda: with_neuron(cuba()),
    "cuba-zero-gain": lambda: with_neuron(cuba(gain="1-beta", threshold=np.asarray(0.3137), fires=">")),
    "cuba-zero-forgets": lambda: with_neuron(cuba(alpha=np.asarray(0.0), beta=np.asarray(0.0))),
    "cuba-zero-no-leak": lambda: with_neuron(cuba(beta=np.asarray(1.0), threshold=np.asarray(3.0137))),
    "cuba-zero-per-channel": lambda: with_neuron(cuba(alpha=np.linspace(0.1, 0.9, 16))),
    "cuba-subtract": lambda: with_neuron(cuba(reset="subtract")),
    "cuba-subtract-next": lambda: with_neuron(cuba(reset="subtract", phase="next", gain="1-beta")),
    "cuba-none": lambda: with_neuron(cuba(reset="none")),
    "adaptive-none": lambda: with_neuron(adaptive(reset="none")),
    "adaptive-subtract": lambda: with_neuron(adaptive(reset="subtract", gain="1-beta")),
    "diagonal": lambda: with_neuron(diagonal()),
    "delay": lambda: with_neuron(Delay(steps=np.arange(16) % 5 + 1.0, shape=(16,), kind=Kind.REAL)),
    "images-zero": images,
    "images-subtract": lambda: images(reset="subtract"),
    "images-none": lambda: images(reset="none"),
    "loop": looped,
    "loop-subtract": lambda: looped(reset="subtract"),
    "loop-biased": lambda: looped(bias=True),
    "loop-of-three": lambda: looped(3, layers=2),
    "loop-each": lambda: looped(np.arange(8) % 3 + 1, layers=3, bias=True, reset="subtract"),
    "loop-bare": lambda: looped(back=False),
}
"""What NIR holds beside chains of Linear and LIF."""


def drive(graph: Graph, steps: int = STEPS, batch: int = 3, *, seed: int = 2, rate: float = 0.3) -> Any:
    """Spikes or normal numbers, as the graph's Input takes them."""
    rng = np.random.default_rng(seed)
    (name,) = graph.of(Input)
    signal = graph.signals[name]
    shape = (steps, batch, *signal.shape)
    if signal.kind is Kind.SPIKE:
        return (rng.random(shape) < rate).astype(np.float64)
    return rng.normal(0.3, 1, shape)

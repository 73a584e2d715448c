"""Small graphs of whole numbers for folders: every neuron, every operator, and what tests make others of."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np

from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Activation,
    Concatenate,
    Conv2d,
    Delay,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerLIF,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    Reshape,
    Scale,
    Shift,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.neurons import PHASES, RESETS


def chain(*nodes: Node, more: tuple[Edge, ...] = (), beside: dict[str, Node] | None = None) -> Graph:
    """Nodes that feed each other in a row, named by number, the first an Input; an Output behind them."""
    named = {**{str(i): node for i, node in enumerate(nodes)}, "output": Output(), **(beside or {})}
    names = [*map(str, range(len(nodes))), "output"]
    return Graph(named, [*(Edge(a, b) for a, b in pairwise(names)), *more])


def weights(*shape: int, largest: int = 30, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-largest, largest + 1, shape).astype(np.int16)


def neuron(**changed: Any) -> IntegerLIF:
    held: dict[str, Any] = {"beta": np.int32(3686), "threshold": np.int32(40), "trained_reset": "zero"}
    return IntegerLIF(**{**held, **changed})


def every_neuron() -> Graph:
    """Neurons in all resets and phases, with and without a current, wrapping or saturating, side by side."""
    nodes: dict[str, Node] = {"input": Input((4,), Kind.SPIKE), "fc": Linear(weights(3, 4, largest=90))}
    edges = [Edge("input", "fc")]
    kinds = list(product(RESETS, PHASES, (False, True)))
    for number, (reset, phase, other) in enumerate(kinds):
        settings: dict[str, Any] = {"reset": reset, "phase": phase, "wraps": other, "bits": 9, "shift": 1}
        settings |= {
            "beta": np.array([4096, 3000, 0]),
            "threshold": np.array([20, 130, 250]),
            "decay_bits": 12,
        }
        settings |= {"trained_reset": reset, "bias": np.array([3, -9, 5]) if number % 3 else None}
        current = IntegerCubaLIF(alpha=np.int32(4000), **settings)
        nodes[f"neuron{number}"] = current if other else IntegerLIF(**settings)
        edges += [Edge("fc", f"neuron{number}"), Edge(f"neuron{number}", "all", f"x{number}")]
    nodes |= {"all": Concatenate(len(kinds)), "output": Output()}
    return Graph(nodes, [*edges, Edge("all", "output")])


def operators() -> Graph:
    """Every operator without memory, a sum at a port, and a loop through a delay that feeds what feeds it."""
    back = Delay(steps=np.array([1, 2, 3, 1], np.float32), shape=(4,), kind=Kind.REAL)
    nodes: dict[str, Node] = {
        "input": Input((2, 5, 6), Kind.SPIKE),
        "conv": Conv2d(weight=weights(4, 1, 2, 3), bias=weights(4), padding=(1, 0, 0, 2), groups=2),
        "scale": Scale(np.array([1, -2, 3, 2], np.int8).reshape(4, 1, 1)),
        "relu": Activation("relu"),
        "maximum": MaxPool2d(kernel=2, stride=1, padding=(0, 1)),
        "sum": SumPool2d(kernel=2, stride=2),
        "flatten": Flatten(),
        "shift": Shift(shift=np.int32(2), bits=8),
        "first": Linear(weights(4, 24)),
        "second": Linear(weights(4, 24, seed=2)),
        "back": back,
        "narrow": Shift(shift=np.array([3, 4, 5, 6]), bits=7),
        "threshold": Threshold(threshold=np.array([5, 10, 15, 20], np.int32)),
        "product": Multiply(),
        "pair": Concatenate(2),
        "top": TopK(3),
        "square": Reshape((2, 4)),
        "output": Output(),
    }
    row = [
        "input",
        "conv",
        "scale",
        "relu",
        "maximum",
        "sum",
        "flatten",
        "shift",
        "first",
        "narrow",
        "threshold",
    ]
    edges = [Edge(a, b) for a, b in pairwise(row)]
    edges += [
        Edge("shift", "second"),
        Edge("narrow", "back"),
        Edge("back", "narrow"),
        Edge("second", "narrow"),
    ]
    edges += [Edge("threshold", "product", "a"), Edge("narrow", "product", "b")]
    edges += [Edge("product", "pair", "x0"), Edge("back", "pair", "x1"), Edge("threshold", "pair", "x1")]
    edges += [Edge("pair", "top"), Edge("pair", "square"), Edge("square", "output"), Edge("again", "output")]
    nodes["again"] = Reshape((2, 4))
    return Graph(nodes, [*edges, Edge("top", "again")])

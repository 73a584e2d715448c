"""One small network for each node, and each way of a neuron, that the matrix of NIR has a row for.

Each ends in spikes, of the node itself or of a Threshold behind it, so that F1 can be taken.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.targets.every_node import CASES as EVERY
from tests.targets.every_whole_node import WHOLE
from tests.targets.networks import adaptive, chain, cuba, diagonal, lif, looped, weight
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LI,
    AvgPool2d,
    Conv1d,
    Conv2d,
    Delay,
    Flatten,
    Input,
    Linear,
    Node,
    Output,
    Scale,
    SumPool2d,
    Threshold,
)

F32 = np.float32
NEURONS = 16
STEPS, BATCH = 100, 4
FIRES = Threshold(threshold=np.asarray(0.9137))


def behind(*nodes: Node, size: float = 2.0) -> Graph:
    """Return 12 spikes -> Linear -> the nodes of 16 neurons."""
    rng = np.random.default_rng(3)
    first = Linear(weight(rng, NEURONS, 12, np.float64, size), rng.normal(size=NEURONS) * 0.1)
    named = {"in": Input((12,), kind=Kind.SPIKE), "w": first} | {
        f"it{i}": node for i, node in enumerate(nodes)
    }
    return chain(named | {"out": Output()}).astype(F32)


def image(*nodes: Node, shape: tuple[int, ...] = (2, 8, 8)) -> Graph:
    """Return spikes of a shape -> the nodes -> a Flatten and a Threshold."""
    named = {"in": Input(shape, kind=Kind.SPIKE)} | {f"it{i}": node for i, node in enumerate(nodes)}
    return chain(named | {"flat": Flatten(), "fires": FIRES, "out": Output()}).astype(F32)


def drawn(*shape: int, size: float = 0.5) -> Any:
    return np.random.default_rng(4).normal(size=shape) * size


def read(rows: int = 10, columns: int = NEURONS) -> Linear:
    return Linear(weight(np.random.default_rng(5), rows, columns, np.float64, 2.0))


def joined() -> Graph:
    """Return a Linear beside its own input, added."""
    graph = behind(lif(reset="zero"), read(NEURONS), FIRES)
    return Graph(graph.nodes, [*graph.edges, Edge("it0", "it2")])


def loop() -> Graph:
    """Return a layer whose spikes come back to it by a Delay of one step and a Linear."""
    full = looped(reset="subtract")
    kept = {name: node for name, node in full.nodes.items() if name not in ("read", "last")}
    edges = [edge for edge in full.edges if {edge.source, edge.target} <= kept.keys()]
    return Graph(kept, [*edges, Edge("lif0", "out")])


def loop_to_zero() -> Graph:
    """Return `loop` with a reset to zero."""
    graph = loop()
    return graph.with_nodes({"lif0": lif(F32, 0.8, 0.9137, reset="zero")})


def neuron(**settings: Any) -> Graph:
    return behind(lif(**settings))


DECAYS, THRESHOLDS = np.linspace(0.5, 0.95, NEURONS), np.linspace(0.6137, 1.4137, NEURONS)
RUN: dict[str, Callable[[], Graph]] = {
    "Linear, Threshold": lambda: behind(FIRES),
    "Scale": lambda: behind(Scale(np.linspace(0.5, 2, NEURONS)), FIRES),
    "Flatten": lambda: image(Flatten(), Linear(drawn(10, 128, size=0.3))),
    "Conv1d": lambda: image(Conv1d(weight=drawn(4, 2, 3), padding=1), shape=(2, 12)),
    "Conv2d": lambda: image(Conv2d(weight=drawn(4, 2, 3, 3), bias=drawn(4, size=0.1), padding=1, stride=2)),
    "Conv2d, groups": lambda: image(Conv2d(weight=drawn(4, 1, 3, 3), groups=2)),
    "SumPool2d": lambda: image(SumPool2d(kernel=2, stride=2)),
    "AvgPool2d": lambda: image(AvgPool2d(kernel=2, stride=2), Scale(np.asarray(2.0))),
    "signals that meet": joined,
    "Delay": lambda: behind(
        lif(reset="none"),
        Delay(steps=np.arange(NEURONS) % 5 + 1.0, shape=(NEURONS,), kind=Kind.SPIKE),
        read(),
        FIRES,
    ),
    "loop, reset zero": loop_to_zero,
    "loop, reset subtract": loop,
    "loop, gain 1 - beta": lambda: loop().with_nodes(
        {"lif0": lif(F32, 0.5, 0.4137, reset="subtract", gain="1-beta")}
    ),
    "DiagonalSSM": lambda: behind(diagonal(NEURONS, 8), FIRES),
    "LI": lambda: behind(LI(beta=DECAYS), FIRES),
    "LIF none": lambda: neuron(reset="none"),
    "LIF subtract": lambda: neuron(reset="subtract"),
    "LIF subtract, gain 1 - beta": lambda: neuron(reset="subtract", gain="1-beta", threshold=0.3137),
    "LIF subtract, small weights": lambda: behind(lif(reset="subtract"), size=0.4),
    "LIF subtract, next": lambda: neuron(reset="subtract", phase="next"),
    "LIF subtract, image": lambda: image(
        Conv2d(weight=drawn(4, 2, 3, 3), padding=1), lif(reset="subtract"), Conv2d(weight=drawn(2, 4, 3, 3))
    ),
    "LIF subtract, next, image": lambda: image(
        Conv2d(weight=drawn(4, 2, 3, 3)),
        lif(reset="subtract", phase="next"),
        Conv2d(weight=drawn(2, 4, 3, 3)),
    ),
    "LIF subtract, no leak (IF), image": lambda: image(
        Conv2d(weight=drawn(4, 2, 3, 3)),
        lif(reset="subtract", beta=1.0, threshold=2.0137),
        Conv2d(weight=drawn(2, 4, 3, 3)),
    ),
    "LIF zero": lambda: neuron(reset="zero"),
    "LIF zero, fires on >": lambda: neuron(reset="zero", fires=">"),
    "LIF zero, gain 1 - beta": lambda: neuron(reset="zero", gain="1-beta", threshold=0.3137),
    "LIF zero, next": lambda: neuron(reset="zero", phase="next"),
    "LIF zero, no leak (IF)": lambda: neuron(reset="zero", beta=1.0, threshold=2.0137),
    "LIF zero, own decays": lambda: neuron(reset="zero", beta=DECAYS),
    "LIF zero, own thresholds": lambda: neuron(reset="zero", threshold=THRESHOLDS),
    "LIF subtract, own decays, thresholds": lambda: neuron(
        reset="subtract", beta=DECAYS, threshold=THRESHOLDS
    ),
    "CubaLIF none": lambda: behind(cuba(reset="none")),
    "CubaLIF subtract": lambda: behind(cuba(reset="subtract")),
    "CubaLIF subtract, next": lambda: behind(cuba(reset="subtract", phase="next")),
    "CubaLIF zero": lambda: behind(cuba()),
    "CubaLIF zero, own decays": lambda: behind(cuba(alpha=DECAYS / 2, beta=DECAYS)),
    "AdaptiveLIF none": lambda: behind(adaptive(reset="none")),
    "AdaptiveLIF subtract": lambda: behind(adaptive(reset="subtract")),
    "AdaptiveLIF zero": lambda: behind(adaptive(reset="zero")),
}
"""What some profile can say."""


REFUSED: dict[str, Callable[[], Graph]] = {
    "MaxPool2d": EVERY["max-pool"],
    "BatchNorm": EVERY["batch-norm"],
    "LayerNorm": EVERY["layer-norm"],
    "RMSNorm": EVERY["rms-norm"],
    "Reshape": EVERY["reshape"],
    "Embedding": EVERY["embedding"],
    "Activation": EVERY["activation-relu"],
    "GLU": EVERY["glu"],
    "Multiply": EVERY["multiply"],
    "Concatenate": EVERY["concatenate"],
    "TopK": EVERY["top-k"],
    "AssociativeMemory": EVERY["associative-none-None-dense"],
    "DeltaMemory": EVERY["delta-none-None-dense"],
    "whole numbers": WHOLE["linear-spikes"],
}
"""What no profile can say."""
ROWS = RUN | REFUSED

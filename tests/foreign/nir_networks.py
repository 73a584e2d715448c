"""The five networks on which the portable profile is shown, and what drives them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.targets.networks import chain, cuba, diagonal, lif, weight
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import Conv2d, Delay, Flatten, Input, Linear, Output

OFF_GRID = 0.3137 / 64
"""What keeps a threshold off a grid of weights of 1/64: > and >= differ on ties alone."""
F32 = np.float32


def gridded(rows: int, columns: int, size: float, *, seed: int) -> Any:
    """Return weights that are multiples of 1/64."""
    drawn = weight(np.random.default_rng(seed), rows, columns, np.float64, size)
    return (np.round(drawn * 64) / 64).astype(F32)


def recurrent() -> Graph:
    """Return 64 spikes -> 3 x 256 LIF, reset to zero, the middle layer fed by its own spikes of the step before."""
    nodes = {"in": Input((64,), kind=Kind.SPIKE)}
    for i, (columns, size) in enumerate(((64, 3.0), (256, 3.0), (256, 3.0))):
        nodes[f"w{i}"] = Linear(gridded(256, columns, size, seed=i))
        nodes[f"lif{i}"] = lif(F32, 0.9, 1 + OFF_GRID, reset="zero")
    graph = chain(nodes | {"out": Output()})
    ring = {
        "late": Delay(steps=np.ones((), F32), shape=(256,), kind=Kind.SPIKE),
        "back": Linear(gridded(256, 256, 1.0, seed=3)),
    }
    edges = [Edge("lif1", "late"), Edge("late", "back"), Edge("back", "lif1")]
    return Graph({**graph.nodes, **ring}, [*graph.edges, *edges])


def soft_reset() -> Graph:
    """Return two layers of LIF whose threshold is subtracted."""
    nodes = {
        "in": Input((32,), kind=Kind.SPIKE),
        "w0": Linear(gridded(64, 32, 3.0, seed=4)),
        "lif0": lif(F32, 0.9, 1 + OFF_GRID, reset="subtract"),
        "w1": Linear(gridded(64, 64, 3.0, seed=5)),
        "lif1": lif(F32, 0.8, 1 + OFF_GRID, reset="subtract"),
        "out": Output(),
    }
    return chain(nodes)


def state_space() -> Graph:
    """Return 16 channels of 16 complex modes, and LIF behind them."""
    nodes = {
        "in": Input((16,), kind=Kind.SPIKE),
        "s4d": diagonal(16, 16),
        "lif": lif(F32, 0.7, 1 + OFF_GRID, reset="zero"),
        "out": Output(),
    }
    return chain(nodes).astype(F32)


def convolution() -> Graph:
    """Return a Conv2d over images of 2 x 16 x 16 and IF, which are LIF that do not leak."""
    drawn = np.random.default_rng(6).normal(size=(8, 2, 3, 3)) * 0.5
    nodes = {
        "in": Input((2, 16, 16), kind=Kind.SPIKE),
        "conv": Conv2d(weight=(np.round(drawn * 64) / 64).astype(F32), padding=1, stride=2),
        "if": lif(F32, 1.0, 2 + OFF_GRID, reset="zero"),
        "flat": Flatten(),
        "w": Linear(gridded(10, 512, 4.0, seed=7)),
        "last": lif(F32, 1.0, 2 + OFF_GRID, reset="zero"),
        "out": Output(),
    }
    return chain(nodes)


def current() -> Graph:
    """Return two layers of CubaLIF, reset to zero."""
    nodes = {
        "in": Input((32,), kind=Kind.SPIKE),
        "w0": Linear(gridded(64, 32, 2.0, seed=8)),
        "cuba0": cuba(threshold=np.asarray(1 + OFF_GRID)),
        "w1": Linear(gridded(64, 64, 2.0, seed=9)),
        "cuba1": cuba(threshold=np.asarray(1 + OFF_GRID)),
        "out": Output(),
    }
    return chain(nodes).astype(F32)


SHOWN: dict[str, tuple[Callable[[], Graph], int, int]] = {
    "3 x 256 LIF, recurrent middle layer": (recurrent, 1000, 1),
    "two layers of LIF, soft reset": (soft_reset, 500, 2),
    "S4D, H = 16, N = 16, and LIF": (state_space, 500, 2),
    "Conv2d and IF": (convolution, 200, 2),
    "CubaLIF": (current, 500, 2),
}
"""Network -> what makes it, steps, samples."""

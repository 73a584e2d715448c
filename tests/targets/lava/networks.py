"""Small graphs of whole numbers for Lava, one for each thing that netx can say."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Conv2d,
    Delay,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerLI,
    IntegerLIF,
    Linear,
    Output,
    Quantize,
)


def weights(*shape: int, seed: int = 0) -> Array:
    """Even weights of both signs."""
    weight = 2 * np.random.default_rng([seed, *shape]).integers(-40, 60, shape)
    weight.flat[0], weight.flat[-1] = 2, -2
    return weight.astype(np.int16)


def lif(**settings: Any) -> IntegerLIF:
    """A neuron with the settings of Loihi 2; `alpha` gives it a current."""
    kept: dict[str, Any] = {
        "beta": np.int32(3500),
        "threshold": np.int32(64 * 90),
        "shift": 6,
        "wraps": True,
        "trained_reset": "zero",
        **settings,
    }
    return IntegerCubaLIF(**kept) if "alpha" in kept else IntegerLIF(**kept)


def line(*nodes: tuple[str, Node], extra: tuple[Edge, ...] = ()) -> Graph:
    """A graph of nodes one behind the other, with an Output, and more edges."""
    named = {**dict(nodes), "output": Output()}
    return Graph(named, [*(Edge(a, b) for a, b in itertools.pairwise(named)), *extra])


def loop(graph: Graph, neuron: str, weight: Array, steps: float = 1) -> Graph:
    """The graph with a recurrence `rec` from a neuron to itself."""
    shape = graph.signals[neuron].shape
    nodes = {
        "back": Delay(steps=np.asarray(steps, np.float32), shape=shape, kind=Kind.SPIKE),
        "rec": Linear(weight),
    }
    edges = [Edge(neuron, "back"), Edge("back", "rec"), Edge("rec", neuron)]
    return Graph({**graph.nodes, **nodes}, [*graph.edges, *edges])


def dense(**settings: Any) -> Graph:
    """6 -> 5 -> 4, the second layer with a current."""
    return line(
        ("input", Input((6,), Kind.SPIKE)),
        ("fc1", Linear(weights(5, 6))),
        ("first", lif(bias=np.int32(640), **settings)),
        ("fc2", Linear(weights(4, 5))),
        ("second", lif(alpha=np.int32(2000))),
    )


def soft_reset(theta: int = 100) -> Graph:
    """6 -> 5, where the current is the membrane and the threshold is taken off it a step later."""
    neuron = lif(
        alpha=np.int32(4000), beta=np.int32(0), threshold=np.int32(64 * theta), trained_reset="subtract"
    )
    graph = line(("input", Input((6,), Kind.SPIKE)), ("fc1", Linear(weights(5, 6))), ("first", neuron))
    return loop(graph, "first", (-theta * np.eye(5)).astype(np.int16))


def convolution() -> Graph:
    """2 x 7 x 6 -> 4 x 4 x 6 by a grouped, strided, dilated kernel with a bias for each channel, -> 3."""
    channels = (4, 1, 1)
    neuron = lif(
        beta=np.array([500, 3000, 4096, 3500], np.int32).reshape(channels),
        threshold=np.array([3000, 4000, 5000, 6000], np.int32).reshape(channels) // 64 * 64,
        bias=np.array([64, 0, -64, 128], np.int32).reshape(channels),
    )
    kernel = Conv2d(
        weight=weights(4, 1, 3, 2),
        bias=np.array([1, -2, 3, 4], np.int16),
        stride=(2, 1),
        padding=(1, 1),
        dilation=(1, 2),
        groups=2,
    )
    return line(
        ("input", Input((2, 7, 6), Kind.SPIKE)),
        ("conv", kernel),
        ("first", neuron),
        ("flatten", Flatten()),
        ("fc", Linear(weights(3, 96))),
        ("second", lif(alpha=np.int32(1000), threshold=np.int32(64 * 300))),
    )


def delays() -> Graph:
    """6 -> 5 -> 4 with a delay for each input of the first layer and each output of the second."""
    before = np.array([1, 2, 3, 1, 5, 62], np.float32)
    behind = np.array([1, 7, 2, 1], np.float32)
    return line(
        ("input", Input((6,), Kind.SPIKE)),
        ("wait", Delay(steps=before, shape=(6,), kind=Kind.SPIKE)),
        ("fc1", Linear(weights(5, 6))),
        ("first", lif()),
        ("fc2", Linear(weights(4, 5))),
        ("later", Delay(steps=behind, shape=(4,), kind=Kind.REAL)),
        ("second", lif()),
    )


def integrator() -> Graph:
    """6 -> 5 -> 3, read out by integrators with a bias."""
    li = IntegerLI(
        beta=np.int32(4000), shift=6, wraps=True, bias=np.array([0, 64, -640], np.int32), fraction=10
    )
    return line(
        ("input", Input((6,), Kind.SPIKE)),
        ("fc1", Linear(weights(5, 6))),
        ("first", lif()),
        ("fc2", Linear(weights(3, 5))),
        ("li", li),
    )


def readout() -> Graph:
    """Real numbers -> 5 -> 3, read out without a neuron."""
    return line(
        ("input", Input((6,), Kind.REAL)),
        ("quantize", Quantize(bits=8, fraction=5)),
        ("fc1", Linear(weights(5, 6), np.array([1, -2, 300, 0, 4], np.int16))),
        ("first", lif(threshold=np.int32(64 * 2000))),
        ("fc2", Linear(weights(3, 5))),
    )

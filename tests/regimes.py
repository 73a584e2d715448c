"""Networks and inputs of every regime of size and activity: wide, sparse, dense, silent, of small whole weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    AdaptiveLIF,
    Conv2d,
    CubaLIF,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerLI,
    IntegerLIF,
    Linear,
    Output,
    Scale,
    Threshold,
)
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES, RESETS
from unscan.runtime.executors.event.assembly import LONGEST_CHUNK

WIDTHS = (1, 7, 63, 64, 65, 128, 200, 513, 640, 1030)
"""Around the lengths of vectors, and beyond the pitch of 512 numbers."""
DENSITIES = (1.0, 1.0, 0.5, 0.1, 0.05, 0.01, 0.005, 0.0)
"""Share of the weights that are not zero."""
RATES = (0.0, 0.0, 0.002, 0.02, 0.1, 0.5, 1.0)
"""Share of an input that is not zero, in one stretch of a sequence."""
LARGEST = {"int8": 127, "int16": 2**15 - 1}


@dataclass(frozen=True)
class Regime:
    """What the weights of a network are.

    Attributes:
        weights: real numbers; whole ones as large as 8 or 16 bits hold, in floating point; or arrays of whole numbers.
        whole: whether they stand in arrays of whole numbers, and neurons of whole numbers behind them.
    """

    weights: str
    whole: bool

    @property
    def exact(self) -> bool:
        """Whether every sum is exact in float64, in whatever order it is taken."""
        return self.weights != "real"


REGIMES = (
    Regime("real", False),
    Regime("int8", False),
    Regime("int16", False),
    Regime("int8", True),
    Regime("int16", True),
)


def synapses(rng: np.random.Generator, regime: Regime, *size: int) -> Array:
    """Draw weights (out, in, ...): real ones have a norm of 1.5 a row, whole ones the range of their format."""
    here = rng.random(size) < rng.choice(DENSITIES)
    if not regime.exact:
        fan_in = max(1.0, here.sum() / size[0])
        return np.asarray(rng.standard_normal(size) * here * 1.5 / np.sqrt(fan_in))
    largest = LARGEST[regime.weights]
    drawn = rng.integers(-largest, largest + 1, size) * here
    return drawn.astype(regime.weights if regime.whole else np.float64)


def level(rng: np.random.Generator, weight: Array) -> float:
    """Draw a threshold between one that nearly every input passes and one that nearly none does."""
    reached = max(1.0, float(np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1).max()))
    return float(reached * rng.choice([1e-3, 0.02, 0.1, 0.3, 2.0]))


def exact_neuron(rng: np.random.Generator, weight: Array) -> Node:
    """Make a neuron whose membrane stays exact: decays are 0 or 1, thresholds whole."""
    theta = np.asarray(max(1.0, np.rint(level(rng, weight))))
    fires, reset, phase = (drawn[rng.integers(len(drawn))] for drawn in (FIRES, RESETS, PHASES))
    if rng.random() < 0.2:
        return Threshold(threshold=theta, fires=fires)  # type: ignore[arg-type]
    beta = np.asarray(float(rng.integers(2)))
    return LIF(beta=beta, threshold=theta, reset=reset, phase=phase, fires=fires, trained_reset=reset)  # type: ignore[arg-type]


def real_neuron(rng: np.random.Generator, weight: Array, width: int) -> Node:
    """Make a neuron of any setting."""
    one = width if rng.random() < 0.5 else ()
    reset = RESETS[rng.integers(3)]
    drawn: dict[str, Any] = {
        "beta": np.asarray(rng.choice([0.0, 1.0])) if rng.random() < 0.2 else rng.uniform(0, 1, one),
        "gain": GAINS[rng.integers(2)],
        "threshold": np.asarray(level(rng, weight)) * rng.uniform(0.8, 1.2, one),
        "reset": reset,
        "trained_reset": reset,
        "fires": FIRES[rng.integers(2)],
    }
    kind = (LIF, LIF, LIF, CubaLIF, AdaptiveLIF)[rng.integers(5)]
    if kind is AdaptiveLIF:
        return AdaptiveLIF(**drawn, kappa=rng.uniform(0.1, 1, one), rho=rng.uniform(0, 1, one))
    drawn["phase"] = PHASES[rng.integers(2)]
    return CubaLIF(**drawn, alpha=rng.uniform(0, 1, one)) if kind is CubaLIF else LIF(**drawn)


def whole_neuron(rng: np.random.Generator, weight: Array) -> Node:
    """Make a neuron of whole numbers, of 24 bits."""
    reset = RESETS[rng.integers(3)]
    drawn: dict[str, Any] = {
        "beta": np.int32(rng.choice([0, 1500, 4000, 4096])),
        "threshold": np.int32(min(2**23 - 1, level(rng, weight))),
        "reset": reset,
        "phase": PHASES[rng.integers(2)],
        "trained_reset": reset,
        "wraps": bool(rng.random() < 0.2),
    }
    if rng.random() < 0.3:
        return IntegerCubaLIF(**drawn, alpha=np.int32(rng.integers(0, 4097)))
    return IntegerLIF(**drawn)


def firing(rng: np.random.Generator, regime: Regime, weight: Array, width: int) -> Node:
    """Make a neuron that fits what its weights are."""
    if regime.whole:
        return whole_neuron(rng, weight)
    return exact_neuron(rng, weight) if regime.exact else real_neuron(rng, weight, width)


def offsets(rng: np.random.Generator, regime: Regime, weight: Array) -> Array | None:
    """Draw a bias of some of the layers."""
    if rng.random() < 0.7:
        return None
    size = level(rng, weight) * rng.choice([0.01, 1.0])
    drawn = rng.uniform(-size, size, len(weight))
    if regime.whole:
        return np.rint(drawn).astype(np.int32)
    return np.asarray(np.rint(drawn) if regime.exact else drawn)


def stack(seed: int, regime: Regime, *, layers: int = 3, widest: int = WIDTHS[-1]) -> Graph:
    """Draw a network of some layers, each fed by the spikes of several before it of equal width, and a readout.

    One in four starts with a convolution. Linears with two and more lists of spikes stand beside neurons that two
    Linears feed.
    """
    rng = np.random.default_rng(seed)
    widths = [width for width in WIDTHS if width <= widest]
    usual = int(rng.choice(widths))
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    wide: dict[str, int] = {}
    if rng.random() < 0.25:
        channels, side = int(rng.choice([1, 3, 8])), int(rng.choice([5, 12]))
        weight = synapses(rng, regime, int(rng.choice([2, 9])), channels, 3, 3)
        conv = Conv2d(
            weight=weight, bias=offsets(rng, regime, weight), stride=int(rng.integers(1, 3)), padding=1
        )
        nodes |= {"in": Input((channels, side, side), Kind.SPIKE), "conv": conv}
        nodes |= {"fires": firing(rng, regime, weight.reshape(len(weight), -1), ()), "last": Flatten()}  # type: ignore[arg-type]
        edges += [Edge(a, b) for a, b in (("in", "conv"), ("conv", "fires"), ("fires", "last"))]
        wide["last"] = Graph(nodes, edges).signals["last"].shape[0]
    else:
        wide["in"] = usual if rng.random() < 0.5 else int(rng.choice(widths))
        nodes["in"] = Input((wide["in"],), Kind.SPIKE)
    for layer in range(layers):
        last = list(wide)[-1]
        width = usual if rng.random() < 0.5 else int(rng.choice(widths))
        weight = synapses(rng, regime, width, wide[last])
        nodes[f"f{layer}"] = Linear(weight, offsets(rng, regime, weight))
        peers = [name for name, n in wide.items() if n == wide[last] and name != last and rng.random() < 0.6]
        edges += [Edge(name, f"f{layer}") for name in (last, *peers)]
        fed = [f"f{layer}"]
        skipped = [name for name in wide if name != last]
        if skipped and rng.random() < 0.3:
            source = skipped[rng.integers(len(skipped))]
            beside = synapses(rng, regime, width, wide[source])
            nodes[f"g{layer}"] = Linear(beside)
            edges.append(Edge(source, f"g{layer}"))
            fed.append(f"g{layer}")
        nodes[f"n{layer}"] = firing(rng, regime, weight, width)
        edges += [Edge(name, f"n{layer}") for name in fed]
        wide[f"n{layer}"] = width
        if not regime.whole and rng.random() < 0.15:
            factors = rng.integers(-2, 3, width) if regime.exact else rng.uniform(-1, 1.5, width)
            nodes[f"s{layer}"] = Scale(factors.astype(np.float64))
            edges.append(Edge(f"n{layer}", f"s{layer}"))
            wide[f"s{layer}"] = width
    last = list(wide)[-1]
    readout = (
        IntegerLI(beta=np.int32(3700)) if regime.whole else LI(beta=np.asarray(1.0 if regime.exact else 0.95))
    )
    nodes |= {"read": Linear(synapses(rng, regime, 5, wide[last])), "li": readout, "out": Output()}
    return Graph(nodes, [*edges, Edge(last, "read"), Edge("read", "li"), Edge("li", "out")])


def quiet(graph: Graph, steps: int, samples: int, seed: int = 0) -> Array:
    """Draw spikes (T, B, ...) whose rate changes every 32 steps and from sample to sample: silence, a few, all."""
    rng = np.random.default_rng(seed)
    shape = graph.signals[graph.of(Input)[0]].shape
    stretches = -(-steps // LONGEST_CHUNK)
    rates = rng.choice(RATES, (stretches, samples))
    rate = np.repeat(rates, LONGEST_CHUNK, axis=0)[:steps].reshape(steps, samples, *(1,) * len(shape))
    return np.asarray(rng.random((steps, samples, *shape)) < rate)


def stacks(regimes: tuple[Regime, ...] = REGIMES, **sizes: int) -> st.SearchStrategy[tuple[Graph, Regime]]:
    """Networks of every regime, with the regime that each is of."""
    return st.builds(
        lambda seed, regime: (stack(seed, regime, **sizes), regime),
        st.integers(0, 2**32 - 1),
        st.sampled_from(regimes),
    )

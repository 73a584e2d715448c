"""Random networks of whole numbers that several tests share: what every executor and target must run bit for bit."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np

from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Conv2d,
    Delay,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLI,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    Linear,
    Lookup,
    Output,
    Quantize,
    Shift,
    TopK,
)

Flavour = Literal["loihi2", "any"]
"""loihi2: neurons, weights and topology that Lava's netx has. any: every setting."""


def integer_network(seed: int, flavour: Flavour = "any", *, stress: bool | None = None) -> Graph:
    """A random network that spikes drive: dense, recurrent or convolutional layers, biases, delays, resets.

    `stress`: thresholds and weights of the first neurons so large that membranes saturate and currents wrap; every
    fifth where None.
    """
    rng = np.random.default_rng([seed, flavour == "loihi2"])
    stress = seed % 5 == 4 if stress is None else stress
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    shape: tuple[int, ...] = (2, 6, 6) if seed % 3 == 2 else (int(rng.integers(3, 12)),)
    nodes["input"] = Input(shape, Kind.SPIKE)
    last = "input"

    def add(name: str, node: Node, source: str) -> str:
        nodes[name] = node
        edges.append(Edge(source, name))
        return name

    if len(shape) == 3:
        kernel = integers(rng, (3, 2, 3, 3), stress)
        last = add("conv0", Conv2d(weight=kernel, stride=int(rng.integers(1, 3)), padding=1), last)
        image = (3, 3, 3) if nodes["conv0"].stride == (2, 2) else (3, 6, 6)  # type: ignore[attr-defined]
        last = add("neuron0", neuron(rng, image, flavour, stress, fan_in=18), last)
        last = add("flatten", Flatten(), last)
        shape, stress = (int(np.prod(image)),), False
    for layer in range(1, 3):
        width = int(rng.integers(3, 14))
        last = add(f"fc{layer}", Linear(integers(rng, (width, shape[0]), stress)), last)
        if rng.random() < 0.4:
            steps = rng.integers(1, 5, width).astype(np.float32)
            last = add(f"delay{layer}", Delay(steps=steps, shape=(width,), kind=Kind.REAL), last)
            recurrent = False
        else:
            recurrent = rng.random() < 0.5
        made = neuron(rng, (width,), flavour, stress, fan_in=shape[0])
        weight = integers(rng, (width, width), stress)
        if flavour == "loihi2" and recurrent and not stress and rng.random() < 0.5:
            made, weight = soft_reset(rng, width)
        last = add(f"neuron{layer}", made, last)
        if recurrent:
            back = Delay(steps=np.ones((), np.float32), shape=(width,), kind=Kind.SPIKE)
            add(f"back{layer}", back, f"neuron{layer}")
            add(f"rec{layer}", Linear(weight), f"back{layer}")
            edges.append(Edge(f"rec{layer}", f"neuron{layer}"))
        shape, stress = (width,), False
    if flavour == "any":
        last = add("readout", Linear(integers(rng, (4, shape[0]), stress)), last)
        last = add("li", IntegerLI(beta=np.int32(rng.integers(0, 4097)), shift=2), last)
    nodes["output"] = Output()
    edges.append(Edge(last, "output"))
    return Graph(nodes, edges)


def soft_reset(rng: np.random.Generator, width: int) -> tuple[IntegerLIF, Array]:
    """A neuron whose current is its membrane, and the weights with which its own spikes reset it a step later."""
    theta = 2 * int(rng.integers(10, 100))
    made = IntegerCubaLIF(
        alpha=np.int32(rng.integers(2000, 4097)), beta=np.int32(0), threshold=np.int32(64 * theta),
        shift=6, bits=24, wraps=True, reset="zero", trained_reset="subtract",
    )  # fmt: skip
    return made, (-theta * np.eye(width)).astype(np.int16)


def integers(rng: np.random.Generator, shape: tuple[int, ...], stress: bool) -> Array:
    """Even weights of both signs, -256 .. 254, as Loihi 2 holds them."""
    largest = 127 if stress else 40
    weight = 2 * rng.integers(-largest, largest + 1, shape)
    weight.flat[0], weight.flat[-1] = 2, -2
    return weight.astype(np.int16)


def neuron(
    rng: np.random.Generator, shape: tuple[int, ...], flavour: Flavour, stress: bool, fan_in: int
) -> IntegerLIF:
    """A neuron that fires now and then; `beta` of a stressed one does not leak, so that its membrane saturates."""
    wide: tuple[int, ...] = (shape[0], *(1,) * (len(shape) - 1))
    per_channel = wide if rng.random() < 0.5 and len(shape) == 1 else ()
    settings: dict[str, Any] = {"shift": 6, "bits": 24, "wraps": True, "decay_bits": 12}
    settings |= {"reset": "zero", "phase": "now"}
    if flavour == "any" and rng.random() < 0.7:
        bits = int(rng.choice([14, 16, 20, 32]))
        settings |= {"shift": int(rng.integers(0, 5)), "bits": bits, "decay_bits": int(rng.integers(8, 16))}
        settings |= {"wraps": bool(rng.random() < 0.3)}
        settings |= {"reset": str(rng.choice(["none", "subtract", "zero"]))}
        settings |= {"phase": str(rng.choice(["now", "next"]))}
    one = 2 ** settings["decay_bits"]
    unit = 2 ** settings["shift"]
    largest = 2 ** (settings["bits"] - 1) - 1
    theta = rng.integers(30, 60 * max(1, fan_in // 4) + 40, per_channel) * unit
    if stress:
        theta = rng.integers(largest // 2, largest, per_channel) // unit * unit
    theta = np.minimum(theta, largest - 1)
    beta = rng.integers(0 if not stress else one, one + 1, per_channel)
    bias = rng.integers(-20, 40, per_channel) * unit if rng.random() < 0.4 else None
    if bias is not None and stress:
        bias = bias * 100
    kept: dict[str, Any] = {
        "beta": beta.astype(np.int32) if per_channel else np.int32(beta),
        "threshold": np.asarray(theta, np.int32),
        "bias": None if bias is None else np.asarray(bias, np.int32),
        "trained_reset": settings["reset"],
        **settings,
    }
    if rng.random() < 0.5:
        return IntegerCubaLIF(alpha=np.int32(rng.integers(0, one + 1)), **kept)
    return IntegerLIF(**kept)


def spikes_for(graph: Graph, steps: int, samples: int, seed: int = 0) -> Array:
    """Random input spikes (T, B, ...) of a graph."""
    shape = graph.signals[graph.of(Input)[0]].shape
    return (np.random.default_rng(seed).random((steps, samples, *shape)) < 0.3).astype(np.float32)


def sigmoid_table(one: int, reach: float = 8.0) -> Array:
    """256 numbers: one x sigmoid, from -reach to reach."""
    at = (np.arange(256) - 128) / 128 * reach
    return np.rint(one / (1 + np.exp(-at))).astype(np.int32)


def memory_network(
    seed: int = 0,
    *,
    reset: str = "none",
    queries: int | None = 1,
    top_k: int | None = 2,
    d: int = 6,
    n: int = 5,
) -> Graph:
    """An associative memory of whole numbers that a real input of 4 numbers drives, and a readout of it."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, Node] = {
        "input": Input((4,), Kind.REAL),
        "quantize": Quantize(bits=8, fraction=5),
    }
    edges = [Edge("input", "quantize")]
    for port, width in {
        "v": d,
        "k": n,
        "alpha": n,
        **({} if queries is None else {"q": n * queries}),
    }.items():
        nodes[f"{port}_proj"] = Linear(rng.integers(-127, 128, (width, 4)).astype(np.int8))
        edges.append(Edge("quantize", f"{port}_proj"))
        if port == "alpha":
            nodes["alpha"] = Lookup(table=sigmoid_table(4096), shift=6, fraction=12)
        else:
            nodes[port] = Shift(shift=np.int32(7), bits=8)
        edges.append(Edge(f"{port}_proj", port))
        source = port
        if top_k is not None and port in ("v", "k"):
            source = f"{port}_top"
            nodes[source] = TopK(top_k)
            edges.append(Edge(port, source))
        edges.append(Edge(source, "memory", port))
    nodes["memory"] = IntegerMemory(
        threshold=np.int32(2500),
        queries=queries,
        reset=reset,
        trained_reset="none",
    )
    width = d * (n if queries is None else queries)
    nodes["readout"] = Linear(rng.integers(-127, 128, (3, width)).astype(np.int8))
    nodes["output"] = Output()
    edges += [Edge("memory", "readout"), Edge("readout", "output")]
    return Graph(nodes, edges)


def state_space_network(seed: int = 0, *, channels: int = 4, modes: int = 3) -> Graph:
    """A small SpikingSSM of whole numbers: filter, neuron, GLU, residual addition, readout."""
    rng = np.random.default_rng(seed)
    H = channels
    angle = rng.uniform(0, np.pi, (H, modes))
    a = np.trunc(16384 * rng.uniform(0.5, 1, (H, modes, 1)) * np.stack([np.cos(angle), np.sin(angle)], -1))
    nodes: dict[str, Node] = {
        "input": Input((2,), Kind.REAL),
        "quantize": Quantize(bits=8, fraction=5),
        "encoder": Linear(
            rng.integers(-127, 128, (H, 2)).astype(np.int8), rng.integers(-99, 99, H).astype(np.int16)
        ),
        "x": Shift(shift=rng.integers(5, 8, H).astype(np.int8), bits=12, fraction=5),
        "ssm": IntegerSSM(
            a=a,
            c=rng.integers(-2000, 2000, (H, modes, 2)),
            d=rng.integers(-2000, 2000, H),
            shift=6,
            out_shift=14,
        ),
        "neuron": IntegerLIF(
            beta=np.int32(512), threshold=np.int32(300), reset="zero", trained_reset="zero", bits=16
        ),
        "fc": Linear(rng.integers(-127, 128, (2 * H, H)).astype(np.int8)),
        "glu": IntegerGLU(table=sigmoid_table(256), index_shift=1, shift=9, bits=12, fraction=5),
        "sum": Shift(shift=np.int32(0), bits=10, fraction=5),
        "readout": Linear(rng.integers(-127, 128, (3, H)).astype(np.int8)),
        "li": IntegerLI(beta=np.int32(3686)),
        "output": Output(),
    }
    chain = [
        "input",
        "quantize",
        "encoder",
        "x",
        "ssm",
        "neuron",
        "fc",
        "glu",
        "sum",
        "readout",
        "li",
        "output",
    ]
    edges = [Edge(a, b) for a, b in itertools.pairwise(chain)]
    return Graph(nodes, [*edges, Edge("x", "sum")])


def numbers_for(graph: Graph, steps: int, samples: int, seed: int = 0) -> Array:
    """Random real input (T, B, ...) of a graph, half of it silent."""
    rng = np.random.default_rng(seed)
    shape = (steps, samples, *graph.signals[graph.of(Input)[0]].shape)
    return (rng.normal(0, 1.5, shape) * (rng.random(shape) < 0.5)).astype(np.float32)

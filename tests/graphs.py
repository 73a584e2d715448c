"""Graphs and inputs that several tests share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from unscan.compiler.ir import Array, Edge, Graph, Kind, Node, Signal
from unscan.compiler.nodes import (
    GLU,
    LI,
    LIF,
    Activation,
    AdaptiveLIF,
    AssociativeMemory,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    DeltaMemory,
    DiagonalSSM,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    Pool2d,
    Reshape,
    RMSNorm,
    Scale,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.convolution import Window
from unscan.compiler.nodes.memory import DECAYS
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
    (name,) = graph.of(Input)
    signal = graph.signals[name]
    size = (steps, batch, *signal.shape)
    spikes = signal.kind is Kind.SPIKE
    here = rng.random(size) < (rate if rate is not None else 0.3 if spikes else 1.0)
    if signal.kind is Kind.INDEX:
        rows = min(len(graph.nodes[edge.target].weight) for edge in graph.out_of(name))  # type: ignore[attr-defined]
        return here * rng.integers(0, rows, size)
    return here if spikes else here * rng.normal(0, 1, size)


def random_memory(
    rng: np.random.Generator, kind: type[AssociativeMemory | DeltaMemory], **settings: Any
) -> AssociativeMemory | DeltaMemory:
    """Make a memory, its settings drawn but for those that are given."""
    drawn: dict[str, Any] = {
        "threshold": np.asarray(rng.uniform(0.05, 0.8)),
        "queries": [None, 1, 3][rng.integers(3)],
        "fires": FIRES[rng.integers(2)],
        "reset": RESETS[rng.integers(3)],
        "decay": DECAYS[rng.integers(2)],
        "bound": [2.0**-60, 0.01, 0.5][rng.integers(3)],
    }
    return kind(**drawn | settings, trained_reset="none")


def random_node(rng: np.random.Generator, node: type[Node], signal: Signal) -> Node | None:
    """Make a node of a class that has one input, its settings drawn; None where the signal does not fit it."""
    shape = signal.shape
    channels = shape[-1]

    def parameter(low: float, high: float) -> Any:
        return rng.uniform(
            low, high, [(), (channels,), shape, (shape[0], *(1,) * (len(shape) - 1))][rng.integers(4)]
        )

    def weights(*size: int) -> Array:
        made: Array = rng.standard_normal(size) * 1.5 / np.sqrt(prod(size[1:]))
        made[rng.random(size) < 0.2] = 0
        return made

    def bias(*size: int) -> Array | None:
        return rng.standard_normal(size) * 0.1 if rng.random() < 0.4 else None

    if node is Linear and len(shape) == 1:
        out = int(rng.choice([1, 2, 15, 16, 17, 64, 65, 80]))
        return Linear(weights(out, channels), bias(out))
    if issubclass(node, Conv1d | Conv2d) and len(shape) == node.axes + 1:
        groups = int(rng.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
        kernel = tuple(int(rng.integers(1, size + 1)) for size in shape[1:])
        out = groups * int(rng.integers(1, 4))
        return node(
            weight=weights(out, shape[0] // groups, *kernel),
            bias=bias(out),
            stride=tuple(int(s) for s in rng.integers(1, 3, node.axes)),
            padding=tuple(int(s) for s in rng.integers(0, 3, 2 * node.axes)),
            dilation=tuple(
                1 if 2 * k > s else int(rng.integers(1, 3)) for k, s in zip(kernel, shape[1:], strict=True)
            ),
            groups=groups,
        )
    if issubclass(node, Pool2d) and len(shape) == 3:
        kernel = tuple(int(rng.integers(1, size + 1)) for size in shape[1:])
        padding = int(rng.integers(0, 2)) if node is not MaxPool2d or min(kernel) > 1 else 0
        return node(kernel=kernel, stride=int(rng.integers(1, 3)), padding=padding)
    if node is Scale:
        return Scale(parameter(-1, 1.5))
    if node is BatchNorm:
        size = (channels,) if rng.random() < 0.5 else (shape[0], *(1,) * (len(shape) - 1))
        mean, weight, offset = rng.standard_normal((3, *size)) * 0.5
        return BatchNorm(weight=weight, bias=offset, mean=mean, variance=rng.uniform(0.5, 2, size))
    if issubclass(node, LayerNorm | RMSNorm):
        size = shape[-int(rng.integers(1, len(shape) + 1)) :]
        weight = rng.uniform(0.5, 1.5, size)
        return RMSNorm(weight, 1e-3) if node is RMSNorm else LayerNorm(weight, bias(*size), 1e-3)
    if node is Flatten:
        return Flatten()
    if node is Reshape:
        first = int(rng.choice([s for s in range(1, min(prod(shape), 8) + 1) if prod(shape) % s == 0]))
        rest = prod(shape) // first
        second = int(rng.choice([s for s in range(1, min(rest, 8) + 1) if rest % s == 0]))
        return Reshape(((first, rest), (first, second, rest // second))[rng.integers(2)])
    if node is Activation:
        return Activation(FUNCTIONS[rng.integers(len(FUNCTIONS))])  # type: ignore[arg-type]
    if node is GLU and channels % 2 == 0:
        return GLU()
    if node is TopK:
        return TopK(int(rng.integers(1, channels + 1)))
    if node is Delay:
        return Delay(steps=np.ceil(parameter(0, 4)), shape=shape, kind=signal.kind)
    if node is Threshold:
        return Threshold(threshold=parameter(0.1, 0.8), fires=FIRES[rng.integers(2)])  # type: ignore[arg-type]
    if node is DiagonalSSM and len(shape) == 1:
        a = rng.uniform(0, 1, (channels, 3)) * np.exp(1j * rng.uniform(0, np.pi, (channels, 3)))
        c = rng.standard_normal((channels, 3, 2)) * 0.3
        return DiagonalSSM(a=np.stack([a.real, a.imag], -1), c=c, d=rng.standard_normal(channels))
    gain = GAINS[rng.integers(2)]
    beta = np.asarray(rng.choice([0.0, 1.0])) if rng.random() < 0.15 else parameter(0, 1)
    if node is LI:
        return LI(beta=beta, gain=gain)  # type: ignore[arg-type]
    reset = RESETS[rng.integers(3)]
    neuron = {
        "beta": beta,
        "gain": gain,
        "threshold": parameter(0.1, 0.8),
        "reset": reset,
        "trained_reset": reset,
        "fires": FIRES[rng.integers(2)],
    }
    if node is AdaptiveLIF:
        return AdaptiveLIF(**neuron, kappa=parameter(0.1, 1), rho=parameter(0, 1))
    neuron["phase"] = PHASES[rng.integers(2)]
    if node is LIF:
        return LIF(**neuron)
    if node is CubaLIF:
        return CubaLIF(**neuron, alpha=parameter(0, 1))
    return None


@dataclass
class Growth:
    """A random graph while it grows, and the generator that it is drawn from."""

    rng: np.random.Generator
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    signals: dict[str, Signal] = field(default_factory=dict)

    def add(self, name: str, node: Node, *sources: str, **ports: str) -> str:
        """Add a node whose ports are fed, the first by all sources."""
        fed = [(source, node.ports[0]) for source in sources] + [
            (source, port) for port, source in ports.items()
        ]
        self.nodes[name] = node
        self.edges += [Edge(source, name, port) for source, port in fed]
        self.signals[name] = Graph(self.nodes, self.edges).signals[name]
        return name

    def pick(self, *, axes: int | None = None) -> str | None:
        """Return a node to read from, often the last; None where none has so many axes."""
        names = [name for name, signal in self.signals.items() if axes in (None, len(signal.shape))]
        names = [name for name in names if self.signals[name].kind is not Kind.INDEX]
        if not names:
            return None
        return names[-1] if self.rng.random() < 0.7 else names[self.rng.integers(len(names))]

    def peers(self, source: str, share: float) -> list[str]:
        """Return some of the other nodes of the same shape."""
        shape = self.signals[source].shape
        return [
            name
            for name, signal in self.signals.items()
            if signal.shape == shape
            and name != source
            and signal.kind is not Kind.INDEX
            and self.rng.random() < share
        ]

    def bounded(self, name: str, *sources: str) -> str:
        """Add a node that keeps what it sends within 1, where functions do not saturate.

        Where they saturate, rounding decides whether a number is 0, and so whether it is an event.
        """
        return self.add(name, Activation("tanh"), *sources)

    def single(self, name: str, node: type[Node]) -> None:
        """Add a node of one input, if its input fits."""
        axes = node.axes + 1 if issubclass(node, Window) else 1 if node in (Linear, DiagonalSSM) else None
        source = self.pick(axes=axes)
        if source is None:
            return
        sources = [source, *self.peers(source, 0.3)]
        signal = self.signals[source]
        if len(sources) > 1:
            kinds = {self.signals[each].kind for each in sources}
            signal = Signal(Kind.REAL if Kind.REAL in kinds else Kind.GRADED, signal.shape)
        made = random_node(self.rng, node, signal)
        if made is None:
            return
        if isinstance(made, GLU) or (isinstance(made, Activation) and made.function not in ("relu", "tanh")):
            sources = [self.bounded(f"{name}bound", *sources)]
        if isinstance(
            made, TopK | LayerNorm
        ):  # of equal numbers, rounding would decide the order or the deviation
            factors = self.rng.uniform(0.5, 1.5, signal.shape)
            sources = [self.add(f"{name}apart", Scale(factors), *sources)]
        self.add(name, made, *sources)

    def double(self, name: str, node: type[Node]) -> None:
        """Add a node that multiplies or joins two signals."""
        source = self.pick()
        if source is None:
            return
        others = [*self.peers(source, 1.0), source]
        other = others[self.rng.integers(len(others))]
        if node is Multiply:
            self.add(name, Multiply(), a=self.bounded(f"{name}bound", source), b=other)
            return
        axis = int(self.rng.integers(len(self.signals[source].shape)))
        self.add(name, Concatenate(2, axis), x0=source, x1=other)

    def loop(self, name: str) -> None:
        """Add a layer of neurons that feeds itself through a delay, some steps later."""
        source = self.pick(axes=1)
        if source is None:
            return
        width = self.signals[source].shape[0]
        neuron = random_node(self.rng, LIF, self.signals[source])
        back = self.rng.standard_normal((width, width)) / np.sqrt(width)
        steps = np.asarray(self.rng.integers(1, 4, [(), (width,)][self.rng.integers(2)]), np.float64)
        assert neuron is not None
        self.nodes |= {
            name: neuron,
            f"{name}back": Linear(back),
            f"{name}delay": Delay(steps=steps, shape=(width,), kind=Kind.SPIKE),
        }
        ring = [
            (source, name),
            (f"{name}back", name),
            (name, f"{name}delay"),
            (f"{name}delay", f"{name}back"),
        ]
        self.edges += [Edge(*pair) for pair in ring]
        self.signals[name] = Signal(Kind.SPIKE, (width,))

    def memory(self, name: str, node: type[AssociativeMemory | DeltaMemory]) -> None:
        """Add a matrix memory and the layers that make its values, keys, gates and queries."""
        source = self.pick(axes=1)
        if source is None:
            return
        source = self.bounded(f"{name}bound", source)
        rng, width = self.rng, self.signals[source].shape[0]
        made = random_memory(rng, node)
        d, n = (int(size) for size in rng.choice([1, 3, 8, 17], 2))
        wanted = {"v": d, "k": n, "alpha": made.width("alpha", n), "beta": 1, "q": n * (made.queries or 0)}
        ports = {}
        for port in made.ports:
            weight = rng.standard_normal((wanted[port], width)) * 1.5 / np.sqrt(width)
            fed = self.add(f"{name}{port}", Linear(weight), source)
            if port in ("alpha", "beta"):
                function = ("sigmoid", "hardsigmoid")[rng.integers(2)]
                fed = self.add(f"{name}{port}gate", Activation(function), fed)  # type: ignore[arg-type]
            elif port in ("v", "k") and rng.random() < 0.6:
                kept = TopK(int(rng.integers(1, wanted[port] + 1)))
                fed = self.add(f"{name}{port}kept", kept, fed)
            ports[port] = fed
        self.add(name, made, **ports)


SINGLE = (
    Linear,
    Conv1d,
    Conv2d,
    SumPool2d,
    AvgPool2d,
    MaxPool2d,
    Scale,
    BatchNorm,
    LayerNorm,
    RMSNorm,
    Flatten,
    Reshape,
    Activation,
    GLU,
    TopK,
    Delay,
    Threshold,
    LIF,
    LI,
    CubaLIF,
    AdaptiveLIF,
    DiagonalSSM,
)
DOUBLE = (Multiply, Concatenate)
MEMORIES = (AssociativeMemory, DeltaMemory)
LOOP = "loop"
PARTS: tuple[Any, ...] = (*SINGLE, *DOUBLE, *MEMORIES, LOOP)


@st.composite
def graphs(draw: st.DrawFn, parts: tuple[Any, ...] = PARTS) -> Graph:
    """Graphs of every iterative node: residual adds, loops with delays, nodes with several readers and with none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = [(1,), (3,), (64,), (70,), (128,), (5, 3), (2, 3, 4), (2, 6, 5)]
    kind = draw(st.sampled_from(list(Kind)))
    shape = (1,) if kind is Kind.INDEX else draw(st.sampled_from(shapes))
    growth = Growth(rng)
    growth.add("in", Input(shape, kind))
    if kind is Kind.INDEX:
        growth.add("embedding", Embedding(rng.standard_normal((7, int(rng.choice([1, 12, 64]))))), "in")
    for i, part in enumerate(draw(st.lists(st.sampled_from(parts), min_size=1, max_size=9))):
        if part == LOOP:
            growth.loop(f"n{i}")
        elif part in DOUBLE:
            growth.double(f"n{i}", part)
        elif part in MEMORIES:
            growth.memory(f"n{i}", part)
        else:
            growth.single(f"n{i}", part)
    last = list(growth.signals)[-1]
    return Graph(
        {**growth.nodes, "out": Output()},
        [*growth.edges, *(Edge(source, "out") for source in [last, *growth.peers(last, 0.2)])],
    )

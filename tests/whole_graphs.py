"""Random graphs of whole numbers, of every node that computes with them: what an executor must run bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.graphs import Growth, random_node
from tests.integers import sigmoid_table
from unscan.compiler.formats import formats
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node, Signal
from unscan.compiler.nodes import (
    Activation,
    Concatenate,
    Conv1d,
    Conv2d,
    Delay,
    Embedding,
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
    MaxPool2d,
    Multiply,
    Output,
    Quantize,
    Reshape,
    Scale,
    Shift,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.neurons import PHASES, RESETS

WEIGHTS: dict[Any, int] = {np.int8: 127, np.int16: 1000, np.int32: 1000}
"""The largest weight drawn of each format; 128 of them, times three numbers of `NARROW` bits, stay below 2^31."""
READS_WIDE = (IntegerLI, IntegerLIF, Threshold, Quantize, Shift, Lookup)
"""Nodes that bring wide numbers back to few bits."""
NARROW = 12
"""Bits of what a node may send on to another without a Shift between them."""


def whole_weights(rng: np.random.Generator, *size: int, density: float = 0.8) -> Array:
    """Draw weights of a random format of both signs, a share of them not zero."""
    dtype = list(WEIGHTS)[rng.choice(3, p=[0.6, 0.3, 0.1])]
    largest = WEIGHTS[dtype] if rng.random() < 0.5 else 9
    drawn = rng.integers(-largest, largest + 1, size) * (rng.random(size) < density)
    return drawn.astype(dtype)


def broadcasting(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> Array:
    """Draw whole numbers in low .. high - 1, in one of the shapes that broadcast to a signal."""
    sizes = [(), shape[-1:], shape, (shape[0], *(1,) * (len(shape) - 1))]
    return np.asarray(rng.integers(low, high, sizes[rng.integers(4)]), np.int32)


def whole_neuron(rng: np.random.Generator, node: type[IntegerLI], shape: tuple[int, ...]) -> IntegerLI:
    """Make a leaky integrator of whole numbers that fires, saturates or falls silent, its settings drawn."""
    decay_bits = int(rng.integers(1, 16))
    shift, bits = int(rng.integers(0, 7)), int(rng.choice([6, 9, 12, 16, 24, 32]))
    one, largest = 2**decay_bits, 2 ** (bits - 1) - 1
    drawn: dict[str, Any] = {
        "beta": np.int32(rng.choice([0, one])) if rng.random() < 0.2 else broadcasting(rng, shape, 0, one + 1),
        "bias": broadcasting(rng, shape, -40, 60) if rng.random() < 0.4 else None,
        "shift": shift,
        "bits": bits,
        "decay_bits": decay_bits,
        "wraps": bool(rng.random() < 0.3),
    }  # fmt: skip
    if node is IntegerLI:
        return IntegerLI(**drawn)
    reset = RESETS[rng.integers(3)]
    top = min(largest, int(rng.choice([1, 50, 2000, 2**14])) * 2**shift)
    drawn |= {
        "threshold": broadcasting(rng, shape, 0, top + 1),
        "reset": reset,
        "phase": PHASES[rng.integers(2)],
        "trained_reset": reset,
    }
    if node is IntegerCubaLIF:
        drawn["alpha"] = broadcasting(rng, shape, 0, one + 1)
    return node(**drawn)


def whole_node(rng: np.random.Generator, node: type[Node], signal: Signal) -> Node | None:
    """Make a node of a class that has one input, of whole numbers; None where the signal does not fit it."""
    shape = signal.shape
    bits = int(rng.integers(4, NARROW + 1))

    def bias(out: int) -> Array | None:
        return rng.integers(-99, 100, out).astype(np.int16) if rng.random() < 0.4 else None

    if node is Linear:
        out = int(rng.choice([1, 2, 15, 16, 17, 63, 64, 65, 80]))
        return Linear(whole_weights(rng, out, shape[0]), bias(out))
    if issubclass(node, Conv1d | Conv2d):
        made = random_node(rng, node, signal)
        if made is None:
            return None
        weight, held = made.weight, bias(len(made.weight))  # type: ignore[attr-defined]
        return node(
            weight=whole_weights(rng, *weight.shape),
            bias=held,
            **{name: getattr(made, name) for name in ("stride", "padding", "dilation", "groups")},
        )
    if node is Scale:
        return Scale(broadcasting(rng, shape, -9, 10).astype(np.int8))
    if node is Activation:
        return Activation("relu")
    if node is Threshold:
        return Threshold(threshold=broadcasting(rng, shape, 1, 60), fires=(">=", ">")[rng.integers(2)])
    if node is Quantize:
        return Quantize(bits=bits, fraction=int(rng.integers(-2, 3)), signed=bool(rng.random() < 0.7))
    if node is Shift:
        return Shift(shift=broadcasting(rng, shape, -3, 8), bits=bits, signed=bool(rng.random() < 0.7))
    if node is Lookup:
        table = (sigmoid_table(2**bits), np.arange(-8, 8), rng.integers(-99, 99, 2))[rng.integers(3)]
        return Lookup(table=table, shift=int(rng.integers(-2, 5)))
    if node is IntegerGLU:
        if shape[-1] % 2:
            return None
        table = sigmoid_table(2 ** int(rng.integers(4, 10)))
        return IntegerGLU(
            table=table, index_shift=int(rng.integers(-1, 4)), shift=int(rng.integers(0, 9)), bits=bits
        )
    if node is IntegerSSM:
        angle, decay_bits = rng.uniform(0, np.pi, (shape[0], 3)), int(rng.integers(4, 15))
        radius = 2**decay_bits * rng.uniform(0, 1, (shape[0], 3))
        return IntegerSSM(
            a=np.trunc(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)),
            c=rng.integers(-90, 91, (shape[0], 3, 2)),
            d=rng.integers(-90, 91, shape[0]),
            shift=int(rng.integers(0, 5)),
            bits=int(rng.choice([8, 16, 24])),
            decay_bits=decay_bits,
            out_shift=int(rng.integers(0, 9)),
            out_bits=bits,
        )
    if issubclass(node, IntegerLI | IntegerLIF):
        return whole_neuron(rng, node, shape)
    return random_node(rng, node, signal)


@dataclass
class WholeGrowth(Growth):
    """A random graph of whole numbers while it grows: what a node sends is brought back to `NARROW` bits.

    `wide` names the node behind each Shift that does so: what neurons and tables may read as it is.
    """

    wide: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, node: Node, *sources: str, **ports: str) -> str:
        """Add a node, and a Shift behind it where it sends wide numbers."""
        super().add(name, node, *sources, **ports)
        known = formats(Graph(self.nodes, self.edges))[name]
        if known is None or known.bits <= NARROW:
            return name
        by = known.bits - int(self.rng.integers(6, NARROW + 1)) - int(self.rng.integers(0, 3))
        narrow = Shift(shift=np.int32(max(by, 0)), bits=NARROW, signed=True)
        del self.signals[name]
        self.wide[f"{name}narrow"] = name
        return super().add(f"{name}narrow", narrow, name)

    def single(self, name: str, node: type[Node]) -> None:
        """Add a node of one input, if its input fits."""
        axes = {Linear: 1, IntegerSSM: 1, Conv1d: 2, Conv2d: 3, SumPool2d: 3, MaxPool2d: 3}.get(node)
        source = self.pick(axes=axes)
        if source is None:
            return
        sources = [source, *self.peers(source, 0.3)[:2]]
        kind = self.signals[source].kind if len(sources) == 1 else Kind.GRADED
        if any(self.signals[each].kind is Kind.REAL for each in sources):
            kind = Kind.REAL
        made = whole_node(self.rng, node, Signal(kind, self.signals[source].shape))
        if made is None:
            return
        if isinstance(made, READS_WIDE) and len(sources) == 1 and self.rng.random() < 0.6:
            sources = [self.wide.get(source, source)]
        self.add(name, made, *sources)

    def bounded(self, name: str, *sources: str) -> str:
        """Add a node that keeps what it sends within 5 bits."""
        return self.add(name, Shift(shift=np.int32(self.rng.integers(0, 4)), bits=5), *sources)

    def loop(self, name: str) -> None:
        """Add a layer of neurons that feeds itself through a delay and weights, some steps later."""
        source = self.pick(axes=1)
        if source is None:
            return
        (width,) = self.signals[source].shape
        kind = (IntegerLIF, IntegerCubaLIF)[self.rng.integers(2)]
        steps = np.asarray(self.rng.integers(1, 4, [(), (width,)][self.rng.integers(2)]), np.float64)
        back = whole_weights(self.rng, width, width, density=0.3)
        self.nodes |= {
            name: whole_neuron(self.rng, kind, (width,)),
            f"{name}back": Linear((back // 16 + np.sign(back)).astype(back.dtype)),
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

    def memory(self, name: str) -> None:
        """Add a matrix memory and the layers that make its values, keys, decays and queries."""
        source = self.pick(axes=1)
        if source is None:
            return
        rng, (width,) = self.rng, self.signals[source].shape
        d, n = (int(size) for size in rng.choice([1, 3, 8, 17], 2))
        decay_bits, bits, reset = (
            int(rng.integers(1, 13)),
            int(rng.choice([9, 16, 24])),
            RESETS[rng.integers(3)],
        )
        made = IntegerMemory(
            threshold=np.int32(rng.integers(0, min(2 ** (bits - 1), 3000))),
            queries=[None, 1, 3][rng.integers(3)],
            reset=reset,
            trained_reset=reset,
            shift=int(rng.integers(0, 4)),
            bits=bits,
            decay_bits=decay_bits,
        )
        ports = {}
        for port, wide in {"v": d, "k": n, "alpha": n, "q": n * (made.queries or 0)}.items():
            if port not in made.ports:
                continue
            fed = self.add(f"{name}{port}", Linear(whole_weights(rng, wide, width)), source)
            if port == "alpha":
                table = np.minimum(sigmoid_table(2**decay_bits), 2**decay_bits - 1)
                fed = self.add(f"{name}{port}gate", Lookup(table=table, shift=int(rng.integers(0, 3))), fed)
            elif port in ("v", "k") and rng.random() < 0.6:
                fed = self.add(f"{name}{port}kept", TopK(int(rng.integers(1, wide + 1))), fed)
            ports[port] = fed
        self.add(name, made, **ports)


WHOLE_SINGLE = (
    Linear, Conv1d, Conv2d, SumPool2d, MaxPool2d, Scale, Flatten, Reshape, Activation, TopK, Delay, Threshold,
    Quantize, Shift, Lookup, IntegerGLU, IntegerLI, IntegerLIF, IntegerCubaLIF, IntegerSSM,
)  # fmt: skip
WHOLE_DOUBLE = (Multiply, Concatenate)
LOOP, MEMORY = "loop", IntegerMemory
WHOLE_PARTS: tuple[Any, ...] = (*WHOLE_SINGLE, *WHOLE_DOUBLE, MEMORY, LOOP)
SHAPES = [(1,), (3,), (64,), (70,), (5, 3), (2, 3, 4), (2, 6, 5), (3, 8, 7)]


@st.composite
def whole_graphs(draw: st.DrawFn) -> Graph:
    """Graphs of whole numbers of every node that has them, from spikes, numbers that are quantised, or an index."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(list(Kind)))
    shape = (1,) if kind is Kind.INDEX else draw(st.sampled_from(SHAPES))
    growth = WholeGrowth(rng)
    Growth.add(growth, "in", Input(shape, kind))
    if kind is Kind.INDEX:
        growth.add("embedding", Embedding(whole_weights(rng, 7, int(rng.choice([1, 12, 64])))), "in")
    elif kind is not Kind.SPIKE:
        growth.add("quantize", Quantize(bits=8, fraction=int(rng.integers(2, 6))), "in")
        growth.signals.pop("in")
    for i, part in enumerate(draw(st.lists(st.sampled_from(WHOLE_PARTS), min_size=1, max_size=9))):
        if part == LOOP:
            growth.loop(f"n{i}")
        elif part is MEMORY:
            growth.memory(f"n{i}")
        elif part in WHOLE_DOUBLE:
            growth.double(f"n{i}", part)
        else:
            growth.single(f"n{i}", part)
    last = list(growth.signals)[-1]
    peers = growth.peers(last, 0.2)
    return Graph(
        {**growth.nodes, "out": Output()},
        [*growth.edges, *(Edge(source, "out") for source in [last, *peers])],
    )

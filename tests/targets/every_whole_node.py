"""One small graph for every node on whole numbers, by name."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from tests.integers import memory_network, state_space_network
from tests.targets.every_node import IMAGE, draw
from tests.targets.networks import lif, weight
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    Activation,
    AvgPool2d,
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
    IntegerSSM,
    Linear,
    Lookup,
    MaxPool2d,
    Multiply,
    Node,
    Output,
    Quantize,
    Reshape,
    Scale,
    Shift,
    SumPool2d,
    Threshold,
    TopK,
)


def drive(graph: Graph, steps: int, samples: int = 3) -> Any:
    """Input of several times what the formats hold, here and there."""
    (name,) = graph.of(Input)
    signal, rng = graph.signals[name], np.random.default_rng(2)
    shape = (steps, samples, *signal.shape)
    if signal.kind is Kind.INDEX:
        return rng.integers(0, 6, shape)
    return rng.random(shape) < 0.4 if signal.kind is Kind.SPIKE else rng.normal(0, 4, shape)


def whole(
    *nodes: Node, shape: tuple[int, ...] = (6,), kind: Kind = Kind.REAL, bits: int = 8, fraction: int = 4
) -> Graph:
    """Input -> Quantize, unless it takes spikes or an index -> the nodes -> Output."""
    first = [Quantize(bits=bits, fraction=fraction)] if kind is Kind.REAL else []
    named = {"in": Input(shape, kind)} | {f"it{i}": node for i, node in enumerate([*first, *nodes])}
    return Graph(named | {"out": Output()}, [Edge(a, b) for a, b in pairwise([*named, "out"])])


def count(largest: int, *shape: int, dtype: Any = np.int32, seed: int = 0) -> Any:
    """Whole numbers of both signs, the largest among them."""
    drawn = np.random.default_rng(seed).integers(-largest, largest, shape, endpoint=True)
    drawn.flat[0] = largest
    return drawn.astype(dtype)


def kernel(out: int, part: int, *sizes: int, dtype: Any = np.int8, bias: bool = True, **settings: Any) -> Any:
    made = Conv1d if len(sizes) == 1 else Conv2d
    held = count(99, out, dtype=np.int16, seed=1) if bias else None
    return made(weight=count(100, out, part, *sizes, dtype=dtype), bias=held, **settings)


def leaky(node: type[IntegerLI], **settings: Any) -> Any:
    return node(**{"beta": np.array([0, 100, 2000, 3000, 4000, 4096], np.int16), **settings})


def firing(node: type[IntegerLIF], **settings: Any) -> Any:
    given = {"threshold": np.int32(40), "trained_reset": "none", "bias": count(9, 6, dtype=np.int8)}
    current = {"alpha": np.int32(1500)} if node is IntegerCubaLIF else {}
    return leaky(node, **{**given, **current, **settings})


def whole_ports(node: Node, *, widths: tuple[int, int] = (5, 5), spikes: bool = False) -> Graph:
    """Both ports of a node are fed by numbers of 8 bits, the first by two edges, or by spikes."""
    fires: dict[str, Node] = {
        f"fires{i}": Threshold(threshold=np.asarray(0.5)) for i in range(2 if spikes else 0)
    }
    nodes = {
        "in": Input((6,)),
        "q": Quantize(bits=8, fraction=4),
        "a": Linear(count(9, widths[0], 6, dtype=np.int8)),
        "b": Linear(count(90, widths[1], 6, dtype=np.int16, seed=1)),
        "c": Scale(np.asarray(-3, np.int8)),
        **fires,
        "it": node,
        "out": Output(),
    }
    first, second = node.ports
    ends = [("a", first), ("c", first), ("b", second)]
    if spikes:
        ends = [("fires0", first), ("fires1", second)]
        edges = [Edge("a", "fires0"), Edge("b", "fires1"), Edge("a", "c"), Edge("c", "out")]
    else:
        edges = [Edge("a", "c")]
    joined = [Edge("in", "q"), Edge("q", "a"), Edge("q", "b"), *edges, *(Edge(a, "it", p) for a, p in ends)]
    return Graph(nodes, [*joined, Edge("it", "out")])


def whole_loop(steps: Any, carried: Node, dtype: Any = np.int8) -> Graph:
    """A neuron whose spikes come back to it, and numbers of several bits through a delay line beside it."""
    nodes = {
        "in": Input((6,), Kind.SPIKE),
        "fc": Linear(count(50, 5, 6, dtype=dtype)),
        "past": Delay(steps=np.array([3.0, 1, 2, 1, 5]), shape=(5,), kind=Kind.REAL),
        "lif": carried,
        "back": Delay(steps=steps, shape=(5,), kind=Kind.SPIKE),
        "rec": Linear(count(30, 5, 5, dtype=dtype, seed=3)),
        "out": Output(),
    }
    edges = [("in", "fc"), ("fc", "past"), ("past", "lif"), ("fc", "lif"), ("lif", "back"), ("back", "rec")]
    return Graph(nodes, [Edge(a, b) for a, b in [*edges, ("rec", "lif"), ("lif", "out")]])


def mixed(dtype: Any = np.float32) -> Graph:
    """Real numbers, spikes of real neurons into whole numbers, and those back into real ones."""
    rng = np.random.default_rng(5)
    return Graph(
        {
            "in": Input((6,)),
            "real": Linear(weight(rng, 5, 6, dtype)),
            "lif": lif(dtype, 0.5, 0.3, reset="subtract"),
            "fc": Linear(count(50, 4, 5, dtype=np.int8)),
            "li": IntegerLI(beta=np.int32(3000)),
            "half": Scale(np.asarray(0.5, dtype)),
            "above": Threshold(threshold=np.asarray(20.5, dtype)),
            "out": Output(),
        },
        [
            *(Edge(a, b) for a, b in pairwise(["in", "real", "lif", "fc", "li", "half", "out"])),
            Edge("li", "above"),
            Edge("above", "out"),
        ],
    )


SIXTEEN: Any = {"bits": 16, "fraction": 10}
THIRTY_TWO: Any = {"bits": 32, "fraction": 28}
WHOLE: dict[str, Callable[[], Graph]] = {
    "linear-spikes": lambda: whole(Linear(count(127, 5, 6, dtype=np.int8)), kind=Kind.SPIKE),
    "linear-spikes-wide": lambda: whole(
        Linear(count(9999, 5, 6, dtype=np.int16), count(10**6, 5)), kind=Kind.SPIKE
    ),
    "linear-numbers": lambda: whole(Linear(count(127, 5, 6, dtype=np.int8), count(99, 5, dtype=np.int16))),
    "linear-positive": lambda: whole(
        Activation("relu"),
        Quantize(bits=7, fraction=0, signed=False),
        Linear(count(128, 5, 6, dtype=np.int8)),
    ),
    "linear-at-the-end": lambda: whole(Linear(count(5000, 5, 6, dtype=np.int16)), **SIXTEEN),
    "conv1d": lambda: whole(kernel(3, 4, 3), shape=(4, 9)),
    "conv1d-spikes": lambda: whole(
        kernel(6, 2, 2, groups=2, stride=2, dilation=3, padding=(2, 0)), shape=(4, 9), kind=Kind.SPIKE
    ),
    "conv2d": lambda: whole(kernel(5, 4, 3, 3, padding=1, bias=False), **IMAGE),
    "conv2d-spikes": lambda: whole(
        kernel(6, 2, 3, 2, groups=2, stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2)),
        kind=Kind.SPIKE,
        **IMAGE,
    ),
    "conv2d-spikes-wide": lambda: whole(
        kernel(5, 4, 3, 3, dtype=np.int16, bias=False), kind=Kind.SPIKE, **IMAGE
    ),
    "sum-pool": lambda: whole(SumPool2d(kernel=(3, 2), stride=(2, 1), padding=(1, 0, 0, 1)), **IMAGE),
    "sum-pool-spikes": lambda: whole(
        SumPool2d(kernel=2, stride=2), kernel(2, 4, 2, 2), kind=Kind.SPIKE, **IMAGE
    ),
    "max-pool": lambda: whole(MaxPool2d(kernel=(3, 2), stride=(2, 1), padding=(1, 0, 0, 1)), **IMAGE),
    "avg-pool": lambda: whole(AvgPool2d(kernel=2, stride=2), **IMAGE),
    "embedding": lambda: whole(Embedding(count(999, 6, 5, dtype=np.int16)), shape=(1,), kind=Kind.INDEX),
    "scale": lambda: whole(Scale(count(77, 6, dtype=np.int8))),
    "relu": lambda: whole(Activation("relu")),
    "flatten": lambda: whole(Flatten(), Linear(count(9, 3, 168, dtype=np.int8)), **IMAGE),
    "reshape": lambda: whole(Reshape((2, 12, 7)), **IMAGE),
    "top-k": lambda: whole(TopK(2), **IMAGE),
    "multiply": lambda: whole_ports(Multiply()),
    "multiply-spikes": lambda: whole_ports(Multiply(), spikes=True),
    "concatenate": lambda: whole_ports(Concatenate(2), widths=(5, 3)),
    "threshold": lambda: whole(Threshold(threshold=draw(0.2, 9, 6)), Linear(count(9, 3, 6, dtype=np.int8))),
    "threshold-tie": lambda: whole(Threshold(threshold=np.asarray(3.0), fires=">")),
    "delay": lambda: whole(Delay(steps=np.array([1.0, 2, 5, 1, 3, 4]), shape=(6,), kind=Kind.REAL)),
    "loop": lambda: whole_loop(
        np.asarray(2.0), IntegerLIF(beta=np.int32(3500), threshold=np.int32(30), trained_reset="zero")
    ),
    "loop-wide": lambda: whole_loop(
        np.ones(5),
        IntegerCubaLIF(
            alpha=np.int32(900), beta=np.int32(3500), threshold=np.int32(30), trained_reset="zero"
        ),
        np.int32,
    ),
    "quantize": lambda: whole(**THIRTY_TWO),
    "quantize-unsigned": lambda: whole(Quantize(bits=32, fraction=31, signed=False)),
    "quantize-unsigned-on": lambda: whole(
        Quantize(bits=32, fraction=27, signed=False),
        Delay(steps=np.asarray(2.0), shape=(6,), kind=Kind.REAL),
        Shift(shift=np.array([31, 16, 1, 0, -1, -31], np.int8), bits=32),
    ),
    "quantize-coarse": lambda: whole(bits=4, fraction=-1),
    "shift": lambda: whole(Shift(shift=np.array([-31, -3, 0, 1, 3, 31], np.int8), bits=7), **THIRTY_TWO),
    "shift-up": lambda: whole(Shift(shift=np.int8(-3), bits=12)),
    "lookup": lambda: whole(Lookup(table=count(2000, 16, dtype=np.int16), shift=12), **SIXTEEN),
    "lookup-up": lambda: whole(Lookup(table=count(2000, 64, dtype=np.int16), shift=-2), bits=4, fraction=1),
    "glu": lambda: whole(
        IntegerGLU(table=count(120, 32, dtype=np.int8), index_shift=2, shift=5, bits=7), **IMAGE
    ),
    "li": lambda: whole(leaky(IntegerLI)),
    "li-narrow": lambda: whole(leaky(IntegerLI, bits=6, shift=1, fraction=4)),
    "li-wide": lambda: whole(leaky(IntegerLI, bits=32, shift=3), **THIRTY_TWO),
    "diagonal": lambda: whole(
        IntegerSSM(
            a=count(11000, 6, 3, 2),
            c=count(2000, 6, 3, 2),
            d=count(500, 6),
            shift=5,
            bits=14,
            out_shift=12,
            out_bits=10,
        )
    ),
    "mixed": mixed,
    "mixed-float64": lambda: mixed(np.float64),
    "spiking-ssm": state_space_network,
}
for phase in ("now", "next"):
    for reset in ("none", "subtract", "zero"):
        WHOLE |= {
            f"{label}-{reset}-{phase}": lambda node=node, how=(reset, phase): whole(
                firing(node, reset=how[0], phase=how[1])
            )
            for label, node in (("lif", IntegerLIF), ("cuba", IntegerCubaLIF))
        }
    for bits, shift, threshold in ((12, 4, 900), (24, 15, 5 * 10**6), (32, 15, 2**30)):
        WHOLE |= {
            f"wraps-{bits}-{phase}-{reset}": lambda b=bits, by=shift, t=threshold, how=(reset, phase): whole(
                firing(
                    IntegerCubaLIF,
                    alpha=np.int32(4096),
                    reset=how[0],
                    phase=how[1],
                    bits=b,
                    wraps=True,
                    shift=by,
                    threshold=np.int32(t),
                ),
                **SIXTEEN,
            )
            for reset in ("subtract", "zero")
        }
for reset in ("none", "subtract", "zero"):
    for queries in (None, 2):
        WHOLE[f"memory-{reset}-{queries}"] = lambda reset=reset, queries=queries: memory_network(
            reset=reset, queries=queries, top_k=None if reset == "zero" else 2
        )

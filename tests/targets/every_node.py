"""One small graph for every node of the iterative form, by name; those on whole numbers stand in `every_whole_node`."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from tests.targets.networks import adaptive, cuba, diagonal, images, lif, looped, weight, with_neuron
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    GLU,
    LI,
    Activation,
    AssociativeMemory,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    Delay,
    DeltaMemory,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    Linear,
    MaxPool2d,
    Multiply,
    Node,
    Output,
    Reshape,
    RMSNorm,
    Scale,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.stateless import FUNCTIONS


def one(
    *nodes: Node, shape: tuple[int, ...] = (6,), kind: Kind = Kind.REAL, dtype: Any = np.float64
) -> Graph:
    """Input -> Scale by 1.25, unless it takes an index -> the nodes -> Output."""
    first = [Scale(np.asarray(1.25))] if kind is not Kind.INDEX else []
    named = {"in": Input(shape, kind)} | {f"it{i}": node for i, node in enumerate([*first, *nodes])}
    graph = Graph(named | {"out": Output()}, [Edge(a, b) for a, b in pairwise([*named, "out"])])
    return graph.astype(dtype)


def draw(low: float, high: float, *shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(low, high, shape)


def memory(node: type[AssociativeMemory | DeltaMemory], *, silent: bool = False, **settings: Any) -> Graph:
    """A memory of 5 x 7 whose ports are all fed by Linears of 6 inputs, keys and values sparse."""
    rng = np.random.default_rng(4)
    settings = {"threshold": np.asarray(0.4), "trained_reset": "none"} | settings
    it = node(**settings)
    widths = {"v": 5, "k": 7, "alpha": 7 if node is AssociativeMemory else 1, "beta": 1}
    widths["q"] = 7 * (settings.get("queries") or 0)
    nodes: dict[str, Node] = {"in": Input((6,))}
    edges = []
    for port in it.ports:
        nodes[f"to_{port}"] = Linear(weight(rng, widths[port], 6, np.float64))
        edges += [Edge("in", f"to_{port}")]
        last = f"to_{port}"
        if port in ("alpha", "beta"):
            nodes[f"gate_{port}"] = Activation("sigmoid")
            edges += [Edge(last, f"gate_{port}")]
            last = f"gate_{port}"
        if port in ("v", "k"):
            nodes[f"sparse_{port}"] = TopK(3)
            edges += [Edge(last, f"sparse_{port}")]
            last = f"sparse_{port}"
        edges += [Edge(last, "memory", port)]
    if silent:
        nodes["sparse_k"] = Scale(np.zeros(()))
    nodes |= {"memory": it, "out": Output()}
    return Graph(nodes, [*edges, Edge("memory", "out")])


def two_ports(node: Node, *, same: bool = True) -> Graph:
    rng = np.random.default_rng(7)
    nodes = {
        "in": Input((6,)),
        "a": Linear(weight(rng, 5, 6, np.float64)),
        "b": Linear(weight(rng, 5 if same else 3, 6, np.float64)),
        "c": Scale(np.asarray(0.5)),
        "it": node,
        "out": Output(),
    }
    first, second = node.ports
    edges = [Edge("in", "a"), Edge("in", "b"), Edge("a", "c")]
    return Graph(
        nodes,
        [*edges, Edge("a", "it", first), Edge("c", "it", first), Edge("b", "it", second), Edge("it", "out")],
    )


def conv(out: int, part: int, *kernel: int, bias: bool = True, **settings: Any) -> Conv1d | Conv2d:
    w = draw(-1, 1, out, part, *kernel)
    b = draw(-0.5, 0.5, out, seed=1) if bias else None
    return (Conv1d if len(kernel) == 1 else Conv2d)(weight=w, bias=b, **settings)


IMAGE: Any = {"shape": (4, 7, 6)}
CASES: dict[str, Callable[[], Graph]] = {
    "conv1d": lambda: one(conv(3, 4, 3), shape=(4, 9)),
    "conv1d-causal": lambda: one(conv(4, 1, 3, groups=4, padding=(2, 0), bias=False), shape=(4, 9)),
    "conv1d-strided": lambda: one(conv(6, 2, 2, groups=2, stride=2, dilation=3, padding=1), shape=(4, 9)),
    "conv2d": lambda: one(conv(5, 4, 3, 3), **IMAGE),
    "conv2d-uneven": lambda: one(
        conv(6, 2, 3, 2, groups=2, stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2)), **IMAGE
    ),
    "conv2d-spiking": lambda: one(
        Reshape((2, 3, 4)),
        conv(3, 2, 3, 3, padding=1),
        lif(np.float64, draw(0.5, 0.9, 3, 1, 1), draw(0.2, 0.5, 3, 4), reset="subtract"),
        Flatten(),
        shape=(24,),
        kind=Kind.SPIKE,
    ),
    "sum-pool": lambda: one(SumPool2d(kernel=2, stride=2), **IMAGE),
    "sum-pool-uneven": lambda: one(SumPool2d(kernel=(3, 2), stride=(2, 1), padding=(1, 0, 0, 1)), **IMAGE),
    "max-pool": lambda: one(MaxPool2d(kernel=3, stride=2, padding=1), **IMAGE),
    "max-pool-uneven": lambda: one(MaxPool2d(kernel=(3, 2), stride=(2, 1), padding=(1, 0, 0, 1)), **IMAGE),
    "avg-pool": lambda: one(AvgPool2d(kernel=3, stride=2, padding=1), **IMAGE),
    "embedding": lambda: one(Embedding(draw(-1, 1, 6, 5)), shape=(1,), kind=Kind.INDEX),
    "batch-norm": lambda: one(BatchNorm(*draw(0.5, 2, 4, 4, 1, 1)), **IMAGE),
    "layer-norm": lambda: one(LayerNorm(draw(0.5, 2, 6), draw(-1, 1, 6)), **IMAGE),
    "layer-norm-wide": lambda: one(LayerNorm(draw(0.5, 2, 7, 6), epsilon=1e-3), **IMAGE),
    "rms-norm": lambda: one(RMSNorm(draw(0.5, 2, 6)), **IMAGE),
    "reshape": lambda: one(Reshape((2, 12, 7)), **IMAGE),
    "flatten": lambda: one(Flatten(), **IMAGE),
    "glu": lambda: one(GLU(), **IMAGE),
    "multiply": lambda: two_ports(Multiply()),
    "concatenate": lambda: two_ports(Concatenate(2), same=False),
    "concatenate-images": lambda: Graph(
        {"in": Input((2, 3)), "a": Scale(np.asarray(2.0)), "it": Concatenate(2, axis=1), "out": Output()},
        [Edge("in", "a"), Edge("in", "it", "x0"), Edge("a", "it", "x1"), Edge("it", "out")],
    ),
    "top-k": lambda: one(TopK(2), **IMAGE),
    "delay": lambda: one(Delay(steps=np.asarray(3.0), shape=(6,), kind=Kind.REAL)),
    "delay-each": lambda: one(
        Delay(steps=np.array([1.0, 2, 5, 1, 3, 4]), shape=(4, 7, 6), kind=Kind.REAL), **IMAGE
    ),
    "images": lambda: images(dtype=np.float64, reset="subtract"),
    "loop": lambda: looped(dtype=np.float64),
    "loop-of-three": lambda: looped(3, reset="subtract", layers=2, dtype=np.float64),
    "loop-each": lambda: looped(draw(1, 5, 8).astype(np.int64), bias=True, dtype=np.float64),
    "loop-bare": lambda: looped(2, back=False, dtype=np.float64),
    "threshold": lambda: one(Threshold(threshold=draw(0.2, 1, 6), fires=">")),
    "li": lambda: one(LI(beta=draw(0.2, 1, 6), gain="1-beta")),
    "diagonal": lambda: one(diagonal(6)),
}
CASES |= {
    f"activation-{function}": lambda function=function: one(Activation(function)) for function in FUNCTIONS
}
for reset in ("none", "subtract", "zero"):
    CASES |= {
        f"lif-{reset}": lambda reset=reset: one(lif(np.float64, draw(0.5, 0.9, 6), reset=reset)),
        f"cuba-{reset}": lambda reset=reset: one(cuba(reset=reset, alpha=draw(0.3, 0.9, 6))),
        f"cuba-{reset}-next": lambda reset=reset: one(
            cuba(reset=reset, phase="next", gain="1-beta", fires=">")
        ),
        f"adaptive-{reset}": lambda reset=reset: with_neuron(
            adaptive(reset=reset, gain="1-beta"), dtype=np.float64
        ),
    }
    for queries in (None, 2):
        for decay in ("dense", "scalar"):
            settings = {"reset": reset, "queries": queries, "decay": decay, "bound": 2.0**-8}
            CASES |= {
                f"associative-{reset}-{queries}-{decay}": lambda s=settings: memory(AssociativeMemory, **s),
                f"delta-{reset}-{queries}-{decay}": lambda s=settings: memory(DeltaMemory, **s),
            }
CASES["delta-silent"] = lambda: memory(DeltaMemory, silent=True, threshold=np.asarray(1e-9), decay="scalar")

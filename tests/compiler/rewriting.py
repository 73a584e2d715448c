"""What the tests of the passes share: graphs with memories, and the comparison of a graph with what was made of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.graphs import lif, linear, sequence
from unscan.compiler.errors import InvalidGraph
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Activation,
    AdaptiveLIF,
    AssociativeMemory,
    AssociativeScan,
    AvgPool2d,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    DeltaMemory,
    DeltaScan,
    Flatten,
    Input,
    Linear,
    Output,
    Scale,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.reference import Reference


def executed(
    graph: Graph, x: Array | None = None, *, seed: int = 1, steps: int = 40, batch: int = 3
) -> Execution:
    return Reference(graph).run(sequence(graph, steps, batch, seed) if x is None else x)


def level(graph: Graph, name: str) -> Array:
    """What a node's membranes are measured by: its threshold, or 1 where it has none."""
    return np.asarray(getattr(graph.nodes[name], "threshold", 1.0), np.float64)


def assert_same(
    before: Graph, after: Graph, x: Array, *, tolerance: float = 0.0, outputs: bool = True
) -> None:
    """Assert that all nodes which both have fire the same spikes, from the same membranes in units of the threshold.

    With a tolerance, a sample may part where the two membranes of its first parting are that close: from there on it
    runs on another history, and is not compared.
    """
    a, b = Reference(before).run(x), Reference(after).run(x)
    names = [name for name in before.order if name in a.membranes and name in b.membranes]
    parts = np.full(x.shape[1], len(x))
    for name in names:
        if name in a.spikes:
            differs = (a.spikes[name] != b.spikes[name]).reshape(*x.shape[:2], -1).any(axis=2)
            parts = np.minimum(parts, np.where(differs.any(axis=0), differs.argmax(axis=0), len(x)))
    if tolerance == 0:
        assert (parts == len(x)).all(), f"samples part at steps {parts}"
    for sample, until in enumerate(parts):
        parted = first_parting(names, a, b, until, sample)
        for position, name in enumerate(names):
            stop = until + 1 if position <= parted else until
            left, right = (
                run.membranes[name][:stop, sample] / level(graph, name)
                for run, graph in ((a, before), (b, after))
            )
            np.testing.assert_allclose(right, left, rtol=tolerance, atol=tolerance, err_msg=name)
        if outputs:
            np.testing.assert_allclose(
                b.outputs[:until, sample], a.outputs[:until, sample], rtol=tolerance, atol=tolerance
            )


def first_parting(names: list[str], a: Execution, b: Execution, step: int, sample: int) -> int:
    """Return the position of the first layer, in the order of the flow, whose spikes differ; -1 after the last step."""
    if step == len(a.outputs):
        return -1
    return next(
        position
        for position, name in enumerate(names)
        if name in a.spikes and (a.spikes[name][step, sample] != b.spikes[name][step, sample]).any()
    )


MEMORIES: tuple[type[Node], ...] = (AssociativeMemory, AssociativeScan, DeltaMemory, DeltaScan)


def memory_graph(
    rng: np.random.Generator,
    kind: type[Any] = AssociativeMemory,
    *,
    inputs: int = 5,
    rows: int = 4,
    columns: int = 6,
    queries: int | None = 2,
    top: dict[str, int] | None = None,
    dtype: Any = np.float64,
    **settings: Any,
) -> Graph:
    """Input -> Linears -> one matrix memory -> Output; `top` puts a TopK in front of a port."""
    settings = {"threshold": np.asarray(0.3, dtype), **settings}
    if kind in (AssociativeMemory, DeltaMemory):
        settings.setdefault("trained_reset", settings.get("reset", "none"))
    memory = kind(queries=queries, **settings)
    widths = {"v": rows, "k": columns, "q": columns * (queries or 0)}
    nodes: dict[str, Node] = {"input": Input((inputs,), Kind.REAL)}
    edges = []
    for port in memory.ports:
        width = widths.get(port) or memory.width(port, columns)
        nodes[f"to_{port}"] = linear(rng, inputs, width, dtype=dtype)
        edges.append(Edge("input", f"to_{port}"))
        source = f"to_{port}"
        if port in memory.gates:
            nodes[f"gate_{port}"] = Activation("sigmoid")
            edges.append(Edge(source, f"gate_{port}"))
            source = f"gate_{port}"
        if port in (top or {}):
            nodes[f"top_{port}"] = TopK((top or {})[port])
            edges.append(Edge(source, f"top_{port}"))
            source = f"top_{port}"
        edges.append(Edge(source, "memory", port))
    nodes |= {"memory": memory, "output": Output()}
    return Graph(nodes, [*edges, Edge("memory", "output")])


@st.composite
def memory_graphs(draw: st.DrawFn, kinds: tuple[type[Node], ...] = MEMORIES) -> Graph:
    """Graphs around one matrix memory of any kind and setting."""
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    settings: dict[str, Any] = {"fires": draw(st.sampled_from([">=", ">"]))}
    if kind in (AssociativeMemory, DeltaMemory):
        settings["reset"] = draw(st.sampled_from(["none", "subtract", "zero"]))
        settings["decay"] = draw(st.sampled_from(["dense", "scalar"]))
    top = {
        port: draw(st.integers(1, width))
        for port, width in (("v", rows), ("k", columns))
        if draw(st.booleans())
    }
    return memory_graph(
        rng, kind, rows=rows, columns=columns, queries=draw(st.sampled_from([None, 1, 3])), top=top,
        threshold=np.float64(draw(st.sampled_from([0.1, 0.4, 1.0]))), **settings,
    )  # fmt: skip


def norm(rng: np.random.Generator, shape: tuple[int, ...], *, dtype: Any = np.float64) -> BatchNorm:
    weight, mean, bias = rng.normal(0, 0.7, (3, *shape)).astype(dtype)
    return BatchNorm(weight=weight, bias=bias, mean=mean, variance=rng.uniform(0.5, 2, shape).astype(dtype))


def conv(rng: np.random.Generator, channels: int, axes: int, out: int | None = None, **settings: Any) -> Node:
    groups = settings.get("groups", 1)
    kernel = tuple(int(k) for k in rng.integers(1, 4, axes))
    weight = rng.normal(0, 0.6, (out or 2 * channels, channels // groups, *kernel))
    kind = Conv1d if axes == 1 else Conv2d
    return kind(
        weight=weight, bias=rng.normal(0, 0.2, len(weight)) if rng.random() < 0.5 else None, **settings
    )


@st.composite
def spatial_graphs(draw: st.DrawFn) -> Graph:
    """Chains of convolutions, norms, scales, pools and neurons, with numbers per channel and per place."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    axes = draw(st.sampled_from([1, 2]))
    shape: tuple[int, ...] = (2, *(6, 5)[:axes])
    nodes: dict[str, Node] = {"input": Input(shape)}

    def numbers(low: float, high: float) -> Any:
        shapes = [(), (shape[0],) + (1,) * axes, (1, *shape[1:]), shape]
        return rng.uniform(low, high, shapes[draw(st.sampled_from([0, 1, 1, 1, 2, 3]))])

    for i, kind in enumerate(
        draw(st.lists(st.sampled_from(["conv", "norm", "scale", "pool", "fire"]), max_size=7))
    ):
        if kind == "conv":
            settings = {
                "stride": draw(st.integers(1, 2)), "padding": draw(st.sampled_from([0, 1, 2])),
                "dilation": draw(st.integers(1, 2)), "groups": draw(st.sampled_from([1, 2])),
            }  # fmt: skip
            made = conv(rng, shape[0], axes, out=2 * draw(st.integers(1, 2)), **settings)
        elif kind == "norm":
            made = norm(rng, np.shape(numbers(0, 1)))
            if draw(st.booleans()):
                made = BatchNorm(made.weight, made.mean * 0, made.mean * 0, made.variance)
        elif kind == "scale":
            made = Scale(numbers(-1, 2))
        elif kind == "pool":
            pool = draw(st.sampled_from([AvgPool2d, SumPool2d]))
            made = pool(kernel=2, stride=draw(st.integers(1, 2)), padding=draw(st.integers(0, 1)))
        else:
            made = lif(
                numbers(0, 1), numbers(0.2, 1.5), reset=draw(st.sampled_from(["none", "subtract", "zero"]))
            )
        try:
            grown = {**nodes, f"{kind}{i}": made}
            shape = (
                Graph(grown, [Edge(a, b) for a, b in itertools.pairwise(grown)]).signals[f"{kind}{i}"].shape
            )
        except InvalidGraph:
            continue
        nodes = grown
    nodes |= {
        "flat": Flatten(),
        "fc": linear(rng, int(np.prod(shape)), 3),
        "last": lif(0.9, rng.uniform(0.3, 2, 3)),
    }
    names = [*nodes, "output"]
    return Graph({**nodes, "output": Output()}, [Edge(a, b) for a, b in itertools.pairwise(names)])


def firing(rng: np.random.Generator, kind: type[Node], width: int, **settings: Any) -> Any:
    """A random node of a class that fires, with numbers per neuron."""
    settings = {"threshold": rng.uniform(0.3, 1.5, width), **settings}
    if kind is Threshold:
        return Threshold(**settings)
    settings = {"beta": rng.uniform(0.3, 0.95, width), "trained_reset": "none", **settings}
    if kind is CubaLIF:
        settings["alpha"] = rng.uniform(0, 0.9, width)
    if kind is AdaptiveLIF:
        settings |= {"kappa": rng.uniform(0.1, 1, width), "rho": rng.uniform(0.3, 0.95, width)}
    return kind(**settings)


def recurrent_graph(rng: np.random.Generator, neuron: Node, width: int, *, late: bool = False) -> Graph:
    """Input -> Linear -> a neuron -> Output, whose spikes come back through weights a step or two later.

    The Delay stands behind the neuron, or, where `late`, behind the weights.
    """
    steps = rng.integers(1, 3, width).astype(np.float64)
    nodes = {
        "input": Input((5,)), "fc": linear(rng, 5, width), "neuron": neuron,
        "past": Delay(steps=steps, shape=(width,), kind=Kind.REAL if late else Kind.SPIKE),
        "back": Linear(rng.normal(0, 0.7, (width, width))), "output": Output(),
    }  # fmt: skip
    loop = ["neuron", "back", "past", "neuron"] if late else ["neuron", "past", "back", "neuron"]
    edges = [Edge("input", "fc"), Edge("fc", "neuron"), Edge("neuron", "output")]
    return Graph(nodes, [*edges, *(Edge(a, b) for a, b in itertools.pairwise(loop))])

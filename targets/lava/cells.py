"""A graph as processes of our own: for each node the process that runs it, its ports, settings, arrays and states.

Every rule raises Unsupported with one clause that says what the processes lack and what helps. Processes compute in
int64, which holds all that a valid graph reaches of numbers of 32 bits within a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any, cast

import networkx as nx
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.formats import WIDEST, arriving
from unscan.compiler.ir import FLOATS, Array, Dialect, Graph, Kind, Node, Signal
from unscan.compiler.nodes import (
    SPIKING,
    Activation,
    Concatenate,
    Convolution,
    Delay,
    Embedding,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLeaky,
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
from unscan.targets.base import no_rule

QUANTIZE = "run quantize"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Cell:
    """One process of a graph.

    Attributes:
        process: its class, which stands in the folder of the same name.
        settings: what JSON can hold.
        arrays: whole numbers, among its variables; those of an Operator, `N.NAME`, are parameters of its function N.
        states: name -> shape of what it keeps between steps.
        tells: those of its states, and of what it records at each step, that a run gives back.
        inputs: port -> shape of what arrives; the node's own where None.
        shape: of what leaves it.
    """

    process: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    states: Shapes = field(default_factory=dict)
    tells: tuple[str, ...] = ()
    inputs: Shapes | None = None
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a node stands: its name in its graph, and the formats of what leaves each node of that."""

    graph: Graph
    name: str
    known: Mapping[str, Fixed | None]

    @property
    def inputs(self) -> Mapping[str, Signal]:
        """Port -> signal."""
        return self.graph.inputs(self.name)

    @property
    def shapes(self) -> Shapes:
        """Port -> shape."""
        return {port: signal.shape for port, signal in self.inputs.items()}

    def format(self, port: str) -> Fixed:
        """Return the format of what arrives at a port. Raises Unsupported where it is real, or wider than 32 bits."""
        found = arriving(self.graph, self.known, self.name, port)
        if found is None:
            raise Unsupported(f"its port {port} gets real numbers; {QUANTIZE}")
        return narrow(found, f"its port {port} may get")


def narrow(found: Fixed, what: str) -> Fixed:
    """Return a format. Raises Unsupported where it is wider than 32 bits."""
    if found.bits > WIDEST:
        raise Unsupported(
            f"{what} numbers of {found.bits} bits, wanted at most {WIDEST}; put a Shift in front of it"
        )
    return found


def cells(graph: Graph, name: str, known: Mapping[str, Fixed | None]) -> dict[str, Cell]:
    """Return the processes that run a node, by name: none for an Input that Quantizes alone read, several parts of a
    Concatenate, one else. `known` are the formats of the graph.

    Raises:
        Unsupported: no process says the node.
    """
    node, place = graph.nodes[name], Place(graph, name, known)
    if node.dialect is Dialect.PARALLEL:
        raise no_rule(node)
    if not nx.has_path(graph.topology, graph.of(Input)[0], name):
        raise Unsupported("no input reaches it, and a run begins where there is one; remove it")
    for array_name, array in node.arrays():
        if array.dtype in FLOATS and not isinstance(node, Delay):
            raise Unsupported(f"its {array_name} holds real numbers; {QUANTIZE}")
    if not isinstance(node, Input | Quantize | Embedding):
        for port in node.ports:
            place.format(port)
    sent = known[name]
    if sent is not None:
        narrow(sent, "it may send")
    made = rule(node, place)
    if isinstance(made, Cell):
        made = {name: made}
    return {key: completed(cell, node, place) for key, cell in made.items()}


def completed(cell: Cell, node: Node, place: Place) -> Cell:
    """Return a cell with the shapes of ports and states that its rule has left open, and with what it tells."""
    states = node.state(place.inputs)
    recorded = {
        "outputs": isinstance(node, Output),
        "spikes": isinstance(node, SPIKING),
        "membranes": node.membrane(place.inputs) is not None,
    }
    return replace(
        cell,
        inputs=place.shapes if cell.inputs is None else cell.inputs,
        shape=cell.shape or place.graph.signals[place.name].shape,
        states=cell.states or states,
        tells=(*states, *(what for what, is_told in recorded.items() if is_told)),
    )


@singledispatch
def rule(node: Node, place: Place) -> Cell | dict[str, Cell]:
    """Return the process of a node, or the processes by name."""
    raise Unsupported(
        f"no process says {type(node).__name__} between whole numbers; {QUANTIZE}, which says if one can"
    )


def operator(function: str, arrays: Mapping[str, Array | None] | None = None, **parameters: Any) -> Cell:
    """Return the process of a function without memory; an array that is None is a parameter that is None."""
    given = dict(arrays or {})
    absent = {key: None for key, value in given.items() if value is None}
    held = {f"0.{key}": value for key, value in given.items() if value is not None}
    return Cell("Operator", {"functions": [{"name": function, "parameters": {**parameters, **absent}}]}, held)


@rule.register
def _(node: Input, place: Place) -> Cell | dict[str, Cell]:
    read = [place.graph.nodes[edge.target] for edge in place.graph.out_of(place.name)]
    if read and all(isinstance(each, Quantize) for each in read):
        return {}
    if node.kind not in (Kind.SPIKE, Kind.INDEX):
        raise Unsupported(f"it takes {node.kind} numbers; {QUANTIZE}, so that a Quantize alone reads them")
    rows = min((len(each.weight) for each in read if isinstance(each, Embedding)), default=2)
    return Cell("Source", {"quantize": None, "limit": rows - 1}, inputs={})


@rule.register
def _(node: Quantize, place: Place) -> Cell:
    sources = [place.graph.nodes[edge.source] for edge in place.graph.into(place.name)]
    if not all(isinstance(source, Input) for source in sources):
        raise Unsupported(f"it stands behind other nodes than the Input; {QUANTIZE} the whole graph")
    held = {"min": node.format.min, "max": node.format.max, "fraction": node.fraction}
    return Cell("Source", {"quantize": held, "limit": None}, inputs={})


@rule.register
def _(node: Output, place: Place) -> Cell:
    return Cell("Sink")


@rule.register
def _(node: Linear, place: Place) -> Cell:
    return operator("linear", {"weight": node.weight, "bias": node.bias})


@rule.register
def _(node: Convolution, place: Place) -> Cell:
    held = {"stride": node.stride, "padding": node.padding, "dilation": node.dilation, "groups": node.groups}
    return operator("convolution", {"weight": node.weight, "bias": node.bias}, **held)


@rule.register
def _(node: Embedding, place: Place) -> Cell:
    return operator("embedding", {"weight": node.weight})


@rule.register
def _(node: SumPool2d, place: Place) -> Cell:
    return operator("sum_pool", kernel=node.kernel, stride=node.stride, padding=node.padding)


@rule.register
def _(node: MaxPool2d, place: Place) -> Cell:
    return operator("max_pool", kernel=node.kernel, stride=node.stride, padding=node.padding)


@rule.register
def _(node: Scale, place: Place) -> Cell:
    return operator("scale", {"scale": node.scale})


@rule.register
def _(node: Shift, place: Place) -> Cell:
    return operator("shift", {"shift": node.shift}, bits=node.bits, signed=node.signed)


@rule.register
def _(node: Lookup, place: Place) -> Cell:
    return operator("lookup", {"table": node.table}, shift=node.shift)


@rule.register
def _(node: IntegerGLU, place: Place) -> Cell:
    return operator(
        "glu", {"table": node.table}, index_shift=node.index_shift, shift=node.shift, bits=node.bits
    )


@rule.register
def _(node: TopK, place: Place) -> Cell:
    return operator("top_k", count=node.count)


@rule.register
def _(node: Flatten | Reshape, place: Place) -> Cell:
    return operator("reshape", shape=place.graph.signals[place.name].shape)


@rule.register
def _(node: Activation, place: Place) -> Cell:
    if node.function != "relu":
        raise Unsupported(f"{node.function} gives real numbers; {QUANTIZE}, which makes a table of it")
    return operator("relu")


@rule.register
def _(node: Multiply, place: Place) -> Cell:
    return Cell("Product")


@rule.register
def _(node: Concatenate, place: Place) -> dict[str, Cell]:
    whole = place.graph.signals[place.name].shape
    made, before = {}, 0
    for port in node.ports:
        own = part(place.name, port)
        if own in place.graph.nodes:
            raise Unsupported(
                f"its part for port {port} is named {own!r}, as another node is; rename that node"
            )
        shape = place.shapes[port]
        behind = whole[node.axis] - before - shape[node.axis]
        made[own] = replace(
            operator("place", axis=node.axis, before=before, behind=behind), inputs={"x": shape}
        )
        before += shape[node.axis]
    return made


def part(name: str, port: str) -> str:
    """Return the name of the process that runs one part of a Concatenate."""
    return f"{name}.{port}"


@rule.register
def _(node: Delay, place: Place) -> Cell:
    return Cell("Delay", arrays={"delays": node.steps.astype(np.int32)})


@rule.register
def _(node: Threshold, place: Place) -> Cell:
    """Say it as a neuron that forgets: beta = 0, no reset, and bits that nothing fills."""
    forgets = IntegerLIF(
        beta=np.zeros((), np.int8),
        threshold=node.threshold - (node.fires == ">="),
        bits=WIDEST,
        reset="none",
        trained_reset="none",
    )
    return cast(Cell, rule(forgets, place))


def leaky(node: IntegerLeaky) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the settings and arrays that leaky integrators share."""
    settings = {"shift": node.shift, "bits": node.bits, "decay_bits": node.decay_bits, "wraps": node.wraps}
    return settings, {"beta": node.beta, "bias": np.zeros(1, np.int8) if node.bias is None else node.bias}


@rule.register
def _(node: IntegerLI, place: Place) -> Cell:
    return Cell("LI", *leaky(node))


@rule.register
def _(node: IntegerLIF, place: Place) -> Cell:
    settings, arrays = leaky(node)
    alpha = node.alpha if isinstance(node, IntegerCubaLIF) else np.zeros(1, np.int8)
    shape = place.graph.signals[place.name].shape
    return Cell(
        "LIF",
        {**settings, "reset": node.reset, "phase": node.phase},
        {**arrays, "alpha": alpha, "threshold": node.threshold},
        {"i": shape, "u": shape},
    )


@rule.register
def _(node: IntegerSSM, place: Place) -> Cell:
    names = ("shift", "bits", "decay_bits", "out_shift", "out_bits")
    settings = {name: getattr(node, name) for name in names}
    return Cell("Filter", settings, {"a": node.a, "c": node.c, "d": node.d})


@rule.register
def _(node: IntegerMemory, place: Place) -> Cell:
    names = ("queries", "reset", "shift", "bits", "decay_bits")
    settings = {name: getattr(node, name) for name in names}
    columns = place.shapes["k"][0] * (node.queries or 1)
    return Cell("Memory", settings, {"threshold": node.threshold}, inputs={**place.shapes, "q": (columns,)})

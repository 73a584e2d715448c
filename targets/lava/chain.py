"""A graph as the chain of layers that netx knows: Input, then synapse and neuron, synapse and neuron, ...

A layer is a spiking neuron with the one Linear or Conv2d that leads to it from the layer before (and, for dense_rec,
the Linear that leads back to it), or what is read out at the end: an integrator, or the last Linear itself. Delays
stand in the synapse, before or behind its weights. Every rule raises Unsupported with one clause that says what netx
lacks and what helps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import cast

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import FLOATS, INTEGERS, Array, Dialect, Graph, Kind, Node
from unscan.compiler.nodes import (
    Conv2d,
    Convolution,
    Delay,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerLeaky,
    IntegerLI,
    IntegerLIF,
    Linear,
    Output,
    Quantize,
    Reshape,
)
from unscan.targets.base import no_rule

FOLDER = "export it as a folder, whose processes can say it"
LONGEST = 62
"""Steps of the longest delay."""
Passing = Delay | Flatten | Reshape | Quantize


@dataclass(frozen=True)
class Synapse:
    """One way into a neuron.

    Attributes:
        source: the neuron or the Input that it comes from.
        node: the name of its Linear or Conv2d.
        before: delays of what goes in, by input (0 where none).
        behind: delays of what comes out, by output.
    """

    source: str
    node: str
    before: Array
    behind: Array


@dataclass(frozen=True)
class Layer:
    """One layer of a netx file.

    Attributes:
        name: its neuron or integrator, or the last Linear.
        shape: of what leaves it, (N,) or (C, H, W).
        forward: what leads to it from the layer before.
        back: what leads from it to itself, or None.
        flat: whether (C, H, W) becomes (N,) in front of it.
    """

    name: str
    shape: tuple[int, ...]
    forward: Synapse
    back: Synapse | None
    flat: bool

    @property
    def delay(self) -> Array | None:
        """Delays (out, in), or None where there are none."""
        steps = np.add.outer(self.forward.behind.ravel(), self.forward.before.ravel())
        return steps if steps.any() else None


def layer(graph: Graph, name: str) -> Layer | None:
    """Return the layer that a node is, None where it is part of another. Raises Unsupported where netx lacks it."""
    adds = isinstance(graph.nodes[name], IntegerLeaky) or len(graph.nodes[name].ports) != 1
    if not adds and len(graph.into(name)) > 1:
        raise Unsupported(f"{len(graph.into(name))} signals are added at it; netx adds none")
    return _layer(graph.nodes[name], graph, name)


@singledispatch
def _layer(node: Node, graph: Graph, name: str) -> Layer | None:
    if node.dialect is Dialect.PARALLEL:
        raise no_rule(node)
    if any(value.dtype in FLOATS for _, value in node.arrays()):
        raise Unsupported("it holds real numbers; run quantize with profile loihi2")
    raise Unsupported(f"netx has no {type(node).__name__}; {FOLDER}")


@_layer.register
def _(node: Input, graph: Graph, name: str) -> Layer | None:
    quantized = all(isinstance(graph.nodes[edge.target], Quantize) for edge in graph.out_of(name))
    if node.kind is not Kind.SPIKE and not quantized:
        raise Unsupported(
            f"it takes {node.kind} numbers; quantize the graph, so that a Quantize stands behind it"
        )
    return None


@_layer.register
def _(node: Quantize, graph: Graph, name: str) -> Layer | None:
    if not isinstance(graph.nodes[graph.into(name)[0].source], Input):
        raise Unsupported(f"only what the Input gives can be quantised; {FOLDER}")
    return None


@_layer.register
def _(node: Flatten | Reshape | Delay, graph: Graph, name: str) -> Layer | None:
    shape = graph.signals[name].shape
    if isinstance(node, Reshape) and len(shape) != 1:
        raise Unsupported(
            f"netx flattens, and has no other shapes than (N,) behind it, wanted {shape}; {FOLDER}"
        )
    return None


@_layer.register
def _(node: Linear | Conv2d, graph: Graph, name: str) -> Layer | None:
    if node.weight.dtype not in INTEGERS:
        raise Unsupported("it holds real numbers; run quantize with profile loihi2")
    if not isinstance(graph.nodes[_only(graph, name)], Output):
        return None
    if isinstance(node, Conv2d):
        raise Unsupported(f"netx has no convolution without a neuron; {FOLDER}")
    if node.bias is not None and np.any(node.bias):
        raise Unsupported(f"a netx layer without a neuron adds its bias once, and not at each step; {FOLDER}")
    forward, flat = _synapse(graph, name, name)
    return Layer(name, graph.signals[name].shape, forward, None, flat)


@_layer.register
def _(node: IntegerLI, graph: Graph, name: str) -> Layer | None:
    if not isinstance(graph.nodes[_only(graph, name)], Output):
        raise Unsupported(
            f"netx sends spikes from layer to layer, and an integrator is read at the end; {FOLDER}"
        )
    if len(graph.into(name)) > 1:
        raise Unsupported(f"{len(graph.into(name))} layers feed it, wanted 1; {FOLDER}")
    forward, flat = _synapse(graph, graph.into(name)[0].source, name)
    return Layer(name, graph.signals[name].shape, forward, None, flat)


@_layer.register
def _(node: IntegerLIF, graph: Graph, name: str) -> Layer | None:
    ways = [_synapse(graph, edge.source, name) for edge in graph.into(name)]
    forward = [way for way in ways if way[0].source != name]
    back = [way[0] for way in ways if way[0].source == name]
    if len(forward) != 1 or len(back) > 1:
        raise Unsupported(
            f"{len(forward)} layers and {len(back)} recurrences feed it, wanted 1 and at most 1: netx has a chain of "
            f"layers; {FOLDER}"
        )
    ((synapse, flat),) = forward
    for loop in back:
        _insist_on_loop(graph, loop, synapse)
    return Layer(name, graph.signals[name].shape, synapse, back[0] if back else None, flat)


@_layer.register
def _(node: Output, graph: Graph, name: str) -> Layer | None:
    if not isinstance(graph.nodes[_walk(graph, graph.into(name)[0].source)[1]], IntegerLeaky | Linear):
        raise Unsupported("netx ends with a neuron, an integrator or a Linear")
    return None


def _insist_on_loop(graph: Graph, loop: Synapse, forward: Synapse) -> None:
    """Raise Unsupported unless a recurrence is one that dense_rec has."""
    steps = np.add.outer(loop.behind.ravel(), loop.before.ravel())
    if isinstance(graph.nodes[loop.node], Convolution) or isinstance(graph.nodes[forward.node], Convolution):
        raise Unsupported(f"netx has recurrences of dense layers alone; {FOLDER}")
    if (steps != 1).any():
        raise Unsupported(
            f"its recurrence {loop.node!r} takes {steps.min()} to {steps.max()} steps, and netx has only 1; {FOLDER}"
        )
    if forward.before.any() or forward.behind.any():
        raise Unsupported(f"netx reads a layer with a recurrence and other delays wrongly; {FOLDER}")
    if graph.nodes[loop.node].bias is not None:  # type: ignore[attr-defined]
        raise Unsupported(f"its recurrence {loop.node!r} has a bias; add it to the neuron's")


def _synapse(graph: Graph, start: str, into: str) -> tuple[Synapse, bool]:
    """Walk from what feeds a neuron (or is read out) back to a neuron or the Input, over one Linear or Conv2d."""
    passed, node = _walk(graph, start)
    if not isinstance(graph.nodes[node], Linear | Conv2d):
        raise Unsupported(
            f"{type(graph.nodes[node]).__name__} {node!r} feeds it, and netx has a Linear or Conv2d in front of each "
            f"neuron; {FOLDER}"
        )
    behind = _delays(graph, passed, graph.signals[node].shape)
    if passed and getattr(graph.nodes[node], "bias", None) is not None and behind.any():
        raise Unsupported(f"the bias of {node!r} is delayed with it; add it to the neuron's")
    ahead, source = _walk(graph, graph.into(node)[0].source)
    if not isinstance(graph.nodes[source], IntegerLIF | Input):
        raise Unsupported(
            f"{type(graph.nodes[source]).__name__} {source!r} feeds {node!r}, and between two neurons netx has one "
            f"Linear or Conv2d; {FOLDER}"
        )
    before = _delays(graph, ahead, graph.inputs(node)["x"].shape)
    convolved = isinstance(graph.nodes[node], Conv2d)
    reshaped = [name for name in passed if isinstance(graph.nodes[name], Flatten | Reshape)]
    if convolved and reshaped:
        raise Unsupported(
            f"{reshaped[0]!r} stands between a convolution and its neuron; put it behind the neuron"
        )
    longest = int(before.max(initial=0) + behind.max(initial=0))
    if longest > LONGEST:
        raise Unsupported(f"a delay of {longest} steps leads to it, and Lava cuts them to {LONGEST}")
    if convolved and (before.any() or behind.any()):
        raise Unsupported(f"netx ignores the delays of a convolution; {FOLDER}")
    wide = len(graph.signals[source].shape) > 1
    if any(isinstance(graph.nodes[name], Flatten | Reshape) for name in ahead) and convolved and wide:
        raise Unsupported(f"netx has no convolution behind a Flatten; {FOLDER}")
    flat = wide and not convolved and isinstance(graph.nodes[source], IntegerLIF)
    return Synapse(source, node, before, behind), flat


def _walk(graph: Graph, name: str) -> tuple[list[str], str]:
    """Return the nodes from `name` upstream that only pass on, and the first that does more."""
    passed: list[str] = []
    while isinstance(graph.nodes[name], Passing):
        if len(graph.into(name)) != 1 or name in passed:
            raise Unsupported(f"{len(graph.into(name))} signals are added at {name!r}; netx adds none")
        passed.append(name)
        name = graph.into(name)[0].source
    return passed, name


def _delays(graph: Graph, passed: list[str], shape: tuple[int, ...]) -> Array:
    """Return the sum of the delays among nodes, one for each of so many numbers."""
    steps = np.zeros(math.prod(shape), np.int64)
    for name in passed:
        node = graph.nodes[name]
        if isinstance(node, Delay):
            steps = steps + np.broadcast_to(node.steps, node.shape).ravel().astype(np.int64)
    return steps


def _only(graph: Graph, name: str) -> str:
    """Return the node that a Linear or Conv2d feeds, behind what only passes on."""
    seen = {name}
    while True:
        targets = [edge.target for edge in graph.out_of(name)]
        if len(targets) != 1 or targets[0] in seen:
            raise Unsupported(
                f"it feeds {len(targets)} nodes, and a synapse of netx leads to one neuron; {FOLDER}"
            )
        (name,) = targets
        seen.add(name)
        if not isinstance(graph.nodes[name], Passing):
            return name


def chain(graph: Graph) -> list[Layer]:
    """Return the layers from the Input to the Output. Raises Unsupported where they are no chain."""
    found = {name: made for name in graph.order if (made := layer(graph, name)) is not None}
    fed: dict[str, str] = {}
    for name, made in found.items():
        if made.forward.source in fed:
            raise Unsupported(
                f"{made.forward.source!r} feeds the layers {fed[made.forward.source]!r} and {name!r}, and netx has a "
                f"chain of layers; {FOLDER}"
            )
        fed[made.forward.source] = name
    order = []
    (at,) = graph.of(Input)
    while at in fed:
        at = fed[at]
        order.append(found[at])
    if len(order) < len(found) or not order:
        raise Unsupported(f"its layers are no chain from the Input to the Output; {FOLDER}")
    passed, end = _walk(graph, graph.into(graph.of(Output)[0])[0].source)
    if end != order[-1].name or any(isinstance(graph.nodes[name], Delay) for name in passed):
        raise Unsupported(f"what leaves it is not what its last layer {order[-1].name!r} gives; {FOLDER}")
    return order


def cuba(node: IntegerLeaky) -> tuple[Array, Array]:
    """Return (alpha, beta), the decays of current and membrane; alpha is 0 where the neuron keeps no current."""
    return (node.alpha if isinstance(node, IntegerCubaLIF) else np.zeros_like(node.beta)), node.beta


def synapse_nodes(graph: Graph, layers: list[Layer]) -> Mapping[str, Linear | Conv2d]:
    """Return name -> node of every Linear and Conv2d of a chain."""
    names = [each.node for made in layers for each in (made.forward, made.back) if each is not None]
    return {name: cast("Linear | Conv2d", graph.nodes[name]) for name in names}

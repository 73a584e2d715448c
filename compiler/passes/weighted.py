"""What the folding passes share: nodes with weights that take up a factor and an offset.

Behind a weighted node, y = g (W x + b) + c has the weights diag(g) W and the bias g b + c, g and c per output channel.
In front of one, y = W (g x + c) + b has the weights W diag(g) and the bias W c + b, g and c per input channel; but what
a convolution pads with is 0, not c, so behind a padding only c = 0 is exact. The rows of an Embedding and what a
Diagonal reads of its modes, c and d, take up a factor behind them likewise. Computed in float64, rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from typing import Any, cast

import numpy as np

from unscan.compiler.ir import Array, Graph, Node
from unscan.compiler.nodes import Convolution, Diagonal, Embedding, Linear

Weighted = Linear | Convolution
"""What can take up a factor before or behind it."""


@singledispatch
def scaled_outputs(node: Node, gain: Array, offset: Array | None = None) -> Node:
    """Return the weighted node followed by y = gain x + offset, of one number or one per output channel."""
    raise TypeError(f"{type(node).__name__} has no weights.")


@scaled_outputs.register(Linear)
@scaled_outputs.register(Convolution)
def _(node: Weighted, gain: Array, offset: Array | None = None) -> Node:
    weight = (node.weight.astype(np.float64).T * gain).T
    bias = None if node.bias is None else node.bias.astype(np.float64) * gain
    return rounded(node, weight, bias if offset is None else added(bias, offset, len(weight)))


@scaled_outputs.register
def _(node: Embedding, gain: Array, offset: Array | None = None) -> Node:
    weight = node.weight.astype(np.float64) * gain
    return Embedding((weight if offset is None else weight + offset).astype(node.weight.dtype))


@scaled_outputs.register
def _(node: Diagonal, gain: Array, offset: Array | None = None) -> Node:
    if offset is not None:
        raise TypeError("A Diagonal has no bias.")
    each = np.broadcast_to(gain, node.d.shape)
    c, d = node.c.astype(np.float64) * each[:, None, None], node.d.astype(np.float64) * each
    return replace(node, c=c.astype(node.c.dtype), d=d.astype(node.d.dtype))


def scaled_inputs(node: Weighted, gain: Array, offset: Array | None = None) -> Weighted:
    """Return the weighted node preceded by y = gain x + offset, of one number or one per input channel.

    A convolution that pads takes no offset; see `pads`.
    """
    weight = node.weight.astype(np.float64)
    seen = weight.reshape(*weight.shape[:2], -1)
    groups = node.groups if isinstance(node, Convolution) else 1

    def arriving(numbers: Array) -> Array:
        """One number for each output and each input that it sees."""
        each = np.broadcast_to(numbers, weight.shape[1] * groups).reshape(groups, -1)
        return np.repeat(each, len(weight) // groups, axis=0)

    bias = None if node.bias is None else node.bias.astype(np.float64)
    if offset is not None:
        bias = added(bias, (seen.sum(axis=2) * arriving(offset)).sum(axis=1), len(weight))
    return rounded(node, (seen * arriving(gain)[..., None]).reshape(weight.shape), bias)


def added(bias: Array | None, offset: Array, channels: int) -> Array:
    """Return bias + offset, one number per channel."""
    return np.broadcast_to(offset if bias is None else bias + offset, (channels,))


def rounded(node: Weighted, weight: Array, bias: Array | None) -> Weighted:
    """Return the node with new numbers in its own format."""
    dtype = node.weight.dtype
    return replace(node, weight=weight.astype(dtype), bias=None if bias is None else bias.astype(dtype))


def per_channel(numbers: Array, shape: tuple[int, ...]) -> Array | None:
    """Return numbers that broadcast to a signal's shape as one per channel, or None where a channel has several."""
    rows = np.broadcast_to(np.asarray(numbers, np.float64), shape).reshape(shape[0], -1)
    return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None


def pads(node: Node) -> bool:
    """Say whether a node puts zeros round what it is given."""
    return isinstance(node, Convolution) and node.padding != (0,) * (2 * node.axes)


def weighted_before(graph: Graph, name: str) -> str | None:
    """Return the node with weights on its outputs that alone feeds a node and feeds nothing else, or None."""
    into = graph.into(name)
    if len(into) == 1 and len(graph.out_of(into[0].source)) == 1:
        source = into[0].source
        return source if isinstance(graph.nodes[source], Weighted | Embedding | Diagonal) else None
    return None


def weighted_after(graph: Graph, name: str) -> list[str]:
    """Return the Linears and convolutions that a node feeds, where it feeds nothing else and alone feeds them."""
    targets = [edge.target for edge in graph.out_of(name)]
    free = all(isinstance(graph.nodes[t], Weighted) and len(graph.into(t)) == 1 for t in targets)
    return targets if free else []


def taken_up(graph: Graph, name: str, gain: Array, offset: Array | None = None) -> dict[str, Node] | str:
    """Return the nodes that take up y = gain x + offset, which a node computes, or why none can."""
    shape = graph.signals[name].shape
    before, after = weighted_before(graph, name), weighted_after(graph, name)
    if before is None and not after:
        return "no Linear or convolution stands alone before or after it"
    gains = per_channel(gain, shape)
    offsets = None if offset is None or not np.any(offset) else per_channel(offset, shape)
    if gains is None or (offsets is None and offset is not None and np.any(offset)):
        return f"its numbers differ from place to place of a channel, which {before or after[0]} has one weight for"
    if before and (offsets is None or not isinstance(graph.nodes[before], Diagonal)):
        return {before: scaled_outputs(graph.nodes[before], gains, offsets)}
    if not after:
        return f"{before}, before it, has no bias that could take up what it adds"
    padded = [target for target in after if pads(graph.nodes[target])]
    if padded and offsets is not None:
        return f"{padded[0]} pads with zeros behind it, to which nothing is added"
    return {target: scaled_inputs(cast(Weighted, graph.nodes[target]), gains, offsets) for target in after}


def folded(
    graph: Graph, kind: type[Node], affine: Callable[[Any], tuple[Array, Array | None]]
) -> tuple[Graph, list[str]]:
    """Return the graph without the nodes of a class that weights take up, y = gain x + offset, and what was done.

    It goes on until none can be: one that is gone may have stood between another and its weights.
    """
    notes: list[str] = []
    while True:
        stay: dict[str, str] = {}
        before = graph
        for name in graph.of(kind):
            found = taken_up(graph, name, *affine(graph.nodes[name]))
            if isinstance(found, str):
                stay[name] = f"{name}: stays, because {found}"
            else:
                notes.append(f"{name}: folded into {', '.join(found)}")
                graph = graph.with_nodes(found).bypass(name)
        if graph is before:
            return graph, [*notes, *stay.values()]

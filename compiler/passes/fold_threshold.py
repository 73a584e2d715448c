"""Fold scales into weights, so that every threshold is the one that a target wants.

A neuron's recurrence and each of its resets are homogeneous: with the input and the threshold both multiplied by a > 0,
the membrane is multiplied by a and the spikes stay (003, property 1, equation 12). A synaptic current is a sum of
inputs, so it is multiplied along; an adaptation counts spikes, so kappa, what a spike is worth, is multiplied like the
threshold. A matrix memory is linear in its values: multiplied by a they multiply S, and what its queries read of the
spikes stays.

So where everything that feeds a neuron comes from weights that feed nothing else, their rows and biases are multiplied
by a = wanted / theta, per channel; also where a Delay, a pool or a change of shape stands between, and a TopK where a
is one number, which leaves the order of its inputs. A Scale before or after weights is folded the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, ClassVar

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Node
from unscan.compiler.nodes import (
    LIF,
    AdaptiveLIF,
    Convolution,
    CubaLIF,
    Delay,
    Diagonal,
    Embedding,
    Flatten,
    Linear,
    Pool2d,
    Reshape,
    Scale,
    StoredMemory,
    Threshold,
    TopK,
)
from unscan.compiler.passes.base import Pass, Rewrite
from unscan.compiler.passes.weighted import folded, per_channel, scaled_outputs

FIRING = (LIF, CubaLIF, AdaptiveLIF, Threshold, StoredMemory)


@dataclass(frozen=True)
class FoldThreshold(Pass):
    """Fold every Scale into weights beside it, and every threshold into the weights that feed the neuron.

    Option `threshold`: the one that is wanted.

    Given and result: iterative nodes. Preserves: spikes, to rounding of the weights (exactly where wanted / theta is a
    power of two); membranes are multiplied by wanted / theta, and `meta["units"]` of the graph says by how much for
    each neuron. What cannot be folded stays, and the note says why.

    Raises:
        InvalidInput: a wanted threshold that is not greater than 0.
    """

    name: ClassVar[str] = "fold-threshold"
    threshold: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.threshold) and self.threshold > 0):
            raise InvalidInput(
                f"fold-threshold got the threshold {self.threshold}; it takes a number greater than 0."
            )

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its scales and thresholds folded."""
        graph, notes = folded(graph, Scale, lambda node: (node.scale.astype(np.float64), None))
        for name in graph.of(*FIRING):
            graph = self._fold_neuron(graph, name, notes)
        return Rewrite(graph, notes)

    def _fold_neuron(self, graph: Graph, name: str, notes: list[str]) -> Graph:
        neuron: Any = graph.nodes[name]
        wanted = neuron.threshold.dtype.type(self.threshold)
        if np.all(neuron.threshold == wanted):
            one = neuron.threshold.ndim == 0
            return graph if one else graph.with_nodes({name: replace(neuron, threshold=wanted)})
        factor = float(wanted) / neuron.threshold.astype(np.float64)
        port = "v" if isinstance(neuron, StoredMemory) else "x"
        found = sources(graph, name, np.broadcast_to(factor, graph.inputs(name)[port].shape), port)
        if isinstance(found, str):
            notes.append(f"{name}: threshold stays, because {found}")
            return graph
        notes.append(f"{name}: threshold folded into {', '.join(found)}")
        changed = {name: replace(neuron, threshold=wanted, **scaled_along(neuron, factor))}
        units: dict[str, Any] = graph.meta.get("units", {})
        units = units | {name: (np.asarray(units.get(name, 1.0)) * factor).tolist()}
        return graph.with_nodes({**found, **changed}).annotate(meta={"units": units})


def scaled_along(neuron: Node, factor: Array) -> dict[str, Array]:
    """Return the parameters of a neuron that are multiplied along with its threshold."""
    if isinstance(neuron, AdaptiveLIF):
        return {"kappa": (neuron.kappa.astype(np.float64) * factor).astype(neuron.kappa.dtype)}
    return {}


def scaled_source(graph: Graph, name: str, factor: Array) -> dict[str, Node] | str:
    """Return what changes so that a node sends `factor`, of its signal's shape, times what it sent; or why nothing can.

    The node feeds what wants that alone.
    """
    if len(graph.out_of(name)) > 1:
        return f"{name} feeds it and {len(graph.out_of(name)) - 1} more"
    return sending(graph.nodes[name], graph, name, factor)


@singledispatch
def sending(node: Node, graph: Graph, name: str, factor: Array) -> dict[str, Node] | str:
    """Return what changes behind and in a node, by its class; see `scaled_source`."""
    return f"{name}, which feeds it, is {type(node).__name__} and has no weights"


@sending.register(Linear)
@sending.register(Convolution)
@sending.register(Embedding)
@sending.register(Diagonal)
def _(node: Node, graph: Graph, name: str, factor: Array) -> dict[str, Node] | str:
    gain = per_channel(factor, factor.shape)
    if gain is None:
        return f"its thresholds differ from place to place of a channel, which {name} has one weight for"
    return {name: scaled_outputs(node, gain)}


@sending.register
def _(node: Delay, graph: Graph, name: str, factor: Array) -> dict[str, Node] | str:
    return sources(graph, name, factor)


@sending.register(Flatten)
@sending.register(Reshape)
def _(node: Node, graph: Graph, name: str, factor: Array) -> dict[str, Node] | str:
    return sources(graph, name, factor.reshape(graph.inputs(name)["x"].shape))


@sending.register
def _(node: Pool2d, graph: Graph, name: str, factor: Array) -> dict[str, Node] | str:
    gain = per_channel(factor, factor.shape)
    if gain is None:
        return f"its thresholds differ from place to place of a channel, over which {name} pools"
    return sources(graph, name, np.broadcast_to(gain[:, None, None], graph.inputs(name)["x"].shape))


@sending.register
def _(node: TopK, graph: Graph, name: str, factor: Array) -> dict[str, Node] | str:
    if np.ptp(factor):
        return f"its thresholds differ, and {name} compares what feeds them"
    return sources(graph, name, factor)


def sources(graph: Graph, name: str, factor: Array, port: str = "x") -> dict[str, Node] | str:
    """Return what changes in everything that feeds a port of a node, or why nothing can."""
    changed: dict[str, Node] = {}
    for edge in graph.into(name):
        if edge.port == port:
            found = scaled_source(graph, edge.source, factor)
            if isinstance(found, str):
                return found
            changed |= found
    return changed

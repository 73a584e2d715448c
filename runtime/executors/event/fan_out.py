"""Weights most of which are 0: which layers are computed by the others alone, and how those are laid out."""

from __future__ import annotations

import numpy as np

from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import LIF, Linear
from unscan.runtime.executors.event.assembly import Assembly, Fan, Value
from unscan.runtime.executors.event.program import POWERS

DENSEST = 0.03
"""The largest share of weights that are not 0 at which these are added one by one.

Where `unscan bench sparse_fan_out` finds them as fast as whole rows, in float32 at rates of 0.5 and 2 %: 1 % at 256
neurons, 3 % at 1024; at 2048 they are 1.5 times as fast at 3 %, as whole rows leave the cache.
"""
FAN_IN = 16
"""The most weights a neuron that are not 0, on average, at which neurons are looked at when one of them arrives.

The same benchmark finds a neuron that is looked at by itself 6 to 8 times as dear as one of a whole layer in a step:
with 16 weights that breaks even where the neurons before fire at 0.8 to 1 %.
"""
WIDE = 2048
"""The fewest neurons of such a layer: to decay fewer of them at every step costs less than a microsecond."""
TABLES = 8
"""Neurons of more decays than this take their powers by squaring: tables would not stay in cache."""


def mostly_zero(weight: Array) -> bool:
    """Say whether it is cheaper to go over the weights that are not 0 than over whole rows."""
    return bool(np.count_nonzero(weight) <= DENSEST * weight.size)


def rarely_met(weight: Array) -> bool:
    """Say whether neurons that these weights feed are better looked at one by one than all at every step."""
    rare = np.count_nonzero(weight) <= FAN_IN * len(weight)
    return mostly_zero(weight) and bool(rare) and len(weight) >= WIDE


def waking(graph: Graph, name: str) -> bool:
    """Say whether a node is a LIF that only sparse weights feed, so that it need not decay at every step.

    Its reset acts at once and beta lies in [0, 1]: a membrane below its level stays there while nothing arrives.
    """
    node = graph.nodes[name]
    return (
        isinstance(node, LIF)
        and (node.phase == "now" or node.reset == "none")
        and bool(((node.beta >= 0) & (node.beta <= 1)).all())
        and all(fanned(graph, edge.source) for edge in graph.into(name))
    )


def fanned(graph: Graph, name: str) -> bool:
    """Say whether a node is a Linear of sparse weights without bias, which spikes feed, and which has one reader."""
    node = graph.nodes[name]
    return (
        isinstance(node, Linear)
        and node.bias is None
        and len(graph.out_of(name)) == 1
        and all(graph.signals[edge.source].kind is Kind.SPIKE for edge in graph.into(name))
        and rarely_met(node.weight)
    )


def fans(node: Linear, name: str, assembly: Assembly, arriving: list[Value]) -> tuple[Fan, ...]:
    """Hold sparse weights for the neurons that they feed; return them for each list of spikes that arrives."""
    whole, start = pairs(node, name, assembly)
    return tuple(
        Fan(value.events, whole, value.width, start) for value in arriving if value.events is not None
    )


def pairs(node: Linear, name: str, assembly: Assembly) -> tuple[int, int]:
    """Hold the weights that are not 0, by presynaptic neuron; return where the neurons and the weights start.

    The neurons are those of `sparse.scatter_spikes`: where each input's weights start, then what each weight reaches.
    """
    inputs, outputs = np.nonzero(node.weight.T)
    firsts = np.concatenate([[0], np.cumsum(np.bincount(inputs, minlength=node.weight.shape[1]))])
    start, _ = assembly.constants(node.weight[outputs, inputs][None], name)
    return assembly.whole_numbers(firsts, outputs), start


def powers(beta: Array) -> tuple[Array, Array]:
    """Return the powers of decays (tables, POWERS), and the table of each neuron; none, and -1, where they are many."""
    found, which = np.unique(beta, return_inverse=True)
    if len(found) > TABLES:
        return np.empty((0, POWERS)), np.full(beta.shape, -1)
    return found[:, None] ** np.arange(POWERS), which

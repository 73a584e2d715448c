"""Weights most of which are 0: which layers are computed by the others alone, and how those are laid out."""

from __future__ import annotations

import numpy as np

from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import LIF, Linear
from unscan.runtime.executors.event.assembly import Assembly, Fan, Value

DENSEST = 0.03
"""The largest share of weights that are not 0 at which these are added one by one.

Where `unscan bench sparse_fan_out` finds them as fast as whole rows, at rates of 0.5 and 2 %: 5 % at 64 and 256
neurons, 2 to 5 % at 1 024, 5 to 10 % at 4 096.
"""
WIDE = 2048
"""The fewest neurons that are let sleep in blocks of 64.

The same benchmark, at 8 input spikes a step: 1.3 times slower so than awake at 2 048 neurons, 1.1 at 4 096, and 1.1
times faster at 8 192. What it saves grows with the neurons and falls with the events.
"""


def mostly_zero(weight: Array) -> bool:
    """Say whether it is cheaper to go over the weights that are not 0 than over whole rows."""
    return bool(np.count_nonzero(weight) <= DENSEST * weight.size)


def waking(graph: Graph, name: str) -> bool:
    """Say whether a node is a LIF that only sparse weights feed, so that it need not decay at every step.

    beta lies in [0, 1]: a membrane below its level stays there while nothing arrives.
    """
    node = graph.nodes[name]
    return (
        isinstance(node, LIF)
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
        and mostly_zero(node.weight)
        and len(node.weight) >= WIDE
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

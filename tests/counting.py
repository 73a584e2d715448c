"""Operations counted one step after the other, from what the reference's nodes send: slow, and by its own reckoning.

Nothing here is shared with `unscan.runtime.costs`, `counts` or `work`: an event is a number that is not zero, and it is
looked at when and where it occurs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from unscan.compiler.ir import Array, Graph, Kind, Node
from unscan.compiler.nodes import (
    GLU,
    LI,
    LIF,
    Activation,
    AdaptiveLIF,
    AssociativeMemory,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    DeltaMemory,
    DiagonalSSM,
    Embedding,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLI,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    LayerNorm,
    Linear,
    Lookup,
    MaxPool2d,
    Multiply,
    Output,
    Quantize,
    Reshape,
    RMSNorm,
    Scale,
    Shift,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.runtime.executors.reference import Reference

SPIKING = (Threshold, LIF, CubaLIF, AdaptiveLIF, IntegerLIF, AssociativeMemory, DeltaMemory, IntegerMemory)
Fed = dict[str, list[tuple[bool, Array]]]
"""Port -> for each edge whether it carries spikes, and what came over it at one step of one sample."""
Rule = Callable[[Any, Fed, Array, Array | None], Counter[str]]
"""(node, fed, sent, fired) -> what one step of one sample took."""


def reckon(graph: Graph, x: Array) -> tuple[list[dict[str, Counter[str]]], Counter[str]]:
    """Return the operations of each node in each sample, and the most events in one step of each node ("" of all)."""
    reference, steps = Reference(graph), len(x)
    done = [{name: Counter[str]() for name in graph.nodes} for _ in range(x.shape[1])]
    peaks: Counter[str] = Counter()
    for sample in range(x.shape[1]):
        state = {name: np.zeros((1, *shape)) for name, shape in graph.states.items()}
        for t in range(steps):
            made, after = reference.advance(x[t, sample : sample + 1], state)
            together = 0
            for name, node in graph.nodes.items():
                fed: Fed = {}
                for edge in graph.into(name):
                    spikes = graph.signals[edge.source].kind is Kind.SPIKE
                    fed.setdefault(edge.port, []).append((spikes, made[edge.source].value[0]))
                sent, fired = made[name].value[0], made[name].spikes
                took = RULES[type(node)](node, fed, sent, None if fired is None else fired[0])
                took += rescaled(node, name, graph, fed, state)
                took += every(node, fed, sent)
                done[sample][name] += took
                many = np.count_nonzero(sent)
                peaks[name] = max(peaks[name], many)
                if begins(graph, name):
                    together += many
            peaks[""] = max(peaks[""], together)
            state = after
    return done, peaks


def begins(graph: Graph, name: str) -> bool:
    """Say whether events come from a node: an input that is no index, and what fires and sends its spikes as such."""
    kind = graph.signals[name].kind
    if isinstance(graph.nodes[name], Input):
        return kind is not Kind.INDEX
    return isinstance(graph.nodes[name], SPIKING) and kind is not Kind.REAL


def every(node: Node, fed: Fed, sent: Array) -> Counter[str]:
    """Count what holds for all nodes: events in and out, and the additions of edges that meet at a port."""
    edges = [edge for port in fed.values() for edge in port]
    took = Counter(
        events_in=sum(np.count_nonzero(value) for _, value in edges), events_out=np.count_nonzero(sent)
    )
    if not isinstance(node, Linear | Conv1d | Conv2d):
        took["join"] = sum(value.size for port in fed.values() for _, value in port[1:])
    return took


def summed(fed: Fed, port: str = "x") -> Array:
    """Return what arrives at a port."""
    return np.asarray(sum(value for _, value in fed[port]))


def met_by(fed: Fed, node: Node, sent: Array) -> Counter[str]:
    """Count the weights that every event meets."""
    took: Counter[str] = Counter()
    for spikes, value in fed["x"]:
        for where in np.argwhere(value).tolist():
            took["acs" if spikes else "macs"] += leaving(node, tuple(where), sent.shape)
    took["weight_reads"] = took["acs"] + took["macs"]
    return took


@lru_cache(maxsize=2**16)
def leaving(node: Node, where: tuple[int, ...], sent: tuple[int, ...]) -> int:
    """Return how many weights that are not zero, or windows of a pool, meet one number of what arrives."""
    if isinstance(node, Linear):
        return int((node.weight[:, where[0]] != 0).sum())
    channel, spot = where[0], where[1:]
    if isinstance(node, Conv1d | Conv2d):
        outs, ins, *kernel = node.weight.shape
        group, per_group = channel // ins, outs // node.groups
        own = node.weight[group * per_group : (group + 1) * per_group, channel - group * ins]
    else:
        kernel = node.kernel  # type: ignore[attr-defined]
        own = np.ones((1, *kernel))
    taps = product(*map(range, kernel))
    return sum(
        int(np.count_nonzero(own[(slice(None), *tap)])) for tap in taps if sees(node, spot, tap, sent[1:])
    )


def linear(node: Linear, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    took = met_by(fed, node, sent)
    took["dense_macs"] = node.weight.size
    if node.bias is not None:
        took += Counter(bias=sent.size, weight_reads=sent.size)
    return took


def sees(node: Any, spot: tuple[int, ...], tap: tuple[int, ...], sent: tuple[int, ...]) -> bool:
    """Say whether a tap of the kernel meets a number of the image at one of the places of the window."""
    dilation = getattr(node, "dilation", (1,) * node.axes)
    for axis in range(node.axes):
        at = spot[axis] + node.padding[axis] - tap[axis] * dilation[axis]
        if at % node.stride[axis] or not 0 <= at // node.stride[axis] < sent[axis]:
            return False
    return True


def convolution(node: Conv1d | Conv2d, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    took = met_by(fed, node, sent)
    took["dense_macs"] = sent.size * prod(node.weight.shape[1:])
    if node.bias is not None:
        took += Counter(bias=sent.size, weight_reads=sent.size)
    return took


def pool(node: Any, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    met = met_by(fed, node, sent)
    took = Counter(pool=met["acs"] + met["macs"])
    return took + Counter(scale=np.count_nonzero(sent)) if isinstance(node, AvgPool2d) else took


def largest(node: MaxPool2d, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    return Counter(pool=sum(leaving(node, where, sent.shape) for where in np.ndindex(fed["x"][0][1].shape)))


def leaky(node: Any, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    """Count a neuron's decay, input, comparison and reset, and its membrane read and written."""
    n = sent.size
    took = Counter(neurons=n, decay=n, integrate=n, state_reads=n, state_writes=n)
    if getattr(node, "gain", "1") != "1":
        took["scale"] = n
    if getattr(node, "bias", None) is not None:
        took["bias"] = n
    if isinstance(node, CubaLIF | IntegerCubaLIF):
        took += Counter(decay=n, integrate=n, state_reads=n, state_writes=n)
    if isinstance(node, AdaptiveLIF):
        took += Counter(decay=n, adapt=n, state_reads=n, state_writes=n)
    if fired is not None:
        took += Counter(compare=n, slots=n, spikes=int(fired.sum()))
        if node.reset != "none":
            took["reset"] = int(fired.sum())
    return took


def memory(node: Any, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    """Count the entries that a step writes, compares and reads; what `rescaled` knows is added there."""
    assert fired is not None
    v, k = summed(fed, "v"), summed(fed, "k")
    entries, many = fired.size, int(fired.sum())
    writes = np.count_nonzero(v) * np.count_nonzero(k)
    took = Counter(spikes=many, slots=entries, neurons=entries, read=many * (node.queries or 0))
    arrived = sum(np.count_nonzero(value) for _, value in fed["k"])
    if isinstance(node, DeltaMemory):
        writes = len(v) * np.count_nonzero(k) * (np.sqrt((k**2).sum()) > 1e-12)
        took += Counter(erase=writes, norm=2 * arrived)
    took["write"] = writes
    if node.reset != "none":
        took["reset"] = many
    if getattr(node, "decay", "dense") == "dense":
        return took + Counter(decay=entries, compare=entries, state_reads=entries, state_writes=entries)
    accumulators = 1 if isinstance(node, DeltaMemory) else len(k)
    return took + Counter(
        decay=accumulators,
        scale=arrived,
        compare=writes + many,
        state_writes=writes + accumulators,
        state_reads=writes + accumulators + many,
    )


def rescaled(node: Node, name: str, graph: Graph, fed: Fed, state: dict[str, Array]) -> Counter[str]:
    """Count the entries of the columns whose accumulator falls below its bound at this step."""
    if not isinstance(node, AssociativeMemory | DeltaMemory) or node.decay == "dense":
        return Counter()
    A = state[f"{name}.A"][0]
    low = (A * summed(fed, "alpha") < node.bound) & (A != 0)
    rows, columns = graph.membranes()[name]
    entries = int(low.sum()) * rows * (columns if isinstance(node, DeltaMemory) else 1)
    return Counter(rescale=entries, state_reads=entries, state_writes=entries)


def filtered(node: Any, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    n, modes = sent.size, node.a.shape[1]
    states = 2 * modes * n
    return Counter(
        ssm=(6 * modes + 1) * n, weight_reads=(4 * modes + 1) * n, state_reads=states, state_writes=states
    )


def each(**kinds: int) -> Rule:
    """Return a rule that counts so many operations for each number that is sent."""
    return lambda node, fed, sent, fired: Counter({kind: n * sent.size for kind, n in kinds.items()})


def for_events(*kinds: str) -> Rule:
    """Return a rule that counts one operation of each kind for every event that arrives."""

    def rule(node: Any, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
        arrived = sum(np.count_nonzero(value) for _, value in fed["x"])
        return Counter(dict.fromkeys(kinds, arrived))

    return rule


def normed(node: LayerNorm, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    passes = 3 if node.bias is None else 4
    return Counter(norm=passes * sent.size, weight_reads=(passes - 2) * sent.size)


def crossed(node: Threshold, fed: Fed, sent: Array, fired: Array | None) -> Counter[str]:
    n = sent.size
    return Counter(spikes=np.count_nonzero(sent), slots=n, neurons=n, compare=n)


RULES: dict[type[Node], Rule] = {
    Linear: linear,
    Conv1d: convolution,
    Conv2d: convolution,
    SumPool2d: pool,
    AvgPool2d: pool,
    MaxPool2d: largest,
    Embedding: each(weight_reads=1),
    Scale: for_events("scale", "weight_reads"),
    BatchNorm: each(norm=1, weight_reads=2),
    LayerNorm: normed,
    RMSNorm: each(norm=2, weight_reads=1),
    Activation: each(activation=1),
    GLU: each(activation=1, product=1),
    Multiply: lambda node, fed, sent, fired: Counter(product=np.count_nonzero(sent)),
    TopK: each(**{"top-k": 1}),
    Delay: for_events("state_reads", "state_writes"),
    Threshold: crossed,
    **dict.fromkeys((LI, LIF, CubaLIF, AdaptiveLIF, IntegerLI, IntegerLIF, IntegerCubaLIF), leaky),
    **dict.fromkeys((AssociativeMemory, DeltaMemory, IntegerMemory), memory),
    **dict.fromkeys((DiagonalSSM, IntegerSSM), filtered),
    **dict.fromkeys((Quantize, Shift), for_events("scale")),
    Lookup: each(activation=1, weight_reads=1),
    IntegerGLU: each(activation=1, product=1, weight_reads=1),
    **dict.fromkeys((Input, Output, Flatten, Reshape, Concatenate), each()),
}

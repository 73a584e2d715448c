"""Which events made a membrane: what each added as it arrived, and how much of it is left.

A membrane of a leaky neuron is linear in what arrived, as long as its resets are given: u'_t is the sum over events of

    left_s w x_s,    left_s = g prod over r in (s, t] of what the neuron keeps from step r - 1 to step r

where a neuron keeps beta, and nothing over a reset to zero; behind a leaking current of decay alpha it is the same sum
once more over the steps at which the current flowed on. Resets that subtract take off theta times what is left of it.
The weight w of a sender is found by pulling 1 at the neuron back through the nodes that are affine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Graph, Node, Signal
from unscan.compiler.nodes import (
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Convolution,
    Cuba,
    Flatten,
    IntegerCubaLIF,
    IntegerLIF,
    LIFAnnealed,
    LIFSurrogate,
    Linear,
    MaxPool2d,
    Output,
    Pool2d,
    Quantize,
    Reshape,
    Scale,
    Shift,
    Spiking,
    Threshold,
)
from unscan.compiler.nodes.convolution import Window
from unscan.runtime.executors.steps import step

Place = tuple[int, ...]


@dataclass(frozen=True)
class Fed:
    """What feeds one neuron: sender -> the weight of each of its numbers, and what arrives at every step anyway."""

    weights: Mapping[str, Array]
    constant: float


def feeding(graph: Graph, name: str, port: str, neuron: Place) -> Fed:
    """Return what feeds a neuron through the affine nodes in front of it.

    Numbers that are rounded on the way (Shift, Quantize) count as if they were not.
    """
    one = np.zeros(graph.inputs(name)[port].shape)
    one[neuron] = 1.0
    pending: dict[str, Array] = {e.source: one for e in graph.into(name) if e.port == port}
    found: dict[str, Array] = {}
    constant = 0.0
    for sender in reversed(graph.order):
        if sender not in pending:
            continue
        weights = pending.pop(sender)
        inputs = graph.inputs(sender) if graph.nodes[sender].ports else {}
        back = pulled(graph.nodes[sender], weights, inputs)
        if back is None:
            found[sender] = weights
            continue
        constant += float((weights * at_rest(graph.nodes[sender], inputs)).sum())
        for edge in graph.into(sender):
            pending[edge.source] = pending.get(edge.source, 0.0) + back[edge.port]
    return Fed(dict(reversed(found.items())), constant)


def at_rest(node: Node, inputs: Mapping[str, Signal]) -> Array:
    """Return what an affine node sends where nothing arrives."""
    if isinstance(node, Shift | Quantize):
        return np.zeros(inputs["x"].shape)
    nothing = {port: np.zeros((1, *each.shape)) for port, each in inputs.items()}
    return np.asarray(step(node, {}, **nothing).value[0])


@singledispatch
def pulled(node: Node, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array] | None:
    """Return port -> the weight of each number that arrives, given that of each that is sent; None if not affine."""
    return None


@pulled.register
def _(node: Linear, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    return {"x": weights @ node.weight.astype(np.float64)}


@pulled.register
def _(node: Scale, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    return {"x": weights * node.scale}


@pulled.register
def _(node: BatchNorm, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    return {"x": weights * node.affine()[0]}


@pulled.register
def _(node: Shift, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    return {"x": weights * 2.0 ** -node.shift.astype(np.float64)}


@pulled.register
def _(node: Quantize, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    return {"x": weights * 2.0**node.fraction}


@pulled.register
def _(node: Flatten | Reshape | Output, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    return {"x": weights.reshape(inputs["x"].shape)}


@pulled.register
def _(node: Concatenate, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    widths = [inputs[port].shape[node.axis] for port in node.ports]
    parts = np.split(weights, np.cumsum(widths)[:-1], axis=node.axis)
    return dict(zip(node.ports, parts, strict=True))


@pulled.register
def _(node: Convolution, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    kernel = node.weight.astype(np.float64)
    part = len(kernel) // node.groups
    width = kernel.shape[1]
    assert isinstance(node.dilation, tuple)
    return {
        "x": _scattered(
            node,
            weights,
            inputs["x"],
            lambda out: (slice(out // part * width, out // part * width + width), kernel[out]),
            node.dilation,
        )
    }


@pulled.register
def _(node: Pool2d, weights: Array, inputs: Mapping[str, Signal]) -> dict[str, Array]:
    assert isinstance(node.kernel, tuple)
    share = 1.0 / np.prod(node.kernel) if isinstance(node, AvgPool2d) else 1.0
    window = np.full((1, *node.kernel), share)
    return {
        "x": _scattered(
            node, weights, inputs["x"], lambda out: (slice(out, out + 1), window), (1,) * node.axes
        )
    }


@pulled.register
def _(node: MaxPool2d, weights: Array, inputs: Mapping[str, Signal]) -> None:
    return None


def _scattered(
    node: Window,
    weights: Array,
    signal: Signal,
    kernel: Callable[[int], tuple[slice, Array]],
    dilation: tuple[int, ...],
) -> Array:
    """Return the weights of what windows see: `kernel` gives the channels that an output channel reads, and how."""
    assert isinstance(node.padding, tuple)
    assert isinstance(node.stride, tuple)
    axes = node.axes
    before, behind = node.padding[:axes], node.padding[axes:]
    padded = np.zeros(
        (signal.shape[0], *(n + a + b for n, a, b in zip(signal.shape[1:], before, behind, strict=True)))
    )
    for out, *place in zip(*np.nonzero(weights), strict=True):
        channels, window = kernel(int(out))
        spots = tuple(
            slice(int(p) * s, int(p) * s + d * (k - 1) + 1, d)
            for p, s, d, k in zip(place, node.stride, dilation, window.shape[1:], strict=True)
        )
        padded[(channels, *spots)] += weights[(out, *place)] * window
    inner = tuple(slice(a, a + n) for a, n in zip(before, signal.shape[1:], strict=True))
    return np.asarray(padded[(slice(None), *inner)])


class Own(NamedTuple):
    """One neuron: its place in the layer, the layer's shape, and its own spikes up to the step, (t + 1,)."""

    neuron: Place
    shape: tuple[int, ...]
    fired: Array

    def of(self, parameter: Array) -> float:
        """Return a parameter's number for the neuron."""
        return float(np.broadcast_to(parameter, self.shape)[self.neuron])


class Left(NamedTuple):
    """What is left at a step in the membrane.

    Attributes:
        arrived: (t + 1,) of 1 that arrived at each step.
        added: of what the neuron adds by itself at each step.
        resets: of what its resets took off.
    """

    arrived: Array
    added: float = 0.0
    resets: float = 0.0


@singledispatch
def left(node: Node, own: Own) -> Left:
    """Return what is left in a neuron's membrane of what arrived, and of its resets; see the head of the file."""
    raise Unsupported(f"There is no account of what made the membrane of a {type(node).__name__}.")


@left.register
def _(node: Threshold, own: Own) -> Left:
    return Left(last_alone(own))


@left.register
def _(node: LIFSurrogate, own: Own) -> Left:
    return Left(last_alone(own))


@left.register
def _(node: LIFAnnealed, own: Own) -> Left:
    kept = decays(own.of(node.beta), own, "none", "now")
    return Left(kept * gain(node, own))


@left.register
def _(node: Spiking, own: Own) -> Left:
    beta = own.of(node.beta)
    kept = decays(beta, own, node.reset, node.phase)
    return Left(kept * gain(node, own), resets=_resets(node, own, beta))


@left.register
def _(node: Cuba, own: Own) -> Left:
    reached = left.dispatch(Spiking)(node, own)
    return reached._replace(arrived=_through(own.of(node.alpha), reached.arrived))


@left.register
def _(node: IntegerLIF, own: Own) -> Left:
    beta = own.of(node.beta) / 2.0**node.decay_bits
    kept = decays(beta, own, node.reset, node.phase)
    added = 0.0 if node.bias is None else own.of(node.bias) * float(kept.sum())
    return Left(kept * 2.0**node.shift, added, _resets(node, own, beta))


@left.register
def _(node: IntegerCubaLIF, own: Own) -> Left:
    reached = left.dispatch(IntegerLIF)(node, own)
    return reached._replace(arrived=_through(own.of(node.alpha) / 2.0**node.decay_bits, reached.arrived))


def gain(node: Spiking, own: Own) -> float:
    """Return the input gain of a neuron."""
    return 1.0 if node.gain == "1" else 1 - own.of(node.beta)


def last_alone(own: Own) -> Array:
    """Return 1 for the last step, 0 for those before."""
    return np.asarray(np.eye(len(own.fired))[-1])


def decays(beta: float, own: Own, reset: str, phase: str) -> Array:
    """Return (t + 1,) what is left at the last step of 1 that was added to the membrane at each step.

    A reset to zero takes what was there when the neuron fired, and at phase next what the following step adds, too.
    """
    steps = len(own.fired)
    survives = np.ones(steps)
    if reset == "zero":
        survives = 1.0 - own.fired
    before = np.concatenate([np.ones(1), survives[:-1]])
    kept = np.ones(steps)
    if phase == "next":
        kept[-1] = before[-1]
        keeps = beta * before[:-1]
    else:
        keeps = beta * survives[:-1]
    kept[:-1] = kept[-1] * np.cumprod(keeps[::-1])[::-1]
    return kept


def _through(alpha: float, reached: Array) -> Array:
    """Return what is left of what fed a current, given what is left of the current of each step."""
    kept = reached.copy()
    for s in range(len(kept) - 2, -1, -1):
        kept[s] += alpha * kept[s + 1]
    return kept


def _resets(node: Any, own: Own, beta: float) -> float:
    """Return what is left of resets that subtract, taken off at once or a step later."""
    if node.reset != "subtract":
        return 0.0
    ago = np.arange(len(own.fired) - 1, 0, -1) - (node.phase == "next")
    return -own.of(node.threshold) * float((beta**ago) @ own.fired[:-1])


def reaching(
    graph: Graph, name: str, neuron: Place, most: int, stops: frozenset[str]
) -> list[tuple[str, Array, int]]:
    """Return the layers whose spikes can have reached a neuron: name, which of its numbers, and how late they arrive.

    Affine nodes say which numbers they read; of any other node all that arrives counts.

    Args:
        graph: what ran.
        name: the layer of the neuron.
        neuron: its place.
        most: the largest delay that matters, in steps.
        stops: the layers to end at.
    """
    found: list[tuple[str, Array, int]] = []
    ahead = [
        (edge.source, reads(graph.nodes[name], edge.port, neuron, graph.inputs(name)), 0)
        for edge in graph.into(name)
        if edge.port != "q"
    ]
    seen: set[tuple[str, int, bytes]] = set()
    while ahead:
        sender, mask, lag = ahead.pop()
        key = (sender, lag, mask.tobytes())
        if key in seen or lag > most or not mask.any():
            continue
        seen.add(key)
        node = graph.nodes[sender]
        if sender in stops:
            found.append((sender, mask, lag))
        elif node.ports:
            inputs = graph.inputs(sender)
            back = pulled(node.map_arrays(lambda a: np.abs(a.astype(np.float64))), mask, inputs)
            lag += int(getattr(node, "steps", np.zeros(1)).min()) if node.delays else 0
            for edge in graph.into(sender):
                whole = np.ones(inputs[edge.port].shape)
                mask_in = mask if node.delays else whole if back is None else np.sign(back[edge.port])
                ahead.append((edge.source, mask_in, lag))
    return found


def reads(node: Node, port: str, neuron: Place, inputs: Mapping[str, Signal]) -> Array:
    """Return which numbers of a port a neuron reads: 1 or 0."""
    shape = inputs[port].shape
    mask = np.zeros(shape)
    if port == "x":
        mask[neuron] = 1.0
    elif port == "v":
        mask[neuron[0]] = 1.0
    elif "beta" not in node.ports and port in ("k", "alpha"):
        mask[neuron[1]] = 1.0
    else:  # the delta rule reads a whole row along all keys
        mask[...] = 1.0
    return mask


def largest(events: Mapping[str, Array], most: int) -> list[tuple[str, int, Place]]:
    """Return sender, step and neuron of the largest of some events, sender -> (t + 1, ...), by size."""
    ranked: list[tuple[float, str, int, Place]] = []
    for sender, sizes in events.items():
        flat = np.abs(sizes).ravel()
        top = np.argsort(-flat, kind="stable")[:most]
        for place in top[flat[top] > 0]:
            s, *neuron = np.unravel_index(place, sizes.shape)
            ranked.append((-float(flat[place]), sender, int(s), tuple(map(int, neuron))))
    return [(sender, s, neuron) for _, sender, s, neuron in sorted(ranked)[:most]]

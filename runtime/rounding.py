"""How far apart rounding can have brought two membranes: a bound for each spiking node.

Two executions round every product and sum, each by up to half a unit in the last place, so that together they may
differ by one unit e (2^-23 in float32, 2^-52 in float64) of the size of what was rounded. What was rounded at step s
is still there at step t, as much as the neuron keeps of it.

The drive I = sum_j w_j x_j of n terms is off by about sqrt(n) e G with G = sum_j |w_j x_j|, and through several linear
nodes by the sum of their sqrt(n), G being what is sent through the absolute values of them all. So a neuron with the
membrane u is off by no more than

    leaky, threshold     e sum_s beta^(t-s) (2 |u_s| + sqrt(n) G_s), where beta = 0 for a threshold
    behind a current     e sum_s beta^(t-s) (2 |u_s| + c_s),  c_s = sum_r alpha^(s-r) (2 i_r + sqrt(n) G_r), where
                         i_r = sum alpha^(r-q) G_q is the largest that the current can be
    adaptive             as leaky, and 2 e kappa sum_s rho^(t-s) a_s for its threshold theta + kappa a
    memory               e sum_s 4 |S_s| for S alpha + v k, with the decay at its largest, 1; for the delta rule and
                         sqrt(n) |row of S_s| more, for the sum S k of n terms

The input gain multiplies G. Where numbers were computed on the way into the graph and rounded to float32 (folded
weights, decays), a drive is off by another 2^-24 G, and what decays by another 2^-24 |u| at each step.

A drive that comes through what is not linear (a norm, a gate, a state-space model, the ports of a memory) has no simple
bound. Its G is then taken as |u|, and besides what is derived there is what was measured (`unscan.runtime.measured`):
the largest difference between the trained model run in float32 and run in float64, at this layer, up to this step, over
the samples that have not parted. It is what float32 does to this very model, whatever is deployed; `MARGIN` times it is
granted, for another order of sums, but no more than `LARGEST` of the membrane: a scan that is off by more in float32
is not rounding, and excuses nothing. At 64 bits it is granted only where numbers of the graph were rounded to float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from math import prod
from typing import Any, NamedTuple

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Graph, Kind, Node
from unscan.compiler.nodes import (
    SPIKING,
    Adaptive,
    BatchNorm,
    Convolution,
    Cuba,
    Delay,
    Delta,
    Flatten,
    Input,
    IntegerLIF,
    IntegerMemory,
    Linear,
    MaxPool2d,
    Memory,
    Pool2d,
    Reshape,
    Scale,
    Spiking,
    Threshold,
)
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.steps import step as stepped

TIE = 1e-6
MARGIN = 4.0
LARGEST = 1e-3
"""Of a membrane: more than this is not rounding, whatever was measured."""


@dataclass(frozen=True)
class Rounding:
    """What two executions are granted.

    Attributes:
        unit: one unit in the last place of their number format.
        weights: how far numbers of the two graphs may differ, relatively, as they were computed and rounded.
        least: the share of its threshold by which a membrane may differ in any case.
        measured: layer -> (T,) the largest difference up to each step that float32 makes in the trained model.
    """

    unit: float = 2.0**-23
    weights: float = 0.0
    least: float = TIE
    measured: Mapping[str, Array] = field(default_factory=dict)


def double(*, rounded: bool, measured: Mapping[str, Array]) -> Rounding:
    """Return what is granted at 64 bits, where numbers of the graph may have been rounded to float32."""
    return Rounding(2.0**-52, 2.0**-24, 0.0, measured) if rounded else Rounding(2.0**-52, least=0.0)


class Drive(NamedTuple):
    """What arrives at a neuron: the sum of the sizes of its terms at each step, and the sum of the sqrt(n)."""

    size: Array
    terms: float


@dataclass(frozen=True)
class Past:
    """Some neurons of a layer in one sample, from the first step to that at which they are judged.

    Attributes:
        membranes: (t + 1, ...) the larger of the two sides, of the whole layer, absolute.
        fired: (t + 1, ...) the spikes of one side, of the whole layer.
        at: the neurons: an index array for each axis of the layer.
        drive: what arrives, of the whole layer; None where its size cannot be said.
    """

    membranes: Array
    fired: Array
    at: tuple[Array, ...]
    drive: Drive | None
    fan_in: int

    def of(self, numbers: Array) -> Array:
        """Return a parameter's number for each of the neurons."""
        return np.broadcast_to(numbers.astype(np.float64), self.membranes.shape[1:])[self.at]

    @property
    def reached(self) -> Array:
        """(t + 1, neurons) their membranes."""
        return over(self.membranes, self.at)

    @property
    def added(self) -> Array:
        """(t + 1, neurons) the size of what was added to them."""
        return self.reached if self.drive is None else over(self.drive.size, self.at)

    @property
    def rounded(self) -> Array:
        """(t + 1, neurons) how far off the drive is, in units."""
        return self.added * (self.fan_in**0.5 if self.drive is None else self.drive.terms)


class Bound(NamedTuple):
    """How far off neurons are: in units of the format, and in units by which numbers of the graph differ."""

    arithmetic: Array
    weights: Array


def explained(
    graph: Graph,
    name: str,
    sides: tuple[Execution, Execution],
    place: tuple[int, int],
    at: tuple[Array, ...],
    rounding: Rounding,
    x: Array | None,
) -> tuple[Array, Array]:
    """Return the thresholds of some neurons, and how far apart rounding can have brought their membranes.

    Args:
        graph: what ran.
        name: the layer.
        sides: two executions, recorded; one may lack the membranes.
        place: step and sample.
        at: the neurons, an index array for each axis.
        rounding: what is granted.
        x: the input (T, B, ...), where it is known.

    Raises:
        Unsupported: a node that has no bound.
    """
    t, sample = place
    until = slice(t + 1)
    known = [np.abs(s.membranes[name][until, sample], dtype=np.float64) for s in sides if name in s.membranes]
    drive = None
    if not isinstance(graph.nodes[name], Memory | IntegerMemory):
        drive = arriving(graph, name, Sent(sides[0], x, until, sample))
    fan = max((terms(graph.nodes[edge.source]) or 0 for edge in graph.into(name)), default=0)
    past = Past(np.maximum.reduce(known), sides[0].spikes[name][until, sample], at, drive, fan)
    node = graph.nodes[name]
    found, levels = bound(node, past), threshold(node, past)
    granted = rounding.unit * found.arithmetic + rounding.weights * found.weights
    if drive is None and name in rounding.measured:
        most = LARGEST * np.maximum(levels, past.reached.max(axis=0))
        granted = np.maximum(granted, np.minimum(MARGIN * rounding.measured[name][t], most))
    return levels, np.maximum(granted, rounding.least * levels)


@singledispatch
def threshold(node: Node, past: Past) -> Array:
    """Return the thresholds that the membranes were compared with at the last step."""
    raise Unsupported(f"{type(node).__name__} has no threshold.")


@threshold.register
def _(node: Spiking | Threshold | Memory | IntegerLIF | IntegerMemory, past: Past) -> Array:
    return past.of(node.threshold)


@threshold.register
def _(node: Adaptive, past: Past) -> Array:
    raised: Array = past.of(node.kappa) * adaptation(node, past)[-1]
    return past.of(node.threshold) + raised


def adaptation(node: Adaptive, past: Past) -> Array:
    """Return (t + 1, neurons) the adaptation that each step met."""
    spikes = over(past.fired, past.at).astype(np.float64)
    before = np.concatenate([np.zeros_like(spikes[:1]), spikes[:-1]])
    return decayed(past.of(node.rho), before)


@singledispatch
def bound(node: Node, past: Past) -> Bound:
    """Return how far off neurons of a class may be at the last step; see the head of the file."""
    raise Unsupported(f"There is no bound on the rounding of a {type(node).__name__}.")


@bound.register
def _(node: Spiking, past: Past) -> Bound:
    beta = past.of(node.beta)
    gain = 1.0 if node.gain == "1" else 1 - beta
    return Bound(
        decayed(beta, 2 * past.reached + gain * past.rounded)[-1],
        decayed(beta, past.reached + gain * past.added)[-1],
    )


@bound.register
def _(node: Cuba, past: Past) -> Bound:
    alpha, beta = past.of(node.alpha), past.of(node.beta)
    gain = 1.0 if node.gain == "1" else 1 - beta
    current = decayed(alpha, past.added)
    off = decayed(alpha, 2 * current + past.rounded)
    moved = decayed(alpha, current + past.added)
    return Bound(
        decayed(beta, 2 * past.reached + gain * off)[-1], decayed(beta, past.reached + gain * moved)[-1]
    )


@bound.register
def _(node: Adaptive, past: Past) -> Bound:
    arithmetic, weights = bound.dispatch(Spiking)(node, past)
    tired = decayed(past.of(node.rho), 2 * adaptation(node, past))[-1]
    return Bound(arithmetic + past.of(node.kappa) * tired, weights)


@bound.register
def _(node: Threshold, past: Past) -> Bound:
    return Bound(2 * past.reached[-1] + past.rounded[-1], past.added[-1])


@bound.register
def _(node: Memory, past: Past) -> Bound:
    return Bound(4 * past.reached.sum(axis=0), 4 * past.reached.sum(axis=0))


@bound.register
def _(node: Delta, past: Past) -> Bound:
    arithmetic, weights = bound.dispatch(Memory)(node, past)
    columns = past.membranes.shape[-1]
    rows = np.linalg.norm(past.membranes, axis=-1).sum(axis=0)
    return Bound(arithmetic + columns**0.5 * rows[past.at[0]], weights)


@bound.register
def _(node: IntegerLIF | IntegerMemory, past: Past) -> Bound:
    nothing = np.zeros_like(past.reached[-1])
    return Bound(nothing, nothing)


def over(recorded: Array, at: tuple[Array, ...]) -> Array:
    """Return (t + 1, neurons) of (t + 1, ...)."""
    every: tuple[Any, ...] = (slice(None), *at)
    found: Array = recorded[every]
    return found


def decayed(decay: Array, terms: Array) -> Array:
    """Return e_t = decay e_{t-1} + terms_t for every step."""
    found = np.empty_like(terms)
    kept = np.zeros_like(terms[0])
    for t, term in enumerate(terms):
        kept = found[t] = decay * kept + term
    return found


class Sent(NamedTuple):
    """What an execution recorded, and its input, up to a step of one sample."""

    execution: Execution
    x: Array | None
    until: slice
    sample: int


def arriving(graph: Graph, name: str, sent: Sent) -> Drive | None:
    """Return the size of what arrives at the one port of a node; None where it cannot be said."""
    found = [leaving(graph, edge.source, sent) for edge in graph.into(name)]
    drives = [drive for drive in found if drive is not None]
    if len(drives) < len(found):
        return None
    return Drive(np.add.reduce([drive.size for drive in drives]), max(drive.terms for drive in drives))


def leaving(graph: Graph, name: str, sent: Sent) -> Drive | None:
    """Return the size of what a node sends, through linear nodes back to spikes or the input."""
    node, signal = graph.nodes[name], graph.signals[name]
    if isinstance(node, Input):
        if sent.x is None:
            return None
        exact = signal.kind is not Kind.REAL
        return Drive(np.abs(sent.x[sent.until, sent.sample].astype(np.float64)), 0.0 if exact else 1.0)
    if isinstance(node, SPIKING) and signal.kind is Kind.SPIKE:
        spikes = sent.execution.spikes.get(name)
        if spikes is None:
            return None
        recorded = spikes[sent.until, sent.sample]
        return Drive(recorded.reshape(len(recorded), *signal.shape).astype(np.float64), 0.0)
    if isinstance(node, Delay):
        return late(graph, name, node, sent)
    rounded = terms(node)
    inner = None if rounded is None else arriving(graph, name, sent)
    if rounded is None or inner is None:
        return None
    return Drive(sizes(node, inner.size), inner.terms + rounded**0.5)


def late(graph: Graph, name: str, node: Delay, sent: Sent) -> Drive | None:
    """Return the size of spikes that come some steps later, as many for all."""
    steps, spiking = (
        np.unique(node.steps),
        [isinstance(graph.nodes[e.source], SPIKING) for e in graph.into(name)],
    )
    inner = arriving(graph, name, sent) if len(steps) == 1 and all(spiking) else None
    if inner is None:
        return None
    by = min(int(steps[0]), len(inner.size))
    return Drive(
        np.concatenate([np.zeros_like(inner.size[:by]), inner.size[: len(inner.size) - by]]), inner.terms
    )


@singledispatch
def terms(node: Node) -> int | None:
    """Return how many terms a linear node adds up for each number; None for a node that is not linear."""
    return None


@terms.register
def _(node: Linear) -> int:
    return int(node.weight.shape[1])


@terms.register
def _(node: Convolution) -> int:
    return int(node.weight[0].size)


@terms.register
def _(node: Pool2d) -> int:
    assert isinstance(node.kernel, tuple)
    return prod(node.kernel)


@terms.register
def _(node: MaxPool2d) -> None:
    return None


@terms.register
def _(node: Scale) -> int:
    return 1


@terms.register
def _(node: BatchNorm) -> int:
    return 2


@terms.register
def _(node: Flatten | Reshape) -> int:
    return 0


def sizes(node: Node, x: Array) -> Array:
    """Return what a linear node sends if all its numbers are taken absolute."""
    if isinstance(node, BatchNorm):
        gain, offset = node.affine()
        return np.abs(gain) * x + np.abs(offset)
    return stepped(node.map_arrays(np.abs), {}, x=x).value

"""Neurons written as leaky integrators, thresholds and delays.

For readers of other people's neurons: where a reset is not that of a LIF, or where the membrane is used as well as
the spikes, so that it is not computed twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from unscan.compiler.frontends.builder import Builder, Value
from unscan.compiler.ir import Array, Kind, Signal
from unscan.compiler.nodes import LI, Delay, Multiply, Scale, Threshold
from unscan.compiler.nodes.neurons import Fires, Phase, Reset


class Firing(NamedTuple):
    """When a neuron that takes one step fires, and what it does then."""

    threshold: Array
    fires: Fires
    reset: Reset
    delayed: bool
    """Whether the membrane is reset in the step after its spike."""
    zero: Phase
    """Of a delayed reset to zero: now where it acts before the decay, next where it acts on the sum of the step."""

    @property
    def node(self) -> Threshold:
        """The threshold alone."""
        return Threshold(threshold=self.threshold, fires=self.fires)

    @property
    def phase(self) -> Phase:
        """The phase of the reset, for `LIF`."""
        if self.reset == "none" or not self.delayed:
            return "now"
        return "next" if self.reset == "subtract" else self.zero


def settings(firing: Firing) -> dict[str, Any]:
    """Return the fields of a `LIF` or `CubaLIF` that say when it fires."""
    return {
        "threshold": firing.threshold,
        "reset": firing.reset,
        "phase": firing.phase,
        "fires": firing.fires,
        "trained_reset": firing.reset,
    }


def composed(to: Builder, name: str, x: Value, beta: Array, firing: Firing) -> tuple[Value, Value]:
    """Write a leaky neuron as an integrator, a threshold, and the reset that comes back a step later.

    Returns its spikes, and its membrane: before its reset where that is delayed, else after it.
    With u = beta u + x - c, the reset is c: subtract theta s_{t-1}; zero beta (u s)_{t-1}.
    Subtract at once, u = beta u + x - beta theta s_{t-1} and m = u - theta s, fires where u - theta r > theta, with
    r = H(m - theta) of the step before.
    """
    shape = to.signal(x).shape
    u = to.add(f"{name}.membrane", LI(beta=beta), x)
    if firing.reset == "none":
        return to.add(name, firing.node, u), u
    if firing.reset == "zero" and firing.phase == "next":
        back = to.add(f"{name}.before", one_later(to, shape))
        left = cleared(to, f"{name}.left", u, back, beta, shape)
        spikes = to.add(name, firing.node, left)
        to.feed(back[0], spikes)
        return spikes, left
    if firing.reset == "zero":
        spikes = to.add(name, firing.node, u)
        left = cleared(to, f"{name}.left", u, spikes, beta, shape)
        return spikes, u if firing.delayed else left
    lower = number(to, -firing.threshold)
    if firing.delayed:
        spikes = to.add(name, firing.node, u)
        before = to.add(f"{name}.before", one_later(to, shape), spikes)
        to.feed(u[0], to.add(f"{name}.reset", Scale(lower), before))
        return spikes, u
    still = to.add(f"{name}.still", one_later(to, shape))
    spikes = to.add(name, firing.node, u + to.add(f"{name}.raised", Scale(lower), still))
    left = u + to.add(f"{name}.left", Scale(lower), spikes)
    to.feed(still[0], to.add(f"{name}.above", firing.node, left))
    before = to.add(f"{name}.before", one_later(to, shape), spikes)
    to.feed(u[0], to.add(f"{name}.reset", Scale(number(to, beta * lower)), before))
    return spikes, left


def cleared(to: Builder, name: str, u: Value, spikes: Value, beta: Array, shape: tuple[int, ...]) -> Value:
    """Return u (1 - s) of an integrator u, and let the integrator decay from there in its next step."""
    gone = to.add(f"{name}.gone", Multiply(), u, spikes)
    before = to.add(f"{name}.past", one_later(to, shape, Kind.GRADED), gone)
    to.feed(u[0], to.add(f"{name}.reset", Scale(number(to, -beta)), before))
    return u + to.add(name, Scale(to.number(-1)), gone)


def one_later(to: Builder, shape: tuple[int, ...], kind: Kind = Kind.SPIKE) -> Delay:
    """Return a delay by one step."""
    return delay(to, Signal(kind, shape), 1)


def delay(to: Builder, signal: Signal, steps: int) -> Delay:
    """Return a delay of a signal."""
    return Delay(steps=to.number(steps), shape=signal.shape, kind=signal.kind)


def number(to: Builder, value: Array) -> Array:
    """Return a parameter in the format of the graph, without leading axes of one (those that stand for a batch)."""
    value = np.asarray(value)
    while value.ndim and len(value) == 1:
        value = value[0]
    return cast(Array, to.number(value))

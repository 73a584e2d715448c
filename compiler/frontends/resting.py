"""Neurons whose membrane rests, is reset to, or starts from another value than 0, written as nodes that know 0 alone.

    v' = beta v + (1 - beta) rest + g x        s = H(v' - threshold)        v = low where s, or v' - threshold s

With u = v - origin, the origin being `low` (subtract: 0), this is a LIF with the threshold less the origin, fed by
x plus a constant, (rest - origin), and in the first step by what is left of (start - origin).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from unscan.compiler.frontends.builder import Builder, Value
from unscan.compiler.frontends.composition import number, one_later
from unscan.compiler.frontends.rules import refused, said
from unscan.compiler.ir import Array, Kind
from unscan.compiler.nodes import LI, LIF, BatchNorm, CubaLIF, Multiply, Scale, Threshold
from unscan.compiler.nodes.neurons import Fires, Gain, Reset

Number = Array | float


@dataclass(frozen=True)
class Membrane:
    """A leaky membrane in its own units, in float64.

    Attributes:
        beta: its decay, in [0, 1].
        threshold: where it fires.
        low: what a spike sets it to; None: a spike takes the threshold from it.
        rest: what it decays to.
        start: where it stands before the first step.
        fires: whether a tie fires.
        gain: what its input is multiplied by.
    """

    beta: Number
    threshold: Number
    low: Number | None
    rest: Number
    start: Number
    fires: Fires
    gain: Gain = "1"

    @property
    def origin(self) -> Number:
        """What the nodes call 0."""
        return 0.0 if self.low is None else self.low

    @property
    def reset(self) -> Reset:
        """Its reset."""
        return "subtract" if self.low is None else "zero"

    @property
    def settled(self) -> bool:
        """Whether it rests and starts at its origin."""
        return not np.any(self.constant) and not np.any(self.first)

    @property
    def constant(self) -> Array:
        """What is added to every input."""
        away = np.subtract(self.rest, self.origin)
        return np.asarray(away if self.gain == "1-beta" else (1 - np.asarray(self.beta)) * away)

    @property
    def first(self) -> Array:
        """What is added to the first input."""
        left = np.asarray(self.beta) * np.subtract(self.start, self.origin)
        return np.asarray(
            left / (1 - np.asarray(self.beta)) if self.gain == "1-beta" and np.any(left) else left
        )

    def settings(self, module: nn.Module, to: Builder, name: str) -> dict[str, Any]:
        """Return the fields of a `LIF`. Raises Unsupported where it would fire at rest or where it does not decay."""
        beta = decaying(module, to, "membrane", self.beta)
        threshold = np.subtract(self.threshold, self.origin)
        if not np.all(threshold > 0):
            raise refused(
                module,
                f"its threshold, {said(np.asarray(self.threshold))}, is not above {said(np.asarray(self.origin))}, "
                "so that it fires on without an input",
            )
        if np.any(self.origin):
            to.notes.append(
                f"{name}: its membrane and threshold are read less {said(np.asarray(self.origin))}, where a spike "
                "leaves it"
            )
        return {
            "beta": beta,
            "gain": self.gain,
            "threshold": number(to, threshold),
            "reset": self.reset,
            "fires": self.fires,
            "trained_reset": self.reset,
        }

    def driven(self, to: Builder, name: str, x: Value) -> Value:
        """Return what feeds the nodes: the input, the constant, and what stands in the first step alone."""
        given = x
        if np.any(self.constant):
            x = raised(to, f"{name}.rest", x, self.constant)
        if np.any(self.first):
            start = to.add(f"{name}.start", affine(to, 0.0, self.first), given)
            before = to.add(f"{name}.started", one_later(to, to.signal(start).shape, Kind.REAL), start)
            x = x + start + to.add(f"{name}.after", Scale(to.number(-1)), before)
        return x


def spiking(
    module: nn.Module, to: Builder, name: str, x: Value, membrane: Membrane, alpha: Number | None = None
) -> Value:
    """Write a membrane that fires; alpha is the decay of the current before it, i = alpha i + x, None without one."""
    settings = membrane.settings(module, to, name)
    if alpha is None:
        return to.add(name, LIF(**settings), membrane.driven(to, name, x))
    decay = decaying(module, to, "current", alpha)
    if membrane.settled:
        return to.add(name, CubaLIF(alpha=decay, **settings), x)
    current = to.add(f"{name}.current", LI(beta=decay), x)
    return to.add(name, LIF(**settings), membrane.driven(to, name, current))


def stepped(to: Builder, name: str, x: Value, beta: Array) -> tuple[Value, Value]:
    """Write u = beta w + x of a w that is still to be said: its `past` is fed by w. Returns past and u."""
    past = to.add(f"{name}.past", one_later(to, to.signal(x).shape, Kind.REAL))
    return past, x + to.add(f"{name}.decayed", Scale(beta), past)


def lowered(to: Builder, name: str, u: Value, spikes: Value) -> Value:
    """Return u where there is no spike, else 0."""
    gone = to.add(f"{name}.gone", Multiply(), u, spikes)
    return u + to.add(f"{name}.lost", Scale(to.number(-1)), gone)


def after(to: Builder, name: str, u: Value, spikes: Value, settings: dict[str, Any]) -> Value:
    """Return what a reset by a LIF's settings leaves of u."""
    if settings["reset"] == "zero":
        return lowered(to, name, u, spikes)
    return u + to.add(f"{name}.lost", Scale(-settings["threshold"]), spikes)


def fired(to: Builder, name: str, u: Value, settings: dict[str, Any]) -> Value:
    """Write the threshold alone of a LIF's settings."""
    return to.add(name, Threshold(threshold=settings["threshold"], fires=settings["fires"]), u)


def affine(to: Builder, gain: Number, offset: Number) -> BatchNorm:
    """Return y = gain x + offset."""
    bias = number(to, np.asarray(offset))
    ones = np.ones_like(bias)
    return BatchNorm(ones * to.number(gain), bias, np.zeros_like(bias), ones, 0.0)


def raised(to: Builder, name: str, x: Value, offset: Number) -> Value:
    """Return x + offset."""
    return to.add(name, affine(to, 1.0, offset), x)


def decaying(module: nn.Module, to: Builder, what: str, factor: Number) -> Array:
    """Return a decay in the format of the graph. Raises Unsupported outside of [0, 1]; `what` decays."""
    found = np.asarray(factor)
    if np.any((found < 0) | (found > 1)):
        raise refused(
            module, f"its {what} is multiplied by {said(found)} at each step, and a decay lies in [0, 1]"
        )
    return number(to, found)

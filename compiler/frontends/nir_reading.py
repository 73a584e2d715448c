"""A NIR file of others on its way to a graph: the nodes so far, and the signals between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.frontends.builder import Builder, Value
from unscan.compiler.frontends.nir_time import CLOSE, Convention, ratio, span
from unscan.compiler.ir import Array, Kind, Node, Signal
from unscan.compiler.nodes import Scale
from unscan.compiler.nodes.neurons import Gain, Phase, Reset
from unscan.compiler.nodes.stateless import as_sparse


@dataclass
class Reading:
    """What the rules of the primitives read with, and what they add to.

    path: the file, for messages. dt: seconds of a step; None only where nothing needs it. reset and phase: what the
    user asked for, None where the convention holds. kind: what the input carries. fed_back: primitives that an edge
    back leads to. carried: Delay of a loop -> what it carries, which is certain once all is read.
    """

    path: Path
    dt: float | None
    convention: Convention
    reset: Reset | None
    phase: Phase | None
    kind: Kind
    fed_back: frozenset[str]
    carried: Mapping[str, Signal]
    builder: Builder = field(default_factory=Builder)
    signals: dict[str, Signal] = field(default_factory=dict)
    """Node -> what leaves it."""

    def unsupported(self, primitive: Any, name: str, reason: str) -> Unsupported:
        """Return the error for one primitive."""
        return Unsupported(f"{type(primitive).__name__} {name!r} of {self.path}: {reason}.")

    def note(self, primitive: Any, name: str, text: str) -> None:
        """Take down how a primitive was read."""
        self.builder.notes.append(f"read-nir {type(primitive).__name__} {name}: {text}")

    def arriving(self, x: Value) -> Signal:
        """Return what several outputs add up to, as `Graph.inputs` does."""
        shapes = {self.signals[source].shape for source in x}
        if len(shapes) > 1:
            ends = ", ".join(f"{source} ({self.signals[source]})" for source in x)
            raise InvalidGraph(f"Signals of different shapes are added in {self.path}: {ends}.")
        kinds = {
            as_sparse(self.signals[s]) if x.count(s) > 1 else self.signals[s].kind for s in dict.fromkeys(x)
        }
        kind = kinds.pop() if len(set(x)) == 1 else Kind.REAL if Kind.REAL in kinds else Kind.GRADED
        return Signal(kind, shapes.pop())

    def add(self, name: str, node: Node, x: Value) -> Value:
        """Add a node and return what leaves it. Raises InvalidGraph where it does not fit what feeds it."""
        inputs = {"x": self.arriving(x)} if x else {}
        try:
            signal = node.signal(inputs)
        except ValueError as fault:
            raise InvalidGraph(
                f"{type(node).__name__} {name!r} of {self.path} does not fit what feeds it, {', '.join(x)}: {fault}."
            ) from None
        value = self.builder.add(name, node, x) if x else self.builder.add(name, node)
        self.signals[value[0]] = signal
        return value

    def scaled(self, name: str, factor: Array | None, dtype: Any, x: Value) -> Value:
        """Return a signal times a factor, if there is one."""
        return x if factor is None else self.add(f"{name}.gain", Scale(factor.astype(dtype)), x)

    def step(self) -> float:
        """Return dt."""
        assert self.dt is not None
        return self.dt

    def remaining(self, primitive: Any, name: str, constant: str) -> tuple[Array, Array]:
        """Return (decay, 1 - decay) of one step by the time constant of that name, in float64.

        Raises:
            InvalidInput: a time constant is not positive, or Euler's step is longer than it.
        """
        dt, tau = self.step(), np.asarray(getattr(primitive, constant), np.float64)
        where = f"{type(primitive).__name__} {name!r} of {self.path} has {constant} {span(tau)} s"
        if not np.all(tau > 0):
            raise InvalidInput(f"{where}, and a time constant is greater than 0. Export the model again.")
        if self.convention.exact:
            return np.exp(-dt / tau), -np.expm1(-dt / tau)
        if np.any(dt > tau * (1 + CLOSE)):
            raise InvalidInput(
                f"{where}, shorter than dt = {dt:g} s: its decay 1 - dt / tau would be negative. Pass a shorter dt."
            )
        return np.clip(1 - dt / tau, 0, 1), np.minimum(dt / tau, 1)

    def leaky(
        self, primitive: Any, name: str, constant: str, inflow: Array | None = None
    ) -> tuple[Array, Gain, Array | None]:
        """Return (beta, gain, factor) of a membrane whose input is r times what flows in; None is a factor of 1.

        Raises as `remaining`.
        """
        beta, lost = self.remaining(primitive, name, constant)
        r = np.asarray(primitive.r, np.float64)
        flow = np.ones(()) if inflow is None else inflow
        gain = lost * r * flow
        rule = "exp(-dt/tau)" if self.convention.exact else "1 - dt/tau"
        by = "(1 - decay) r" if self.convention.exact else "dt r/tau"
        self.note(
            primitive,
            name,
            f"decay {rule} = {span(beta)}, gain {by}{'' if inflow is None else ' w'} = {span(gain)}",
        )
        if np.all(r == 1) and np.any(beta != 0):
            return uniform(beta), "1-beta", unless_one(flow)
        return uniform(beta), "1", unless_one(gain)


def uniform(value: Any) -> Array:
    """Return an array as it is, or one number where all of its numbers are equal."""
    array = np.asarray(value)
    return np.asarray(array.flat[0]) if np.all(array == array.flat[0]) else array


def unless_one(factor: Array) -> Array | None:
    """Return a factor, or None where it is 1 to the precision of a float32 file."""
    return None if np.allclose(factor, 1, rtol=CLOSE, atol=0) else uniform(factor)


def number_format(values: Iterable[Any]) -> np.dtype[Any]:
    """Return float64 where one of the arrays is, else float32."""
    return np.dtype(np.float64 if any(np.asarray(v).dtype == np.float64 for v in values) else np.float32)


def whole_steps(delay: Any, dt: float) -> tuple[Array, bool]:
    """Return delays in steps, and whether all are whole to `CLOSE`."""
    exact = ratio(delay, dt)
    steps = np.round(exact)
    return steps, bool(np.all(np.abs(exact - steps) <= CLOSE * steps))

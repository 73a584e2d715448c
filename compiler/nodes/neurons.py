"""Neurons in their iterative form: state in, one step, state out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from unscan.compiler.ir import Array, Dialect, Kind, Node, Signal
from unscan.compiler.nodes.stateless import fits

Reset = Literal["none", "subtract", "zero"]
Phase = Literal["now", "next"]
Fires = Literal[">=", ">"]
Gain = Literal["1", "1-beta"]
RESETS: tuple[str, ...] = get_args(Reset)
PHASES: tuple[str, ...] = get_args(Phase)
FIRES: tuple[str, ...] = get_args(Fires)
GAINS: tuple[str, ...] = get_args(Gain)


@dataclass(frozen=True, eq=False)
class Leaky(Node):
    """What every leaky integrator has: decay beta in [0, 1], input gain g (1, or 1 - beta), and a membrane u."""

    beta: Array
    gain: Gain = "1"

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return the membrane: real numbers of the input's shape."""
        fits(self.beta, "beta", inputs["x"])
        return Signal(Kind.REAL, inputs["x"].shape)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the membrane that is kept."""
        return {"u": inputs["x"].shape}

    def membrane(self, inputs: Mapping[str, Signal]) -> tuple[int, ...]:
        """Return the input's shape."""
        return inputs["x"].shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Spiking(Leaky):
    """What every spiking leaky integrator has: threshold theta > 0, reset, its phase, and whether a tie fires."""

    threshold: Array
    reset: Reset = "zero"
    phase: Phase = "now"
    fires: Fires = ">="

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes of the input's shape."""
        for name in ("beta", "threshold"):
            fits(getattr(self, name), name, inputs["x"])
        return Signal(Kind.SPIKE, inputs["x"].shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class LIF(Spiking):
    """Leaky integrate-and-fire, one step.

    u' = beta u + g x,  s = H(u' - theta),  then by `reset`, at `phase` now:
    none u = u';  subtract u = u' - theta s;  zero u = u' (1 - s).
    At phase next the reset acts one step later, by the spike s_ that the stored u stands for:
    subtract u' = beta u + g x - theta s_;  zero u' = (beta u + g x)(1 - s_);  and u = u'.
    H counts a tie as a spike where `fires` is ">=", and not where it is ">".

    State: u, of the input's shape. `trained_reset` is the reset that the model was trained with.
    """

    dialect: ClassVar[Dialect] = Dialect.ITERATIVE
    trained_reset: Reset


@dataclass(frozen=True, eq=False, kw_only=True)
class LI(Leaky):
    """Leaky integrator without spikes, one step: u = beta u + g x, y = u. State: u."""

    dialect: ClassVar[Dialect] = Dialect.ITERATIVE


@dataclass(frozen=True, eq=False, kw_only=True)
class Cuba(Spiking):
    """What a neuron behind a leaking synaptic current has: the current's decay alpha in [0, 1]."""

    alpha: Array

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes of the input's shape."""
        fits(self.alpha, "alpha", inputs["x"])
        return super().signal(inputs)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name current and membrane."""
        return {"i": inputs["x"].shape, "u": inputs["x"].shape}


@dataclass(frozen=True, eq=False, kw_only=True)
class CubaLIF(Cuba):
    """Leaky integrate-and-fire behind a leaking synaptic current, one step: i = alpha i + x, then `LIF` fed by i.

    State: i and u, of the input's shape.
    """

    dialect: ClassVar[Dialect] = Dialect.ITERATIVE
    trained_reset: Reset


@dataclass(frozen=True, eq=False, kw_only=True)
class Adaptive(Spiking):
    """What a neuron that tires has: each spike raises its threshold by kappa > 0, which decays by rho in [0, 1]."""

    kappa: Array
    rho: Array

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes of the input's shape."""
        for name in ("kappa", "rho"):
            fits(getattr(self, name), name, inputs["x"])
        return super().signal(inputs)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name membrane and adaptation."""
        return {"u": inputs["x"].shape, "a": inputs["x"].shape}


@dataclass(frozen=True, eq=False, kw_only=True)
class AdaptiveLIF(Adaptive):
    """Leaky integrate-and-fire with an adaptive threshold, one step; phase is now.

    u' = beta u + g x,  s = H(u' - (theta + kappa a)),  a = rho a + s,  then the reset of `LIF`, by theta.

    State: u and a, of the input's shape.
    """

    dialect: ClassVar[Dialect] = Dialect.ITERATIVE
    trained_reset: Reset


@dataclass(frozen=True, eq=False, kw_only=True)
class Threshold(Node):
    """s = H(x - theta), theta > 0: it fires, and remembers nothing. Its membrane is x."""

    threshold: Array
    fires: Fires = ">="

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes of the input's shape."""
        fits(self.threshold, "threshold", inputs["x"])
        return Signal(Kind.SPIKE, inputs["x"].shape)

    def membrane(self, inputs: Mapping[str, Signal]) -> tuple[int, ...]:
        """Return the input's shape."""
        return inputs["x"].shape

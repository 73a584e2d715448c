"""What a NIR file leaves open: how long a step is, and what the framework that wrote the file does in it.

NIR is continuous in time. Euler's step of tau dv/dt = (v_leak - v) + r i is

    v = (1 - dt / tau) v + (dt r / tau) i        around v_leak

so decay and gain follow from dt alone. Frameworks differ in the step, in the inequality, in the reset, and in what
they write where NIR has no word for it; `CONVENTIONS` holds, for each, what its own models do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal, get_args

import nir
import numpy as np

from unscan.compiler.ir import Array
from unscan.compiler.nodes.neurons import Fires, Phase, Reset

NirDialect = Literal["nir", "snntorch", "norse", "sinabs", "spikingjelly"]
DIALECTS: tuple[str, ...] = get_args(NirDialect)
CLOSE = 1e-6
"""How far, relatively, numbers may lie apart that a float32 file means to be equal."""


@dataclass(frozen=True)
class Convention:
    """What a framework does that its files do not say.

    dt: how many of the file's seconds a step has; None where the framework lets the user say.
    exact: decay exp(-dt / tau) and gain (1 - decay) r, not Euler's 1 - dt / tau and dt r / tau.
    per_step: what I, IF and a synaptic current take up is given for a step, not for a second.
    fires, reset, phase: of its neurons, unless the user says otherwise.
    zero_at_once: a LIF without feedback resets to zero at once where other neurons do so at the next step.
    """

    dt: float | None = None
    exact: bool = False
    per_step: bool = False
    fires: Fires = ">"
    reset: Reset = "zero"
    phase: Phase = "now"
    zero_at_once: bool = False


CONVENTIONS: Mapping[str, Convention] = {
    "nir": Convention(),
    # Leaky, Synaptic, RLeaky, RSynaptic as they are made without further settings; the file says zero in any case.
    "snntorch": Convention(dt=1e-4, reset="subtract", phase="next", zero_at_once=True),
    # to_nir divides its own dt, 1e-3 s, by 1 / tau and so writes tau times dt: a step is dt^2 of such seconds. A file
    # of to_nir(dt=1) holds tau in seconds: pass dt = 1e-3.
    "norse": Convention(dt=1e-6, per_step=True),
    # tau in steps; SingleSpike and norm_input, as NIR has neither several spikes in a step nor an input without r.
    "sinabs": Convention(dt=1.0, exact=True, per_step=True, fires=">=", reset="subtract"),
    "spikingjelly": Convention(dt=1e-4, fires=">="),
}


@singledispatch
def unit_steps(primitive: Any) -> dict[str, Array]:
    """Return gain -> the dt at which it is 1, for the gains of a primitive that depend on dt."""
    return {}


@unit_steps.register(nir.LI)
@unit_steps.register(nir.LIF)
def _(primitive: Any) -> dict[str, Array]:
    return {"dt r / tau": ratio(primitive.tau, primitive.r)}


@unit_steps.register(nir.I)
@unit_steps.register(nir.IF)
def _(primitive: Any) -> dict[str, Array]:
    return {"dt r": ratio(1.0, primitive.r)}


@unit_steps.register(nir.CubaLI)
@unit_steps.register(nir.CubaLIF)
def _(primitive: Any) -> dict[str, Array]:
    return {
        "dt w_in / tau_syn": ratio(primitive.tau_syn, primitive.w_in),
        "dt r / tau_mem": ratio(primitive.tau_mem, primitive.r),
    }


def timed(primitives: Mapping[str, Any]) -> dict[str, Any]:
    """Return the primitives that need dt."""
    return {name: p for name, p in primitives.items() if isinstance(p, nir.Delay) or unit_steps(p)}


def shown_dt(primitives: Mapping[str, Any]) -> float | None:
    """Return the dt, to 6 digits, at which every gain is 1, or None where there is no such dt.

    A gain that is 1 where dt is the time constant itself (r = 1) shows nothing: at that dt nothing is remembered.
    """
    neurons = [p for p in primitives.values() if unit_steps(p)]
    steps = [step.reshape(-1) for p in neurons for step in unit_steps(p).values()]
    if not steps:
        return None
    every = np.concatenate(steps)
    if not np.isfinite(every).all() or np.any(every <= 0):
        return None
    dt = float(f"{np.median(every):.6g}")
    if np.any(np.abs(every - dt) > CLOSE * dt):
        return None
    remembering = [p for p in neurons if not np.all(_forgets(p, dt))]
    return dt if remembering else None


def _forgets(primitive: Any, dt: float) -> Array:
    tau = getattr(primitive, "tau", getattr(primitive, "tau_mem", np.inf))
    return np.asarray(tau, np.float64) <= dt * (1 + CLOSE)


def table(primitives: Mapping[str, Any]) -> str:
    """Return, in words, what each primitive that needs dt says of it."""
    lines = []
    for name, primitive in timed(primitives).items():
        facts = [
            f"{field} {span(getattr(primitive, field))} s"
            for field in ("tau", "tau_syn", "tau_mem", "delay")
            if hasattr(primitive, field)
        ]
        for gain, step in unit_steps(primitive).items():
            at = f"which is 1 at dt {span(step)} s" if np.isfinite(step).all() else "which is never 1"
            facts.append(f"gain {gain} = dt x {span(ratio(1.0, step))}, {at}")
        lines.append(f"{type(primitive).__name__} {name!r}: {', '.join(facts)}")
    return "; ".join(lines)


def ratio(above: Any, below: Any) -> Array:
    """Return above / below in float64, infinite where below is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(above, np.float64) / np.asarray(below, np.float64))


def span(value: Any) -> str:
    """Return a number, or the range of an array's numbers."""
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"

"""NIR for neurons, delay lines and state-space models: of LIF and CubaLIF, and of Linears from states to themselves."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array
from unscan.compiler.nodes import (
    LI,
    LIF,
    AdaptiveLIF,
    CubaLIF,
    Delay,
    DiagonalSSM,
    Leaky,
    Spiking,
    StoredMemory,
    Threshold,
)
from unscan.targets.nir_encoding import DEPLOY, ROWS, Encoding, emit_node

BARELY = 1 + 2e-6
"""tau of a LIF that only compares, in steps: spikingjelly takes no tau of dt itself."""
LEAKLESS = 2.0**40
"""tau of a LIF with beta = 1, in steps."""
FORGETFUL = 2.0**-7
"""tau of what remembers nothing where decays are exponential, in steps: exp(-128) is 0 in float32."""
BLURRED = 1e-5
"""snnTorch takes a beta up to here for 0 when it scales the threshold."""


@emit_node.register
def _(node: LI, to: Encoding, name: str, x: str) -> str:
    return membrane(node, to, name, x)


@emit_node.register
def _(node: Threshold, to: Encoding, name: str, x: str) -> str:
    return fire(node, to, name, x)


@emit_node.register
def _(node: LIF, to: Encoding, name: str, x: str) -> str:
    return neuron(node, to, name, x)


@emit_node.register
def _(node: CubaLIF, to: Encoding, name: str, x: str) -> str:
    split = to.profile.spread("decay", node.alpha) or to.profile.spread("decay", node.beta)
    if node.reset != "zero" or node.phase != "now" or split:
        return neuron(node, to, name, leak(node.alpha, "current", to, name, x))
    shape, levels = to.shape(name), thresholds(node, to)
    if node.gain != "1":
        levels = levels / open_gain(node.beta)
    x, levels = uniform(levels, to, name, x)
    tau_syn, tau_mem = constant(node.alpha, to), constant(node.beta, to)
    return to.add(
        nir.CubaLIF(
            tau_syn=each(tau_syn, shape),
            tau_mem=each(tau_mem, shape),
            r=each(tau_mem / to.profile.dt, shape),
            v_leak=np.zeros(shape),
            v_reset=np.zeros(shape),
            v_threshold=each(levels, shape),
            w_in=each(tau_syn / to.profile.dt, shape),
        ),
        "cubalif",
        x,
    )


@emit_node.register
def _(node: AdaptiveLIF, to: Encoding, name: str, x: str) -> str:
    if node.reset == "zero":
        raise Unsupported(
            f"its reset to zero follows a threshold that moves, which no NIR primitive has; {DEPLOY}, or "
            "run restore-reset with none or subtract"
        )
    u = membrane(node, to, name, x)
    shape = to.shape(name)
    above = to.add(to.diagonal(np.ones(()), shape), "above", u)
    spikes = fire(node, to, name, above)
    subtract(node, to, name, spikes, u)
    tired = leak(node.rho, "adaptation", to, name, spikes)
    to.connect(to.add(to.diagonal(-node.kappa, shape), "raise", tired), above)
    return spikes


@emit_node.register
def _(node: StoredMemory, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"NIR has no product of two signals, so that nothing writes a matrix memory; {DEPLOY}")


@emit_node.register
def _(node: Delay, to: Encoding, name: str, x: str) -> str:
    lag = to.lag(node, name)
    if not lag.any():
        return x
    if len(node.shape) != 1:
        raise Unsupported(
            f"it delays a signal of shape {node.shape}, and a shift register is a Linear over one axis; put a Flatten "
            f"before it in the model, or {DEPLOY}"
        )
    neurons, kept = node.shape[0], int(lag.max()) + 1
    size(neurons * kept, f"it keeps {kept} steps of {neurons} numbers")
    blocks = np.eye(neurons * kept).reshape(kept, neurons, kept, neurons)
    enter, leave, shift = blocks[:, :, 0], blocks[lag, np.arange(neurons)], np.zeros_like(blocks)
    shift[1:] = blocks[:-1]
    total = neurons * kept
    held = state(to, x, enter.reshape(total, neurons), shift.reshape(total, total), "register")
    return matrix(to, leave.reshape(neurons, total), "delayed", held)


@emit_node.register
def _(node: DiagonalSSM, to: Encoding, name: str, x: str) -> str:
    channels, modes, _ = node.a.shape
    pairs = 2 * channels * modes
    total = pairs + channels
    size(total, f"its {modes} modes of {channels} channels are {pairs} numbers, and its input {channels}")
    real, imaginary = node.a.astype(np.float64).reshape(-1, 2).T
    turn, first = np.zeros((total, total)), 2 * np.arange(channels * modes)
    turn[first, first], turn[first, first + 1] = real, -imaginary
    turn[first + 1, first], turn[first + 1, first + 1] = imaginary, real
    enter, read = np.zeros((total, channels)), np.zeros((channels, total))
    channel, along = np.repeat(np.arange(channels), modes), np.arange(channels)
    enter[first, channel], enter[pairs + along, along] = 1, 1
    weights = 2 * node.c.astype(np.float64).reshape(-1, 2)
    read[channel, first], read[channel, first + 1] = weights[:, 0], -weights[:, 1]
    read[along, pairs + along] = node.d
    return matrix(to, read, "read", state(to, x, enter, turn, "modes"))


def size(rows: int, what: str) -> None:
    """Raise Unsupported where states would need a matrix of more than `ROWS` rows."""
    if rows > ROWS:
        raise Unsupported(
            f"{what}, a square matrix of {rows} rows in NIR, more than the {ROWS} that are written; {DEPLOY}"
        )


def state(to: Encoding, x: str, enter: Array, along: Array, role: str) -> str:
    """Write h <- along h + enter x and return the primitive that holds h."""
    entered = matrix(to, enter, "enter", x)
    held = matrix(to, np.eye(len(along)), role, entered)
    to.connect(matrix(to, along, "along", held), held)
    return held


def matrix(to: Encoding, weight: Array, role: str, x: str) -> str:
    """Write a Linear and return its name."""
    return to.add(to.linear(weight.astype(to.graph.dtype)), role, x)


def neuron(node: Spiking, to: Encoding, name: str, x: str) -> str:
    """Write a LIF that x feeds and return the primitive that gives its spikes."""
    if node.reset == "zero":
        if node.phase == "next":
            raise Unsupported(
                "its reset to zero acts one step late, and no primitive multiplies a voltage by a spike of the step "
                "before; run restore-reset with phase now"
            )
        return native(node, to, name, x)
    u = membrane(node, to, name, x)
    spikes = fire(node, to, name, u)
    subtract(node, to, name, spikes, u)
    return spikes


def thresholds(node: Spiking | Threshold, to: Encoding) -> Array:
    """Return the float32 that a neuron is compared against, in the framework's own inequality.

    u >= theta is u > the next number below theta, and u > theta is u >= the next above it.
    """
    theta = node.threshold.astype(np.float32)
    if node.fires == to.profile.fires:
        return theta.astype(np.float64)
    toward = np.float32(-np.inf if node.fires == ">=" else np.inf)
    return np.nextafter(theta, toward).astype(np.float64)


def fire(node: Spiking | Threshold, to: Encoding, name: str, u: str) -> str:
    """Write the comparison of u with a node's threshold, as the profile's framework makes one."""
    u, levels = uniform(thresholds(node, to), to, name, u)
    fired: str = to.profile.fire(to, name, levels, u)
    return fired


def uniform(levels: Array, to: Encoding, name: str, x: str) -> tuple[str, Array]:
    """Return a signal and its thresholds, scaled to one threshold where the profile has one for a layer."""
    if not to.profile.spread("threshold", levels):
        return x, levels
    to.change(
        name,
        "scaled",
        f"its thresholds, {levels.min():g} to {levels.max():g}, are 1, and what is compared with them is divided by "
        "them, so that it may be rounded by one float32",
    )
    return to.add(to.diagonal(1 / levels, to.shape(name)), "scale", x), np.ones(())


def subtract(node: Spiking, to: Encoding, name: str, spikes: str, u: str) -> None:
    """Write the reset by subtraction from the membrane u, where a node has it."""
    if node.reset == "subtract":
        kept = node.beta.astype(np.float64) if node.phase == "now" else np.ones(())
        drop = -kept * node.threshold.astype(np.float64)
        if np.any(drop):
            to.connect(to.add(to.diagonal(drop, to.shape(name)), "subtract", spikes), u)


def native(node: Spiking, to: Encoding, name: str, x: str) -> str:
    """Write a LIF with reset zero at once as one NIR LIF."""
    beta, shape = node.beta.astype(np.float64), to.shape(name)
    if to.profile.spread("decay", beta):
        raise Unsupported(
            f"its decay differs between neurons ({beta.min():g} to {beta.max():g}), and a NIR LIF takes one for a "
            "layer in some frameworks; restore-reset with none or subtract has a form that keeps it, and so have the "
            "profiles norse, snntorch and nir"
        )
    if not to.profile.unit_gain and np.any((beta > 0) & (beta <= BLURRED)):
        raise Unsupported(
            f"its decay {beta.min():g} lies between 0 and {BLURRED:g}, where snnTorch scales its threshold wrongly"
        )
    gain = np.ones(()) if node.gain == "1" else open_gain(beta)
    if not np.any(beta):
        return fire(node, to, name, x)
    tau = constant(beta, to)
    if to.profile.unit_gain:
        x = x if node.gain == "1" else to.add(to.diagonal(gain, shape), "gain", x)
        x, levels = uniform(thresholds(node, to), to, name, x)
        return to.add(lif(shape, tau, levels, tau / to.profile.dt), "lif", x)
    x, levels = uniform(thresholds(node, to), to, name, x)
    if node.gain == "1":
        levels = levels * (to.profile.dt / tau)
    return to.add(lif(shape, tau, levels), "lif", x)


def open_gain(beta: Array) -> Array:
    """Return the gain 1 - beta. Raises Unsupported where it is 0."""
    if np.any(beta == 1):
        raise Unsupported("its decay 1 with gain 1 - beta shuts its input out")
    return 1 - beta.astype(np.float64)


def constant(beta: Array, to: Encoding) -> Array:
    """Return the time constants of decays, in seconds."""
    with np.errstate(divide="ignore"):
        return np.asarray(to.profile.dt * np.minimum(1 / (1 - beta.astype(np.float64)), LEAKLESS))


def exponential(decay: Array) -> Array:
    """Return the time constants whose exp(-1 / tau) are those decays, in steps."""
    with np.errstate(divide="ignore"):
        return np.clip(1 / np.abs(np.log(decay.astype(np.float64))), FORGETFUL, LEAKLESS)


def membrane(node: Leaky, to: Encoding, name: str, x: str) -> str:
    """Write u = beta u + g x and return the primitive that holds u."""
    if node.gain == "1-beta":
        x = to.add(to.diagonal(1 - node.beta.astype(np.float64), to.shape(name)), "gain", x)
    return leak(node.beta, "membrane", to, name, x)


def leak(decay: Array, role: str, to: Encoding, name: str, x: str) -> str:
    """Write u = decay u + x and return the primitive that holds u."""
    shape = to.shape(name)
    u = to.add(to.diagonal(np.ones(()), shape), role, x)
    if np.any(decay):
        to.connect(to.add(to.diagonal(decay.astype(np.float64), shape), "decay", u), u)
    return u


def compare(to: Encoding, name: str, levels: Array, u: str) -> str:
    """Write the NIR LIF that fires where u passes its level, and remembers nothing."""
    shape, tau = to.shape(name), np.asarray(BARELY * to.profile.dt)
    resistance = BARELY if to.profile.unit_gain else 1.0
    return to.add(lif(shape, tau, levels, np.asarray(resistance)), "threshold", u)


def lif(shape: tuple[int, ...], tau: Array, theta: Array, r: Array | None = None) -> Any:
    """Return a NIR LIF with v_leak = v_reset = 0 and parameters of the full shape, in float64; r is 1 by default."""
    return nir.LIF(
        tau=each(tau, shape),
        r=each(np.ones(()) if r is None else r, shape),
        v_leak=np.zeros(shape),
        v_threshold=each(theta, shape),
        v_reset=np.zeros(shape),
    )


def each(values: Array, shape: tuple[int, ...]) -> Array:
    """Return values for each neuron of a shape, in float64."""
    return np.broadcast_to(values, shape).astype(np.float64)

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
from unscan.targets.nir_encoding import DEPLOY, DT, ROWS, Encoding, emit_node

FORGETFUL = DT * (1 + 2e-6)
"""tau of a LIF that only compares: spikingjelly takes no tau of dt itself."""
LEAKLESS = DT * 2.0**40
"""tau of a LIF with beta = 1."""
BLURRED = 1e-5
"""snnTorch takes a beta up to here for 0 when it scales the threshold."""


@emit_node.register
def _(node: LI, to: Encoding, name: str, x: str) -> str:
    return membrane(node, to, name, x)


@emit_node.register
def _(node: Threshold, to: Encoding, name: str, x: str) -> str:
    return to.add(compare(to.shape(name), level(node)), "threshold", x)


@emit_node.register
def _(node: LIF, to: Encoding, name: str, x: str) -> str:
    return neuron(node, to, name, x)


@emit_node.register
def _(node: CubaLIF, to: Encoding, name: str, x: str) -> str:
    numbers = np.unique(node.alpha), np.unique(node.beta)
    if node.reset != "zero" or node.phase != "now" or any(n.size > 1 for n in numbers):
        return neuron(node, to, name, leak(node.alpha, "current", to, name, x))
    alpha, beta = (float(n[0]) for n in numbers)
    theta = level(node)
    if node.gain != "1":
        theta /= open_gain(beta)
    shape, tau_syn, tau_mem = to.shape(name), constant(alpha), constant(beta)
    return to.add(
        nir.CubaLIF(
            tau_syn=np.full(shape, tau_syn),
            tau_mem=np.full(shape, tau_mem),
            r=np.full(shape, tau_mem / DT),
            v_leak=np.zeros(shape),
            v_reset=np.zeros(shape),
            v_threshold=np.full(shape, theta),
            w_in=np.full(shape, tau_syn / DT),
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
    spikes = to.add(compare(shape, level(node)), "threshold", above)
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
    return to.add(nir.Linear(weight=weight.astype(to.graph.dtype)), role, x)


def neuron(node: Spiking, to: Encoding, name: str, x: str) -> str:
    """Write a LIF that x feeds and return the primitive that gives its spikes."""
    theta = level(node)
    if node.reset == "zero":
        if node.phase == "next":
            raise Unsupported(
                "its reset to zero acts one step late, and no primitive multiplies a voltage by a spike of the step "
                "before; run restore-reset with phase now"
            )
        return native(node, to, name, x, theta)
    u = membrane(node, to, name, x)
    spikes = to.add(compare(to.shape(name), theta), "threshold", u)
    subtract(node, to, name, spikes, u)
    return spikes


def level(node: Spiking | Threshold) -> float:
    """Return the float32 that a neuron is compared against: u >= theta is u > the next number below theta."""
    if np.unique(node.threshold).size > 1:
        raise Unsupported(
            f"its threshold differs between neurons ({node.threshold.min():g} to {node.threshold.max():g}), and "
            "snnTorch takes one for a layer; run fold-threshold"
        )
    theta = np.float32(node.threshold.flat[0])
    return float(np.nextafter(theta, np.float32(-np.inf)) if node.fires == ">=" else theta)


def subtract(node: Spiking, to: Encoding, name: str, spikes: str, u: str) -> None:
    """Write the reset by subtraction from the membrane u, where a node has it."""
    if node.reset == "subtract":
        kept = node.beta.astype(np.float64) if node.phase == "now" else np.ones(())
        drop = -kept * node.threshold.astype(np.float64)
        if np.any(drop):
            to.connect(to.add(to.diagonal(drop, to.shape(name)), "subtract", spikes), u)


def native(node: Spiking, to: Encoding, name: str, x: str, theta: float) -> str:
    """Write a LIF with reset zero at once as one NIR LIF."""
    if np.unique(node.beta).size > 1:
        raise Unsupported(
            f"its decay differs between neurons ({node.beta.min():g} to {node.beta.max():g}), and a NIR LIF takes one "
            "for a layer in some frameworks; restore-reset with none or subtract has a form that keeps it"
        )
    beta = float(node.beta.flat[0])
    if beta == 0:
        return to.add(compare(to.shape(name), theta), "lif", x)
    if beta <= BLURRED:
        raise Unsupported(
            f"its decay {beta:g} lies between 0 and {BLURRED:g}, where snnTorch scales its threshold wrongly"
        )
    if node.gain != "1":
        open_gain(beta)
    tau = constant(beta)
    return to.add(lif(to.shape(name), tau, theta * (DT / tau) if node.gain == "1" else theta), "lif", x)


def open_gain(beta: float) -> float:
    """Return the gain 1 - beta. Raises Unsupported where it is 0."""
    if beta == 1:
        raise Unsupported("its decay 1 with gain 1 - beta shuts its input out")
    return 1 - beta


def constant(beta: float) -> float:
    """Return the time constant of a decay, in seconds."""
    return LEAKLESS if beta == 1 else DT / (1 - beta)


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


def compare(shape: tuple[int, ...], theta: float) -> Any:
    """Return the NIR LIF that fires where its input is greater than theta, and remembers nothing."""
    return lif(shape, FORGETFUL, theta)


def lif(shape: tuple[int, ...], tau: float, theta: float) -> Any:
    """Return a NIR LIF with r = 1, v_leak = v_reset = 0 and parameters of the full shape, in float64."""
    zeros = np.zeros(shape)
    return nir.LIF(
        tau=zeros + tau, r=zeros + 1, v_leak=zeros, v_threshold=zeros + theta, v_reset=zeros.copy()
    )

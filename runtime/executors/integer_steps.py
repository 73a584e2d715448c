"""What every node on whole numbers means: one step in float64 numpy, which holds them exactly; see `steps`."""

from __future__ import annotations

import numpy as np

from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array
from unscan.compiler.nodes import (
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLeaky,
    IntegerLI,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    Lookup,
    Quantize,
    Shift,
)
from unscan.runtime.executors.arithmetic import double
from unscan.runtime.executors.steps import State, Stepped, step


def fade(decay: Array, x: Array, bits: int) -> Array:
    """Return decay x / 2^bits, truncated towards zero."""
    return np.trunc(decay * x / 2.0**bits)


def shifted(x: Array, shift: Array | int) -> Array:
    """Return x >> shift, rounded: floor(x / 2^shift + 1/2); x 2^-shift where shift <= 0."""
    return np.floor(x / 2.0 ** np.asarray(shift, np.float64) + 0.5)


def lost(before: Array, after: Array) -> Array:
    """Return how many numbers of each sample (B, ...) a format could not hold."""
    return np.asarray((before != after).reshape(len(before), -1).sum(axis=1))


@step.register
def _(node: Quantize, state: State, x: Array) -> Stepped:
    y = np.rint(x * 2.0**node.fraction)
    held = node.format.saturated(y)
    return Stepped(held, tallies={"saturated": lost(y, held)})


@step.register
def _(node: Shift, state: State, x: Array) -> Stepped:
    y = shifted(x, node.shift)
    held = node.format.saturated(y)
    return Stepped(held, tallies={"saturated": lost(y, held)})


def looked_up(table: Array, x: Array, shift: int) -> Array:
    """Return table[clip(x >> shift, -n/2, n/2 - 1) + n/2]."""
    half = len(table) // 2
    return double(table)[(np.clip(shifted(x, shift), -half, half - 1) + half).astype(np.int64)]


@step.register
def _(node: Lookup, state: State, x: Array) -> Stepped:
    return Stepped(looked_up(node.table, x, node.shift))


@step.register
def _(node: IntegerGLU, state: State, x: Array) -> Stepped:
    a, b = np.split(x, 2, axis=-1)
    y = shifted(a * looked_up(node.table, b, node.index_shift), node.shift)
    held = node.format.saturated(y)
    return Stepped(held, tallies={"saturated": lost(y, held)})


def limited(node: IntegerLeaky, current: Array) -> tuple[Array, Array]:
    """Return a current as its bits hold it, wrapped or saturated, and how many numbers that changed."""
    width = Fixed(node.bits)
    held = width.wrapped(current) if node.wraps else width.saturated(current)
    return held, lost(current, held)


def driven(node: IntegerLeaky, current: Array, u: Array, drop: Array | float = 0.0) -> tuple[Array, Array]:
    """Return sat(fade(beta, u) + current + bias - drop), and how many numbers saturated."""
    bias = 0.0 if node.bias is None else double(node.bias)
    reached = fade(double(node.beta), u, node.decay_bits) + current + bias - drop
    held = Fixed(node.bits).saturated(reached)
    return held, lost(reached, held)


@step.register
def _(node: IntegerLI, state: State, x: Array) -> Stepped:
    current, wide = limited(node, x * 2.0**node.shift)
    u, beyond = driven(node, current, state["u"])
    return Stepped(u, {"u": u}, u, tallies={"saturated": wide + beyond})


@step.register
def _(node: IntegerLIF, state: State, x: Array) -> Stepped:
    current, wide = limited(node, x * 2.0**node.shift)
    return fired(node, current, state["u"], {}, wide)


@step.register
def _(node: IntegerCubaLIF, state: State, x: Array) -> Stepped:
    current, wide = limited(node, fade(double(node.alpha), state["i"], node.decay_bits) + x * 2.0**node.shift)
    return fired(node, current, state["u"], {"i": current}, wide)


def fired(node: IntegerLIF, current: Array, u: Array, rest: State, wide: Array) -> Stepped:
    """Return the step of a LIF that a current drives."""
    theta = double(node.threshold)
    if node.phase == "now":
        reached, beyond = driven(node, current, u)
        spikes = reached > theta
        kept = (
            reached - theta * spikes
            if node.reset == "subtract"
            else reached * ~spikes
            if node.reset == "zero"
            else reached
        )
    else:
        last = u > theta
        reached, beyond = driven(node, current, u, theta * last if node.reset == "subtract" else 0.0)
        reached = kept = reached * ~last if node.reset == "zero" else reached
        spikes = reached > theta
    tallies = {"saturated": wide + beyond}
    return Stepped(spikes.astype(np.float64), {**rest, "u": kept}, reached, spikes, tallies)


@step.register
def _(node: IntegerSSM, state: State, x: Array) -> Stepped:
    (a, b), (c, e) = (np.moveaxis(double(pairs), -1, 0) for pairs in (node.a, node.c))
    real, imaginary = np.moveaxis(state["h"], -1, 0)
    drive = x * 2.0**node.shift
    turned = [
        np.trunc((a * real - b * imaginary) / 2.0**node.decay_bits) + drive[..., None],
        np.trunc((a * imaginary + b * real) / 2.0**node.decay_bits),
    ]
    h = np.stack(turned, axis=-1)
    held = Fixed(node.bits).saturated(h)
    y = shifted((c * held[..., 0] - e * held[..., 1]).sum(axis=-1) + double(node.d) * drive, node.out_shift)
    out = node.format.saturated(y)
    return Stepped(out, {"h": held}, tallies={"saturated": lost(h, held) + lost(y, out)})


@step.register
def _(node: IntegerMemory, state: State, v: Array, k: Array, alpha: Array, q: Array | None = None) -> Stepped:
    written = np.count_nonzero(v, axis=1) * np.count_nonzero(k, axis=1)
    reached = fade(alpha[:, None, :], state["S"], node.decay_bits)
    reached = reached + v[:, :, None] * k[:, None, :] * 2.0**node.shift
    S = Fixed(node.bits).saturated(reached)
    theta = double(node.threshold)
    Z = theta < S
    value = Z.astype(np.float64) if q is None else Z @ q.reshape(len(q), S.shape[2], -1)
    kept = S - theta * Z if node.reset == "subtract" else S * ~Z if node.reset == "zero" else S
    tallies = {"writes": written, "fired": np.count_nonzero(Z, axis=(1, 2)), "saturated": lost(reached, S)}
    return Stepped(value.reshape(len(S), -1), {"S": kept}, S, Z, tallies)

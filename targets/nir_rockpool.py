"""NIR for Rockpool: Linear, and CubaLIF whose threshold is subtracted, as many spikes in a step as fit.

Of NIR's neurons it reads CubaLIF, and an LI; reading a LIF fails. It runs, with dt the least tau_mem / (1 + r),

    i = exp(-dt / tau_syn) (i + x),  u = exp(-dt / tau_mem) u + i,  n = floor(u / theta) where u >= theta,  u - n theta

Its current decays what has just come in, too, so that i and u are alpha times ours: the threshold is alpha theta. Our
LIF is a CubaLIF of alpha = 2^-23, the least that a float32 can add to 1. A neuron without reset is an LI, and behind
it what counts thresholds and forgets, brought down to one spike as for sinabs. What comes back to a neuron from its
own spikes of the step before, by a Linear, is a graph of four in the graph.
"""

from __future__ import annotations

from functools import singledispatch

import nir
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    AdaptiveLIF,
    Conv2d,
    CubaLIF,
    Delay,
    DiagonalSSM,
    Flatten,
    Linear,
    Pool2d,
    Reshape,
    Threshold,
)
from unscan.compiler.nodes.neurons import Gain
from unscan.targets.nir_encoding import DEPLOY, Encoding, emit_node
from unscan.targets.nir_neurons import FORGETFUL, each, exponential, fire, open_gain, thresholds
from unscan.targets.nir_sinabs import SEVERAL, capped, once_at_most

FAINT = 2.0**-23
"""alpha of a CubaLIF that stands for a LIF."""


@singledispatch
def emit_rockpool(node: Node, to: Encoding, name: str, x: str) -> str:
    """Write the primitives of one node for Rockpool and return the one that its output leaves."""
    return emit_node(node, to, name, x)


@emit_rockpool.register
def _(node: LIF, to: Encoding, name: str, x: str) -> str:
    if node.reset != "none":
        return current(node, np.zeros(()), to, name, x)
    return fire(node, to, name, leak(node.beta, node.gain, to, name, x))


@emit_rockpool.register
def _(node: CubaLIF, to: Encoding, name: str, x: str) -> str:
    if node.reset != "none":
        return current(node, node.alpha, to, name, x)
    return fire(node, to, name, leak(node.beta, node.gain, to, name, leak(node.alpha, "1", to, name, x)))


@emit_rockpool.register
def _(node: LI, to: Encoding, name: str, x: str) -> str:
    return leak(node.beta, node.gain, to, name, x)


@emit_rockpool.register
def _(node: Threshold, to: Encoding, name: str, x: str) -> str:
    flat(to, name)
    return fire(node, to, name, x)


def leak(decay: Array, gain: Gain, to: Encoding, name: str, x: str) -> str:
    """Write u = decay u + g x as an LI, whose input Rockpool multiplies by the decay, and the gain behind it."""
    flat(to, name)
    held, shape = decay.astype(np.float64), to.shape(name)
    if not np.any(held):
        return x
    if np.any(held <= FAINT):
        raise Unsupported(
            "some of its decays are 0 and some are not; Rockpool multiplies what comes in by each"
        )
    tau = each(exponential(held), shape)
    unit = np.floor(2.0**30 / tau.max())
    if unit < 2.0**10:
        raise Unsupported(
            f"Rockpool holds the tau of an LI as a whole number, too small for its decay {held.max():g}"
        )
    ticks = np.round(tau * unit)
    u = to.add(nir.LI(tau=ticks, r=ticks / unit - 1, v_leak=np.zeros(shape)), "li", x)
    return to.add(to.diagonal((1 if gain == "1" else open_gain(held)) / held, shape), "gain", u)


def fire_once(to: Encoding, name: str, levels: Array, u: str) -> str:
    """Write what fires once where u reaches its level, whatever the multiple, and remembers nothing."""
    forgets = np.asarray(FORGETFUL)
    return capped(
        to,
        name,
        levels,
        u,
        lambda shape, theta: cubalif(shape, np.asarray(FAINT), forgets, theta * FAINT, to),
    )


@emit_rockpool.register
def _(node: AdaptiveLIF | DiagonalSSM, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"Rockpool reads CubaLIF and LI alone; write the profile portable, or {DEPLOY}")


@emit_rockpool.register
def _(node: Conv2d | Pool2d, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"Rockpool reads no convolution and no pool; write the profile portable, or {DEPLOY}")


@emit_rockpool.register
def _(node: Flatten | Reshape, to: Encoding, name: str, x: str) -> str:
    flat(to, name)
    return emit_node(node, to, name, x)


@emit_rockpool.register
def _(node: Linear, to: Encoding, name: str, x: str) -> str:
    return x if to.comes_back(name) else emit_node(node, to, name, x)


@emit_rockpool.register
def _(node: Delay, to: Encoding, name: str, x: str) -> str:
    if to.lag(node, name).any():
        raise Unsupported("Rockpool reads no Delay, but for one of a step from a neuron back to itself")
    return x


def flat(to: Encoding, name: str) -> None:
    """Raise Unsupported where a signal has more than one axis."""
    if len(to.fed(name)) > 1:
        raise Unsupported(f"its signal has shape {to.fed(name)}, and those of Rockpool have one axis")


def current(node: LIF | CubaLIF, alpha: Array, to: Encoding, name: str, x: str) -> str:
    """Write a CubaLIF, in a graph of its own with the Linear by which its spikes come back."""
    flat(to, name)
    if node.reset != "subtract" or node.phase != "now":
        raise Unsupported(
            "Rockpool subtracts the threshold of its neurons, at once; run restore-reset with subtract, phase now"
        )
    if not once_at_most(node, to, name):
        to.change(name, "several", SEVERAL)
    shape, held = to.shape(name), np.maximum(alpha.astype(np.float64), FAINT)
    levels = thresholds(node, to) * held
    if node.gain != "1":
        levels = levels / open_gain(node.beta)
    primitive = cubalif(shape, held, exponential(node.beta), levels, to)
    back = to.own_spikes(name)
    return to.add(
        primitive if back is None else around(primitive, to.linear(back.weight), shape), "cubalif", x
    )


def cubalif(shape: tuple[int, ...], alpha: Array, tau: Array, theta: Array, to: Encoding) -> nir.CubaLIF:
    """Return a CubaLIF whose dt Rockpool finds to be the profile's; tau is the membrane's, in steps."""
    dt = to.profile.dt
    return nir.CubaLIF(
        tau_syn=each(exponential(alpha) * dt, shape),
        tau_mem=each(tau * dt, shape),
        r=each(tau - 1, shape),
        v_leak=np.zeros(shape),
        v_reset=np.zeros(shape),
        v_threshold=each(theta, shape),
        w_in=np.ones(shape),
    )


def around(neuron: nir.CubaLIF, back: nir.Linear, shape: tuple[int, ...]) -> nir.NIRGraph:
    """Return the graph of four that Rockpool reads as neurons whose own spikes come back a step later."""
    size = np.array(shape)
    nodes = {"input": nir.Input(size), "n0_lif": neuron, "n1_back": back, "output": nir.Output(size)}
    edges = [("n0_lif", "n1_back"), ("n1_back", "n0_lif"), ("input", "n0_lif"), ("n0_lif", "output")]
    return nir.NIRGraph(nodes, edges)

"""NIR for spyx: one chain of its own layers, each of which fires on the voltage of the step before.

With u the voltage and s_ = H(u_ - theta) by the voltage of the step before, spyx runs, and its layer sends s_:

    LIF      u = beta u_ + x - theta s_                          our LIF of reset subtract at phase next
    CubaLIF  i = alpha i_ + x,  u = beta (u_ - theta s_) + i     our CubaLIF of reset subtract at phase now;
                                                                 with alpha = 0, our LIF of subtract at phase now
    LI, Threshold  u = beta u_ + x, and H(u - theta) at once     our LIF of reset none, and our Threshold

So the spikes are ours, one step later for every layer of the first two. It has no gain, drops what it does not know,
and runs images channels last, so that what flattens one is turned back by a matrix.
"""

from __future__ import annotations

from functools import singledispatch
from math import prod

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
    Input,
    Output,
    Reshape,
    Spiking,
    Threshold,
)
from unscan.targets.nir_encoding import DEPLOY, Encoding, emit_node
from unscan.targets.nir_neurons import constant, each, lif, open_gain, size, thresholds


@singledispatch
def emit_spyx(node: Node, to: Encoding, name: str, x: str) -> str:
    """Write the primitives of one node for spyx and return the one that its output leaves."""
    return emit_node(node, to, name, x)


@emit_spyx.register
def _(node: Input | Output, to: Encoding, name: str, x: str) -> str:
    if len(to.shape(name)) > 1:
        to.change(name, "ordered", "its images are to be channels last: (rows, columns, channels)")
    return emit_node(node, to, name, x)


@emit_spyx.register
def _(node: Conv2d, to: Encoding, name: str, x: str) -> str:
    if node.dilation != (1, 1):
        raise Unsupported(
            f"spyx drops its dilation, {node.dilation}; fill its kernel up with zeros in the model"
        )
    return emit_node(node, to, name, x)


@emit_spyx.register
def _(node: Threshold, to: Encoding, name: str, x: str) -> str:
    return free(np.zeros(()), thresholds(node, to), to, name, x)


@emit_spyx.register
def _(node: LIF, to: Encoding, name: str, x: str) -> str:
    if node.reset == "none":
        return free(node.beta, levels(node, to), to, name, x)
    subtracts(node)
    if node.phase == "now":
        return current(node, np.zeros(()), to, name, x)
    late(to, name)
    return to.add(lif(to.shape(name), constant(node.beta, to), levels(node, to)), "lif", x)


@emit_spyx.register
def _(node: CubaLIF, to: Encoding, name: str, x: str) -> str:
    subtracts(node)
    if node.phase == "next":
        raise Unsupported("spyx resets a CubaLIF before it leaks; run restore-reset with subtract, phase now")
    return current(node, node.alpha, to, name, x)


@emit_spyx.register
def _(node: LI, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"spyx reads an LI only before a Threshold; end the model with neurons, or {DEPLOY}")


@emit_spyx.register
def _(node: AdaptiveLIF | DiagonalSSM, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(
        f"spyx runs one chain of layers and has none like it; write the profile portable, or {DEPLOY}"
    )


@emit_spyx.register
def _(node: Delay, to: Encoding, name: str, x: str) -> str:
    if to.lag(node, name).any():
        raise Unsupported(
            "spyx drops a Delay without a word, but for one of a step from a neuron back to itself"
        )
    return x


@emit_spyx.register
def _(node: Flatten, to: Encoding, name: str, x: str) -> str:
    return turned(to, name, emit_node(node, to, name, x))


@emit_spyx.register
def _(node: Reshape, to: Encoding, name: str, x: str) -> str:
    return turned(to, name, emit_node(node, to, name, x))


def turned(to: Encoding, name: str, flat: str) -> str:
    """Write the matrix that turns a flattened image, rows by columns by channels, to channels first."""
    shape = to.fed(name)
    if len(shape) == 1 or len(to.shape(name)) != 1:
        return flat
    size(prod(shape), f"it turns {prod(shape)} numbers of an image to another order")
    order = np.moveaxis(np.arange(prod(shape)).reshape(*shape[1:], shape[0]), -1, 0).reshape(-1)
    return to.add(to.linear(np.eye(prod(shape))[order]), "turned", flat)


def levels(node: LIF | CubaLIF, to: Encoding) -> Array:
    """Return thresholds for a membrane of gain 1, the only one that spyx has: theta, or theta / (1 - beta)."""
    return thresholds(node, to) if node.gain == "1" else thresholds(node, to) / open_gain(node.beta)


def subtracts(node: Spiking) -> None:
    """Raise Unsupported where a neuron resets otherwise."""
    if node.reset != "subtract":
        raise Unsupported("spyx subtracts the threshold of its neurons; run restore-reset with subtract")


def late(to: Encoding, name: str) -> None:
    """Take down that a layer's spikes leave one step later."""
    to.change(
        name, "late", "it fires on the voltage of the step before, so that its spikes leave one step later"
    )


def free(decay: Array, theta: Array, to: Encoding, name: str, x: str) -> str:
    """Write a leaky integrator and a Threshold, which is what spyx has without a reset."""
    shape = to.shape(name)
    tau = each(constant(decay, to), shape)
    u = to.add(nir.LI(tau=tau, r=np.ones(shape), v_leak=np.zeros(shape)), "li", x)
    return to.add(nir.Threshold(each(theta, shape)), "threshold", u)


def current(node: LIF | CubaLIF, alpha: Array, to: Encoding, name: str, x: str) -> str:
    """Write a CubaLIF: the neuron that spyx resets before it leaks."""
    shape = to.shape(name)
    if len(shape) > 1:
        raise Unsupported(
            f"its signal has shape {shape}, and spyx holds current and voltage of a CubaLIF in one axis, which fails "
            "on images; run restore-reset with subtract, phase next"
        )
    late(to, name)
    tau_syn, tau_mem = constant(alpha, to), constant(node.beta, to)
    return to.add(
        nir.CubaLIF(
            tau_syn=each(tau_syn, shape),
            tau_mem=each(tau_mem, shape),
            r=each(tau_mem / to.profile.dt, shape),
            v_leak=np.zeros(shape),
            v_reset=np.zeros(shape),
            v_threshold=each(levels(node, to), shape),
            w_in=each(tau_syn / to.profile.dt, shape),
        ),
        "cubalif",
        x,
    )

"""NIR as NIR means it: its own primitives, continuous time, no emulation.

A LIF with reset zero at once is a LIF, or an IF where it does not leak; without reset it is an LI and a Threshold. An
LI is an LI, or an I; a Delay is a Delay, in a loop too. At dt = 1e-4 s Euler's step of the file is the graph's step:
with r = tau / dt the gain is 1, and with r = 1 it is 1 - beta. What NIR has no word for is refused: the threshold
subtracted, a reset one step late, a threshold that moves, complex modes. NIR fires on v > v_threshold: a tie that
fires is a threshold one number lower. Any reader of NIR may have such a file; what frameworks make of it is theirs.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import nir
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    AdaptiveLIF,
    AvgPool2d,
    CubaLIF,
    Delay,
    DiagonalSSM,
    Flatten,
    Reshape,
    Scale,
    Spiking,
    SumPool2d,
    Threshold,
)
from unscan.targets.nir_encoding import Encoding, emit_node
from unscan.targets.nir_neurons import constant, each, lif, open_gain, thresholds
from unscan.targets.nir_stateless import alike

BUILT = "NIR has no {}; the profile portable builds it from other primitives"


@singledispatch
def emit_native(node: Node, to: Encoding, name: str, x: str) -> str:
    """Write the primitives of one node by NIR's own meaning and return the one that its output leaves."""
    return emit_node(node, to, name, x)


@emit_native.register
def _(node: Scale, to: Encoding, name: str, x: str) -> str:
    return to.add(nir.Scale(each(node.scale, to.shape(name)).astype(to.graph.dtype)), "scale", x)


@emit_native.register
def _(node: SumPool2d | AvgPool2d, to: Encoding, name: str, x: str) -> str:
    kind = nir.SumPool2d if isinstance(node, SumPool2d) else nir.AvgPool2d
    window = kind(
        kernel_size=np.array(node.kernel), stride=np.array(node.stride), padding=np.array(alike(node))
    )
    return to.add(window, "pool", x)


@emit_native.register
def _(node: Flatten | Reshape, to: Encoding, name: str, x: str) -> str:
    written = emit_node(node, to, name, x)
    if written != x:
        to.primitives[written] = nir.Flatten({"input": np.array(to.fed(name))}, 0, -1)
    return written


@emit_native.register
def _(node: LI, to: Encoding, name: str, x: str) -> str:
    return to.add(integrator(node, to, name), "li", x)


@emit_native.register
def _(node: Threshold, to: Encoding, name: str, x: str) -> str:
    return to.add(nir.Threshold(each(thresholds(node, to), to.shape(name))), "threshold", x)


@emit_native.register
def _(node: LIF, to: Encoding, name: str, x: str) -> str:
    only_zero(node)
    shape, levels = to.shape(name), thresholds(node, to)
    if node.reset == "none":
        u = to.add(integrator(node, to, name), "li", x)
        return to.add(nir.Threshold(each(levels, shape)), "threshold", u)
    if np.all(node.beta == 1):
        r = resistance(node, np.ones(()), to)
        free = nir.IF(r=each(r, shape), v_threshold=each(levels, shape), v_reset=np.zeros(shape))
        return to.add(free, "if", x)
    tau = constant(node.beta, to)
    return to.add(lif(shape, tau, levels, resistance(node, tau, to)), "lif", x)


@emit_native.register
def _(node: CubaLIF, to: Encoding, name: str, x: str) -> str:
    only_zero(node)
    shape, levels = to.shape(name), thresholds(node, to)
    tau_syn, tau_mem = constant(node.alpha, to), constant(node.beta, to)
    settings: dict[str, Any] = {
        "tau_syn": each(tau_syn, shape),
        "tau_mem": each(tau_mem, shape),
        "r": each(resistance(node, tau_mem, to), shape),
        "v_leak": np.zeros(shape),
        "w_in": each(tau_syn / to.profile.dt, shape),
    }
    if node.reset == "none":
        u = to.add(nir.CubaLI(**settings), "cubali", x)
        return to.add(nir.Threshold(each(levels, shape)), "threshold", u)
    neurons = nir.CubaLIF(**settings, v_threshold=each(levels, shape), v_reset=np.zeros(shape))
    return to.add(neurons, "cubalif", x)


@emit_native.register
def _(node: AdaptiveLIF, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(BUILT.format("threshold that moves"))


@emit_native.register
def _(node: DiagonalSSM, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(BUILT.format("state-space model"))


@emit_native.register
def _(node: Delay, to: Encoding, name: str, x: str) -> str:
    steps = each(node.steps, node.shape)
    return to.add(nir.Delay(steps * to.profile.dt), "delay", x)


def only_zero(node: Spiking) -> None:
    """Raise Unsupported where a neuron resets as NIR cannot say."""
    if node.reset == "subtract":
        raise Unsupported(BUILT.format("reset but the one to a voltage") + ", or run restore-reset with zero")
    if node.reset == "zero" and node.phase == "next":
        raise Unsupported("NIR has no reset one step late; run restore-reset with phase now")


def integrator(node: LI | LIF, to: Encoding, name: str) -> Any:
    """Return the primitive of u = beta u + g x."""
    shape, tau = to.shape(name), constant(node.beta, to)
    if np.all(node.beta == 1) and node.gain == "1":
        return nir.I(r=each(np.asarray(1 / to.profile.dt), shape))
    return nir.LI(tau=each(tau, shape), r=each(resistance(node, tau, to), shape), v_leak=np.zeros(shape))


def resistance(node: LI | LIF | CubaLIF, tau: Array, to: Encoding) -> Array:
    """Return the r of a gain of 1, or of 1 - beta."""
    if node.gain == "1":
        return np.asarray(tau / to.profile.dt)
    open_gain(node.beta)
    return np.ones(())

"""Rules of SpikingJelly's neurons and layers, as spikingjelly 2.0.0 computes them.

States start as after `functional.reset_net`. In step mode "s" a module takes one step, in "m" a whole sequence; both
are the same recurrence. Its containers need no rules: what they call is read. Dropout is read as at inference.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import base, layer, neuron
from torch import nn

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Axes, Builder, Value
from unscan.compiler.frontends.composition import delay, number, one_later
from unscan.compiler.frontends.modules import array, batch_norm, optional, read
from unscan.compiler.frontends.resting import Membrane, after, fired, raised, spiking, stepped
from unscan.compiler.frontends.rules import back_from, close, float64, plain, refuse, refused, said, within
from unscan.compiler.ir import Array, Kind
from unscan.compiler.nodes import Activation, Concatenate, Flatten, Linear, Multiply, Scale, Threshold
from unscan.compiler.nodes.neurons import Fires, Gain

REASONS: dict[type[nn.Module], str] = {
    neuron.PSN: "its weights mix all steps of a sequence, later ones too, so it has no step form; train a SlidingPSN",
    neuron.MaskedPSN: "its weights differ from step to step of a sequence of T steps, and a node's are the same at "
    "every step; train a SlidingPSN",
    neuron.GatedLIFNode: "its conduct differs from step to step of a sequence of T steps, and a node's parameters are "
    "the same at every step",
    neuron.QIFNode: "its membrane is driven by its own square, and no neuron here is; use a LIFNode",
    neuron.EIFNode: "its membrane is driven by its own exponential, and no neuron here is; use a LIFNode",
    neuron.IzhikevichNode: "its membrane is driven by its own square, and no neuron here is; use a LIFNode",
    neuron.ILIFNode: "it fires several spikes in one step, and a neuron here fires one or none; use a LIFNode",
    neuron.LIAFNode: "what leaves it is a function of its membrane, and no spikes; use a LIFNode",
    neuron.TernaryIFNode: "it fires spikes of -1 too, and a neuron here fires 1 or nothing; use an IFNode",
    neuron.TernaryLIFNode: "it fires spikes of -1 too, and a neuron here fires 1 or nothing; use a LIFNode",
    neuron.ComplementaryLIFNode: "its reset grows with a sigmoid of its past membranes, and no neuron's here does",
    neuron.base_node.NonSpikingBaseNode: "it decides over a whole sequence, or returns a list of steps; leave it out, "
    "and give the decision over time to the graph",
    base.MemoryModule: "no rule knows it; supported are IFNode, LIFNode, ParametricLIFNode and their simple, online "
    "and half-threshold forms, ActivationAwareIFNode, KLIFNode, CUBALIFNode, RAFNode, SlidingPSN, SynapseFilter and "
    "Delay",
}
"""Classes that have no node, and why."""


refuse(REASONS)


@read.register(neuron.IFNode)
@read.register(neuron.SimpleIFNode)
@read.register(neuron.HalfThresholdIFNode)
def _(module: Any, to: Builder, name: str, x: Value) -> Value:
    """Read v + x with its reset, from half the threshold for a HalfThresholdIFNode."""
    return spiking(module, to, name, x, membrane_of(module, to, 1.0))


@read.register(neuron.LIFNode)
@read.register(neuron.SimpleLIFNode)
@read.register(neuron.OTTTLIFNode)
@read.register(neuron.SLTTLIFNode)
def _(module: Any, to: Builder, name: str, x: Value) -> Value:
    """Read v + (x - (v - v_reset)) / tau, or v - (v - v_reset) / tau + x without decay_input."""
    return spiking(module, to, name, x, leaky(module, to, 1 / float64(module.tau)))


@read.register
def _(module: neuron.ParametricLIFNode, to: Builder, name: str, x: Value) -> Value:
    """Read a LIFNode with 1 / tau = sigmoid(w)."""
    return spiking(module, to, name, x, leaky(module, to, float64(module.w.sigmoid())))


@read.register
def _(module: neuron.ActivationAwareIFNode, to: Builder, name: str, x: Value) -> Value:
    """Read v + x that fires where v + offset reaches the threshold: in the units of v + offset an IFNode."""
    timed(module, to)
    plain(module)
    threshold, offset = (
        channels(module, to, x, getattr(module, f"v_{field}")) for field in ("threshold", "offset")
    )
    low = None if module.v_reset is None else module.v_reset + offset
    start = start_of(module) + offset
    fires = fires_of(module)
    return spiking(module, to, name, x, Membrane(np.asarray(1.0), threshold, low, 0.0, start, fires))


@read.register
def _(module: neuron.CUBALIFNode, to: Builder, name: str, x: Value) -> Value:
    """Read c = c_decay c + x, v = v_decay v + c, with a reset of v alone."""
    membrane = membrane_of(module, to, float64(module.v_decay), rest=0.0)
    return spiking(module, to, name, x, membrane, float64(module.c_decay))


@read.register
def _(module: neuron.KLIFNode, to: Builder, name: str, x: Value) -> Value:
    """Read v = relu(k (a LIFNode's charge)), with scale_reset divided by k, as the threshold is, before its reset."""
    membrane = from_zero(module, leaky(module, to, 1 / float64(module.tau)))
    k = float64(module.k)
    if not k > 0:
        raise refused(module, f"its k is {said(k)}, and one above 0 is wanted")
    settings = membrane.settings(module, to, name)
    kept = membrane.beta * (1 if module.scale_reset else k)
    gain = k * (1 - np.asarray(membrane.beta) if module.decay_input else 1.0)
    past, charge = stepped(
        to, name, to.add(f"{name}.gain", Scale(number(to, np.asarray(gain))), x), number(to, np.asarray(kept))
    )
    u = to.add(f"{name}.membrane", Activation("relu"), charge)
    spikes = fired(to, name, u, settings)
    to.feed(past[0], after(to, name, u, spikes, settings))
    return spikes


@read.register
def _(module: neuron.RAFNode, to: Builder, name: str, x: Value) -> Value:
    """Read u + i v, turned by omega dt and scaled by exp(b dt) at each step; v fires, and v alone is reset."""
    settings = from_zero(module, membrane_of(module, to, 0.0)).settings(module, to, name)
    scale = np.exp(float64(module.b) * module.dt)
    turn, slide = scale * np.cos(module.omega * module.dt), scale * np.sin(module.omega * module.dt)
    u_past, u = stepped(to, f"{name}.u", x, number(to, turn))
    v_past = to.add(f"{name}.v.past", one_later(to, to.signal(x).shape, Kind.REAL))
    u = u + to.add(f"{name}.u.turned", Scale(number(to, -slide)), v_past)
    v = to.add(f"{name}.v.decayed", Scale(number(to, turn)), v_past) + to.add(
        f"{name}.v.turned", Scale(number(to, slide)), u_past
    )
    spikes = fired(to, name, v, settings)
    to.feed(u_past[0], u)
    to.feed(v_past[0], after(to, f"{name}.v", v, spikes, settings))
    return spikes


@read.register
def _(module: neuron.SlidingPSN, to: Builder, name: str, x: Value) -> Value:
    """Read H(w_k x_t + w_{k-1} x_{t-1} + ... + bias), the k last inputs behind a chain of delays."""
    timed(module, to)
    plain(module)
    fires = fires_of(module)
    weights, threshold = float64(module.weight), -float64(module.bias)
    signal, tap = to.signal(x), x
    taps: Value = ()
    for steps, weight in enumerate(weights[::-1]):
        if steps:
            tap = to.add(f"{name}.past{steps}", delay(to, signal, 1), tap)
        taps += to.add(f"{name}.tap{steps}", Scale(number(to, weight)), tap)
    if threshold <= 0:
        taps, threshold = raised(to, f"{name}.bias", taps, 1 - threshold), np.asarray(1.0)
    return to.add(name, Threshold(threshold=number(to, threshold), fires=fires), taps)


@read.register
def _(module: layer.SynapseFilter, to: Builder, name: str, x: Value) -> Value:
    """Read y = y - (1 - x) y / tau + x: it decays where no spike comes."""
    timed(module, to)
    plain(module)
    rate = float64(module.w.sigmoid()) if module.learnable else 1 / float64(module.tau)
    past, y = stepped(to, name, x, number(to, 1 - rate))
    kept = to.add(f"{name}.share", Scale(number(to, rate)), past)
    y = y + to.add(f"{name}.kept", Multiply(), x, kept)
    to.feed(past[0], y)
    return y


@read.register
def _(module: layer.LinearRecurrentContainer, to: Builder, name: str, x: Value) -> Value:
    """Read a neuron behind a linear layer of x and of its own spikes of the step before."""
    timed(module, to)
    plain(module)
    back = back_from(to, name, (module.sub_module_out_features,))
    both = to.add(f"{name}.both", Concatenate(2), x, back)
    weights = Linear(number(to, array(module.rc.weight)), optional(module.rc.bias))
    with inside(to, "step"):
        spikes = within(
            module, module.sub_module, to, f"{name}.sub_module", to.add(f"{name}.rc", weights, both)
        )
    return close(module, to, back, spikes)


@read.register
def _(module: layer.ElementWiseRecurrentContainer, to: Builder, name: str, x: Value) -> Value:
    """Read a neuron fed by x plus its own spikes of the step before."""
    timed(module, to)
    plain(module)
    if module.element_wise_function not in (torch.add, operator.add):
        raise refused(module, "its element_wise_function is none that has a name; use torch.add")
    back = back_from(to, name, to.signal(x).shape)
    with inside(to, "step"):
        spikes = within(module, module.sub_module, to, f"{name}.sub_module", x + back)
    return close(module, to, back, spikes)


@read.register
def _(module: layer.Delay, to: Builder, name: str, x: Value) -> Value:
    """Read a delay by some steps."""
    timed(module, to)
    plain(module)
    return to.add(name, delay(to, to.signal(x), module.delay_steps), x) if module.delay_steps else x


@read.register
def _(module: layer.Dropout, to: Builder, name: str, x: Value) -> Value:
    """Read nothing."""
    untimed(module, to)
    return x


@read.register
def _(module: layer.Flatten, to: Builder, name: str, x: Value) -> Value:
    """Read a flattening of all axes of a step."""
    untimed(module, to)
    if module.start_dim != 1 or module.end_dim != -1:
        raise refused(
            module, f"it joins axes {module.start_dim} to {module.end_dim}; use Flatten(), which joins all"
        )
    return to.add(name, Flatten(), x)


@read.register(layer.Conv1d)
@read.register(layer.Conv2d)
@read.register(layer.AvgPool2d)
@read.register(layer.MaxPool2d)
@read.register(layer.BatchNorm1d)
@read.register(layer.BatchNorm2d)
def _(module: Any, to: Builder, name: str, x: Value) -> Any:
    """Read the layer of torch that it is; in step mode "m" it folds time into the batch by itself."""
    untimed(module, to)
    plain(module)
    within = next(kind for kind in type(module).__mro__ if kind.__module__.startswith("torch."))
    with inside(to, "folded" if to.axes == "sequence" else to.axes):
        return read.dispatch(within)(module, to, name, x)


@read.register(layer.ThresholdDependentBatchNorm1d)
@read.register(layer.ThresholdDependentBatchNorm2d)
def _(module: Any, to: Builder, name: str, x: Value) -> Value:
    """Read a batch norm: its weight, which starts at alpha v_th, is the weight that it holds."""
    to.expects("sequence")
    plain(module)
    axes = (1, 1) if isinstance(module, layer.ThresholdDependentBatchNorm2d) else ()
    return to.add(name, batch_norm(module, axes), x)


def membrane_of(
    module: Any, to: Builder, beta: Array | float, *, gain: Gain = "1", rest: float | None = None
) -> Membrane:
    """Return the membrane of a neuron with v_threshold and v_reset, which it also decays to but where `rest` is."""
    timed(module, to)
    plain(module)
    low = None if module.v_reset is None else float64(module.v_reset)
    settled = 0.0 if low is None else low
    return Membrane(
        beta=beta,
        threshold=float64(module.v_threshold),
        low=low,
        rest=settled if rest is None else rest,
        start=start_of(module),
        fires=fires_of(module),
        gain=gain,
    )


def leaky(module: Any, to: Builder, rate: Array) -> Membrane:
    """Return the membrane of a neuron that loses `rate` of itself at each step."""
    return membrane_of(module, to, 1 - rate, gain="1-beta" if module.decay_input else "1")


def from_zero(module: Any, membrane: Membrane) -> Membrane:
    """Return a membrane. Raises Unsupported unless it starts from 0, and is reset to 0 or by its threshold."""
    if np.any(membrane.low or 0) or np.any(membrane.start):
        raise refused(
            module,
            "its membrane starts from, or is reset to, another value than 0, and as it is not a leaky one its "
            "0 cannot be moved there; train it with v_reset=0.0 or None",
        )
    return membrane


def start_of(module: Any) -> Array:
    """Return the membrane that a reset of the network sets."""
    return float64(module._memories_rv["v"])


def timed(module: Any, to: Builder) -> None:
    """Raise Unsupported unless a module with a state is handed what its step mode takes."""
    to.expects("step" if module.step_mode == "s" else "sequence")


def untimed(module: Any, to: Builder) -> None:
    """Raise Unsupported unless a module without a state is handed what its step mode takes."""
    to.expects(*(("step", "folded") if module.step_mode == "s" else ("sequence",)))


@contextmanager
def inside(to: Builder, axes: Axes | None) -> Iterator[None]:
    """Let a rule read what stands within a module, and is handed its input in a form of its own."""
    outer, expected = to.axes, to.expected
    to.axes = axes
    try:
        yield
    finally:
        to.axes, to.expected = outer, expected


def fires_of(module: Any) -> Fires:
    """Return whether a tie fires, which its own surrogate function is asked. Raises Unsupported for no step."""
    if getattr(module, "_neuron_precision", None) is not None:
        raise refused(
            module,
            f"its states are rounded to {module._neuron_precision[0]} at each step, and no node rounds",
        )
    if isinstance(module, neuron.OTTTLIFNode | neuron.SLTTLIFNode):
        return ">="
    with torch.no_grad():
        *rest, tie, low, middle, high = module.surrogate_function(
            torch.tensor([-1e3, -1, -1e-6, 0, 1e-6, 1, 1e3])
        ).tolist()
    if [*rest, low, middle, high] != [0, 0, 0, 1, 1, 1] or tie not in (0, 1):
        raise refused(
            module,
            f"its surrogate_function, {type(module.surrogate_function).__name__}, gives other numbers than 0 below "
            "the threshold and 1 above it",
        )
    return ">=" if tie else ">"


def channels(module: Any, to: Builder, x: Value, parameter: torch.Tensor) -> Array:
    """Return a parameter on the axis of the channels that its `channel_dim` names, batch included."""
    found = float64(parameter)
    if not found.ndim:
        return found
    axes = 1 + len(to.signal(x).shape)
    axis = module.channel_dim % axes
    if not axis:
        raise Unsupported(
            "told by its channel_dim that the batch is its channels, and neurons have channels of theirs"
        )
    return found.reshape(-1, *(1,) * (axes - 1 - axis))

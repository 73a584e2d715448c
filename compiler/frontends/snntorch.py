"""Rules of snnTorch's neurons, as snntorch 1.0.0 computes them (not as its documents say, where the two differ).

Those that take one step become iterative nodes: LIF or CubaLIF where only their spikes are used, and leaky
integrators, thresholds and delays where their states are used too, so that no membrane is computed twice, or where
no single node does what they do. Those that take a sequence become parallel nodes. States start at zero, as after
`reset_mem`.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from snntorch import (
    SLSTM,
    Alpha,
    AssociativeLeaky,
    DeltaLeaky,
    Lapicque,
    Leaky,
    LeakyParallel,
    LinearLeaky,
    RLeaky,
    RSynaptic,
    SConv2dLSTM,
    StateLeaky,
    Synaptic,
)
from snntorch._neurons import rleaky, rsynaptic

from unscan.compiler.frontends.builder import Builder, Results, Value
from unscan.compiler.frontends.composition import (
    Firing,
    cleared,
    composed,
    delay,
    number,
    one_later,
    settings,
)
from unscan.compiler.frontends.modules import array, read
from unscan.compiler.frontends.rules import refused, said
from unscan.compiler.frontends.snntorch_settings import (
    decay_of,
    fires_of,
    firing_of,
    graded,
    plain,
    returned,
    threshold_of,
)
from unscan.compiler.ir import Array, Kind
from unscan.compiler.nodes import (
    LI,
    LIF,
    Activation,
    AssociativeScan,
    CubaLIF,
    LIConvolution,
    LIFConvolution,
    Linear,
    Multiply,
    Scale,
    Threshold,
)


@read.register
def _(module: Leaky, to: Builder, name: str, x: Value) -> Value | Results:
    """Read beta u + x with its reset. A delayed reset to zero acts before the decay, which is a reset at once."""
    firing = firing_of(module, to, zero="now")
    spikes, membrane = leaky(to, name, x, decay_of(module, to, name, "beta"), firing)
    return returned(module, graded(module, to, name, spikes), membrane)


@read.register
def _(module: RLeaky, to: Builder, name: str, x: Value) -> Value | Results:
    """Read a leaky neuron that is fed by x and by its own spikes of the step before."""
    firing = firing_of(module, to, zero="next")
    back = fed_back(module, to, name, x)
    spikes, membrane = leaky(
        to, name, x + recurrent(module, to, name, back), decay_of(module, to, name, "beta"), firing
    )
    spikes = graded(module, to, name, spikes)
    to.feed(back[0], spikes)
    return returned(module, spikes, membrane)


@read.register
def _(module: Lapicque, to: Builder, name: str, x: Value) -> Value | Results:
    """Read u = (1 - dt / RC) u + (dt / C) x, Euler's step of an RC circuit."""
    firing = firing_of(module, to, zero="next")
    step, resistance, capacitance = (
        array(getattr(module, field)).astype(np.float64) for field in ("time_step", "R", "C")
    )
    decay = 1 - step / (resistance * capacitance)
    if np.any((decay < 0) | (decay > 1)):
        raise refused(
            module,
            f"its membrane is multiplied by 1 - time_step / (R C) = {said(decay)} at each step, and a decay lies "
            "in [0, 1]; take a time_step that is not longer than R C (a beta of at least 1/e)",
        )
    to.notes.append(
        f"{name}: its membrane decays by 1 - time_step / (R C) = {said(decay)}, as snnTorch computes it, and not by "
        f"its beta, {said(array(module.beta))}"
    )
    gain = step / capacitance
    driven = x if np.all(gain == 1) else to.add(f"{name}.gain", Scale(number(to, gain)), x)
    spikes, membrane = leaky(to, name, driven, number(to, decay), firing)
    return returned(module, graded(module, to, name, spikes), membrane)


@read.register
def _(module: Synaptic, to: Builder, name: str, x: Value) -> Value | Results:
    """Read a leaky neuron behind a leaking current, which no reset touches."""
    spikes, *states = synaptic(module, to, name, x, firing_of(module, to, zero="next"))
    return returned(module, graded(module, to, name, spikes), *states)


@read.register
def _(module: RSynaptic, to: Builder, name: str, x: Value) -> Value | Results:
    """Read a `Synaptic` that is fed by x and by its own spikes of the step before."""
    if not module.reset_delay:
        if module.init_hidden:
            raise refused(module, "with reset_delay=False and init_hidden=True it fails in snnTorch itself")
        to.notes.append(f"{name}: reset_delay=False has no effect on an RSynaptic of snnTorch; it is delayed")
    firing = firing_of(module, to, zero="next")._replace(delayed=True)
    back = fed_back(module, to, name, x)
    spikes, *states = synaptic(module, to, name, x + recurrent(module, to, name, back), firing)
    spikes = graded(module, to, name, spikes)
    to.feed(back[0], spikes)
    return returned(module, spikes, *states)


@read.register
def _(module: Alpha, to: Builder, name: str, x: Value) -> Value | Results:
    """Read u = tau (e + i) of two leaking currents, e <- alpha e + x and i <- beta i - x.

    tau = ln(alpha) / (ln(beta) - ln(alpha)) + 1. With r, the spike of the step before, the reset to zero multiplies
    e, i and u by 1 - r; subtract takes theta r from e, multiplies i by 1 - r and adds the i of the step before times
    r to u. As snnTorch computes it, u sees the currents before their resets.
    """
    firing = firing_of(module, to)
    alpha, beta = (decay_of(module, to, name, field) for field in ("alpha", "beta"))
    with np.errstate(divide="ignore", invalid="ignore"):
        rise, fall = np.log(alpha, dtype=np.float64), np.log(beta, dtype=np.float64)
        tau = rise / (fall - rise) + 1
    if not np.isfinite(tau).all():
        raise refused(module, f"its tau_alpha is {said(tau)}, of alpha {said(alpha)} and beta {said(beta)}")
    shape = to.signal(x).shape
    rising = to.add(f"{name}.rising", LI(beta=alpha), x)
    falling = to.add(f"{name}.falling", LI(beta=beta), to.add(f"{name}.negative", Scale(to.number(-1)), x))
    excited, inhibited = rising, falling
    seen = rising + falling
    back: Value = ()
    extra: Value = ()
    if firing.reset != "none":
        back = to.add(f"{name}.before", one_later(to, shape))
        inhibited = cleared(to, f"{name}.inhibited", falling, back, beta, shape)
    if firing.reset == "zero":
        excited = cleared(to, f"{name}.excited", rising, back, alpha, shape)
        seen = excited + inhibited
    if firing.reset == "subtract":
        to.feed(rising[0], to.add(f"{name}.lowered", Scale(number(to, -firing.threshold)), back))
        seen += to.add(f"{name}.raised", Scale(firing.threshold), back)
        past = to.add(f"{name}.past", one_later(to, shape, Kind.REAL), inhibited)
        extra = to.add(f"{name}.extra", Multiply(), past, back)
    membrane = to.add(f"{name}.membrane", Scale(number(to, tau)), seen) + extra
    spikes = to.add(name, firing.node, membrane)
    for delayed in back:
        to.feed(delayed, spikes)
    return returned(module, graded(module, to, name, spikes), excited, inhibited, membrane)


@read.register
def _(module: DeltaLeaky, to: Builder, name: str, x: Value) -> Results:
    """Read s = H(|u_t - u_{t-1}| - delta_threshold) of a leaky integrator u without a reset."""
    to.expects("step")
    fires = fires_of(module)
    beta = array(module.beta)
    if np.any((beta < 0) | (beta > 1)):
        raise refused(
            module, f"its beta is {said(beta)}, which it does not clamp, and a decay lies in [0, 1]"
        )
    threshold = threshold_of(module, to, torch.as_tensor(module.delta_threshold))
    u = to.add(f"{name}.membrane", LI(beta=number(to, beta)), x)
    before = to.add(f"{name}.before", one_later(to, to.signal(x).shape, Kind.REAL), u)
    rise = u + to.add(f"{name}.negative", Scale(to.number(-1)), before)
    fall = to.add(f"{name}.fall", Scale(to.number(-1)), rise)
    up, down = (
        to.add(f"{name}.{way}", Activation("relu"), change) for way, change in (("up", rise), ("down", fall))
    )
    return Results((to.add(name, Threshold(threshold=threshold, fires=fires), up + down), None))


@read.register
def _(module: LeakyParallel, to: Builder, name: str, x: Value) -> Value:
    """Read h = relu(W x + V h + b) and its threshold: the RNN of torch that stands in it."""
    to.expects("sequence")
    fires = fires_of(module)
    to.notes.append(f"{name}: its membranes never fall below 0, as those of a relu, and have no reset")
    rnn = module.rnn
    bias = array(rnn.bias_ih_l0) + array(rnn.bias_hh_l0) if rnn.bias else None
    inner = array(rnn.weight_hh_l0)
    diagonal = np.diagonal(inner)
    alone = np.array_equal(inner, np.diag(diagonal))
    back = to.add(f"{name}.before", one_later(to, diagonal.shape, Kind.REAL))
    driven = to.add(
        f"{name}.rnn",
        Linear(number(to, array(rnn.weight_ih_l0)), None if bias is None else number(to, bias)),
        x,
    )
    leaked = to.add(
        f"{name}.recurrent", Scale(number(to, diagonal)) if alone else Linear(number(to, inner)), back
    )
    membrane = to.add(f"{name}.membrane", Activation("relu"), driven + leaked)
    to.feed(back[0], membrane)
    node = Threshold(threshold=threshold_of(module, to, module.threshold), fires=fires)
    return graded(module, to, name, to.add(name, node, membrane))


@read.register
def _(module: StateLeaky, to: Builder, name: str, x: Value) -> Value | Results:
    """Read a neuron without a reset, the convolution of x with e^(-t / tau)."""
    return convolved(module, to, name, x)


@read.register
def _(module: LinearLeaky, to: Builder, name: str, x: Value) -> Value | Results:
    """Read a linear layer, and the `StateLeaky` that it feeds."""
    to.expects("sequence")
    return convolved(module, to, name, of_one(read(module.linear, to, f"{name}.linear", x)))


def convolved(module: StateLeaky, to: Builder, name: str, x: Value) -> Value | Results:
    """Read what a `StateLeaky` computes of x.

    A kernel cut off after K steps is that of a whole one fed by x_t - decay^K x_{t-K}.
    """
    to.expects("sequence")
    plain(module)
    tau = array(module.tau).astype(np.float64)
    if np.any(tau <= 0):
        raise refused(
            module, f"its tau is {said(tau)}, and a membrane that grows has no node; tau is above 0"
        )
    decay = np.exp(-1 / tau)
    to.notes.append(
        f"{name}: its membrane decays by exp(-1 / tau) = {said(decay)}, as snnTorch's kernel has it, and not by its "
        f"beta, {said(1 - 1 / tau)}"
    )
    cut = module.kernel_truncation_steps
    if cut is not None:
        to.notes.append(f"{name}: its kernel is cut off after {cut} steps")
        past = to.add(f"{name}.past", delay(to, to.signal(x), cut), x)
        x += to.add(f"{name}.forgotten", Scale(number(to, -(decay**cut))), past)
    beta = number(to, decay)
    if not module.output:
        return to.add(name, LIConvolution(beta=beta), x)
    fires, threshold = fires_of(module), threshold_of(module, to, module.threshold)
    membrane: Value | None = None
    if to.wanted <= {0}:
        spikes = to.add(name, LIFConvolution(beta=beta, threshold=threshold, reset="none", fires=fires), x)
    else:
        membrane = to.add(f"{name}.membrane", LIConvolution(beta=beta), x)
        spikes = to.add(name, Threshold(threshold=threshold, fires=fires), membrane)
    if np.any(array(module.graded_spikes_factor) != 1):
        to.notes.append(f"{name}: its spikes are scaled by graded_spikes_factor twice, as snnTorch does")
    spikes = graded(module, to, name, spikes, times=2)
    return Results((spikes, membrane))


@read.register
def _(module: AssociativeLeaky, to: Builder, name: str, x: Value) -> Value:
    """Read the matrix memory as the recurrence that its scan stands for."""
    to.expects("sequence")
    plain(module)
    if not module.output:
        raise refused(
            module, "with output=False it gives its membranes, and a memory's node gives spikes only"
        )
    if array(module.graded_spikes_factor).size > 1:
        raise refused(
            module, "its graded_spikes_factor differs between entries, and a memory's spikes are 0 and 1"
        )
    to.notes.append(
        f"{name}: read as S_t = S_(t-1) diag(alpha_t) + v_t k_t^T. snnTorch's own scan divides by the running product "
        f"of alpha + 1e-8, clamps alpha at {module.eps:g}, and leaves this recurrence as that product falls"
    )
    ports = {
        port: of_one(read(getattr(module, f"to_{port}"), to, f"{name}.to_{port}", x))
        for port in ("v", "k", "alpha")
    }
    ports["alpha"] = to.add(f"{name}.alpha", Activation("sigmoid"), ports["alpha"])
    if module.use_q_projection:
        ports["q"] = of_one(read(module.to_q, to, f"{name}.to_q", x))
    node = AssociativeScan(
        threshold=threshold_of(module, to, module.threshold),
        queries=module.d_value if module.use_q_projection else None,
        fires=fires_of(module),
    )
    return graded(module, to, name, to.add(name, node, **ports))


@read.register(SLSTM)
@read.register(SConv2dLSTM)
def _(module: Any, to: Builder, name: str, x: Value) -> Value:
    """Refuse an LSTM with a threshold."""
    raise refused(module, "it is an LSTM whose gates read its own membrane, and no spiking node has gates")


@read.register(rleaky.RecurrentOneToOne)
@read.register(rsynaptic.RecurrentOneToOne)
def _(module: Any, to: Builder, name: str, x: Value) -> Value:
    """Read y = V x."""
    return to.add(name, Scale(number(to, array(module.V))), x)


def leaky(to: Builder, name: str, x: Value, beta: Array, firing: Firing) -> tuple[Value, Value | None]:
    """Write a leaky neuron; its membrane is written only where it is wanted, or where no LIF does what it does."""
    if firing.reset == "subtract" and not firing.delayed:
        to.notes.append(
            f"{name}: with reset_delay=False a membrane that is still above the threshold after a reset raises the "
            "next step's threshold by itself once, as snnTorch does; a LIF with its reset at once does not"
        )
    elif to.wanted <= {0}:
        return to.add(name, LIF(beta=beta, **settings(firing)), x), None
    return composed(to, name, x, beta, firing)


def synaptic(
    module: Synaptic | RSynaptic, to: Builder, name: str, x: Value, firing: Firing
) -> tuple[Value, Value | None, Value | None]:
    """Write a leaky neuron behind a leaking current, likewise: its spikes, current and membrane."""
    alpha, beta = (decay_of(module, to, name, field) for field in ("alpha", "beta"))
    if to.wanted <= {0} and (firing.reset != "subtract" or firing.delayed):
        return to.add(name, CubaLIF(alpha=alpha, beta=beta, **settings(firing)), x), None, None
    current = to.add(f"{name}.current", LI(beta=alpha), x)
    spikes, membrane = leaky(to, name, current, beta, firing)
    return spikes, current, membrane


def recurrent(module: RLeaky | RSynaptic, to: Builder, name: str, back: Value) -> Value:
    """Write the layer through which a neuron's spikes come back to it."""
    value = of_one(read(module.recurrent, to, f"{name}.recurrent", back))
    to.expects("step")
    return value


def fed_back(module: RLeaky | RSynaptic, to: Builder, name: str, x: Value) -> Value:
    """Write the delay from which a neuron's spikes come back; they are to feed it."""
    scaled = np.any(array(module.graded_spikes_factor) != 1)
    return to.add(f"{name}.back", one_later(to, to.signal(x).shape, Kind.GRADED if scaled else Kind.SPIKE))


def of_one(value: Value | Results) -> Value:
    """Return the value of a module that returns one."""
    return cast(Value, value)

"""Rules of norse's neurons, as norse 1.1.0 computes them.

A cell takes one step, and the module without "Cell" in its name a whole sequence; both are the same recurrence. They
return spikes and a state, which starts as norse starts it and stays inside: only their own next step may use it. A
rate dt tau_inv is taken in the number format of the neuron's parameters, as norse does. SequentialState and Lift need
no rules: what they call is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from norse import torch as norse
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module import snn
from torch import nn

from unscan.compiler.frontends.builder import Builder, Results, Value
from unscan.compiler.frontends.composition import delay, number, one_later
from unscan.compiler.frontends.modules import array, read
from unscan.compiler.frontends.resting import (
    Membrane,
    decaying,
    fired,
    lowered,
    raised,
    spiking,
    stepped,
)
from unscan.compiler.frontends.rules import back_from, close, float64, plain, refuse, refused, said, within
from unscan.compiler.ir import Array, Kind, Signal
from unscan.compiler.nodes import LI, AdaptiveLIF, Linear, Scale

METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")
"""The gradients whose forward is a step, 1 above the threshold."""

QUADRATIC = "its membrane is driven by its own square, and no neuron here is; use an LIFCell"
EXPONENTIAL = "its membrane is driven by its own exponential, and no neuron here is; use an LIFCell"
COUPLED = "its membranes flow into each other beside their spikes, and no neuron here has compartments"
REASONS: dict[type[nn.Module], str] = {
    norse.LIFExCell: EXPONENTIAL,
    norse.LIFEx: EXPONENTIAL,
    norse.LIFExRecurrentCell: EXPONENTIAL,
    norse.LIFExRecurrent: EXPONENTIAL,
    norse.LIFAdExCell: EXPONENTIAL,
    norse.LIFAdEx: EXPONENTIAL,
    norse.LIFAdExRecurrentCell: EXPONENTIAL,
    norse.LIFAdExRecurrent: EXPONENTIAL,
    norse.LIFAdExRefracCell: EXPONENTIAL,
    norse.LIFAdExRefracRecurrentCell: EXPONENTIAL,
    norse.LIFAdExRefracRecurrent: EXPONENTIAL,
    norse.IzhikevichCell: QUADRATIC,
    norse.Izhikevich: QUADRATIC,
    norse.IzhikevichRecurrentCell: QUADRATIC,
    norse.IzhikevichRecurrent: QUADRATIC,
    norse.LIFMCRecurrentCell: COUPLED,
    norse.LIFMCRefracRecurrentCell: COUPLED,
    norse.LIFCorrelation: "it changes its weights as it runs, and a node's are the same at every step",
    norse.CobaLIFCell: "its conductances change its decay from step to step, and a neuron's here stays; use an LIFCell",
    snn.SNNCell: "no rule knows it; supported are LIFCell, LIFBoxCell, LIFRefracCell, LSNNCell, IAFCell, LICell and "
    "LIBoxCell, those for whole sequences and the recurrent ones",
    snn.SNN: "no rule knows it; supported are LIF, LSNN, IAF and LI",
    snn.SNNRecurrentCell: "no rule knows it; supported are LIFRecurrentCell, LIFRefracRecurrentCell, LSNNRecurrentCell",
    snn.SNNRecurrent: "no rule knows it; supported are LIFRecurrent, LIFRefracRecurrent and LSNNRecurrent",
}
"""Classes that have no node, and why."""


refuse(REASONS)


@read.register(norse.LIFCell)
@read.register(norse.LIF)
@read.register(norse.LIFRecurrentCell)
@read.register(norse.LIFRecurrent)
def _(module: Any, to: Builder, name: str, x: Value) -> Results:
    """Read i = i + x, v = v + dt tau_mem_inv (v_leak - v + i), with a reset of v, and i decays behind it."""
    timed(module, to)
    x, back = wired(module, to, name, x)
    spikes = spiking(module, to, name, x, membrane_of(module, module.p), decay(module, module.p.tau_syn_inv))
    return returned(close(module, to, back, spikes))


@read.register
def _(module: norse.LIFBoxCell, to: Builder, name: str, x: Value) -> Results:
    """Read v = v + dt tau_mem_inv (v_leak - v + x), with a reset to v_reset or by v_th."""
    timed(module, to)
    if module.p.reset_method not in (reset_value, reset_subtract):
        raise refused(module, "its reset_method is none of norse's own, reset_value and reset_subtract")
    subtracts = module.p.reset_method is reset_subtract
    return returned(spiking(module, to, name, x, membrane_of(module, module.p, subtracts=subtracts)))


@read.register(norse.IAFCell)
@read.register(norse.IAF)
def _(module: Any, to: Builder, name: str, x: Value) -> Results:
    """Read v = v + x, with a reset to v_reset, where it starts."""
    timed(module, to)
    low = float64(module.p.v_reset)
    stepping(module, module.p)
    membrane = Membrane(1.0, float64(module.p.v_th), low, low, low, fires=">")
    return returned(spiking(module, to, name, x, membrane))


@read.register(norse.LSNNCell)
@read.register(norse.LSNN)
@read.register(norse.LSNNRecurrentCell)
@read.register(norse.LSNNRecurrent)
def _(module: Any, to: Builder, name: str, x: Value) -> Results:
    """Read a membrane fed by the current of the step before, under a threshold that rises with each spike.

    b decays to v_th by rho and rises by beta: at a spike's next step b - v_th is rho beta, the kappa of the node.
    """
    timed(module, to)
    x, back = wired(module, to, name, x)
    membrane = membrane_of(module, module.p)
    settings = membrane.settings(module, to, name)
    rho, rise = decay(module, module.p.tau_adapt_inv), float64(module.p.beta)
    if np.any((rho <= 0) | (rho > 1)) or np.any(rise <= 0):
        raise refused(
            module,
            f"its beta, {said(rise)}, and its adaptation's decay, {said(rho)}, are to be greater than 0, the decay "
            "1 at most",
        )
    alpha = decaying(module, to, "current", decay(module, module.p.tau_syn_inv))
    current = to.add(f"{name}.current", LI(beta=alpha), x)
    late = to.add(f"{name}.late", one_later(to, to.signal(current).shape, Kind.REAL), current)
    node = AdaptiveLIF(kappa=number(to, rho * rise), rho=number(to, rho), **settings)
    return returned(close(module, to, back, to.add(name, node, membrane.driven(to, name, late))))


@read.register(norse.LIFRefracCell)
@read.register(norse.LIFRefracRecurrentCell)
@read.register(norse.LIFRefracRecurrent)
def _(module: Any, to: Builder, name: str, x: Value) -> Results:
    """Read an LIF whose membrane stands still for the rho_reset steps after its spike, rounded up."""
    timed(module, to)
    rests = np.ceil(float64(module.p.rho_reset))
    x, back = wired(module, to, name, x)
    membrane, alpha = membrane_of(module, module.p.lif), decay(module, module.p.lif.tau_syn_inv)
    if np.any(rests != rests.flat[0]):
        raise refused(
            module, f"its rho_reset, {said(rests)}, differs between neurons, and one number is wanted"
        )
    steps = int(rests.flat[0])
    if steps <= 0:
        return returned(close(module, to, back, spiking(module, to, name, x, membrane, alpha)))
    settings = membrane.settings(module, to, name)
    current = to.add(f"{name}.current", LI(beta=decaying(module, to, "current", alpha)), x)
    driven = membrane.driven(to, name, current)
    rate = number(to, 1 - np.asarray(membrane.beta))
    past, u = stepped(to, name, to.add(f"{name}.gain", Scale(rate), driven), settings["beta"])
    spike = Signal(Kind.SPIKE, to.signal(x).shape)
    since, until = (
        to.add(f"{name}.{part}", delay(to, spike, n)) for part, n in (("since", 1), ("until", steps + 1))
    )
    ended = to.add(f"{name}.ended", Scale(to.number(-1)), until)
    resting = to.add(f"{name}.resting", LI(beta=to.number(1)), since + ended)
    free = lowered(to, f"{name}.held", u, resting)
    spikes = fired(to, name, free, settings)
    for before in (*since, *until):
        to.feed(before, spikes)
    to.feed(past[0], lowered(to, f"{name}.reset", free, spikes))
    return returned(close(module, to, back, spikes))


@read.register(norse.LICell)
@read.register(norse.LI)
@read.register(norse.LILinearCell)
def _(module: Any, to: Builder, name: str, x: Value) -> Results:
    """Read i = i + x, v = v + dt tau_mem_inv (v_leak - v + i), which leaves it, and i decays behind it."""
    timed(module, to)
    if isinstance(module, norse.LILinearCell):
        x = to.add(f"{name}.input", Linear(number(to, array(module.input_weights))), x)
    alpha = decaying(module, to, "current", decay(module, module.p.tau_syn_inv))
    return integrated(module, to, name, to.add(f"{name}.current", LI(beta=alpha), x))


@read.register
def _(module: norse.LIBoxCell, to: Builder, name: str, x: Value) -> Results:
    """Read v = v + dt tau_mem_inv (v_leak - v + x), which leaves it."""
    timed(module, to)
    return integrated(module, to, name, x)


@read.register
def _(module: norse.RecurrentSequential, to: Builder, name: str, x: Value) -> Results:
    """Read modules behind each other, fed by x and by what left one of them in the step before."""
    plain(module)
    to.expects("step")
    chosen = module.output_modules
    if not isinstance(chosen, int):
        raise refused(module, "with several output_modules it returns several signals; choose one")
    inner = list(module.module)
    back = back_from(to, name, to.signal(x).shape)
    left, y = [], x + back
    for i, part in enumerate(inner):
        y = within(module, part, to, f"{name}.module.{i}", y)
        left.append(y)
    to.expects("step")
    return returned(close(module, to, back, left[chosen]))


def integrated(module: Any, to: Builder, name: str, x: Value) -> Results:
    """Write the membrane of a neuron that does not fire: above v_leak, where it starts, and v_leak added."""
    beta = decaying(module, to, "membrane", decay(module, module.p.tau_mem_inv))
    leak = float64(module.p.v_leak)
    v = to.add(name, LI(beta=beta, gain="1-beta"), x)
    return Results((raised(to, f"{name}.leak", v, leak) if np.any(leak) else v, None))


def membrane_of(module: Any, p: Any, *, subtracts: bool = False) -> Membrane:
    """Return the membrane of a neuron with v_th, v_leak and v_reset, which starts at v_leak."""
    stepping(module, p)
    leak = float64(p.v_leak)
    return Membrane(
        beta=decay(module, p.tau_mem_inv),
        threshold=float64(p.v_th),
        low=None if subtracts else float64(p.v_reset),
        rest=leak,
        start=leak,
        fires=">",
        gain="1-beta",
    )


def stepping(module: nn.Module, p: Any) -> None:
    """Raise Unsupported for a neuron whose spikes are no step of its membrane."""
    if p.method not in METHODS:
        raise refused(module, f"its method is {p.method!r}, and those that fire are {', '.join(METHODS)}")


def decay(module: Any, inverse: Any) -> Array:
    """Return 1 - dt / tau."""
    return 1 - float64(module.dt * inverse)


def timed(module: Any, to: Builder) -> None:
    """Raise Unsupported unless a cell is handed one step, and another module a whole sequence."""
    plain(module)
    to.expects("sequence" if isinstance(module, snn.SNN | snn.SNNRecurrent) else "step")


def wired(module: Any, to: Builder, name: str, x: Value) -> tuple[Value, Value]:
    """Return what feeds a neuron, and the delay that its spikes are to feed, where it has weights of its own."""
    if not isinstance(module, snn.SNNRecurrentCell | snn.SNNRecurrent):
        return x, ()
    inner, outer = (
        Linear(number(to, array(weight))) for weight in (module.recurrent_weights, module.input_weights)
    )
    back = back_from(to, name, inner.weight.shape[:1])
    return to.add(f"{name}.input", outer, x) + to.add(f"{name}.recurrent", inner, back), back


def returned(spikes: Value) -> Results:
    """Return a neuron's spikes, and its state, which has no place in a graph."""
    return Results((spikes, None))

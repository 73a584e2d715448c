"""ONNX for neurons, delay lines and state-space models."""

from __future__ import annotations

import numpy as np

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
from unscan.targets.onnx_step import Step, emit_node


@emit_node.register
def _(node: Delay, step: Step, name: str) -> str:
    past = step.add("Flatten", [step.spread(f"{name}.past")], name, "flat", axis=1)
    size = int(np.prod(node.shape))
    back = np.broadcast_to(node.steps.astype(np.int64) - 1, node.shape)
    at = back * size + np.arange(size).reshape(node.shape)
    return step.add("Gather", [past, step.constant(at, name, "at", np.int64)], name, "y", axis=1)


def push(node: Delay, step: Step, name: str) -> None:
    """Write the next state of a delay line, once all that can feed it is written."""
    kept = step.widened(step.arriving(name, "x"), [1], name, "newest")
    if node.longest > 1:
        older = step.split(
            "Split",
            [
                step.spread(f"{name}.past"),
                step.constant([node.longest - 1, 1], name, "ages", np.int64),
            ],
            name,
            "older",
            "oldest",
            axis=1,
        )
        kept = step.add("Concat", [kept, older[0]], name, "past", axis=1)
    step.keep(kept, f"{name}.past")


@emit_node.register
def _(node: LI, step: Step, name: str, x: str) -> str:
    u = integrate(node, step, name, x)
    step.keep(u, f"{name}.u")
    step.membranes[name] = u
    return u


@emit_node.register
def _(node: Threshold, step: Step, name: str, x: str) -> str:
    return spiking(step, name, x, fires(node, step, name, x, "fired_now"))


@emit_node.register
def _(node: LIF, step: Step, name: str, x: str) -> str:
    return lif(node, step, name, x)


@emit_node.register
def _(node: CubaLIF, step: Step, name: str, x: str) -> str:
    alpha = step.constant(node.alpha, name, "alpha")
    kept = step.add("Mul", [step.boundary(f"{name}.i"), alpha], name, "current_decayed")
    i = step.add("Add", [kept, x], name, "current")
    step.keep(i, f"{name}.i")
    return lif(node, step, name, i)


@emit_node.register
def _(node: AdaptiveLIF, step: Step, name: str, x: str) -> str:
    u, a = integrate(node, step, name, x), step.boundary(f"{name}.a")
    raised = step.add("Mul", [a, step.constant(node.kappa, name, "kappa")], name, "raised")
    theta = step.constant(node.threshold, name, "threshold")
    fired = compare(node, step, name, u, step.add("Add", [theta, raised], name, "level"), "fired_now")
    step.keep(reset(node, step, name, u, fired, theta), f"{name}.u")
    spikes = spiking(step, name, u, fired)
    tired = step.add("Mul", [a, step.constant(node.rho, name, "rho")], name, "rested")
    step.keep(step.add("Add", [tired, spikes], name, "adapted"), f"{name}.a")
    return spikes


def lif(node: Spiking, step: Step, name: str, x: str) -> str:
    """Write the step of a LIF fed by x and return the name of its spikes."""
    theta = step.constant(node.threshold, name, "threshold")
    u = integrate(node, step, name, x)
    if node.phase == "next":
        before = fires(node, step, name, step.boundary(f"{name}.u"), "fired_before")
        u = reset(node, step, name, u, before, theta)
    fired = fires(node, step, name, u, "fired_now")
    step.keep(u if node.phase == "next" else reset(node, step, name, u, fired, theta), f"{name}.u")
    return spiking(step, name, u, fired)


def integrate(node: Leaky, step: Step, name: str, x: str) -> str:
    """Write beta u + g x and return its name."""
    beta = node.beta.astype(np.float64)
    kept = step.add("Mul", [step.boundary(f"{name}.u"), step.constant(beta, name, "beta")], name, "decayed")
    if node.gain == "1-beta":
        x = step.add("Mul", [x, step.constant(1 - beta, name, "gain")], name, "gained")
    return step.add("Add", [kept, x], name, "integrated")


def fires(node: Spiking | Threshold | StoredMemory, step: Step, name: str, u: str, label: str) -> str:
    """Write H(u - theta) and return the name of the condition."""
    return compare(node, step, name, u, step.constant(node.threshold, name, "threshold"), label)


def compare(
    node: Spiking | Threshold | StoredMemory, step: Step, name: str, u: str, level: str, label: str
) -> str:
    """Write H(u - level) and return the name of the condition, a tie counted as the node says."""
    return step.add("GreaterOrEqual" if node.fires == ">=" else "Greater", [u, level], name, label)


def reset(node: Spiking | StoredMemory, step: Step, name: str, u: str, fired: str, theta: str) -> str:
    """Write the reset of u, by theta, where `fired` holds and return its name."""
    if node.reset == "subtract":
        spikes = step.as_number(fired, name, "resetting")
        return step.add("Sub", [u, step.add("Mul", [spikes, theta], name, "drop")], name, "reset")
    if node.reset == "zero":
        return step.add("Where", [fired, step.constant(0, name, "zero"), u], name, "reset")
    return u


def spiking(step: Step, name: str, u: str, fired: str) -> str:
    """Record the membrane of a neuron and its spikes, as numbers, and return the name of those."""
    step.membranes[name] = u
    step.spikes[name] = step.as_number(fired, name, "spikes")
    return step.spikes[name]


@emit_node.register
def _(node: DiagonalSSM, step: Step, name: str, x: str) -> str:
    real, imaginary = (step.constant(node.a[..., i : i + 1], name, f"a{i}") for i in (0, 1))
    h = step.split("Split", [step.spread(f"{name}.h")], name, "h0", "h1", axis=-1)
    kept = step.add("Mul", [h[0], real], name, "kept0")
    turned = step.add("Mul", [h[1], imaginary], name, "turned0")
    turning = step.add("Sub", [kept, turned], name, "turning0")
    wide = step.widened(x, [2, 3], name, "wide")
    h0 = step.add("Add", [turning, wide], name, "next0")
    kept, turned = (
        step.add("Mul", [part, a], name, label)
        for part, a, label in ((h[1], real, "kept1"), (h[0], imaginary, "turned1"))
    )
    h1 = step.add("Add", [kept, turned], name, "next1")
    modes = step.add("Concat", [h0, h1], name, "modes", axis=-1)
    step.keep(modes, f"{name}.h")
    c = step.constant(2 * node.c * np.array([1, -1]), name, "c")
    read = step.summed(step.add("Mul", [modes, c], name, "weighed"), [2, 3], name, "read")
    passed = step.add("Mul", [x, step.constant(node.d, name, "d")], name, "passed")
    return step.add("Add", [read, passed], name, "y")

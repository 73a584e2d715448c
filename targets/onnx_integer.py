"""ONNX for neurons, state-space models and memories on whole numbers; see `unscan.compiler.nodes.integer`.

States are int32. What is computed on the way is int64, where a state of 24 bits times a decay of 12 fits. Its division
truncates towards zero, as a decay does.
"""

from __future__ import annotations

import numpy as np

from unscan.compiler.fixed import Fixed
from unscan.compiler.nodes import (
    Integer,
    IntegerCubaLIF,
    IntegerLeaky,
    IntegerLI,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
)
from unscan.targets.onnx_memory import nonzeros, row
from unscan.targets.onnx_step import Step, emit_whole, tally
from unscan.targets.onnx_whole import entering, saturated, shifted, wide


@emit_whole.register
def _(node: IntegerLI, step: Step, name: str, x: str) -> str:
    current = pushed(node, step, name, x)
    u = step.cast(driven(node, step, name, current, held(step, f"{name}.u", name)), np.int32, name, "u")
    step.keep(u, f"{name}.u")
    step.membranes[name] = u
    return u


@emit_whole.register
def _(node: IntegerLIF, step: Step, name: str, x: str) -> str:
    return fired(node, step, name, pushed(node, step, name, x))


@emit_whole.register
def _(node: IntegerCubaLIF, step: Step, name: str, x: str) -> str:
    alpha = step.stored(node.alpha, name, "alpha", np.int64)
    kept = faded(step, name, alpha, held(step, f"{name}.i", name), node.decay_bits, "current_decayed")
    current = step.add("Add", [kept, drive(node, step, name, x)], name, "current_reached")
    current = limited(node, step, name, current)
    step.keep(current, f"{name}.i")
    return fired(node, step, name, current)


def held(step: Step, state: str, name: str) -> str:
    """Write a state as int64 and return its name."""
    return wide(step, name, step.boundary(state), f"{state.rpartition('.')[2]}_before")


def drive(node: IntegerLeaky | IntegerSSM | IntegerMemory, step: Step, name: str, x: str) -> str:
    """Write x 2^shift as int64 and return its name."""
    x = wide(step, name, x, "x_wide")
    if not node.shift:
        return x
    return step.add("Mul", [x, step.constant(2**node.shift, name, "unit", np.int64)], name, "drive")


def pushed(node: IntegerLeaky, step: Step, name: str, x: str) -> str:
    """Write the current limit(x 2^shift) as int64 and return its name; what always fits needs no limit."""
    current = drive(node, step, name, x)
    if entering(step, name, "x").max << node.shift <= Fixed(node.bits).max:
        return current
    return limited(node, step, name, current)


def faded(step: Step, name: str, decay: str, x: str, bits: int, label: str) -> str:
    """Write fade(decay, x), both int64, and return its name."""
    product = step.add("Mul", [x, decay], name, f"{label}_product")
    return truncated(step, name, product, bits, label)


def truncated(step: Step, name: str, x: str, bits: int, label: str) -> str:
    """Write x / 2^bits, truncated towards zero, and return its name."""
    return step.add("Div", [x, step.constant(2**bits, name, f"{label}_one", np.int64)], name, label)


def limited(node: IntegerLeaky, step: Step, name: str, current: str) -> str:
    """Write a current as its bits hold it, wrapped or saturated, as int64 and return its name."""
    format = Fixed(node.bits)
    if not node.wraps:
        return saturated(step, name, current, format, "current")
    below = step.constant(format.max, name, "below", np.int64)
    lifted = step.add("Add", [current, below], name, "lifted")
    around = step.constant(2**node.bits, name, "around", np.int64)
    wrapped = step.add("Sub", [step.add("Mod", [lifted, around], name, "turned"), below], name, "wrapped")
    step.clipped.setdefault(name, []).append((current, wrapped))
    return wrapped


def driven(node: IntegerLeaky, step: Step, name: str, current: str, u: str, drop: str | None = None) -> str:
    """Write sat(fade(beta, u) + current + bias - drop) as int64 and return its name."""
    beta = step.stored(node.beta, name, "beta", np.int64)
    reached = faded(step, name, beta, u, node.decay_bits, "decayed")
    reached = step.add("Add", [reached, current], name, "integrated")
    if node.bias is not None:
        bias = step.stored(node.bias, name, "bias", np.int64)
        reached = step.add("Add", [reached, bias], name, "biased")
    if drop is not None:
        reached = step.add("Sub", [reached, drop], name, "dropped")
    return saturated(step, name, reached, Fixed(node.bits), "reached")


def fired(node: IntegerLIF, step: Step, name: str, current: str) -> str:
    """Write the step of a LIF that a current drives and return the name of its spikes."""
    theta = step.stored(node.threshold, name, "threshold", np.int64)
    u, zero = held(step, f"{name}.u", name), step.constant(0, name, "zero", np.int64)
    drop = last = None
    if node.phase == "next" and node.reset != "none":
        last = step.add("Greater", [u, theta], name, "fired_before")
        if node.reset == "subtract":
            drop = step.add("Where", [last, theta, zero], name, "drop")
    reached = driven(node, step, name, current, u, drop)
    if last is not None and node.reset == "zero":
        reached = step.add("Where", [last, zero, reached], name, "cleared")
    fires = step.add("Greater", [reached, theta], name, "fired_now")
    kept = reached
    if node.phase == "now" and node.reset == "zero":
        kept = step.add("Where", [fires, zero, reached], name, "reset")
    elif node.phase == "now" and node.reset == "subtract":
        fallen = step.add("Sub", [reached, theta], name, "fallen")
        kept = step.add("Where", [fires, fallen, reached], name, "reset")
    step.keep(kept, f"{name}.u")
    return spiking(step, name, reached, fires)


def spiking(step: Step, name: str, u: str, fires: str) -> str:
    """Record the membrane of a node and its spikes, as int32, and return the name of those."""
    step.membranes[name] = step.cast(u, np.int32, name, "membrane")
    step.spikes[name] = step.cast(fires, np.int32, name, "spikes")
    return step.spikes[name]


@emit_whole.register
def _(node: IntegerSSM, step: Step, name: str, x: str) -> str:
    a, b, c, e = (
        step.stored(np.ascontiguousarray(pairs[..., i : i + 1]), name, f"{label}{i}", np.int64)
        for label, pairs in (("a", node.a), ("c", node.c))
        for i in (0, 1)
    )
    before = wide(step, name, step.spread(f"{name}.h"), "h_before")
    h = step.split("Split", [before], name, "h0", "h1", axis=-1)
    products = [
        step.add("Mul", [part, factor], name, label)
        for part, factor, label in (
            (h[0], a, "real0"),
            (h[1], b, "real1"),
            (h[1], a, "imaginary0"),
            (h[0], b, "imaginary1"),
        )
    ]
    real = step.add("Sub", products[:2], name, "real_turning")
    imaginary = step.add("Add", products[2:], name, "imaginary_turning")
    driven_by = drive(node, step, name, x)
    real = truncated(step, name, real, node.decay_bits, "real_turned")
    real = step.add("Add", [real, step.widened(driven_by, [2, 3], name, "drive_wide")], name, "real")
    imaginary = truncated(step, name, imaginary, node.decay_bits, "imaginary")
    modes = step.add("Concat", [real, imaginary], name, "modes", axis=-1)
    modes = saturated(step, name, modes, Fixed(node.bits), "h")
    step.keep(modes, f"{name}.h")
    kept = step.split("Split", [modes], name, "kept0", "kept1", axis=-1)
    weighed = [
        step.add("Mul", [part, factor], name, label)
        for part, factor, label in zip(kept, (c, e), ("weighed0", "weighed1"), strict=True)
    ]
    read = step.summed(step.add("Sub", weighed, name, "weighed"), [2, 3], name, "read")
    passed = step.add("Mul", [driven_by, step.stored(node.d, name, "d", np.int64)], name, "passed")
    total = step.add("Add", [read, passed], name, "total")
    return saturated(step, name, shifted(step, name, total, node.out_shift, "shifted"), node.format, "y")


@emit_whole.register
def _(node: IntegerMemory, step: Step, name: str, v: str, k: str, alpha: str, q: str | None = None) -> str:
    decay = row(step, name, wide(step, name, alpha, "alpha_wide"), "alpha")
    kept = faded(step, name, decay, held(step, f"{name}.S", name), node.decay_bits, "decayed")
    column = step.widened(drive(node, step, name, v), [2], name, "v_column")
    written = step.add("Mul", [column, row(step, name, wide(step, name, k, "k_wide"), "k")], name, "written")
    reached = step.add("Add", [kept, written], name, "added")
    S = saturated(step, name, reached, Fixed(node.bits), "S")
    theta = step.stored(node.threshold, name, "threshold", np.int64)
    fires = step.add("Greater", [S, theta], name, "fired_now")
    after = S
    if node.reset != "none":
        other = (
            step.constant(0, name, "zero", np.int64)
            if node.reset == "zero"
            else step.add("Sub", [S, theta], name, "fallen")
        )
        after = step.add("Where", [fires, other, S], name, "reset")
    step.keep(after, f"{name}.S")
    spikes = spiking(step, name, S, fires)
    if node.queries is None:
        return step.add("Flatten", [spikes], name, "y", axis=1)
    assert q is not None
    columns = step.graph.inputs(name)["k"].shape[0]
    queries = step.reshaped(q, (columns, node.queries), name, "queries")
    spikes = step.cast(spikes, step.type_of(queries), name, "spikes_wide")
    return step.add("Flatten", [step.add("MatMul", [spikes, queries], name, "read")], name, "y", axis=1)


@tally.register
def _(node: Integer, step: Step, name: str) -> dict[str, str]:
    changed = [
        changes(step, name, before, after, f"change{i}")
        for i, (before, after) in enumerate(step.clipped.get(name, []))
    ]
    if not changed:
        return {}
    total = changed[0]
    for i, more in enumerate(changed[1:]):
        total = step.add("Add", [total, more], name, f"saturated{i}")
    return {"saturated": total}


def changes(step: Step, name: str, before: str, after: str, label: str) -> str:
    """Write how many numbers of each sample a format changed and return its name."""
    differ = step.add(
        "Not", [step.add("Equal", [before, after], name, f"{label}_same")], name, f"{label}_differ"
    )
    flat = step.add(
        "Flatten", [step.cast(differ, np.int32, name, f"{label}_here")], name, f"{label}_flat", axis=1
    )
    return step.summed(flat, [1], name, f"{label}_count")


@tally.register
def _(node: IntegerMemory, step: Step, name: str) -> dict[str, str]:
    rows, columns = (nonzeros(step, name, step.ports[name][port], port) for port in ("v", "k"))
    writes = step.add("Mul", [rows, columns], name, "writes")
    return {"writes": writes, **tally.dispatch(Integer)(node, step, name)}

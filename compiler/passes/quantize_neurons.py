"""Whole numbers for what reads weights: neurons, integrators, thresholds and the output.

A neuron's recurrence and each of its resets are homogeneous, so it keeps its spikes where its membrane, its threshold
and all that reaches it are multiplied by K (`quantize_layers`). u >= theta is then u_int > ceil(K theta) - 1.

A neuron that subtracts its threshold takes off what it compares with. So where a tie fires, K theta - 1, one unit of 1
is left at each spike; where the unit is larger, K theta is taken off, and a tie waits for the next input.
"""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np

from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array, Edge, Kind, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    CubaLIF,
    Delay,
    DiagonalSSM,
    IntegerCubaLIF,
    IntegerLI,
    IntegerLIF,
    Linear,
    Output,
    Threshold,
)
from unscan.compiler.passes.quantize_layers import Layer
from unscan.compiler.passes.quantize_lowering import Carried, Lowering, compact
from unscan.compiler.passes.quantize_signals import lower, refused
from unscan.compiler.passes.quantize_weights import ROOM, whole
from unscan.compiler.profiles import quantised_bias, quantised_decay, quantised_threshold, share


@lower.register
def _(node: LIF | CubaLIF, name: str, made: Lowering) -> None:
    layer, profile = Layer(name, made), made.profile
    theta = layer.rows(node.threshold)
    currents = ("membrane", "i") if isinstance(node, CubaLIF) else ("membrane",)
    moves = not isinstance(node, CubaLIF) or not np.any(node.alpha)
    recurrent = made.soft_reset == "recurrent" and isinstance(node, LIF) and node.reset == "subtract"
    bias = layer.bias() if moves and not recurrent else None
    inputs = layer.largest_bias(bias)
    ceiling = np.min(
        [
            share(Fixed(profile.state_bits).max, layer.measured(*currents)),
            share(Fixed(profile.state_bits).max - 1, theta.max(axis=1)),
            share((2.0**profile.threshold_bits - 1) * profile.unit, theta.max(axis=1)),
            *([] if inputs is None else [share(Fixed(profile.bias_bits).max * profile.unit, inputs)]),
        ],
        axis=0,
    )
    scale, shift = layer.scales(ceiling, theta.max(axis=1), inputs)
    if recurrent:
        scale = even_thresholds(scale, theta, node, name)
    K = scale * 2.0**shift
    decays = {
        key: quantised_decay(profile, getattr(node, key)) for key in ("beta", "alpha") if hasattr(node, key)
    }
    leaks = any(np.any((d > 0) & (d < 2**profile.decay_bits)) for d in decays.values())
    exact = not leaks and node.reset != "subtract"
    level = quantised_threshold(profile, theta, K[:, None], node.fires, whole=exact)
    if recurrent:
        level = theta * K[:, None]
    settings: dict[str, Any] = {
        **{key: whole(value) for key, value in decays.items()},
        "bias": None if bias is None else moved_bias(layer, bias, K),
        "threshold": whole(compact(np.reshape(level, layer.shape))),
        "reset": node.reset,
        "phase": node.phase,
        "trained_reset": node.trained_reset,
        "shift": shift,
        "bits": profile.state_bits,
        "decay_bits": profile.decay_bits,
        "wraps": profile.wraps,
    }
    sources = layer.write(scale, profile.state_bits - shift, moved=bias is not None)
    made.units[name] = layer.full(K)
    if recurrent:
        resetting(layer, settings, sources, level)
    else:
        kind = IntegerCubaLIF if isinstance(node, CubaLIF) else IntegerLIF
        made.add(name, kind(**settings), sources)
    said(layer, K, decays, f"thresholds {span(level)}")


def resetting(layer: Layer, settings: dict[str, Any], sources: list[str], level: Array) -> None:
    """Write a neuron whose own spikes take the threshold off its current, a step later; see `soft_reset`."""
    name, made, profile = layer.name, layer.made, layer.profile
    if len(layer.shape) != 1:
        raise refused(
            layer.node, name, 'soft_reset="recurrent" is a matrix over one axis of neurons, and it has more'
        )
    mantissa = level.reshape(-1) / profile.unit
    settings |= {"alpha": settings["beta"], "beta": np.int32(0), "reset": "zero", "phase": "now"}
    made.nodes[f"{name}.delay"] = Delay(steps=np.ones((), np.float32), shape=layer.shape, kind=Kind.SPIKE)
    back = made.add(f"{name}.reset", Linear(whole(np.diag(-mantissa))), [f"{name}.delay"])
    made.add(name, IntegerCubaLIF(**settings), [*sources, back])
    made.edges.append(Edge(name, f"{name}.delay"))
    if layer.node.phase == "now":
        made.notes.append(
            f"{name}: its reset acts one step later, after the leak, through weights of its own spikes"
        )


def even_thresholds(scale: Array, theta: Array, node: Node, name: str) -> Array:
    """Return P with which the thresholds P theta are even numbers up to 254, as recurrent weights have to be."""
    if np.ptp(theta, axis=1).any():
        raise refused(node, name, 'soft_reset="recurrent" needs one threshold for each row of weights')
    wanted = 2 * np.floor(np.minimum(scale * theta[:, 0], 254) / 2)
    if (wanted < 2).any():
        raise refused(
            node,
            name,
            f"its threshold would count {float((scale * theta[:, 0]).min()):.2g} weights, and 2 is the least",
        )
    return np.asarray(wanted / theta[:, 0])


def moved_bias(layer: Layer, bias: Array, K: Array) -> Array:
    """Return the biases of neurons in whole numbers."""
    each = np.asarray(bias * layer.gain.reshape(layer.shape).reshape(len(bias), -1)[:, 0])
    numbers = quantised_bias(layer.profile, each, np.broadcast_to(K, len(bias)))
    return whole(compact(numbers.reshape(-1, *(1,) * (len(layer.shape) - 1))))


def said(layer: Layer, K: Array, decays: dict[str, Array], more: str = "") -> None:
    """Note what was chosen for a layer."""
    made, profile = layer.made, layer.profile
    largest = f"weights up to {layer.heaviest}, " if layer.heaviest else ""
    moved = {
        key: float(np.abs(value / 2.0**profile.decay_bits - getattr(layer.node, key)).max())
        for key, value in decays.items()
    }
    by = "".join(f", {key} moved by at most {value:.2g}" for key, value in moved.items())
    made.notes.append(
        f"{layer.name}: {largest}1 counts {span(K)}{', ' * bool(more)}{more}, states of {profile.state_bits} bits{by}"
    )


def span(values: Array) -> str:
    """Return the least and the largest of some numbers, or the one that they all are."""
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.5g}" if low == high else f"{low:.5g} to {high:.5g}"


@lower.register
def _(node: LI, name: str, made: Lowering) -> None:
    layer, profile = Layer(name, made, one=True), made.profile
    bias = layer.bias()
    bounds = [share(Fixed(profile.state_bits).max, layer.measured("membrane"))]
    if bias is not None:
        inputs = layer.largest_bias(bias)
        assert inputs is not None
        bounds.append(share(Fixed(profile.bias_bits).max * profile.unit, inputs))
    scale, shift = layer.scales(np.min(bounds, axis=0), None, None)
    K = scale * 2.0**shift
    beta = quantised_decay(profile, node.beta)
    sources = layer.write(scale, profile.state_bits - shift, moved=True)
    made.add(
        name,
        IntegerLI(
            beta=whole(beta),
            bias=None if bias is None else moved_bias(layer, bias, K),
            shift=shift,
            bits=profile.state_bits,
            decay_bits=profile.decay_bits,
            wraps=profile.wraps,
            fraction=int(log2(K[0])),
        ),
        sources,
    )
    made.units[name] = layer.full(K)
    made.carried[name] = Carried(name, layer.full(K), Fixed(profile.state_bits).max)
    said(layer, K, {"beta": beta})


@lower.register
def _(node: Threshold, name: str, made: Lowering) -> None:
    layer = Layer(name, made, stateless=True)
    theta = layer.rows(node.threshold)
    ceiling = np.minimum(share(ROOM / 2, layer.measured("membrane")), share(ROOM / 2, theta.max(axis=1)))
    scale, _ = layer.scales(ceiling, None, None)
    exact = theta * scale[:, None]
    level = np.ceil(exact) if node.fires == ">=" else np.floor(exact) + 1
    sources = layer.write(scale, 31, moved=False)
    made.add(name, Threshold(threshold=whole(compact(np.maximum(level, 1).reshape(layer.shape)))), sources)
    made.units[name] = layer.full(scale)
    said(layer, scale, {}, f"thresholds {span(level)}")


@lower.register
def _(node: Output, name: str, made: Lowering) -> None:
    if all(leaves is not None for leaves in made.leaves[name]):
        layer = Layer(name, made, one=True, stateless=True, direct=True)
        filters = any(isinstance(made.graph.nodes[leaf.name], DiagonalSSM) for leaf in layer.all)
        room = Fixed(made.profile.signal_bits).max if filters else ROOM / 2
        scale, _ = layer.scales(share(room, layer.measured()), None, None)
        made.add(name, node, layer.write(scale, made.profile.signal_bits, moved=False))
        unit = float(scale[0])
    else:
        parts = made.arriving(name, uniform=True)
        made.add(name, node, [part.name for part in parts])
        unit = float(parts[0].unit.flat[0])
    made.carried[name] = Carried(name, np.full(made.graph.signals[name].shape, unit), ROOM)

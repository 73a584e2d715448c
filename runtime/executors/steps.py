"""What every node means: one step in float64 numpy, written to be read. Every other executor is tested against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.functions import FUNCTIONS
from unscan.compiler.ir import Array, Node
from unscan.compiler.nodes import (
    GLU,
    LI,
    LIF,
    Activation,
    Adaptive,
    Associative,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Convolution,
    Cuba,
    Delay,
    Delta,
    Diagonal,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    Leaky,
    LIConvolution,
    LIFAnnealed,
    LIFConvolution,
    LIFScan,
    LIFSurrogate,
    Linear,
    MaxPool2d,
    Memory,
    Multiply,
    Output,
    Pool2d,
    Reshape,
    RMSNorm,
    Scale,
    Spiking,
    StoredMemory,
    Threshold,
    TopK,
)
from unscan.runtime.executors.arithmetic import double, unit, windows

State = dict[str, Array]
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Stepped(NamedTuple):
    """What one step of a node gives.

    Attributes:
        value: what leaves it.
        state: its next state.
        membrane: before the reset, where it has one.
        spikes: bool, in the membrane's shape, where it fires.
        tallies: work that no event tells of, (B,) each; see `runtime.counts`.
    """

    value: Array
    state: Mapping[str, Array] = NOTHING
    membrane: Array | None = None
    spikes: Array | None = None
    tallies: Mapping[str, Array] = NOTHING


@singledispatch
def step(node: Node, state: State, **ports: Array) -> Stepped:
    """Run one step of one node: `state` is what it kept, (B, ...), and each port gets what arrives, (B, ...)."""
    raise Unsupported(f"The reference has no meaning for {type(node).__name__}.")


@step.register
def _(node: Output | Input, state: State, x: Array) -> Stepped:
    return Stepped(x)


@step.register
def _(node: Linear, state: State, x: Array) -> Stepped:
    y = x @ double(node.weight).T
    return Stepped(y if node.bias is None else y + node.bias)


@step.register
def _(node: Embedding, state: State, x: Array) -> Stepped:
    return Stepped(double(node.weight)[x[:, 0].astype(np.int64)])


@step.register
def _(node: Convolution, state: State, x: Array) -> Stepped:
    assert isinstance(node.dilation, tuple)
    kernel, axes = node.weight.shape[2:], node.axes
    covered = tuple(d * (k - 1) + 1 for d, k in zip(node.dilation, kernel, strict=True))
    spread: tuple[Any, ...] = tuple(slice(None, None, d) for d in node.dilation)
    seen = windows(node, x, covered)[(..., *spread)]
    inner = [1, *range(2 + axes, 2 + 2 * axes)]
    y = [
        np.tensordot(part, weight, (inner, [1, *range(2, 2 + axes)]))
        for part, weight in zip(
            np.split(seen, node.groups, axis=1), np.split(double(node.weight), node.groups), strict=True
        )
    ]
    image = np.moveaxis(np.concatenate(y, axis=-1), -1, 1)
    return Stepped(image if node.bias is None else image + double(node.bias).reshape(-1, *(1,) * axes))


@step.register
def _(node: Pool2d, state: State, x: Array) -> Stepped:
    assert isinstance(node.kernel, tuple)
    total = windows(node, x, node.kernel).sum(axis=(-2, -1))
    return Stepped(total / (node.kernel[0] * node.kernel[1]) if isinstance(node, AvgPool2d) else total)


@step.register
def _(node: MaxPool2d, state: State, x: Array) -> Stepped:
    assert isinstance(node.kernel, tuple)
    return Stepped(windows(node, x, node.kernel, around=-np.inf).max(axis=(-2, -1)))


@step.register
def _(node: Scale, state: State, x: Array) -> Stepped:
    return Stepped(double(node.scale) * x)


@step.register
def _(node: BatchNorm, state: State, x: Array) -> Stepped:
    gain, offset = node.affine()
    return Stepped(gain * x + offset)


@step.register
def _(node: LayerNorm, state: State, x: Array) -> Stepped:
    axes = tuple(range(-node.weight.ndim, 0))
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = (centred**2).mean(axis=axes, keepdims=True)
    y = centred / np.sqrt(variance + node.epsilon) * double(node.weight)
    return Stepped(y if node.bias is None else y + node.bias)


@step.register
def _(node: RMSNorm, state: State, x: Array) -> Stepped:
    square = (x**2).mean(axis=tuple(range(-node.weight.ndim, 0)), keepdims=True)
    return Stepped(x / np.sqrt(square + node.epsilon) * double(node.weight))


@step.register
def _(node: Flatten, state: State, x: Array) -> Stepped:
    return Stepped(x.reshape(len(x), -1))


@step.register
def _(node: Reshape, state: State, x: Array) -> Stepped:
    return Stepped(x.reshape(len(x), *node.shape))


@step.register
def _(node: Activation, state: State, x: Array) -> Stepped:
    return Stepped(FUNCTIONS[node.function](x))


@step.register
def _(node: GLU, state: State, x: Array) -> Stepped:
    a, b = np.split(x, 2, axis=-1)
    return Stepped(a * FUNCTIONS["sigmoid"](b))


@step.register
def _(node: Multiply, state: State, a: Array, b: Array) -> Stepped:
    return Stepped(a * b)


@step.register
def _(node: Concatenate, state: State, **ports: Array) -> Stepped:
    return Stepped(np.concatenate([ports[port] for port in node.ports], axis=node.axis + 1))


@step.register
def _(node: TopK, state: State, x: Array) -> Stepped:
    largest = np.argsort(-np.abs(x), axis=-1, kind="stable")[..., : node.count]
    kept = np.zeros_like(x)
    np.put_along_axis(kept, largest, np.take_along_axis(x, largest, -1), -1)
    return Stepped(kept)


def delayed(node: Delay, state: State) -> Array:
    """Return what leaves a delay line at a step, (B, ...), before its input of that step is known."""
    past = state["past"]
    steps = np.broadcast_to(node.steps.astype(np.int64), node.shape)
    return np.take_along_axis(past, np.broadcast_to(steps - 1, (len(past), 1, *node.shape)), axis=1)[:, 0]


def remembered(node: Delay, state: State, x: Array) -> State:
    """Return the delay line's next state, the newest input first."""
    return {"past": np.concatenate([x[:, None], state["past"][:, :-1]], axis=1)}


@step.register
def _(node: Delay, state: State, x: Array) -> Stepped:
    return Stepped(delayed(node, state), remembered(node, state, x))


@step.register
def _(node: Threshold, state: State, x: Array) -> Stepped:
    return spiking(node, x, {})


@step.register(LIF)
@step.register(LIFScan)
@step.register(LIFConvolution)
def _(node: Spiking, state: State, x: Array) -> Stepped:
    u, kept = lif(node, x, state["u"])
    return spiking(node, u, {"u": kept})


@step.register
def _(node: Cuba, state: State, x: Array) -> Stepped:
    i = double(node.alpha) * state["i"] + x
    u, kept = lif(node, i, state["u"])
    return spiking(node, u, {"i": i, "u": kept})


@step.register
def _(node: Adaptive, state: State, x: Array) -> Stepped:
    u, a = integrate(node, x, state["u"]), state["a"]
    level = double(node.threshold) + double(node.kappa) * a
    fired = u >= level if node.fires == ">=" else u > level
    kept = after_reset(node, u, fired)
    a = double(node.rho) * a + fired
    return Stepped(fired.astype(np.float64), {"u": kept, "a": a}, u, fired)


@step.register(LI)
@step.register(LIConvolution)
def _(node: Leaky, state: State, x: Array) -> Stepped:
    u = integrate(node, x, state["u"])
    return Stepped(u, {"u": u}, u)


@step.register
def _(node: LIFAnnealed, state: State, x: Array) -> Stepped:
    theta, beta, rows = double(node.threshold), double(node.beta), state["rows"]
    u = integrate(node, x, rows[:, 0])
    if node.rounds is None:
        m = u - node.strength * rows[:, 1]
        resets = [beta * (rows[:, 1] + theta * fires(node, m))]
    else:
        m, resets = u, []
        for r in rows.swapaxes(0, 1)[1:]:
            resets.append(beta * (r + theta * fires(node, m)))
            m = u - node.strength * r
    return spiking(node, m, {"rows": np.stack([u, *resets], axis=1)})


@step.register
def _(node: LIFSurrogate, state: State, x: Array) -> Stepped:
    theta, past = double(node.threshold), state["past"]
    currents = np.moveaxis(past / theta, 1, -1)
    hidden = FUNCTIONS["relu"](currents @ double(node.temporal).T + node.temporal_bias)
    mixed = FUNCTIONS["relu"](hidden @ double(node.mixing).T + node.mixing_bias + hidden)
    m = theta * (x / theta + mixed @ double(node.readout) + node.readout_bias[0])
    return spiking(node, m, {"past": np.concatenate([past[:, 1:], x[:, None]], axis=1)})


def lif(node: Spiking, x: Array, u: Array) -> tuple[Array, Array]:
    """Return the membrane of a LIF that x drives, before the reset and after it."""
    reached = integrate(node, x, u)
    if node.phase == "next":
        reached = after_reset(node, reached, fires(node, u))
        return reached, reached
    return reached, after_reset(node, reached, fires(node, reached))


def integrate(node: Leaky, x: Array, u: Array) -> Array:
    """Return beta u + g x."""
    beta = double(node.beta)
    return beta * u + (x if node.gain == "1" else (1 - beta) * x)


def fires(node: Spiking | Threshold | Memory, u: Array) -> Array:
    """Return H(u - theta) as bool, a tie counted as the node says."""
    return u >= node.threshold if node.fires == ">=" else u > node.threshold


def after_reset(node: Spiking | Memory, u: Array, fired: Array, scale: Array | float = 1.0) -> Array:
    """Return the membrane after the reset of those that fired; u is the membrane divided by a scale."""
    if node.reset == "subtract":
        return u - double(node.threshold) / scale * fired
    return u * ~fired if node.reset == "zero" else u


def spiking(node: Spiking | Threshold, u: Array, state: State) -> Stepped:
    """Return the step of a neuron that fires by its membrane u."""
    fired = fires(node, u)
    return Stepped(fired.astype(np.float64), state, u, fired)


@step.register
def _(node: Associative, state: State, v: Array, k: Array, alpha: Array, q: Array | None = None) -> Stepped:
    written = np.count_nonzero(v, axis=1) * np.count_nonzero(k, axis=1)
    if not accumulates(node):
        S = state["S"] * alpha[:, None, :] + v[:, :, None] * k[:, None, :]
        return remember(node, q, S, S, 1.0, {}, {"writes": written})
    M, A, rescaled = collected(node, state, alpha)
    M = M + v[:, :, None] * (k / A)[:, None, :]
    tallies = {"writes": written, "rescaled": rescaled}
    return remember(node, q, M * A[:, None, :], M, A[:, None, :], {"A": A}, tallies)


@step.register
def _(
    node: Delta, state: State, v: Array, k: Array, alpha: Array, beta: Array, q: Array | None = None
) -> Stepped:
    k = unit(k)
    writes = v.shape[1] * np.count_nonzero(k, axis=1)
    if not accumulates(node):
        decayed = alpha[:, :, None] * state["S"]
        w = beta * (v - (decayed @ k[:, :, None])[:, :, 0])
        S = decayed + w[:, :, None] * k[:, None, :]
        return remember(node, q, S, S, 1.0, {}, {"writes": writes})
    M, A, rescaled = collected(node, state, alpha)
    w = beta * (v - A * (M @ k[:, :, None])[:, :, 0])
    M = M + (w / A)[:, :, None] * k[:, None, :]
    tallies = {"writes": writes, "rescaled": rescaled}
    return remember(node, q, M * A[:, None, :], M, A[:, None, :], {"A": A}, tallies)


def accumulates(node: Memory) -> bool:
    """Say whether a memory is stored divided by accumulators of its decay."""
    return isinstance(node, StoredMemory) and node.decay == "scalar"


def collected(node: Memory, state: State, alpha: Array) -> tuple[Array, Array, Array]:
    """Return M and A after the decay of a step, and how many accumulators of each sample were set back to 1."""
    assert isinstance(node, StoredMemory)
    A = state["A"] * alpha
    low = node.bound > A
    M = np.where(low[:, None, :], state["M"] * A[:, None, :], state["M"])
    return M, np.where(low, 1.0, A), np.count_nonzero(low & (state["A"] != 0), axis=1)


def remember(
    node: Memory,
    q: Array | None,
    S: Array,
    stored: Array,
    scale: Array | float,
    rest: State,
    tallies: dict[str, Array],
) -> Stepped:
    """Return the step of a memory that reached S = stored x scale: what is read, and what is kept after the reset."""
    fired = fires(node, S)
    value = fired.astype(np.float64) if q is None else fired @ q.reshape(len(q), S.shape[2], -1)
    kept = after_reset(node, stored, fired, scale)
    state = {("M" if accumulates(node) else "S"): kept, **rest}
    tallies["fired"] = np.count_nonzero(fired, axis=(1, 2))
    return Stepped(value.reshape(len(S), -1), state, S, fired, tallies)


@step.register
def _(node: Diagonal, state: State, x: Array) -> Stepped:
    a, c, h = (double(pairs[..., 0]) + 1j * pairs[..., 1] for pairs in (node.a, node.c, state["h"]))
    h = a * h + x[:, :, None]
    y = 2 * (c * h).real.sum(axis=2) + node.d * x
    return Stepped(y, {"h": np.stack([h.real, h.imag], axis=-1)})

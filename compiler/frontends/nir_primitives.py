"""The rule of each NIR primitive: which nodes it becomes.

A leak potential is a shift: w = v - v_leak obeys the same equation around 0, with the threshold v_threshold - v_leak
and the reset to v_reset - v_leak. So v starts at v_leak, where it rests (that of an IF at v_reset), and a reset can be
said where v_reset is v_leak.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import nir
import numpy as np

from unscan.compiler.frontends.builder import Value
from unscan.compiler.frontends.nir_reading import Reading, number_format, uniform, unless_one, whole_steps
from unscan.compiler.frontends.nir_time import span
from unscan.compiler.ir import Array, Kind, Signal
from unscan.compiler.nodes import (
    LI,
    LIF,
    AvgPool2d,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    Flatten,
    Linear,
    Pool2d,
    Reshape,
    Scale,
    SumPool2d,
    Threshold,
)
from unscan.compiler.nodes.convolution import each
from unscan.compiler.nodes.neurons import Gain


@singledispatch
def read_primitive(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    """Add the nodes of a primitive fed by x and return what leaves it. Raises Unsupported with the reason."""
    raise to.unsupported(primitive, name, f"no rule reads {type(primitive).__name__}")


def _reads(primitive_class: Any) -> Callable[..., Any]:
    return read_primitive.register(primitive_class)


def _dtype(primitive: Any) -> np.dtype[Any]:
    return number_format(v for v in vars(primitive).values() if isinstance(v, np.ndarray))


@_reads(nir.Linear)
@_reads(nir.Affine)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    if primitive.weight.ndim != 2:
        raise to.unsupported(
            primitive, name, f"its weight has shape {primitive.weight.shape}, and only two axes are read"
        )
    dtype = _dtype(primitive)
    bias = _bias(getattr(primitive, "bias", None), dtype)
    return to.add(name, Linear(primitive.weight.astype(dtype, copy=False), bias), x)


def _bias(bias: Any, dtype: np.dtype[Any]) -> Array | None:
    """Return a bias, or None where it adds nothing: NIR wants zeros where there is none."""
    return None if bias is None or not np.any(bias) else np.asarray(bias, dtype)


@_reads(nir.Scale)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    return to.add(name, Scale(uniform(primitive.scale)), x)


@_reads(nir.Conv1d)
@_reads(nir.Conv2d)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    node_class = Conv1d if isinstance(primitive, nir.Conv1d) else Conv2d
    axes, kernel = node_class.axes, primitive.weight.shape[2:]
    space = to.arriving(x).shape[1:]
    if primitive.input_shape is not None and _sizes(primitive.input_shape, axes) != space:
        raise to.unsupported(
            primitive,
            name,
            f"it was made for inputs of {_sizes(primitive.input_shape, axes)}, and gets {space}",
        )
    stride, dilation = _sizes(primitive.stride, axes), _sizes(primitive.dilation, axes)
    padding: tuple[int, ...]
    if isinstance(primitive.padding, str):
        whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if primitive.padding == "valid":
            whole = [0] * axes
        elif any(s != 1 for s in stride):
            raise to.unsupported(
                primitive,
                name,
                f"its padding is 'same', its stride {stride}, and only a stride of 1 keeps the size",
            )
        padding = (*(w // 2 for w in whole), *(w - w // 2 for w in whole))
    else:
        padding = _sizes(primitive.padding, axes)
    dtype = _dtype(primitive)
    node = node_class(
        weight=primitive.weight.astype(dtype, copy=False),
        bias=_bias(primitive.bias, dtype),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=int(primitive.groups),
    )
    return to.add(name, node, x)


def _sizes(value: Any, axes: int) -> tuple[int, ...]:
    sizes = tuple(int(v) for v in np.atleast_1d(value))
    return sizes if len(sizes) == axes else each(sizes[0], axes)


@_reads(nir.SumPool2d)
@_reads(nir.AvgPool2d)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    node_class: type[Pool2d] = SumPool2d if isinstance(primitive, nir.SumPool2d) else AvgPool2d
    kernel, stride, padding = (
        _sizes(value, 2) for value in (primitive.kernel_size, primitive.stride, primitive.padding)
    )
    return to.add(name, node_class(kernel=kernel, stride=stride, padding=padding), x)


@_reads(nir.Flatten)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    shape, declared = to.arriving(x).shape, primitive.input_type["input"]
    stated = shape if declared is None else tuple(int(n) for n in declared)
    if stated != shape:
        raise to.unsupported(primitive, name, f"it was made for inputs of {stated}, and gets {shape}")
    start, end = (int(axis) for axis in (primitive.start_dim, primitive.end_dim))
    first, last = (axis + len(shape) if axis < 0 else axis for axis in (start, end))
    if not 0 <= first <= last < len(shape):
        raise to.unsupported(primitive, name, f"it joins axes {start} to {end} of {len(shape)}")
    if (first, last) == (0, len(shape) - 1):
        return to.add(name, Flatten(), x)
    joined = int(np.prod(shape[first : last + 1]))
    return to.add(name, Reshape((*shape[:first], joined, *shape[last + 1 :])), x)


@_reads(nir.Delay)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    steps = uniform(delay_steps(primitive, name, to))
    if not np.any(steps):
        return x
    signal = to.arriving(x) if x else to.carried.get(name, Signal(Kind.SPIKE, primitive.delay.shape))
    if np.all(steps):
        to.note(primitive, name, f"{span(steps)} steps")
        return to.add(name, Delay(steps=steps, shape=signal.shape, kind=signal.kind), x)
    to.note(primitive, name, f"{span(steps)} steps, of which those of 0 stand beside it")
    now = to.add(f"{name}.now", Scale((steps == 0).astype(np.float32)), x)
    later = to.add(f"{name}.later", Scale((steps != 0).astype(np.float32)), x)
    kept = Delay(steps=np.maximum(steps, 1), shape=signal.shape, kind=to.arriving(later).kind)
    return now + to.add(name, kept, later)


def delay_steps(primitive: Any, name: str, to: Reading) -> Array:
    """Return a Delay in whole steps. Raises Unsupported where they are not whole or not from 0 up."""
    steps, whole = whole_steps(primitive.delay, to.step())
    if not whole or np.any(steps < 0):
        asked = np.asarray(primitive.delay, np.float64) / to.step()
        worst = float(asked.flat[int(np.argmax(np.abs(asked - np.abs(steps)).reshape(-1)))])
        raise to.unsupported(
            primitive,
            name,
            f"its delay of {worst * to.step():.6g} s is {worst:.6g} steps of dt = {to.step():g} s, and a delay is a "
            "whole number of steps from 0 up; pass a dt that divides it",
        )
    return steps.astype(np.float32)


@_reads(nir.Threshold)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    theta = _positive(primitive, name, primitive.threshold, "threshold", to)
    return to.add(name, Threshold(threshold=uniform(theta), fires=to.convention.fires), x)


@_reads(nir.LI)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    beta, gain, factor = to.leaky(primitive, name, "tau")
    dtype = _dtype(primitive)
    x = to.scaled(name, factor, dtype, x)
    return _above_leak(primitive, name, to.add(name, LI(beta.astype(dtype), gain), x), to)


@_reads(nir.I)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    x = to.scaled(name, _accumulated(primitive, name, to), _dtype(primitive), x)
    return to.add(name, LI(np.ones((), _dtype(primitive)), "1"), x)


@_reads(nir.CubaLI)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    alpha, inflow = _synapse(primitive, name, to)
    beta, gain, factor = to.leaky(primitive, name, "tau_mem", inflow)
    dtype = _dtype(primitive)
    x = to.scaled(name, factor, dtype, x)
    current = to.add(f"{name}.current", LI(alpha.astype(dtype), "1"), x)
    return _above_leak(primitive, name, to.add(name, LI(beta.astype(dtype), gain), current), to)


@_reads(nir.LIF)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    beta, gain, factor = to.leaky(primitive, name, "tau")
    x = to.scaled(name, factor, _dtype(primitive), x)
    return to.add(name, LIF(**_spiking(primitive, name, beta, gain, primitive.v_leak, to)), x)


@_reads(nir.IF)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    x = to.scaled(name, _accumulated(primitive, name, to), _dtype(primitive), x)
    return to.add(name, LIF(**_spiking(primitive, name, np.ones(()), "1", primitive.v_reset, to)), x)


@_reads(nir.CubaLIF)
def _(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    alpha, inflow = _synapse(primitive, name, to)
    beta, gain, factor = to.leaky(primitive, name, "tau_mem", inflow)
    dtype = _dtype(primitive)
    x = to.scaled(name, factor, dtype, x)
    settings = _spiking(primitive, name, beta, gain, primitive.v_leak, to)
    return to.add(name, CubaLIF(alpha=alpha.astype(dtype), **settings), x)


def _accumulated(primitive: Any, name: str, to: Reading) -> Array | None:
    """Return by how much an integrator's input counts, None where it is 1."""
    gain = np.asarray(primitive.r, np.float64) * (1 if to.convention.per_step else to.step())
    to.note(primitive, name, f"no decay, gain {'r' if to.convention.per_step else 'dt r'} = {span(gain)}")
    return unless_one(gain)


def _synapse(primitive: Any, name: str, to: Reading) -> tuple[Array, Array]:
    """Return the decay of a synaptic current, and what one input adds to it."""
    alpha, lost = to.remaining(primitive, name, "tau_syn")
    inflow = np.asarray(primitive.w_in, np.float64) * (1 if to.convention.per_step else lost)
    to.note(primitive, name, f"current decays by {span(alpha)}, an input adds {span(inflow)}")
    return uniform(alpha), inflow


def _spiking(primitive: Any, name: str, beta: Array, gain: Gain, rest: Array, to: Reading) -> dict[str, Any]:
    """Return the settings of a neuron that rests at a potential."""
    reset = to.reset or to.convention.reset
    late = to.convention.phase
    if (
        isinstance(primitive, nir.LIF)
        and name not in to.fed_back
        and reset == "zero"
        and to.convention.zero_at_once
    ):
        late = "now"
    if reset != "none" and np.any(primitive.v_reset != rest):
        raise to.unsupported(
            primitive,
            name,
            f"its v_reset is {span(primitive.v_reset)} and its v_leak {span(rest)}, and a neuron resets to where it "
            "rests, or not at all",
        )
    theta = np.asarray(primitive.v_threshold, np.float64) - np.asarray(rest, np.float64)
    theta = _positive(primitive, name, theta, "v_threshold", to)
    if np.any(rest != 0):
        to.note(primitive, name, f"potentials count from {span(rest)}, where it rests")
    dtype = _dtype(primitive)
    return {
        "beta": beta.astype(dtype),
        "gain": gain,
        "threshold": uniform(theta).astype(dtype),
        "reset": reset,
        "phase": to.phase or late,
        "fires": to.convention.fires,
        "trained_reset": reset,
    }


def _positive(primitive: Any, name: str, theta: Array, field: str, to: Reading) -> Array:
    if not np.all(theta > 0):
        raise to.unsupported(
            primitive,
            name,
            f"its {field} is {span(theta)} above rest, and a threshold must be greater than 0",
        )
    return theta


def _above_leak(primitive: Any, name: str, x: Value, to: Reading) -> Value:
    """Return a membrane that counts from its leak potential as one that counts from 0."""
    if not np.any(primitive.v_leak):
        return x
    to.note(primitive, name, f"starts at v_leak = {span(primitive.v_leak)}, which is added behind it")
    leak = uniform(primitive.v_leak).astype(_dtype(primitive))
    zero, one = np.zeros_like(leak), np.ones_like(leak)
    return to.add(f"{name}.leak", BatchNorm(one, leak, zero, one, epsilon=0.0), x)

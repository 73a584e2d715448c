"""ONNX on whole numbers for the nodes without memory.

Weights stand in the file as narrow as the graph has them. Where spikes, or other numbers from 0 to 127, meet weights of
8 bits, the product is a MatMulInteger or ConvInteger; no kernel's sum of two of their products passes 16 bits, so that
each of them is exact. Weights of 16 bits are two of 8 there, which is nearly as fast. Other products are a MatMul of
int32, a convolution as the product of its weight and the windows of x.

Rescaling is done in int64, as onnxruntime shifts no numbers with a sign: floor(x / 2^s + 1/2) is
(x + 2^(s-1) + 2^62) / 2^s - 2^(62-s), a division of positive numbers. `spec.check` keeps all numbers below 2^53.

In onnxruntime 1.31 Clip, Max, Min, Sign and ReduceMax of int64 are wrong for some numbers of more than 31 bits (its
pull request 25280 tells why), and its ReduceSum is exact up to 2^53. Its comparisons are right: they do the clipping.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.formats import arriving
from unscan.compiler.ir import Array
from unscan.compiler.nodes import (
    Activation,
    Concatenate,
    Convolution,
    Embedding,
    Input,
    IntegerGLU,
    Linear,
    Lookup,
    MaxPool2d,
    Multiply,
    Quantize,
    Scale,
    Shift,
    SumPool2d,
    Threshold,
)
from unscan.targets.onnx_stateless import sums, unfolded
from unscan.targets.onnx_step import Step, emit_node, emit_whole

NARROW = 127
"""The largest number that MatMulInteger and ConvInteger multiply exactly in every kernel, by weights of 8 bits."""
LIFT = 2**62
"""What makes any number positive before it is divided."""


@emit_whole.register
def _(node: Input, step: Step, name: str) -> str:
    return step.cast(step.boundary("x"), np.int32, name, "number")


@emit_whole.register
def _(node: Linear, step: Step, name: str, x: str) -> str:
    weight = np.ascontiguousarray(node.weight.T)
    if parts := narrow(weight, axis=0, x=entering(step, name, "x")):
        y = narrowly("MatMulInteger", parts, step, name, x)
    else:
        y = step.add("MatMul", [x, step.stored(weight, name, "weight", step.type_of(x))], name, "product")
    return biased(node.bias, step, name, y)


@emit_whole.register
def _(node: Convolution, step: Step, name: str, x: str) -> str:
    inner = tuple(range(1, node.axes + 2))
    if parts := narrow(node.weight, axis=inner, x=entering(step, name, "x")):
        settings = {"strides": node.stride, "pads": node.padding, "dilations": node.dilation}
        y = narrowly("ConvInteger", parts, step, name, x, group=node.groups, **settings)
    else:
        columns, weight, places = unfolded(node, step, name, x)
        factors = [step.stored(weight, name, "weight", step.type_of(x)), columns]
        y = step.add("MatMul", factors, name, "product")
        y = step.reshaped(y, (len(node.weight), *places), name, "convolved")
    return biased(None if node.bias is None else node.bias.reshape(-1, *(1,) * node.axes), step, name, y)


def entering(step: Step, name: str, port: str) -> Fixed:
    """Return the format of the whole numbers that arrive at a port."""
    found = arriving(step.graph, step.formats, name, port)
    assert found is not None
    return found


def narrow(weight: Array, axis: int | tuple[int, ...], x: Fixed) -> list[Array]:
    """Return the parts of 8 bits of a weight whose products with x are exact: itself, or low and high of 16 bits.

    weight = low + 256 high. Nothing where the numbers are too large, or a sum over `axis` of the parts' products is.
    """
    if x.signed or x.max > NARROW or weight.dtype == np.int32:
        return []
    if weight.dtype == np.int8:
        return [weight]
    low = (weight.astype(np.int64) + 128) % 256 - 128
    high = (weight - low) // 256
    if np.abs(high).max(initial=0) > NARROW or 256 * np.abs(high).sum(axis=axis).max() * x.max >= 2**31:
        return []
    return [low.astype(np.int8), high.astype(np.int8)]


def narrowly(operator: str, parts: list[Array], step: Step, name: str, x: str, **settings: Any) -> str:
    """Write the product of x and a weight in parts of 8 bits and return its name."""
    x = step.cast(x, np.uint8, name, "narrow")
    low, *high = (
        step.add(
            operator, [x, step.constant(part, name, f"weight{i}", np.int8)], name, f"product{i}", **settings
        )
        for i, part in enumerate(parts)
    )
    for product in high:
        unit = step.constant(256, name, "high", np.int32)
        low = step.add("Add", [low, step.add("Mul", [product, unit], name, "raised")], name, "product")
    return low


def biased(bias: Array | None, step: Step, name: str, y: str) -> str:
    """Write y + bias and return its name."""
    if bias is None:
        return y
    return step.add("Add", [y, step.stored(bias, name, "bias", step.type_of(y))], name, "y")


@emit_whole.register
def _(node: SumPool2d, step: Step, name: str, x: str) -> str:
    columns, _, places = unfolded(sums(node, step, name), step, name, x)
    return step.reshaped(step.summed(columns, [2], name, "sums"), (-1, *places), name, "y")


@emit_whole.register
def _(node: MaxPool2d, step: Step, name: str, x: str) -> str:
    if step.type_of(x) != np.int32:
        raise Unsupported(
            "onnxruntime finds no maximum of whole numbers that reach 2^31; use 31 bits, or a sign"
        )
    least = int(np.iinfo(np.int32).min)
    columns, _, places = unfolded(sums(node, step, name), step, name, x, around=least)
    largest = step.add("ReduceMax", [columns], name, "largest", axes=[2], keepdims=0)
    return step.reshaped(largest, (-1, *places), name, "y")


@emit_whole.register
def _(node: Embedding, step: Step, name: str, x: str) -> str:
    row = step.reshaped(x, (), name, "row")
    weight = step.constant(node.weight, name, "weight", node.weight.dtype)
    return step.add("Gather", [weight, row], name, "y", axis=0)


@emit_whole.register
def _(node: Scale, step: Step, name: str, x: str) -> str:
    scale = step.stored(node.scale, name, "scale", step.type_of(x))
    return step.add("Mul", [x, scale], name, "y")


@emit_whole.register
def _(node: Multiply, step: Step, name: str, a: str, b: str) -> str:
    made = step.carrier(step.formats[name])
    factors = [step.cast(factor, made, name, port) for factor, port in ((a, "a"), (b, "b"))]
    return step.add("Mul", factors, name, "y")


@emit_whole.register
def _(node: Concatenate, step: Step, name: str, **ports: str) -> str:
    made = step.carrier(step.formats[name])
    parts = {port: step.cast(ports[port], made, name, port) for port in node.ports}
    return emit_node(node, step, name, **parts)


@emit_whole.register
def _(node: Activation, step: Step, name: str, x: str) -> str:
    zero = step.constant(0, name, "zero", step.type_of(x))
    return step.add("Where", [step.add("Greater", [x, zero], name, "positive"), x, zero], name, "y")


@emit_whole.register
def _(node: Threshold, step: Step, name: str, x: str) -> str:
    if step.type_of(x) == step.dtype:
        return emit_node(node, step, name, x=x)
    level = step.constant(node.threshold, name, "threshold", np.float64)
    operator = "GreaterOrEqual" if node.fires == ">=" else "Greater"
    fired = step.add(operator, [step.cast(x, np.float64, name, "exact"), level], name, "fired_now")
    step.membranes[name] = x
    step.spikes[name] = step.cast(fired, np.int32, name, "spikes")
    return step.spikes[name]


@emit_whole.register
def _(node: Quantize, step: Step, name: str, x: str) -> str:
    unit = step.constant(2.0**node.fraction, name, "unit", np.float64)
    scaled = step.add("Mul", [step.cast(x, np.float64, name, "exact"), unit], name, "scaled")
    return saturated(step, name, step.add("Round", [scaled], name, "rounded"), node.format, "y")


@emit_whole.register
def _(node: Shift, step: Step, name: str, x: str) -> str:
    return saturated(step, name, shifted(step, name, x, node.shift, "shifted"), node.format, "y")


@emit_whole.register
def _(node: Lookup, step: Step, name: str, x: str) -> str:
    return looked_up(node.table, step, name, x, node.shift)


@emit_whole.register
def _(node: IntegerGLU, step: Step, name: str, x: str) -> str:
    a, b = step.split("Split", [x], name, "a", "b", axis=-1)
    gate = wide(step, name, looked_up(node.table, step, name, b, node.index_shift), "gate_wide")
    y = step.add("Mul", [wide(step, name, a, "a_wide"), gate], name, "gated")
    return saturated(step, name, shifted(step, name, y, node.shift, "shifted"), node.format, "y")


def wide(step: Step, name: str, x: str, label: str) -> str:
    """Write x as int64 and return its name."""
    return step.cast(x, np.int64, name, label)


def saturated(step: Step, name: str, x: str, format: Fixed, label: str) -> str:
    """Write x clipped to what a format holds, note what that may change, and return its name."""
    held = between(step, name, x, format.min, format.max, label)
    step.clipped.setdefault(name, []).append((x, held))
    return held


def between(step: Step, name: str, x: str, low: int, high: int, label: str) -> str:
    """Write x clipped to [low, high] and return its name."""
    for operator, end, which in (("Less", low, "low"), ("Greater", high, "high")):
        bound = step.constant(end, name, f"{label}_{which}", step.type_of(x))
        beyond = step.add(operator, [x, bound], name, f"{label}_{which}er")
        x = step.add("Where", [beyond, bound, x], name, f"{label}_{which}est")
    return x


def shifted(step: Step, name: str, x: str, shift: Array | int, label: str) -> str:
    """Write x >> shift, rounded, as int64 and return its name."""
    by = np.asarray(shift, np.int64)
    x = wide(step, name, x, f"{label}_wide")
    if (by < 0).any():
        raised = step.constant(2 ** np.maximum(-by, 0), name, f"{label}_raise", np.int64)
        x = step.add("Mul", [x, raised], name, f"{label}_raised")
    if (by <= 0).all():
        return x
    divisor = 2 ** np.maximum(by, 0)
    lift = np.where(by > 0, LIFT, 0)
    lifted = step.add(
        "Add",
        [x, step.constant(lift + divisor // 2, name, f"{label}_lift", np.int64)],
        name,
        f"{label}_lifted",
    )
    down = step.add(
        "Div", [lifted, step.constant(divisor, name, f"{label}_by", np.int64)], name, f"{label}_divided"
    )
    return step.add(
        "Sub", [down, step.constant(lift // divisor, name, f"{label}_drop", np.int64)], name, label
    )


def looked_up(table: Array, step: Step, name: str, x: str, shift: int) -> str:
    """Write table[clip(x >> shift, -n/2, n/2 - 1) + n/2] and return its name."""
    half = len(table) // 2
    at = shifted(step, name, x, shift, "at")
    row = between(step, name, at, -half, half - 1, "at_held")
    row = step.add("Add", [row, step.constant(half, name, "half", np.int64)], name, "row")
    found = step.add("Gather", [step.constant(table, name, "table", table.dtype), row], name, "found", axis=0)
    return step.cast(found, np.int32, name, "looked_up")

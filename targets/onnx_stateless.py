"""ONNX for the nodes without memory.

onnxruntime has no Conv, Erf, Elu or Softplus in float64, and makes of x sigmoid(x) one operator that onnxruntime-web
lacks there. There a convolution is written as the matrix product that it is, of its weight and the windows of x; what
the others stand for is written out. A pool is a convolution with ones, so that the sum of spikes is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, prod, sqrt

import numpy as np
from onnx import TensorProto

from unscan.compiler.ir import Array, Kind, Signal
from unscan.compiler.nodes import (
    GLU,
    Activation,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv2d,
    Convolution,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    Pool2d,
    Reshape,
    RMSNorm,
    Scale,
    TopK,
)
from unscan.targets.onnx_step import Step, emit_node

QUADRATURE = 32
"""Points of the Gauss-Legendre sum for erf: within 3e-15 for |z| < `SATURATED`."""
SATURATED = 5.9
"""erf(z) is 1 in float64 from here."""


@emit_node.register
def _(node: Input, step: Step, name: str) -> str:
    return step.boundary("x")


@emit_node.register
def _(node: Output, step: Step, name: str, x: str) -> str:
    step.give(x, "y")
    return x


@emit_node.register
def _(node: Linear, step: Step, name: str, x: str) -> str:
    inputs = [x, step.constant(node.weight, name, "weight")]
    if node.bias is not None:
        inputs.append(step.constant(node.bias, name, "bias"))
    return step.add("Gemm", inputs, name, "y", transB=1)


@emit_node.register
def _(node: Convolution, step: Step, name: str, x: str) -> str:
    y = convolve(node, step, name, x)
    if node.bias is None:
        return y
    bias = step.constant(node.bias.reshape(-1, *(1,) * node.axes), name, "bias")
    return step.add("Add", [y, bias], name, "y")


@emit_node.register
def _(node: Pool2d, step: Step, name: str, x: str) -> str:
    assert isinstance(node.kernel, tuple)
    y = convolve(sums(node, step, name), step, name, x)
    if isinstance(node, AvgPool2d):
        return step.add("Div", [y, step.constant(prod(node.kernel), name, "numbers")], name, "y")
    return y


@emit_node.register
def _(node: MaxPool2d, step: Step, name: str, x: str) -> str:
    window = {"kernel_shape": node.kernel, "strides": node.stride, "pads": node.padding}
    return step.add("MaxPool", [x], name, "y", **window)


def sums(node: Pool2d | MaxPool2d, step: Step, name: str) -> Conv2d:
    """Return the convolution with ones that sums the windows of a pool."""
    channels = step.graph.inputs(name)["x"].shape[0]
    assert isinstance(node.kernel, tuple)
    return Conv2d(
        weight=np.ones((channels, 1, *node.kernel)),
        stride=node.stride,
        padding=node.padding,
        groups=channels,
    )


def convolve(node: Convolution, step: Step, name: str, x: str) -> str:
    """Write the convolution without its bias and return its name."""
    if step.dtype == np.float32:
        return step.add(
            "Conv",
            [x, step.constant(node.weight, name, "weight")],
            name,
            "convolved",
            strides=node.stride,
            pads=node.padding,
            dilations=node.dilation,
            group=node.groups,
        )
    grouped, weight, places = unfolded(node, step, name, x)
    y = step.add("MatMul", [step.constant(weight, name, "weight"), grouped], name, "product")
    return step.reshaped(y, (len(node.weight), *places), name, "convolved")


def unfolded(
    node: Convolution, step: Step, name: str, x: str, around: int = 0
) -> tuple[str, Array, tuple[int, ...]]:
    """Write the windows of x as columns (B, groups, numbers, places), padded with `around`.

    Returns their name, the weight (groups, outputs, numbers) that they are multiplied by, and the places.
    """
    channels, *space = step.graph.inputs(name)["x"].shape
    seen, places = windows(node, tuple(space))
    flat = step.reshaped(x, (channels, prod(space)), name, "flat")
    ends = [step.constant([0, 0, 0, 0, 0, 1], name, "ends", np.int64)]
    if around:
        ends.append(step.constant(around, name, "around", step.type_of(x)))
    padded = step.add("Pad", [flat, *ends], name, "padded")
    at = step.constant(seen, name, "seen", np.int64)
    columns = step.add("Gather", [padded, at], name, "unfolded", axis=2)
    outputs, part = node.weight.shape[:2]
    inner = part * len(seen)
    grouped = step.reshaped(columns, (node.groups, inner, seen.shape[1]), name, "grouped")
    return grouped, node.weight.reshape(node.groups, outputs // node.groups, inner), places


def windows(node: Convolution, space: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """Return (numbers of a window, places): where in the flat x each stands, behind its end for padding; and places."""
    assert isinstance(node.stride, tuple)
    assert isinstance(node.padding, tuple)
    assert isinstance(node.dilation, tuple)
    kernel = node.weight.shape[2:]
    places = node.places(
        tuple(d * (k - 1) + 1 for d, k in zip(node.dilation, kernel, strict=True)),
        Signal(Kind.REAL, (1, *space)),
    )
    at = []
    for axis in range(node.axes):
        offsets = node.dilation[axis] * np.arange(kernel[axis]) - node.padding[axis]
        at.append(offsets[:, None] + node.stride[axis] * np.arange(places[axis]))
    # Axes: those of the window, then those of the places.
    spread = [
        positions.reshape(
            *(positions.shape[0] if a == axis else 1 for a in range(node.axes)),
            *(positions.shape[1] if a == axis else 1 for a in range(node.axes)),
        )
        for axis, positions in enumerate(at)
    ]
    flat, inside = np.zeros((), np.int64), np.ones((), bool)
    for positions, size in zip(spread, space, strict=True):
        flat = flat * size + positions
        inside = inside & (positions >= 0) & (positions < size)
    return np.where(inside, flat, prod(space)).reshape(prod(kernel), prod(places)), places


@emit_node.register
def _(node: Embedding, step: Step, name: str, x: str) -> str:
    rows = step.add("Cast", [x], name, "whole", to=TensorProto.INT64)
    row = step.reshaped(rows, (), name, "row")
    return step.add("Gather", [step.constant(node.weight, name, "weight"), row], name, "y", axis=0)


@emit_node.register
def _(node: Scale, step: Step, name: str, x: str) -> str:
    return step.add("Mul", [x, step.constant(node.scale, name, "scale")], name, "y")


@emit_node.register
def _(node: BatchNorm, step: Step, name: str, x: str) -> str:
    gain, offset = node.affine()
    scaled = step.add("Mul", [x, step.constant(gain, name, "gain")], name, "scaled")
    return step.add("Add", [scaled, step.constant(offset, name, "offset")], name, "y")


@emit_node.register
def _(node: LayerNorm, step: Step, name: str, x: str) -> str:
    centred = step.add("Sub", [x, mean(node, step, name, x, "mean")], name, "centred")
    y = normed(node, step, name, centred, centred)
    if node.bias is None:
        return y
    return step.add("Add", [y, step.constant(node.bias, name, "bias")], name, "y")


@emit_node.register
def _(node: RMSNorm, step: Step, name: str, x: str) -> str:
    return normed(node, step, name, x, x)


def normed(node: LayerNorm | RMSNorm, step: Step, name: str, x: str, by: str) -> str:
    """Write x / sqrt(mean(by^2) + epsilon) * weight and return its name."""
    squares = step.add("Mul", [by, by], name, "squares")
    epsilon = step.constant(node.epsilon, name, "epsilon")
    above = step.add("Add", [mean(node, step, name, squares, "mean_square"), epsilon], name, "above_zero")
    scaled = step.add("Div", [x, step.add("Sqrt", [above], name, "deviation")], name, "scaled")
    return step.add("Mul", [scaled, step.constant(node.weight, name, "gain")], name, "weighted")


def mean(node: LayerNorm | RMSNorm, step: Step, name: str, x: str, label: str) -> str:
    """Write the mean of x over the axes that a norm covers and return its name."""
    axes = list(range(-node.weight.ndim, 0))
    return step.add("ReduceMean", [x], name, label, axes=axes) if axes else x


@emit_node.register
def _(node: Flatten, step: Step, name: str, x: str) -> str:
    return step.add("Flatten", [x], name, "y", axis=1)


@emit_node.register
def _(node: Reshape, step: Step, name: str, x: str) -> str:
    return step.reshaped(x, node.shape, name, "y")


@emit_node.register
def _(node: GLU, step: Step, name: str, x: str) -> str:
    a, b = step.split("Split", [x], name, "a", "b", axis=-1)
    return step.add("Mul", [a, step.add("Sigmoid", [b], name, "gate")], name, "y")


@emit_node.register
def _(node: Multiply, step: Step, name: str, a: str, b: str) -> str:
    return step.add("Mul", [a, b], name, "y")


@emit_node.register
def _(node: Concatenate, step: Step, name: str, **ports: str) -> str:
    return step.add("Concat", [ports[port] for port in node.ports], name, "y", axis=node.axis + 1)


@emit_node.register
def _(node: TopK, step: Step, name: str, x: str) -> str:
    last = {"axis": len(step.graph.inputs(name)["x"].shape)}
    size = step.add("Abs", [x], name, "size")
    count = step.constant([node.count], name, "count", np.int64)
    _, largest = step.split("TopK", [size, count], name, "sizes", "largest", **last)
    kept = step.add("GatherElements", [x, largest], name, "kept", **last)
    zeros = step.add("Sub", [x, x], name, "zeros")
    return step.add("ScatterElements", [zeros, largest, kept], name, "y", **last)


@emit_node.register
def _(node: Activation, step: Step, name: str, x: str) -> str:
    return FUNCTIONS[node.function](step, name, x)


def relu(step: Step, name: str, x: str) -> str:
    """Write max(x, 0)."""
    return step.add("Relu", [x], name, "y")


def sigmoid(step: Step, name: str, x: str) -> str:
    """Write 1 / (1 + e^-x)."""
    return step.add("Sigmoid", [x], name, "y")


def tanh(step: Step, name: str, x: str) -> str:
    """Write tanh(x)."""
    return step.add("Tanh", [x], name, "y")


def silu(step: Step, name: str, x: str) -> str:
    """Write x sigmoid(x), in float64 as x / (1 + e^-x)."""
    if step.dtype == np.float32:
        return step.add("Mul", [x, step.add("Sigmoid", [x], name, "sigmoid")], name, "y")
    falling = step.add("Exp", [step.add("Neg", [x], name, "negative")], name, "falling")
    whole = step.add("Add", [falling, step.constant(1, name, "one")], name, "whole")
    return step.add("Div", [x, whole], name, "y")


def gelu(step: Step, name: str, x: str) -> str:
    """Write x (1 + erf(x / sqrt 2)) / 2."""
    z = step.add("Mul", [x, step.constant(1 / sqrt(2), name, "root")], name, "z")
    return halved(step, name, x, erf(step, name, z))


def gelu_tanh(step: Step, name: str, x: str) -> str:
    """Write x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    square = step.add("Mul", [x, x], name, "square")
    cubic = step.add("Mul", [square, step.constant(0.044715, name, "cubic")], name, "curved")
    slope = step.add("Add", [cubic, step.constant(1, name, "unit")], name, "slope")
    bent = step.add("Mul", [x, slope], name, "bent")
    z = step.add("Mul", [bent, step.constant(sqrt(2 / pi), name, "root")], name, "z")
    return halved(step, name, x, step.add("Tanh", [z], name, "tanh"))


def halved(step: Step, name: str, x: str, odd: str) -> str:
    """Write x (1 + odd) / 2."""
    share = step.add("Add", [odd, step.constant(1, name, "one")], name, "share")
    half = step.add("Mul", [x, step.constant(0.5, name, "half")], name, "halved")
    return step.add("Mul", [half, share], name, "y")


def erf(step: Step, name: str, z: str) -> str:
    """Write erf(z), in float64 as 2 z / sqrt(pi) times the integral of e^(-z^2 p^2) over p from 0 to 1 (quadrature)."""
    if step.dtype == np.float32:
        return step.add("Erf", [z], name, "erf")
    points, weights = np.polynomial.legendre.leggauss(QUADRATURE)
    wide = step.widened(step.add("Mul", [z, z], name, "squared"), [-1], name, "wide")
    falls = step.constant(-(((points + 1) / 2) ** 2), name, "falls")
    bells = step.add("Exp", [step.add("Mul", [wide, falls], name, "exponents")], name, "bells")
    area = step.add("MatMul", [bells, step.constant(weights / sqrt(pi), name, "weights")], name, "area")
    end = step.constant(SATURATED, name, "end")
    far = step.add("Greater", [step.add("Abs", [z], name, "size"), end], name, "far")
    near = step.add("Mul", [z, area], name, "near")
    return step.add("Where", [far, step.add("Sign", [z], name, "sign"), near], name, "erf")


def elu(step: Step, name: str, x: str) -> str:
    """Write x or e^x - 1, which is 2 t / (1 - t) with t = tanh(x / 2), so that no digit is lost near 0."""
    zero = step.constant(0, name, "zero")
    low = step.add("Min", [x, zero], name, "low")
    t = step.add("Tanh", [step.add("Mul", [low, step.constant(0.5, name, "half")], name, "z")], name, "tanh")
    rest = step.add("Sub", [step.constant(1, name, "one"), t], name, "rest")
    bent = step.add("Div", [step.add("Add", [t, t], name, "twice"), rest], name, "bent")
    return step.add("Add", [step.add("Max", [x, zero], name, "high"), bent], name, "y")


def softplus(step: Step, name: str, x: str) -> str:
    """Write ln(1 + e^x), in float64 as max(x, 0) + ln(1 + e^-|x|)."""
    if step.dtype == np.float32:
        return step.add("Softplus", [x], name, "y")
    away = step.add("Neg", [step.add("Abs", [x], name, "size")], name, "away")
    tail = step.add(
        "Add", [step.add("Exp", [away], name, "tail"), step.constant(1, name, "one")], name, "share"
    )
    return step.add("Add", [relu(step, f"{name}/relu", x), step.add("Log", [tail], name, "log")], name, "y")


def clipped(step: Step, name: str, x: str, low: float, high: float) -> str:
    """Write x clipped to [low, high]."""
    ends = [step.constant(low, name, "low"), step.constant(high, name, "high")]
    return step.add("Clip", [x, *ends], name, "y")


def relu6(step: Step, name: str, x: str) -> str:
    """Write x clipped to [0, 6]."""
    return clipped(step, name, x, 0, 6)


def hardtanh(step: Step, name: str, x: str) -> str:
    """Write x clipped to [-1, 1]."""
    return clipped(step, name, x, -1, 1)


def hardsigmoid(step: Step, name: str, x: str) -> str:
    """Write x / 6 + 1/2 clipped to [0, 1]."""
    sixth = step.add("Div", [x, step.constant(6, name, "six")], name, "sixth")
    raised = step.add("Add", [sixth, step.constant(0.5, name, "half")], name, "raised")
    return clipped(step, name, raised, 0, 1)


FUNCTIONS: dict[str, Callable[[Step, str, str], str]] = {
    "relu": relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "silu": silu,
    "gelu": gelu,
    "gelu-tanh": gelu_tanh,
    "elu": elu,
    "softplus": softplus,
    "relu6": relu6,
    "hardtanh": hardtanh,
    "hardsigmoid": hardsigmoid,
}

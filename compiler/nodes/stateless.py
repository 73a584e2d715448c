"""Operators without memory: the same in the parallel and in the iterative form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from unscan.compiler.ir import Array, Kind, Node, Signal

Function = Literal[
    "relu",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
    "gelu-tanh",
    "elu",
    "softplus",
    "relu6",
    "hardtanh",
    "hardsigmoid",
]
FUNCTIONS: tuple[str, ...] = get_args(Function)
ZERO_AT_ZERO = ("relu", "tanh", "silu", "gelu", "gelu-tanh", "elu", "relu6", "hardtanh")
"""The functions that leave what is silent silent."""


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """y = W x + b, with W (out, in) and b (out,) or None. x: (in,) -> y: (out,)."""

    weight: Array
    bias: Array | None = None

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers, one per row of W."""
        rows, columns = self.weight.shape
        if inputs["x"].shape != (columns,):
            raise ValueError(f"got {inputs['x'].shape}, wanted ({columns},), the columns of its weight")
        return Signal(Kind.REAL, (rows,))


@dataclass(frozen=True, eq=False)
class Embedding(Node):
    """y = row x of W (V, H): x names a row, a whole number from 0 to V - 1 in shape (1,) -> y: (H,)."""

    weight: Array

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers, one per column of W."""
        if inputs["x"] != Signal(Kind.INDEX, (1,)):
            raise ValueError("it wants an index of shape (1,), one whole number")
        return Signal(Kind.REAL, self.weight.shape[1:])


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """y = scale * x, with numbers that broadcast to the shape of x."""

    scale: Array

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return numbers as sparse as the input: a spike becomes a graded event."""
        fits(self.scale, "scale", inputs["x"])
        return Signal(as_sparse(inputs["x"]), inputs["x"].shape)


@dataclass(frozen=True, eq=False)
class BatchNorm(Node):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias, as trained.

    The four arrays have one shape that broadcasts to x: (C,) for channels on the last axis, (C, 1, 1) for images.
    """

    weight: Array
    bias: Array
    mean: Array
    variance: Array
    epsilon: float = 1e-5

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers of the same shape."""
        fits(self.weight, "weight", inputs["x"])
        return Signal(Kind.REAL, inputs["x"].shape)

    def affine(self) -> tuple[Array, Array]:
        """Return (g, c) of the equal form y = g x + c, in float64."""
        weight, bias, mean, variance = (
            np.asarray(a, np.float64) for a in (self.weight, self.bias, self.mean, self.variance)
        )
        gain = weight / np.sqrt(variance + self.epsilon)
        return gain, bias - gain * mean


@dataclass(frozen=True, eq=False)
class LayerNorm(Node):
    """y = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias, over the last axes, as many as weight has.

    mean and var (that of the population) are taken at each step from the numbers at hand, so it cannot be folded.
    """

    weight: Array
    bias: Array | None = None
    epsilon: float = 1e-5

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers of the same shape."""
        covers(self.weight, inputs["x"])
        return Signal(Kind.REAL, inputs["x"].shape)


@dataclass(frozen=True, eq=False)
class RMSNorm(Node):
    """y = x / sqrt(mean(x^2) + epsilon) * weight, over the last axes, as many as weight has, at each step."""

    weight: Array
    epsilon: float = 1e-6

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return numbers as sparse as the input."""
        covers(self.weight, inputs["x"])
        return Signal(as_sparse(inputs["x"]), inputs["x"].shape)


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """y = x with all axes of a step joined into one, in C order."""

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return the same kind on one axis."""
        return Signal(inputs["x"].kind, (math.prod(inputs["x"].shape),))


@dataclass(frozen=True, eq=False)
class Reshape(Node):
    """y = x with the axes of a step in another shape, in C order."""

    shape: tuple[int, ...]

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return the same kind in the new shape."""
        if math.prod(inputs["x"].shape) != math.prod(self.shape):
            raise ValueError(f"got {inputs['x'].shape}, which cannot take the shape {self.shape}")
        return Signal(inputs["x"].kind, self.shape)


@dataclass(frozen=True, eq=False)
class Activation(Node):
    """y = f(x), elementwise.

    relu max(x, 0); sigmoid; tanh; silu x sigmoid(x); gelu x Phi(x), exact; gelu-tanh its approximation by tanh;
    elu x or e^x - 1; softplus ln(1 + e^x); relu6, hardtanh: x clipped to [0, 6], [-1, 1]; hardsigmoid: x / 6 + 1/2
    clipped to [0, 1].
    """

    function: Function

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers, but sparse ones where the function keeps 0 and the input is sparse."""
        if self.function == "relu":
            return inputs["x"]
        kind = as_sparse(inputs["x"]) if self.function in ZERO_AT_ZERO else Kind.REAL
        return Signal(kind, inputs["x"].shape)


@dataclass(frozen=True, eq=False)
class GLU(Node):
    """y = a sigmoid(b), a the first and b the second half of x along the last axis. x: (..., 2 H) -> y: (..., H)."""

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return half as many numbers, as sparse as a."""
        *lead, width = inputs["x"].shape
        if width % 2:
            raise ValueError(f"got {inputs['x'].shape}, wanted an even last axis, which it halves")
        return Signal(as_sparse(inputs["x"]), (*lead, width // 2))


@dataclass(frozen=True, eq=False)
class Multiply(Node):
    """y = a b, elementwise, of two signals of one shape."""

    @property
    def ports(self) -> tuple[str, ...]:
        """The two factors."""
        return ("a", "b")

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes of two spikes, numbers as sparse as the sparser of the two else."""
        a, b = inputs["a"], inputs["b"]
        if a.shape != b.shape:
            raise ValueError(f"got {a.shape} and {b.shape}, wanted one shape")
        if a.kind is b.kind:
            return a
        return Signal(Kind.GRADED, a.shape)


@dataclass(frozen=True, eq=False)
class Concatenate(Node):
    """y = x0, x1, ... behind each other along an axis of a step; the other axes are equal."""

    parts: int
    axis: int = 0

    @property
    def ports(self) -> tuple[str, ...]:
        """One for each part."""
        return tuple(f"x{i}" for i in range(self.parts))

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return one kind for all: that of the parts, else graded, or real where one of them is."""
        shapes = [inputs[port].shape for port in self.ports]
        rests = {(*shape[: self.axis], *shape[self.axis + 1 :]) for shape in shapes}
        if len({len(shape) for shape in shapes}) > 1 or len(rests) > 1 or self.axis >= len(shapes[0]):
            raise ValueError(f"got {', '.join(map(str, shapes))}, which do not fit along axis {self.axis}")
        kinds = {inputs[port].kind for port in self.ports}
        kind = kinds.pop() if len(kinds) == 1 else Kind.REAL if Kind.REAL in kinds else Kind.GRADED
        width = sum(shape[self.axis] for shape in shapes)
        return Signal(kind, (*shapes[0][: self.axis], width, *shapes[0][self.axis + 1 :]))


@dataclass(frozen=True, eq=False)
class TopK(Node):
    """y = x where |x| is among the `count` largest of the last axis, of equals the first; else 0."""

    count: int

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return graded events: at most `count` in a row."""
        if not inputs["x"].shape or self.count > inputs["x"].shape[-1]:
            raise ValueError(f"got {inputs['x'].shape}, of which it cannot keep {self.count}")
        spikes = inputs["x"].kind is Kind.SPIKE
        return Signal(Kind.SPIKE if spikes else Kind.GRADED, inputs["x"].shape)


def as_sparse(signal: Signal) -> Kind:
    """Return the kind of numbers that are 0 where a signal is."""
    return Kind.REAL if signal.kind is Kind.REAL else Kind.GRADED


def fits(parameter: Array, name: str, signal: Signal) -> None:
    """Raise ValueError unless a parameter broadcasts to one step of a signal."""
    try:
        fitting = np.broadcast_shapes(parameter.shape, signal.shape) == signal.shape
    except ValueError:
        fitting = False
    if not fitting:
        raise ValueError(
            f"got {signal.shape}, and its {name} has shape {parameter.shape}, wanted () or {signal.shape[-1:]}, or "
            "another that broadcasts to it"
        )


def covers(weight: Array, signal: Signal) -> None:
    """Raise ValueError unless a norm's weight has the shape of the last axes of a signal."""
    if signal.shape[len(signal.shape) - weight.ndim :] != weight.shape:
        raise ValueError(f"got {signal.shape}, and its weight has shape {weight.shape}, wanted its last axes")

"""Operators without memory: the same in the parallel and in the iterative form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from unscan.compiler.ir import Array, Kind, Node, Signal

Function = Literal["relu", "sigmoid", "tanh", "silu", "gelu"]
FUNCTIONS: tuple[str, ...] = get_args(Function)


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
class Scale(Node):
    """y = scale * x, with one number or one per neuron of the last axis."""

    scale: Array

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return numbers as sparse as the input: a spike becomes a graded event."""
        fits_last_axis(self.scale, "scale", inputs["x"])
        kind = Kind.REAL if inputs["x"].kind is Kind.REAL else Kind.GRADED
        return Signal(kind, inputs["x"].shape)


@dataclass(frozen=True, eq=False)
class BatchNorm(Node):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias, per channel of the last axis, as trained."""

    weight: Array
    bias: Array
    mean: Array
    variance: Array
    epsilon: float = 1e-5

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers of the same shape."""
        fits_last_axis(self.weight, "weight", inputs["x"])
        return Signal(Kind.REAL, inputs["x"].shape)

    def affine(self) -> tuple[Array, Array]:
        """Return (g, c) of the equal form y = g x + c, in float64."""
        weight, bias, mean, variance = (
            np.asarray(a, np.float64) for a in (self.weight, self.bias, self.mean, self.variance)
        )
        gain = weight / np.sqrt(variance + self.epsilon)
        return gain, bias - gain * mean


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """y = x with all axes of a step joined into one, in C order."""

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return the same kind on one axis."""
        return Signal(inputs["x"].kind, (math.prod(inputs["x"].shape),))


@dataclass(frozen=True, eq=False)
class Activation(Node):
    """y = f(x), elementwise: relu, sigmoid, tanh, silu (x sigmoid(x)) or gelu (x Phi(x), exact)."""

    function: Function

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers, but graded ones where relu sees sparse input."""
        kind = inputs["x"].kind
        if self.function == "relu":
            return inputs["x"]
        return Signal(
            Kind.REAL if self.function == "sigmoid" or kind is Kind.REAL else Kind.GRADED, inputs["x"].shape
        )


def fits_last_axis(parameter: Array, name: str, signal: Signal) -> None:
    """Raise ValueError unless a parameter is one number or one per neuron of the last axis."""
    if parameter.shape != () and (not signal.shape or parameter.shape != signal.shape[-1:]):
        raise ValueError(
            f"got {signal.shape}, and its {name} has shape {parameter.shape}, wanted () or {signal.shape[-1:]}"
        )

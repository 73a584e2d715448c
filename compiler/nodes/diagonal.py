"""Diagonal state-space models: a linear filter for each channel, as a convolution and as a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unscan.compiler.ir import Array, Dialect, Kind, Node, Signal


@dataclass(frozen=True, eq=False, kw_only=True)
class Diagonal(Node):
    """h_m <- a_m h_m + x,  y = 2 Re sum over m of c_m h_m + d x, for each of H channels with M complex modes.

    a and c (H, M, 2): pairs of real and imaginary part. d (H,). |a| <= 1. x: (H,) -> y: (H,), real numbers.
    State: h (H, M, 2), likewise pairs.
    """

    a: Array
    c: Array
    d: Array

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers of the input's shape."""
        if inputs["x"].shape != self.d.shape:
            raise ValueError(f"got {inputs['x'].shape}, wanted {self.d.shape}, the channels of its filters")
        return Signal(Kind.REAL, self.d.shape)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the modes."""
        return {"h": self.a.shape}


@dataclass(frozen=True, eq=False, kw_only=True)
class DiagonalConvolution(Diagonal):
    """The filter over a whole sequence, y = K * x + d x with K_l = 2 Re sum over m of c_m a_m^l (`S4D`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class DiagonalSSM(Diagonal):
    """One step of the filter; see `Diagonal`."""

    dialect: ClassVar[Dialect] = Dialect.ITERATIVE

"""Convolutions and pools over the space of one step; time is no axis of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unscan.compiler.ir import Array, Kind, Node, Signal
from unscan.compiler.nodes.stateless import as_sparse

Sizes = int | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Window(Node):
    """What slides over the last `axes` axes of x: (C, *space) -> (C', *places).

    stride: one number, or one for each axis. padding with zeros: one number, one for each axis, or those before
    every axis and then those behind (so ONNX has it). Along an axis of n numbers a window that covers k of them has
    floor((n + before + behind - k) / stride) + 1 places.
    """

    axes: ClassVar[int]
    stride: Sizes
    padding: Sizes

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "stride", each(self.stride, self.axes))
        padding = each(self.padding, self.axes)
        object.__setattr__(self, "padding", padding * 2 if len(padding) == self.axes else padding)

    def places(self, covered: tuple[int, ...], signal: Signal) -> tuple[int, ...]:
        """Return the places along each axis of windows that cover so many numbers of it."""
        if len(signal.shape) != self.axes + 1:
            raise ValueError(f"got {signal.shape}, wanted channels and {self.axes} axes")
        assert isinstance(self.stride, tuple)
        assert isinstance(self.padding, tuple)
        padded = [
            size + self.padding[i] + self.padding[i + self.axes] for i, size in enumerate(signal.shape[1:])
        ]
        found = tuple(
            (size - k) // stride + 1 for size, k, stride in zip(padded, covered, self.stride, strict=True)
        )
        if min(found) < 1:
            raise ValueError(f"got {signal.shape}, padded less than the {covered} that it covers")
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Window):
    """y[o] = b[o] + sum over i, j of W[o, i, j] x[i, stride p + dilation j - padding], for each place p.

    W (out, in / groups, *kernel), b (out,) or None. Output channels come in `groups` equal parts, each of which sees
    its own part of the input's channels.
    """

    weight: Array
    bias: Array | None = None
    stride: Sizes = 1
    padding: Sizes = 0
    dilation: Sizes = 1
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dilation", each(self.dilation, self.axes))

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers, one per output channel and place."""
        x, (out, part, *kernel) = inputs["x"], self.weight.shape
        if not x.shape or x.shape[0] != part * self.groups:
            raise ValueError(
                f"got {x.shape}, wanted {part * self.groups} channels, those of its weight {self.weight.shape} in "
                f"{self.groups} groups"
            )
        assert isinstance(self.dilation, tuple)
        covered = tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, kernel, strict=True))
        return Signal(Kind.REAL, (out, *self.places(covered, x)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv1d(Convolution):
    """A convolution over one axis; see `Convolution`. x: (in, L) -> y: (out, L')."""

    axes: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Convolution):
    """A convolution over two axes; see `Convolution`. x: (in, H, W) -> y: (out, H', W')."""

    axes: ClassVar[int] = 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool2d(Window):
    """A sum, mean or maximum over windows of `kernel` numbers, channel by channel. x: (C, H, W) -> y: (C, H', W')."""

    axes: ClassVar[int] = 2
    kernel: Sizes
    stride: Sizes
    padding: Sizes = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "kernel", each(self.kernel, self.axes))

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return numbers as sparse as the input."""
        assert isinstance(self.kernel, tuple)
        x = inputs["x"]
        return Signal(as_sparse(x), (*x.shape[:1], *self.places(self.kernel, x)))


@dataclass(frozen=True, eq=False, kw_only=True)
class SumPool2d(Pool2d):
    """y = the sum of x over each window."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool2d(Pool2d):
    """y = the sum of x over each window, divided by the numbers of a window; padding counts as zeros."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2d(Pool2d):
    """y = the largest of x in each window; padding is no number, and covers no window as a whole."""


def each(value: Sizes, axes: int) -> tuple[int, ...]:
    """Return one number for each axis."""
    return (int(value),) * axes if isinstance(value, int) else tuple(int(v) for v in value)

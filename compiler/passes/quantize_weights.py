"""What quantisation does to nodes with weights: from real numbers on inputs that count units, to whole ones.

An input counts U of a unit to one, so x = x_int / U, and y = W x + b is (W / U) x_int + b. Where the output is to count
A of a unit to one, the whole weights are A W / U, rounded, A being a number for each row.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from typing import Any, NamedTuple, cast

import numpy as np

from unscan.compiler.ir import INTEGERS, Array, Node
from unscan.compiler.nodes import Convolution, Embedding, Linear, Scale
from unscan.compiler.passes.weighted import per_channel, scaled_inputs
from unscan.compiler.profiles import Profile, quantised_weight, share

Weights = Linear | Convolution | Embedding | Scale
"""What has weights."""
ROOM = 2.0**31 - 1
"""The largest sum."""


def whole(values: Array) -> Array:
    """Return whole numbers in the narrowest format that holds them: int8, int16 or int32."""
    largest = np.abs(values).max(initial=0)
    width = next(kind for kind in INTEGERS if largest <= np.iinfo(kind).max)
    return np.asarray(values).astype(width)


@singledispatch
def on_units(node: Node, unit: Array) -> Node:
    """Return a node, in float64, whose input counts `unit`, of the input's shape, to one."""
    raise TypeError(f"{type(node).__name__} has no weights.")


@on_units.register(Linear)
@on_units.register(Convolution)
def _(node: Linear | Convolution, unit: Array) -> Node:
    channels = per_channel(unit, unit.shape)
    assert channels is not None, "the caller brings what a convolution reads to one unit for each channel"
    made: Node = scaled_inputs(wide(node), 1 / channels)
    return made


@on_units.register
def _(node: Embedding, unit: Array) -> Node:
    made: Node = wide(node)
    return made


@on_units.register
def _(node: Scale, unit: Array) -> Node:
    return Scale(np.broadcast_to(node.scale.astype(np.float64), unit.shape) / unit)


def wide(node: Any) -> Any:
    """Return a node in float64."""
    return node.map_arrays(lambda array: array.astype(np.float64))


@singledispatch
def rows(node: Node) -> Array:
    """Return the weights as a matrix with a row for each output, or output channel."""
    raise TypeError(f"{type(node).__name__} has no weights.")


@rows.register(Linear)
@rows.register(Convolution)
def _(node: Linear | Convolution) -> Array:
    return node.weight.reshape(len(node.weight), -1)


@rows.register
def _(node: Embedding) -> Array:
    return node.weight.T


@rows.register
def _(node: Scale) -> Array:
    return node.scale.reshape(len(node.scale), -1)


def bias_of(node: Node) -> Array | None:
    """Return the bias, one number for each row, or None."""
    return cast(Array | None, getattr(node, "bias", None))


def reach(node: Node, most: float) -> Array:
    """Return the largest |y| of each row for inputs up to `most` units."""
    sizes = np.abs(rows(node))
    if isinstance(node, Embedding):
        return np.asarray(sizes.max(axis=1))
    found = (sizes.max(axis=1) if isinstance(node, Scale) else sizes.sum(axis=1)) * most
    bias = bias_of(node)
    return np.asarray(found if bias is None else found + np.abs(bias))


class Grid(NamedTuple):
    """The whole numbers that the weights of one layer may be: up to `limit`, and even ones where `coarse`."""

    limit: int
    coarse: bool

    @classmethod
    def of(cls, profile: Profile, matrices: list[Array]) -> Grid:
        """Return the grid of matrices that feed one layer."""
        return cls(profile.weight_limit(matrices), profile.coarse(matrices))


class Rounded(NamedTuple):
    """A node with whole weights, and what became of them."""

    node: Node
    clipped: int
    vanished: int
    weights: int
    largest: int

    @property
    def said(self) -> str:
        """A clause on what became of the weights."""
        lost = [f"{self.vanished} of {self.weights} weights are rounded to 0"] if self.vanished else []
        return "; ".join([*lost, *([f"{self.clipped} are clipped"] if self.clipped else [])])


def rounded(node: Any, factor: Array | float, profile: Profile, grid: Grid, *, bias: bool = True) -> Rounded:
    """Return a node of `on_units` with its rows multiplied by a factor (rows,) and rounded.

    `bias`: whether it keeps its own.
    """
    matrix = rows(node)
    scale = np.broadcast_to(np.asarray(factor, np.float64), len(matrix))
    numbers = quantised_weight(profile, matrix, scale, coarse=grid.coarse, limit=grid.limit)
    wanted = matrix * scale[:, None]
    clipped = int(np.count_nonzero(np.abs(wanted) >= grid.limit + (2 if grid.coarse else 1)))
    vanished = int(np.count_nonzero((numbers == 0) & (matrix != 0)))
    made: Node
    if isinstance(node, Embedding):
        made = Embedding(whole(numbers.T))
    elif isinstance(node, Scale):
        made = Scale(whole(numbers.reshape(node.scale.shape)))
    else:
        kept = None if node.bias is None or not bias else whole(np.rint(node.bias * scale))
        made = replace(node, weight=whole(numbers.reshape(node.weight.shape)), bias=kept)
    return Rounded(made, clipped, vanished, matrix.size, int(np.abs(numbers).max(initial=0)))


def largest_factor(node: Any, most: float, limit: int) -> Array:
    """Return the largest factor of each row with weights within a limit, and sums of 32 bits; 1 where all are 0."""
    found = np.minimum(share(limit, np.abs(rows(node)).max(axis=1)), share(ROOM / 2, reach(node, most)))
    return np.where(np.isfinite(found), found, 1.0)

"""What operators without memory compute, one step of one sample: whole numbers in, whole numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from unscan.targets.lava.processes.arithmetic import Whole, looked_up, saturated, shifted

SMALLEST = -(2**62)
"""Less than any number that is sent."""


def linear(x: Whole, weight: Whole, bias: Whole | None) -> Whole:
    """Return W x + b: the columns of W whose input is not zero, added up."""
    heard = np.flatnonzero(x)
    y = weight[:, heard] @ x[heard]
    return y if bias is None else y + bias


def convolution(
    x: Whole,
    weight: Whole,
    bias: Whole | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Whole:
    """Return the convolution of x (in, *space) with W (out, in / groups, *kernel), plus b (out,)."""
    kernel = weight.shape[2:]
    covered = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    spread: tuple[Any, ...] = tuple(slice(None, None, d) for d in dilation)
    seen = windows(x, covered, stride, padding)[(..., *spread)]
    axes = len(kernel)
    places = seen.shape[1 : 1 + axes]
    rows = np.moveaxis(seen.reshape(groups, -1, *seen.shape[1:]), 1, 1 + axes).reshape(
        groups, prod(places), -1
    )
    y = rows @ weight.reshape(groups, len(weight) // groups, -1).swapaxes(1, 2)
    image = y.swapaxes(1, 2).reshape(len(weight), *places)
    return image if bias is None else image + bias.reshape(-1, *(1,) * axes)


def windows(
    x: Whole, covered: Sequence[int], stride: Sequence[int], padding: Sequence[int], around: int = 0
) -> Whole:
    """Return (C, *places, *covered): what each window sees of x (C, *space) with a number around it.

    padding holds what stands before each axis, and then what stands behind each.
    """
    axes = len(covered)
    margins = zip(padding[:axes], padding[axes:], strict=True)
    padded = np.pad(x, ((0, 0), *margins), constant_values=around)
    seen = sliding_window_view(padded, tuple(covered), axis=tuple(range(1, 1 + axes)))
    return seen[(slice(None), *(slice(None, None, s) for s in stride))]


def sum_pool(x: Whole, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Whole:
    """Return the sum of each window."""
    total: Whole = windows(x, kernel, stride, padding).sum(axis=(-2, -1))
    return total


def max_pool(x: Whole, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Whole:
    """Return the largest number of each window; padding is none."""
    largest: Whole = windows(x, kernel, stride, padding, around=SMALLEST).max(axis=(-2, -1))
    return largest


def embedding(x: Whole, weight: Whole) -> Whole:
    """Return the row of W that x names."""
    row: Whole = weight[x[0]]
    return row


def scale(x: Whole, scale: Whole) -> Whole:
    """Return scale x."""
    return scale * x


def shift(x: Whole, shift: Whole, bits: int, signed: bool) -> Whole:
    """Return sat(x >> shift), rounded."""
    return saturated(shifted(x, shift), bits, signed)


def lookup(x: Whole, table: Whole, shift: int) -> Whole:
    """Return what a table says of x >> shift, rounded."""
    return looked_up(x, table, shift)


def glu(x: Whole, table: Whole, index_shift: int, shift: int, bits: int) -> Whole:
    """Return sat((a table[b]) >> shift), rounded; a and b are the halves of x along the last axis."""
    a, b = np.split(x, 2, axis=-1)
    return saturated(shifted(a * looked_up(b, table, index_shift), shift), bits)


def relu(x: Whole) -> Whole:
    """Return max(x, 0)."""
    return np.maximum(x, 0)


def top_k(x: Whole, count: int) -> Whole:
    """Return x where |x| is among the `count` largest of the last axis, of equals the first; else 0."""
    largest = np.argsort(-np.abs(x), axis=-1, kind="stable")[..., :count]
    kept = np.zeros_like(x)
    np.put_along_axis(kept, largest, np.take_along_axis(x, largest, -1), -1)
    return kept


def reshape(x: Whole, shape: Sequence[int]) -> Whole:
    """Return x in another shape, in C order."""
    return x.reshape(shape)


def place(x: Whole, axis: int, before: int, behind: int) -> Whole:
    """Return x as one part of a concatenation, with zeros where the other parts stand: the parts' sum is the whole."""
    margins = [(0, 0)] * x.ndim
    margins[axis] = (before, behind)
    return np.pad(x, margins)


OPERATORS: Mapping[str, Callable[..., Whole]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            linear,
            convolution,
            sum_pool,
            max_pool,
            embedding,
            scale,
            shift,
            lookup,
            glu,
            relu,
            top_k,
            reshape,
            place,
        )
    }
)
"""Name -> what it computes of x and its parameters."""

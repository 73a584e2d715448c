"""What the reference steps are made of: windows over images, keys of length 1."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from unscan.compiler.ir import Array
from unscan.compiler.nodes import Convolution, Pool2d


def double(parameter: Array) -> Array:
    """Return a parameter in float64."""
    return parameter.astype(np.float64)


def windows(node: Convolution | Pool2d, x: Array, covered: tuple[int, ...], around: float = 0.0) -> Array:
    """Return (B, C, *places, *covered): what each window sees of x (B, C, *space) with a number around it."""
    assert isinstance(node.padding, tuple)
    assert isinstance(node.stride, tuple)
    margins = zip(node.padding[: node.axes], node.padding[node.axes :], strict=True)
    padded = np.pad(x, ((0, 0), (0, 0), *margins), constant_values=around)
    seen = sliding_window_view(padded, covered, axis=tuple(range(2, 2 + node.axes)))
    return seen[(slice(None), slice(None), *(slice(None, None, s) for s in node.stride))]


def unit(k: Array) -> Array:
    """Return keys (B, n) of length 1; one shorter than 1e-12 becomes 0."""
    length = np.sqrt((k**2).sum(axis=1, keepdims=True))
    return k / np.where(length > 1e-12, length, np.inf)

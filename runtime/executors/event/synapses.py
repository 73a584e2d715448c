"""Weights met by events: the loops of matrices."""

from __future__ import annotations

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.vector import kernel, lowest_bit


@kernel
def matrix(flat: Array, start: int, rows: int, pitch: int) -> Array:
    """Return a stretch of a flat array as rows."""
    return flat[start : start + rows * pitch].reshape(rows, pitch)


@kernel
def copy(x: Array, width: int, y: Array, start: int) -> None:
    """Write the first `width` numbers of x into y, from `start` on."""
    for i in range(width):
        y[start + i] = x[i]


@kernel
def unpack(mask: np.uint64, first: int, ids: Array, found: int) -> int:
    """Append first + the index of every bit that is set; return how many ids there are now."""
    while mask != np.uint64(0):
        ids[found] = first + lowest_bit(mask)
        found += 1
        mask &= mask - np.uint64(1)
    return found


@kernel
def add_rows(weights: Array, ids: Array, total: int, target: Array) -> None:
    """Add to target the rows of weights that the first `total` ids name."""
    k = 0
    while k + 8 <= total:
        a, b, c, d = weights[ids[k]], weights[ids[k + 1]], weights[ids[k + 2]], weights[ids[k + 3]]
        e, f, g, h = weights[ids[k + 4]], weights[ids[k + 5]], weights[ids[k + 6]], weights[ids[k + 7]]
        for i in range(weights.shape[1]):
            target[i] += ((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i]))
        k += 8
    if k + 4 <= total:
        a, b, c, d = weights[ids[k]], weights[ids[k + 1]], weights[ids[k + 2]], weights[ids[k + 3]]
        for i in range(weights.shape[1]):
            target[i] += (a[i] + b[i]) + (c[i] + d[i])
        k += 4
    if k + 2 <= total:
        a, b = weights[ids[k]], weights[ids[k + 1]]
        for i in range(weights.shape[1]):
            target[i] += a[i] + b[i]
        k += 2
    if k < total:
        a = weights[ids[k]]
        for i in range(weights.shape[1]):
            target[i] += a[i]


@kernel
def add_products(weights: Array, ids: Array, total: int, numbers: Array, target: Array) -> None:
    """Add to target the rows of weights that the first `total` ids name, each times its number."""
    k = 0
    while k + 4 <= total:
        a, b, c, d = weights[ids[k]], weights[ids[k + 1]], weights[ids[k + 2]], weights[ids[k + 3]]
        p, q, r, s = numbers[ids[k]], numbers[ids[k + 1]], numbers[ids[k + 2]], numbers[ids[k + 3]]
        for i in range(weights.shape[1]):
            target[i] += (p * a[i] + q * b[i]) + (r * c[i] + s * d[i])
        k += 4
    while k < total:
        a, p = weights[ids[k]], numbers[ids[k]]
        for i in range(weights.shape[1]):
            target[i] += p * a[i]
        k += 1

"""Weights met by events: the loops of matrices, convolutions and pools."""

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


@kernel
def add_patches(
    whole: Array, weights: Array, spiking: bool, ids: Array, total: int, numbers: Array, target: Array
) -> None:
    """Add to target what the first `total` ids send through a convolution: their weights, each times its number.

    whole: numbers per input channel and per output channel, input channels of a group, output channels of a group,
    taps; then the reach of each input (see `rules.reach`). weights: (input channels, outputs, taps).
    """
    inside, outside, ins, outs, taps = whole[0], whole[1], whole[2], whole[3], whole[4]
    firsts, links = whole[5 : 6 + inside], whole[6 + inside :]
    for k in range(total):
        channel = ids[k] // inside
        at = ids[k] - channel * inside
        number = weights.dtype.type(1) if spiking else numbers[ids[k]]
        for o in range(outs):
            patch = (channel * outs + o) * taps
            image = (channel // ins * outs + o) * outside
            for e in range(firsts[at], firsts[at + 1]):
                target[image + links[2 * e]] += number * weights[patch + links[2 * e + 1]]


@kernel
def add_windows(whole: Array, spiking: bool, ids: Array, total: int, numbers: Array, target: Array) -> None:
    """Add to target the first `total` ids, or their numbers, at every window that sees them; see `add_patches`."""
    inside, outside = whole[0], whole[1]
    firsts, links = whole[5 : 6 + inside], whole[6 + inside :]
    for k in range(total):
        channel = ids[k] // inside
        at = ids[k] - channel * inside
        number = target.dtype.type(1) if spiking else numbers[ids[k]]
        for e in range(firsts[at], firsts[at + 1]):
            target[channel * outside + links[2 * e]] += number


@kernel
def largest_of(whole: Array, width: int, x: Array, y: Array) -> None:
    """Write the largest of x (channels after each other, `width` numbers) in every window; see `add_patches`."""
    inside, outside = whole[0], whole[1]
    firsts, links = whole[5 : 6 + inside], whole[6 + inside :]
    y[: width // inside * outside] = -np.inf
    for i in range(width):
        channel = i // inside
        at = i - channel * inside
        for e in range(firsts[at], firsts[at + 1]):
            place = channel * outside + links[2 * e]
            y[place] = max(y[place], x[i])

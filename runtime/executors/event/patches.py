"""Events that spread over space: the loops of convolutions and pools; `geometry` lays out what they read."""

from __future__ import annotations

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.lines import LINE_BYTES, add_line, transpose
from unscan.runtime.executors.event.vector import kernel

FEW = 4
"""Fewer output channels than these are taken out of the image one by one."""


@kernel
def add_patches(
    whole: Array, weights: Array, spiking: bool, ids: Array, total: int, numbers: Array, scratch: Array, target: Array
) -> None:  # fmt: skip
    """Add to target what the first `total` ids send through a convolution: their weights, each times its number.

    Each event adds its patch, row after row, to an image whose channels stand last; see `geometry.Patches`. whole:
    points of an input channel; places; input channels of a group, output channels of a group; groups; numbers of an
    input channel's weights; area, span, run; points and starts.
    """
    inside, outside, ins, outs, groups = whole[0], whole[1], whole[2], whole[3], whole[4]
    pitch, area, span, run = whole[5], whole[6], whole[7], whole[8]
    points, starts = whole[9 : 9 + 4 * inside], whole[9 + 4 * inside :]
    line, one = LINE_BYTES // scratch.itemsize, weights.dtype.type(1)
    image, tile = scratch[: groups * area], scratch[groups * area :]
    image[:] = 0
    for k in range(total):
        channel = ids[k] // inside
        point = 4 * (ids[k] - channel * inside)
        at, start = channel // ins * area + points[point], channel * pitch + points[point + 1]
        number = one if spiking else numbers[ids[k]]
        width = points[point + 3] * line
        for _ in range(points[point + 2]):
            for i in range(0, width, line):
                add_line(image, at + i, weights, start + i, number)
            at += span
            start += width
    take_out(outside, outs, groups, area, run, starts, image, tile, target)


@kernel
def take_out(
    outside: int, outs: int, groups: int, area: int, run: int, starts: Array, image: Array, tile: Array, target: Array
) -> None:  # fmt: skip
    """Add to target, channel by channel, an image whose channels stand last."""
    line = LINE_BYTES // image.itemsize
    for group in range(groups):
        corner, first = group * area, group * outs
        if outs < FEW:
            for o in range(outs):
                for p in range(0, outside, run):
                    here, there = corner + starts[p] + o, (first + o) * outside + p
                    for i in range(run):
                        target[there + i] += image[here + i * outs]
        else:
            for p in range(0, outside, line):
                many = min(line, outside - p)
                for o in range(0, outs, line):
                    transpose(image, starts, p, corner + o, tile)
                    for c in range(min(line, outs - o)):
                        there = (first + o + c) * outside + p
                        if many == line:
                            add_line(target, there, tile, c * line, image.dtype.type(1))
                        else:
                            for i in range(many):
                                target[there + i] += tile[c * line + i]


@kernel
def add_windows(whole: Array, spiking: bool, ids: Array, total: int, numbers: Array, target: Array) -> None:
    """Add to target the first `total` ids, or their numbers, at every window that sees them.

    whole: points of a channel, places; then which windows see each point (`geometry.reach`).
    """
    inside, outside = whole[0], whole[1]
    firsts, places = whole[2 : 3 + inside], whole[3 + inside :]
    for k in range(total):
        channel = ids[k] // inside
        at = ids[k] - channel * inside
        number = target.dtype.type(1) if spiking else numbers[ids[k]]
        for e in range(firsts[at], firsts[at + 1]):
            target[channel * outside + places[e]] += number


@kernel
def mark_windows(whole: Array, ids: Array, total: int, target: Array) -> None:
    """Write 1 at every window that sees one of the first `total` ids; see `add_windows`."""
    inside, outside = whole[0], whole[1]
    firsts, places = whole[2 : 3 + inside], whole[3 + inside :]
    for k in range(total):
        channel = ids[k] // inside
        at = ids[k] - channel * inside
        for e in range(firsts[at], firsts[at + 1]):
            target[channel * outside + places[e]] = 1


@kernel
def largest_of(whole: Array, width: int, x: Array, y: Array) -> None:
    """Write the largest of x (channels after each other, `width` numbers) in every window; see `add_windows`."""
    inside, outside = whole[0], whole[1]
    firsts, places = whole[2 : 3 + inside], whole[3 + inside :]
    y[: width // inside * outside] = -np.inf
    for i in range(width):
        channel = i // inside
        at = i - channel * inside
        for e in range(firsts[at], firsts[at + 1]):
            place = channel * outside + places[e]
            y[place] = max(y[place], x[i])

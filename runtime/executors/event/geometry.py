"""Where a point of an image lands: the whole numbers by which convolutions and pools spread events over space."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, gcd
from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.compiler.nodes import Convolution
from unscan.compiler.nodes.convolution import Window
from unscan.runtime.executors.event.program import padded


def reach(
    node: Window,
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    places: tuple[int, ...],
) -> Array:
    """Return which windows see each point of a channel's space.

    First, for each point, where its places start, and where the last ones end; then the places.
    """
    assert isinstance(node.stride, tuple)
    assert isinstance(node.padding, tuple)
    axes = range(node.axes)
    place, tap = np.indices(places).reshape(node.axes, -1, 1), np.indices(kernel).reshape(node.axes, 1, -1)
    seen = [place[i] * node.stride[i] + tap[i] - node.padding[i] for i in axes]
    inside = np.all([(seen[i] >= 0) & (seen[i] < space[i]) for i in axes], axis=0)
    points = np.ravel_multi_index(tuple(each[inside] for each in seen), space)
    firsts = np.concatenate([[0], np.cumsum(np.bincount(points, minlength=space[0] * space[1]))])
    return np.concatenate([firsts, np.nonzero(inside)[0][np.argsort(points, kind="stable")]])


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution, seen from its points.

    Point x meets tap k at place (x + padding - dilation k) / stride, where that is whole: the taps of one phase, every
    stride / gcd(stride, dilation) th. From its last tap to its first they lie at places `apart` from each other.

    Attributes:
        apart: places between what two neighbouring taps of a phase reach.
        phases: the taps of each phase, last first.
        phase: (size,) the phase that each point meets, -1 where it meets none.
        first: (size,) the place that the first of these taps reaches; it may lie outside, as those after it may.
    """

    apart: int
    phases: list[Array]
    phase: Array
    first: Array

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, dilation: int, padding: int) -> Axis:
        """Work out an axis of `size` points."""
        common = gcd(stride, dilation)
        skip = stride // common
        phases = [np.arange(kernel)[k::skip][::-1] for k in range(min(skip, kernel))]
        phase, first = np.full(size, -1), np.zeros(size, np.int64)
        for k, taps in enumerate(phases):
            offset = np.arange(size) + padding - dilation * taps[0]
            met = offset % stride == 0
            phase[met], first[met] = k, offset[met] // stride
        return cls(dilation // common, phases, phase, first)

    def span(self, x: int, places: int) -> tuple[int, int]:
        """Return the first of the taps that point x meets at a place 0 .. places, and how many are met there."""
        if self.phase[x] < 0:
            return 0, 0
        taps, first = len(self.phases[self.phase[x]]), int(self.first[x])
        begin = max(0, ceil(-first / self.apart))
        return begin, max(0, min(taps, ceil((places - first) / self.apart)) - begin)


@dataclass(frozen=True)
class Patches:
    """How events spread through a convolution: weights in lines, an image in scratch, channels last.

    All weights with which a point meets a row of places stand next to each other, output channels within taps, and
    so do the numbers of these places; a row is padded to whole lines with weights 0. Rows of the image in scratch keep
    a margin as wide as a patch, so that no patch is cut along a row: what falls into margins is never read. Places that
    a dilated patch reaches one after the other are neighbours there.

    Attributes:
        weights: (input channels, ...) the rows of every pair of phases.
        area: numbers of one group's image.
        span: numbers from one row of a patch to the next in the image.
        run: how many places stand next to each other in the image, over and over.
        points: (points, 4) where a point's patch starts in the image, and in the weights, its rows, the lines of one.
        starts: (places + padding to a line,) where the channels of a place start in the image.
    """

    weights: Array
    area: int
    span: int
    run: int
    points: Array
    starts: Array

    @classmethod
    def of(cls, node: Convolution, space: tuple[int, ...], places: tuple[int, ...], line: int) -> Patches:
        """Lay out a convolution of one or two axes, in lines of so many numbers."""
        assert isinstance(node.stride, tuple)
        assert isinstance(node.padding, tuple)
        assert isinstance(node.dilation, tuple)
        flat = 2 - node.axes
        height, width = (1,) * flat + space
        rows, columns = (1,) * flat + places
        weight = node.weight.reshape(*node.weight.shape[:2], *(1,) * flat, *node.weight.shape[2:])
        stride, dilation, padding = (
            filler * flat + numbers[: node.axes]
            for filler, numbers in (((1,), node.stride), ((1,), node.dilation), ((0,), node.padding))
        )
        y, x = (
            Axis.of(size, weight.shape[2 + i], stride[i], dilation[i], padding[i])
            for i, size in enumerate((height, width))
        )
        outs, margin = len(weight) // node.groups, max(map(len, x.phases)) - 1
        block = ceil(columns / x.apart) + margin
        pitch = x.apart * block

        def position(row: Any, column: Any) -> Any:
            return (row * pitch + column % x.apart * block + margin + column // x.apart) * outs

        parts, places_of, lines = [], {}, [padded(len(taps) * outs, line) for taps in x.phases]
        each = weight.reshape(node.groups, outs, *weight.shape[1:]).transpose(0, 2, 3, 4, 1)
        each = each.reshape(-1, *each.shape[2:])
        total = 0
        for a, upper in enumerate(y.phases):
            for b, taps in enumerate(x.phases):
                row = np.zeros((len(each), len(upper), lines[b]))
                row[..., : len(taps) * outs] = each[:, upper][:, :, taps].reshape(len(each), len(upper), -1)
                parts.append(row.reshape(len(each), -1))
                places_of[a, b] = total
                total += len(upper) * lines[b]
        points = np.zeros((height, width, 4), np.int64)
        for j in range(width):
            if not x.span(j, columns)[1]:
                continue
            b = int(x.phase[j])
            for i in range(height):
                begin, many = y.span(i, rows)
                if many:
                    top = int(y.first[i]) + begin * y.apart
                    here = position(top, int(x.first[j]))
                    there = places_of[int(y.phase[i]), b] + begin * lines[b]
                    points[i, j] = here, there, many, lines[b] // line
        row_of, column_of = np.divmod(np.arange(rows * columns), columns)
        starts = np.zeros(padded(rows * columns, line), np.int64)
        starts[: rows * columns] = position(row_of, column_of)
        return cls(
            weights=np.concatenate(parts, axis=1),
            area=padded((rows * pitch + margin) * outs, line) + line,
            span=y.apart * pitch * outs,
            run=columns if x.apart == 1 else 1,
            points=points.reshape(-1, 4),
            starts=starts,
        )

"""What a node had to do in a run: the events that arrived at it, and how many weights each of them met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unscan.compiler.ir import Array, Kind, Signal
from unscan.compiler.nodes.convolution import Window


@dataclass(frozen=True)
class Work:
    """What a node had to do: numbers over all samples, or arrays (B,) with one for each, and then so is its cost.

    Attributes:
        sources: port -> for each edge into it its signal, and the events of each neuron behind it, (...) or (B, ...).
        sent: how often its own neurons sent something.
        slots: its neurons x steps x samples.
        turns: steps x samples.
        tallies: what events do not tell.
    """

    sources: Mapping[str, list[tuple[Signal, Array]]]
    sent: Any
    slots: Any
    turns: Any
    tallies: Mapping[str, Any]

    def shape(self, port: str) -> tuple[int, ...]:
        """Return what arrives at a port at one step."""
        return self.sources[port][0][0].shape

    def arrived(self, port: str = "x") -> Any:
        """Return how many events arrived at a port."""
        return sum(together(events, signal.shape) for signal, events in self.sources[port])

    def met(self, fan_out: Array) -> list[tuple[Signal, Any]]:
        """Return for each edge into x its signal, and how many weights its events met: fan_out (...) leave a neuron."""
        return [(signal, together(events * fan_out, signal.shape)) for signal, events in self.sources["x"]]


def together(events: Array, shape: tuple[int, ...]) -> Any:
    """Return the sum over the neurons of a signal: one number of (...), (B,) of (B, ...)."""
    return events.sum(axis=tuple(range(-len(shape), 0)), dtype=np.int64)


def reached(node: Window, shape: tuple[int, ...], each: Array, dilation: tuple[int, ...]) -> Array:
    """Return for each number of an image (C, *space) how many weights it meets, of `each` (C, *kernel) in a window."""
    assert isinstance(node.padding, tuple)
    assert isinstance(node.stride, tuple)
    covered = tuple(d * (k - 1) + 1 for d, k in zip(dilation, each.shape[1:], strict=True))
    places = node.places(covered, Signal(Kind.REAL, shape))
    before, behind = node.padding[: node.axes], node.padding[node.axes :]
    around = [n + a + b for n, a, b in zip(shape[1:], before, behind, strict=True)]
    found = np.zeros((shape[0], *around), np.int64)
    for offset in np.ndindex(*each.shape[1:]):
        first = [i * d for i, d in zip(offset, dilation, strict=True)]
        hit = tuple(slice(f, f + s * p, s) for f, s, p in zip(first, node.stride, places, strict=True))
        found[(slice(None), *hit)] += each[(slice(None), *offset)].reshape(-1, *(1,) * node.axes)
    inside = tuple(slice(a, a + n) for a, n in zip(before, shape[1:], strict=True))
    return found[(slice(None), *inside)]

"""Weights met by events: the loops of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.dense import GROUP, denser, multiply, near
from unscan.runtime.executors.event.gather import add_16, add_64
from unscan.runtime.executors.event.program import Column, Op
from unscan.runtime.executors.event.vector import LANES, kernel, lowest_bit

GATHER = int(Op.GATHER)
OP, WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[:9])


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
def add_events(weights: Array, ids: Array, total: int, spiking: bool, numbers: Array, target: Array) -> None:
    """Add to target the rows of weights that the first `total` ids name, times their numbers where not all are 1.

    Where weights come from afar, few rows are read at once, from their beginning to their end.
    """
    together = max(1, total) if near(weights) else 8
    for k in range(0, total, together):
        many, at = min(together, total - k), 0
        while at + LANES <= weights.shape[1]:
            add_64(weights, ids[k:], many, spiking, numbers, target, at)
            at += LANES
        while at < weights.shape[1]:
            add_16(weights, ids[k:], many, spiking, numbers, target, at)
            at += 16


@kernel
def add_arriving(
    weights: Array, ids: Array, sent: Array, spiking: bool, numbers: Array, block: Array, target: Array, live: Array
) -> None:  # fmt: skip
    """Add to target (steps, C) what arrives in every step, by events or, for a group of steps, by a dense product."""
    for first in range(0, len(target), GROUP):
        last = min(first + GROUP, len(target))
        if last - first == GROUP and denser(weights, sent[first:last]):
            multiply(
                weights,
                ids[first:last],
                sent[first:last],
                spiking,
                numbers[first:last],
                block,
                target[first:last],
            )
            live[first:last] = 1
        else:
            for t in range(first, last):
                if sent[t] > 0:
                    live[t] = 1
                    add_events(weights, ids[t], sent[t], spiking, numbers[t], target[t])


def arriving(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run GATHER or MULTIPLY for a chunk of steps, as `others.others` does the rest; see `apart.address`."""
    source, target, events, chunk = row[SOURCE], row[TARGET], row[LIST], code.chunk
    weights = matrix(code.params, row[PARAMS], row[INPUTS], row[PITCH])
    X = matrix(room.values, code.buffers[source, 0], chunk, code.buffers[source, 1])
    Y = matrix(room.values, code.buffers[target, 0], chunk, code.buffers[target, 1])
    E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
    sent, live = room.sent[events * chunk :], room.live[target * chunk :]
    add_arriving(weights, E, sent, row[OP] == GATHER, X, room.block, Y[:steps], live)

"""Layers of LIF neurons: a step of all of them, alone or with the weights that feed them."""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.dense import GROUP, denser
from unscan.runtime.executors.event.lif import fire_64
from unscan.runtime.executors.event.program import Column, Op
from unscan.runtime.executors.event.synapses import copy, matrix, unpack
from unscan.runtime.executors.event.vector import LANES, kernel

GATHER, FIRE, COUNT = int(Op.GATHER), int(Op.FIRE), int(Op.COUNT)
ROWS = 4
"""The rows of a layer: START, GATHER or MULTIPLY, COUNT and FIRE."""
OP, WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES = map(int, list(Column)[9:15])


@kernel
def rest(alike: bool, p: Array, u: Array, recording: bool, reached: Array) -> None:
    """Run one step of a LIF that nothing reaches and that cannot fire."""
    if alike:
        beta = p[0, 0]
        for i in range(len(u)):
            u[i] *= beta
    else:
        for i in range(len(u)):
            u[i] *= p[0, i]
    if recording:
        copy(u, len(u), reached, 0)


@kernel
def fire(
    width: int, weights: Array, sending: Array, total: int, spiking: bool, x: Array, start: Array, counting: bool,
    counter: Array, variant: int, alike: bool, p: Array, u: Array, recording: bool, reached: Array, ids: Array,
) -> int:  # fmt: skip
    """Run one step of a LIF and of what feeds it (see `lif.fire_64`); list and count the neurons that fire."""
    found = 0
    for at in range(0, len(u), LANES):
        mask = fire_64(
            weights, sending, total, spiking, x, start, counting, counter, variant, alike, p, u, 0, recording,
            reached, at,
        )  # fmt: skip
        if at + LANES > width:
            mask &= (np.uint64(1) << np.uint64(width - at)) - np.uint64(1)
        found = unpack(mask, at, ids, found)
    return found


@kernel
def record(
    row: Array, slots: int, here: int, reached: Array, ids: Array, found: int, spikes: Array, membranes: Array
) -> None:  # fmt: skip
    """Keep the membranes and spikes of a layer at one step of one sample, the slot `here` of all slots."""
    width = row[WIDTH]
    copy(reached, width, membranes, row[MEMBRANES] * slots + here * width)
    start = row[SPIKES] * slots + here * width
    for k in range(found):
        spikes[start + ids[k]] = 1


@kernel
def run_fire(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: bool,
    slots: int, slot: int, samples: int, steps: int,
) -> None:  # fmt: skip
    """Run the row FIRE for a chunk of steps."""
    source, events, variant, unit, pitch, chunk = (
        row[SOURCE], row[LIST], row[VARIANT], row[UNIT], row[PITCH], code.chunk
    )  # fmt: skip
    X = matrix(room.values, code.buffers[source, 0], chunk, code.buffers[source, 1])
    E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
    live, sent = room.live[source * chunk :], room.sent[events * chunk :]
    p, u = matrix(code.params, row[PARAMS], 4, pitch), state[row[STATE] : row[STATE] + pitch]
    width, alike, reached, pending = row[WIDTH], row[INPUTS] == 1, room.reached, room.pending
    counter = room.counts[row[COUNTER] : row[COUNTER] + pitch]
    for t in range(steps):
        found = 0
        if live[t] == 0 and pending[unit] == 0:
            rest(alike, p, u, recording, reached)
        else:
            found = fire(
                width, X, E[t], np.int32(0), True, X[t], X[t], False, counter, variant, alike, p, u, recording,
                reached, E[t],
            )  # fmt: skip
            pending[unit] = found > 0 and variant != 2
            for k in range(found):
                counter[E[t, k]] += 1
        sent[t] = found
        if recording:
            record(row, slots, slot + t * samples, reached, E[t], found, spikes, membranes)


@kernel
def run_layer(
    code: Any, room: Any, rows: Array, state: Array, spikes: Array, membranes: Array, recording: bool,
    slots: int, slot: int, samples: int, steps: int,
) -> None:  # fmt: skip
    """Run the rows START, GATHER or MULTIPLY, COUNT and FIRE at once, for a chunk of steps."""
    start, arrive, count, row, chunk = rows[0], rows[1], rows[2], rows[3], code.chunk
    events, variant, unit, pitch = row[LIST], row[VARIANT], row[UNIT], row[PITCH]
    weights = matrix(code.params, arrive[PARAMS], arrive[INPUTS], arrive[PITCH])
    got = room.sent[arrive[LIST] * chunk : (arrive[LIST] + 1) * chunk]
    A = matrix(room.ids, code.lists[arrive[LIST], 0], chunk, code.lists[arrive[LIST], 1])
    X = matrix(room.values, code.buffers[arrive[SOURCE], 0], chunk, code.buffers[arrive[SOURCE], 1])
    E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
    sent, spiking, biased = room.sent[events * chunk :], arrive[OP] == GATHER, start[VARIANT] == 1
    bias = code.params[start[PARAMS] : start[PARAMS] + pitch]
    p, u = matrix(code.params, row[PARAMS], 4, pitch), state[row[STATE] : row[STATE] + pitch]
    width, alike, reached, pending = row[WIDTH], row[INPUTS] == 1, room.reached, room.pending
    currents = room.counts[count[COUNTER] : count[COUNTER] + pitch]
    counter = room.counts[row[COUNTER] : row[COUNTER] + pitch]
    reaching, counting = 0, count[OP] == COUNT
    for t in range(steps):
        found = 0
        if got[t] == 0 and not biased and pending[unit] == 0:
            rest(alike, p, u, recording, reached)
        else:
            reaching += 1
            found = fire(
                width, weights, A[t], got[t], spiking, X[t], bias, counting, currents, variant, alike, p, u, recording,
                reached, E[t],
            )  # fmt: skip
            pending[unit] = found > 0 and variant != 2
            for k in range(found):
                counter[E[t, k]] += 1
        sent[t] = found
        if recording:
            record(row, slots, slot + t * samples, reached, E[t], found, spikes, membranes)
    for i in range(pitch):
        currents[i] += reaching


@kernel
def at_once(code: Any, room: Any, row: Array, steps: int) -> bool:
    """Say whether the rows of a LAYER run at once: not where so much arrives that a dense product is cheaper."""
    arrive, chunk = code.table[row[INPUTS] + 1], code.chunk
    weights = matrix(code.params, arrive[PARAMS], arrive[INPUTS], arrive[PITCH])
    got = room.sent[arrive[LIST] * chunk : (arrive[LIST] + 1) * chunk]
    sparse = True
    for first in range(0, steps - GROUP + 1, GROUP):
        sparse &= not denser(weights, got[first : first + GROUP])
    return sparse


def layers(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run FIRE, or a LAYER at once, for a chunk of steps, as `others.others` does the rest; see `apart.address`."""
    many, keep = steps, recording != 0
    if row[OP] == FIRE:
        run_fire(code, room, row, state, spikes, membranes, keep, slots, slot, samples, many)
    else:
        rows = code.table[row[INPUTS] : row[INPUTS] + ROWS]
        run_layer(code, room, rows, state, spikes, membranes, keep, slots, slot, samples, many)

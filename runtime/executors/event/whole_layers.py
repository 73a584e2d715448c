"""Layers of whole numbers whose weights have 8 or 16 bits: a chunk of steps of weights and neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.integers import ASLEEP, AWAKE, FADING, fade, silent
from unscan.runtime.executors.event.layers import record
from unscan.runtime.executors.event.narrow import add_narrow, integrate_64
from unscan.runtime.executors.event.program import Column, Op
from unscan.runtime.executors.event.synapses import matrix, unpack
from unscan.runtime.executors.event.vector import LANES, kernel

NARROW = int(Op.NARROW)
OP, WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])


@kernel
def add_events(weights: Array, ids: Array, sent: Array, steps: int, target: Array, live: Array) -> None:
    """Add to target (steps, C) what arrives in every step, eight rows of weights at a time."""
    for t in range(steps):
        if sent[t] > 0:
            live[t] = 1
            for k in range(0, sent[t], 8):
                for at in range(0, weights.shape[1], LANES):
                    add_narrow(weights, ids[t, k:], min(8, sent[t] - k), target[t], at)


@kernel
def run(
    weights: Array, code: Any, room: Any, rows: Array, state: Array, spikes: Array, membranes: Array, recording: bool,
    slots: int, slot: int, samples: int, steps: int,
) -> None:  # fmt: skip
    """Run the rows START, NARROW, COUNT and INTEGRATE at once, for a chunk of steps."""
    start, arrive, count, row, chunk = rows[0], rows[1], rows[2], rows[3], code.chunk
    events, variant, unit, pitch, pending = row[LIST], row[VARIANT], row[UNIT], row[PITCH], room.pending
    got = room.sent[arrive[LIST] * chunk : (arrive[LIST] + 1) * chunk]
    A = matrix(room.ids, code.lists[arrive[LIST], 0], chunk, code.lists[arrive[LIST], 1])
    E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
    sent, whole = room.sent[events * chunk :], code.whole[row[WHOLE] :]
    wraps, biased, alike, talking = whole[0] == 1, whole[2] == 1, row[INPUTS] == 1, start[VARIANT] == 1
    bias = code.params[start[PARAMS] : start[PARAMS] + pitch]
    p, numbers = matrix(code.params, row[PARAMS], 4, pitch), code.params[row[PARAMS] + 4 * pitch :]
    u, reached = state[row[STATE] : row[STATE] + pitch], room.reached[:pitch]
    currents = room.counts[count[COUNTER] : count[COUNTER] + pitch]
    counter = room.counts[row[COUNTER] : row[COUNTER] + pitch]
    lost, reaching = room.tallies[row[TALLY] : row[TALLY] + 1], 0
    for t in range(steps):
        found = 0
        if got[t] > 0 or talking or pending[unit] == AWAKE:
            reaching += 1
            for at in range(0, pitch, LANES):
                mask = integrate_64(
                    weights, A[t], got[t], bias, currents, variant, wraps, alike, p, numbers[0], numbers[1] / 2 - 1,
                    u, recording, reached, lost, at,
                )  # fmt: skip
                if at + LANES > row[WIDTH]:
                    mask &= (np.uint64(1) << np.uint64(row[WIDTH] - at)) - np.uint64(1)
                found = unpack(mask, at, E[t], found)
            for k in range(found):
                counter[E[t, k]] += 1
            if biased or (found > 0 and variant != 2):
                pending[unit] = AWAKE
            else:
                pending[unit] = ASLEEP if silent(u) else FADING
        else:
            fade(unit, pending, p, u, reached)
        sent[t] = found
        if recording:
            record(row, slots, slot + t * samples, reached, E[t], found, spikes, membranes)
    for i in range(pitch):
        currents[i] += reaching


def whole_layers(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run NARROW or a WHOLE_LAYER for a chunk of steps, as `others.others` does the rest; see `apart.address`."""
    rows = code.table[row[INPUTS] : row[INPUTS] + 4]
    arrive = row if row[OP] == NARROW else rows[1]
    numbers = arrive[INPUTS] * arrive[PITCH]
    small = code.narrow[arrive[PARAMS] : arrive[PARAMS] + numbers]
    large = code.narrow[arrive[PARAMS] : arrive[PARAMS] + 2 * numbers].view(np.int16)
    if row[OP] == NARROW:
        target, events, chunk = row[TARGET], row[LIST], code.chunk
        Y = matrix(room.values, code.buffers[target, 0], chunk, code.buffers[target, 1])
        E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
        sent, live = room.sent[events * chunk :], room.live[target * chunk :]
        if row[VARIANT] == 8:
            add_events(matrix(small, 0, row[INPUTS], row[PITCH]), E, sent, steps, Y, live)
        else:
            add_events(matrix(large, 0, row[INPUTS], row[PITCH]), E, sent, steps, Y, live)
    elif arrive[VARIANT] == 8:
        weights = matrix(small, 0, arrive[INPUTS], arrive[PITCH])
        run(weights, code, room, rows, state, spikes, membranes, recording != 0, slots, slot, samples, steps)
    else:
        wide = matrix(large, 0, arrive[INPUTS], arrive[PITCH])
        run(wide, code, room, rows, state, spikes, membranes, recording != 0, slots, slot, samples, steps)

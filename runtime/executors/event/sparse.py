"""Weights most of which are 0: the loops that go over the others alone, and neurons that only their events wake.

The weights of a presynaptic neuron stand behind each other, each with the neuron that it reaches. A layer that nothing
but such weights feeds lies in blocks of 64 neurons, and a block sleeps: it is looked at where a weight reaches it, and
where it may fire without one, as one of its neurons fired in the last step and was not set to 0 (beta <= 1: none comes
to its level by decay). It then takes the decays that it missed, one product a step, as it would have taken them awake;
so a step costs the weights of its events, the blocks that they reach and, later, a product for each 64 neurons that
slept, and gives the bits of a layer that never sleeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.layers import record
from unscan.runtime.executors.event.lif import decay_64, fire_64
from unscan.runtime.executors.event.program import Column
from unscan.runtime.executors.event.synapses import matrix, unpack
from unscan.runtime.executors.event.vector import (
    LANES,
    clear,
    count_nonzero,
    kernel,
    lowest_bit,
    multiply_add,
    nonzero,
)

WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[1:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])
BLOCK = 6
"""A block has 2^6 neurons."""


@kernel
def scatter_spikes(
    pairs: Array, inputs: int, weights: Array, ids: Array, total: int, x: Array, reached: Array
) -> int:
    """Add to x the weights of the first `total` ids, and mark the blocks that they reach; return how many they are.

    pairs: where the weights of each input start, and where the last ones end; then the neuron that each reaches.
    """
    many = 0
    for k in range(total):
        first, last = pairs[ids[k]], pairs[ids[k] + 1]
        for e in range(first, last):
            i = pairs[inputs + 1 + e]
            x[i] += weights[e]
            reached[i >> BLOCK] = 1
        many += last - first
    return many


@kernel
def gather_currents(x: Array, layers: int, pitch: int, at: int, counts: Array, counters: Array) -> None:
    """Count what each Linear brings to a block, where it is not 0, and add all of it to what the first one brings.

    x: what arrives, `pitch` numbers for each Linear.
    """
    for layer in range(layers):
        count_nonzero(x, layer * pitch + at, counts, counters[layer] + at)
    for layer in range(1, layers):
        for i in range(at, at + LANES):
            x[i] += x[layer * pitch + i]
        clear(x, layer * pitch + at)


def scatter(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Add sparse weights to a buffer for a chunk of steps, as `others.others` does the rest; see `apart.address`."""
    source, target, events, chunk, inputs = row[SOURCE], row[TARGET], row[LIST], code.chunk, row[INPUTS]
    X = matrix(room.values, code.buffers[source, 0], chunk, code.buffers[source, 1])
    Y = matrix(room.values, code.buffers[target, 0], chunk, code.buffers[target, 1])
    E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
    pairs, weights = code.whole[row[WHOLE] :], code.params[row[PARAMS] :]
    spiking = row[VARIANT] == 1
    for t in range(steps):
        total, x, y = room.sent[events * chunk + t], X[t], Y[t]
        if total > 0:
            room.live[target * chunk + t] = 1
        for k in range(total):
            sender = E[t, k]
            number = y.dtype.type(1) if spiking else x[sender]
            for e in range(pairs[sender], pairs[sender + 1]):
                i = pairs[inputs + 1 + e]
                y[i] = multiply_add(number, weights[e], y[i])


def wake(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run a LIF whose blocks sleep for a chunk of steps, as `others.others` does the rest; see `apart.address`.

    Its whole numbers are how many Linears and how many lists feed it, where what arrives stands in `history`, and where
    in `late` the step, which blocks are reached, and when each was last awake; for each Linear its counters; and for
    each list its number, where its pairs start, its neurons, its weights, and its Linear.
    """
    whole, chunk, width, pitch = code.whole[row[WHOLE] :], code.chunk, row[WIDTH], row[PITCH]
    layers, fans = whole[0], whole[1]
    x, late = room.history[whole[2] : whole[2] + layers * pitch], room.late[whole[3] :]
    idle, counts, trace = matrix(x, 0, layers, pitch), room.counts, room.reached
    counters, feeding = whole[4:], matrix(whole, 4 + layers, fans, 5)
    blocks = pitch >> BLOCK
    padded = (blocks + LANES - 1) // LANES * LANES
    reached, seen = late[1 : 1 + padded], late[1 + padded : 1 + padded + blocks]
    p, u = matrix(code.params, row[PARAMS], 4, pitch), state[row[STATE] : row[STATE] + pitch]
    E = matrix(room.ids, code.lists[row[LIST], 0], chunk, code.lists[row[LIST], 1])
    counter, tally = (
        room.counts[row[COUNTER] : row[COUNTER] + pitch],
        room.tallies[row[TALLY] : row[TALLY] + 1],
    )
    alike, variant, kept = row[INPUTS] == 1, row[VARIANT], recording != 0
    now, looked = late[0], 0
    if room.pending[row[UNIT]]:
        room.pending[row[UNIT]], now = 0, 0
        seen[:] = 0
        reached[:blocks] = 1
    for t in range(steps):
        now += 1
        for f in range(fans):
            events, inputs, layer = feeding[f, 0], feeding[f, 2], feeding[f, 4]
            place, lanes = code.lists[events, 0], code.lists[events, 1]
            ids = room.ids[place + t * lanes : place + (t + 1) * lanes]
            pairs, weights = code.whole[feeding[f, 1] :], code.params[feeding[f, 3] :]
            tally[0] += scatter_spikes(
                pairs, inputs, weights, ids, room.sent[events * chunk + t], x[layer * pitch :], reached
            )
        found, fired = 0, E[t]
        if kept:
            reached[:blocks] = 1
        for group in range(0, padded, LANES):
            awake = nonzero(reached, group)
            while awake != np.uint64(0):
                block = group + lowest_bit(awake)
                awake &= awake - np.uint64(1)
                at = block << BLOCK
                gather_currents(x, layers, pitch, at, counts, counters)
                mask = fire_64(
                    idle, fired, np.int32(0), True, x, x, False, counter, variant, alike, p, u,
                    now - 1 - seen[block], kept, trace, at,
                )  # fmt: skip
                if at + LANES > width:
                    mask &= (np.uint64(1) << np.uint64(width - at)) - np.uint64(1)
                found = unpack(mask, at, fired, found)
                clear(x, at)
                seen[block] = now
                reached[block] = mask != np.uint64(0) and variant != 2
                looked += 1
        for k in range(found):
            counter[fired[k]] += 1
        room.sent[row[LIST] * chunk + t] = found
        if kept:
            record(row, slots, slot + t * samples, trace, fired, found, spikes, membranes)
    late[0] = now
    tally[0] += looked
    if last:
        for block in range(blocks):
            decay_64(p, u, now - seen[block], block << BLOCK)

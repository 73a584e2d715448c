"""Weights most of which are 0: the loops that go over the others alone, and neurons that only their events wake.

The weights of a presynaptic neuron stand behind each other, each with the neuron that it reaches. A layer that nothing
but such weights feeds decays late: `seen` holds the step at which a neuron was last looked at, and it is looked at
where a weight reaches it, or where it may fire without one (its reset left it at its level or above; as beta <= 1,
none comes there by decay). Its membrane then takes beta^dt at once. A step costs its weights, the neurons that it
looks at, and, where some fire, C / 4096 words of a bitmap that puts them in order.

beta^dt comes from a table, or by squaring with dt - 1 roundings: within (dt + 1) eps of the dt products of a neuron
that decays at every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.bitmap import mark
from unscan.runtime.executors.event.program import POWERS, Column
from unscan.runtime.executors.event.synapses import matrix, unpack
from unscan.runtime.executors.event.vector import kernel, lowest_bit

WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[1:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])


@kernel
def scatter_spikes(
    pairs: Array, inputs: int, weights: Array, ids: Array, total: int, x: Array, seen: Array, now: int,
    entries: Array, many: int,
) -> int:  # fmt: skip
    """Add to x the weights of the first `total` ids, and list what they reach behind the `many` that are listed.

    pairs: where the weights of each input start, and where the last ones end; then the neuron that each reaches.
    seen (C, 2): the last step at which a neuron was looked at, and listed. Returns how many are listed now.
    """
    for k in range(total):
        for e in range(pairs[ids[k]], pairs[ids[k] + 1]):
            i = pairs[inputs + 1 + e]
            x[i] += weights[e]
            entries[many] = i
            many += seen[i, 1] != now
            seen[i, 1] = now
    return many


@kernel
def drain(firing: Array, words: int, entries: Array) -> None:
    """List the entries whose bits are set, in their order, and take the bits back."""
    found = 0
    for group in range(words, len(firing)):
        filled = firing[group]
        firing[group] = 0
        while filled != np.uint64(0):
            word = ((group - words) << 6) + lowest_bit(filled)
            filled &= filled - np.uint64(1)
            found = unpack(firing[word], word << 6, entries, found)
            firing[word] = 0


@kernel
def power(beta: float, exponent: int, one: float) -> float:
    """Return beta^exponent by squaring, in the format of one."""
    found, square = one, beta
    while exponent > 0:
        if exponent & 1:
            found *= square
        square *= square
        exponent >>= 1
    return found


@kernel
def decay(beta: float, which: int, powers: Array, steps: int) -> float:
    """Return beta^steps, from the row `which` of a table where it has one (which >= 0) that is long enough."""
    return powers[which, steps] if which >= 0 and steps < POWERS else power(beta, steps, powers.dtype.type(1))  # type: ignore[no-any-return]


@kernel
def advanced(p: Array, which: Array, powers: Array, u: Array, seen: Array, now: int, y: Array) -> None:
    """Write the membranes that are decayed up to step `now`, as if nothing had arrived since they were looked at."""
    for i in range(len(which)):
        steps = now - seen[i, 0]
        y[i] = u[i] if steps == 0 or u[i] == 0 else decay(p[i, 0], which[i], powers, steps) * u[i]


@kernel
def look(
    variant: int, p: Array, which: Array, powers: Array, u: Array, seen: Array, now: int, x: Array, counts: Array,
    counters: Array, entries: Array, many: int, reached: Array, firing: Array, words: int, waiting: Array,
) -> tuple[int, int]:  # fmt: skip
    """Run step `now` of the neurons that are listed; mark those that fire, list what may fire without input next.

    p (C, 4): beta, gain, the level at which a neuron fires, theta. x (layers, C): what arrived, set back to 0; what is
    not 0 is counted. reached: membranes before the reset, one for each entry. Returns how many fire, and how many wait.
    """
    found = left = 0
    for e in range(many):
        i = entries[e]
        current = x[0, i]
        counts[counters[0] + i] += current != 0
        x[0, i] = 0
        for layer in range(1, len(x)):
            counts[counters[layer] + i] += x[layer, i] != 0
            current += x[layer, i]
            x[layer, i] = 0
        membrane = decay(p[i, 0], which[i], powers, now - seen[i, 0]) * u[i] + p[i, 1] * current
        seen[i, 0], reached[e] = now, membrane
        if membrane >= p[i, 2]:
            mark(firing, words, i)
            found += 1
            if variant == 1:
                membrane -= p[i, 3]
            elif variant == 2:
                membrane = x.dtype.type(0)
            waiting[left] = i
            left += membrane >= p[i, 2]
        u[i] = membrane
    return found, left


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
            i = E[t, k]
            number = y.dtype.type(1) if spiking else x[i]
            for e in range(pairs[i], pairs[i + 1]):
                y[pairs[inputs + 1 + e]] += number * weights[e]


def wake(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run a LIF that decays late for a chunk of steps, as `others.others` does the rest; see `apart.address`.

    Its whole numbers are how many Linears and how many lists feed it, the tables of powers, where its bitmap starts,
    the words of that, where what arrives stands in `history`, and where its steps stand in `late`; for each Linear its
    counters; for each list its number, where its pairs start, its neurons, its weights, and its Linear; and then the
    table of each neuron.
    """
    whole, chunk, width = code.whole[row[WHOLE] :], code.chunk, row[WIDTH]
    layers, fans, tables, first_word, words = whole[0], whole[1], whole[2], whole[3], whole[4]
    x = matrix(room.history, whole[5], layers, width)
    reached = room.history[whole[5] + layers * width :]
    late, counters = room.late[whole[6] :], whole[7:]
    feeding = matrix(whole, 7 + layers, fans, 5)
    start = 7 + layers + 5 * fans
    which, seen = whole[start : start + width], matrix(late, 0, width, 2)
    waiting, kept = late[2 * width : 3 * width], late[3 * width :]
    p = matrix(code.params, row[PARAMS], width, 4)
    powers = matrix(code.params, row[PARAMS] + row[PITCH], tables, POWERS)
    u, entries = state[row[STATE] : row[STATE] + width], room.entries
    firing = room.firing[first_word : first_word + words + (words + 63) // 64]
    E = matrix(room.ids, code.lists[row[LIST], 0], chunk, code.lists[row[LIST], 1])
    tally = room.tallies[row[TALLY] : row[TALLY] + 1]
    now, left = kept[0], kept[1]
    if room.pending[row[UNIT]]:
        room.pending[row[UNIT]], now, left = 0, 0, 0
        seen[:] = 0
        for i in range(width):
            waiting[left] = i
            left += u[i] >= p[i, 2]
    for t in range(steps):
        now += 1
        many = left
        for k in range(left):
            entries[k] = waiting[k]
            seen[waiting[k], 1] = now
        for f in range(fans):
            events, inputs, layer = feeding[f, 0], feeding[f, 2], feeding[f, 4]
            place, pitch = code.lists[events, 0], code.lists[events, 1]
            ids = room.ids[place + t * pitch : place + (t + 1) * pitch]
            pairs, weights = code.whole[feeding[f, 1] :], code.params[feeding[f, 3] :]
            total = room.sent[events * chunk + t]
            many = scatter_spikes(pairs, inputs, weights, ids, total, x[layer], seen, now, entries, many)
            for k in range(total):
                tally[0] += pairs[ids[k] + 1] - pairs[ids[k]]
        here = (slot + t * samples) * width
        if recording:
            traced = row[MEMBRANES] * slots + here
            advanced(p, which, powers, u, seen, now, membranes[traced : traced + width])
        found, left = look(
            row[VARIANT], p, which, powers, u, seen, now, x, room.counts, counters, entries, many, reached,
            firing, words, waiting,
        )  # fmt: skip
        if found > 0:
            drain(firing, words, E[t])
            tally[0] += found + len(firing) - words
        tally[0] += many
        room.sent[row[LIST] * chunk + t] = found
        for k in range(found):
            room.counts[row[COUNTER] + E[t, k]] += 1
        if recording:
            for e in range(many):
                membranes[traced + entries[e]] = reached[e]
            for k in range(found):
                spikes[row[SPIKES] * slots + here + E[t, k]] = 1
    kept[0], kept[1] = now, left
    if last:
        advanced(p, which, powers, u, seen, now, u)

"""The rarer rows of a program, a chunk of steps at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.elements import gate, keep_largest, normalise, place
from unscan.runtime.executors.event.neurons import cross, delayed, filter_modes, remembered, straighten, tire
from unscan.runtime.executors.event.patches import add_patches, add_windows, largest_of, mark_windows
from unscan.runtime.executors.event.program import Column, Op
from unscan.runtime.executors.event.synapses import copy, matrix

CONVOLVE, POOL, LARGEST, DIVIDE, EMBED, NORM, GATE, PRODUCT, KEEP, PLACE = map(int, list(Op)[12:22])
CROSS, TIRE, FILTER, DELAY = map(int, list(Op)[22:26])
OP, WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])


def others(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run one of the rarer rows for a chunk of steps; compiled by `apart.address`.

    slots: steps x samples of the run. slot: that of the chunk's first step. last: whether the run ends here.
    """
    op, width, variant, at = row[OP], row[WIDTH], row[VARIANT], row[PARAMS]
    source, second, target, events, chunk = row[SOURCE], row[SECOND], row[TARGET], row[LIST], code.chunk
    X = matrix(room.values, code.buffers[source, 0], chunk, code.buffers[source, 1])
    Y = matrix(room.values, code.buffers[target, 0], chunk, code.buffers[target, 1])
    E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
    x_live, y_live = (
        room.live[source * chunk : (source + 1) * chunk],
        room.live[target * chunk : (target + 1) * chunk],
    )
    e_sent = room.sent[events * chunk : (events + 1) * chunk]
    whole, reached, unit = code.whole[row[WHOLE] :], room.reached, row[UNIT]
    if op == CONVOLVE:
        weights = code.params[at : at + row[INPUTS] * row[PITCH]]
        for t in range(steps):
            if e_sent[t] > 0:
                y_live[t] = 1
                add_patches(whole, weights, variant == 1, E[t], e_sent[t], X[t], reached, Y[t])
    elif op == POOL:
        for t in range(steps):
            if e_sent[t] > 0:
                y_live[t] = 1
                add_windows(whole, variant == 1, E[t], e_sent[t], X[t], Y[t])
    elif op == LARGEST:
        for t in range(steps):
            if variant == 1:
                y_live[t] = e_sent[t] > 0
                Y[t, :] = 0
                mark_windows(whole, E[t], e_sent[t], Y[t])
            else:
                y_live[t] = x_live[t]
                if x_live[t] == 0:
                    Y[t, :] = 0
                else:
                    largest_of(whole, width, X[t], Y[t])
    elif op == DIVIDE:
        for t in range(steps):
            if x_live[t] != 0:
                x = X[t]
                for i in range(width):
                    x[i] /= code.params[at]
    elif op == EMBED:
        weights = matrix(code.params, at, row[INPUTS], row[PITCH])
        for t in range(steps):
            copy(weights[np.int64(X[t, 0])], width, Y[t], 0)
            y_live[t] = 1
    elif op == NORM:
        p = matrix(code.params, at, 3, row[PITCH])
        for t in range(steps):
            normalise(variant == 1, width, row[INPUTS], p, X[t], Y[t])
            y_live[t] = variant | x_live[t]
    elif op == GATE:
        for t in range(steps):
            gate(width, row[INPUTS], X[t], Y[t])
            y_live[t] = x_live[t]
    elif op == PRODUCT:
        Z = matrix(room.values, code.buffers[second, 0], chunk, code.buffers[second, 1])
        for t in range(steps):
            x, y, z = X[t], Y[t], Z[t]
            for i in range(width):
                y[i] = x[i] * z[i]
            y_live[t] = x_live[t] & room.live[second * chunk + t]
    elif op == KEEP:
        for t in range(steps):
            keep_largest(variant, width, row[INPUTS], X[t], Y[t], reached)
            y_live[t] = x_live[t]
    elif op == PLACE:
        for t in range(steps):
            place(whole[0], whole[1], whole[2], whole[3], X[t], Y[t])
            y_live[t] = x_live[t] if variant == 1 else x_live[t] | y_live[t]
    elif op == FILTER:
        p, h = matrix(code.params, at, 3, row[PITCH]), state[row[STATE] : row[STATE] + row[PITCH]]
        for t in range(steps):
            filter_modes(width, row[INPUTS], p, h, X[t], Y[t])
            y_live[t] = 1
    elif op == DELAY:
        longest, turn = row[INPUTS], room.turns[unit]
        past = state[row[STATE] : row[STATE] + longest * width]
        for t in range(steps):
            if variant != 2:
                y_live[t] = delayed(width, longest, turn, whole, past, Y[t])
            if variant != 1:
                turn = remembered(width, longest, turn, X[t], past)
        if variant != 1:
            if last:
                straighten(width, longest, turn, past)
                turn = 0
            room.turns[unit] = turn
    else:
        counter = room.counts[row[COUNTER] : row[COUNTER] + width]
        p = matrix(code.params, at, row[INPUTS], row[PITCH])
        u, a = state[row[STATE] : row[STATE] + row[PITCH]], state[row[HELD] : row[HELD] + row[PITCH]]
        for t in range(steps):
            if op == CROSS:
                found = cross(width, p[0], X[t], reached, E[t])
            else:
                found = tire(variant % 3, variant >= 3, width, p, u, a, X[t], reached, E[t])
            e_sent[t] = found
            for k in range(found):
                counter[E[t, k]] += 1
            if recording:
                here = (slot + t * samples) * width
                start = row[MEMBRANES] * slots + here
                copy(reached, width, membranes, start)
                start = row[SPIKES] * slots + here
                for k in range(found):
                    spikes[start + E[t, k]] = 1

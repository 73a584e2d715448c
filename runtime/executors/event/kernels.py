"""The compiled loops of the event executor: one call runs every step of every sample that it is given.

`advance` interprets the rows of a program, each for a chunk of steps before the next, so that the weights of one
layer stay in cache; rarer rows are run by functions of their own, which `apart` compiles. Nothing is reassociated
beyond the order in which weights are added (no fast math): beta u + g x is rounded as the reference rounds it. Rows
of buffers are padded to whole vectors, and what stands behind the last neuron is 0, so loops run over whole rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.elements import SILENT, activate
from unscan.runtime.executors.event.frames import opened
from unscan.runtime.executors.event.layers import ROWS, at_once
from unscan.runtime.executors.event.program import Column, Op
from unscan.runtime.executors.event.synapses import copy, matrix, unpack
from unscan.runtime.executors.event.vector import LANES, call_at, kernel, nonzero

SPREAD, FIND, START, _, _, JOIN, AFFINE, ACTIVATE, _, LEAK, COUNT, STORE = map(int, list(Op)[:12])
LAYER = int(Op.LAYER)
OP, WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES = map(int, list(Column)[9:15])


@kernel
def load_spikes(x: Array, first: int, steps: int, b: int, ids: Array, sent: Array, counts: Array) -> bool:
    """List the spikes of a chunk of one sample; return whether every number is 0 or 1."""
    width = x.shape[2]
    valid = True
    for t in range(steps):
        row, events = x[first + t, b], ids[t]
        found = 0
        for at in range(0, width - LANES + 1, LANES):
            found = unpack(nonzero(row, at), at, events, found)
        whole = width // LANES * LANES
        if whole < width and whole > 0:
            ahead = nonzero(row, width - LANES) >> np.uint64(LANES - (width - whole))
            found = unpack(ahead, whole, events, found)
        elif whole < width:
            for i in range(width):
                events[found] = i
                found += row[i] != 0
        sent[t] = found
        for k in range(found):
            counts[events[k]] += 1
            valid &= row[events[k]] == 1
    return valid


@kernel
def load_numbers(x: Array, first: int, steps: int, b: int, values: Array, live: Array) -> bool:
    """Copy a chunk of one sample into a buffer; return whether every number is finite in its format."""
    width = x.shape[2]
    wrong = False
    for t in range(steps):
        row, y = x[first + t, b], values[t]
        some = False
        for i in range(width):
            y[i] = row[i]
        for i in range(width):
            some |= y[i] != 0
            wrong |= (y[i] - y[i]) != 0
        live[t] = some
    return not wrong


@kernel
def count_numbers(x: Array, live: Array, steps: int, counter: Array) -> None:
    """Count the numbers of a chunk (steps, C) that are not 0, per neuron; a row that is not live holds none."""
    t = 0
    while t + 4 <= steps:
        if live[t] | live[t + 1] | live[t + 2] | live[t + 3]:
            a, b, c, d = x[t], x[t + 1], x[t + 2], x[t + 3]
            for i in range(x.shape[1]):
                first, second = (
                    np.int32(a[i] != 0) + np.int32(b[i] != 0),
                    np.int32(c[i] != 0) + np.int32(d[i] != 0),
                )
                counter[i] += np.int32(first + second)
        t += 4
    while t < steps:
        if live[t]:
            a = x[t]
            for i in range(x.shape[1]):
                counter[i] += a[i] != 0
        t += 1


@kernel
def advance(
    apart: Array, code: Any, room: Any, state: Array, outputs: Array, spikes: Array,
    membranes: Array, recording: bool, first: int, steps: int, b: int,
) -> None:  # fmt: skip
    """Run every row of the program for the steps first .. first + steps of sample b, whose input is loaded.

    apart: the address of the function that runs an operation which is not run here (`apart.addresses`). code:
    `program.Code`. room: `workspace.Workspace`. state: what the sample's nodes keep.
    """
    table, params, buffers, lists, chunk = code.table, code.params, code.buffers, code.lists, code.chunk
    values, live, ids, sent, counts = room.values, room.live, room.ids, room.sent, room.counts
    samples = outputs.shape[1]
    slots, slot, r = len(outputs) * samples, first * samples + b, -1
    while r + 1 < len(table):
        r += 1
        row = table[r]
        op, width, variant, pitch, at = row[OP], row[WIDTH], row[VARIANT], row[PITCH], row[PARAMS]
        source, target, events = row[SOURCE], row[TARGET], row[LIST]
        X = matrix(values, buffers[source, 0], chunk, buffers[source, 1])
        Y = matrix(values, buffers[target, 0], chunk, buffers[target, 1])
        E = matrix(ids, lists[events, 0], chunk, lists[events, 1])
        x_live, y_live = (
            live[source * chunk : (source + 1) * chunk],
            live[target * chunk : (target + 1) * chunk],
        )
        e_sent = sent[events * chunk : (events + 1) * chunk]
        counter = counts[row[COUNTER] : row[COUNTER] + buffers[source, 1]]
        if op == LAYER and not at_once(code, room, row, steps):
            continue
        if apart[op] != 0:
            last = first + steps == len(outputs)
            call_at(
                apart[op], code, room, row, state, spikes, membranes, recording, slots, slot, samples, steps, last
            )  # fmt: skip
            r += ROWS if op >= LAYER else 0
        elif op == START:
            for t in range(steps):
                y = Y[t]
                if variant == 1:
                    copy(params[at:], len(y), y, 0)
                else:
                    y[:] = 0
                y_live[t] = variant
        elif op == COUNT:
            count_numbers(X, x_live, steps, counter)
            if variant == 1:
                for t in range(steps):
                    some = 0
                    if x_live[t] != 0:
                        for i in range(X.shape[1]):
                            some += X[t, i] != 0
                    e_sent[t] = some
        elif op == FIND:
            for t in range(steps):
                found = 0
                if x_live[t] != 0:
                    for i in range(0, X.shape[1], LANES):
                        found = unpack(nonzero(X[t], i), i, E[t], found)
                e_sent[t] = found
        elif op == SPREAD:
            for t in range(steps):
                y = Y[t]
                y[:] = 0
                for k in range(e_sent[t]):
                    y[E[t, k]] = 1
                y_live[t] = e_sent[t] > 0
        elif op == JOIN:
            second = row[SECOND]
            Z = matrix(values, buffers[second, 0], chunk, buffers[second, 1])
            for t in range(steps):
                x, y, z = X[t], Y[t], Z[t]
                for i in range(len(y)):
                    y[i] = x[i] + z[i]
                y_live[t] = x_live[t] | live[second * chunk + t]
        elif op == AFFINE:
            p = matrix(params, at, 2, pitch)
            for t in range(steps):
                x, y = X[t], Y[t]
                for i in range(len(y)):
                    y[i] = p[0, i] * x[i] + p[1, i]
                y_live[t] = x_live[t] | variant
        elif op == ACTIVATE:
            for t in range(steps):
                activate(variant, width, X[t], Y[t])
                y_live[t] = x_live[t] | (variant not in SILENT)
        elif op == LEAK:
            p = matrix(params, at, 2, pitch)
            u = state[row[STATE] : row[STATE] + pitch]
            for t in range(steps):
                x, y = X[t], Y[t]
                for i in range(pitch):
                    u[i] = p[0, i] * u[i] + p[1, i] * x[i]
                copy(u, pitch, y, 0)
                y_live[t] = 1
                if recording and variant == 0:
                    start = row[MEMBRANES] * slots + (slot + t * samples) * width
                    copy(u, width, membranes, start)
        elif op == STORE:
            for t in range(steps):
                copy(X[t], width, outputs[first + t, b], 0)


@kernel
def look_for_peaks(watched: Array, sent: Array, chunk: int, steps: int, peaks: Array, flow: Array) -> None:
    """Raise the peaks of every watched list, and the last one, that of what events come from, by a chunk of steps."""
    flow[:] = 0
    for k in range(len(watched)):
        first, source, most = watched[k, 0] * chunk, watched[k, 1], peaks[k]
        for t in range(steps):
            many = sent[first + t]
            most = max(most, many)
            flow[t] += source * many
        peaks[k] = most
    for t in range(steps):
        peaks[-1] = max(peaks[-1], flow[t])


@kernel
def run_samples(
    bits: Array, singles: Array, doubles: Array, begin: int, end: int, apart: Array,
    entry: int, spiking: bool, chunk: int, held: Array, numbers: Array,
    state: Array, outputs: Array, spikes: Array, membranes: Array, recording: bool,
) -> bool:  # fmt: skip
    """Run the samples begin .. end of x from state (B, S), one after the other; return whether x is valid.

    x (T, B, C) is the one of bits (uint8), singles (float32) and doubles (float64) that is not empty. held: the
    `frames.frame` of a program and a workspace, as `frames.opened` reads it. There `counts` are scratch; the events of
    the samples are added to `totals`, and what nodes tally to `tallies`; to those of a sample in `each` and `told`
    where these have rows.
    """
    code, room = opened(entry, spiking, chunk, held, numbers)
    values, live, ids, sent, counts, tallies = (
        room.values,
        room.live,
        room.ids,
        room.sent,
        room.counts,
        room.tallies,
    )
    totals, each, told = room.totals, room.each, room.told
    places = code.lists if spiking else code.buffers
    here, pitch = places[entry, 0], places[entry, 1]
    for b in range(begin, end):
        counts[:] = 0
        room.pending[:] = 1
        room.turns[:] = 0
        if len(each) > 0:
            for i in range(len(tallies)):
                told[b, i] -= tallies[i]
        for first in range(0, len(outputs), chunk):
            steps = min(chunk, len(outputs) - first)
            if spiking:
                events, many = (
                    matrix(ids, here, chunk, pitch),
                    sent[entry * chunk : (entry + 1) * chunk],
                )
                if bits.size > 0:
                    valid = load_spikes(bits, first, steps, b, events, many, counts)
                elif singles.size > 0:
                    valid = load_spikes(singles, first, steps, b, events, many, counts)
                else:
                    valid = load_spikes(doubles, first, steps, b, events, many, counts)
            else:
                rows, some = (
                    matrix(values, here, chunk, pitch),
                    live[entry * chunk : (entry + 1) * chunk],
                )
                if bits.size > 0:
                    valid = load_numbers(bits, first, steps, b, rows, some)
                elif singles.size > 0:
                    valid = load_numbers(singles, first, steps, b, rows, some)
                else:
                    valid = load_numbers(doubles, first, steps, b, rows, some)
            if not valid:
                return False
            advance(apart, code, room, state[b], outputs, spikes, membranes, recording, first, steps, b)
            look_for_peaks(code.watched, sent, chunk, steps, room.peaks, room.flow)
        for i in range(len(counts)):
            totals[i] += counts[i]
        if len(each) > 0:
            events, work = each[b], told[b]
            for i in range(len(counts)):
                events[i] += counts[i]
            for i in range(len(tallies)):
                work[i] += tallies[i]
    return True

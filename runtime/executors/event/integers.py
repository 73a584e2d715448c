"""Nodes on whole numbers but memories: the loops of one step, in a float format that holds them exactly.

What a layer of neurons does without input stands in `pending`. ASLEEP: all its states are 0, nothing is left to do.
FADING: no current is left and nothing can fire, membranes only decay, and a decay truncates, so they come to 0. AWAKE:
anything. Rows are padded with zeros to whole vectors, and 0 fires nowhere, so loops run over whole rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.program import Column, Op
from unscan.runtime.executors.event.synapses import copy, matrix, unpack
from unscan.runtime.executors.event.vector import LANES, above, kernel, nonzero

RESCALE, LOOKUP, TABLE_GATE, INTEGRATE, TURN = map(int, list(Op)[27:32])
OP, WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])
ASLEEP, AWAKE, FADING = range(3)
INTEGRATOR = 5
"""The variant of INTEGRATE that sends its membranes; the others are those of `program.VARIANTS`."""


@kernel
def silent(x: Array) -> bool:
    """Say whether all numbers are 0."""
    at = 0
    while at < len(x) and nonzero(x, at) == np.uint64(0):
        at += LANES
    return at >= len(x)


@kernel
def saturated(low: float, high: float, x: Array) -> int:
    """Clip numbers; return how many were beyond."""
    lost = 0
    for i in range(len(x)):
        held = min(max(x[i], low), high)
        lost += held != x[i]
        x[i] = held
    return lost


@kernel
def wrapped(around: float, x: Array) -> int:
    """Wrap numbers into (-around / 2, around / 2]; return how many were beyond."""
    lost = 0
    for i in range(len(x)):
        held = x[i] - around * np.ceil(x[i] / around - 0.5)
        lost += held != x[i]
        x[i] = held
    return lost


@kernel
def rescale(upwards: bool, units: Array, x: Array, y: Array) -> None:
    """Write x in other units: the nearest whole numbers, ties upwards or else to the even one."""
    for i in range(len(units)):
        y[i] = np.floor(x[i] * units[i] + 0.5) if upwards else np.rint(x[i] * units[i])


@kernel
def found_in(table: Array, unit: float, x: float) -> float:
    """Return the number of a table that x names, in units of `unit`."""
    half = len(table) // 2
    place = min(max(np.floor(x / unit + 0.5), -half), half - 1)
    return table[np.int64(place) + half]  # type: ignore[no-any-return]


@kernel
def table_gate(width: int, row: int, table: Array, unit: float, scale: float, x: Array, y: Array) -> None:
    """Write y = a table[b] / scale, rounded, a and b the halves of every 2 `row` numbers of x."""
    for i in range(width):
        at = i + i // row * row
        y[i] = np.floor(x[at] * found_in(table, unit, x[at + row]) / scale + 0.5)


@kernel
def drive(
    alpha: Array, held: bool, wraps: bool, around: float, unit: float, i: Array, x: Array, reached: Array
) -> int:
    """Write the current that x gives over what is left of the last one, which is kept where `held`.

    Return how many numbers it could not hold.
    """
    for k in range(len(reached)):
        reached[k] = unit * x[k]
    if held:
        for k in range(len(reached)):
            reached[k] += np.trunc(alpha[k] * i[k])
    lost: int = wrapped(around, reached) if wraps else saturated(1 - around / 2, around / 2 - 1, reached)
    if held:
        copy(reached, len(reached), i, 0)
    return lost


@kernel
def leak(p: Array, variant: int, around: float, u: Array, reached: Array) -> int:
    """Turn currents into the membranes that they drive, but for a reset to 0; return how many numbers saturated."""
    if variant == 3:
        for k in range(len(reached)):
            reached[k] -= p[2, k] if u[k] > p[2, k] else 0
    for k in range(len(reached)):
        reached[k] += np.trunc(p[0, k] * u[k]) + p[1, k]
    lost: int = saturated(1 - around / 2, around / 2 - 1, reached)
    return lost


@kernel
def discharge(variant: int, theta: Array, u: Array, reached: Array, ids: Array) -> int:
    """List the neurons that fire, and keep the membranes after their resets; return how many fire."""
    if variant == 4:
        for k in range(len(reached)):
            reached[k] = 0 if u[k] > theta[k] else reached[k]
    found = 0
    for at in range(0, len(reached), LANES):
        found = unpack(above(reached, theta, at), at, ids, found)
    copy(reached, len(reached), u, 0)
    if variant == 1 or variant == 2:
        for f in range(found):
            k = ids[f]
            u[k] = reached[k] - theta[k] if variant == 1 else 0
    return found


@kernel
def fade(unit: int, pending: Array, p: Array, u: Array, reached: Array) -> None:
    """Run one step of a layer of neurons that nothing reaches and that cannot fire."""
    if pending[unit] == FADING:
        for k in range(len(u)):
            u[k] = np.trunc(p[0, k] * u[k])
        copy(u, len(u), reached, 0)
        pending[unit] = ASLEEP if silent(u) else FADING
    else:
        reached[:] = 0


@kernel
def turn(
    width: int, modes: int, p: Array, unit: float, scale: float, top: float, h: Array, x: Array, y: Array
) -> int:
    """Run one step of an IntegerSSM, but for what y can hold; return how many numbers of its modes saturated.

    p: a, c (pairs) and d; h: pairs.
    """
    lost = 0
    for i in range(width):
        x_i, total = unit * x[i], x.dtype.type(0)
        for m in range(2 * i * modes, 2 * (i + 1) * modes, 2):
            real = np.trunc(p[0, m] * h[m] - p[0, m + 1] * h[m + 1]) + x_i
            imaginary = np.trunc(p[0, m] * h[m + 1] + p[0, m + 1] * h[m])
            h[m], h[m + 1] = min(max(real, -top), top), min(max(imaginary, -top), top)
            lost += (h[m] != real) + (h[m + 1] != imaginary)
            total += p[1, m] * h[m] - p[1, m + 1] * h[m + 1]
        y[i] = np.floor((total + p[2, i] * x_i) / scale + 0.5)
    return lost


def integers(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run one row of whole numbers for a chunk of steps, as `others.others` does the rest; see `apart.address`."""
    op, width, variant, at, pitch = row[OP], row[WIDTH], row[VARIANT], row[PARAMS], row[PITCH]
    source, target, events, chunk = row[SOURCE], row[TARGET], row[LIST], code.chunk
    X = matrix(room.values, code.buffers[source, 0], chunk, code.buffers[source, 1])
    Y = matrix(room.values, code.buffers[target, 0], chunk, code.buffers[target, 1])
    x_live, y_live = (
        room.live[source * chunk : (source + 1) * chunk],
        room.live[target * chunk : (target + 1) * chunk],
    )
    whole, pending, unit = code.whole[row[WHOLE] :], room.pending, row[UNIT]
    tally = room.tallies[row[TALLY] : row[TALLY] + 1]
    if op == RESCALE:
        units, numbers = code.params[at : at + pitch], code.params[at + pitch : at + pitch + 2]
        for t in range(steps):
            rescale(variant == 1, units, X[t], Y[t])
            tally[0] += saturated(numbers[0], numbers[1], Y[t])
            y_live[t] = x_live[t]
    elif op == LOOKUP:
        table, numbers = code.params[at : at + row[INPUTS]], code.params[at + pitch : at + pitch + 1]
        for t in range(steps):
            for i in range(width):
                Y[t, i] = found_in(table, numbers[0], X[t, i])
            y_live[t] = x_live[t] | variant
    elif op == TABLE_GATE:
        table, numbers = code.params[at : at + whole[0]], code.params[at + pitch : at + pitch + 4]
        for t in range(steps):
            table_gate(width, row[INPUTS], table, numbers[0], numbers[1], X[t], Y[t])
            tally[0] += saturated(numbers[2], numbers[3], Y[t])
            y_live[t] = x_live[t]
    elif op == TURN:
        p, h = matrix(code.params, at, 3, pitch), state[row[STATE] : row[STATE] + whole[0]]
        numbers = code.params[at + 3 * pitch : at + 3 * pitch + 4]
        for t in range(steps):
            if x_live[t] != 0 or pending[unit] == AWAKE:
                tally[0] += turn(width, row[INPUTS], p, numbers[0], numbers[1], numbers[2], h, X[t], Y[t])
                tally[0] += saturated(-numbers[3], numbers[3], Y[t])
                pending[unit] = ASLEEP if silent(h) else AWAKE
                y_live[t] = 1
            else:
                Y[t, :] = 0
                y_live[t] = 0
    else:
        p, reached = matrix(code.params, at, 4, pitch), room.reached[:pitch]
        numbers = code.params[at + 4 * pitch : at + 4 * pitch + 2]
        scale, around = numbers[0], numbers[1]
        wraps, held, biased = whole[0] == 1, whole[1] == 1, whole[2] == 1
        u, current = state[row[STATE] : row[STATE] + pitch], state[row[HELD] : row[HELD] + pitch]
        E = matrix(room.ids, code.lists[events, 0], chunk, code.lists[events, 1])
        e_sent = room.sent[events * chunk : (events + 1) * chunk]
        counter = room.counts[row[COUNTER] : row[COUNTER] + width]
        for t in range(steps):
            found = 0
            if x_live[t] != 0 or pending[unit] == AWAKE:
                tally[0] += drive(p[3], held, wraps, around, scale, current, X[t], reached)
                tally[0] += leak(p, variant, around, u, reached)
                if variant == INTEGRATOR:
                    copy(reached, pitch, u, 0)
                else:
                    found = discharge(variant, p[2], u, reached, E[t])
                if biased or (found > 0 and variant != 2) or (held and not silent(current)):
                    pending[unit] = AWAKE
                else:
                    pending[unit] = ASLEEP if silent(u) else FADING
            else:
                fade(unit, pending, p, u, reached)
            here = (slot + t * samples) * width
            if recording:
                copy(reached, width, membranes, row[MEMBRANES] * slots + here)
            if variant == INTEGRATOR:
                copy(reached, pitch, Y[t], 0)
                y_live[t] = pending[unit] != ASLEEP
            else:
                e_sent[t] = found
                for f in range(found):
                    counter[E[t, f]] += 1
                    if recording:
                        spikes[row[SPIKES] * slots + here + E[t, f]] = 1

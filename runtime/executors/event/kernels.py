"""The compiled loops of the event executor: one call runs every step of every sample that it is given.

`advance` interprets the rows of a program, each for a chunk of steps before the next, so that the weights of one
layer stay in cache. Nothing is reassociated beyond the order in which weights are added (no fast math): beta u + g x
is rounded as the reference rounds it. Rows of buffers are padded to whole vectors, and what stands behind the last
neuron is 0, so loops run over whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.program import Column, Op
from unscan.runtime.executors.event.vector import (
    LANES,
    fire_none,
    fire_subtract,
    fire_subtract_next,
    fire_zero,
    fire_zero_next,
    lowest_bit,
    nonzero,
    ones,
)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function to machine code that runs without the interpreter lock; cached on disk."""
    compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled


SPREAD, FIND, START, GATHER, MULTIPLY, JOIN, AFFINE, ACTIVATE, FIRE, LEAK, COUNT, STORE = map(int, Op)
OP, WIDTH, SOURCE, SECOND, TARGET, LIST, PARAMS, PITCH, INPUTS = map(int, list(Column)[:9])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES = map(int, list(Column)[9:])


@kernel
def matrix(flat: Array, start: int, rows: int, pitch: int) -> Array:
    """Return a stretch of a flat array as rows."""
    return flat[start : start + rows * pitch].reshape(rows, pitch)


@kernel
def unpack(mask: np.uint64, first: int, ids: Array, found: int) -> int:
    """Append first + the index of every bit that is set; return how many ids there are now."""
    while mask != np.uint64(0):
        ids[found] = first + lowest_bit(mask)
        found += 1
        mask &= mask - np.uint64(1)
    return found


@kernel
def add_rows(weights: Array, ids: Array, total: int, target: Array) -> None:
    """Add to target the rows of weights that the first `total` ids name."""
    k = 0
    while k + 8 <= total:
        a, b, c, d = weights[ids[k]], weights[ids[k + 1]], weights[ids[k + 2]], weights[ids[k + 3]]
        e, f, g, h = weights[ids[k + 4]], weights[ids[k + 5]], weights[ids[k + 6]], weights[ids[k + 7]]
        for i in range(weights.shape[1]):
            target[i] += ((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i]))
        k += 8
    if k + 4 <= total:
        a, b, c, d = weights[ids[k]], weights[ids[k + 1]], weights[ids[k + 2]], weights[ids[k + 3]]
        for i in range(weights.shape[1]):
            target[i] += (a[i] + b[i]) + (c[i] + d[i])
        k += 4
    if k + 2 <= total:
        a, b = weights[ids[k]], weights[ids[k + 1]]
        for i in range(weights.shape[1]):
            target[i] += a[i] + b[i]
        k += 2
    if k < total:
        a = weights[ids[k]]
        for i in range(weights.shape[1]):
            target[i] += a[i]


@kernel
def add_products(weights: Array, ids: Array, total: int, numbers: Array, target: Array) -> None:
    """Add to target the rows of weights that the first `total` ids name, each times its number."""
    k = 0
    while k + 4 <= total:
        a, b, c, d = weights[ids[k]], weights[ids[k + 1]], weights[ids[k + 2]], weights[ids[k + 3]]
        p, q, r, s = numbers[ids[k]], numbers[ids[k + 1]], numbers[ids[k + 2]], numbers[ids[k + 3]]
        for i in range(weights.shape[1]):
            target[i] += (p * a[i] + q * b[i]) + (r * c[i] + s * d[i])
        k += 4
    while k < total:
        a, p = weights[ids[k]], numbers[ids[k]]
        for i in range(weights.shape[1]):
            target[i] += p * a[i]
        k += 1


@kernel
def fire(variant: int, p: Array, u: Array, x: Array, reached: Array, ids: Array) -> int:
    """Run one step of a LIF (see `vector.neuron`) by `program.VARIANTS`; list and count the neurons that fire."""
    found = 0
    for at in range(0, p.shape[1], LANES):
        if variant == 2:
            mask = fire_zero(p, u, x, reached, at)
        elif variant == 1:
            mask = fire_subtract(p, u, x, reached, at)
        elif variant == 0:
            mask = fire_none(p, u, x, reached, at)
        elif variant == 3:
            mask = fire_subtract_next(p, u, x, reached, at)
        else:
            mask = fire_zero_next(p, u, x, reached, at)
        found = unpack(mask, at, ids, found)
    return found


@kernel
def activate(function: int, width: int, x: Array, y: Array) -> None:
    """Write y = f(x), the functions numbered as in `stateless.FUNCTIONS`."""
    half, one, zero = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(0)
    root = x.dtype.type(math.sqrt(2.0))
    for i in range(width):
        if function == 0:
            y[i] = zero if x[i] < zero else x[i]
        elif function == 1:
            y[i] = half * (one + math.tanh(half * x[i]))
        elif function == 2:
            y[i] = math.tanh(x[i])
        elif function == 3:
            y[i] = x[i] * half * (one + math.tanh(half * x[i]))
        else:
            y[i] = x[i] * half * (one + math.erf(x[i] / root))


@kernel
def load_spikes(x: Array, first: int, steps: int, b: int, ids: Array, sent: Array, counts: Array) -> bool:
    """List the spikes of a chunk of one sample; return whether every number is 0 or 1."""
    width = x.shape[2]
    whole = width // LANES * LANES
    valid = True
    for t in range(steps):
        row, events = x[first + t, b], ids[t]
        found = 0
        for at in range(0, whole, LANES):
            mask = nonzero(row, at)
            valid &= mask == ones(row, at)
            found = unpack(mask, at, events, found)
        for i in range(whole, width):
            valid &= (row[i] == 0) | (row[i] == 1)
            events[found] = i
            found += row[i] != 0
        sent[t] = found
        for k in range(found):
            counts[events[k]] += 1
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
def advance(
    table: Array,
    params: Array,
    buffers: Array,
    lists: Array,
    chunk: int,
    values: Array,
    live: Array,
    ids: Array,
    sent: Array,
    pending: Array,
    reached: Array,
    counts: Array,
    state: Array,
    outputs: Array,
    spikes: Array,
    membranes: Array,
    recording: bool,
    first: int,
    steps: int,
    b: int,
) -> None:
    """Run every row of the program for the steps first .. first + steps of sample b, whose input is loaded.

    values, live (buffers x chunk): numbers, and whether a step's row may hold one that is not 0.
    ids, sent (lists x chunk): neurons that fired, and how many. pending: whether a membrane can fire, or is still
    to be reset, without input. state: the sample's membranes.
    """
    slots, slot = outputs.shape[0] * outputs.shape[1], first * outputs.shape[1] + b
    for r in range(len(table)):
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
        if op == GATHER:
            weights = matrix(params, at, row[INPUTS], pitch)
            for t in range(steps):
                if e_sent[t] > 0:
                    y_live[t] = 1
                    add_rows(weights, E[t], e_sent[t], Y[t])
        elif op == FIRE:
            p = matrix(params, at, 4, pitch)
            u, unit = state[row[STATE] : row[STATE] + pitch], row[UNIT]
            for t in range(steps):
                if x_live[t] == 0 and pending[unit] == 0:
                    for i in range(pitch):
                        u[i] *= p[0, i]
                        reached[i] = u[i]
                    e_sent[t] = 0
                else:
                    found = fire(variant, p, u, X[t], reached, E[t])
                    e_sent[t] = found
                    pending[unit] = found > 0 and variant != 2
                    for k in range(found):
                        counter[E[t, k]] += 1
                if recording:
                    here = slot + t * outputs.shape[1]
                    start = row[MEMBRANES] * slots + here * width
                    membranes[start : start + width] = reached[:width]
                    start = row[SPIKES] * slots + here * width
                    for k in range(e_sent[t]):
                        spikes[start + E[t, k]] = 1
        elif op == START:
            for t in range(steps):
                y = Y[t]
                if variant == 1:
                    y[:] = params[at : at + len(y)]
                else:
                    y[:] = 0
                y_live[t] = variant
        elif op == COUNT:
            for t in range(steps):
                if x_live[t] != 0:
                    x = X[t]
                    for i in range(len(x)):
                        counter[i] += x[i] != 0
        elif op == FIND:
            for t in range(steps):
                found = 0
                if x_live[t] != 0:
                    for i in range(0, X.shape[1], LANES):
                        found = unpack(nonzero(X[t], i), i, E[t], found)
                e_sent[t] = found
        elif op == MULTIPLY:
            weights = matrix(params, at, row[INPUTS], pitch)
            for t in range(steps):
                if e_sent[t] > 0:
                    y_live[t] = 1
                    add_products(weights, E[t], e_sent[t], X[t], Y[t])
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
                y_live[t] = x_live[t] | (variant == 1)
        elif op == LEAK:
            p = matrix(params, at, 2, pitch)
            u = state[row[STATE] : row[STATE] + pitch]
            for t in range(steps):
                x, y = X[t], Y[t]
                for i in range(pitch):
                    u[i] = p[0, i] * u[i] + p[1, i] * x[i]
                y[:] = u
                y_live[t] = 1
                if recording:
                    start = row[MEMBRANES] * slots + (slot + t * outputs.shape[1]) * width
                    membranes[start : start + width] = u[:width]
        elif op == STORE:
            for t in range(steps):
                outputs[first + t, b] = X[t, :width]


@kernel
def run_samples(
    bits: Array,
    singles: Array,
    doubles: Array,
    begin: int,
    end: int,
    entry: int,
    spiking: bool,
    table: Array,
    params: Array,
    buffers: Array,
    lists: Array,
    chunk: int,
    values: Array,
    live: Array,
    ids: Array,
    sent: Array,
    pending: Array,
    reached: Array,
    counts: Array,
    totals: Array,
    state: Array,
    outputs: Array,
    spikes: Array,
    membranes: Array,
    recording: bool,
) -> bool:
    """Run the samples begin .. end of x from state (B, S), one after the other; return whether x is valid.

    x (T, B, C) is the one of bits (uint8), singles (float32) and doubles (float64) that is not empty.
    counts: scratch; totals: events of each neuron, to which the samples are added.
    """
    places = lists if spiking else buffers
    here, pitch = places[entry, 0], places[entry, 1]
    for b in range(begin, end):
        counts[:] = 0
        pending[:] = 1
        for first in range(0, len(outputs), chunk):
            steps = min(chunk, len(outputs) - first)
            if spiking:
                events, many = matrix(ids, here, chunk, pitch), sent[entry * chunk : (entry + 1) * chunk]
                if bits.size > 0:
                    valid = load_spikes(bits, first, steps, b, events, many, counts)
                elif singles.size > 0:
                    valid = load_spikes(singles, first, steps, b, events, many, counts)
                else:
                    valid = load_spikes(doubles, first, steps, b, events, many, counts)
            else:
                rows, some = matrix(values, here, chunk, pitch), live[entry * chunk : (entry + 1) * chunk]
                if bits.size > 0:
                    valid = load_numbers(bits, first, steps, b, rows, some)
                elif singles.size > 0:
                    valid = load_numbers(singles, first, steps, b, rows, some)
                else:
                    valid = load_numbers(doubles, first, steps, b, rows, some)
            if not valid:
                return False
            advance(
                table,
                params,
                buffers,
                lists,
                chunk,
                values,
                live,
                ids,
                sent,
                pending,
                reached,
                counts,
                state[b],
                outputs,
                spikes,
                membranes,
                recording,
                first,
                steps,
                b,
            )
        for i in range(len(totals)):
            totals[i] += counts[i]
    return True

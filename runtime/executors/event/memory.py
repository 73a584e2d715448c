"""Matrix memories: the loops of one step, which list the entries that fire.

Dense, every entry decays and is compared. With scalar decay a step goes over the accumulators, the entries that are
written, and those that fire: an entry that is not written can only stop firing, as A falls and rounding keeps order.
What may fire stands in a list in the order of the entries, into which what is written is merged: both a product's and
the list's, so that sums are taken in that order whatever the history. A gate outside [0, 1] is no decay: after one all
entries are looked at. What feeds the memory is read where it stands, an Embedding in its table.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.accumulators import collect
from unscan.runtime.executors.event.program import Column
from unscan.runtime.executors.event.synapses import copy
from unscan.runtime.executors.event.vector import loops

TARGET, LIST, PARAMS = map(int, list(Column)[4:7])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])
END = 2**31 - 1
"""What ends a list of entries: more than any."""
PORT = 5
"""Whole numbers that say where the numbers of a port are found (`assembly.Assembly.port`)."""


@loops
def rebuild(n: int, M: Array, A: Array, scales: Array, level: float, active: Array) -> None:
    """List the entries that reach the level, of all; what stands in the column of an accumulator that is 0 becomes 0.

    Such a one is unused. scales: room for the accumulator of each column.
    """
    for j in range(n):
        scales[j] = A[j % len(A)]
    found = 0
    for first in range(0, len(M), n):
        row, some = M[first : first + n], 0
        for j in range(n):
            some += (row[j] * scales[j] >= level) | ((scales[j] == 0) & (row[j] != 0))
        if some > 0:
            for j in range(n):
                if row[j] * scales[j] >= level:
                    active[found] = first + j
                    found += 1
                elif scales[j] == 0:
                    row[j] = 0
    active[found] = END


@loops
def begin(whole: Array, port: int, buffers: Array, values: Array, t: int) -> int:
    """Return where the numbers of step t start that a port gets: in a buffer, or in the row of a table it names."""
    at = buffers[whole[port], 0] + t * buffers[whole[port], 1]
    if whole[port + 1] < 0:
        return int(at)
    return int(whole[port + 1] + np.int64(values[at]) * whole[port + 2])


@loops
def listing(
    whole: Array, port: int, buffers: Array, values: Array, lists: Array, sent: Array, chunk: int, t: int
) -> tuple[Any, Any]:
    """Return where the numbers of a port that are not 0 at step t are listed, and how many they are."""
    named = np.int64(whole[port + 4])
    if named < 0:
        one = whole[port + 3]
        return lists[one, 0] + t * lists[one, 1], np.int64(sent[one * chunk + t])
    row = named + np.int64(values[buffers[whole[port], 0] + t * buffers[whole[port], 1]])
    return named + whole[row], np.int64(whole[row + 1] - whole[row])


@loops
def unit_key(K: Array, key: int, ks: Array, first: int, total: int, scaled: Array) -> int:
    """Write what is not 0 in a key, over its length, in the order of ks; return how many numbers there are.

    key, first: where the key starts in K, and what it lists in ks. A key shorter than 1e-12 has none.
    """
    square = 0.0
    for b in range(total):
        square += np.float64(K[key + ks[first + b]]) ** 2
    length = math.sqrt(square)
    if not length > 1e-12:
        return 0
    for b in range(total):
        scaled[b] = K[key + ks[first + b]] / length
    return total


@loops
def write_products(
    n: int, M: Array, A: Array, level: float, V: Array, value: int, vs: Array, top: int, rows: int, K: Array, key: int,
    ks: Array, left: int, columns: int, keys: Array, written: Array,
) -> None:  # fmt: skip
    """Add v k^T / A at the rows and columns that are named; list what is written and reaches the level.

    value, top, key, left: where they start in V, vs, K and ks. keys: room for k / A. The list is written without a
    branch, as none could be foreseen.
    """
    for b in range(columns):
        j = ks[left + b]
        keys[b] = K[key + j] / A[j]
    reach = 0
    for a in range(rows):
        i = np.int64(vs[top + a])
        number = V[value + i]
        for b in range(columns):
            j = np.int64(ks[left + b])
            entry = i * n + j
            new = M[entry] + number * keys[b]
            M[entry] = new
            written[reach] = entry
            reach += new * A[j] >= level
    written[reach] = END


@loops
def write_delta(
    d: int, n: int, M: Array, A: Array, beta: float, level: float, V: Array, value: int, keys: Array, ks: Array,
    left: int, columns: int, written: Array,
) -> None:  # fmt: skip
    """Let every row forget what stands along the key and take v, at the columns named; list what reaches the level."""
    scale, reach = A[0], 0
    for i in range(d):
        read = V.dtype.type(0)
        for b in range(columns):
            read += M[i * n + ks[left + b]] * keys[b]
        new = beta * (V[value + i] - scale * read) / scale
        for b in range(columns):
            entry = i * n + ks[left + b]
            M[entry] += new * keys[b]
            written[reach] = entry
            reach += M[entry] * scale >= level
    written[reach] = END


@loops
def row_of(entry: int, part: float) -> int:
    """Return entry // n, `part` being 1 / n: a product takes a fraction of the time of a division.

    It is exact for entries below 2^31, as (entry + 1/2) / n is at least 1 / 2n from every whole number.
    """
    return int((np.float64(entry) + 0.5) * part)


@loops
def look(
    n: int, M: Array, A: Array, level: float, theta: float, reset: int, active: Array, written: Array, entries: Array
) -> int:  # fmt: skip
    """List the entries that fire, of those that may, in their order, and reset them; return how many fire.

    active: those that may still fire, before and after. written: those that may by what was written. Both end with END
    and are merged without a branch, as none could be foreseen. A: one accumulator for each column, or one.
    """
    found, part, old, new = 0, 1 / n, 0, 0
    x, y = active[0], written[0]
    while min(x, y) != END:
        entry = min(x, y)
        old += x <= y
        new += y <= x
        x, y = active[old], written[new]
        scale = A[entry - row_of(entry, part) * n] if len(A) == n else A[0]
        entries[found] = entry
        found += M[entry] * scale >= level
    left = 0
    if reset == 0:
        copy(entries, found, active, 0)
        left = found
    else:
        for e in range(found):
            entry = entries[e]
            scale = A[entry - row_of(entry, part) * n] if len(A) == n else A[0]
            M[entry] = M[entry] - theta / scale if reset == 1 else 0
            active[left] = entry
            left += M[entry] * scale >= level
    active[left] = END
    return found


@loops
def decay_and_add(d: int, n: int, S: Array, alpha: Array, v: Array, k: Array) -> None:
    """Run S <- S diag(alpha) + v k^T."""
    for i in range(d):
        row = S[i * n : (i + 1) * n]
        for j in range(n):
            row[j] = row[j] * alpha[j] + v[i] * k[j]


@loops
def decay_and_correct(
    d: int, n: int, S: Array, alpha: float, beta: float, v: Array, keys: Array, ks: Array, columns: int
) -> None:
    """Run S <- alpha S, then S <- S + beta (v - S k) k^T."""
    for i in range(d):
        row = S[i * n : (i + 1) * n]
        for j in range(n):
            row[j] *= alpha
        read = v.dtype.type(0)
        for b in range(columns):
            read += row[ks[b]] * keys[b]
        new = beta * (v[i] - read)
        for b in range(columns):
            row[ks[b]] += new * keys[b]


@loops
def compare(S: Array, level: float, theta: float, reset: int, entries: Array) -> int:
    """List the entries that fire, and reset them; return how many there are."""
    found = 0
    for entry in range(len(S)):
        if S[entry] >= level:
            entries[found] = entry
            found += 1
            if reset == 1:
                S[entry] -= theta
            elif reset == 2:
                S[entry] = 0
    return found


@loops
def read_rows(
    d: int, n: int, r: int, entries: Array, found: int, Q: Array, query: int, y: Array, counter: Array
) -> int:  # fmt: skip
    """Write into row i of y the sum of the rows j of q, over the entries (i, j) that fired.

    query: where q starts in Q. Count the numbers of y that are not 0, each in the counter; return how many there are.
    """
    y[:] = 0
    part, some = 1 / n, np.int32(0)
    for e in range(found):
        i = row_of(entries[e], part)
        j = query + (entries[e] - i * n) * r
        if r == 1:
            y[i] += Q[j]
        else:
            for c in range(r):
                y[i * r + c] += Q[j + c]
    for i in range(len(y)):
        one = np.int32(y[i] != 0)
        counter[i] += one
        some += one
    return int(some)


@loops
def run_memory(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run a matrix memory for a chunk of steps.

    Its whole numbers are d, n, r (0 where nothing is read), whether it is a delta memory, whether its decay is scalar,
    the reset, where its lists of entries start in `late`, and where v, k, alpha, beta and q are found
    (`assembly.Assembly.port`).
    """
    whole, buffers, lists, chunk, first = code.whole, code.buffers, code.lists, code.chunk, row[WHOLE]
    values, sent = room.values, room.sent
    d, n, r, delta = whole[first], whole[first + 1], whole[first + 2], whole[first + 3] == 1
    scalar, reset, listed, v = whole[first + 4] == 1, whole[first + 5], whole[first + 6], first + 7
    k, alpha, beta, q = v + PORT, v + 2 * PORT, v + 3 * PORT, v + 4 * PORT
    V, K = (code.params if whole[v + 1] >= 0 else values), (code.params if whole[k + 1] >= 0 else values)
    gates, Q = (
        (code.params if whole[alpha + 1] >= 0 else values),
        (code.params if whole[q + 1] >= 0 else values),
    )
    rates = code.params if whole[beta + 1] >= 0 else values
    vs, ks = (whole if whole[v + 4] >= 0 else room.ids), (whole if whole[k + 4] >= 0 else room.ids)
    target, pitch = buffers[row[TARGET], 0], buffers[row[TARGET], 1]
    level, theta, bound = code.params[row[PARAMS]], code.params[row[PARAMS] + 1], code.params[row[PARAMS] + 2]
    held = 1 if delta else n
    M, A = state[row[STATE] : row[STATE] + d * n], state[row[HELD] : row[HELD] + held]
    active, written = room.late[listed : listed + d * n + 1], room.late[listed + d * n + 1 :]
    entries, keys = room.entries, room.reached
    counter, tally = room.counts[row[COUNTER] :], room.tallies[row[TALLY] :]
    if scalar and room.pending[row[UNIT]]:
        rebuild(n, M, A, keys, level, active)
        room.pending[row[UNIT]] = 0
    for t in range(steps):
        top, rows = listing(whole, v, buffers, values, lists, sent, chunk, t)
        left, columns = listing(whole, k, buffers, values, lists, sent, chunk, t)
        value, key = begin(whole, v, buffers, values, t), begin(whole, k, buffers, values, t)
        gate = begin(whole, alpha, buffers, values, t)
        if delta:
            rows, columns = np.int64(d), unit_key(K, key, ks, left, columns, keys)
        rate = rates[begin(whole, beta, buffers, values, t)]
        tally[0] += rows * columns
        if scalar:
            rescaled, odd = collect(M, A, held, gates, gate, bound)
            tally[2] += rescaled
            if delta:
                write_delta(d, n, M, A, rate, level, V, value, keys, ks, left, columns, written)
            else:
                write_products(
                    n, M, A, level, V, value, vs, top, rows, K, key, ks, left, columns, keys, written
                )
            if odd:
                rebuild(n, M, A, keys, level, active)
        elif delta:
            decay_and_correct(d, n, M, gates[gate], rate, V[value:], keys, ks[left:], columns)
        else:
            decay_and_add(d, n, M, gates[gate:], V[value:], K[key:])
        here = (slot + t * samples) * d * n
        if recording:
            start = row[MEMBRANES] * slots + here
            for entry in range(d * n):
                membranes[start + entry] = M[entry] * A[entry % n % held] if scalar else M[entry]
        if scalar:
            found = look(n, M, A, level, theta, reset, active, written, entries)
        else:
            found = compare(M, level, theta, reset, entries)
        tally[1] += found
        if recording:
            start = row[SPIKES] * slots + here
            for e in range(found):
                spikes[start + entries[e]] = 1
        if r > 0:
            y = values[target + t * pitch : target + (t + 1) * pitch]
            sent[row[LIST] * chunk + t] = read_rows(
                d, n, r, entries, found, Q, begin(whole, q, buffers, values, t), y, counter
            )
            room.live[row[TARGET] * chunk + t] = found > 0
        else:
            copy(entries, found, room.ids, lists[row[LIST], 0] + t * lists[row[LIST], 1])
            sent[row[LIST] * chunk + t] = found
            for e in range(found):
                counter[entries[e]] += 1


def memorise(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run a matrix memory for a chunk of steps, as `others.others` does the rest; compiled by `apart.address`."""
    run_memory(code, room, row, state, spikes, membranes, recording, slots, slot, samples, steps, last)

"""Memories of whole numbers whose entries decay late: the loops of one step, which list the entries that fire.

A decay truncates at every step, so an entry that missed some is decayed step by step when it is next looked at, by the
decays that its column has had since, and stops at 0: `history` (n, STEPS) holds them, in units of 1. An entry is looked
at where it is written, and where it has fired and may again, as a decay raises none; those stand in a bitmap, see
`bitmap`. Whenever the history is full, all entries that are not 0 are decayed: `alive` lists them, so that one that is
0 costs nothing. A step then costs n numbers of history, the entries that it touches, and the decays of what is not 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.bitmap import mark, marked, unmark
from unscan.runtime.executors.event.memory import read_rows
from unscan.runtime.executors.event.program import STEPS, Column
from unscan.runtime.executors.event.synapses import copy, matrix
from unscan.runtime.executors.event.vector import kernel

SOURCE, SECOND, TARGET, LIST, PARAMS = map(int, list(Column)[2:7])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])


@kernel
def revive(S: Array, theta: float, since: Array, alive: Array, firing: Array, words: int) -> int:
    """List the entries of a carried state that are not 0, and mark those that may fire; return how many are listed.

    since: the step of the history up to which an entry is decayed, -1 where it is not listed.
    """
    firing[:] = 0
    found = 0
    for entry in range(len(S)):
        since[entry] = -1
        if S[entry] != 0:
            since[entry] = 0
            alive[found] = entry
            found += 1
            if S[entry] > theta:
                mark(firing, words, entry)
    return found


@kernel
def decay(entry: int, now: int, top: float, S: Array, decays: Array, since: Array, tally: Array) -> None:
    """Run the decays of an entry that are due before step `now`; only a carried one can be beyond what is held."""
    value, step = S[entry], since[entry]
    if step < now:
        reached = np.trunc(decays[step] * value)
        value = min(max(reached, -top), top)
        tally[2] += value != reached
        step += 1
        while step < now and value != 0:
            value = np.trunc(decays[step] * value)
            step += 1
    tally[3] += step - since[entry]
    S[entry], since[entry] = value, now


@kernel
def write(
    n: int, v: Array, vs: Array, rows: int, k: Array, ks: Array, columns: int, unit: float, now: int, top: float,
    theta: float, S: Array, history: Array, since: Array, alive: Array, listed: int, firing: Array, words: int,
    tally: Array,
) -> int:  # fmt: skip
    """Add v k^T unit at the rows and columns that are listed; return how many entries are listed in `alive` now."""
    for a in range(rows):
        for b in range(columns):
            i, j = np.int64(vs[a]), np.int64(ks[b])
            entry = i * n + j
            reached = v[i] * k[j] * unit
            if since[entry] < 0:
                alive[listed] = entry
                listed += 1
            else:
                decay(entry, now - 1, top, S, history[j], since, tally)
                reached += np.trunc(history[j, now - 1] * S[entry])
            S[entry], since[entry] = min(max(reached, -top), top), now
            tally[2] += S[entry] != reached
            tally[3] += 1
            if S[entry] > theta:
                mark(firing, words, entry)
    return listed


@kernel
def settle(
    n: int,
    now: int,
    top: float,
    S: Array,
    history: Array,
    since: Array,
    alive: Array,
    listed: int,
    tally: Array,
) -> int:
    """Run every decay that is due, and begin the history anew; return how many entries are not 0."""
    left = 0
    for a in range(listed):
        entry = alive[a]
        decay(entry, now, top, S, history[entry % n], since, tally)
        tally[3] += 1
        since[entry] = -1
        if S[entry] != 0:
            since[entry] = 0
            alive[left] = entry
            left += 1
    return left


@kernel
def answer(
    n: int, now: int, top: float, theta: float, reset: int, S: Array, history: Array, since: Array, firing: Array,
    words: int, entries: Array, tally: Array,
) -> int:  # fmt: skip
    """List the marked entries that fire, reset them, and take the marks of the others back; return how many fire."""
    found = 0
    for e in range(marked(firing, words, entries)):
        entry = entries[e]
        tally[3] += 1
        if since[entry] >= 0:
            decay(entry, now, top, S, history[entry % n], since, tally)
        if S[entry] > theta:
            entries[found] = entry
            found += 1
            if reset == 1:
                S[entry] -= theta
            elif reset == 2:
                S[entry] = 0
        if not S[entry] > theta:
            unmark(firing, words, entry)
    return found


def recall(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run an IntegerMemory for a chunk of steps, as `others.others` does the rest; compiled by `apart.address`.

    Its whole numbers are d, n, r (0 where nothing is read), the reset, the buffers of alpha and q, the lists of v and
    k, where its bitmap starts, the words of that, where its history starts, and where its entries start in `late`.
    """
    whole, buffers, lists, chunk = code.whole[row[WHOLE] :], code.buffers, code.lists, code.chunk
    d, n, r, reset = whole[0], whole[1], whole[2], whole[3]
    alphas, queries, value_list, key_list = whole[4], whole[5], whole[6], whole[7]
    first_word, words, first_step, first_entry = whole[8], whole[9], whole[10], whole[11]
    V = matrix(room.values, buffers[row[SOURCE], 0], chunk, buffers[row[SOURCE], 1])
    K = matrix(room.values, buffers[row[SECOND], 0], chunk, buffers[row[SECOND], 1])
    Y = matrix(room.values, buffers[row[TARGET], 0], chunk, buffers[row[TARGET], 1])
    alpha = matrix(room.values, buffers[alphas, 0], chunk, buffers[alphas, 1])
    vs = matrix(room.ids, lists[value_list, 0], chunk, lists[value_list, 1])
    ks = matrix(room.ids, lists[key_list, 0], chunk, lists[key_list, 1])
    E = matrix(room.ids, lists[row[LIST], 0], chunk, lists[row[LIST], 1])
    p = code.params[row[PARAMS] : row[PARAMS] + 4]
    theta, top, unit, one = p[0], p[1], p[2], p[3]
    S = state[row[STATE] : row[STATE] + d * n]
    firing = room.firing[first_word : first_word + words + (words + 63) // 64]
    history = matrix(room.history, first_step, n, STEPS)
    since = room.late[first_entry : first_entry + d * n]
    alive = room.late[first_entry + d * n : first_entry + 2 * d * n]
    kept = room.late[first_entry + 2 * d * n :]
    listed, now = int(kept[0]), int(kept[1])
    entries, tally = room.entries, room.tallies[row[TALLY] :]
    counter = room.counts[row[COUNTER] :]
    if room.pending[row[UNIT]]:
        listed, now = revive(S, theta, since, alive, firing, words), 0
        room.pending[row[UNIT]] = 0
    for t in range(steps):
        rows, columns = room.sent[value_list * chunk + t], room.sent[key_list * chunk + t]
        for j in range(n):
            history[j, now] = alpha[t, j] / one
        now += 1
        listed = write(
            n, V[t], vs[t], rows, K[t], ks[t], columns, unit, now, top, theta, S, history, since, alive, listed,
            firing, words, tally,
        )  # fmt: skip
        here = (slot + t * samples) * d * n
        if recording or now == STEPS or (last and t == steps - 1):
            listed, now = settle(n, now, top, S, history, since, alive, listed, tally), 0
        if recording:
            copy(S, d * n, membranes, row[MEMBRANES] * slots + here)
        found = answer(n, now, top, theta, reset, S, history, since, firing, words, entries, tally)
        tally[0] += rows * columns
        tally[1] += found
        if recording:
            start = row[SPIKES] * slots + here
            for e in range(found):
                spikes[start + entries[e]] = 1
        if r > 0:
            query = buffers[queries, 0] + t * buffers[queries, 1]
            room.sent[row[LIST] * chunk + t] = read_rows(
                d, n, r, entries, found, room.values, query, Y[t], counter
            )
            room.live[row[TARGET] * chunk + t] = found > 0
        else:
            copy(entries, found, E[t], 0)
            room.sent[row[LIST] * chunk + t] = found
            for e in range(found):
                counter[entries[e]] += 1
    kept[0], kept[1] = listed, now

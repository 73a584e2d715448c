"""Matrix memories: the loops of one step, which list the entries that fire.

Dense, every entry decays and is compared. With scalar decay a step goes over the accumulators, the entries that are
written, and those that fire: an entry that is not written can only stop firing, as A falls and rounding keeps order.
What may fire stands in a bitmap; a second one says which of its words are not empty, so that it is read in order
of the entries, whatever the history, in n d / 4096 looks and one for each entry that is set. A gate outside [0, 1] is
no decay: the entries that it touches are all looked at.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.program import Column
from unscan.runtime.executors.event.synapses import copy, matrix, unpack
from unscan.runtime.executors.event.vector import kernel, lowest_bit

SOURCE, SECOND, TARGET, LIST, PARAMS = map(int, list(Column)[2:7])
STATE, COUNTER, VARIANT, UNIT, SPIKES, MEMBRANES, WHOLE, HELD, TALLY = map(int, list(Column)[9:18])


@kernel
def mark(firing: Array, words: int, entry: int) -> None:
    """Set the bit of an entry."""
    word = entry >> 6
    firing[word] |= np.uint64(1) << np.uint64(entry & 63)
    firing[words + (word >> 6)] |= np.uint64(1) << np.uint64(word & 63)


@kernel
def unmark(firing: Array, words: int, entry: int) -> None:
    """Take back the bit of an entry."""
    word = entry >> 6
    firing[word] &= ~(np.uint64(1) << np.uint64(entry & 63))
    if firing[word] == np.uint64(0):
        firing[words + (word >> 6)] &= ~(np.uint64(1) << np.uint64(word & 63))


@kernel
def rebuild(n: int, M: Array, scales: Array, level: float, firing: Array, words: int) -> None:
    """Set the bits of the entries of a carried state that reach the level, and no other.

    scales (n,): the accumulator of each column. The entries of one that is 0, and so unused, become 0.
    """
    firing[:] = 0
    for first in range(0, len(M), n):
        row, some = M[first : first + n], 0
        for j in range(n):
            some += (row[j] * scales[j] >= level) | ((scales[j] == 0) & (row[j] != 0))
        if some > 0:
            for j in range(n):
                if row[j] * scales[j] >= level:
                    mark(firing, words, first + j)
                elif scales[j] == 0:
                    row[j] = 0


@kernel
def collect(
    d: int, n: int, M: Array, A: Array, alpha: Array, t: int, bound: float, firing: Array, words: int
) -> int:  # fmt: skip
    """Run the decay of a step, A <- alpha A; return how many accumulators in use were set back to 1."""
    rare = 0
    for j in range(len(A)):
        rare += (
            (bound > A[j] * alpha[t, j])
            | (alpha[t, j] > 1)
            | (alpha[t, j] < 0)
            | (alpha[t, j] != alpha[t, j])
        )
    if rare == 0:
        for j in range(len(A)):
            A[j] *= alpha[t, j]
        return 0
    rescaled = 0
    for j in range(len(A)):
        before = A[j]
        A[j] = before * alpha[t, j]
        low, odd = bound > A[j], not (0 <= alpha[t, j] <= 1)
        if odd or (low and before != 0):
            for entry in range(j, d * n, len(A)):
                if low:
                    M[entry] *= A[j]
                if odd:
                    mark(firing, words, entry)
        if low:
            rescaled += before != 0
            A[j] = 1
    return rescaled


@kernel
def unit_key(K: Array, ks: Array, t: int, total: int, scaled: Array) -> int:
    """Write what is not 0 in the key of step t, over its length, in the order of ks; return how many numbers there are.

    A key shorter than 1e-12 has none.
    """
    square = 0.0
    for b in range(total):
        square += np.float64(K[t, ks[t, b]]) ** 2
    length = math.sqrt(square)
    if not length > 1e-12:
        return 0
    for b in range(total):
        scaled[b] = K[t, ks[t, b]] / length
    return total


@kernel
def write_products(
    n: int, M: Array, A: Array, level: float, V: Array, vs: Array, rows: int, K: Array, ks: Array, columns: int, t: int,
    keys: Array, firing: Array, words: int,
) -> None:  # fmt: skip
    """Add v k^T / A at the rows and columns that step t lists; mark what reaches the level. keys: room for k / A.

    Marking is written without a branch, as none could be foreseen.
    """
    for b in range(columns):
        keys[b] = K[t, ks[t, b]] / A[ks[t, b]]
    for a in range(rows):
        i = np.int64(vs[t, a])
        for b in range(columns):
            j = np.int64(ks[t, b])
            entry = i * n + j
            M[entry] += V[t, i] * keys[b]
            bit, word = np.uint64(M[entry] * A[j] >= level), entry >> 6
            firing[word] |= bit << np.uint64(entry & 63)
            firing[words + (word >> 6)] |= bit << np.uint64(word & 63)


@kernel
def write_delta(
    d: int, n: int, M: Array, A: Array, beta: float, level: float, V: Array, keys: Array, ks: Array, columns: int,
    t: int, firing: Array, words: int,
) -> None:  # fmt: skip
    """Let every row forget what stands along the key and take v, at the columns listed; mark what reaches the level."""
    scale = A[0]
    for i in range(d):
        read = V.dtype.type(0)
        for b in range(columns):
            read += M[i * n + ks[t, b]] * keys[b]
        new = beta * (V[t, i] - scale * read) / scale
        for b in range(columns):
            entry = i * n + ks[t, b]
            M[entry] += new * keys[b]
            if M[entry] * scale >= level:
                mark(firing, words, entry)


@kernel
def row_of(entry: int, part: float) -> int:
    """Return entry // n, `part` being 1 / n: a product takes a fraction of the time of a division.

    It is exact for entries below 2^31, as (entry + 1/2) / n is at least 1 / 2n from every whole number.
    """
    return int((np.float64(entry) + 0.5) * part)


@kernel
def marked(firing: Array, words: int, entries: Array) -> int:
    """List the entries whose bits are set, in their order; return how many there are."""
    found = 0
    for group in range(words, len(firing)):
        filled = firing[group]
        while filled != np.uint64(0):
            word = ((group - words) << 6) + lowest_bit(filled)
            filled &= filled - np.uint64(1)
            found = unpack(firing[word], word << 6, entries, found)
    return found


@kernel
def look(
    n: int,
    M: Array,
    A: Array,
    level: float,
    theta: float,
    reset: int,
    firing: Array,
    words: int,
    entries: Array,
) -> int:
    """List the marked entries that fire, reset them, and take the marks of the others back; return how many fire."""
    found = 0
    part = 1 / n
    for e in range(marked(firing, words, entries)):
        entry = np.int64(entries[e])
        scale = A[entry - row_of(entry, part) * n] if len(A) == n else A[0]
        if M[entry] * scale >= level:
            entries[found] = entry
            found += 1
            if reset == 1:
                M[entry] -= theta / scale
            elif reset == 2:
                M[entry] = 0
        if not M[entry] * scale >= level:
            unmark(firing, words, entry)
    return found


@kernel
def decay_and_add(d: int, n: int, S: Array, alpha: Array, v: Array, k: Array) -> None:
    """Run S <- S diag(alpha) + v k^T."""
    for i in range(d):
        row = S[i * n : (i + 1) * n]
        for j in range(n):
            row[j] = row[j] * alpha[j] + v[i] * k[j]


@kernel
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


@kernel
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


@kernel
def read_rows(d: int, n: int, r: int, entries: Array, found: int, Q: Array, Y: Array, t: int) -> None:
    """Write at step t into row i of y the sum of the rows j of q, over the entries (i, j) that fired."""
    for i in range(d * r):
        Y[t, i] = 0
    part = 1 / n
    for e in range(found):
        i = row_of(entries[e], part)
        j = entries[e] - i * n
        if r == 1:
            Y[t, i] += Q[t, j]
        else:
            for c in range(r):
                Y[t, i * r + c] += Q[t, j * r + c]


def memorise(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run a matrix memory for a chunk of steps, as `others.others` does the rest; compiled by `apart.address`.

    Its whole numbers are d, n, r (0 where nothing is read), whether it is a delta memory, whether its decay is scalar,
    the reset, the buffers of alpha, beta and q, the lists of v and k, where its bitmap starts, and the words of that.
    """
    whole, buffers, lists, chunk = code.whole[row[WHOLE] :], code.buffers, code.lists, code.chunk
    d, n, r, delta, scalar, reset = whole[0], whole[1], whole[2], whole[3] == 1, whole[4] == 1, whole[5]
    alphas, betas, queries, value_list, key_list = whole[6], whole[7], whole[8], whole[9], whole[10]
    first_word, words = whole[11], whole[12]
    V = matrix(room.values, buffers[row[SOURCE], 0], chunk, buffers[row[SOURCE], 1])
    K = matrix(room.values, buffers[row[SECOND], 0], chunk, buffers[row[SECOND], 1])
    Q = matrix(room.values, buffers[queries, 0], chunk, buffers[queries, 1])
    Y = matrix(room.values, buffers[row[TARGET], 0], chunk, buffers[row[TARGET], 1])
    alpha = matrix(room.values, buffers[alphas, 0], chunk, buffers[alphas, 1])
    beta = matrix(room.values, buffers[betas, 0], chunk, buffers[betas, 1])
    vs = matrix(room.ids, lists[value_list, 0], chunk, lists[value_list, 1])
    ks = matrix(room.ids, lists[key_list, 0], chunk, lists[key_list, 1])
    E = matrix(room.ids, lists[row[LIST], 0], chunk, lists[row[LIST], 1])
    level, theta, bound = code.params[row[PARAMS]], code.params[row[PARAMS] + 1], code.params[row[PARAMS] + 2]
    M, A = state[row[STATE] : row[STATE] + d * n], state[row[HELD] : row[HELD] + (1 if delta else n)]
    firing = room.firing[first_word : first_word + words + (words + 63) // 64]
    entries, keys = room.entries, room.reached
    counter, tally = room.counts[row[COUNTER] : row[COUNTER] + d * n], room.tallies[row[TALLY] :]
    if scalar and room.pending[row[UNIT]]:
        for j in range(n):
            keys[j] = A[j % len(A)]
        rebuild(n, M, keys, level, firing, words)
        room.pending[row[UNIT]] = 0
    for t in range(steps):
        rows, columns = room.sent[value_list * chunk + t], room.sent[key_list * chunk + t]
        if delta:
            rows, columns = d, unit_key(K, ks, t, columns, keys)
        tally[0] += rows * columns
        if scalar:
            tally[2] += collect(d, n, M, A, alpha, t, bound, firing, words)
            if delta:
                write_delta(d, n, M, A, beta[t, 0], level, V, keys, ks, columns, t, firing, words)
            else:
                write_products(n, M, A, level, V, vs, rows, K, ks, columns, t, keys, firing, words)
        elif delta:
            decay_and_correct(d, n, M, alpha[t, 0], beta[t, 0], V[t], keys, ks[t], columns)
        else:
            decay_and_add(d, n, M, alpha[t], V[t], K[t])
        here = (slot + t * samples) * d * n
        if recording:
            start = row[MEMBRANES] * slots + here
            for entry in range(d * n):
                membranes[start + entry] = M[entry] * A[entry % n % len(A)] if scalar else M[entry]
        if scalar:
            found = look(n, M, A, level, theta, reset, firing, words, entries)
        else:
            found = compare(M, level, theta, reset, entries)
        tally[1] += found
        if recording:
            start = row[SPIKES] * slots + here
            for e in range(found):
                spikes[start + entries[e]] = 1
        if r > 0:
            read_rows(d, n, r, entries, found, Q, Y, t)
            room.live[row[TARGET] * chunk + t] = found > 0
        else:
            copy(entries, found, E[t], 0)
            room.sent[row[LIST] * chunk + t] = found
            for e in range(found):
                counter[entries[e]] += 1

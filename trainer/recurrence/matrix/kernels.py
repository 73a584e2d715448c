"""The two kernels of the matrix memory: a tile of the state stays in registers while time passes.

Arrays are two-dimensional and padded to whole tiles: row t B + b; columns are value rows i, key columns j, or
both, i n + j. Work is shared out in units of one sample and one block of up to 64 key columns. A unit goes
through its steps in chunks of `CHUNK`, and through a chunk tile by tile. Forward keeps the state at the chunks'
borders only. Backward goes through the chunks last to first: it walks a tile forward again from its border into
a buffer that stays in cache, then backward.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from unscan.trainer.recurrence.matrix.tile import (
    FINGERPRINT,
    add_column_sums,
    repeat_columns,
    spread_rows,
    store_row_sums,
)
from unscan.trainer.recurrence.vector import LANES, load, select, spread, store
from unscan.trainer.surrogate import SURROGATES, digest

CHUNK = 64
Kernel = Callable[..., None]


@cache
def forward_kernel(width: int, readout: bool, membrane: bool) -> Kernel:
    """Build the forward kernel of tiles `width` columns wide.

    It walks the chunks from `part` up to `beyond`. With `readout` y is the sum over a block's columns of Z q, one
    array of rows per block; without it y is Z. `membrane` writes S to m. y (without readout) and m begin with
    the first step of chunk `part`.
    """
    arithmetic = FINGERPRINT

    def forward(
        v: Any, k: Any, alpha: Any, q: Any, lowest: Any, batch: Any, borders: Any, y: Any, m: Any,
        part: Any, beyond: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic
        rows, columns, height = v.shape[1], k.shape[1], LANES // width
        steps = v.shape[0] // batch
        zero = spread(v.dtype.type(0.0))
        one = spread(v.dtype.type(1.0))
        fi = spread(lowest)
        base = part * CHUNK
        for unit in range(first, last):
            b = unit % batch
            block = unit // batch
            j = block * LANES
            for chunk in range(part, beyond):
                for i in range(0, rows, 2 * height):
                    low = min(i + height, rows - height)
                    at, at_low = i * columns + j, low * columns + j
                    state = load(borders, chunk * batch + b, at)
                    state_low = load(borders, chunk * batch + b, at_low)
                    for t in range(chunk * CHUNK, min(steps, (chunk + 1) * CHUNK)):
                        row = t * batch + b
                        decay, key = repeat_columns(alpha, row, j, width), repeat_columns(k, row, j, width)
                        state = decay * state + spread_rows(v, row, i, width) * key
                        state_low = decay * state_low + spread_rows(v, row, low, width) * key
                        if readout:
                            query = repeat_columns(q, row, j, width)
                            out = block * v.shape[0] + row
                            store_row_sums(query * (state >= fi), y, out, i, width)
                            store_row_sums(query * (state_low >= fi), y, out, low, width)
                        else:
                            store(select(state >= fi, one, zero), y, row - base * batch, at)
                            store(select(state_low >= fi, one, zero), y, row - base * batch, at_low)
                        if membrane:
                            store(state, m, row - base * batch, at)
                            store(state_low, m, row - base * batch, at_low)
                    store(state, borders, (chunk + 1) * batch + b, at)
                    store(state_low, borders, (chunk + 1) * batch + b, at_low)

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def backward_kernel(
    width: int, surrogate: str, readout: bool, spikes: bool, membrane: bool, learn: bool
) -> Kernel:
    """Build the backward kernel of one surrogate and of tiles `width` columns wide.

    With g' the surrogate at S_ij(t) - theta, dZ and dM the gradients handed in and dS that of S_ij(t):

        dS(t) = alpha_j(t+1) dS(t+1) + g' dZ + dM        dv_i = sum_j dS k_j        dk_j = sum_i dS v_i
        dalpha_j = sum_i dS S_ij(t-1)        dtheta = - sum g' dZ        dq_j = sum_i dy_i Z_ij

    With `readout` dZ is dy_i q_j; without it dZ is handed in as dy and, with `spikes`, overwritten with Z.
    `back` is what comes from beyond the last chunk, alpha dS, and ends as what goes beyond the first.
    """
    curve = SURROGATES[surrogate].curve
    arithmetic = digest(SURROGATES[surrogate]) + FINGERPRINT

    def backward(
        v: Any, k: Any, alpha: Any, q: Any, threshold: Any, lowest: Any, batch: Any, borders: Any,
        dy: Any, dm: Any, back: Any, dv: Any, dk: Any, dalpha: Any, dq: Any, dtheta: Any,
        p_: Any, q_: Any, part: Any, beyond: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic
        rows, columns = v.shape[1], k.shape[1]
        steps = v.shape[0] // batch
        zero = spread(v.dtype.type(0.0))
        one = spread(v.dtype.type(1.0))
        th, fi, curve_p, curve_q = spread(threshold), spread(lowest), spread(p_), spread(q_)
        before = np.empty((CHUNK, LANES), v.dtype)
        sums = np.empty((1, LANES), v.dtype)
        base = part * CHUNK
        for unit in range(first, last):
            b = unit % batch
            block = unit // batch
            j = block * LANES
            for chunk in range(beyond - 1, part - 1, -1):
                begin = chunk * CHUNK
                end = min(steps, begin + CHUNK)
                for i in range(0, rows, LANES // width):
                    at = i * columns + j
                    state = load(borders, chunk * batch + b, at)
                    for t in range(begin, end):
                        row = t * batch + b
                        store(state, before, t - begin, 0)
                        state = repeat_columns(alpha, row, j, width) * state + spread_rows(
                            v, row, i, width
                        ) * repeat_columns(k, row, j, width)
                    d = load(back, b, at)
                    theta_way = zero
                    for t in range(end - 1, begin - 1, -1):
                        row = t * batch + b
                        if readout:
                            dy_i = spread_rows(dy, row, i, width)
                            dz = dy_i * repeat_columns(q, row, j, width)
                            add_column_sums(dy_i * (state >= fi), dq, row, j, width)
                        else:
                            dz = load(dy, row - base * batch, at)
                            if spikes:
                                store(select(state >= fi, one, zero), dy, row - base * batch, at)
                        own = curve(state - th, curve_p, curve_q) * dz
                        d = d + own
                        if membrane:
                            d = d + load(dm, row - base * batch, at)
                        if learn:
                            theta_way = theta_way + own
                        state = load(before, t - begin, 0)
                        store_row_sums(
                            d * repeat_columns(k, row, j, width), dv, block * v.shape[0] + row, i, width
                        )
                        add_column_sums(d * spread_rows(v, row, i, width), dk, row, j, width)
                        add_column_sums(d * state, dalpha, row, j, width)
                        d = d * repeat_columns(alpha, row, j, width)
                    store(d, back, b, at)
                    if learn:
                        store(theta_way, sums, 0, 0)
                        for lane in range(LANES):
                            dtheta[unit] -= sums[0, lane]

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel

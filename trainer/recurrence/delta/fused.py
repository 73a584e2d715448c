"""The spiking delta rule at the speed of the cache: one kernel forward, one backward.

Rows of the matrix memory never speak to each other: row i sees v_t[i] and what all rows share (k, alpha, beta, q).
So 64 rows stand side by side in one vector, columns are walked one after the other, and every dot product over
columns is a vertical sum. With w_t = beta_t (v_t - alpha_t p_t) and p_t = S_{t-1} k_t, one pass over the columns
updates S and sums p_{t+1} as well, and one more pass for each query sums y_t. S stays in the first-level cache.

Forward keeps S at the borders of segments only. Backward takes the segments last to first: it replays one into a
buffer and walks it backward. With g' the surrogate at S_t - theta, dy, dm and dS the gradients handed in for
readouts, membranes and last state, and C_t what comes from step t + 1 (C_T = dS):

    dZ_t = dy_t q_t^T                           dq_t = Z_t^T dy_t                 dtheta = -sum_t dZ_t g'
    D_t = C_t + dZ_t g' + dm_t                  the whole gradient of S_t
    e_t = D_t k_t                               the gradient of w_t
    dv_t = beta_t e_t                           dbeta_t = e_t . (v_t - alpha_t p_t)
    c_t = -alpha_t beta_t e_t                   the gradient of p_t
    dk_t = D_t^T w_t + S_{t-1}^T c_t            dalpha_t = sum_ij D_t S_{t-1} - beta_t e_t . p_t
    C_{t-1} = alpha_t D_t + c_t k_t^T           = alpha_t D_t (I - beta_t k_t k_t^T), in the end dS_0

Beyond inputs, outputs and their gradients, memory is one S for each segment, and one segment for each thread.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from numba.extending import register_jitable
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from unscan.trainer.recurrence.delta.lanes import BLOCK, FINGERPRINT, bits, first_bit, flip, total
from unscan.trainer.recurrence.lanes import fresh, run_tiles, tile_count
from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.recurrence.vector import LANES, load, select, spread, store
from unscan.trainer.surrogate import SURROGATES, digest, surrogate_named

_SEGMENT_BYTES = 1 << 19  # half of a second-level cache


def segment_steps(columns: int, itemsize: int) -> int:
    """Steps between two kept states: what fits in the cache for a replay, 16 to 64."""
    return max(16, min(64, _SEGMENT_BYTES // (columns * LANES * itemsize)))


@register_jitable  # not compiled on its own: a cache of its own would not know of `flip`
def _transpose(
    source: Any, row: Any, column: Any, stride: Any, out: Any, to_row: Any, to_column: Any, to_stride: Any,
    height: Any, width: Any,
) -> None:  # fmt: skip
    """Transpose height x width numbers between [row, column] on of two arrays, in blocks where they fit."""
    whole_height, whole_width = height - height % BLOCK, width - width % BLOCK
    for i in range(0, whole_height, BLOCK):
        for j in range(0, whole_width, BLOCK):
            at, to = column + i * stride + j, to_column + j * to_stride + i
            flip(source, row, at, stride, out, to_row, to, to_stride)
    source_row, out_row = source.reshape(-1), out.reshape(-1)
    at, to = row * source.shape[1] + column, to_row * out.shape[1] + to_column
    for i in range(height):
        for j in range(whole_width if i < whole_height else 0, width):
            out_row[to + j * to_stride + i] = source_row[at + i * stride + j]


@cache
def _forward(readout: bool, keep: bool) -> Callable[..., None]:
    """Build the forward kernel; `readout` is whether there are queries, `keep` writes the membranes to m."""
    arithmetic = FINGERPRINT

    def forward(
        v: Any, k: Any, alpha: Any, beta: Any, q: Any, lowest: Any, segment: Any, states: Any, y: Any, m: Any,
        rows: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic
        steps, batch = alpha.shape
        n = k.shape[1] // batch
        tiles = v.shape[1] // (batch * LANES)
        width = y.shape[1] // (batch * rows)
        units = batch * tiles
        zero = spread(v.dtype.type(0.0))
        one = spread(v.dtype.type(1.0))
        fires = spread(lowest)
        s = np.empty((n, LANES), v.dtype)
        out = np.empty((width, LANES), v.dtype)
        for unit in range(first, last):
            b = unit // tiles
            row = (unit - b * tiles) * LANES
            left = min(LANES, rows - row)
            p = zero
            for j in range(n):
                column = load(states, unit * n + j, 0)
                store(column, s, j, 0)
                p = p + column * spread(k[0, b * n + j])
            for t in range(steps):
                a = spread(alpha[t, b])
                w = spread(beta[t, b]) * (load(v, t, unit * LANES) - a * p)
                following = min(t + 1, steps - 1)
                p = zero
                for j in range(n):
                    column = a * load(s, j, 0) + w * spread(k[t, b * n + j])
                    store(column, s, j, 0)
                    p = p + column * spread(k[following, b * n + j])
                if readout:
                    for c in range(0, width - width % 4, 4):
                        y_0 = y_1 = y_2 = y_3 = zero
                        for j in range(n):
                            on = load(s, j, 0) >= fires
                            at = (b * n + j) * width + c
                            y_0 = y_0 + select(on, spread(q[t, at]), zero)
                            y_1 = y_1 + select(on, spread(q[t, at + 1]), zero)
                            y_2 = y_2 + select(on, spread(q[t, at + 2]), zero)
                            y_3 = y_3 + select(on, spread(q[t, at + 3]), zero)
                        store(y_0, out, c, 0)
                        store(y_1, out, c + 1, 0)
                        store(y_2, out, c + 2, 0)
                        store(y_3, out, c + 3, 0)
                    for c in range(width - width % 4, width):
                        y_0 = zero
                        for j in range(n):
                            on = load(s, j, 0) >= fires
                            y_0 = y_0 + select(on, spread(q[t, (b * n + j) * width + c]), zero)
                        store(y_0, out, c, 0)
                else:
                    for j in range(n):
                        store(select(load(s, j, 0) >= fires, one, zero), out, j, 0)
                _transpose(out, 0, 0, LANES, y, t, (b * rows + row) * width, width, width, left)
                if keep:
                    _transpose(s, 0, 0, LANES, m, t, (b * rows + row) * n, n, n, left)
                if (t + 1) % segment == 0 or t + 1 == steps:
                    part = t // segment + 1
                    for j in range(n):
                        store(load(s, j, 0), states, (part * units + unit) * n + j, 0)

    kernel: Callable[..., None] = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward(readout: bool, surrogate: str) -> Callable[..., None]:
    """Build the backward kernel. `back` (B tiles n, 64) holds the last state's gradient and ends as the first's.

    Work is shared out by samples, since all rows of one add to the same dk, dq, dalpha and dbeta.
    """
    curve = SURROGATES[surrogate].curve
    arithmetic = digest(SURROGATES[surrogate]) + FINGERPRINT

    def backward(
        v: Any, k: Any, alpha: Any, beta: Any, q: Any, threshold: Any, lowest: Any, segment: Any, states: Any,
        dy: Any, has_dy: Any, dm: Any, has_dm: Any, back: Any, dv: Any, dk: Any, dalpha: Any, dbeta: Any, dq: Any,
        dtheta: Any, p_: Any, q_: Any, rows: Any, width: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic  # part of the key in numba's cache: another formula is another kernel
        steps, batch = alpha.shape
        n = k.shape[1] // batch
        tiles = v.shape[1] // (batch * LANES)
        units = batch * tiles
        zero = spread(v.dtype.type(0.0))
        fires, theta = spread(lowest), spread(threshold)
        wide, tall = spread(p_), spread(q_)
        history = np.empty(
            ((segment + 1) * n, LANES), v.dtype
        )  # S before the segment and after each of its steps
        reads = np.empty((segment, LANES), v.dtype)
        grads = np.zeros((width, LANES), v.dtype)
        kept = np.zeros((n, LANES), v.dtype)
        whole_width = width - width % LANES if has_dy else 0
        for unit in range(first * tiles, last * tiles):
            b = unit // tiles
            tile = unit - b * tiles
            row = tile * LANES
            left = min(LANES, rows - row)
            inside = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(LANES - left)
            if left < LANES:
                grads[:] = 0
                kept[:] = 0
            for later in range((steps - 1) // segment + 1):
                part = (steps - 1) // segment - later
                begin = part * segment
                count = min(steps, begin + segment) - begin
                p = zero
                for j in range(n):
                    column = load(states, (part * units + unit) * n + j, 0)
                    store(column, history, j, 0)
                    p = p + column * spread(k[begin, b * n + j])
                for i in range(count):
                    t = begin + i
                    a = spread(alpha[t, b])
                    w = spread(beta[t, b]) * (load(v, t, unit * LANES) - a * p)
                    store(p, reads, i, 0)
                    following = min(t + 1, steps - 1)
                    p = zero
                    for j in range(n):
                        column = a * load(history, i * n + j, 0) + w * spread(k[t, b * n + j])
                        store(column, history, (i + 1) * n + j, 0)
                        p = p + column * spread(k[following, b * n + j])
                theta_way = zero
                for i in range(count - 1, -1, -1):
                    t = begin + i
                    if has_dy:
                        _transpose(dy, t, (b * rows + row) * width, width, grads, 0, 0, LANES, left, width)
                    if has_dm:
                        _transpose(dm, t, (b * rows + row) * n, n, kept, 0, 0, LANES, left, n)
                        for j in range(n):
                            store(load(back, unit * n + j, 0) + load(kept, j, 0), back, unit * n + j, 0)
                    e = zero
                    inner = zero
                    for j in range(n):
                        column = load(history, (i + 1) * n + j, 0)
                        if readout:
                            spike = zero
                            for c in range(width):
                                spike = spike + load(grads, c, 0) * spread(q[t, (b * n + j) * width + c])
                        else:
                            spike = load(grads, j, 0)
                        spike = spike * curve(column - theta, wide, tall)
                        theta_way = theta_way - spike
                        own = load(back, unit * n + j, 0) + spike
                        store(own, back, unit * n + j, 0)
                        e = e + own * spread(k[t, b * n + j])
                        inner = inner + own * load(history, i * n + j, 0)
                    a_t, b_t = alpha[t, b], beta[t, b]
                    a = spread(a_t)
                    p = load(reads, i, 0)
                    error = load(v, t, unit * LANES) - a * p
                    w = spread(b_t) * error
                    scaled = spread(b_t) * e
                    store(scaled, dv, t, unit * LANES)
                    to_alpha, to_beta = total(inner - scaled * p), total(e * error)
                    if tile == 0:
                        dalpha[t, b], dbeta[t, b] = to_alpha, to_beta
                    else:
                        dalpha[t, b] += to_alpha
                        dbeta[t, b] += to_beta
                    c_t = -a * scaled
                    for j in range(n):
                        own = load(back, unit * n + j, 0)
                        to_key = total(own * w + load(history, i * n + j, 0) * c_t)
                        if tile == 0:
                            dk[t, b * n + j] = to_key
                        else:
                            dk[t, b * n + j] += to_key
                        store(a * own + c_t * spread(k[t, b * n + j]), back, unit * n + j, 0)
                    if readout:
                        for j in range(n):
                            on = load(history, (i + 1) * n + j, 0) >= fires
                            at = (b * n + j) * width
                            for c in range(0, whole_width, LANES):
                                firing = bits(on) & inside
                                to_queries = zero if tile == 0 else load(dq, t, at + c)
                                while firing:
                                    fired = row + first_bit(firing)
                                    firing &= firing - np.uint64(1)
                                    to_queries = to_queries + load(dy, t, (b * rows + fired) * width + c)
                                store(to_queries, dq, t, at + c)
                            for c in range(whole_width, width):
                                to_query = total(select(on, load(grads, c, 0), zero))
                                if tile == 0:
                                    dq[t, at + c] = to_query
                                else:
                                    dq[t, at + c] += to_query
                dtheta[b] += total(theta_way)

    kernel: Callable[..., None] = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


def _flat(values: Tensor) -> Tensor:
    """A sequence (T, B, ...) as (T, the rest), without gaps."""
    return values.detach().reshape(values.shape[0], -1).contiguous()


def _in_tiles(values: Tensor) -> Tensor:
    """Rows (..., d) with zeros up to a whole number of vectors: they stay at zero and add nothing to any sum."""
    missing = -values.shape[-1] % LANES
    return functional.pad(values, (0, missing)) if missing else values


def _columns(state: Tensor) -> Tensor:
    """A state (B, d, n) as (B tiles n, 64), tile after tile of 64 rows, column after column in it."""
    padded = _in_tiles(state.detach().mT)
    batch, n = padded.shape[:2]
    return padded.view(batch, n, -1, LANES).transpose(1, 2).reshape(-1, LANES).contiguous()


def _matrices(columns: Tensor, shape: torch.Size) -> Tensor:
    """The way back, to a state of the shape (B, d, n)."""
    batch, d, n = shape
    return columns.view(batch, -1, n, LANES).mT.reshape(batch, -1, n)[:, :d].contiguous()


class _Delta(torch.autograd.Function):
    """The two kernels under autograd."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, k: Tensor, alpha: Tensor, beta: Tensor, q: Tensor | None, state: Tensor,
        threshold: Tensor, how: Firing, membrane: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor]:  # fmt: skip
        (steps, batch, d), n = v.shape, k.shape[-1]
        width = n if q is None else q.shape[-1]
        units = batch * tile_count(d)
        segment = segment_steps(n, v.element_size())
        states = fresh((-(-steps // segment) + 1) * units * n, LANES, v.dtype)
        states[: units * n] = _columns(state)
        y = fresh(steps, batch * d * width, v.dtype)
        m = fresh(steps, batch * d * n, v.dtype) if membrane else v.new_empty(1, 1)
        theta = threshold.detach().numpy()[()]
        lowest = theta if how.fires == ">=" else np.nextafter(theta, np.inf, dtype=theta.dtype)
        run_tiles(
            _forward(q is not None, membrane), units, steps * units * LANES * n,
            _flat(_in_tiles(v)), _flat(k), _flat(alpha), _flat(beta), v.new_empty(1, 1) if q is None else _flat(q),
            lowest, segment, states, y, m, d,
        )  # fmt: skip
        ctx.save_for_backward(v, k, alpha, beta, q, states)
        ctx.how, ctx.theta, ctx.lowest, ctx.shape = how, theta, lowest, state.shape
        ctx.set_materialize_grads(False)
        last = _matrices(states[-units * n :], state.shape)
        kept = m.view(steps, batch, d, n) if membrane else None
        return y.view(steps, batch, d, width), kept, last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor | None, dm: Tensor | None, dlast: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        v, k, alpha, beta, q, states = ctx.saved_tensors
        (steps, batch, d), n = v.shape, k.shape[-1]
        width = n if q is None else q.shape[-1]
        units = batch * tile_count(d)
        back = v.new_zeros(units * n, LANES) if dlast is None else _columns(dlast).clone()
        dv = fresh(steps, units * LANES, v.dtype)
        dk = fresh(steps, batch * n, v.dtype)
        dalpha, dbeta = fresh(steps, batch, v.dtype), fresh(steps, batch, v.dtype)
        none = v.new_empty(1, 1)
        dq = none if q is None else fresh(steps, batch * n * width, v.dtype)
        dtheta = torch.zeros(batch, dtype=torch.float64)
        found, settled = surrogate_named(ctx.how.surrogate, ctx.how.width)
        run_tiles(
            _backward(q is not None, ctx.how.surrogate), batch, steps * units * LANES * n,
            _flat(_in_tiles(v)), _flat(k), _flat(alpha), _flat(beta), none if q is None else _flat(q),
            ctx.theta, ctx.lowest, segment_steps(n, v.element_size()), states,
            none if dy is None else _flat(dy), dy is not None, none if dm is None else _flat(dm), dm is not None,
            back, dv, dk, dalpha, dbeta, dq, dtheta,
            *(type(ctx.theta)(c) for c in found.coefficients(settled)), d, width,
        )  # fmt: skip
        return (
            dv.view(steps, batch, -1)[..., :d], dk.view(k.shape), dalpha, dbeta,
            None if q is None else dq.view(q.shape),
            _matrices(back, ctx.shape), dtheta.sum().to(v.dtype), None, None,
        )  # fmt: skip


def delta(
    v: Tensor,
    k: Tensor,
    alpha: Tensor,
    beta: Tensor,
    q: Tensor | None,
    state: Tensor,
    threshold: Tensor,
    how: Firing,
    *,
    membrane: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Walk a sequence of the delta rule: readouts (T, B, d, r or n), membranes if asked, last state (B, d, n).

    Shapes, equations and gradients: `naive.delta_loop`. Float32 or float64 in the machine's own memory (see
    `recurrence.fused.runs_fused`). What differs from the loop is the order in which products are summed.
    """
    outputs: tuple[Tensor, Tensor | None, Tensor] = _Delta.apply(
        v, k, alpha, beta, q, state, threshold, how, membrane
    )  # type: ignore[no-untyped-call]
    return outputs

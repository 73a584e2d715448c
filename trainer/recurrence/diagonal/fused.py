"""The diagonal recurrence at the speed of arithmetic: lanes of channels in vector registers, one kernel each way.

A lane is one channel of one sample. Time goes by in blocks of four steps, because four steps at once cost fewer
operations than one after the other. With h the state before a block of inputs x_0 .. x_3,

    h' = A h + Q_0 x_0 + Q_1 x_1 + Q_2 x_2 + x_3        A = a^4, Q_i = a^(3-i)
    y_j = sum_n Re(P_j h) + sum over i <= j of K_(j-i) x_i        P_j = 2 c a^(j+1), K_l = 2 Re sum_n c a^l

which is 4.5 multiply-adds for a state and a step instead of 6; what does not depend on n (the sum with K, which
holds the skip too) is done once for all states. A kernel takes a tile of lanes through a segment of time: for
one state after the other, state and coefficients stay in registers while the segment is walked, and outputs add
up in a buffer that stays in the first-level cache. Only the states at the borders of segments are kept.

Backward takes the segments last to first, replays the states before each block, and walks it back. With g the
conjugate of the gradient of h, and dy real,

    g = A g' + sum_j P_j dy_j        dx_i = sum_n Re(Q_i g') + sum over j >= i of K_(j-i) dy_j    (Q_3 = 1)
    dA += conj(g' h)        dP_j += conj(h) dy_j        dQ_i += conj(g') x_i        dK_l += dy_j x_(j-l)

11.75 operations. The kernels know nothing of a and c: these gradients are handed to autograd, which made A, P, Q
and K. Sums over a block's place in its segment, and then over segments, are in x's type; over the batch in float64.
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

from unscan.trainer.recurrence.diagonal.line import FINGERPRINT, WIDTH, fma, get, put, zeros
from unscan.trainer.recurrence.diagonal.naive import diagonal_loop
from unscan.trainer.recurrence.lanes import fresh, run_tiles

BLOCK = 4  # steps that the equations above take at once
SEGMENT = 64  # steps between kept states
NUMBERS = 16  # lines of one state: A, P_0 .. P_3, Q_0 .. Q_2, real and imaginary part in turn
W = WIDTH
Kernel = Callable[..., None]


@register_jitable
def _scratch(like: Any, lines: int) -> Any:
    """Room for some lines, from the start of a cache line on."""
    room = np.empty(lines * W + 64 // like.itemsize, like.dtype)
    start = (-room.ctypes.data) % 64 // like.itemsize
    return room[start : start + lines * W]


@cache
def _forward() -> Kernel:
    """Build the forward kernel: y and the states at the borders of segments, of which the first is given.

    x and y (T, lanes), states (borders, lanes / 16, M, 2), numbers (groups, M, 16), taps (groups, 4), all flat;
    the last axis of each, but for x and y, is one of lines.
    """
    arithmetic = FINGERPRINT

    def forward(
        x: Any, steps: Any, lines: Any, taps: Any, numbers: Any, states: Any, y: Any, first: Any, last: Any
    ) -> None:
        _ = arithmetic
        groups = taps.size // (BLOCK * W)
        modes = numbers.size // (NUMBERS * W * groups)
        room = _scratch(x, SEGMENT * 2)  # for each block its four inputs, then its four outputs
        nothing = zeros(x)
        for k in range(first, last):
            tap = k % groups * BLOCK * W
            k0, k1, k2, k3 = (
                get(taps, tap),
                get(taps, tap + W),
                get(taps, tap + 2 * W),
                get(taps, tap + 3 * W),
            )
            for part in range(-(-steps // SEGMENT)):
                begin = part * SEGMENT
                count = min(steps, begin + SEGMENT) - begin
                blocks = -(-count // BLOCK)
                for t in range(blocks * BLOCK):
                    v = get(x, ((begin + t) * lines + k) * W) if t < count else nothing
                    put(v, room, (t // BLOCK * 8 + t % BLOCK) * W)
                for block in range(blocks):
                    at = block * 8 * W
                    x0, x1, x2, x3 = (
                        get(room, at),
                        get(room, at + W),
                        get(room, at + 2 * W),
                        get(room, at + 3 * W),
                    )
                    put(k0 * x0, room, at + 4 * W)
                    put(fma(k0, x1, k1 * x0), room, at + 5 * W)
                    put(fma(k0, x2, fma(k1, x1, k2 * x0)), room, at + 6 * W)
                    put(fma(k0, x3, fma(k1, x2, fma(k2, x1, k3 * x0))), room, at + 7 * W)
                for n in range(modes):
                    row = (k % groups * modes + n) * NUMBERS * W
                    ar, ai = get(numbers, row), get(numbers, row + W)
                    p0r, p0i = get(numbers, row + 2 * W), -get(numbers, row + 3 * W)
                    p1r, p1i = get(numbers, row + 4 * W), -get(numbers, row + 5 * W)
                    p2r, p2i = get(numbers, row + 6 * W), -get(numbers, row + 7 * W)
                    p3r, p3i = get(numbers, row + 8 * W), -get(numbers, row + 9 * W)
                    q0r, q0i = get(numbers, row + 10 * W), get(numbers, row + 11 * W)
                    q1r, q1i = get(numbers, row + 12 * W), get(numbers, row + 13 * W)
                    q2r, q2i = get(numbers, row + 14 * W), get(numbers, row + 15 * W)
                    border = ((part * lines + k) * modes + n) * 2 * W
                    hr, hi = get(states, border), get(states, border + W)
                    for block in range(blocks):
                        at = block * 8 * W
                        put(fma(p0r, hr, fma(p0i, hi, get(room, at + 4 * W))), room, at + 4 * W)
                        put(fma(p1r, hr, fma(p1i, hi, get(room, at + 5 * W))), room, at + 5 * W)
                        put(fma(p2r, hr, fma(p2i, hi, get(room, at + 6 * W))), room, at + 6 * W)
                        put(fma(p3r, hr, fma(p3i, hi, get(room, at + 7 * W))), room, at + 7 * W)
                        x0, x1, x2 = get(room, at), get(room, at + W), get(room, at + 2 * W)
                        real = fma(q0r, x0, fma(q1r, x1, fma(q2r, x2, get(room, at + 3 * W))))
                        imaginary = fma(q0i, x0, fma(q1i, x1, q2i * x2))
                        real = fma(ar, hr, fma(-ai, hi, real))
                        hi = fma(ar, hi, fma(ai, hr, imaginary))
                        hr = real
                    border += lines * modes * 2 * W
                    put(hr, states, border)
                    put(hi, states, border + W)
                for t in range(count):
                    put(get(room, (t // BLOCK * 8 + 4 + t % BLOCK) * W), y, ((begin + t) * lines + k) * W)

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward() -> Kernel:
    """Build the backward kernel. `adjoint` comes as g after the last step, and leaves as that of the first state.

    dtaps and dnumbers, float64, have one copy for each thread that may run.
    """
    arithmetic = FINGERPRINT

    def backward(
        x: Any, steps: Any, lines: Any, taps: Any, numbers: Any, states: Any, dy: Any, adjoint: Any, dx: Any,
        dtaps: Any, dnumbers: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic
        groups = taps.size // (BLOCK * W)
        modes = numbers.size // (NUMBERS * W * groups)
        threads = dtaps.size // taps.size
        thread = -(-first * threads // lines)  # the inverse of how `run_tiles` cuts
        room = _scratch(
            x, SEGMENT // BLOCK * 14
        )  # for each block x, dy, dx (four lines each), then h before it
        sums = _scratch(x, (modes * NUMBERS + BLOCK))
        nothing = zeros(x)
        segments = -(-steps // SEGMENT)
        for k in range(first, last):
            tap = k % groups * BLOCK * W
            k0, k1, k2, k3 = (
                get(taps, tap),
                get(taps, tap + W),
                get(taps, tap + 2 * W),
                get(taps, tap + 3 * W),
            )
            sums[:] = 0
            for back in range(segments):
                part = segments - 1 - back
                begin = part * SEGMENT
                count = min(steps, begin + SEGMENT) - begin
                blocks = -(-count // BLOCK)
                for t in range(blocks * BLOCK):
                    at = (t // BLOCK * 14 + t % BLOCK) * W
                    put(get(x, ((begin + t) * lines + k) * W) if t < count else nothing, room, at)
                    put(get(dy, ((begin + t) * lines + k) * W) if t < count else nothing, room, at + 4 * W)
                s0, s1, s2, s3 = nothing, nothing, nothing, nothing
                for block in range(blocks):
                    at = block * 14 * W
                    x0, x1, x2, x3 = (
                        get(room, at),
                        get(room, at + W),
                        get(room, at + 2 * W),
                        get(room, at + 3 * W),
                    )
                    d0, d1 = get(room, at + 4 * W), get(room, at + 5 * W)
                    d2, d3 = get(room, at + 6 * W), get(room, at + 7 * W)
                    put(fma(k0, d0, fma(k1, d1, fma(k2, d2, k3 * d3))), room, at + 8 * W)
                    put(fma(k0, d1, fma(k1, d2, k2 * d3)), room, at + 9 * W)
                    put(fma(k0, d2, k1 * d3), room, at + 10 * W)
                    put(k0 * d3, room, at + 11 * W)
                    s0 = fma(d0, x0, fma(d1, x1, fma(d2, x2, fma(d3, x3, s0))))
                    s1 = fma(d1, x0, fma(d2, x1, fma(d3, x2, s1)))
                    s2 = fma(d2, x0, fma(d3, x1, s2))
                    s3 = fma(d3, x0, s3)
                own = modes * NUMBERS * W
                _add(s0, s1, sums, own)
                _add(s2, s3, sums, own + 2 * W)
                for n in range(modes):
                    row = (k % groups * modes + n) * NUMBERS * W
                    own = n * NUMBERS * W
                    ar, ai = get(numbers, row), get(numbers, row + W)
                    q0r, q0i = get(numbers, row + 10 * W), get(numbers, row + 11 * W)
                    q1r, q1i = get(numbers, row + 12 * W), get(numbers, row + 13 * W)
                    q2r, q2i = get(numbers, row + 14 * W), get(numbers, row + 15 * W)
                    border = ((part * lines + k) * modes + n) * 2 * W
                    hr, hi = get(states, border), get(states, border + W)
                    s0r, s0i, s1r, s1i = nothing, nothing, nothing, nothing
                    s2r, s2i, s3r, s3i = nothing, nothing, nothing, nothing
                    for block in range(blocks):
                        at = block * 14 * W
                        put(hr, room, at + 12 * W)
                        put(hi, room, at + 13 * W)
                        d = get(room, at + 4 * W)
                        s0r, s0i = fma(hr, d, s0r), fma(hi, d, s0i)
                        d = get(room, at + 5 * W)
                        s1r, s1i = fma(hr, d, s1r), fma(hi, d, s1i)
                        d = get(room, at + 6 * W)
                        s2r, s2i = fma(hr, d, s2r), fma(hi, d, s2i)
                        d = get(room, at + 7 * W)
                        s3r, s3i = fma(hr, d, s3r), fma(hi, d, s3i)
                        x0, x1, x2 = get(room, at), get(room, at + W), get(room, at + 2 * W)
                        real = fma(q0r, x0, fma(q1r, x1, fma(q2r, x2, get(room, at + 3 * W))))
                        imaginary = fma(q0i, x0, fma(q1i, x1, q2i * x2))
                        real = fma(ar, hr, fma(-ai, hi, real))
                        hi = fma(ar, hi, fma(ai, hr, imaginary))
                        hr = real
                    _add(s0r, s0i, sums, own + 2 * W)
                    _add(s1r, s1i, sums, own + 4 * W)
                    _add(s2r, s2i, sums, own + 6 * W)
                    _add(s3r, s3i, sums, own + 8 * W)
                    p0r, p0i = get(numbers, row + 2 * W), get(numbers, row + 3 * W)
                    p1r, p1i = get(numbers, row + 4 * W), get(numbers, row + 5 * W)
                    p2r, p2i = get(numbers, row + 6 * W), get(numbers, row + 7 * W)
                    p3r, p3i = get(numbers, row + 8 * W), get(numbers, row + 9 * W)
                    reached = (k * modes + n) * 2 * W
                    gr, gi = get(adjoint, reached), get(adjoint, reached + W)
                    dar, dai = nothing, nothing
                    s0r, s0i, s1r, s1i, s2r, s2i = nothing, nothing, nothing, nothing, nothing, nothing
                    for j in range(blocks):
                        at = (blocks - 1 - j) * 14 * W
                        put(fma(q0r, gr, fma(-q0i, gi, get(room, at + 8 * W))), room, at + 8 * W)
                        put(fma(q1r, gr, fma(-q1i, gi, get(room, at + 9 * W))), room, at + 9 * W)
                        put(fma(q2r, gr, fma(-q2i, gi, get(room, at + 10 * W))), room, at + 10 * W)
                        put(get(room, at + 11 * W) + gr, room, at + 11 * W)
                        v = get(room, at)
                        s0r, s0i = fma(gr, v, s0r), fma(gi, v, s0i)
                        v = get(room, at + W)
                        s1r, s1i = fma(gr, v, s1r), fma(gi, v, s1i)
                        v = get(room, at + 2 * W)
                        s2r, s2i = fma(gr, v, s2r), fma(gi, v, s2i)
                        hr, hi = get(room, at + 12 * W), get(room, at + 13 * W)
                        dar = fma(gr, hr, fma(-gi, hi, dar))
                        dai = fma(gr, hi, fma(gi, hr, dai))
                        d0, d1 = get(room, at + 4 * W), get(room, at + 5 * W)
                        d2, d3 = get(room, at + 6 * W), get(room, at + 7 * W)
                        real = fma(p0r, d0, fma(p1r, d1, fma(p2r, d2, p3r * d3)))
                        imaginary = fma(p0i, d0, fma(p1i, d1, fma(p2i, d2, p3i * d3)))
                        real = fma(ar, gr, fma(-ai, gi, real))
                        gi = fma(ar, gi, fma(ai, gr, imaginary))
                        gr = real
                    put(gr, adjoint, reached)
                    put(gi, adjoint, reached + W)
                    _add(dar, dai, sums, own)
                    _add(s0r, s0i, sums, own + 10 * W)
                    _add(s1r, s1i, sums, own + 12 * W)
                    _add(s2r, s2i, sums, own + 14 * W)
                for t in range(count):
                    put(get(room, (t // BLOCK * 14 + 8 + t % BLOCK) * W), dx, ((begin + t) * lines + k) * W)
            size = modes * NUMBERS * W
            place = (thread * groups + k % groups) * size
            for i in range(size):
                dnumbers[place + i] += sums[i]
            place = (thread * groups + k % groups) * BLOCK * W
            for i in range(BLOCK * W):
                dtaps[place + i] += sums[size + i]

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


@register_jitable
def _add(real: Any, imaginary: Any, sums: Any, start: Any) -> None:
    """Add two lines to two that follow each other."""
    put(get(sums, start) + real, sums, start)
    put(get(sums, start + W) + imaginary, sums, start + W)


def _padded(values: Tensor) -> Tensor:
    """Numbers (..., H), contiguous, H being padded to whole lines."""
    missing = -values.shape[-1] % W
    return (functional.pad(values, (0, missing)) if missing else values).contiguous()


def _lined(values: Tensor) -> Tensor:
    """Numbers (..., R, H) as lines: flat (..., H / 16, R, 16), H being padded to whole lines."""
    rows = _padded(values)
    return rows.view(*rows.shape[:-1], -1, W).transpose(-2, -3).reshape(-1)


def _unlined(lines: Tensor, rows: int, channels: int) -> Tensor:
    """The way back, from flat (samples, H / 16, R, 16) to (samples, R, H)."""
    groups = -(-channels // W)
    return lines.view(-1, groups, rows, W).transpose(1, 2).reshape(-1, rows, groups * W)[..., :channels]


class _Blocks(torch.autograd.Function):
    """The kernels under autograd: x (T, B, H), state (B, 2 M, H) or None, taps K (4, H), numbers (16 M, H)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor | None, taps: Tensor, numbers: Tensor, state_after: bool
    ) -> tuple[Tensor, Tensor | None]:
        steps, rows, modes = x.shape[0], _padded(x), numbers.shape[0] // NUMBERS
        lines = rows[0].numel() // W
        laid_out = _lined(taps), _lined(numbers)
        states = fresh(-(-steps // SEGMENT) + 1, lines * modes * 2 * W, x.dtype)
        states[0] = 0 if state is None else _lined(state)
        y = fresh(steps, lines * W, x.dtype)
        run_tiles(
            _forward(), lines, rows.numel() * modes, rows.view(-1), steps, lines, *laid_out,
            states.view(-1), y.view(-1),
        )  # fmt: skip
        ctx.save_for_backward(x, states, *laid_out)
        ctx.set_materialize_grads(False)
        last = _unlined(states[-1], 2 * modes, x.shape[-1]) if state_after else None
        return y.view(rows.shape)[..., : x.shape[-1]], last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        x, states, taps, numbers = ctx.saved_tensors
        (steps, _, channels), rows = x.shape, _padded(x)
        lines, groups = rows[0].numel() // W, rows.shape[-1] // W
        modes = numbers.numel() // (groups * W * NUMBERS)
        given = torch.zeros_like(rows) if dy is None else _padded(dy)
        adjoint = torch.zeros_like(states[0]) if dlast is None else _lined(dlast)
        adjoint.view(-1, 2, W)[:, 1].neg_()
        dx = fresh(steps, lines * W, x.dtype)
        threads = min(torch.get_num_threads(), lines)
        dtaps = torch.zeros(threads * taps.numel(), dtype=torch.float64)
        dnumbers = torch.zeros(threads * numbers.numel(), dtype=torch.float64)
        run_tiles(
            _backward(), lines, rows.numel() * modes, rows.view(-1), steps, lines, taps, numbers,
            states.view(-1), given.view(-1), adjoint, dx.view(-1), dtaps, dnumbers,
        )  # fmt: skip
        adjoint.view(-1, 2, W)[:, 1].neg_()
        dnumbers.view(-1, 2, W)[:, 1].neg_()
        return (
            dx.view(rows.shape)[..., :channels],
            _unlined(adjoint, 2 * modes, channels) if ctx.needs_input_grad[1] else None,
            _unlined(dtaps, BLOCK, channels).sum(0).to(x.dtype),
            _unlined(dnumbers, NUMBERS * modes, channels).sum(0).to(x.dtype),
            None,
        )


def _block(a: Tensor, c: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor]:
    """K (4, H), and A, P and Q as pairs (8, H, M, 2), from a and c (H, M): worked out in float64, then rounded."""
    wide, c = a.to(torch.complex128), c.to(torch.complex128)
    squared = wide * wide
    powers = torch.stack((wide, squared, squared * wide, squared * squared))
    reached = 2 * c * powers
    taps = torch.cat((2 * c.real.sum(-1)[None], reached[:3].real.sum(-1)))
    if skip is not None:
        taps = torch.cat((taps[:1] + skip, taps[1:]))
    numbers = torch.view_as_real(torch.cat((powers[3:], reached, powers[:3].flip(0))))
    return taps.to(a.real.dtype), numbers.to(a.real.dtype)


def diagonal_fused(
    x: Tensor, a: Tensor, c: Tensor, skip: Tensor | None, state: Tensor | None, state_after: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Walk a sequence with the kernels: outputs and, if asked for, last state. Equals `naive.diagonal_loop`.

    x (T, ..., H) float32 or float64 on the CPU; a and c (H, M), state (..., H, M), complex; skip (H). Where the
    last state is asked for, the up to three steps after the last whole block go through the loop.
    """
    steps, (channels, modes) = x.shape[0], a.shape
    whole = steps - steps % BLOCK if state_after else steps
    if whole == 0:
        return diagonal_loop(x, a, c, skip, state)
    taps, numbers = _block(a, c, skip)
    by_row = numbers.permute(2, 0, 3, 1).reshape(modes * NUMBERS, channels)
    start = None
    if state is not None:
        start = torch.view_as_real(state).reshape(-1, channels, 2 * modes).transpose(1, 2)
    body = x if whole == steps else x[:whole]
    rows = body.reshape(whole, -1, channels)
    y, last = _Blocks.apply(rows, start, taps, by_row, state_after)  # type: ignore[no-untyped-call]
    y = y.reshape(whole, *x.shape[1:])
    if last is None:
        return y, None
    pairs = last.transpose(1, 2).reshape(*x.shape[1:], modes, 2)
    reached_state = torch.view_as_complex(pairs.contiguous())
    if whole == steps:
        return y, reached_state
    tail, reached_state = diagonal_loop(x[whole:], a, c, skip, reached_state)
    return torch.cat((y, tail)), reached_state

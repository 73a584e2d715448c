"""The leak without a reset as one fused pass: u_t = beta u_{t-1} + x_t, forward and backward.

Backward is the same scan in the other direction: with d_t the gradient handed in, D_t = d_t + beta D_{t+1} is
the gradient of x_t, beta D_0 that of the initial state, and sum_t D_t u_{t-1} that of beta. u is the output, so
nothing else is kept.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from unscan.trainer.recurrence.fused import runs_fused
from unscan.trainer.recurrence.lanes import (
    fresh,
    from_tiles,
    padded,
    run_tiles,
    tile_count,
    to_tiles,
    unpadded,
)
from unscan.trainer.recurrence.naive import li_loop
from unscan.trainer.recurrence.vector import FINGERPRINT, LANES, load, spread, store

_BLOCK = 32  # steps that one tile advances before the next tile's turn


@cache
def _forward() -> Callable[..., None]:
    """Build the forward kernel; `state` holds u_0 and ends as u_T."""
    arithmetic = FINGERPRINT

    def forward(x: Any, beta: Any, state: Any, u: Any, first: Any, last: Any) -> None:
        _ = arithmetic
        steps, lanes = x.shape
        for begin in range(0, steps, _BLOCK):
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                b = load(beta, k, 0)
                now = load(state, k, 0)
                for t in range(begin, min(steps, begin + _BLOCK)):
                    now = b * now + load(x, t, left)
                    store(now, u, t, left)
                store(now, state, k, 0)

    kernel: Callable[..., None] = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward(learn: bool) -> Callable[..., None]:
    """Build the backward kernel; `back` holds what comes from beyond the end and ends as the state's gradient."""
    arithmetic = FINGERPRINT

    def backward(
        du: Any, beta: Any, state: Any, u: Any, back: Any, dx: Any, dbeta: Any, first: Any, last: Any
    ) -> None:
        _ = arithmetic
        steps, lanes = du.shape
        sums = np.empty((1, LANES), du.dtype)
        for beyond in range(steps, 0, -_BLOCK):
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                b = load(beta, k, 0)
                d = load(back, k, 0)
                db = spread(du.dtype.type(0.0))
                for j in range(min(beyond, _BLOCK)):
                    t = beyond - 1 - j
                    total = load(du, t, left) + d
                    store(total, dx, t, left)
                    d = b * total
                    if learn:
                        db = db + total * (load(u, t - 1, left) if t > 0 else load(state, k, 0))
                store(d, back, k, 0)
                if learn:
                    store(db, sums, 0, 0)
                    for i in range(LANES):
                        dbeta[k, i] += sums[0, i]

    kernel: Callable[..., None] = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


class _Scan(torch.autograd.Function):
    """The two kernels under autograd. beta comes as (C,), the state in the shape of one step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Tensor, beta: Tensor) -> Tensor:
        steps, lanes = x.shape[0], state.numel()
        rows, decay, start = padded(x), to_tiles(beta, lanes), to_tiles(state.reshape(-1), lanes)
        u = fresh(steps, rows.shape[1], x.dtype)
        run_tiles(_forward(), tile_count(lanes), rows.numel(), rows, decay, start.clone(), u)
        output = unpadded(u, x.shape)
        ctx.learn = bool(ctx.needs_input_grad[2])
        ctx.channels = beta.numel()
        ctx.save_for_backward(decay, start, *([output] if ctx.learn else []))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, du: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        decay, start, *kept = ctx.saved_tensors
        shape, lanes = du.shape, du.shape[1:].numel()
        rows = padded(du)
        u = padded(kept[0]) if ctx.learn else rows[:1]
        back = torch.zeros_like(decay)
        dx = fresh(shape[0], rows.shape[1], rows.dtype)
        dbeta = torch.zeros(decay.shape if ctx.learn else (1, 1), dtype=torch.float64)
        run_tiles(
            _backward(ctx.learn), tile_count(lanes), rows.numel(), rows, decay, start, u, back, dx, dbeta
        )
        dstate = from_tiles(back, lanes).reshape(shape[1:])
        learned = (
            from_tiles(dbeta, lanes).reshape(-1, ctx.channels).sum(0).to(du.dtype) if ctx.learn else None
        )
        return unpadded(dx, shape), dstate, learned


def scan(x: Tensor, state: Tensor | None, beta: Tensor) -> Tensor:
    """u_t = beta u_{t-1} + x_t for all t: x (T, ..., C), state (..., C) or None for zeros, beta () or (C,).

    Equals `naive.li_loop` bit for bit forward; what the kernels cannot take (see `fused.runs_fused`) goes through it.
    """
    start = torch.zeros_like(x[0]) if state is None else state
    if not runs_fused(x):
        return li_loop(x, start, beta)
    u: Tensor = _Scan.apply(x, start, beta.expand(x.shape[-1]))  # type: ignore[no-untyped-call]
    return u

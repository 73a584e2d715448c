"""A short causal filter of the last k inputs: the step, the loop, and one fused pass forward and backward.

Each output is a sum over the same taps in the same order as in the step, newest input first, so the pass equals
the steps bit for bit. Backward is the same filter in the other direction, with the taps of inputs from before
the sequence giving the gradient of the state.
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
from unscan.trainer.recurrence.vector import FINGERPRINT, LANES, load, spread, store

Kernel = Callable[..., None]

_BLOCK = 32  # steps that one tile advances before the next tile's turn


def fir_step(x: Tensor, before: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Filter one step: u = sum over i < k of w_i x_{t-i}, and the state of the next step.

    x (..., C), before (k - 1, ..., C), the inputs of the last k - 1 steps, oldest first; weight (k,) or (C, k).
    """
    window = torch.cat((before, x[None]))
    taps = weight.unbind(-1)
    u = taps[0] * x
    for i in range(1, len(taps)):
        u = u + taps[i] * window[-1 - i]
    return u, window[1:]


def fir_loop(x: Tensor, before: Tensor, weight: Tensor) -> Tensor:
    """Walk a sequence with `fir_step`: x (T, ..., C), before (k - 1, ..., C) -> all u_t, (T, ..., C)."""
    outputs = []
    for x_t in x.unbind(0):
        u, before = fir_step(x_t, before, weight)
        outputs.append(u)
    return torch.stack(outputs)


@cache
def _forward() -> Kernel:
    """Build the forward kernel; row i * tiles + k of `taps` is w_i of tile k."""
    arithmetic = FINGERPRINT

    def forward(x: Any, before: Any, taps: Any, u: Any, first: Any, last: Any) -> None:
        _ = arithmetic
        steps, lanes = x.shape
        earlier = before.shape[0]
        tiles = taps.shape[0] // (earlier + 1)
        for begin in range(0, steps, _BLOCK):
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                for t in range(begin, min(steps, begin + _BLOCK)):
                    now = load(taps, k, 0) * load(x, t, left)
                    inside = min(t, earlier) + 1
                    for i in range(1, inside):
                        now = now + load(taps, i * tiles + k, 0) * load(x, t - i, left)
                    for i in range(inside, earlier + 1):
                        now = now + load(taps, i * tiles + k, 0) * load(before, t - i + earlier, left)
                    store(now, u, t, left)

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward(learn: bool) -> Kernel:
    """Build the backward kernel: dx_t = sum_i w_i du_{t+i}, from t = -(k - 1) on, and dw_i = sum_t du_t x_{t-i}."""
    arithmetic = FINGERPRINT

    def backward(
        du: Any, x: Any, before: Any, taps: Any, dx: Any, dbefore: Any, dtaps: Any, first: Any, last: Any
    ) -> None:
        _ = arithmetic
        steps, lanes = du.shape
        earlier = before.shape[0]
        tiles = taps.shape[0] // (earlier + 1)
        sums = np.empty((1, LANES), du.dtype)
        zero = spread(du.dtype.type(0.0))
        for begin in range(-earlier, steps, _BLOCK):
            end = min(steps, begin + _BLOCK)
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                for t in range(begin, end):
                    now = zero
                    for i in range(max(0, -t), min(earlier + 1, steps - t)):
                        now = now + load(taps, i * tiles + k, 0) * load(du, t + i, left)
                    if t >= 0:
                        store(now, dx, t, left)
                    else:
                        store(now, dbefore, t + earlier, left)
                if learn:
                    for i in range(earlier + 1):
                        part = zero
                        for t in range(max(0, begin), end):
                            if t >= i:
                                part = part + load(du, t, left) * load(x, t - i, left)
                            else:
                                part = part + load(du, t, left) * load(before, t - i + earlier, left)
                        store(part, sums, 0, 0)
                        for lane in range(LANES):
                            dtaps[i * tiles + k, lane] += sums[0, lane]

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


def _rows(before: Tensor, like: Tensor) -> Tensor:
    """The inputs from before the sequence as contiguous rows; none of them where the filter has one tap."""
    return padded(before) if before.shape[0] else like[:0]


class _Fir(torch.autograd.Function):
    """The two kernels under autograd. The weight comes as (k, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, weight: Tensor) -> Tensor:
        lanes = x.shape[1:].numel()
        rows = padded(x)
        taps = to_tiles(weight, lanes).reshape(-1, LANES)
        u = fresh(x.shape[0], rows.shape[1], x.dtype)
        run_tiles(_forward(), tile_count(lanes), rows.numel(), rows, _rows(before, rows), taps, u)
        ctx.save_for_backward(x, before, taps)
        return unpadded(u, x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, du: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, before, taps = ctx.saved_tensors
        lanes, tiles, rows = x.shape[1:].numel(), tile_count(x.shape[1:].numel()), padded(du)
        learn = bool(ctx.needs_input_grad[2])
        dx = fresh(x.shape[0], rows.shape[1], x.dtype)
        dbefore = rows.new_empty(before.shape[0], rows.shape[1])
        dtaps = torch.zeros(taps.shape if learn else (1, 1), dtype=torch.float64)
        inputs = padded(x)
        run_tiles(
            _backward(learn), tiles, rows.numel(),
            rows, inputs, _rows(before, inputs), taps, dx, dbefore, dtaps,
        )  # fmt: skip
        learned = None
        if learn:
            of_taps = dtaps.reshape(-1, tiles, LANES)
            learned = torch.stack(
                [from_tiles(total, lanes).reshape(-1, x.shape[-1]).sum(0) for total in of_taps]
            ).to(x.dtype)
        return unpadded(dx, x.shape), dbefore[:, :lanes].reshape(before.shape), learned


def fir(x: Tensor, before: Tensor, weight: Tensor) -> Tensor:
    """u_t = sum over i < k of w_i x_{t-i} for all t, where x_{-1}, x_{-2}, ... are the last rows of `before`.

    x (T, ..., C), before (k - 1, ..., C), oldest first, weight (k,) or (C, k) -> (T, ..., C). Equals `fir_loop` bit
    for bit forward; what the kernels cannot take (see `fused.runs_fused`) goes through it.
    """
    if not runs_fused(x):
        return fir_loop(x, before, weight)
    of_taps = weight.expand(x.shape[-1], weight.shape[-1]).T
    u: Tensor = _Fir.apply(x, before, of_taps)  # type: ignore[no-untyped-call]
    return u

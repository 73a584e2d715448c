"""The matrix memory S_t = S_{t-1} diag(alpha_t) + v_t k_t^T on a GPU: its Triton kernels under autograd.

`matrix.naive.memory_loop` is the meaning. S goes through the same roundings in the same order (products and sums are
not contracted), so the spikes are the loop's; sums over columns and rows are added in another order. Inputs in
float16 or bfloat16 are raised to float32 as they are loaded, and S is kept in float32.

Between forward and backward only S before each chunk of 16 steps is kept: a sixteenth of (T, B, d, n), and backward
needs twice as much again while it runs. See `memory_kernels` for how a chunk is walked.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from unscan.trainer.recurrence.gpu import memory_kernels as kernels
from unscan.trainer.recurrence.gpu.curves import check_sequence, check_shape, curve_of, on_device_of, raised
from unscan.trainer.recurrence.naive import Firing

_CHUNK = 16  # steps; a replay of 7.5 on average for each step backward, and a sixteenth of all S kept
_TILE = 1 << 14  # bytes of S that one program holds
_SHARE = (
    64  # bytes of S to a thread: 16 registers, with which the adjoint kernel needs no more than 255 in all
)
_SMALL = 16  # rows and columns to a program where nothing is summed: one warp, many programs


def _power(number: int) -> int:
    """The power of two at or above a number: what a tile's side must be."""
    return int(triton.next_power_of_2(number))


def _tile(held: int, size: int, itemsize: int) -> tuple[int, int, int]:
    """Shape a tile that holds one side of S whole: that side, as much of the other as fits, and the warps for it."""
    whole = _power(held)
    part = max(1, min(_power(size), _TILE // itemsize // whole))
    return whole, part, max(1, min(8, whole * part * itemsize // _SHARE // 32))


class _Memory(torch.autograd.Function):
    """The kernels under autograd."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, k: Tensor, alpha: Tensor, q: Tensor | None, S: Tensor, threshold: Tensor,
        firing: Firing, membrane: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor]:  # fmt: skip
        dtype = raised(v.dtype)
        steps, batch, d = v.shape
        n = k.shape[-1]
        v, k, alpha = v.contiguous(), k.contiguous(), alpha.contiguous()
        read = v if q is None else q.contiguous()
        start = S.detach().to(dtype).contiguous()
        theta = threshold.detach().to(dtype)
        chunks = triton.cdiv(steps, _CHUNK)
        border = torch.empty(chunks, batch, d, n, dtype=dtype, device=v.device)
        last = torch.empty_like(start)
        queries = n if q is None else q.shape[-1]
        y = v.new_empty(steps, batch, d, queries)
        membranes = torch.empty(steps, batch, d, n, dtype=dtype, device=v.device) if membrane else None
        columns, rows, warps = _tile(n, d, start.itemsize)
        exact = {"enable_fp_fusion": False, "chunk": _CHUNK}
        with on_device_of(v):
            kernels.borders[(batch, triton.cdiv(d, _SMALL), triton.cdiv(n, _SMALL))](
                v, k, alpha, start, border, last, steps, batch, d, n,
                rows=_SMALL, columns=_SMALL, num_warps=1, **exact,
            )  # fmt: skip
            kernels.read[(chunks * batch, triton.cdiv(d, rows))](
                v, k, alpha, read, border, theta, y, y if membranes is None else membranes,
                steps, batch, d, n, queries,
                strict=firing.fires == ">", has_q=q is not None, keep=membrane, rows=rows, columns=columns,
                num_warps=warps, **exact,
            )  # fmt: skip
        ctx.save_for_backward(v, k, alpha, read, border, theta)
        ctx.firing, ctx.has_q = firing, q is not None
        ctx.dtypes = S.dtype, threshold.dtype
        ctx.set_materialize_grads(False)
        return y, membranes, last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor | None, dmembranes: Tensor | None, dlast: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        v, k, alpha, q, border, theta = ctx.saved_tensors
        firing: Firing = ctx.firing
        (steps, batch, d), n, chunks = v.shape, k.shape[-1], border.shape[0]
        queries = q.shape[-1] if ctx.has_q else n
        dy, dmembranes, dlast = (None if g is None else g.contiguous() for g in (dy, dmembranes, dlast))
        local, entry, dstart = torch.empty_like(border), torch.empty_like(border), torch.empty_like(border[0])
        columns, rows, warps = _tile(n, d, border.itemsize)
        blocks = triton.cdiv(d, rows)
        dv = torch.empty_like(v)
        parts = border.new_empty(2, blocks, steps, batch, n)
        dtheta = border.new_empty(chunks * batch * blocks)
        exact = {"enable_fp_fusion": False, "chunk": _CHUNK}
        curve = curve_of(firing)

        def walk(from_entry: Tensor, gradients: bool) -> None:
            kernels.adjoint[(chunks * batch, blocks)](
                v, k, alpha, q, border, theta,
                v if dy is None else dy, border if dmembranes is None else dmembranes, from_entry,
                dv, parts[0], parts[1], dtheta, steps, batch, d, n, queries,
                has_q=ctx.has_q, has_dy=dy is not None, has_dm=dmembranes is not None, gradients=gradients,
                curve=curve["curve"], p=curve["p"], q_=curve["q"], rows=rows, columns=columns,
                num_warps=warps, **exact,
            )  # fmt: skip

        with on_device_of(v):
            walk(local, gradients=False)
            kernels.chain[(batch, triton.cdiv(d, _SMALL), triton.cdiv(n, _SMALL))](
                alpha, local, border if dlast is None else dlast, entry, dstart, steps, batch, d, n,
                has_dlast=dlast is not None, rows=_SMALL, columns=_SMALL, num_warps=1, **exact,
            )  # fmt: skip
            walk(entry, gradients=True)
            dq = None
            if ctx.has_q and ctx.needs_input_grad[3] and dy is not None:
                dq = torch.empty_like(q)
                height, width, warps = _tile(d, n, border.itemsize)
                kernels.dquery[(chunks * batch, triton.cdiv(n, width))](
                    v, k, alpha, border, theta, dy, dq, steps, batch, d, n, queries,
                    strict=firing.fires == ">", rows=height, columns=width,
                    num_warps=warps, **exact,
                )  # fmt: skip
        dk, dalpha = parts.sum(1)
        of_state, of_threshold = ctx.dtypes
        return (
            dv, dk.to(k.dtype), dalpha.to(alpha.dtype), dq,
            dstart.to(of_state), dtheta.double().sum().to(of_threshold), None, None,
        )  # fmt: skip


def memory(
    v: Tensor,
    k: Tensor,
    alpha: Tensor,
    q: Tensor | None,
    S: Tensor,
    threshold: Tensor,
    firing: Firing,
    *,
    membrane: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Walk a sequence of a matrix memory: readouts, all S_t if asked for, and the last S_t.

        S_t = S_{t-1} diag(alpha_t) + v_t k_t^T        Z_t = H(S_t - theta)        y_t = Z_t q_t, or Z_t without q

    v (T, B, d), k and alpha (T, B, n), q (T, B, n, r) or None, S (B, d, n), threshold () ->
    y (T, B, d, r) or (T, B, d, n) in v's dtype, S_t (T, B, d, n) and S (B, d, n) in float64 for a float64 v and in
    float32 for every other. Of `firing` the rule for ties and the surrogate count. Spikes are those of
    `matrix.naive.memory_loop`; readouts and gradients differ from the loop's by rounding, and repeat exactly.

    Raises `InvalidInput` for inputs that are empty, of other dtypes than float16, bfloat16, float32 or
    float64, of shapes that do not fit each other, or on different devices.
    Source: papers/000 and 001 (generation 2).
    """
    check_sequence("v", v)
    check_sequence("k", k)
    check_shape("v", v, ((*k.shape[:-1], v.shape[-1]),), k)
    check_shape("alpha", alpha, (tuple(k.shape),), k)
    if q is not None:
        check_sequence("q", q)
        check_shape("q", q, ((*k.shape, q.shape[-1]),), k)
    check_shape("S", S, ((*v.shape[1:], k.shape[-1]),), v)
    check_shape("threshold", threshold, ((),), v)
    outputs: tuple[Tensor, Tensor | None, Tensor] = _Memory.apply(
        v, k, alpha, q, S, threshold, firing, membrane
    )  # type: ignore[no-untyped-call]
    return outputs

"""The exact leaky integrate-and-fire neuron on a GPU: one Triton kernel forward, one backward.

A lane is one neuron of one sample. A program walks time for a block of lanes that lie beside each other in memory,
so every access is one full line, the state stays in registers, and nothing is shared between programs. Loads do
not depend on the state: they are issued a few steps ahead, which is what hides the latency of memory.

`naive.lif_loop` is the meaning, rounding of every membrane included: products and sums are not contracted
(`enable_fp_fusion=False`). float16 and bfloat16 inputs are raised to float32 as they are loaded; spikes come back
in the input's dtype, where 0 and 1 are exact, membranes and states in float32.

Forward keeps the membranes before reset when a gradient will be asked for, and autograd holds these in place of the
input: the states follow from them, so backward does not compute the recurrence again and needs x only where it says
so. In float32 that is as much memory as keeping x, and more only where something else holds x anyway.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from unscan.trainer.recurrence.gpu.curves import (
    check_sequence,
    check_shape,
    curve_of,
    fires,
    on_device_of,
    raised,
    slope,
)
from unscan.trainer.recurrence.naive import Firing

_AHEAD = tl.constexpr(4)  # steps of which the loads are in flight at once
_MANY = 1 << 17  # lanes from which two for each thread still leave every multiprocessor enough programs


@triton.jit
def _after(m: tl.tensor, th: tl.tensor, reset: tl.constexpr, strict: tl.constexpr) -> tl.tensor:
    """The state that a membrane leaves behind, reset at once."""
    if reset == "subtract":
        m = tl.where(fires(m, th, strict), m - th, m)
    elif reset == "zero":
        m = tl.where(fires(m, th, strict), 0.0, m)
    return m


@triton.jit
def _plus(total: tl.tensor, lost: tl.tensor, more: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Add to a sum and to what its roundings have lost (compensated summation): exact to rounding for any T."""
    more = more - lost
    larger = total + more
    return larger, (larger - total) - more


@triton.jit(do_not_specialize=["steps"])
def _forward(
    x: tl.tensor, start: tl.tensor, beta: tl.tensor, theta: tl.tensor, s: tl.tensor, m: tl.tensor, last: tl.tensor,
    steps: tl.tensor, lanes: tl.tensor, betas: tl.tensor, thetas: tl.tensor,
    reset: tl.constexpr, later: tl.constexpr, strict: tl.constexpr, rest: tl.constexpr, keep: tl.constexpr,
    block: tl.constexpr,
) -> None:  # fmt: skip
    """Walk a block of lanes: spikes to s, the state after the last step to last; `keep` writes membranes to m."""
    lane = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    live = lane < lanes
    u = tl.load(start + lane, live, 0.0)
    b = tl.load(beta + lane % betas, live, 0.0)
    th = tl.load(theta + lane % thetas, live, 1.0)
    at = lane
    for _ in tl.range(0, steps, num_stages=_AHEAD):
        d = tl.load(x + at, live, 0.0).to(u.dtype)
        v = b * u + ((1 - b) * d if rest else d)
        if later:
            if reset == "subtract":
                v = tl.where(fires(u, th, strict), v - th, v)
            elif reset == "zero":
                v = tl.where(fires(u, th, strict), 0.0, v)
        tl.store(s + at, tl.where(fires(v, th, strict), 1.0, 0.0).to(s.dtype.element_ty), live)
        if keep:
            tl.store(m + at, v, live)
        u = v if later else _after(v, th, reset, strict)
        at += lanes
    tl.store(last + lane, u, live)


@triton.jit(do_not_specialize=["steps", "end"])
def _backward(
    x: tl.tensor, m: tl.tensor, start: tl.tensor, beta: tl.tensor, theta: tl.tensor,
    ds: tl.tensor, dm: tl.tensor, du: tl.tensor, dx: tl.tensor, dstart: tl.tensor, dbeta: tl.tensor, dtheta: tl.tensor,
    steps: tl.tensor, end: tl.tensor, lanes: tl.tensor, betas: tl.tensor, thetas: tl.tensor,
    reset: tl.constexpr, later: tl.constexpr, strict: tl.constexpr, rest: tl.constexpr, carry: tl.constexpr,
    learn: tl.constexpr, has_ds: tl.constexpr, has_dm: tl.constexpr, has_du: tl.constexpr,
    curve: tl.constexpr, p: tl.constexpr, q: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Walk a block of lanes backward. `end` is where the last step begins, (steps - 1) lanes.

    With g' the surrogate at m_t - theta, ds and dm the gradients handed in, du that of the state u_t:

        now, none and the rest    Dm_t = ds g' + dm + du k_t        k = 1 | 1 - theta g' | 1 - s_t - m_t g'
        next                      Dm_t = ds g' + dm + du
        dx_t = gain Dm_t           (next, zero: times 1 - s_{t-1})
        du_{t-1} = beta Dm_t       (next: plus the way through s_{t-1}, whose surrogate is taken at u_{t-1} - theta)

    `carry` lets it through to step t - 1 (BPTT) or not (SLTT).
    """
    lane = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    live = lane < lanes
    first = tl.load(start + lane, live, 0.0)
    b = tl.load(beta + lane % betas, live, 0.0)
    th = tl.load(theta + lane % thetas, live, 1.0)
    nothing = tl.zeros_like(first)
    d = tl.load(du + lane, live, 0.0).to(first.dtype) if has_du else nothing
    sum_beta, lost_beta, sum_theta, lost_theta = nothing, nothing, nothing, nothing
    at = lane + end
    v = tl.load(m + at, live, 0.0)
    for _ in tl.range(0, steps, num_stages=_AHEAD):
        inner = at >= lanes  # there is a step before this one
        earlier = tl.load(m + at - lanes, live & inner, 0.0)
        u = tl.where(inner, earlier if later else _after(earlier, th, reset, strict), first)
        g = slope(v - th, curve, p, q)
        total = nothing
        way = nothing  # to theta
        if has_ds:
            total = tl.load(ds + at, live, 0.0).to(v.dtype) * g
            way = -total
        if has_dm:
            total += tl.load(dm + at, live, 0.0)
        if (not later) and reset == "subtract":
            total += d * (1 - th * g)
            way += d * (th * g - tl.where(fires(v, th, strict), 1.0, 0.0).to(v.dtype))
        elif (not later) and reset == "zero":
            total += d * (tl.where(fires(v, th, strict), 0.0, 1.0).to(v.dtype) - v * g)
            way += d * (v * g)
        else:
            total += d
        if not carry:
            d = nothing
        elif not later:
            d = b * total
        if later:
            spent = tl.where(fires(u, th, strict), 1.0, 0.0).to(v.dtype)
            if reset == "subtract":
                if carry:
                    before = th * slope(u - th, curve, p, q)
                    d = total * (b - before)
                    way += total * (before - spent)
            else:
                if carry:
                    i = tl.load(x + at, live, 0.0).to(v.dtype)
                    before = (b * u + ((1 - b) * i if rest else i)) * slope(u - th, curve, p, q)
                    d = total * (b * (1 - spent) - before)
                    way += total * before
                total = total * (1 - spent)
        tl.store(dx + at, ((1 - b) * total if rest else total).to(dx.dtype.element_ty), live)
        if learn:
            to_beta = total * (u - tl.load(x + at, live, 0.0).to(v.dtype) if rest else u)
            sum_beta, lost_beta = _plus(sum_beta, lost_beta, to_beta)
            sum_theta, lost_theta = _plus(sum_theta, lost_theta, way)
        v = earlier
        at -= lanes
    tl.store(dstart + lane, d, live)
    if learn:
        tl.store(dbeta + lane, sum_beta, live)
        tl.store(dtheta + lane, sum_theta, live)


def _layout(lanes: int, itemsize: int) -> tuple[tuple[int], dict[str, int]]:
    """Grid, lanes to a program and warps: one warp each unless lanes are many, so that few still fill the GPU.

    A thread of such a warp has one lane, or two of 2 bytes: 4 bytes are the least that can be fetched ahead.
    """
    block, warps = (256, 4) if lanes >= _MANY else (64 if itemsize == 2 else 32, 1)
    return (triton.cdiv(lanes, block),), {"block": block, "num_warps": warps}


def _kind(how: Firing) -> dict[str, Any]:
    """What of a neuron is a constant of its kernels: no reset has no phase."""
    return {
        "reset": how.reset,
        "later": how.reset != "none" and how.phase == "next",
        "strict": how.fires == ">",
        "rest": how.gain == "1-beta",
        "enable_fp_fusion": False,
    }


class _Lif(torch.autograd.Function):
    """The two kernels under autograd. beta and threshold come as () or (C,), the state in the shape of one step."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor | None, beta: Tensor, threshold: Tensor, how: Firing,
        membrane: bool, state_after: bool, learns: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        x, dtype, shape = x.contiguous(), raised(x.dtype), x.shape[1:]
        b, th = (value.detach().to(dtype).contiguous() for value in (beta, threshold))
        start = x.new_zeros(shape, dtype=dtype) if state is None else state.detach().to(dtype).contiguous()
        lanes = shape.numel()
        spikes, last = torch.empty_like(x), torch.empty_like(start)
        m = torch.empty_like(x, dtype=dtype) if membrane or learns else last
        grid, block = _layout(lanes, x.itemsize)
        with on_device_of(x):
            _forward[grid](
                x, start, b, th, spikes, m, last, x.shape[0], lanes, b.numel(), th.numel(),
                keep=membrane or learns, **_kind(how), **block,
            )  # fmt: skip
        if learns:
            learn = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
            read = (learn and how.gain == "1-beta") or (how.reset == "zero" and how.phase == "next")
            ctx.save_for_backward(x if read else None, m, start, b, th)
        ctx.how, ctx.dtypes = how, tuple(None if v is None else v.dtype for v in (x, state, beta, threshold))
        ctx.set_materialize_grads(False)
        return spikes, m if membrane else None, last if state_after else None

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, ds: Tensor | None, dm: Tensor | None, du: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, m, start, b, th = ctx.saved_tensors
        how: Firing = ctx.how
        learn = bool(ctx.needs_input_grad[2] or ctx.needs_input_grad[3])
        ds, dm, du = (None if d is None else d.contiguous() for d in (ds, dm, du))
        dx = torch.empty_like(m, dtype=ctx.dtypes[0])
        dstart = torch.empty_like(start)
        dbeta, dtheta = start.new_empty(2, *start.shape) if learn else (start, start)
        lanes = start.numel()
        grid, block = _layout(lanes, dx.itemsize)
        with on_device_of(m):
            _backward[grid](
                m if x is None else x, m, start, b, th,
                m if ds is None else ds, m if dm is None else dm, m if du is None else du,
                dx, dstart, dbeta, dtheta,
                m.shape[0], (m.shape[0] - 1) * lanes, lanes, b.numel(), th.numel(),
                carry=how.backward == "bptt", learn=learn,
                has_ds=ds is not None, has_dm=dm is not None, has_du=du is not None,
                **_kind(how), **curve_of(how), **block,
            )  # fmt: skip
        learned: list[Tensor | None] = [None, None]
        if learn:
            learned = [
                total.double().reshape(-1, value.numel()).sum(0).to(dtype).reshape(value.shape)
                for total, value, dtype in zip((dbeta, dtheta), (b, th), ctx.dtypes[2:], strict=True)
            ]
        dstate = None
        if ctx.needs_input_grad[1] and how.backward == "bptt":
            dstate = dstart.to(ctx.dtypes[1])
        return dx, dstate, *learned, None, None, None, None


def lif(
    x: Tensor,
    state: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    how: Firing,
    *,
    membrane: bool = True,
    state_after: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Walk a sequence of a leaky integrate-and-fire neuron: spikes, membranes before reset and last state if asked.

    x (T, ..., C), state (..., C) or None for zeros, beta and threshold () or (C,). Equations and gradients:
    `naive.lif_step`, which this equals bit for bit forward; gradients differ from the loop's by rounding. Spikes
    have x's dtype; membranes and state are float64 for a float64 x and float32 for every other. Gradients of beta and
    threshold are summed over T with compensation, over the batch in float64, in one order: they repeat exactly.

    Raises `InvalidInput` for an x that is empty or of another dtype than float16, bfloat16, float32 or float64, and
    for a state, beta or threshold of a wrong shape or on another device.
    """
    check_sequence("x", x)
    if state is not None:
        check_shape("state", state, (tuple(x.shape[1:]),), x)
    for name, value in (("beta", beta), ("threshold", threshold)):
        check_shape(name, value, ((), tuple(x.shape[-1:])), x)
    learns = torch.is_grad_enabled() and any(
        value is not None and value.requires_grad for value in (x, state, beta, threshold)
    )
    outputs: tuple[Tensor, Tensor | None, Tensor | None] = _Lif.apply(
        x, state, beta, threshold, how, membrane, state_after, learns
    )  # type: ignore[no-untyped-call]
    return outputs

"""The exact leaky integrate-and-fire neuron at the speed of memory: one kernel forward, one backward.

A reset makes the neuron sequential in time, not slow: lanes are independent, so a kernel that walks time with a
tile of lanes beside each other in vector registers reads each input once and writes each output once. Nothing
is approximated; `naive.lif_loop` is the meaning, rounding of the membrane and every spike included.

Memory traffic is the limit, so what can be worked out again is not stored. Forward keeps the state every few
steps only (`checkpoints`). Backward takes these segments last to first: it replays one from its checkpoint into
a buffer that stays in cache, then walks it backward with the equations in `_backward`. Per lane and step that
moves 8 bytes forward and 12 backward in float32, and the only new memory is the spikes and the gradient of x.

Reset, phase, surrogate and whether parameters learn are constants of a kernel, which is compiled on its first
use and cached on disk. Ties, gain and BPTT or SLTT are numbers it is handed and cost nothing.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from unscan.trainer.recurrence.lanes import (
    WIDE,
    fresh,
    from_tiles,
    padded,
    run_tiles,
    tile_width,
    to_tiles,
    unpadded,
)
from unscan.trainer.recurrence.naive import Firing, lif_loop
from unscan.trainer.surrogate import SURROGATES, digest, surrogate_named

Kernel = Callable[..., None]


def segment_steps(width: int) -> int:
    """Steps between checkpoints: a replayed segment of one tile stays in the second-level cache."""
    return 32 if width == WIDE else 128


@cache
def _forward(reset: str, phase: str, keep: bool, width: int) -> Kernel:
    """Build the forward kernel of one reset and phase; `keep` writes the membranes before reset to m."""
    subtract, zero_reset, later = reset == "subtract", reset == "zero", phase == "next"
    segment = segment_steps(width)

    def forward(x: Any, settings: Any, states: Any, s: Any, m: Any, first: Any, last: Any) -> None:
        steps, lanes = x.shape
        zero = x.dtype.type(0.0)
        one = x.dtype.type(1.0)
        for part in range(states.shape[0] - 1):
            begin = part * segment
            end = min(steps, begin + segment)
            for k in range(first, last):
                left = min(k * width, lanes - width)
                u = states[part + 1, k]
                u0 = states[part, k]
                b = settings[0, k]
                g = settings[1, k]
                th = settings[2, k]
                fi = settings[3, k]
                for i in range(width):
                    u[i] = u0[i]
                for t in range(begin, end):
                    xt = x[t, left : left + width]
                    st = s[t, left : left + width]
                    mt = m[t if keep else 0, left : left + width]
                    for i in range(width):
                        v = b[i] * u[i] + g[i] * xt[i]
                        if later and subtract:
                            v = v - (th[i] if u[i] >= fi[i] else zero)
                        if later and zero_reset:
                            v = zero if u[i] >= fi[i] else v
                        fired = v >= fi[i]
                        st[i] = one if fired else zero
                        if keep:
                            mt[i] = v
                        if subtract and not later:
                            v = v - (th[i] if fired else zero)
                        if zero_reset and not later:
                            v = zero if fired else v
                        u[i] = v

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward(reset: str, phase: str, surrogate: str, learn: bool, width: int) -> Kernel:
    """Build the backward kernel of one reset, phase and surrogate; `learn` adds the gradients of beta and theta.

    With g' the surrogate at m_t - theta, ds and dm the gradients handed in, du that of the state u_t:

        now, none and the rest    Dm_t = ds g' + dm + du k_t        k = 1 | 1 - theta g' | 1 - s_t - m_t g'
        next                      Dm_t = ds g' + dm + du
        dx_t = gain Dm_t           (next, zero: times 1 - s_{t-1})
        du_{t-1} = beta Dm_t       (next: plus the way through s_{t-1}, whose surrogate is taken at u_{t-1} - theta)

    `carry` multiplies whatever goes to step t - 1: 1 is BPTT, 0 is SLTT.
    """
    subtract, zero_reset, later = reset == "subtract", reset == "zero", phase == "next"
    segment = segment_steps(width)
    curve = SURROGATES[surrogate].curve
    formula = digest(SURROGATES[surrogate])
    needs_before = learn or later

    def backward(
        x: Any, settings: Any, states: Any,
        ds: Any, has_ds: Any, dm: Any, has_dm: Any, du: Any, dx: Any, dbeta: Any, dtheta: Any,
        p: Any, q: Any, carry: Any, centre: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = formula  # part of the key in numba's cache: another formula is another kernel
        steps, lanes = x.shape
        zero = x.dtype.type(0.0)
        one = x.dtype.type(1.0)
        u = np.empty(width, x.dtype)
        part_beta = np.empty(width, x.dtype)
        part_theta = np.empty(width, x.dtype)
        replayed = np.empty((segment, width), x.dtype)  # m_t; phase next, zero: m_t before its reset
        before = np.empty((segment if needs_before else 1, width), x.dtype)  # u_{t-1}
        parts = states.shape[0] - 1
        for back in range(parts):
            part = parts - 1 - back
            begin = part * segment
            end = min(steps, begin + segment)
            for k in range(first, last):
                left = min(k * width, lanes - width)
                u0 = states[part, k]
                b = settings[0, k]
                g = settings[1, k]
                th = settings[2, k]
                fi = settings[3, k]
                d = du[k]
                for i in range(width):
                    u[i] = u0[i]
                    part_beta[i] = zero
                    part_theta[i] = zero
                for t in range(begin, end):
                    xt = x[t, left : left + width]
                    mt = replayed[t - begin]
                    bt = before[(t - begin) if needs_before else 0]
                    for i in range(width):
                        v = b[i] * u[i] + g[i] * xt[i]
                        if needs_before:
                            bt[i] = u[i]
                        if later and subtract:
                            v = v - (th[i] if u[i] >= fi[i] else zero)
                        mt[i] = v
                        if later and zero_reset:
                            v = zero if u[i] >= fi[i] else v
                        if subtract and not later:
                            v = v - (th[i] if v >= fi[i] else zero)
                        if zero_reset and not later:
                            v = zero if v >= fi[i] else v
                        u[i] = v
                for j in range(end - begin):
                    t = end - 1 - j
                    xt = x[t, left : left + width]
                    dst = ds[t * has_ds, left : left + width]
                    dmt = dm[t * has_dm, left : left + width]
                    dxt = dx[t, left : left + width]
                    mt = replayed[t - begin]
                    bt = before[(t - begin) if needs_before else 0]
                    for i in range(width):
                        v = mt[i]
                        alive = one
                        if later and zero_reset:
                            alive = zero if bt[i] >= fi[i] else one
                            v = v * alive
                        slope = curve(v - th[i], p, q)
                        quiet = zero if v >= fi[i] else one
                        own = dst[i] * slope
                        theta_way = -own
                        total = own + dmt[i]
                        if subtract and not later:
                            total = total + d[i] * (one - th[i] * slope)
                            theta_way = theta_way + d[i] * (th[i] * slope - (one - quiet))
                        elif zero_reset and not later:
                            total = total + d[i] * (quiet - v * slope)
                            theta_way = theta_way + d[i] * (v * slope)
                        else:
                            total = total + d[i]
                        on = carry * total
                        if later:
                            earlier = curve(bt[i] - th[i], p, q)
                            if subtract:
                                d[i] = on * (b[i] - th[i] * earlier)
                                spent = zero if bt[i] < fi[i] else one
                                theta_way = theta_way + on * (th[i] * earlier - spent)
                            else:
                                d[i] = on * (b[i] * alive - mt[i] * earlier)
                                theta_way = theta_way + on * (mt[i] * earlier)
                        else:
                            d[i] = b[i] * on
                        total = total * alive
                        dxt[i] = g[i] * total
                        if learn:
                            part_beta[i] += total * (bt[i] - centre * xt[i])
                            part_theta[i] += theta_way
                if learn:
                    for i in range(width):
                        dbeta[k, i] += part_beta[i]
                        dtheta[k, i] += part_theta[i]

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


def _settings(beta: Tensor, threshold: Tensor, how: Firing) -> Tensor:
    """The numbers of each channel, (4, C): decay, input gain, threshold, and the lowest membrane that fires."""
    gain = torch.ones_like(beta) if how.gain == "1" else 1 - beta
    lowest = threshold if how.fires == ">=" else torch.nextafter(threshold, threshold.new_tensor(torch.inf))
    return torch.stack((beta, gain, threshold, lowest))


def _reset(how: Firing) -> tuple[str, str]:
    """Reset and phase as the kernels know them: no reset has no phase."""
    return how.reset, "now" if how.reset == "none" else how.phase


class _Lif(torch.autograd.Function):
    """The two kernels under autograd. beta and threshold come as (C,), the state in the shape of one step."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor, beta: Tensor, threshold: Tensor, how: Firing, membrane: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        steps, lanes = x.shape[0], x.shape[1:].numel()
        width = tile_width(lanes)
        rows = padded(x)
        settings = to_tiles(_settings(beta, threshold, how), lanes, width)
        tiles = settings.shape[1]
        parts = -(-steps // segment_steps(width))
        states = x.new_empty(parts + 1, tiles, width)
        states[0] = to_tiles(state.reshape(-1), lanes, width)
        spikes = fresh(steps, rows.shape[1], x.dtype)
        kept = fresh(steps if membrane else 1, rows.shape[1], x.dtype)
        kernel = _forward(*_reset(how), membrane, width)
        run_tiles(kernel, tiles, rows.numel(), rows.detach(), settings, states, spikes, kept)
        ctx.save_for_backward(x, states, settings)
        ctx.how, ctx.shape, ctx.channels = how, x.shape, beta.numel()
        ctx.set_materialize_grads(False)
        last = from_tiles(states[-1], lanes).reshape(state.shape).clone()
        return unpadded(spikes, x.shape), unpadded(kept, x.shape) if membrane else None, last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, ds: Tensor | None, dm: Tensor | None, du: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, states, settings = ctx.saved_tensors
        rows = padded(x)
        how: Firing = ctx.how
        steps, lanes = ctx.shape[0], ctx.shape[1:].numel()
        _, tiles, width = settings.shape
        learn = bool(ctx.needs_input_grad[2] or ctx.needs_input_grad[3])
        nothing = rows.new_zeros(1, rows.shape[1])
        back = rows.new_zeros(tiles, width) if du is None else to_tiles(du.reshape(-1), lanes, width)
        dx = fresh(steps, rows.shape[1], rows.dtype)
        learned = torch.zeros(2, *((tiles, width) if learn else (1, 1)), dtype=torch.float64)
        found, settled = surrogate_named(how.surrogate, how.width)
        number = np.float32 if rows.dtype == torch.float32 else np.float64
        numbers = [
            number(n) for n in (*found.coefficients(settled), how.backward == "bptt", how.gain == "1-beta")
        ]
        run_tiles(
            _backward(*_reset(how), how.surrogate, learn, width), tiles, rows.numel(),
            rows.detach(), settings, states,
            nothing if ds is None else padded(ds), int(ds is not None),
            nothing if dm is None else padded(dm), int(dm is not None),
            back, dx, learned[0], learned[1], *numbers,
        )  # fmt: skip
        dbeta = dtheta = None
        if learn:
            dbeta, dtheta = (
                from_tiles(total, lanes).reshape(-1, ctx.channels).sum(0).to(rows.dtype) for total in learned
            )
        dstate = from_tiles(back, lanes).reshape(ctx.shape[1:]) if how.backward == "bptt" else None
        return unpadded(dx, ctx.shape), dstate, dbeta, dtheta, None, None


def runs_fused(x: Tensor) -> bool:
    """Tell whether the kernels can take a tensor: float32 or float64, in the machine's own memory."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def lif(
    x: Tensor, state: Tensor, beta: Tensor, threshold: Tensor, how: Firing, *, membrane: bool = True
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Walk a sequence of a leaky integrate-and-fire neuron: spikes, membranes before reset if asked, last state.

    x (T, ..., C), state (..., C), beta and threshold () or (C,). Equations and gradients: `naive.lif_step`,
    which this equals spike for spike; gradients differ from the loop's by rounding. Gradients of beta and
    threshold are summed within a segment in x's dtype and over segments in float64. What the kernels cannot
    take (see `runs_fused`) goes through the loop.
    """
    if not runs_fused(x):
        return lif_loop(x, state, beta, threshold, how)
    channels = x.shape[-1]
    outputs: tuple[Tensor, Tensor | None, Tensor] = _Lif.apply(
        x, state, beta.expand(channels), threshold.expand(channels), how, membrane
    )  # type: ignore[no-untyped-call]
    return outputs

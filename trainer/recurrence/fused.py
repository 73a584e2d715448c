"""The exact leaky integrate-and-fire neuron at the speed of memory: one kernel forward, one backward.

A reset makes the neuron sequential in time, not slow: lanes are independent, so a kernel that walks time with a
tile of lanes beside each other in vector registers reads each input once and writes each output once. Nothing
is approximated; `naive.lif_loop` is the meaning, rounding of the membrane and every spike included.

Memory traffic is the limit, so what can be worked out again is not stored. Forward keeps the state every few
steps only (`segment_steps`). Backward takes these segments last to first, tile by tile: it replays one from its
checkpoint into a buffer that stays in cache, then walks it backward with the equations in `_backward`. Within a
segment the state is in registers (see `vector`). Per lane and step that moves 8 bytes forward and 12 backward in
float32; the only new memory is the spikes, the gradient of x and the checkpoints, a quarter of x at most.

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

from unscan.trainer.recurrence.gpu import runs_on_gpu
from unscan.trainer.recurrence.lanes import (
    fresh,
    from_tiles,
    padded,
    run_tiles,
    tile_count,
    to_tiles,
    unpadded,
)
from unscan.trainer.recurrence.naive import Firing, lif_loop
from unscan.trainer.recurrence.vector import FINGERPRINT, LANES, load, select, spread, store
from unscan.trainer.surrogate import SURROGATES, digest, surrogate_named

Kernel = Callable[..., None]


def segment_steps(lanes: int) -> int:
    """Steps between checkpoints, for which one tile stays in registers.

    Few lanes: long, and what a segment reads and writes stays in the first-level cache. Many: short, because the
    processor fetches ahead in a few rows of memory at once, not in many; a state every 4 steps is what it costs.
    """
    return 32 if lanes < 1024 else 4


@cache
def _forward(reset: str, phase: str, keep: bool) -> Kernel:
    """Build the forward kernel of one reset and phase; `keep` writes the membranes before reset to m."""
    subtract, zero_reset, later = reset == "subtract", reset == "zero", phase == "next"
    arithmetic = FINGERPRINT

    def forward(
        x: Any, settings: Any, segment: Any, states: Any, s: Any, m: Any, first: Any, last: Any
    ) -> None:
        _ = arithmetic
        steps, lanes = x.shape
        zero = spread(x.dtype.type(0.0))
        one = spread(x.dtype.type(1.0))
        for part in range(states.shape[0] - 1):
            begin = part * segment
            end = min(steps, begin + segment)
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                row = k % (settings.shape[0] // 4) * 4
                b = load(settings, row, 0)
                g = load(settings, row + 1, 0)
                th = load(settings, row + 2, 0)
                fi = load(settings, row + 3, 0)
                u = load(states, part, k * LANES)
                for t in range(begin, end):
                    v = b * u + g * load(x, t, left)
                    if later and subtract:
                        v = v - select(u >= fi, th, zero)
                    if later and zero_reset:
                        v = select(u >= fi, zero, v)
                    fired = v >= fi
                    store(select(fired, one, zero), s, t, left)
                    if keep:
                        store(v, m, t, left)
                    if subtract and not later:
                        v = v - select(fired, th, zero)
                    if zero_reset and not later:
                        v = select(fired, zero, v)
                    u = v
                store(u, states, part + 1, k * LANES)

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward(reset: str, phase: str, surrogate: str, learn: bool) -> Kernel:
    """Build the backward kernel of one reset, phase and surrogate; `learn` adds the gradients of beta and theta.

    With g' the surrogate at m_t - theta, ds and dm the gradients handed in, du that of the state u_t:

        now, none and the rest    Dm_t = ds g' + dm + du k_t        k = 1 | 1 - theta g' | 1 - s_t - m_t g'
        next                      Dm_t = ds g' + dm + du
        dx_t = gain Dm_t           (next, zero: times 1 - s_{t-1})
        du_{t-1} = beta Dm_t       (next: plus the way through s_{t-1}, whose surrogate is taken at u_{t-1} - theta)

    `carry` multiplies whatever goes to step t - 1: 1 is BPTT, 0 is SLTT.
    """
    subtract, zero_reset, later = reset == "subtract", reset == "zero", phase == "next"
    curve = SURROGATES[surrogate].curve
    arithmetic = digest(SURROGATES[surrogate]) + FINGERPRINT
    needs_before = learn or later

    def backward(
        x: Any, settings: Any, segment: Any, states: Any,
        ds: Any, has_ds: Any, dm: Any, has_dm: Any, du: Any, dx: Any, dbeta: Any, dtheta: Any,
        p_: Any, q_: Any, carry_: Any, centre_: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic  # part of the key in numba's cache: another formula is another kernel
        steps, lanes = x.shape
        zero = spread(x.dtype.type(0.0))
        one = spread(x.dtype.type(1.0))
        p, q, carry, centre = spread(p_), spread(q_), spread(carry_), spread(centre_)
        sums = np.empty((2, LANES), x.dtype)
        replayed = np.empty((segment, LANES), x.dtype)  # m_t; phase next, zero: m_t before its reset
        before = np.empty((segment if needs_before else 1, LANES), x.dtype)  # u_{t-1}
        parts = states.shape[0] - 1
        for back in range(parts):
            part = parts - 1 - back
            begin = part * segment
            end = min(steps, begin + segment)
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                row = k % (settings.shape[0] // 4) * 4
                b = load(settings, row, 0)
                g = load(settings, row + 1, 0)
                th = load(settings, row + 2, 0)
                fi = load(settings, row + 3, 0)
                u = load(states, part, k * LANES)
                for t in range(begin, end):
                    v = b * u + g * load(x, t, left)
                    if needs_before:
                        store(u, before, t - begin, 0)
                    if later and subtract:
                        v = v - select(u >= fi, th, zero)
                    store(v, replayed, t - begin, 0)
                    if later and zero_reset:
                        v = select(u >= fi, zero, v)
                    if subtract and not later:
                        v = v - select(v >= fi, th, zero)
                    if zero_reset and not later:
                        v = select(v >= fi, zero, v)
                    u = v
                d = load(du, k, 0)
                kept = carry * b
                part_beta = zero
                part_theta = zero
                for j in range(end - begin):
                    t = end - 1 - j
                    m = load(replayed, t - begin, 0)
                    u = load(before, t - begin, 0) if needs_before else zero
                    v = m
                    alive = one
                    if later and zero_reset:
                        alive = select(u >= fi, zero, one)
                        v = v * alive
                    slope = curve(v - th, p, q)
                    quiet = select(v >= fi, zero, one)
                    own = load(ds, t * has_ds, left) * slope
                    theta_way = -own
                    total = own + load(dm, t * has_dm, left)
                    if subtract and not later:
                        total = total + d * (one - th * slope)
                        theta_way = theta_way + d * (th * slope - (one - quiet))
                    elif zero_reset and not later:
                        total = total + d * (quiet - v * slope)
                        theta_way = theta_way + d * (v * slope)
                    else:
                        total = total + d
                    if later:
                        on = carry * total
                        earlier = curve(u - th, p, q)
                        if subtract:
                            d = on * (b - th * earlier)
                            spent = select(u >= fi, one, zero)
                            theta_way = theta_way + on * (th * earlier - spent)
                        else:
                            d = on * (b * alive - m * earlier)
                            theta_way = theta_way + on * (m * earlier)
                    else:
                        d = kept * total
                    total = total * alive
                    store(g * total, dx, t, left)
                    if learn:
                        part_beta = part_beta + total * (u - centre * load(x, t, left))
                        part_theta = part_theta + theta_way
                store(d, du, k, 0)
                if learn:
                    store(part_beta, sums, 0, 0)
                    store(part_theta, sums, 1, 0)
                    for i in range(LANES):
                        dbeta[k, i] += sums[0, i]
                        dtheta[k, i] += sums[1, i]

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


@cache
def _numbers(how: Firing, dtype: torch.dtype) -> tuple[Any, ...]:
    """What the backward kernel is told of a neuron: p and q of its surrogate, carry, centre."""
    number = np.float32 if dtype == torch.float32 else np.float64
    found, settled = surrogate_named(how.surrogate, how.width)
    chosen = (*found.coefficients(settled), how.backward == "bptt", how.gain == "1-beta")
    return tuple(number(n) for n in chosen)


def _settings(beta: Tensor, threshold: Tensor, how: Firing, lanes: int) -> Any:
    """Four rows for each tile: decay, input gain, threshold, and the lowest membrane that fires.

    They repeat, tile after tile, from the first again: once for all where beta and threshold are one number each.
    """
    b, th = beta.detach().numpy(), threshold.detach().numpy()
    gain = np.ones_like(b) if how.gain == "1" else np.subtract(1, b, dtype=b.dtype)
    lowest = th if how.fires == ">=" else np.nextafter(th, np.inf, dtype=th.dtype)
    if b.size == th.size == 1:
        rows = np.empty((4, LANES), b.dtype)
        for row, value in enumerate((b, gain, th, lowest)):
            rows[row] = value
        return rows
    channels = max(b.size, th.size)
    period = channels if channels % LANES == 0 else lanes
    tiles = to_tiles(torch.from_numpy(np.stack(np.broadcast_arrays(b, gain, th, lowest))), period)
    return tiles.transpose(0, 1).reshape(-1, LANES).numpy()


def _reset(how: Firing) -> tuple[str, str]:
    """Reset and phase as the kernels know them: no reset has no phase."""
    return how.reset, "now" if how.reset == "none" else how.phase


class _Lif(torch.autograd.Function):
    """The two kernels under autograd. beta and threshold come as () or (C,), the state in the shape of one step."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor | None, beta: Tensor, threshold: Tensor, how: Firing,
        membrane: bool, state_after: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        steps, lanes = x.shape[0], x.shape[1:].numel()
        rows = padded(x)
        tiles, segment = tile_count(lanes), segment_steps(lanes)
        settings = _settings(beta, threshold, how, lanes)
        states = fresh(-(-steps // segment) + 1, tiles * LANES, x.dtype)
        states[0] = 0 if state is None else to_tiles(state.reshape(-1), lanes).reshape(-1)
        spikes = fresh(steps, rows.shape[1], x.dtype)
        kept = fresh(steps if membrane else 1, rows.shape[1], x.dtype)
        kernel = _forward(*_reset(how), membrane)
        run_tiles(kernel, tiles, rows.numel(), rows, settings, segment, states, spikes, kept)
        ctx.save_for_backward(x, states)
        ctx.settings, ctx.how = settings, how
        ctx.shapes = beta.shape, threshold.shape
        ctx.set_materialize_grads(False)
        last = None
        if state_after:
            last = from_tiles(states[-1].view(tiles, LANES), lanes).reshape(x.shape[1:]).clone()
        return unpadded(spikes, x.shape), unpadded(kept, x.shape) if membrane else None, last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, ds: Tensor | None, dm: Tensor | None, du: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, states = ctx.saved_tensors
        how: Firing = ctx.how
        rows = padded(x)
        steps, lanes = x.shape[0], x.shape[1:].numel()
        tiles = tile_count(lanes)
        learn = bool(ctx.needs_input_grad[2] or ctx.needs_input_grad[3])
        nothing = rows.new_zeros(1, rows.shape[1])
        back = rows.new_zeros(tiles, LANES) if du is None else to_tiles(du.reshape(-1), lanes).clone()
        dx = fresh(steps, rows.shape[1], rows.dtype)
        learned = torch.zeros(2, *((tiles, LANES) if learn else (1, 1)), dtype=torch.float64)
        run_tiles(
            _backward(*_reset(how), how.surrogate, learn), tiles, rows.numel(),
            rows, ctx.settings, segment_steps(lanes), states,
            nothing if ds is None else padded(ds), int(ds is not None),
            nothing if dm is None else padded(dm), int(dm is not None),
            back, dx, learned[0], learned[1], *_numbers(how, x.dtype),
        )  # fmt: skip
        dbeta = dtheta = None
        if learn:
            dbeta, dtheta = (
                from_tiles(total, lanes).reshape(-1, shape.numel()).sum(0).to(x.dtype).reshape(shape)
                for total, shape in zip(learned, ctx.shapes, strict=True)
            )
        dstate = None
        if ctx.needs_input_grad[1] and how.backward == "bptt":
            dstate = from_tiles(back, lanes).reshape(x.shape[1:])
        return unpadded(dx, x.shape), dstate, dbeta, dtheta, None, None, None


def runs_fused(x: Tensor) -> bool:
    """Tell whether the kernels can take a tensor: float32 or float64, in the machine's own memory."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


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
    `naive.lif_step`, which this equals spike for spike; gradients differ from the loop's by rounding. Gradients
    of beta and threshold are summed within a segment in x's dtype and over segments in float64. On a GPU the kernels of
    `recurrence.gpu` run where Triton is installed; what no kernel takes (see `runs_fused`) goes through the loop.
    """
    if runs_on_gpu(x):
        from unscan.trainer.recurrence.gpu.lif import lif as lif_on_gpu

        return lif_on_gpu(x, state, beta, threshold, how, membrane=membrane, state_after=state_after)
    if not runs_fused(x):
        return lif_loop(x, torch.zeros_like(x[0]) if state is None else state, beta, threshold, how)
    outputs: tuple[Tensor, Tensor | None, Tensor | None] = _Lif.apply(
        x, state, beta, threshold, how, membrane, state_after
    )  # type: ignore[no-untyped-call]
    return outputs

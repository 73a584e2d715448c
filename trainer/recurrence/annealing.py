"""A reset in parallel: the spikes of one round make the resets of the next, over the whole sequence at once.

Round 0 is the neuron without a reset, u0 and s0. Round k takes from u0 the reset r_k that the spikes of round k - 1
would have caused, times a strength lambda that training lets rise:

    r_k(t+1) = beta (r_k(t) + theta s_{k-1}(t))        m_k = u0 - lambda r_k        s_k = H(m_k - theta)

r is linear in those spikes, so a round is a scan; K rounds walked side by side are K + 1 step recurrences
(`annealed_step`). With lambda = 1 spikes that a round leaves as they were are those of the exact neuron (reset
"subtract", phase "now"). The first k + 1 steps are final after round k, so T rounds are always enough. Before that
rounds may swing back and forth: that they have converged is looked up after each, never assumed.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from unscan.trainer.recurrence.fused import lif, runs_fused
from unscan.trainer.recurrence.lanes import (
    fresh,
    from_tiles,
    padded,
    run_tiles,
    tile_count,
    to_tiles,
    unpadded,
)
from unscan.trainer.recurrence.naive import Firing, drive, li_step
from unscan.trainer.recurrence.vector import FINGERPRINT, LANES, load, select, spread, store
from unscan.trainer.surrogate import SURROGATES, digest, surrogate_named

_BLOCK = 32  # steps that one tile advances before the next tile's turn


class Annealed(NamedTuple):
    """What a sequence came to.

    spikes and membrane (T, ..., C) are those of the last round; state continues the sequence. rounds_used is how many
    were run, and converged whether the last of them left every spike as it was.
    """

    spikes: Tensor
    membrane: Tensor
    state: Tensor
    rounds_used: int
    converged: bool


def annealed_step(
    x: Tensor, state: Tensor, beta: Tensor, threshold: Tensor, strength: Tensor, how: Firing
) -> tuple[Tensor, Tensor, Tensor]:
    """Advance K rounds by one step: spikes and membrane of the last round, and the state.

    x (..., C); state (K + 1, ..., C) is u0 of the step before, then r_1 to r_K as they stand at this step.

        u0 = beta u0 + d        s_0 = H(u0 - theta)
        m_k = u0 - lambda r_k   s_k = H(m_k - theta)        r_k = beta (r_k + theta s_{k-1})        k = 1 to K

    with d = x, or (1 - beta) x where gain is "1-beta". Of `how`, reset and phase are not looked at.
    """
    u = li_step(drive(x, beta, how.gain), state[0], beta)
    s, m = how.fire(u, threshold), u
    rows = [u]
    for r in state[1:]:
        rows.append(beta * (r + threshold * s))
        m = u - strength * r
        s = how.fire(m, threshold)
    return s, m, torch.stack(rows)


def converged_step(
    x: Tensor, state: Tensor, beta: Tensor, threshold: Tensor, strength: Tensor, how: Firing
) -> tuple[Tensor, Tensor, Tensor]:
    """Advance by one step what the rounds converge to, as in `annealed_step` with state (2, ..., C), u0 and r.

    u0 = beta u0 + d        m = u0 - lambda r        s = H(m - theta)        r = beta (r + theta s)
    """
    u = li_step(drive(x, beta, how.gain), state[0], beta)
    m = u - strength * state[1]
    s = how.fire(m, threshold)
    return s, m, torch.stack((u, beta * (state[1] + threshold * s)))


def annealed_loop(
    x: Tensor, state: Tensor, beta: Tensor, threshold: Tensor, strength: Tensor, how: Firing
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk a sequence with `annealed_step`: x (T, ..., C), state (K + 1, ..., C) to spikes, membranes, last state."""
    spikes, membranes = [], []
    for x_t in x.unbind(0):
        s, m, state = annealed_step(x_t, state, beta, threshold, strength, how)
        spikes.append(s)
        membranes.append(m)
    return torch.stack(spikes), torch.stack(membranes), state


@cache
def _forward(keep: bool) -> Callable[..., None]:
    """Build the kernel of one round; `state` holds r at the first step and ends as r after the last."""
    arithmetic = FINGERPRINT

    def forward(
        u: Any,
        before: Any,
        settings: Any,
        state: Any,
        s: Any,
        m: Any,
        r: Any,
        changed: Any,
        first: Any,
        last: Any,
    ) -> None:
        _ = arithmetic
        steps, lanes = u.shape
        zero = spread(u.dtype.type(0.0))
        one = spread(u.dtype.type(1.0))
        differing = np.empty((1, LANES), u.dtype)
        for begin in range(0, steps, _BLOCK):
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                b = load(settings, 4 * k, 0)
                th = load(settings, 4 * k + 1, 0)
                fi = load(settings, 4 * k + 2, 0)
                la = load(settings, 4 * k + 3, 0)
                now = load(state, k, 0)
                apart = zero
                for t in range(begin, min(steps, begin + _BLOCK)):
                    v = load(u, t, left) - la * now
                    spike = select(v >= fi, one, zero)
                    earlier = load(before, t, left)
                    store(v, m, t, left)
                    store(spike, s, t, left)
                    if keep:
                        store(now, r, t, left)
                    apart = apart + abs(spike - earlier)
                    now = b * (now + th * earlier)
                store(now, state, k, 0)
                store(apart, differing, 0, 0)
                for i in range(LANES):
                    changed[k] |= differing[0, i] != 0

    kernel: Callable[..., None] = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward(surrogate: str, learn: bool) -> Callable[..., None]:
    """Build the backward kernel of one round; `learn` adds the gradients of beta, theta and lambda.

    With d the gradient of r(t+1), from beyond, and g' the surrogate at m_t - theta:

        Dm = ds g' + dm        du0 = Dm        ds_{k-1}(t) = beta theta d        dr(t) = beta d - lambda Dm
        dbeta = sum d (r + theta s_{k-1})      dtheta = sum beta d s_{k-1} - ds g'      dlambda = -sum Dm r
    """
    curve = SURROGATES[surrogate].curve
    arithmetic = digest(SURROGATES[surrogate]) + FINGERPRINT

    def backward(
        m: Any, before: Any, r: Any, settings: Any, ds: Any, has_ds: Any, dm: Any, has_dm: Any,
        back: Any, du: Any, dbefore: Any, sums: Any, p_: Any, q_: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic  # part of the key in numba's cache: another formula is another kernel
        steps, lanes = m.shape
        zero = spread(m.dtype.type(0.0))
        p, q = spread(p_), spread(q_)
        part = np.empty((3, LANES), m.dtype)
        for beyond in range(steps, 0, -_BLOCK):
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                b = load(settings, 4 * k, 0)
                th = load(settings, 4 * k + 1, 0)
                la = load(settings, 4 * k + 3, 0)
                d = load(back, k, 0)
                of_beta, of_theta, of_strength = zero, zero, zero
                for j in range(min(beyond, _BLOCK)):
                    t = beyond - 1 - j
                    own = load(ds, t * has_ds, left) * curve(load(m, t, left) - th, p, q)
                    total = own + load(dm, t * has_dm, left)
                    on = b * d
                    store(total, du, t, left)
                    store(th * on, dbefore, t, left)
                    if learn:
                        spike = load(before, t, left)
                        removed = load(r, t, left)
                        of_beta = of_beta + d * (removed + th * spike)
                        of_theta = of_theta + on * spike - own
                        of_strength = of_strength - total * removed
                    d = on - la * total
                store(d, back, k, 0)
                if learn:
                    store(of_beta, part, 0, 0)
                    store(of_theta, part, 1, 0)
                    store(of_strength, part, 2, 0)
                    for which in range(3):
                        for i in range(LANES):
                            sums[which, k, i] += part[which, i]

    kernel: Callable[..., None] = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


def _settings(numbers: tuple[Tensor, Tensor, Tensor], fires: str, channels: int, lanes: int) -> Any:
    """Beta, threshold, lowest membrane that fires, and strength of every lane, as four rows for each tile."""
    beta, threshold, strength = (value.detach().expand(channels) for value in numbers)
    lowest = threshold if fires == ">=" else torch.nextafter(threshold, threshold.new_tensor(torch.inf))
    tiles = to_tiles(torch.stack((beta, threshold, lowest, strength)), lanes)
    return tiles.transpose(0, 1).reshape(-1, LANES).contiguous().numpy()


class _Round(torch.autograd.Function):
    """The two kernels of one round under autograd. beta, threshold and strength come as () or (C,)."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, before: Tensor, start: Tensor, beta: Tensor, threshold: Tensor, strength: Tensor,
        how: Firing,
    ) -> tuple[Tensor, Tensor, Tensor, bool]:  # fmt: skip
        steps, lanes = u.shape[0], start.numel()
        tiles, rows = tile_count(lanes), padded(u)
        ctx.learn = any(ctx.needs_input_grad[3:6])
        ctx.settings = _settings((beta, threshold, strength), how.fires, u.shape[-1], lanes)
        ctx.how, ctx.shapes = how, (beta.shape, threshold.shape, strength.shape)
        state = to_tiles(start.reshape(-1), lanes).clone()
        spikes, membrane = fresh(steps, rows.shape[1], u.dtype), fresh(steps, rows.shape[1], u.dtype)
        removed = fresh(steps if ctx.learn else 1, rows.shape[1], u.dtype)
        changed = np.zeros(tiles, np.bool_)
        run_tiles(
            _forward(ctx.learn), tiles, rows.numel(), rows, padded(before), ctx.settings, state, spikes, membrane,
            removed, changed,
        )  # fmt: skip
        answer = unpadded(spikes, u.shape), unpadded(membrane, u.shape)
        ctx.save_for_backward(answer[1], *((before, removed) if ctx.learn else ()))
        ctx.set_materialize_grads(False)
        return *answer, from_tiles(state, lanes).reshape(start.shape).clone(), bool(changed.any())

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, ds: Tensor | None, dm: Tensor | None, dr: Tensor | None, _changed: None
    ) -> tuple[Tensor | None, ...]:
        membrane, *kept = ctx.saved_tensors
        how: Firing = ctx.how
        shape, lanes = membrane.shape, membrane.shape[1:].numel()
        tiles, rows = tile_count(lanes), padded(membrane)
        nothing = rows.new_zeros(1, rows.shape[1])
        before, removed = (padded(kept[0]), kept[1]) if ctx.learn else (nothing, nothing)
        back = rows.new_zeros(tiles, LANES) if dr is None else to_tiles(dr.reshape(-1), lanes).clone()
        du, dbefore = fresh(len(rows), rows.shape[1], rows.dtype), fresh(len(rows), rows.shape[1], rows.dtype)
        sums = torch.zeros(3, *((tiles, LANES) if ctx.learn else (1, 1)), dtype=torch.float64)
        number = np.float32 if rows.dtype == torch.float32 else np.float64
        found, settled = surrogate_named(how.surrogate, how.width)
        run_tiles(
            _backward(how.surrogate, ctx.learn), tiles, rows.numel(), rows, before, removed, ctx.settings,
            nothing if ds is None else padded(ds), int(ds is not None),
            nothing if dm is None else padded(dm), int(dm is not None),
            back, du, dbefore, sums, *(number(c) for c in found.coefficients(settled)),
        )  # fmt: skip
        learned: list[Tensor | None] = [None] * 3
        if ctx.learn:
            learned = [
                from_tiles(total, lanes).reshape(-1, of.numel()).sum(0).to(rows.dtype).reshape(of)
                for total, of in zip(sums, ctx.shapes, strict=True)
            ]
        dstart = from_tiles(back, lanes).reshape(shape[1:])
        return unpadded(du, shape), unpadded(dbefore, shape), dstart, *learned, None


def _round_loop(
    u: Tensor, before: Tensor, r: Tensor, beta: Tensor, threshold: Tensor, strength: Tensor, how: Firing
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Run one round in plain torch, for what the kernels cannot take."""
    removed = []
    for spike in before.unbind(0):
        removed.append(r)
        r = beta * (r + threshold * spike)
    m = u - strength * torch.stack(removed)
    s = how.fire(m, threshold)
    return s, m, r, not torch.equal(s, before)


def annealed(
    x: Tensor,
    state: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    strength: Tensor,
    rounds: int | None,
    how: Firing,
) -> Annealed:
    """Run a sequence in rounds of correction, each over all steps at once.

    x (T, ..., C); beta, threshold and strength () or (C,). rounds: K, the most there are, or None for as many as it
    takes, T at most. state: (K + 1, ..., C), or (2, ..., C) where rounds is None, or None for zeros.

    Rounds end early when one leaves every spike as it was and those to come start from the same reset: they would
    compute the same again, so spikes, membranes and state equal those of `annealed_loop` with all K rounds (where
    rounds is None: of `converged_step`). The gradient is that of the rounds that were run, through every
    one's surrogate; it differs from the loop's by rounding.
    """
    if state is None:
        state = x.new_zeros(2 if rounds is None else rounds + 1, *x.shape[1:])
    starts = state[1:].unbind(0)
    spikes, u, last = lif(x, state[0], beta, threshold, replace(how, reset="none", phase="now"))
    assert u is not None
    assert last is not None
    one_round: Any = _Round.apply if runs_fused(x) else _round_loop
    most = len(x) if rounds is None else rounds
    ends, membrane, changed, used = [], u, True, 0
    for used in range(1, most + 1):
        start = starts[min(used, len(starts)) - 1]
        spikes, membrane, end, changed = one_round(u, spikes, start, beta, threshold, strength, how)
        ends.append(end)
        if not changed and all(torch.equal(start, later) for later in starts[used:]):
            break
    ends = ends[-1:] if rounds is None else ends + ends[-1:] * (rounds - used)
    return Annealed(spikes, membrane, torch.stack((last, *ends)), used, not changed)

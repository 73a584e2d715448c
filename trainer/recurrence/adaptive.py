"""The leaky neuron whose threshold rises with each of its own spikes: the step, the loop, and the fused kernels.

The threshold depends on the spikes before, so the neuron is sequential in time whatever its reset; lanes are
independent, so the kernels of `fused` fit with a second state, and so do its checkpoints: forward keeps both
states at the border of each segment, backward replays a segment from there.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence.fused import runs_fused, segment_steps
from unscan.trainer.recurrence.lanes import (
    fresh,
    from_tiles,
    padded,
    run_tiles,
    tile_count,
    to_tiles,
    unpadded,
)
from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.recurrence.vector import FINGERPRINT, LANES, load, select, spread, store
from unscan.trainer.surrogate import SURROGATES, digest, surrogate_named

Kernel = Callable[..., None]
State = tuple[Tensor, Tensor]
Parameters = tuple[Tensor, Tensor, Tensor, Tensor]


def _check(how: Firing) -> None:
    """Refuse what the equations below do not have."""
    if (how.phase, how.gain, how.backward) != ("now", "1", "bptt"):
        raise InvalidInput(
            f"The adaptive neuron resets at once, with gain 1 and the full gradient, but it was asked for phase "
            f"{how.phase!r}, gain {how.gain!r} and backward {how.backward!r}. Leave these three as they are."
        )


def adaptive_step(
    x: Tensor, state: State, parameters: Parameters, how: Firing
) -> tuple[Tensor, Tensor, State]:
    """Advance a leaky neuron with an adaptive threshold by one step: spikes, membrane before reset, state.

        m = beta u + x        s = H(m - (theta + kappa a))        a <- rho a + s
        u <- m | m - theta s | m (1 - s)        for reset none | subtract | zero

    x, u and a (..., C); parameters beta, theta, kappa, rho, each () or (C,). A subtracting reset takes away theta,
    not the raised threshold. Gradient: the full one; the surrogate stands for H wherever s goes, the reset and
    the adaptation included. Raises `InvalidInput` for a phase, gain or backward other than now, 1 and bptt.
    """
    _check(how)
    (u, a), (beta, theta, kappa, rho) = state, parameters
    m = beta * u + x
    s = how.fire(m, theta + kappa * a)
    after = {"none": m, "subtract": m - theta * s, "zero": m * (1 - s)}
    return s, m, (after[how.reset], rho * a + s)


def adaptive_loop(
    x: Tensor, state: State, parameters: Parameters, how: Firing
) -> tuple[Tensor, Tensor, State]:
    """Walk a sequence with `adaptive_step`: x (T, ..., C) -> spikes, membranes before reset, last state."""
    spikes, membranes = [], []
    for x_t in x.unbind(0):
        s, m, state = adaptive_step(x_t, state, parameters, how)
        spikes.append(s)
        membranes.append(m)
    return torch.stack(spikes), torch.stack(membranes), state


@cache
def _forward(reset: str, keep: bool) -> Kernel:
    """Build the forward kernel of one reset; `keep` writes the membranes before reset to m."""
    subtract, zero_reset = reset == "subtract", reset == "zero"
    arithmetic = FINGERPRINT

    def forward(
        x: Any, settings: Any, tie_: Any, segment: Any, us: Any, traces: Any, s: Any, m: Any,
        first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic
        steps, lanes = x.shape
        zero = spread(x.dtype.type(0.0))
        one = spread(x.dtype.type(1.0))
        tie = spread(tie_)
        for part in range(us.shape[0] - 1):
            begin = part * segment
            end = min(steps, begin + segment)
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                b = load(settings, 4 * k, 0)
                th = load(settings, 4 * k + 1, 0)
                kappa = load(settings, 4 * k + 2, 0)
                rho = load(settings, 4 * k + 3, 0)
                u = load(us, part, k * LANES)
                a = load(traces, part, k * LANES)
                for t in range(begin, end):
                    v = b * u + load(x, t, left)
                    raised = th + kappa * a
                    spike = select(v >= raised, select(v <= raised, tie, one), zero)
                    store(spike, s, t, left)
                    if keep:
                        store(v, m, t, left)
                    a = rho * a + spike
                    if subtract:
                        v = v - th * spike
                    if zero_reset:
                        v = v * (one - spike)
                    u = v
                store(u, us, part + 1, k * LANES)
                store(a, traces, part + 1, k * LANES)

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(forward)
    return kernel


@cache
def _backward(reset: str, surrogate: str, learn: bool) -> Kernel:
    """Build the backward kernel of one reset and surrogate; `learn` adds the parameters' gradients.

    With g' the surrogate at m_t - (theta + kappa a_{t-1}), ds and dm handed in, du and da those of u_t and a_t:

        Ds_t = ds + da - du (0 | theta | m_t)        none | subtract | zero
        Dm_t = dm + Ds_t g' + du (1 | 1 | 1 - s_t)
        dx_t = Dm_t        du_{t-1} = beta Dm_t        da_{t-1} = rho da - kappa Ds_t g'

    beta gathers Dm_t u_{t-1}, theta -Ds_t g' (subtract: and -du s_t), kappa -Ds_t g' a_{t-1}, rho da a_{t-1}.
    """
    subtract, zero_reset = reset == "subtract", reset == "zero"
    curve = SURROGATES[surrogate].curve
    arithmetic = digest(SURROGATES[surrogate]) + FINGERPRINT

    def backward(
        x: Any, settings: Any, tie_: Any, segment: Any, us: Any, traces: Any,
        ds: Any, has_ds: Any, dm: Any, has_dm: Any, dus: Any, das: Any, dx: Any, learned: Any,
        p_: Any, q_: Any, first: Any, last: Any,
    ) -> None:  # fmt: skip
        _ = arithmetic  # part of the key in numba's cache: another formula is another kernel
        steps, lanes = x.shape
        zero = spread(x.dtype.type(0.0))
        one = spread(x.dtype.type(1.0))
        p, q, tie = spread(p_), spread(q_), spread(tie_)
        sums = np.empty((4, LANES), x.dtype)
        replayed = np.empty((segment, LANES), x.dtype)  # m_t
        u_before = np.empty((segment if learn else 1, LANES), x.dtype)  # u_{t-1}
        a_before = np.empty((segment, LANES), x.dtype)  # a_{t-1}
        parts = us.shape[0] - 1
        for back in range(parts):
            part = parts - 1 - back
            begin = part * segment
            end = min(steps, begin + segment)
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                b = load(settings, 4 * k, 0)
                th = load(settings, 4 * k + 1, 0)
                kappa = load(settings, 4 * k + 2, 0)
                rho = load(settings, 4 * k + 3, 0)
                u = load(us, part, k * LANES)
                a = load(traces, part, k * LANES)
                for t in range(begin, end):
                    v = b * u + load(x, t, left)
                    raised = th + kappa * a
                    spike = select(v >= raised, select(v <= raised, tie, one), zero)
                    store(v, replayed, t - begin, 0)
                    store(a, a_before, t - begin, 0)
                    if learn:
                        store(u, u_before, t - begin, 0)
                    a = rho * a + spike
                    if subtract:
                        v = v - th * spike
                    if zero_reset:
                        v = v * (one - spike)
                    u = v
                du = load(dus, k, 0)
                da = load(das, k, 0)
                part_beta = zero
                part_theta = zero
                part_kappa = zero
                part_rho = zero
                for j in range(end - begin):
                    t = end - 1 - j
                    v = load(replayed, t - begin, 0)
                    a = load(a_before, t - begin, 0)
                    raised = th + kappa * a
                    spike = select(v >= raised, select(v <= raised, tie, one), zero)
                    own = load(ds, t * has_ds, left) + da
                    through = du
                    if subtract:
                        own = own - du * th
                    if zero_reset:
                        own = own - du * v
                        through = du * (one - spike)
                    own = own * curve(v - raised, p, q)
                    total = load(dm, t * has_dm, left) + own + through
                    store(total, dx, t, left)
                    if learn:
                        part_beta = part_beta + total * load(u_before, t - begin, 0)
                        part_theta = part_theta - own
                        if subtract:
                            part_theta = part_theta - du * spike
                        part_kappa = part_kappa - own * a
                        part_rho = part_rho + da * a
                    du = b * total
                    da = rho * da - kappa * own
                store(du, dus, k, 0)
                store(da, das, k, 0)
                if learn:
                    store(part_beta, sums, 0, 0)
                    store(part_theta, sums, 1, 0)
                    store(part_kappa, sums, 2, 0)
                    store(part_rho, sums, 3, 0)
                    for row in range(4):
                        for i in range(LANES):
                            learned[row * (learned.shape[0] // 4) + k, i] += sums[row, i]

    kernel: Kernel = njit(nogil=True, cache=True, error_model="numpy")(backward)
    return kernel


def _number(value: float, dtype: torch.dtype) -> Any:
    """A number as the kernels take it."""
    return np.float32(value) if dtype == torch.float32 else np.float64(value)


class _Adaptive(torch.autograd.Function):
    """The two kernels under autograd. The parameters come as (4, C), each state in the shape of one step."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, u: Tensor, a: Tensor, parameters: Tensor, how: Firing, membrane: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        steps, lanes, one = x.shape[0], x.shape[1:].numel(), x.shape[1:]
        rows = padded(x)
        tiles, segment = tile_count(lanes), segment_steps(lanes)
        settings = to_tiles(parameters, lanes).transpose(0, 1).reshape(-1, LANES)
        us, traces = (fresh(-(-steps // segment) + 1, tiles * LANES, x.dtype) for _ in range(2))
        us[0], traces[0] = (to_tiles(state.reshape(-1), lanes).reshape(-1) for state in (u, a))
        spikes = fresh(steps, rows.shape[1], x.dtype)
        kept = fresh(steps if membrane else 1, rows.shape[1], x.dtype)
        tie = _number(how.fires == ">=", x.dtype)
        kernel = _forward(how.reset, membrane)
        run_tiles(kernel, tiles, rows.numel(), rows, settings, tie, segment, us, traces, spikes, kept)
        ctx.save_for_backward(x, settings, us, traces)
        ctx.how = how
        ctx.set_materialize_grads(False)
        last_u, last_a = (
            from_tiles(kept_[-1].view(tiles, LANES), lanes).reshape(one).clone() for kept_ in (us, traces)
        )
        return unpadded(spikes, x.shape), unpadded(kept, x.shape) if membrane else None, last_u, last_a

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, ds: Tensor | None, dm: Tensor | None, du: Tensor | None, da: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, settings, us, traces = ctx.saved_tensors
        how: Firing = ctx.how
        rows = padded(x)
        steps, lanes = x.shape[0], x.shape[1:].numel()
        tiles, channels = tile_count(lanes), x.shape[-1]
        learn = bool(ctx.needs_input_grad[3])
        nothing = rows.new_zeros(1, rows.shape[1])
        dus, das = (
            rows.new_zeros(tiles, LANES) if d is None else to_tiles(d.reshape(-1), lanes).clone()
            for d in (du, da)
        )
        dx = fresh(steps, rows.shape[1], rows.dtype)
        learned = torch.zeros((4 * tiles, LANES) if learn else (4, 1), dtype=torch.float64)
        found, width = surrogate_named(how.surrogate, how.width)
        run_tiles(
            _backward(how.reset, how.surrogate, learn), tiles, rows.numel(),
            rows, settings, _number(how.fires == ">=", x.dtype), segment_steps(lanes), us, traces,
            nothing if ds is None else padded(ds), int(ds is not None),
            nothing if dm is None else padded(dm), int(dm is not None),
            dus, das, dx, learned, *(_number(n, x.dtype) for n in found.coefficients(width)),
        )  # fmt: skip
        dparameters = None
        if learn:
            of_lanes = [from_tiles(total, lanes).reshape(-1, channels).sum(0) for total in learned.chunk(4)]
            dparameters = torch.stack(of_lanes).to(x.dtype)
        dstate = [from_tiles(d, lanes).reshape(x.shape[1:]) for d in (dus, das)]
        return unpadded(dx, x.shape), *dstate, dparameters, None, None


def adaptive(
    x: Tensor,
    state: State | None,
    parameters: Parameters,
    how: Firing,
    *,
    membrane: bool = True,
) -> tuple[Tensor, Tensor | None, State]:
    """Walk a sequence of a neuron with an adaptive threshold: spikes, membranes before reset if asked, last state.

    x (T, ..., C), state two of (..., C) or None for zeros, parameters beta, theta, kappa, rho, each () or (C,).
    Equations: `adaptive_step`, which this equals spike for spike; gradients differ from the loop's by rounding.
    What the kernels cannot take (see `fused.runs_fused`) goes through the loop. Raises as `adaptive_step` does.
    """
    _check(how)
    u, a = (torch.zeros_like(x[0]), torch.zeros_like(x[0])) if state is None else state
    if not runs_fused(x):
        return adaptive_loop(x, (u, a), parameters, how)
    rows = torch.stack([number.expand(x.shape[-1]) for number in parameters])
    spikes, kept, u, a = _Adaptive.apply(x, u, a, rows, how, membrane)  # type: ignore[no-untyped-call]
    return spikes, kept, (u, a)

"""The spiking delta rule in plain torch, on any device and in any float type: a chunk of steps at once.

The step is S_t = alpha_t S_{t-1} + w_t k_t^T with w_t = beta_t (v_t - alpha_t S_{t-1} k_t). Let G_ts be the product
of alpha from s + 1 to t, and S_0 the state before a chunk of C steps. Unrolled,

    S_t = G_t0 S_0 + sum_{s <= t} G_ts w_s k_s^T

so all S_t of the chunk are one (C, C) matrix, G, times its rank-one writes. Put into w_t, where
alpha_t G_{t-1,s} = G_ts, it is a small triangular system for the w of the chunk:

    w_t + beta_t sum_{s < t} G_ts (k_t . k_s) w_s = beta_t (v_t - G_t0 S_0 k_t)            (I + L) W = R

L is strictly lower triangular and no entry of it exceeds 1, since keys have length 1 and G holds products of
numbers in [0, 1] that are multiplied up step by step: nothing is divided by a decay. The right side is linear
in S_0, so with V' = (I + L)^-1 beta v and K' = (I + L)^-1 beta G_t0 k (the "WY" form of a product of matrices
I - beta k k^T) the writes are W = V' - K' S_0^T. V' and K' are solved for all chunks together. What is left to do
in order, chunk by chunk, is two matrix products, the threshold and the readout. For training, autograd keeps the
state before each chunk and works that part out again, so the (T, B, d, n) states are never all in memory, unless
they are what is asked for.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unscan.trainer.recurrence.naive import Firing

_CHUNK = 32


def _decays(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """G_ts (chunks, B, C, C), 0 where s > t, and G_t0 (chunks, B, C), from alpha (chunks, C, B)."""
    size = alpha.shape[1]
    unit = torch.eye(size + 1, dtype=alpha.dtype, device=alpha.device)
    rows = [unit[0].expand(alpha.shape[0], alpha.shape[2], -1)]
    for t in range(size):
        rows.append(alpha[:, t, :, None] * rows[-1] + unit[t + 1])
    ratios = torch.stack(rows[1:], dim=2)
    return ratios[..., 1:], ratios[..., 0]


def _chunk(
    writes: Tensor, reads: Tensor, k: Tensor, ratios: Tensor, start: Tensor, q: Tensor | None, state: Tensor,
    threshold: Tensor, how: Firing, every: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One chunk: V' (B, C, d), K' and k (B, C, n), G (B, C, C), G_t0 (B, C), q (C, B, n, r), S_0 (B, d, n).

    The answer is y (C, B, d, r or n) and all S_t of the chunk, or only the last one.
    """
    w = writes - reads @ state.mT
    outer = (w[..., None] * k[:, :, None, :]).flatten(2)
    states = (ratios @ outer).view(*w.shape, -1) + start[..., None, None] * state[:, None]
    states = states.transpose(0, 1)
    spikes = how.fire(states, threshold)
    return spikes if q is None else spikes @ q, states if every else states[-1:].clone()


def delta_chunked(
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
    size: int = _CHUNK,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Walk a sequence of the delta rule: readouts (T, B, d, r or n), membranes if asked, last state (B, d, n).

    Shapes and equations: `naive.delta_loop`, which this equals up to rounding; size: steps in a chunk.
    """
    steps = v.shape[0]
    missing = -steps % size  # steps that keep everything: alpha 1, beta 0
    chunks = (steps + missing) // size

    def split(values: Tensor, fill: float = 0.0) -> Tensor:
        long = functional.pad(values, (0, 0) * (values.dim() - 1) + (0, missing), value=fill)
        return long.reshape(chunks, size, *values.shape[1:])

    keys, values = split(k).transpose(1, 2), split(v).transpose(1, 2)
    gates = split(beta).transpose(1, 2)[..., None]
    ratios, start = _decays(split(alpha, 1.0))
    system = (gates * ratios * (keys @ keys.mT)).tril(-1)
    sides = torch.cat((gates * values, gates * start[..., None] * keys), dim=-1)
    working = torch.float32 if v.dtype in (torch.float16, torch.bfloat16) else v.dtype
    solved = torch.linalg.solve_triangular(
        system.to(working), sides.to(working), upper=False, unitriangular=True
    ).to(v.dtype)
    parts = (*solved.split((v.shape[-1], k.shape[-1]), dim=-1), keys, ratios, start)
    queries = [None] * chunks if q is None else split(q).unbind(0)
    readouts, membranes = [], []
    for *part, q_c in zip(*(values.unbind(0) for values in parts), queries, strict=True):
        arguments = (*part, q_c, state, threshold, how, membrane)
        if membrane:
            y, states = _chunk(*arguments)
            membranes.append(states)
        else:
            y, states = checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        state = states[-1]
        readouts.append(y)
    return torch.cat(readouts)[:steps], torch.cat(membranes)[:steps] if membrane else None, state

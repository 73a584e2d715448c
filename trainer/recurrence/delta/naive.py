"""The truth of the spiking delta rule: a plain step loop in torch, which every fast form is tested against.

Letters: T steps, B batch, d value rows, n key columns, r queries. Gradients are whatever autograd derives from
these lines, with the surrogate for H.
"""

import torch
from torch import Tensor

from unscan.trainer.recurrence.naive import Firing


def unit_keys(keys: Tensor) -> Tensor:
    """Scale keys (..., n) to length 1: k / |k|.

    A key shorter than 1e-12 has no direction: it becomes 0, which neither writes nor erases, and it gets no
    gradient (that of k / |k| grows without bound as k goes to 0).
    """
    length = torch.linalg.vector_norm(keys, dim=-1, keepdim=True)
    unit: Tensor = keys / length.where(length > 1e-12, torch.inf)
    return unit


def delta_step(
    v: Tensor,
    k: Tensor,
    alpha: Tensor,
    beta: Tensor,
    q: Tensor | None,
    state: Tensor,
    threshold: Tensor,
    how: Firing,
) -> tuple[Tensor, Tensor]:
    """Advance the matrix memory of the gated delta rule by one step: readout, and state, which is the membrane.

        S_t = alpha_t S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T
            = alpha_t S_{t-1} + w_t k_t^T       w_t = beta_t (v_t - alpha_t S_{t-1} k_t)
        Z_t = H(S_t - theta)                    y_t = Z_t q_t, or Z_t where there is no q

    v (B, d), k (B, n) of length 1 or 0, alpha and beta (B,) in [0, 1], q (B, n, r) or None, state (B, d, n),
    threshold (). y is (B, d, r) or (B, d, n). Of `how` only the rule for ties and the surrogate matter.

    Source: papers/001 (generation 3, aligned write and forget).
    """
    decayed = alpha[:, None, None] * state
    read = (decayed @ k[:, :, None]).squeeze(-1)
    written = beta[:, None] * (v - read)
    state = decayed + written[:, :, None] * k[:, None, :]
    spikes = how.fire(state, threshold)
    return spikes if q is None else spikes @ q, state


def delta_loop(
    v: Tensor,
    k: Tensor,
    alpha: Tensor,
    beta: Tensor,
    q: Tensor | None,
    state: Tensor,
    threshold: Tensor,
    how: Firing,
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk a sequence with `delta_step`: readouts (T, B, d, r or n), membranes (T, B, d, n), last state (B, d, n).

    The inputs have time in front: v (T, B, d), k (T, B, n), alpha and beta (T, B), q (T, B, n, r) or None.
    """
    readouts, membranes = [], []
    queries = [None] * v.shape[0] if q is None else q.unbind(0)
    sequences = (v.unbind(0), k.unbind(0), alpha.unbind(0), beta.unbind(0), queries)
    for v_t, k_t, alpha_t, beta_t, q_t in zip(*sequences, strict=True):
        y, state = delta_step(v_t, k_t, alpha_t, beta_t, q_t, state, threshold, how)
        readouts.append(y)
        membranes.append(state)
    return torch.stack(readouts), torch.stack(membranes), state

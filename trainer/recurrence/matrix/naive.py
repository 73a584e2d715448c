"""The truth of the matrix memory: plain step loops in torch, which every fast form is tested against.

Letters: T steps, B batch, d value rows, n key columns, r queries. Gradients are whatever autograd derives from
these lines, with the surrogate for H.
"""

import torch
from torch import Tensor

from unscan.trainer.recurrence.naive import Firing


def memory_step(
    v: Tensor, k: Tensor, alpha: Tensor, q: Tensor | None, S: Tensor, threshold: Tensor, firing: Firing
) -> tuple[Tensor, Tensor]:
    """Advance a matrix memory by one step: readout, state.

        S_t = S_{t-1} diag(alpha_t) + v_t k_t^T        Z_t = H(S_t - theta)        y_t = Z_t q_t, or Z_t without q

    v (B, d), k and alpha (B, n), q (B, n, r) or None, S (B, d, n), threshold () -> y (B, d, r) or (B, d, n), S.
    Spikes are taken on S, before q; there is no reset. Of `firing` the rule for ties and the surrogate count.
    Source: papers/000 and 001 (generation 2).
    """
    S = alpha.unsqueeze(-2) * S + v.unsqueeze(-1) * k.unsqueeze(-2)
    Z = firing.fire(S, threshold)
    return Z if q is None else Z @ q, S


def memory_loop(
    v: Tensor, k: Tensor, alpha: Tensor, q: Tensor | None, S: Tensor, threshold: Tensor, firing: Firing
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk a sequence with `memory_step`: readouts (T, B, d, r or n), all S_t (T, B, d, n), the last S_t.

    v (T, B, d), k and alpha (T, B, n), q (T, B, n, r) or None, S (B, d, n), threshold ().
    """
    readouts, membranes = [], []
    for t in range(v.shape[0]):
        y, S = memory_step(v[t], k[t], alpha[t], None if q is None else q[t], S, threshold, firing)
        readouts.append(y)
        membranes.append(S)
    return torch.stack(readouts), torch.stack(membranes), S

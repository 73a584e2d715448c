"""The truth of the diagonal recurrence: plain steps in torch, which the convolution and the kernels are tested against.

Letters: T steps, any batch shape (...), H channels, M complex states of each channel (half of a real system's N).
"""

import torch
from torch import Tensor


def diagonal_step(
    x: Tensor, state: Tensor, a: Tensor, c: Tensor, skip: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Advance by one step: output y (..., H) and the next state.

        h_n <- a_n h_n + x        y = 2 Re sum_n c_n h_n + skip x

    x (..., H) real; state h (..., H, M), a and c (H, M) complex; skip (H) real, None for 0.
    """
    after = a * state + x.unsqueeze(-1)
    y = 2 * (c * after).real.sum(-1)
    return (y if skip is None else y + skip * x), after


def diagonal_step_pairs(
    x: Tensor, state: tuple[Tensor, Tensor], a: Tensor, c: Tensor, skip: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Do what `diagonal_step` does in real arithmetic, as a device without complex numbers has to.

        p <- Re a p - Im a q + x        q <- Re a q + Im a p        y = 2 sum_n (Re c p - Im c q) + skip x

    state: the real and the imaginary parts (p, q), each (..., H, M). a and c as pairs of reals, (H, M, 2).
    """
    (ar, ai), (cr, ci), (p, q) = a.unbind(-1), c.unbind(-1), state
    after = ar * p - ai * q + x.unsqueeze(-1), ar * q + ai * p
    y = 2 * (cr * after[0] - ci * after[1]).sum(-1)
    return (y if skip is None else y + skip * x), after


def diagonal_loop(
    x: Tensor, a: Tensor, c: Tensor, skip: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Walk a sequence with `diagonal_step`: x (T, ..., H), state (..., H, M) or None for zeros, to y and last state."""
    h = torch.zeros(*x.shape[1:], a.shape[-1], dtype=a.dtype, device=x.device) if state is None else state
    outputs = []
    for x_t in x.unbind(0):
        y, h = diagonal_step(x_t, h, a, c, skip)
        outputs.append(y)
    return torch.stack(outputs), h

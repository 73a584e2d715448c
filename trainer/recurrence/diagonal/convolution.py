"""The diagonal recurrence as a causal convolution, y = K * x with K_l = 2 Re sum_n c_n a_n^l.

A power a^l is exp(l log a) in float64, never a product of l factors. A long range of powers is split in two,
a^(i L + j) = a^(i L) a^j with i and j up to about the square root of T: few exponentials, and what is left is
a product of matrices. So are the part of the initial state and the last state.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def powers(a: Tensor, exponents: Tensor) -> Tensor:
    """a^l for each exponent l: a (H, M) complex and not 0, exponents (L) -> (H, M, L)."""
    grown: Tensor = torch.exp(a.to(torch.complex128).log().unsqueeze(-1) * exponents)
    return grown.to(a.dtype)


def _split(steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Exponents j < L and i L with which every l < steps is i L + j."""
    near = math.isqrt(steps - 1) + 1
    counted = torch.arange(near, device=device, dtype=torch.float64)
    return counted, counted[: -(-steps // near)] * near


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Re sum_m left[h, ., m] right[h, m, .] of complex left (H, I, M) and right (H, M, J)."""
    return torch.cat((left.real, -left.imag), 2) @ torch.cat((right.real, right.imag), 1)


def kernel(a: Tensor, c: Tensor, taps: int) -> Tensor:
    """K_l = 2 Re sum_n c_n a_n^l for l < taps: a and c (H, M) complex -> (taps, H)."""
    near, far = _split(taps, a.device)
    spread = _product((2 * c.unsqueeze(-1) * powers(a, far)).transpose(1, 2), powers(a, near))
    return spread.flatten(1)[:, :taps].T


def _fading(state: Tensor, a: Tensor, c: Tensor, steps: int) -> Tensor:
    """What the initial state adds to the outputs: 2 Re sum_n c_n a_n^(t+1) h_n, state (B, H, M) -> (T, B, H)."""
    near, far = _split(steps, a.device)
    batch, channels, modes = state.shape
    reached = (2 * c * state).unsqueeze(-1) * powers(a, far + 1)
    by_channel = reached.permute(1, 0, 3, 2).reshape(channels, -1, modes)
    added = _product(by_channel, powers(a, near))
    return added.view(channels, batch, -1)[:, :, :steps].permute(2, 1, 0)


def _last(x: Tensor, a: Tensor) -> Tensor:
    """The state that the inputs leave: sum_t a^(T-1-t) x_t, x (T, B, H) -> (B, H, M)."""
    steps, batch, channels = x.shape
    near, far = _split(steps, a.device)
    filled = functional.pad(x, (0, 0, 0, 0, near.numel() * far.numel() - steps, 0))
    by_channel = filled.permute(2, 1, 0).reshape(channels, -1, near.numel())
    weights = powers(a, near.flip(0)).transpose(1, 2)
    gathered = torch.complex(by_channel @ weights.real, by_channel @ weights.imag)
    later = powers(a, far.flip(0)).transpose(1, 2).unsqueeze(1)
    return (gathered.view(channels, batch, far.numel(), -1) * later).sum(2).transpose(0, 1)


def _length(least: int) -> int:
    """The next even length whose transform is fast: 2^i 3^j 5^k, i > 0."""
    lengths = []
    for odd in (1, 3, 5, 9, 15, 25, 45, 75, 225):
        twos = (-(-least // odd) - 1).bit_length()
        lengths.append(odd << max(1, twos))
    return min(lengths)


def diagonal_fft(
    x: Tensor, a: Tensor, c: Tensor, skip: Tensor | None, state: Tensor | None, state_after: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Convolve a sequence by fast Fourier transform: outputs and, if asked for, last state.

    x (T, ..., H), a and c (H, M), state (..., H, M), complex; skip (H). Equals `naive.diagonal_loop`; rounding
    grows with the largest input of a sequence, not with each output. The transform is padded to twice the
    length, so that nothing wraps round.
    """
    steps, (channels, modes) = x.shape[0], a.shape
    rows = x.reshape(steps, -1, channels)
    length = _length(2 * steps)
    taps = torch.fft.rfft(kernel(a, c, steps), length, dim=0).unsqueeze(1)
    y = torch.fft.irfft(torch.fft.rfft(rows, length, dim=0) * taps, length, dim=0)[:steps]
    if skip is not None:
        y = y + skip * rows
    start = None if state is None else state.reshape(-1, channels, modes)
    if start is not None:
        y = y + _fading(start, a, c, steps)
    if not state_after:
        return y.reshape(x.shape), None
    last = _last(rows, a)
    if start is not None:
        last = last + powers(a, torch.full((1,), float(steps), device=a.device)).squeeze(-1) * start
    return y.reshape(x.shape), last.reshape(*x.shape[1:], modes)

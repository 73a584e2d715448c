"""The leak without a reset as a causal convolution: u = h * x with h_k = beta^k.

A decaying kernel may be cut. Dropping all taps from K on changes no u_t by more than

    max|x| (beta^K + beta^(K+1) + ...) = max|x| beta^K / (1 - beta)

so a cut is asked for by a tolerance on that factor, and 0 means that nothing is cut. The state at the start
enters exactly, as beta^(t+1) u_0, whatever the cut.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from unscan.compiler.errors import InvalidInput


def kernel_length(steps: int, beta: Tensor, tolerance: float) -> int:
    """Count the taps K <= steps after which beta^K / (1 - beta) <= tolerance for the slowest channel."""
    if not 0 <= tolerance < 1:
        raise InvalidInput(
            f"The tolerance of a cut kernel is {tolerance}, but it must be at least 0 (cut nothing) and less than 1."
        )
    slowest = float(beta.detach().max())
    if tolerance == 0 or slowest >= 1:
        return steps
    if slowest <= 0:
        return 1
    taps = math.ceil(math.log(tolerance * (1 - slowest)) / math.log(slowest))
    return max(1, min(steps, taps))


def decay_kernel(taps: int, beta: Tensor, channels: int) -> Tensor:
    """h_k = beta^k for k < taps, as (taps, C)."""
    exponents = torch.arange(taps, device=beta.device, dtype=beta.dtype)
    return torch.pow(beta.expand(channels), exponents[:, None])


def decayed_state(steps: int, u: Tensor, beta: Tensor) -> Tensor:
    """What is left of the state at each step: beta^(t+1) u_0, as (T, ..., C)."""
    powers = decay_kernel(steps + 1, beta, u.shape[-1])[1:]
    return powers.reshape(steps, *(1,) * (u.dim() - 1), u.shape[-1]).mul(u)


def convolve_fft(x: Tensor, u: Tensor | None, beta: Tensor, tolerance: float = 0.0) -> Tensor:
    """u_t = beta u_{t-1} + x_t over a whole sequence by fast Fourier transform, O(T log T).

    x (T, ..., C), u (..., C) or None for zeros, beta () or (C,) -> (T, ..., C). The transform is padded to
    T + K - 1, so nothing wraps round. Rounding grows with the size of the largest input, not of each output.
    """
    steps, channels = x.shape[0], x.shape[-1]
    taps = kernel_length(steps, beta, tolerance)
    length = 1 << (steps + taps - 2).bit_length()
    kernel = decay_kernel(taps, beta, channels).reshape(taps, *(1,) * (x.dim() - 2), channels)
    spectrum = torch.fft.rfft(x, length, dim=0) * torch.fft.rfft(kernel, length, dim=0)
    membranes: Tensor = torch.fft.irfft(spectrum, length, dim=0)[:steps]
    return membranes if u is None else membranes + decayed_state(steps, u, beta)


def convolve_direct(x: Tensor, u: Tensor | None, beta: Tensor, tolerance: float = 0.0) -> Tensor:
    """u_t = beta u_{t-1} + x_t over a whole sequence as a depthwise convolution, O(T K).

    Shapes as in `convolve_fft`. The right choice for a short kernel: fast decay or a generous tolerance.
    """
    steps, channels = x.shape[0], x.shape[-1]
    taps = kernel_length(steps, beta, tolerance)
    kernel = decay_kernel(taps, beta, channels).flip(0).T.unsqueeze(1)
    lanes = x.reshape(steps, -1, channels).permute(1, 2, 0)
    summed = functional.conv1d(functional.pad(lanes, (taps - 1, 0)), kernel, groups=channels)
    membranes = summed.permute(2, 0, 1).reshape(x.shape)
    return membranes if u is None else membranes + decayed_state(steps, u, beta)

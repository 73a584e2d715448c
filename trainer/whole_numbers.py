"""Which whole number stands for a real one: the arithmetic of the compiler's profiles, on tensors.

A real number r is held as r times its scale, rounded. A neuron's scale K says what its membrane counts: u_int = K u.
Weights w on inputs that count units of 1 / U reach it shifted to the left by `shift` bits, so they count
q = K / (U 2^shift) to one. What is chosen here is what `unscan.compiler.profiles` and the pass `quantize`
choose, number for number. All tensors are float64.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

WHOLE = 8.0
"""From how many units up a threshold is made a whole number of them."""
DEEPEST = 15
"""The largest shift of an input."""
SUM = 2.0**31 - 1
"""The largest sum."""


@dataclass(frozen=True)
class Widths:
    """Widths of whole numbers, in bits; names and meanings are those of `unscan.compiler.profiles.Profile`."""

    weight_bits: int
    decay_bits: int
    state_bits: int
    signal_bits: int
    even: bool = False
    shift: int | None = None
    unit: int = 1
    threshold_bits: int = 31
    bias_bits: int = 32
    powers: bool = True

    def weight_limit(self, weight: Tensor) -> int:
        """Return the largest size of a weight of a matrix."""
        if not self.even or bool((weight >= 0).all()):
            return largest(self.weight_bits)
        return largest(self.weight_bits if bool((weight > 0).any()) else self.weight_bits - 1) - 1

    def step(self, weight: Tensor) -> int:
        """Return what the weights of a matrix are multiples of."""
        return 2 if self.even and bool((weight < 0).any()) else 1


WIDTHS: Mapping[str, Widths] = MappingProxyType(
    {
        "loihi2": Widths(9, 12, 24, 16, True, 6, 64, 17, 13, False),
        "int8": Widths(8, 15, 32, 16),
        "int16": Widths(16, 15, 32, 14),
    }
)
"""Name of a profile -> its widths."""


def largest(bits: int) -> int:
    """Return the largest whole number of so many bits, a sign among them."""
    return int(2 ** (bits - 1) - 1)


def holding(size: int, *, signed: bool) -> int:
    """Return the bits of the narrowest format that holds the whole numbers up to `size`."""
    return max(1, size.bit_length()) + signed


class _Straight(torch.autograd.Function):
    """Give `held` forward; pass the gradient backward to `value` where `inside`, and nothing elsewhere."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, held: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return held.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


def straight(value: Tensor, scale: Tensor, units: Tensor, step: float = 1.0) -> Tensor:
    """Return what whole numbers stand for, units / scale, with the gradient of the real numbers they stand for.

    It passes where units is within a step of value scale, and is zero where the format saturates.
    Source: the straight-through estimator, Bengio, Leonard and Courville, arXiv 1308.3432; fake quantisation with it,
    Jacob et al., arXiv 1712.05877, section 3.
    """
    with torch.no_grad():
        held = units / scale
        inside = (value * scale - units).abs() <= step
    passed: Tensor = _Straight.apply(value, held, inside)  # type: ignore[no-untyped-call]
    return passed


@torch.no_grad()
def weight_scale(
    widths: Widths,
    weight: Tensor,
    *,
    threshold: Tensor | None = None,
    bias: Tensor | None = None,
    unit: float = 1.0,
    ceiling: Tensor | float = math.inf,
) -> Tensor:
    """Return q (rows,): how much a weight of 1 counts in the matrix (rows, F) that feeds a layer of neurons.

    q is the largest for which max |w| q of each row is at most the weight's limit, q U theta fits in the threshold's
    bits, q U |b| in the bias's, and q is at most `ceiling`; then rounded down to a power of two, or so that q U theta
    is a whole number where it is `WHOLE` or more. A row that nothing bounds has the largest q of the others.
    """
    per_unit = unit * 2.0 ** (widths.shift or 0) / widths.unit
    scale = share(widths.weight_limit(weight), weight.abs().amax(1))
    scale = torch.minimum(scale, torch.as_tensor(ceiling, dtype=scale.dtype, device=scale.device))
    if threshold is not None:
        scale = torch.minimum(scale, share((2.0**widths.threshold_bits - 1) / per_unit, threshold))
    if bias is not None:
        scale = torch.minimum(scale, share(largest(widths.bias_bits) / per_unit, bias))
    bounded = scale.isfinite()
    scale = torch.where(bounded, scale, scale[bounded].amax() if bool(bounded.any()) else 1.0)
    if widths.powers:
        return power_below(scale)
    if threshold is None:
        return scale
    level = scale * per_unit * threshold
    return torch.where(level >= WHOLE, level.floor() / level.clamp(min=WHOLE), 1.0) * scale


def share(limit: float, size: Tensor) -> Tensor:
    """Return limit / |size|, infinite where that is 0."""
    return torch.full_like(size, limit) / size.abs()


def finite(scale: Tensor) -> Tensor:
    """Return numbers, 1 in the place of those that are infinite."""
    return torch.where(scale.isfinite(), scale, 1.0)


@torch.no_grad()
def layer_scale(
    widths: Widths,
    weight: Tensor,
    *,
    reached: Tensor,
    ceiling: Tensor,
    threshold: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, int]:
    """Return P (rows,) and the shift s of a layer's input: membranes count K = P 2^s to one, and weights P.

    weight (rows, F): on inputs in whole numbers, with the input gain in it. reached: the largest sum of each row, in
    real numbers. ceiling: the largest K. Without a threshold P is a power of two.
    """
    powers = widths.powers or threshold is None
    if widths.shift is not None:
        room = share(2.0 ** (widths.state_bits - widths.shift) if widths.shift else SUM / 2, reached)
        room = torch.minimum(ceiling / 2.0**widths.shift, room)
        scale = weight_scale(widths, weight, threshold=None if powers else threshold, bias=bias, ceiling=room)
        return (power_below(scale) if powers else scale), widths.shift
    finest = weight_scale(widths, weight, ceiling=share(SUM / 2, reached))
    ratio = float((ceiling / finest).amin())
    shift = max(0, min(DEEPEST, math.floor(math.log2(ratio)))) if math.isfinite(ratio) else 0
    return power_below(torch.minimum(ceiling / 2.0**shift, finest)), shift


@torch.no_grad()
def shifted_scale(widths: Widths, weight: Tensor, wanted: Tensor, reached: Tensor) -> Tensor:
    """Return P (rows,) of weights (rows, F) behind which a shift makes `wanted` of it: that times a power of two.

    It is the largest for which the weights fit, and their sums, `reached` in real numbers, in 32 bits.
    """
    room = torch.minimum(share(widths.weight_limit(weight), weight.abs().amax(1)), share(SUM / 2, reached))
    return wanted * power_below(finite(room) / wanted).clamp(2.0**-31, 2.0**31)


def power_below(scale: Tensor) -> Tensor:
    """Return the largest power of two that is at most each number."""
    exponent = torch.frexp(scale).exponent
    return torch.ldexp(torch.ones_like(scale), exponent - 1)


def weight_units(weight: Tensor, scale: Tensor, *, step: float, limit: int) -> Tensor:
    """Return the multiples of `step` nearest to scale times each weight (rows, ...), within the limit."""
    each = scale.expand(len(weight)).reshape(-1, *(1,) * (weight.dim() - 1))
    return (step * torch.round(weight * each / step)).clamp(-limit, limit)


def decay_units(widths: Widths, decay: Tensor) -> Tensor:
    """Return the whole numbers nearest to 2^decay_bits times each decay."""
    return torch.round(decay * 2.0**widths.decay_bits)


def threshold_units(
    widths: Widths, threshold: Tensor, scale: Tensor, fires: str, *, whole: bool = False
) -> Tensor:
    """Return the whole numbers above which membranes scale u fire: the nearest multiples of the unit.

    Where that is 1, or membranes are multiples of it themselves (`whole`), they are exact: in units, ceil(K theta) - 1
    for >= and floor(K theta) for >.
    """
    exact = threshold * scale / widths.unit
    above = torch.ceil(exact) - 1 if fires == ">=" else torch.floor(exact)
    level = above if whole or widths.unit == 1 else torch.round(exact)
    return level.clamp(0, 2.0**widths.threshold_bits - 1) * widths.unit


def bias_units(widths: Widths, bias: Tensor, scale: Tensor) -> Tensor:
    """Return the multiples of the unit nearest to scale times each bias."""
    limit = largest(widths.bias_bits)
    return torch.round(bias * scale / widths.unit).clamp(-limit, limit) * widths.unit


@torch.no_grad()
def input_fraction(
    widths: Widths, weight: Tensor, size: float, *, threshold: float, bias: Tensor, ceiling: Tensor | float
) -> int:
    """Return the fraction of a real input of size up to `size` that feeds neurons with no rescaling between.

    Its units and those of the weights (rows, F) share what room the neurons have, `ceiling` of them. The result is the
    f for which the mean over rows of (sum x^2 (step / q)^2 + sum w^2 / 4^f) / theta^2 is least, x being half `size`.
    """
    squares, theta = weight.shape[1] * (size / 2) ** 2, torch.full_like(weight[:, 0], threshold)
    step, finest = widths.step(weight), fraction(size, widths.signal_bits + 1)
    noise = []
    for f in range(finest + 1):
        q = weight_scale(widths, weight, threshold=theta, bias=bias, unit=2.0**f, ceiling=ceiling / 2.0**f)
        each = squares * (step / q) ** 2 + weight.square().sum(1) / 4.0**f
        noise.append(float((each / threshold**2).mean()))
    return min(range(len(noise)), key=noise.__getitem__) if noise else finest


def fraction(size: float, bits: int) -> int:
    """Return the largest f for which `size` times 2^f fits in so many bits; 0 where size is 0."""
    return 0 if size <= 0 else max(-31, min(31, math.floor(math.log2(largest(bits) / size))))

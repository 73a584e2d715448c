"""Surrogate gradients: what a spike's derivative is taken to be, because the true one is zero or infinite.

Forward, a spike is s = H(x) with x = membrane - threshold. Backward, ds/dx = g'(x), one of the curves below.
Each is written once, in arithmetic that a torch tensor and the numbers inside a numba kernel both understand
(a scalar, or `recurrence.vector`'s 64 lanes), so the step loop and the fused kernel cannot drift apart. A curve
sees the distance x and two coefficients (p, q) that are worked out once from its width: constants in the
formula itself would be float64 in a kernel.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from numba.extending import register_jitable
from torch import Tensor

from unscan.compiler.errors import InvalidInput


def bell(x: Any, p: Any, q: Any) -> Any:
    """p / (q + x^2)."""
    return p / (q + x * x)


def cusp(x: Any, p: Any, q: Any) -> Any:
    """p / (q + |x|)^2."""
    r = q + abs(x)
    return p / (r * r)


def tent(x: Any, p: Any, q: Any) -> Any:
    """2 p max(0, q - |x|), since max(0, r) = (r + |r|) / 2."""
    r = q - abs(x)
    return p * (r + abs(r))


def box(x: Any, p: Any, q: Any) -> Any:
    """p where |x| <= q, else 0."""
    return p * (abs(x) <= q)


for _curve in (bell, cusp, tent, box):
    register_jitable(_curve)  # still plain functions: this only allows kernels to call them


@dataclass(frozen=True)
class Surrogate:
    """A curve g'(x), its coefficients for a width w, and the width it has unless told otherwise."""

    curve: Callable[[Any, Any, Any], Any]
    coefficients: Callable[[float], tuple[float, float]]
    width: float
    equation: str


SURROGATES: dict[str, Surrogate] = {
    # Area 1. At w = 1 the arctangent of slope 2 that snnTorch and SpikingJelly start from.
    "atan": Surrogate(
        bell, lambda w: (w / math.pi**2, (w / math.pi) ** 2), 1.0, "1 / (w (1 + (pi x / w)^2))"
    ),
    # Height 1. At w = 1/25 snnTorch's slope of 25.
    "fast_sigmoid": Surrogate(cusp, lambda w: (w * w, w), 0.04, "1 / (1 + |x| / w)^2"),
    # Area 1. papers/003, supplement, equation 25 with alpha = 1 / w.
    "piecewise_quadratic": Surrogate(tent, lambda w: (0.5 / (w * w), w), 1.0, "max(0, 1/w - |x| / w^2)"),
    # Height 0.3, the dampening that goes with this shape in networks of recurrent spiking units.
    "triangular": Surrogate(tent, lambda w: (0.15 / w, w), 1.0, "0.3 max(0, 1 - |x| / w)"),
    # Area 1.
    "rectangular": Surrogate(box, lambda w: (1.0 / w, w / 2), 1.0, "1 / w where |x| <= w / 2, else 0"),
}


def surrogate_named(name: str, width: float | None = None) -> tuple[Surrogate, float]:
    """Look up a surrogate and settle its width: the one given, or the table's.

    Raises `InvalidInput` for a name that is not in `SURROGATES` and for a width that is not a positive number.
    """
    if name not in SURROGATES:
        raise InvalidInput(
            f"There is no surrogate gradient {name!r}. Choose one of: {', '.join(SURROGATES)}."
        )
    found = SURROGATES[name]
    if width is None:
        return found, found.width
    if not 0 < width < float("inf"):
        raise InvalidInput(
            f"The width of surrogate {name!r} is {width}, but it must be a positive number "
            f"(leave it out for {found.width})."
        )
    return found, float(width)


def surrogate_gradient(x: Tensor, name: str, width: float | None = None) -> Tensor:
    """Evaluate g'(x) on a tensor of distances x = membrane - threshold, in its dtype."""
    found, settled = surrogate_named(name, width)
    p, q = found.coefficients(settled)
    gradient: Tensor = found.curve(x, x.new_tensor(p), x.new_tensor(q))
    return gradient


def digest(surrogate: Surrogate) -> str:
    """Fingerprint the curve's code, so that a kernel cached on disk is not used with another formula."""
    code = surrogate.curve.__code__
    return sha256(code.co_code + repr(code.co_consts).encode()).hexdigest()


class _Fire(torch.autograd.Function):
    """H(x) forward, g'(x) backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fires: str, name: str, width: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.name, ctx.width = name, width
        return (x >= 0 if fires == ">=" else x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return gradient * surrogate_gradient(x, ctx.name, ctx.width), None, None, None


def fire(x: Tensor, fires: str = ">=", surrogate: str = "atan", width: float | None = None) -> Tensor:
    """Spike where x = membrane - threshold is above 0, with the surrogate as its gradient.

    `fires` says whether a tie does: ">=" yes, ">" no. Between IEEE numbers u - theta >= 0 exactly where
    u >= theta, so the subtraction decides nothing by rounding.
    """
    _, settled = surrogate_named(surrogate, width)
    spikes: Tensor = _Fire.apply(x, fires, surrogate, settled)  # type: ignore[no-untyped-call]
    return spikes

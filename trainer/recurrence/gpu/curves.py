"""What the kernels share: the surrogate curves once more, ties, and what a call is given.

`unscan.trainer.surrogate` holds the formulas and their coefficients; Triton compiles only functions of its own,
so the four curves stand here a second time, and a test holds each against the first.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence.gpu import DTYPES
from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.surrogate import surrogate_named


@triton.jit
def slope(x: tl.tensor, curve: tl.constexpr, p: tl.constexpr, q: tl.constexpr) -> tl.tensor:
    """Evaluate the curve of that name in `unscan.trainer.surrogate` at a distance x, in x's dtype."""
    far = tl.abs(x)
    if curve == "bell":
        height = p / (q + x * x)
    elif curve == "cusp":
        height = p / ((q + far) * (q + far))
    elif curve == "tent":
        height = p * ((q - far) + tl.abs(q - far))
    else:
        tl.static_assert(curve == "box")
        height = tl.where(far <= q, tl.zeros_like(x) + p, 0.0)
    return height


@triton.jit
def fires(membrane: tl.tensor, threshold: tl.tensor, strict: tl.constexpr) -> tl.tensor:
    """Tell where a membrane fires; `strict` says that one exactly at the threshold does not."""
    return membrane > threshold if strict else membrane >= threshold


def curve_of(how: Firing) -> dict[str, Any]:
    """Name a neuron's curve and its coefficients, as the kernels take them."""
    found, width = surrogate_named(how.surrogate, how.width)
    p, q = found.coefficients(width)
    return {"curve": found.curve.__name__, "p": p, "q": q}


def raised(dtype: torch.dtype) -> torch.dtype:
    """Settle what membranes are kept in: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_sequence(name: str, x: Tensor) -> None:
    """Raise `InvalidInput` unless a tensor is one that the kernels can walk: of a known dtype, not empty."""
    if x.dtype not in DTYPES:
        known = ", ".join(str(dtype) for dtype in DTYPES)
        raise InvalidInput(
            f"The GPU kernels were given {name} as {x.dtype}, but they know {known} only. Convert it first."
        )
    if x.numel() == 0:
        raise InvalidInput(
            f"The GPU kernels were given an empty {name} of shape {tuple(x.shape)}, but they need at least one step "
            "of one neuron. Leave empty sequences out."
        )


def check_shape(name: str, value: Tensor, allowed: tuple[tuple[int, ...], ...], beside: Tensor) -> None:
    """Raise `InvalidInput` unless a tensor has one of the shapes and stands on the same device as `beside`."""
    if tuple(value.shape) not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise InvalidInput(
            f"The GPU kernels were given {name} of shape {tuple(value.shape)} beside a sequence of shape "
            f"{tuple(beside.shape)}, but {name} must have the shape {wanted}. Reshape or expand it."
        )
    if value.device != beside.device:
        raise InvalidInput(
            f"The GPU kernels were given {name} on {value.device} beside a sequence on {beside.device}. "
            "Move both to one device."
        )


def on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Launch kernels on the device that a tensor is on, whichever is the current one."""
    return torch.cuda.device_of(x)  # type: ignore[no-untyped-call]

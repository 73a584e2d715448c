"""The recurrence of a diagonal state-space model: meaning, convolution and kernels, and which of them runs."""

import torch
from torch import Tensor

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence.diagonal.convolution import diagonal_fft
from unscan.trainer.recurrence.diagonal.fused import diagonal_fused
from unscan.trainer.recurrence.diagonal.naive import diagonal_loop
from unscan.trainer.recurrence.fused import runs_fused
from unscan.trainer.recurrence.naive import check_choice

FORMS = ("auto", "fused", "fft", "loop")
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def settle_form(form: str, x: Tensor) -> str:
    """Turn "auto" into a form: "fused" where the kernels run, float32 and float64 on the CPU; elsewhere "fft".

    The kernels' time grows with M, the transform's with log T. Forward and backward on one core with AVX-512, T from
    784 to 8192: at M = 32 the kernels are 8 to 10 times faster (benchmarks/state_space.py), at M = 128 and a batch of
    50 twice as fast, at M = 256 equal. With a batch of 4 they are still 3 times faster at M = 256 and 512, since
    making K takes most of the convolution's time. Ask for "fft" where M is above 256 and the batch is large.
    """
    if form in ("loop", "fft"):
        return form
    return "fused" if runs_fused(x) else "fft"


def _check(x: Tensor, a: Tensor, c: Tensor, state: Tensor | None, skip: Tensor | None) -> None:
    """Raise `InvalidInput` unless everything fits together."""
    kind = COMPLEX.get(x.dtype)
    if kind is None:
        raise InvalidInput(
            f"The diagonal recurrence got an input of {x.dtype}, but it is computed in float32 or float64: x.float()."
        )
    if x.dim() < 2 or x.numel() == 0:
        raise InvalidInput(
            f"The diagonal recurrence got an input of shape {tuple(x.shape)}, but a sequence is (T, B, H), time "
            f"first, with at least one step, one sample and one channel."
        )
    if a.dim() != 2 or a.shape != c.shape or a.shape[0] != x.shape[-1] or a.shape[1] == 0:
        raise InvalidInput(
            f"The decays a have shape {tuple(a.shape)} and the coefficients c {tuple(c.shape)}, but for an input "
            f"{tuple(x.shape)} both are ({x.shape[-1]}, M): one row for each channel, one column for each state."
        )
    wanted = {"decays a": (a, a.shape), "coefficients c": (c, a.shape)}
    if state is not None:
        wanted["state"] = (state, torch.Size((*x.shape[1:], a.shape[1])))
    for name, (given, shape) in wanted.items():
        if given.dtype != kind or given.shape != shape:
            raise InvalidInput(
                f"The {name} of the diagonal recurrence: got {given.dtype} {tuple(given.shape)}, but an input of "
                f"{x.dtype} {tuple(x.shape)} needs {kind} {tuple(shape)}."
            )
    if skip is not None and (skip.dtype != x.dtype or skip.shape != x.shape[-1:]):
        raise InvalidInput(
            f"The skip of the diagonal recurrence: got {skip.dtype} {tuple(skip.shape)}, but an input of {x.dtype} "
            f"{tuple(x.shape)} needs {x.dtype} {tuple(x.shape[-1:])}."
        )
    if a.device.type == "cpu" and not (a.isfinite().all() and c.isfinite().all()):
        raise InvalidInput(
            "The decays a or the coefficients c of the diagonal recurrence are NaN or infinite. Training diverged "
            "before this call: lower the learning rate, clip gradients, or go back to a checkpoint."
        )


def diagonal(
    x: Tensor,
    a: Tensor,
    c: Tensor,
    state: Tensor | None = None,
    *,
    skip: Tensor | None = None,
    form: str = "auto",
    state_after: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Run a sequence through H channels of M complex states each: outputs y, and the last state if asked for.

        h_t,n = a_n h_t-1,n + x_t        y_t = 2 Re sum_n c_n h_t,n + skip x_t

    x (T, ..., H) float32 or float64; a and c (H, M), complex, 0 < |a| <= 1; skip (H) or None for 0; state
    (..., H, M), complex, or None for zeros. Gradients flow to all of them, also from the last state.
    form: "fused", the kernels of `fused`, on the CPU (elsewhere the same as "fft"); "fft", a convolution;
    "loop", plain steps; "auto", see `settle_form`. All are equal up to rounding.

    Source: papers/003, equations 5-7. Raises `InvalidInput` for what does not fit together.
    """
    check_choice("form", form, FORMS)
    _check(x, a, c, state, skip)
    settled = settle_form(form, x)
    if settled == "loop":
        return diagonal_loop(x, a, c, skip, state)
    run = diagonal_fused if settled == "fused" else diagonal_fft
    return run(x, a, c, skip, state, state_after)

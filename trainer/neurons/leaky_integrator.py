"""The leaky integrator: a readout that adds up its input, forgets, and never fires."""

from typing import ClassVar

import torch
from torch import Tensor

from unscan.trainer.neurons.base import Decaying, Values, answer, raised
from unscan.trainer.recurrence.convolution import convolve_direct, convolve_fft
from unscan.trainer.recurrence.fused import runs_fused
from unscan.trainer.recurrence.naive import CHOICES, check_choice, drive, li_step
from unscan.trainer.recurrence.scan import scan

FORMS = ("auto", "fft", "direct", "scan")


def settle_form(form: str, x: Tensor) -> str:
    """Turn "auto" into a form: scan where the kernels run (float32 and float64 on the CPU), where it is fastest
    at every length; else fft for these two types, and direct for the others, which have no transform.
    """  # fmt: skip
    if form != "auto":
        return form
    if runs_fused(x):
        return "scan"
    return "fft" if x.dtype in (torch.float32, torch.float64) else "direct"


def convolved(driven: Tensor, state: Tensor | None, beta: Tensor, form: str) -> Tensor:
    """Run a sequence as a convolution, its kernel cut where the rest is below rounding of the largest input."""
    convolve = convolve_fft if form == "fft" else convolve_direct
    return convolve(driven, state, beta, tolerance=torch.finfo(driven.dtype).eps)


class LeakyIntegrator(Decaying):
    """Integrate and leak.

        u_t = beta u_{t-1} + gain x_t        gain = 1, or 1 - beta

    channels: C. beta in [0, 1]: one number, or C of them. form: as in `StateLeaky`.
    Raises `InvalidInput` for an option, number or shape that does not fit.
    """

    gives_membrane: ClassVar[bool] = True
    """Whether what it returns is its membrane."""

    def __init__(
        self,
        channels: int,
        beta: Values = 0.9,
        *,
        gain: str = "1",
        learn_beta: bool = False,
        form: str = "auto",
    ) -> None:
        super().__init__(channels, beta, learn_beta)
        check_choice("gain", gain, CHOICES["gain"])
        check_choice("form", form, FORMS)
        self.gain, self.form = gain, form

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, return_state: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to all u_t, and the last one where asked for."""
        x = raised(x)
        start = self._sequence(x, state)
        beta = self.beta.to(x.dtype)
        driven, form = drive(x, beta, self.gain), settle_form(self.form, x)
        u = scan(driven, start, beta) if form == "scan" else convolved(driven, start, beta, form)
        return answer(u, None, u[-1] if return_state else None)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, C), state (B, C) or None for zeros, to u (B, C) and the next state, the same u."""
        beta = self.beta.to(x.dtype)
        u = li_step(drive(x, beta, self.gain), self._state(x, state), beta)
        return u, u

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, gain={self.gain!r}, form={self.form!r}"

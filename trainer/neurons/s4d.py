"""S4D-Lin: a linear state-space model for each channel, its state diagonal, trained as a whole sequence at once."""

import math

import torch
from torch import Tensor, nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import raised
from unscan.trainer.recurrence.diagonal import COMPLEX, FORMS, diagonal
from unscan.trainer.recurrence.diagonal.naive import diagonal_step, diagonal_step_pairs
from unscan.trainer.recurrence.naive import check_choice

Pair = tuple[Tensor, Tensor]


class S4D(nn.Module):
    """Filter each channel h of H with a diagonal state-space model of N states, kept as M = N / 2 complex ones.

        h_n <- exp(dt A_n) h_n + x        y = 2 Re sum_n C_n (exp(dt A_n) - 1) / A_n h_n + D x

    which over a whole sequence is y = K * x + D x, K_l = 2 Re sum_n C_n (exp(dt A_n) - 1) / A_n exp(dt A_n l).
    All that is learned is stored as it is learned: log_dt (H), log_A_real (H, M) with Re A = -exp(log_A_real),
    A_imag (H, M), C (H, M, 2) as pairs of reals, D (H). It starts from A_n = -1/2 + i pi n, dt log-uniform in
    (dt_min, dt_max), C complex normal of variance 1, D normal. Time is in steps, so dt has no unit.

    channels: H. states: N, even. form: how a sequence is computed, see `recurrence.diagonal.diagonal`.
    `coefficients` gives the numbers of the step, which are those to deploy.

    Source: papers/003, equations 5-7, and its supplement, table 1; the initialisation is S4D-Lin's.
    Raises `InvalidInput` for an option, number or shape that does not fit.
    """

    def __init__(
        self,
        channels: int,
        states: int = 64,
        *,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        form: str = "auto",
    ) -> None:
        super().__init__()
        for name, number in (("channels", channels), ("states", states)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InvalidInput(f"S4D has {name}={number!r}, but it needs a whole number from 1 up.")
        if states % 2:
            raise InvalidInput(
                f"S4D has states={states}, but they come in conjugate pairs: give an even number, such as {states + 1}."
            )
        if not 0 < dt_min <= dt_max < math.inf:
            raise InvalidInput(
                f"S4D has dt_min={dt_min!r} and dt_max={dt_max!r}, but it needs 0 < dt_min <= dt_max, both finite."
            )
        check_choice("form", form, FORMS)
        self.channels, self.states, self.form = channels, states, form
        modes = states // 2
        low, high = math.log(dt_min), math.log(dt_max)
        self.log_dt = nn.Parameter(torch.rand(channels) * (high - low) + low)
        self.log_A_real = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        self.A_imag = nn.Parameter((math.pi * torch.arange(modes)).repeat(channels, 1))
        self.C = nn.Parameter(torch.randn(channels, modes, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(channels))

    def slow_parameters(self) -> list[nn.Parameter]:
        """List the parameters that learn at a rate of their own and without weight decay: those of dt and A."""
        return [self.log_dt, self.log_A_real, self.A_imag]

    def coefficients(self, dtype: torch.dtype, scale: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers of a step: a = exp(dt A) and c = C (a - 1) / A, complex (H, M), and D (H), for real `dtype`.

        They are worked out in float64 and then rounded, since a - 1 is a small difference. `scale` (H) multiplies
        the output, that is c and D.
        """
        A = torch.complex(-self.log_A_real.double().exp(), self.A_imag.double())
        grown = A * self.log_dt.double().exp().unsqueeze(-1)
        a = grown.exp()
        c = torch.view_as_complex(self.C.double()) * (a - 1) / A
        skip = self.D.double()
        if scale is not None:
            c, skip = c * scale.unsqueeze(-1), skip * scale
        return a.to(COMPLEX[dtype]), c.to(COMPLEX[dtype]), skip.to(dtype)

    def _checked(self, x: Tensor, least: int) -> None:
        if x.dim() < least or x.shape[-1] != self.channels or x.numel() == 0 or x.dtype not in COMPLEX:
            wanted = f"(T, B, {self.channels}), time first" if least == 2 else f"(B, {self.channels})"
            raise InvalidInput(
                f"S4D of {self.channels} channels got {x.dtype} {tuple(x.shape)}, but it takes float32 or float64, "
                f"{wanted}, with at least one number in it."
            )

    def _state(self, x: Tensor, state: Tensor | None) -> Tensor:
        shape, kind = (*x.shape, self.states // 2), COMPLEX[x.dtype]
        if state is None:
            return torch.zeros(shape, dtype=kind, device=x.device)
        if state.shape != shape or not state.is_complex():
            raise InvalidInput(
                f"S4D got a state of {state.dtype} {tuple(state.shape)}, but a step of the input {tuple(x.shape)} "
                f"needs {kind} {shape}. Hand in what the last call returned, or None to start from zeros."
            )
        return state.to(kind)

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_state: bool = False,
        scale: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run a sequence: x (T, B, H), or any (T, ..., H), to y of the same shape, and the state where asked for.

        state (..., H, M) complex, or None for zeros. scale (H) multiplies y, at no cost.
        """
        x = raised(x)
        self._checked(x, 2)
        start = None if state is None else self._state(x[0], state)
        a, c, skip = self.coefficients(x.dtype, scale)
        y, last = diagonal(x, a, c, start, skip=skip, form=self.form, state_after=return_state)
        return y if last is None or not return_state else (y, last)

    def step(
        self, x: Tensor, state: Tensor | None = None, *, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, H), state (B, H, M) complex or None for zeros, to y (B, H) and the next state."""
        self._checked(x, 1)
        a, c, skip = self.coefficients(x.dtype, scale)
        return diagonal_step(x, self._state(x, state), a, c, skip)

    def step_pairs(
        self, x: Tensor, state: Pair | None = None, *, scale: Tensor | None = None
    ) -> tuple[Tensor, Pair]:
        """Do what `step` does in real numbers: the state is a pair (Re h, Im h) of (B, H, M)."""
        self._checked(x, 1)
        given = self._state(x, None if state is None else torch.complex(*state))
        a, c, skip = self.coefficients(x.dtype, scale)
        pairs = torch.view_as_real(a), torch.view_as_real(c)
        return diagonal_step_pairs(x, (given.real, given.imag), *pairs, skip)

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, states={self.states}, form={self.form!r}"

"""The leaky integrate-and-fire neuron with its reset, trained exactly: no approximation, and no loop in Python."""

import torch
from torch import Tensor

from unscan.trainer.neurons.base import SpikingLeaky, Values, answer, raised
from unscan.trainer.recurrence.fused import lif
from unscan.trainer.recurrence.naive import Firing, check_choice, lif_loop, lif_step


class Leaky(SpikingLeaky):
    """Integrate, leak, fire, reset.

        m_t = beta u_{t-1} + I_t        s_t = H(m_t - theta)        u_t = m_t | m_t - theta s_t | m_t (1 - s_t)

    for reset none | subtract | zero, with I_t = x_t, or (1 - beta) x_t where `gain` is "1-beta". With `phase`
    "next" the spike of the step before resets: m_t = u_t = beta u_{t-1} + I_t - theta s_{t-1}, or
    (beta u_{t-1} + I_t)(1 - s_{t-1}), where s_{t-1} is read off u_{t-1}. `fires` says whether a tie does.

    channels: C. beta in [0, 1] and threshold > 0: one number, or C of them; a number that learns is shared, C
    of them learn apart. surrogate, surrogate_width: see `unscan.trainer.surrogate.SURROGATES`.
    backward: "bptt", the full gradient through membrane and reset (the reset's spike is differentiated with
    the surrogate too), or "sltt", none through what comes from the step before.
    form: "fused", or "loop", the same in plain torch. On other devices and in other types than float32 and
    float64 both run the loop.

    Source: papers/003, equations 1-4; supplement, equations 1-14.
    Raises `InvalidInput` for an option, number or shape that does not fit.
    """

    def __init__(
        self,
        channels: int,
        beta: Values = 0.9,
        threshold: Values = 1.0,
        reset: str = "zero",
        *,
        phase: str = "now",
        fires: str = ">=",
        gain: str = "1",
        learn_beta: bool = False,
        learn_threshold: bool = False,
        surrogate: str = "atan",
        surrogate_width: float | None = None,
        backward: str = "bptt",
        form: str = "fused",
    ) -> None:
        super().__init__(channels, beta, threshold, learn_beta, learn_threshold)
        check_choice("form", form, ("fused", "loop"))
        self.how = Firing(reset, phase, fires, gain, surrogate, surrogate_width, backward)
        self.reset, self.phase, self.fires, self.gain = reset, phase, fires, gain
        self.surrogate, self.surrogate_width = surrogate, surrogate_width
        self.backward_through, self.form = backward, form

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes of the same shape.

        Returned after the spikes where asked for: the membranes before reset m (T, B, C), then the state u_T
        (B, C), which continues the sequence when handed in. Gradients flow through all three.
        """
        x = raised(x)
        u = self._sequence(x, state)
        beta, threshold = self.beta.to(x.dtype), self.threshold.to(x.dtype)
        membrane: Tensor | None
        last: Tensor | None
        if self.form == "loop":
            start = torch.zeros_like(x[0]) if u is None else u
            spikes, membrane, last = lif_loop(x, start, beta, threshold, self.how)
        else:
            spikes, membrane, last = lif(
                x, u, beta, threshold, self.how, membrane=return_membrane, state_after=return_state
            )
        return answer(spikes, membrane if return_membrane else None, last if return_state else None)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, C), state (B, C) or None for zeros, to spikes (B, C) and the next state."""
        u = self._state(x, state)
        spikes, _, last = lif_step(x, u, self.beta.to(x.dtype), self.threshold.to(x.dtype), self.how)
        return spikes, last

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, reset={self.reset!r}, phase={self.phase!r}, fires={self.fires!r}, form={self.form!r}"

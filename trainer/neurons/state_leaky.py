"""The leaky neuron without a reset: linear in its input up to the threshold, so a whole sequence is one scan."""

from torch import Tensor

from unscan.trainer.neurons.base import SpikingLeaky, Values, answer, raised
from unscan.trainer.neurons.leaky_integrator import FORMS, convolved, settle_form
from unscan.trainer.recurrence.fused import lif
from unscan.trainer.recurrence.naive import Firing, check_choice, drive, lif_step


class StateLeaky(SpikingLeaky):
    """Integrate, leak and fire, with no reset.

        u_t = sum_k beta^k I_{t-k}, that is beta u_{t-1} + I_t        s_t = H(u_t - theta)

    with I_t = x_t, or (1 - beta) x_t where `gain` is "1-beta". Numbers, surrogate and `fires` as in `Leaky`.
    form: how a sequence is computed. "scan", one pass with the threshold in it; "fft" or "direct", a causal
    convolution, whose kernel is cut where what is dropped is below the rounding of the largest input (see
    `recurrence.convolution`); "auto", the form named by `leaky_integrator.settle_form`.
    All are equal up to rounding; a membrane within rounding of the threshold may fire in one and not another.

    Source: papers/000 and 001 (generation 1). Raises `InvalidInput` for what does not fit.
    """

    def __init__(
        self,
        channels: int,
        beta: Values = 0.9,
        threshold: Values = 1.0,
        *,
        fires: str = ">=",
        gain: str = "1",
        learn_beta: bool = False,
        learn_threshold: bool = False,
        surrogate: str = "atan",
        surrogate_width: float | None = None,
        form: str = "auto",
    ) -> None:
        super().__init__(channels, beta, threshold, learn_beta, learn_threshold)
        check_choice("form", form, FORMS)
        self.how = Firing("none", "now", fires, gain, surrogate, surrogate_width)
        self.reset, self.phase, self.fires, self.gain = "none", "now", fires, gain
        self.surrogate, self.surrogate_width, self.form = surrogate, surrogate_width, form

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes; membranes and last state where asked for."""
        x = raised(x)
        u = self._sequence(x, state)
        beta, threshold = self.beta.to(x.dtype), self.threshold.to(x.dtype)
        form = settle_form(self.form, x)
        membrane: Tensor | None
        last: Tensor | None
        if form == "scan":
            spikes, membrane, last = lif(
                x, u, beta, threshold, self.how, membrane=return_membrane, state_after=return_state
            )
        else:
            membrane = convolved(drive(x, beta, self.gain), u, beta, form)
            spikes, last = self.how.fire(membrane, threshold), membrane[-1]
        return answer(spikes, membrane if return_membrane else None, last if return_state else None)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, C), state (B, C) or None for zeros, to spikes (B, C) and the next state."""
        u = self._state(x, state)
        spikes, _, last = lif_step(x, u, self.beta.to(x.dtype), self.threshold.to(x.dtype), self.how)
        return spikes, last

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, fires={self.fires!r}, gain={self.gain!r}, form={self.form!r}"

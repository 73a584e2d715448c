"""The leaky integrate-and-fire neuron behind a synaptic current that leaks too, trained exactly."""

from torch import Tensor

from unscan.trainer.neurons.base import Values, raised
from unscan.trainer.neurons.paired import PairedNeuron, State, pair_answer
from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.recurrence.synaptic import synaptic, synaptic_step


class Synaptic(PairedNeuron):
    """Smooth the input into a current, integrate it, leak, fire, reset.

        i_t = alpha i_{t-1} + x_t        m_t = beta u_{t-1} + i_t        s_t = H(m_t - theta)
        u_t = m_t | m_t - theta s_t | m_t (1 - s_t)        for reset none | subtract | zero

    alpha and beta in [0, 1] and threshold > 0: one number, or C of them; each learns where told. `phase`, `gain` (on
    i_t), `fires` and the surrogate as in `Leaky`. The current is a scan and the neuron the fused kernel of `Leaky`;
    what they cannot take runs as a loop. The state is (i, u), each (B, C).

    Source: NIR's CubaLIF and snnTorch's Synaptic, in steps. Raises `InvalidInput` for what does not fit.
    """

    def __init__(
        self,
        channels: int,
        alpha: Values = 0.8,
        beta: Values = 0.9,
        threshold: Values = 1.0,
        reset: str = "zero",
        *,
        phase: str = "now",
        fires: str = ">=",
        gain: str = "1",
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        surrogate: str = "atan",
        surrogate_width: float | None = None,
    ) -> None:
        super().__init__(channels, beta, threshold, learn_beta, learn_threshold)
        self._store("alpha", alpha, learn_alpha, 0.0, 1.0)
        self.how = Firing(reset, phase, fires, gain, surrogate, surrogate_width)
        self.reset, self.phase, self.fires, self.gain = reset, phase, fires, gain
        self.surrogate, self.surrogate_width = surrogate, surrogate_width

    @property
    def alpha(self) -> Tensor:
        """The decay of the current in one step, () or (C,), in [0, 1]."""
        return self._bounded("alpha", 0.0, 1.0)

    def _numbers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.alpha.to(x.dtype), self.beta.to(x.dtype), self.threshold.to(x.dtype)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor | State, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes of the same shape.

        Returned after the spikes where asked for: the membranes before reset m (T, B, C), then the state (i, u),
        which continues the sequence when handed in. Gradients flow through all of them.
        """
        x = raised(x)
        self._sequence(x, None)
        pair = self._pair(x[0], state)
        spikes, membrane, last = synaptic(x, pair, *self._numbers(x), self.how, membrane=return_membrane)
        return pair_answer(spikes, membrane if return_membrane else None, last if return_state else None)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Advance by one step: x (B, C), state (i, u) or None for zeros, to spikes (B, C) and the next state."""
        spikes, _, last = synaptic_step(x, self._pair_or_zeros(x, state), *self._numbers(x), self.how)
        return spikes, last

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, reset={self.reset!r}, phase={self.phase!r}, fires={self.fires!r}"

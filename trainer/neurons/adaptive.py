"""The leaky integrate-and-fire neuron that tires: each spike raises its threshold for a while. Trained exactly."""

import torch
from torch import Tensor

from unscan.trainer.neurons.base import Values, raised
from unscan.trainer.neurons.paired import PairedNeuron, State, pair_answer
from unscan.trainer.recurrence.adaptive import adaptive, adaptive_step
from unscan.trainer.recurrence.naive import Firing


class AdaptiveLeaky(PairedNeuron):
    """Integrate, leak, fire at a threshold that follows the neuron's own spikes, reset.

        m_t = beta u_{t-1} + x_t        s_t = H(m_t - (theta + kappa a_{t-1}))        a_t = rho a_{t-1} + s_t
        u_t = m_t | m_t - theta s_t | m_t (1 - s_t)        for reset none | subtract | zero

    The reset takes away theta, not the raised threshold. beta and rho in [0, 1], threshold and kappa > 0: one
    number, or C of them; each learns where told. Publications that average the spikes have
    a_t = rho a_{t-1} + (1 - rho) s_t, and kappa / (1 - rho) where this has kappa. `fires` and the surrogate as in
    `Leaky`; the gradient is the full one.
    Sequences run in one fused kernel, other devices and types than float32 and float64 on the CPU in the loop.
    The state is (u, a), each (B, C).

    Source: Bellec et al. 2018; Yin, Corradi and Bohté 2021. Raises `InvalidInput` for what does not fit.
    """

    def __init__(
        self,
        channels: int,
        beta: Values = 0.9,
        threshold: Values = 1.0,
        reset: str = "subtract",
        *,
        kappa: Values = 0.05,
        rho: Values = 0.97,
        fires: str = ">=",
        learn_beta: bool = False,
        learn_threshold: bool = False,
        learn_kappa: bool = False,
        learn_rho: bool = False,
        surrogate: str = "atan",
        surrogate_width: float | None = None,
    ) -> None:
        super().__init__(channels, beta, threshold, learn_beta, learn_threshold)
        self._store("kappa", kappa, learn_kappa, torch.finfo(torch.float32).tiny, None)
        self._store("rho", rho, learn_rho, 0.0, 1.0)
        self.how = Firing(reset, "now", fires, "1", surrogate, surrogate_width)
        self.reset, self.phase, self.fires, self.gain = reset, "now", fires, "1"
        self.surrogate, self.surrogate_width = surrogate, surrogate_width

    @property
    def kappa(self) -> Tensor:
        """How far one spike raises the threshold, () or (C,), greater than 0."""
        return self._bounded("kappa", torch.finfo(torch.float32).tiny, None)

    @property
    def rho(self) -> Tensor:
        """The decay of that in one step, () or (C,), in [0, 1]."""
        return self._bounded("rho", 0.0, 1.0)

    def _numbers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        beta, threshold, kappa, rho = self.beta, self.threshold, self.kappa, self.rho
        return beta.to(x.dtype), threshold.to(x.dtype), kappa.to(x.dtype), rho.to(x.dtype)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor | State, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes of the same shape.

        Returned after the spikes where asked for: the membranes before reset m (T, B, C), then the state (u, a),
        which continues the sequence when handed in. Gradients flow through all of them.
        """
        x = raised(x)
        self._sequence(x, None)
        pair = self._pair(x[0], state)
        spikes, membrane, last = adaptive(x, pair, self._numbers(x), self.how, membrane=return_membrane)
        return pair_answer(spikes, membrane if return_membrane else None, last if return_state else None)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Advance by one step: x (B, C), state (u, a) or None for zeros, to spikes (B, C) and the next state."""
        spikes, _, last = adaptive_step(x, self._pair_or_zeros(x, state), self._numbers(x), self.how)
        return spikes, last

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, reset={self.reset!r}, fires={self.fires!r}"

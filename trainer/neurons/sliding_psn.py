"""The sliding parallel spiking neuron: a threshold on a weighted sum of the last few inputs."""

import torch
from torch import Tensor, nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import Values, answer, raised
from unscan.trainer.neurons.thresholded import Thresholded
from unscan.trainer.recurrence.fir import fir, fir_step


class SlidingPSN(Thresholded):
    """Weigh the last k inputs, and fire; no reset.

        u_t = sum over i < k of w_i x_{t-i}        s_t = H(u_t - theta)

    channels: C. order: k, the number of inputs that count, the present one included. beta in [0, 1] is where the
    weights start, w_i = beta^i, the kernel of `StateLeaky` cut after k taps; they learn freely from there unless
    `learn_weight` is false. With one beta the weights `weight` are (k,), shared by all channels; with C of them they
    are (C, k). All else as in `Leaky`. The state is the last k - 1 inputs, (k - 1, B, C), oldest first.

    Source: Fang et al. 2024, the sliding form (papers/003, related work, has the neuron's full form). Raises
    `InvalidInput` for an option, number or shape that does not fit, and for weights that have become NaN.
    """

    def __init__(
        self,
        channels: int,
        order: int = 8,
        beta: Values = 0.5,
        threshold: Values = 1.0,
        *,
        fires: str = ">=",
        learn_weight: bool = True,
        learn_threshold: bool = False,
        surrogate: str = "atan",
        surrogate_width: float | None = None,
    ) -> None:
        super().__init__(channels, threshold, fires, learn_threshold, surrogate, surrogate_width)
        if isinstance(order, bool) or not isinstance(order, int) or order < 1:
            raise InvalidInput(f"{self._name} has order={order!r}, but it needs a whole number from 1 up.")
        self.order = order
        start = self._checked("beta", beta, 0.0, 1.0)[..., None] ** torch.arange(order)
        self.weight = nn.Parameter(start, requires_grad=learn_weight)

    def _weight(self, x: Tensor) -> Tensor:
        if self.weight.device.type == "cpu" and self.weight.isnan().any():
            raise InvalidInput(
                f"{self._name}: a weight has become NaN. Training diverged before this call: lower the learning rate, "
                f"clip gradients, or go back to a checkpoint."
            )
        return self.weight.to(x.dtype)

    def _before(self, lanes: Tensor, state: Tensor | None) -> Tensor:
        """Check what was handed in as the last k - 1 inputs, for inputs of one step like `lanes`; None is zeros."""
        self._given(lanes, None)
        wanted = (self.order - 1, *lanes.shape)
        if state is None:
            return lanes.new_zeros(wanted)
        if state.shape != wanted:
            raise InvalidInput(
                f"{self._name}: the state has shape {tuple(state.shape)}, but the last {self.order - 1} inputs have "
                f"{wanted}. Hand in what the last call returned, or None to start from zeros."
            )
        return state.to(lanes.dtype)

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes; the sums u and the last state where asked for."""
        x = raised(x)
        self._sequence(x, None)
        before = self._before(x[0], state)
        membrane = fir(x, before, self._weight(x))
        spikes = self.how.fire(membrane, self.threshold.to(x.dtype))
        recent = torch.cat((before, x[-self.order :]))
        last = recent[recent.shape[0] - before.shape[0] :] if return_state else None
        return answer(spikes, membrane if return_membrane else None, last)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, C), state (k - 1, B, C) or None for zeros, to spikes (B, C) and the next state."""
        membrane, last = fir_step(x, self._before(x, state), self._weight(x))
        return self.how.fire(membrane, self.threshold.to(x.dtype)), last

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, order={self.order}, fires={self.fires!r}"

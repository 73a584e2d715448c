"""A linear layer whose outputs feed reset-free leaky neurons: the first generation's layer as one module."""

from typing import Any

from torch import Tensor, nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import Values
from unscan.trainer.neurons.state_leaky import StateLeaky


class LinearLeaky(nn.Module):
    """Linear, then `StateLeaky`: s = H(h * (W x + b) - theta).

    in_features, out_features, bias: of the linear layer. All other settings go to the neuron, which has
    out_features channels. `.linear` and `.neuron` are the two parts.
    Source: papers/000 and 001 (generation 1).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        beta: Values = 0.9,
        threshold: Values = 1.0,
        bias: bool = True,
        **neuron: Any,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.neuron = StateLeaky(out_features, beta, threshold, **neuron)

    def _current(self, x: Tensor) -> Tensor:
        wanted = self.linear.in_features
        if x.dim() == 0 or x.shape[-1] != wanted:
            raise InvalidInput(
                f"LinearLeaky takes {wanted} features, but its input has shape {tuple(x.shape)}: "
                f"a step is (B, {wanted}), a sequence (T, B, {wanted})."
            )
        current: Tensor = self.linear(x)
        return current

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, in) to spikes (T, B, out); membranes and last state where asked for."""
        return self.neuron.forward(
            self._current(x), state, return_membrane=return_membrane, return_state=return_state
        )

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, in), state (B, out) or None for zeros, to spikes (B, out) and the next state."""
        return self.neuron.step(self._current(x), state)

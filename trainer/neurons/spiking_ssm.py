"""The block of a SpikingSSM: a state-space model drives spiking neurons, whose spikes a linear layer mixes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unscan.compiler.errors import InvalidInput
from unscan.trainer.dropout import SequenceDropout
from unscan.trainer.neurons.leaky import Leaky
from unscan.trainer.neurons.s4d import S4D
from unscan.trainer.norm import SequenceBatchNorm
from unscan.trainer.recurrence.naive import check_choice

State = tuple[Tensor, Any]


class SpikingSSM(nn.Module):
    """Filter, fire, mix, and add to the input.

        z = norm(x)        i = S4D(z) / v_th        s = neuron(i)        y = x + GLU(W s + b)

    with dropout on s and on the output of the GLU. v_th = exp(ln_vth), one for each channel, is 1 at first; it is
    divided out of the filter's own numbers, so it costs nothing. S4D has the skip D z in it; W is (2 H, H).

    channels: H. states: N of the filter. threshold: "fixed", v_th stays 1 (the paper's VF), or "learned" (VT).
    neuron: what turns currents (T, B, H) into spikes, with `step`; None is the exact neuron of the paper,
    tau = 0.125, threshold 1, reset to zero, a tie fires, piecewise quadratic surrogate.
    norm: "none", "batch" (over time and batch, see `SequenceBatchNorm`) or "layer" (each step over its channels).
    dropout: the probability of each of the two, whose masks stay for a sequence (see `SequenceDropout`). dt_min,
    dt_max, form: see `S4D`.

    Source: papers/003, equations 5-9, "Spiking S4 Block", and supplement, equations 20-25. Raises `InvalidInput`
    for an option, number or shape that does not fit.
    """

    def __init__(
        self,
        channels: int,
        states: int = 64,
        *,
        neuron: nn.Module | None = None,
        threshold: str = "fixed",
        norm: str = "none",
        dropout: float = 0.0,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        form: str = "auto",
    ) -> None:
        super().__init__()
        check_choice("threshold", threshold, ("fixed", "learned"))
        check_choice("norm", norm, ("none", "batch", "layer"))
        if not 0 <= dropout < 1:
            raise InvalidInput(f"SpikingSSM has dropout={dropout!r}, but it must be from 0 up to, not at, 1.")
        self.ssm = S4D(channels, states, dt_min=dt_min, dt_max=dt_max, form=form)
        self.channels, self.threshold = channels, threshold
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = SequenceBatchNorm(channels)
        elif norm == "layer":
            self.norm = nn.LayerNorm(channels)
        self.ln_vth: nn.Parameter | None = None
        if threshold == "learned":
            self.ln_vth = nn.Parameter(torch.zeros(channels))
        self.neuron: Any = _settled(neuron, channels)
        self.mix = nn.Linear(channels, 2 * channels)
        self.drop = SequenceDropout(dropout)

    def slow_parameters(self) -> list[nn.Parameter]:
        """List the parameters that learn at a rate of their own and without weight decay: see `S4D`."""
        return self.ssm.slow_parameters()

    def _scale(self) -> Tensor | None:
        """1 / v_th, (H), or None where it stays 1."""
        return None if self.ln_vth is None else (-self.ln_vth.double()).exp()

    def _mixed(self, x: Tensor, spikes: Tensor) -> Tensor:
        mixed: Tensor = self.drop(functional.glu(self.mix(self.drop(spikes)), -1))
        return x + mixed

    def forward(
        self, x: Tensor, state: State | None = None, *, return_state: bool = False
    ) -> Tensor | tuple[Tensor, State]:
        """Run a sequence: x (T, B, H) to y (T, B, H), and the state (of the filter, of the neuron) where asked for."""
        filtered, fired = _parts(state)
        scale = self._scale()
        if not return_state:
            currents = self.ssm(self.norm(x), filtered, scale=scale)
            return self._mixed(x, self.neuron(currents, fired))
        currents, filtered = self.ssm(self.norm(x), filtered, scale=scale, return_state=True)
        spikes, fired = self.neuron(currents, fired, return_state=True)
        return self._mixed(x, spikes), (filtered, fired)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Advance by one step: x (B, H) to y (B, H) and the next state; None starts from rest.

        It is the sequence, step by step, in evaluation: in training the dropout's masks, and the means and variances of
        a batch norm, are drawn from what each call sees.
        """
        filtered, fired = _parts(state)
        current, filtered = self.ssm.step(self.norm(x), filtered, scale=self._scale())
        spikes, fired = self.neuron.step(current, fired)
        return self._mixed(x, spikes), (filtered, fired)


def _parts(state: State | None) -> tuple[Tensor | None, Any]:
    """The state of the filter and that of the neuron."""
    if state is None:
        return None, None
    if not isinstance(state, tuple) or len(state) != 2:
        raise InvalidInput(
            f"SpikingSSM got a state of type {type(state).__name__}, but it is a pair: the filter's state and the "
            f"neuron's. Hand in what the last call returned, or None to start from rest."
        )
    return state


def _settled(neuron: nn.Module | None, channels: int) -> nn.Module:
    """The neuron given, once checked, or the paper's."""
    if neuron is None:
        return Leaky(
            channels, 0.125, 1.0, "zero", fires=">=", surrogate="piecewise_quadratic", surrogate_width=1.0
        )
    if not callable(getattr(neuron, "step", None)):
        raise InvalidInput(
            f"SpikingSSM got neuron={type(neuron).__name__}, which has no step: it could be trained, but not deployed. "
            f"Give a spiking layer, such as Leaky({channels})."
        )
    own = getattr(neuron, "channels", channels)
    if own != channels:
        raise InvalidInput(
            f"SpikingSSM has {channels} channels, but its neuron {type(neuron).__name__} has {own}. They must be equal."
        )
    return neuron

"""What every neuron layer shares: numbers that stay in bounds, sequences and states of the right shape."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unscan.compiler.errors import InvalidInput

Values = float | Sequence[float] | Tensor


def _has_nan(values: Tensor) -> bool:
    """Tell whether a number is NaN. One number is looked at in Python, which takes a third of the time."""
    return math.isnan(values.item()) if values.numel() == 1 else bool(values.isnan().any())


class _Bound(torch.autograd.Function):
    """Clamp forward; pass the gradient backward unchanged, so that a number at its bound can leave it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float | None) -> Tensor:
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class Neuron(nn.Module):
    """A layer of C neurons with numbers that stay in bounds.

    The stored number is the deployed one: nothing is re-parametrised, so float32 weights read as float64 are
    the same model. While it learns, a number may be stepped past its bound; what is used is the bound.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise InvalidInput(
                f"{self._name} has channels={channels!r}, but it needs a whole number from 1 up."
            )
        self.channels = channels

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _checked(self, name: str, values: Values, low: float, high: float | None) -> Tensor:
        """Check one number, or one per channel, against its bounds, and return a tensor of its own."""
        try:
            number = torch.as_tensor(values, dtype=torch.get_default_dtype()).detach().clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"{self._name}: {name} is {values!r}, which is not a number or a list of them."
            ) from error
        if number.shape not in ((), (self.channels,)):
            raise InvalidInput(
                f"{self._name}: {name} has shape {tuple(number.shape)}, but it must be one number or one for "
                f"each of the {self.channels} channels, ({self.channels},)."
            )
        top = torch.inf if high is None else high
        wrong = ~((number >= low) & (number <= top) & number.isfinite())
        if wrong.any():
            bounds = "greater than 0 and finite" if high is None else f"from {low:g} to {top:g}"
            raise InvalidInput(
                f"{self._name}: {name} is {number[wrong].flatten()[0].item()}, but it must be {bounds}."
            )
        return number

    def _store(self, name: str, values: Values, learn: bool, low: float, high: float | None) -> None:
        """Check a number and keep it as `stored_<name>`: a parameter if it learns."""
        number = self._checked(name, values, low, high)
        if learn:
            self.register_parameter(f"stored_{name}", nn.Parameter(number))
        else:
            self.register_buffer(f"stored_{name}", number)

    def _bounded(self, name: str, low: float, high: float | None) -> Tensor:
        stored: Tensor = getattr(self, f"stored_{name}")
        if stored.device.type == "cpu" and _has_nan(stored):
            raise InvalidInput(
                f"{self._name}: {name} has become NaN. Training diverged before this call: lower the learning rate, "
                f"clip gradients, or go back to a checkpoint."
            )
        if not stored.requires_grad:
            return stored.clamp(low, high)
        bounded: Tensor = _Bound.apply(stored, low, high)  # type: ignore[no-untyped-call]
        return bounded

    def _state(self, lanes: Tensor, state: Tensor | None) -> Tensor:
        """The state to start from, for inputs of one step like `lanes` (..., C); None is zeros."""
        given = self._given(lanes, state)
        return lanes.new_zeros(lanes.shape) if given is None else given

    def _given(self, lanes: Tensor, state: Tensor | None) -> Tensor | None:
        """Check an input of one step (..., C) and the state handed in with it, in the input's type; None stays None."""
        if lanes.shape[-1:] != (self.channels,):
            raise InvalidInput(
                f"{self._name} has {self.channels} channels, but its input ends in {tuple(lanes.shape[-1:])}: "
                f"a step is (B, {self.channels}), a sequence (T, B, {self.channels})."
            )
        if not lanes.is_floating_point():
            raise InvalidInput(
                f"{self._name}: the input is {lanes.dtype}, but it must be floating point: x.float()."
            )
        if lanes.numel() == 0:
            raise InvalidInput(
                f"{self._name}: the input of a step is empty, {tuple(lanes.shape)}: no sample in it."
            )
        if state is None:
            return None
        if state.shape != lanes.shape:
            raise InvalidInput(
                f"{self._name}: the state has shape {tuple(state.shape)}, but a step of the input has "
                f"{tuple(lanes.shape)}. Hand in what the last call returned, or None to start from zeros."
            )
        return state.to(lanes.dtype)

    def _sequence(self, x: Tensor, state: Tensor | None) -> Tensor | None:
        """Check a sequence (T, ..., C) and return the state to start from, None for zeros."""
        if x.dim() < 2:
            raise InvalidInput(
                f"{self._name}: the input has shape {tuple(x.shape)}, but a sequence is (T, B, {self.channels}), time "
                f"first. For a single step call .step(x)."
            )
        if x.shape[0] == 0:
            raise InvalidInput(
                f"{self._name}: the sequence {tuple(x.shape)} has no steps; T must be at least 1."
            )
        return self._given(x[0], state)

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}"


class Decaying(Neuron):
    """A neuron layer with a decay."""

    def __init__(self, channels: int, beta: Values, learn_beta: bool) -> None:
        super().__init__(channels)
        self._store("beta", beta, learn_beta, 0.0, 1.0)

    @property
    def beta(self) -> Tensor:
        """The decay of one step, () or (C,), in [0, 1]."""
        return self._bounded("beta", 0.0, 1.0)


class SpikingNeuron(Neuron):
    """A neuron layer with a threshold."""

    def __init__(self, channels: int, threshold: Values, learn_threshold: bool) -> None:
        super().__init__(channels)
        self._store_threshold(threshold, learn_threshold)

    def _store_threshold(self, threshold: Values, learn: bool) -> None:
        self._store("threshold", threshold, learn, torch.finfo(torch.float32).tiny, None)

    @property
    def gives_spikes(self) -> bool:
        """Whether the output is spikes, not something that is read from them."""
        return True

    @property
    def threshold(self) -> Tensor:
        """The membrane at which a neuron fires, () or (C,), greater than 0."""
        return self._bounded("threshold", torch.finfo(torch.float32).tiny, None)


class SpikingLeaky(SpikingNeuron, Decaying):
    """A neuron layer with a decay and a threshold."""

    def __init__(
        self, channels: int, beta: Values, threshold: Values, learn_beta: bool, learn_threshold: bool
    ) -> None:
        Decaying.__init__(self, channels, beta, learn_beta)
        self._store_threshold(threshold, learn_threshold)


def raised(x: Tensor) -> Tensor:
    """Take half-precision inputs as float32: products may be rounded coarsely, membranes may not."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def answer(spikes: Tensor, membrane: Tensor | None, state: Tensor | None) -> Tensor | tuple[Tensor, ...]:
    """Return the spikes alone, or with what else was asked for, in this order."""
    extra = tuple(value for value in (membrane, state) if value is not None)
    return (spikes, *extra) if extra else spikes

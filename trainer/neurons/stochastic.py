"""The reset-free leaky neuron that fires by chance, from a random stream that every form of it shares."""

from typing import Any

import torch
from torch import Tensor

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import SpikingLeaky, Values, raised
from unscan.trainer.neurons.paired import State, pair_answer
from unscan.trainer.recurrence.naive import CHOICES, check_choice, li_step
from unscan.trainer.recurrence.scan import scan
from unscan.trainer.recurrence.stream import uniform
from unscan.trainer.surrogate import surrogate_gradient, surrogate_named

_WORDS = 1 << 32


class _Sample(torch.autograd.Function):
    """s = H(x - w (r - 1/2)) forward; dp/dx backward, where p = clip(x / w + 1/2, 0, 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, r: Tensor, fires: str, width: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.width = width
        level = width * (r - 0.5)
        return (x >= level if fires == ">=" else x > level).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return gradient * surrogate_gradient(x, "rectangular", ctx.width), None, None, None


class StochasticLeaky(SpikingLeaky):
    """Integrate, leak, and fire with a probability that rises with the membrane; no reset.

        u_t = beta u_{t-1} + x_t        p_t = clip((u_t - theta) / w + 1/2, 0, 1)        s_t = 1 with probability p_t

    The chance is a number r in (0, 1) for each seed, step t and lane b C + c (or the lane's place in any other shape of
    a step), a pure function that `recurrence.stream` defines down to its bits, and

        s_t = H(u_t - theta - w (r - 1/2))

    so that the steps fire exactly the spikes of the sequence. Backward, ds/du is dp/du: 1 / w where
    |u - theta| <= w / 2, else 0. w (`width`) > 0 and `seed` from 0 to 2^32 - 1 are settings; beta and threshold as
    in `Leaky`. `fires` says whether u at exactly theta + w (r - 1/2) does.

    The state is (u, t): the membrane (B, C), and the steps done so far, an int64 (), modulo 2^32. None starts at t = 0:
    the same seed gives the same noise in each run, so give each layer its own. `renew` gives training new noise.

    Source: the stochastic neuron that papers/003, related work, reports of Bal and Sengupta 2024; ramp and stream are
    ours. Raises `InvalidInput` for an option, number or shape that does not fit.
    """

    def __init__(
        self,
        channels: int,
        beta: Values = 0.9,
        threshold: Values = 1.0,
        *,
        width: float = 1.0,
        seed: int = 0,
        fires: str = ">=",
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__(channels, beta, threshold, learn_beta, learn_threshold)
        check_choice("fires", fires, CHOICES["fires"])
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _WORDS:
            raise InvalidInput(
                f"{self._name} has seed={seed!r}, but it needs a whole number from 0 to 2^32 - 1."
            )
        self.width = surrogate_named("rectangular", width)[1]
        self.renewed: int | None = None
        self.seed, self.reset, self.phase, self.fires, self.gain = seed, "none", "now", fires, "1"

    def renew(self, number: int) -> None:
        """Draw other numbers from here on while training: those of the seed and this number, a step's say."""
        self.renewed = (self.seed + 1 + number * 0x9E3779B1) % _WORDS

    def _from(self, lanes: Tensor, state: State | None) -> State:
        """Check what was handed in as (u, t), for inputs of one step like `lanes`; None is zeros."""
        if state is None:
            return self._state(lanes, None), torch.zeros((), dtype=torch.int64, device=lanes.device)
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise InvalidInput(
                f"{self._name}: the state is a {type(state).__name__}, but it must be the membrane and the number of "
                f"steps done. Hand in what the last call returned, or None to start from zeros."
            )
        u, done = state
        if done.shape != () or done.dtype != torch.int64:
            raise InvalidInput(
                f"{self._name}: the number of steps done is a {done.dtype} of shape {tuple(done.shape)}, but it must "
                f"be one torch.int64, (). Hand in what the last call returned, or None to start from zeros."
            )
        return self._state(lanes, u), done

    def _sampled(self, membrane: Tensor, done: Tensor) -> Tensor:
        """Fire the membranes of a sequence (T, ..., C) whose first step has number `done`."""
        steps, lanes = membrane.shape[0], membrane.shape[1:].numel()
        seed = self.renewed if self.training and self.renewed is not None else self.seed
        chance = uniform(seed, done, steps, lanes, membrane.dtype).view(membrane.shape)
        distance = membrane - self.threshold.to(membrane.dtype)
        spikes: Tensor = _Sample.apply(distance, chance, self.fires, self.width)  # type: ignore[no-untyped-call]
        return spikes

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor | State, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes; membranes and last state where asked for."""
        x = raised(x)
        self._sequence(x, None)
        u, done = self._from(x[0], state)
        membrane = scan(x, u, self.beta.to(x.dtype))
        last = (membrane[-1], (done + x.shape[0]) % _WORDS) if return_state else None
        return pair_answer(self._sampled(membrane, done), membrane if return_membrane else None, last)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Advance by one step: x (B, C), state (u, t) or None for zeros, to spikes (B, C) and the next state."""
        u, done = self._from(x, state)
        u = li_step(x, u, self.beta.to(x.dtype))
        return self._sampled(u[None], done)[0], (u, (done + 1) % _WORDS)

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, width={self.width:g}, seed={self.seed}, fires={self.fires!r}"

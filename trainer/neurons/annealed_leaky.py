"""A leaky neuron that is trained in parallel, with a reset that grows as training goes on."""

import math

import torch
from torch import Tensor

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import SpikingLeaky, Values, answer, raised
from unscan.trainer.neurons.leaky import Leaky
from unscan.trainer.recurrence.annealing import annealed, annealed_step, converged_step
from unscan.trainer.recurrence.naive import Firing, check_choice

SCHEDULES = ("cosine", "linear", "constant")


def scheduled(schedule: str, progress: float, warm_up: float, end: float) -> float:
    """Give the strength of the reset at a point of training, from 0 (the start) to 1 (the end).

    q = (progress - warm_up) / (1 - warm_up)        0 where q < 0

    linear  end q        cosine  end (1 - cos(pi q)) / 2        constant  end
    """
    if progress < warm_up:
        return 0.0
    q = (progress - warm_up) / (1 - warm_up)
    if schedule == "constant":
        return end
    return end * (q if schedule == "linear" else (1 - math.cos(math.pi * q)) / 2)


class AnnealedLeaky(SpikingLeaky):
    """Integrate, leak and fire, then take away what those spikes would have reset, in a strength that training raises.

        u0_t = beta u0_{t-1} + I_t        s0 = H(u0 - theta)
        round k:  r_t = theta sum_{j<t} beta^(t-j) s_{k-1,j}        m = u0 - lambda r        s_k = H(m - theta)

    with I_t = x_t, or (1 - beta) x_t where `gain` is "1-beta". The spikes are those of the last of `rounds` rounds.
    lambda = 0 is `StateLeaky`. With lambda = 1, once a round leaves the spikes as they were, they are those of the
    exact neuron, Leaky(reset="subtract"). One round is not that: as trained, resets come of the spikes of a neuron
    that has none. That neuron's own step form is `.step`, which equals forward; the exact one, which hardware runs,
    is `deployed()`. The difference between the two is what annealing is to make small: measure it.

    channels: C. beta in [0, 1] and threshold > 0: one number, or C of them.
    rounds: K from 1 up, or None for as many as it takes until no spike changes. After a sequence `rounds_used` says
    how many it was and `converged` whether the last one changed nothing. The gradient passes through every round.
    end, schedule, warm_up: lambda, kept with the weights, is 0 for the share `warm_up` of training, then rises to `end`
    in [0, 1] (see `scheduled`); the training loop says where it is with `anneal(progress)`. Evaluation leaves it.
    learn_reset: lambda is a parameter instead, bounded to [0, 1], that starts at `end`; `anneal` leaves it alone.

    Source: papers/004, of which the abstract alone is public; the equations are this project's reading of it.
    Raises `InvalidInput` for an option, number or shape that does not fit.
    """

    def __init__(
        self,
        channels: int,
        beta: Values = 0.9,
        threshold: Values = 1.0,
        *,
        end: float = 1.0,
        schedule: str = "cosine",
        warm_up: float = 0.1,
        rounds: int | None = 1,
        learn_reset: bool = False,
        fires: str = ">=",
        gain: str = "1",
        learn_beta: bool = False,
        learn_threshold: bool = False,
        surrogate: str = "atan",
        surrogate_width: float | None = None,
    ) -> None:
        super().__init__(channels, beta, threshold, learn_beta, learn_threshold)
        check_choice("schedule", schedule, SCHEDULES)
        if rounds is not None and (isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1):
            raise InvalidInput(
                f"AnnealedLeaky: rounds is {rounds!r}, but it must be a whole number from 1 up, or None for as many as "
                f"it takes."
            )
        if not 0 <= warm_up < 1:
            raise InvalidInput(
                f"AnnealedLeaky: warm_up is {warm_up}, but it is a share of training, from 0 to less than 1."
            )
        if not 0 <= end <= 1:
            raise InvalidInput(f"AnnealedLeaky: end is {end}, but the strength of a reset is from 0 to 1.")
        self.how = Firing("none", "now", fires, gain, surrogate, surrogate_width)
        self.fires, self.gain = fires, gain
        self.surrogate, self.surrogate_width = surrogate, surrogate_width
        self.end, self.schedule, self.warm_up = float(end), schedule, float(warm_up)
        self.rounds, self.learn_reset = rounds, learn_reset
        self.rounds_used, self.converged = 0, False
        start = end if learn_reset else scheduled(schedule, 0.0, warm_up, end)
        self._store("strength", start, learn_reset, 0.0, 1.0)

    @property
    def strength(self) -> Tensor:
        """lambda, the share of the reset that is in force, ()."""
        return self._bounded("strength", 0.0, 1.0)

    def anneal(self, progress: float) -> None:
        """Set lambda for a point of training: progress from 0 (its start) to 1 (its end).

        Raises `InvalidInput` for any other number.
        """
        if not 0 <= progress <= 1:
            raise InvalidInput(
                f"AnnealedLeaky: the progress of training is {progress}, but it goes from 0 (start) to 1 (end)."
            )
        if not self.learn_reset:
            with torch.no_grad():
                stored: Tensor = self.get_buffer("stored_strength")
                stored.fill_(scheduled(self.schedule, progress, self.warm_up, self.end))

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes of the same shape.

        Returned after the spikes where asked for: the membranes m of the last round (T, B, C), then the state
        (rounds + 1, B, C), or (2, B, C) where rounds is None: u0 of the last step, and of each round the reset r that
        stands at the next. It continues the sequence when handed in. Gradients flow through all three.
        """
        x = raised(x)
        self._sequence(x, None)
        beta, threshold, strength = self._numbers(x)
        given = None if state is None else self._rows(x[0], state)
        spikes, membrane, last, self.rounds_used, self.converged = annealed(
            x, given, beta, threshold, strength, self.rounds, self.how
        )
        return answer(spikes, membrane if return_membrane else None, last if return_state else None)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step what `forward` computes: x (B, C), state as there or None for zeros, to spikes and state.

        All rounds are walked beside each other, K + 1 recurrences. Where rounds is None: u0 and r of the spikes
        themselves, which with lambda = 1 is the exact neuron.
        """
        self._given(x, None)
        step = converged_step if self.rounds is None else annealed_step
        beta, threshold, strength = self._numbers(x)
        spikes, _, last = step(x, self._rows(x, state), beta, threshold, strength, self.how)
        return spikes, last

    def deployed(self) -> Leaky:
        """Make the exact neuron with the same numbers and its whole reset, which is what is deployed."""
        exact = Leaky(
            self.channels, self.beta.detach(), self.threshold.detach(), "subtract", fires=self.fires, gain=self.gain,
            surrogate=self.surrogate, surrogate_width=self.surrogate_width,
        )  # fmt: skip
        return exact.to(self.beta)

    def _numbers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """beta, theta and lambda in the input's type."""
        return self.beta.to(x.dtype), self.threshold.to(x.dtype), self.strength.to(x.dtype)

    def _rows(self, lanes: Tensor, state: Tensor | None) -> Tensor:
        """The state to start from; None is zeros."""
        wanted = (2 if self.rounds is None else self.rounds + 1, *lanes.shape)
        if state is None:
            return lanes.new_zeros(wanted)
        if state.shape != wanted:
            raise InvalidInput(
                f"AnnealedLeaky: the state has shape {tuple(state.shape)}, but with rounds={self.rounds} it is "
                f"{wanted}, the membrane without resets and then the reset of each round. Hand in what the last call "
                f"returned, or None to start from zeros."
            )
        return state.to(lanes.dtype)

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, rounds={self.rounds}, end={self.end:g}, schedule={self.schedule!r}"

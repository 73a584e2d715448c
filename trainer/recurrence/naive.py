"""The truth: plain step loops in torch, one line per equation, which every fast form is tested against.

Letters: T steps, then any lane shape (...) that ends in C channels. beta and threshold broadcast against it.
Gradients are whatever autograd derives from these lines, with the surrogate for H.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unscan.compiler.errors import InvalidInput
from unscan.trainer.surrogate import fire, surrogate_named

CHOICES: dict[str, tuple[str, ...]] = {
    "reset": ("none", "subtract", "zero"),
    "phase": ("now", "next"),
    "fires": (">=", ">"),
    "gain": ("1", "1-beta"),
    "backward": ("bptt", "sltt"),
}


def check_choice(name: str, got: object, allowed: tuple[str, ...]) -> None:
    """Raise `InvalidInput` unless the option is one of those allowed."""
    if got not in allowed:
        raise InvalidInput(f"Option {name} is {got!r}. Choose one of: {', '.join(map(repr, allowed))}.")


@dataclass(frozen=True)
class Firing:
    """Everything about a leaky integrate-and-fire neuron that is not a number to be learned.

    reset: what a spike does to the membrane. phase: at once ("now") or in the next step ("next").
    fires: whether a membrane exactly at the threshold does. gain: what the input is multiplied by.
    backward: "bptt", the full gradient, or "sltt", which lets none through the membrane of the step before.
    """

    reset: str = "zero"
    phase: str = "now"
    fires: str = ">="
    gain: str = "1"
    surrogate: str = "atan"
    width: float | None = None
    backward: str = "bptt"

    def __post_init__(self) -> None:
        """Refuse an option that does not exist."""
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        surrogate_named(self.surrogate, self.width)

    def fire(self, membrane: Tensor, threshold: Tensor) -> Tensor:
        """s = H(membrane - threshold), with this neuron's rule for ties and its surrogate."""
        return fire(membrane - threshold, self.fires, self.surrogate, self.width)


def drive(x: Tensor, beta: Tensor, gain: str) -> Tensor:
    """The input as it enters the membrane: x, or (1 - beta) x."""
    return x if gain == "1" else (1 - beta) * x


def lif_step(
    x: Tensor, u: Tensor, beta: Tensor, threshold: Tensor, how: Firing
) -> tuple[Tensor, Tensor, Tensor]:
    """Advance a leaky integrate-and-fire neuron by one step: spikes, membrane before reset, state.

    With d = x, or (1 - beta) x where gain is "1-beta", and u the state of the step before:

        phase now     m = beta u + d                  s = H(m - theta)    state = m | m - theta s | m (1 - s)
        phase next    m = beta u + d | beta u + d - theta r | (beta u + d)(1 - r)    s = H(m - theta)    state = m
                      where r = H(u - theta), the spike of the step before

    for reset none | subtract | zero. All shapes are those of x.

    Gradient, bptt: the full one of papers/003, supplement, equations 4-9. The spike inside the reset is
    differentiated with the surrogate too, and so is the initial state's spike in phase next.
    Gradient, sltt: equations 13-14. All that comes from the step before is a constant: its membrane and, in
    phase next, the reset that its spike causes. beta learns from the product beta u with that constant u.
    """
    before = u.detach() if how.backward == "sltt" else u
    m = beta * before + drive(x, beta, how.gain)
    if how.phase == "next" and how.reset != "none":
        r = how.fire(before, threshold)
        removed = threshold * r
        if how.backward == "sltt":
            r, removed = r.detach(), removed.detach()
        m = m - removed if how.reset == "subtract" else m * (1 - r)
    s = how.fire(m, threshold)
    if how.phase == "next" or how.reset == "none":
        return s, m, m
    return s, m, m - threshold * s if how.reset == "subtract" else m * (1 - s)


def lif_loop(
    x: Tensor, u: Tensor, beta: Tensor, threshold: Tensor, how: Firing
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk a sequence with `lif_step`: x (T, ..., C), u (..., C) -> spikes, membranes before reset, last state."""
    spikes, membranes = [], []
    for x_t in x.unbind(0):
        s, m, u = lif_step(x_t, u, beta, threshold, how)
        spikes.append(s)
        membranes.append(m)
    return torch.stack(spikes), torch.stack(membranes), u


def li_step(x: Tensor, u: Tensor, beta: Tensor) -> Tensor:
    """u_t = beta u_{t-1} + x_t."""
    return beta * u + x


def li_loop(x: Tensor, u: Tensor, beta: Tensor) -> Tensor:
    """Walk a sequence with `li_step`: x (T, ..., C), u (..., C) -> all u_t, (T, ..., C)."""
    membranes = []
    for x_t in x.unbind(0):
        u = li_step(x_t, u, beta)
        membranes.append(u)
    return torch.stack(membranes)

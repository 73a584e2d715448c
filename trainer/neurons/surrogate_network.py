"""The surrogate dynamic network (SDN), which guesses the leak of a neuron with reset, and the neuron that trains on it.

A membrane with a hard reset forgets fast, so what it holds is nearly a function of the last eight currents. The SDN is
that function, learned: strictly causal, all steps at once. It is trained once, on the exact neuron (`trainer.sdn`),
then frozen and fused into 153 numbers. The network that is deployed has the exact neuron in its place.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import SpikingLeaky, Values, answer, raised
from unscan.trainer.neurons.leaky import Leaky
from unscan.trainer.recurrence.fused import lif, runs_fused
from unscan.trainer.recurrence.lanes import fresh, padded, run_tiles, tile_count, unpadded
from unscan.trainer.recurrence.naive import Firing, lif_step
from unscan.trainer.recurrence.vector import FINGERPRINT, LANES, load, select, spread, store

WINDOW = 8  # currents that a prediction sees
WIDTH = 8  # features
SHAPES: dict[str, tuple[int, ...]] = {
    "temporal": (WIDTH, WINDOW),
    "temporal_bias": (WIDTH,),
    "mixing": (WIDTH, WIDTH),
    "mixing_bias": (WIDTH,),
    "readout": (WIDTH,),
    "readout_bias": (1,),
}
_BLOCK = 32  # steps that one tile advances before the next tile's turn


def windows(currents: Tensor, before: Tensor) -> Tensor:
    """Lay out what each step sees: currents (T, ...), the 8 before them (8, ...) -> (8, T x lanes), oldest first."""
    steps = len(currents)
    known = torch.cat((before, currents))
    return torch.stack([known[k : k + steps].reshape(-1) for k in range(WINDOW)])


@cache
def _kernel() -> Callable[..., None]:
    """Build the kernel: x holds 8 currents before the first step; m = current + prediction, (T, lanes)."""
    arithmetic = FINGERPRINT

    def membranes(
        x: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any, m: Any, first: Any, last: Any
    ) -> None:
        _ = arithmetic
        steps, lanes = m.shape
        zero = spread(x.dtype.type(0.0))
        hidden = np.empty((WIDTH, LANES), x.dtype)
        for begin in range(0, steps, _BLOCK):
            for k in range(first, last):
                left = min(k * LANES, lanes - LANES)
                for t in range(begin, min(steps, begin + _BLOCK)):
                    for c in range(WIDTH):
                        h = spread(b1[c])
                        for j in range(WINDOW):
                            h = h + spread(w1[c, j]) * load(x, t + j, left)
                        store(select(h >= zero, h, zero), hidden, c, 0)
                    total = spread(b3[0])
                    for c in range(WIDTH):
                        g = spread(b2[c]) + load(hidden, c, 0)
                        for j in range(WIDTH):
                            g = g + spread(w2[c, j]) * load(hidden, j, 0)
                        total = total + spread(w3[c]) * select(g >= zero, g, zero)
                    store(load(x, t + WINDOW, left) + total, m, t, left)

    kernel: Callable[..., None] = njit(nogil=True, cache=True, error_model="numpy")(membranes)
    return kernel


class _Membrane(torch.autograd.Function):
    """current + prediction, with no gradient through the prediction."""

    @staticmethod
    def forward(ctx: Any, currents: Tensor, before: Tensor, numbers: list[Tensor]) -> Tensor:
        steps, lanes = len(currents), before[0].numel()
        weights = [number.detach().to(currents.dtype).contiguous() for number in numbers]
        head = padded(torch.cat((before, currents[:WINDOW])))
        rows = padded(currents)
        membranes = fresh(steps, rows.shape[1], currents.dtype)
        tiles = tile_count(lanes)
        run_tiles(_kernel(), tiles, head.numel(), head, *weights, membranes[:WINDOW])
        if steps > WINDOW:
            run_tiles(_kernel(), tiles, rows.numel(), rows, *weights, membranes[WINDOW:])
        return unpadded(membranes, currents.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class SurrogateNetwork(nn.Module):
    """Predict what an exact neuron still holds, tau u_{t-1}, from the 8 currents before step t.

        h = relu(W1 (I_{t-8}, ..., I_{t-1}) + b1)        g = relu(W2 h + b2 + h)        p_t = w3 g + b3

    W1, W2 (8, 8), b1, b2, w3 (8,), b3 (1,): 153 numbers, called temporal, mixing, readout and their `_bias`. It is the
    inference form of papers/003, supplement, Figure 2b; `trainer.sdn.TrainingForm` is Figure 2a.

    tau: the decay of the neuron that it stands for, None where it was not trained for one.
    learn: its numbers are parameters, random at first; otherwise buffers, which no optimiser moves, zeros until some
    are loaded.
    """

    def __init__(self, tau: float | None = None, *, learn: bool = False) -> None:
        super().__init__()
        self.tau = tau
        for name, shape in SHAPES.items():
            if learn:
                bound = WINDOW**-0.5
                self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
            else:
                self.register_buffer(name, torch.zeros(shape))

    def numbers(self) -> list[Tensor]:
        """The weights in the order of `SHAPES`."""
        return [getattr(self, name) for name in SHAPES]

    def forward(self, currents: Tensor, before: Tensor | None = None) -> Tensor:
        """Predict all steps: currents (T, ...), the 8 before them (8, ...) or None for zeros -> (T, ...)."""
        w1, b1, w2, b2, w3, b3 = (number.to(currents.dtype) for number in self.numbers())
        seen = windows(currents, self._before(currents, before))
        hidden = torch.addmm(b1[:, None], w1, seen).relu()
        mixed = torch.addmm(b2[:, None] + hidden, w2, hidden).relu()
        return (w3 @ mixed + b3).view(currents.shape)

    def membrane(self, currents: Tensor, before: Tensor | None = None) -> Tensor:
        """Return current + prediction, (T, ...), with no gradient through the prediction; shapes as in `forward`.

        Equals `currents + forward(currents, before)` up to the order of its sums, in one pass over memory.
        """
        before = self._before(currents, before).detach()
        if not runs_fused(currents):
            with torch.no_grad():
                predicted = self.forward(currents, before)
            return currents + predicted
        membranes: Tensor = _Membrane.apply(currents, before, self.numbers())  # type: ignore[no-untyped-call]
        return membranes

    @staticmethod
    def _before(currents: Tensor, before: Tensor | None) -> Tensor:
        return currents.new_zeros(WINDOW, *currents.shape[1:]) if before is None else before


class SurrogateLeaky(SpikingLeaky):
    """Fire as a network guesses that the leaky integrate-and-fire neuron would, all steps at once.

        I_t = x_t / theta        m_t = I_t + SDN(I_{t-8}, ..., I_{t-1})        s_t = H(m_t - 1)

    Backward, the network is a constant: dL/dx_t = dL/ds_t g'(m_t - 1) / theta, and nothing passes between steps.

    Two forms that are not equal: a sequence (`forward`) fires as above; a step (`.step`, and `deployed()`, which is the
    same neuron as a layer) is the exact u' = tau u + x, s = H(u' - theta), u = u' (1 - s). What a network so trained
    loses when it is deployed depends on how well the SDN agrees on its currents: measure it (`trainer.sdn.evaluate_sdn`
    for the neuron alone). Near the threshold the agreement is poor.

    channels: C. network: None, the network that comes with unscan; the path of one that `unscan train-sdn` wrote; a
    `SurrogateNetwork`; or "scratch", one of random numbers that learns with the task, gradients passing through it.
    Such a network stands for no neuron: its `.step` is the network itself, on the last 8 inputs, and equals forward.
    tau: the decay; a network is for one. threshold > 0: one number, or C of them. A tie fires.

    Source: papers/003, equation 10; supplement, equations 15-24. "scratch" is its ablation SDN-S.
    Raises `InvalidInput` for an option, number or shape that does not fit, and for a tau that is not the network's.
    """

    stored_beta: Tensor

    def __init__(
        self,
        channels: int,
        *,
        network: "SurrogateNetwork | Path | str | None" = None,
        tau: float = 0.125,
        threshold: Values = 1.0,
        learn_threshold: bool = False,
        surrogate: str = "piecewise_quadratic",
        surrogate_width: float | None = 1.0,
    ) -> None:
        if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 <= tau <= 1:
            raise InvalidInput(f"SurrogateLeaky: tau is {tau!r}, but it must be one number from 0 to 1.")
        super().__init__(channels, tau, threshold, False, learn_threshold)
        self.how = Firing("zero", "now", ">=", "1", surrogate, surrogate_width)
        self.reset, self.phase, self.fires, self.gain = "zero", "now", ">=", "1"
        self.tau, self.surrogate, self.surrogate_width = float(tau), surrogate, surrogate_width
        self.from_scratch = network == "scratch"
        self.network = self._settle(network)

    def _settle(self, network: "SurrogateNetwork | Path | str | None") -> SurrogateNetwork:
        """Turn what was asked for into a network, and see that it is one for this tau."""
        if isinstance(network, str) and network == "scratch":
            return SurrogateNetwork(learn=True)
        if not isinstance(network, SurrogateNetwork):
            from unscan.trainer.sdn import load_sdn  # which itself needs the network above

            network = load_sdn(network)
        if network.tau is None or not math.isclose(network.tau, self.tau, rel_tol=1e-9):
            raise InvalidInput(
                f"SurrogateLeaky: tau is {self.tau:g}, but this surrogate network was trained for tau = {network.tau}. "
                f"Train one with `unscan train-sdn --tau {self.tau:g} --out sdn.safetensors` and name that file as the "
                f"network, or set tau to {network.tau}."
            )
        return network

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes of the same shape.

        Returned after the spikes where asked for: the membranes theta m (T, B, C), in the units of x, then the state,
        which is the last 8 inputs (8, B, C) and continues the sequence when handed in.
        """
        x = raised(x)
        self._sequence(x, None)
        known = self._known(x[0], state)
        threshold = self.threshold.to(x.dtype)
        same = not threshold.requires_grad and bool((threshold == 1).all())
        currents, before = (x, known) if same else (x / threshold, known / threshold)
        if self.from_scratch:
            membrane = currents + self.network(currents, before)
        else:
            membrane = self.network.membrane(currents, before)
        # H(m - 1): the fused kernel of a neuron that holds nothing
        spikes, _, _ = lif(
            membrane, None, x.new_zeros(()), x.new_ones(()), self._one_step, membrane=False, state_after=False
        )
        shown = (membrane if same else membrane * threshold) if return_membrane else None
        return answer(spikes, shown, self._last(known, x) if return_state else None)

    @property
    def _one_step(self) -> Firing:
        return Firing("none", surrogate=self.surrogate, width=self.surrogate_width)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance the deployed neuron by one step: x (B, C), state u (B, C) or None for zeros, to spikes and u.

        With a network from scratch: the network, and the state is the last 8 inputs (8, B, C).
        """
        threshold = self.threshold.to(x.dtype)
        if not self.from_scratch:
            u = self._state(x, state)
            spikes, _, last = lif_step(x, u, self.beta.to(x.dtype), threshold, self.how)
            return spikes, last
        self._given(x, None)
        known = self._known(x, state)
        current = x[None] / threshold
        membrane = current + self.network(current, known / threshold)
        return self._one_step.fire(membrane, threshold.new_ones(()))[0], self._last(known, x[None])

    def deployed(self) -> Leaky:
        """Make the exact neuron with the same numbers, which is what is deployed.

        Raises `InvalidInput` where the network is from scratch: there is no neuron that it stands for.
        """
        if self.from_scratch:
            raise InvalidInput(
                "SurrogateLeaky: a network that learned from scratch stands for no leaky neuron, so there is none to "
                "deploy. Keep the network (its .step runs on the last 8 inputs), or train with network=None."
            )
        exact = Leaky(
            self.channels, self.tau, self.threshold.detach(), "zero", surrogate=self.surrogate,
            surrogate_width=self.surrogate_width,
        )  # fmt: skip
        return exact.to(self.stored_beta)

    def _known(self, lanes: Tensor, state: Tensor | None) -> Tensor:
        """The 8 inputs before the first step; None is zeros."""
        if state is None:
            return lanes.new_zeros(WINDOW, *lanes.shape)
        if state.shape != (WINDOW, *lanes.shape):
            raise InvalidInput(
                f"SurrogateLeaky: the state has shape {tuple(state.shape)}, but it is the last {WINDOW} inputs, "
                f"{(WINDOW, *lanes.shape)}. Hand in what the last call returned, or None to start from zeros."
            )
        return state.to(lanes.dtype)

    @staticmethod
    def _last(known: Tensor, x: Tensor) -> Tensor:
        return torch.cat((known, x[-WINDOW:]))[-WINDOW:]

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, tau={self.tau:g}{', from scratch' if self.from_scratch else ''}"

"""Neurons in their parallel form: the whole sequence at once, as they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unscan.compiler.ir import Array, Dialect, Signal
from unscan.compiler.nodes.neurons import Adaptive, Cuba, Leaky, Spiking

WINDOW = 8
"""Inputs before the present one that a surrogate network sees."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LIFScan(Spiking):
    """The exact neuron with its reset, walked over the sequence in one fused scan (trained by `Leaky`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class LIFConvolution(Spiking):
    """u = h * g x with h_t = beta^t, s = H(u - theta): no reset, so a causal convolution (`StateLeaky`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class LIConvolution(Leaky):
    """u = h * g x with h_t = beta^t: a causal convolution without spikes (`LeakyIntegrator`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class CubaLIFScan(Cuba):
    """The neuron behind a leaking synaptic current: a scan, then a fused scan (`Synaptic`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class AdaptiveLIFScan(Adaptive):
    """The neuron with an adaptive threshold, walked over the sequence in one fused scan (`AdaptiveLeaky`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class LIFAnnealed(Spiking):
    """The neuron whose reset is put back round by round, in a strength lambda (`AnnealedLeaky`).

    u0 = beta u0 + g x,  s_0 = H(u0 - theta);  round k = 1 .. K:  m_k = u0 - lambda r_k,  s_k = H(m_k - theta),
    r_k <- beta (r_k + theta s_{k-1});  the spikes are s_K. Where `rounds` is None they are those that the rounds
    converge to: one r, fed by the spikes themselves. The reset is always subtract.
    State: `rows` (K + 1, ...), or (2, ...): u0, then each r.
    """

    dialect: ClassVar[Dialect] = Dialect.PARALLEL
    strength: Array
    rounds: int | None

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name membrane and resets."""
        return {"rows": (2 if self.rounds is None else self.rounds + 1, *inputs["x"].shape)}


@dataclass(frozen=True, eq=False, kw_only=True)
class LIFSurrogate(Spiking):
    """A network that guesses, from the 8 inputs before, what the neuron still holds (`SurrogateLeaky`).

    I = x / theta,  h = relu(W1 (I_{t-8}, ..., I_{t-1}) + b1),  g = relu(W2 h + b2 + h),  m = I_t + w3 g + b3,
    s = H(m - 1), where W1 and W2 (8, 8) are `temporal` and `mixing`, w3 (8,) and b3 (1,) `readout`. The membrane is
    theta m. `exact` says whether it stands for a leaky neuron, of this beta and reset, that can take its place.
    State: `past` (8, ...), the inputs before, oldest first.
    """

    dialect: ClassVar[Dialect] = Dialect.PARALLEL
    temporal: Array
    temporal_bias: Array
    mixing: Array
    mixing_bias: Array
    readout: Array
    readout_bias: Array
    exact: bool = True

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the inputs that are kept."""
        return {"past": (WINDOW, *inputs["x"].shape)}

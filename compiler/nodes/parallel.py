"""Neurons in their parallel form: the whole sequence at once, as they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unscan.compiler.ir import Dialect
from unscan.compiler.nodes.neurons import Leaky, Spiking


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

"""What a family of chips holds: the widths of its whole numbers, and which one stands for a real number.

A number r is held as r times its scale, rounded. The functions take and return arrays; what they choose for a weight, a
decay, a threshold or a bias is what `compiler.passes.quantize` writes and what quantisation-aware training imitates.

A neuron's scale K says what its membrane counts: u_int = K u. Weights w on inputs that count units of 1 / U reach it
shifted to the left by `Profile.shift`, so they count q = K / (U 2^shift) to one: w_int = q w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log2
from types import MappingProxyType

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array
from unscan.compiler.nodes.neurons import Fires


@dataclass(frozen=True)
class Profile:
    """Widths of whole numbers.

    Attributes:
        name: how it is asked for.
        weight_bits: of a weight, its sign among them.
        even: weights of matrices with both signs are even, as a mixed-sign weight on Loihi 2 lacks its lowest bit; a
            matrix without negative numbers then has one bit more for its size.
        decay_bits: decays count units of 2^-decay_bits.
        state_bits: of membranes, currents, modes and memories.
        shift: by how much the input of a neuron is shifted to the left; None leaves that to each layer.
        wraps: whether a current that overflows wraps; else it saturates.
        unit: thresholds and biases are multiples of it.
        threshold_bits: of a threshold, in units, without a sign.
        bias_bits: of a bias, in units, its sign among them.
        signal_bits: of numbers that are neither spikes nor states: inputs, sums, what activations and filters give.
        wide_bits: of what filters and memories keep.
        filter_bits: the decays of filters count units of 2^-filter_bits, and what they read of their modes has one bit
            more, for its sign.
        table_bits: a function is tabulated at 2^table_bits places.
        powers: scales are powers of two; else any number, where nothing but the neuron sees it.
        sources: width -> where it is from.
    """

    name: str
    weight_bits: int
    decay_bits: int
    state_bits: int
    signal_bits: int
    wide_bits: int
    table_bits: int
    filter_bits: int = 15
    even: bool = False
    shift: int | None = None
    wraps: bool = False
    unit: int = 1
    threshold_bits: int = 31
    bias_bits: int = 32
    powers: bool = True
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)

    def weight_limit(self, matrices: Sequence[Array]) -> int:
        """Return the largest size of a weight of matrices that feed one layer."""
        if not self.even:
            return Fixed(self.weight_bits).max
        low = min((float(np.min(matrix, initial=0.0)) for matrix in matrices), default=0.0)
        high = max((float(np.max(matrix, initial=0.0)) for matrix in matrices), default=0.0)
        if low >= 0:
            return Fixed(self.weight_bits).max
        return Fixed(self.weight_bits - (high <= 0)).max - 1

    def coarse(self, matrices: Sequence[Array]) -> bool:
        """Say whether the weights of matrices that feed one layer must be even."""
        return self.even and any(bool(np.any(np.asarray(matrix) < 0)) for matrix in matrices)


LOIHI2 = Profile(
    name="loihi2",
    weight_bits=9,
    even=True,
    decay_bits=12,
    state_bits=24,
    shift=6,
    wraps=True,
    unit=64,
    threshold_bits=17,
    bias_bits=13,
    signal_bits=16,
    wide_bits=24,
    table_bits=10,
    powers=False,
    sources=MappingProxyType(
        {
            "weight": "lava-dl netx keeps 0..255, or even numbers in -256..254 where both signs occur (measured)",
            "decay": "12 bits: lava.proc.lif, du and dv",
            "state": "24 bits, the current wraps and the membrane saturates: lava.proc.lif, fixed_pt",
            "threshold": "17 bits << 6: lava.proc.lif, vth",
            "bias": "13 bits << 6: lava.proc.lif, bias_mant",
            "signal": "16 bits: graded spikes carry up to 32, synapses of Lava's Dense up to 24",
            "filter": "15 bits, in a process of our own: no stock process has a filter in fixed point",
        }
    ),
)
INT8 = Profile(
    name="int8",
    weight_bits=8,
    decay_bits=15,
    state_bits=32,
    signal_bits=16,
    wide_bits=32,
    table_bits=8,
    threshold_bits=31,
    bias_bits=32,
    sources=MappingProxyType(
        {
            "weight": "8 bits, symmetric, a power of two for each output channel, as common integer kernels take them",
            "decay": "15 bits: with its sign a decay fills 16",
            "state": "32 bits, saturating: of 16, a neuron far below rest leaves its threshold few units",
            "signal": "16 bits: they are few beside spikes, and a norm or a slow filter enlarges what 8 round away",
            "filter": "15 bits, as decays; modes and memories have 32, as they add up over long",
        }
    ),
)
INT16 = Profile(
    name="int16",
    weight_bits=16,
    decay_bits=15,
    state_bits=32,
    signal_bits=14,
    wide_bits=32,
    table_bits=12,
    sources=MappingProxyType(
        {
            "weight": "16 bits, symmetric, a power of two for each output channel",
            "decay": "15 bits: with its sign a decay fills 16",
            "state": "32 bits, saturating",
            "signal": "14 bits: some hundred products with weights of 12 bits and more add up in 32",
            "filter": "15 bits, as decays; modes and memories have 32, as they add up over long",
        }
    ),
)
PROFILES: Mapping[str, Profile] = MappingProxyType({made.name: made for made in (LOIHI2, INT8, INT16)})


def profile(name: str) -> Profile:
    """Return the profile of a name. Raises InvalidInput where there is none."""
    if name not in PROFILES:
        raise InvalidInput(
            f"There is no profile {name!r} of whole numbers; choose from {', '.join(PROFILES)}."
        )
    return PROFILES[name]


def weight_scale(
    profile: Profile,
    matrices: Sequence[Array],
    *,
    threshold: Array | float | None = None,
    bias: Array | float | None = None,
    unit: float = 1.0,
    ceiling: Array | float = np.inf,
) -> Array:
    """Return q (rows,): how much a weight of 1 counts in the matrices that feed one layer of neurons.

    q is the largest for which max |w| q of each row over all matrices is at most `Profile.weight_limit`, q U theta fits
    in the threshold's bits, q U |b| in the bias's, U being `unit`, and q is at most `ceiling`. Where scales are powers
    of two it is rounded down to one, else so that q U theta is a whole number, where that is 8 or more (below, so much
    rounding would cost more than what a threshold off the grid does).

    A row that nothing bounds, as all its numbers are 0, has the largest q of the others.

    Args:
        profile: the widths.
        matrices: (rows, ...) each, in real numbers; with the input gain in them.
        threshold, bias: (rows,) or one number, in real numbers; None where there are none.
        unit: what 1 counts in their inputs; 1 for spikes.
        ceiling: (rows,) or one number: the largest q for which membranes fit.
    """
    rows = len(matrices[0])
    largest = np.max([np.abs(matrix).reshape(rows, -1).max(axis=1) for matrix in matrices], axis=0)
    bounds = [share(profile.weight_limit(matrices), largest), np.broadcast_to(ceiling, rows)]
    per_unit = unit * 2.0 ** (profile.shift or 0) / profile.unit
    if threshold is not None:
        bounds.append(share((2.0**profile.threshold_bits - 1) / per_unit, threshold, rows))
    if bias is not None:
        bounds.append(share(Fixed(profile.bias_bits).max / per_unit, bias, rows))
    scale = np.min(bounds, axis=0)
    known = scale[np.isfinite(scale)]
    scale = np.where(np.isfinite(scale), scale, known.max() if known.size else 1.0)
    if profile.powers:
        return power_below(scale)
    if threshold is None:
        return scale
    level = scale * per_unit * np.asarray(threshold, np.float64)
    return np.where(level >= WHOLE, np.floor(level) / np.maximum(level, WHOLE), 1.0) * scale


WHOLE = 8.0
"""From how many units up a threshold is made a whole number of them."""


def share(limit: float, largest: Array | float, rows: int | None = None) -> Array:
    """Return limit / largest, infinite where that is 0."""
    size = np.abs(np.asarray(largest, np.float64))
    size = size if rows is None else np.broadcast_to(size, rows)
    with np.errstate(divide="ignore"):
        return np.asarray(limit / size)


def power_below(scale: Array | float) -> Array:
    """Return the largest power of two that is at most each number."""
    return np.asarray(2.0 ** np.floor(np.log2(scale)))


def quantised_weight(profile: Profile, weight: Array, scale: Array, *, coarse: bool, limit: int) -> Array:
    """Return whole numbers, in float64: the nearest to scale times each weight, half to even, within the limit.

    Args:
        profile: the widths.
        weight: (rows, ...).
        scale: (rows,) or one number.
        coarse: whether they must be even (`Profile.coarse` of all matrices that feed the layer).
        limit: their largest size (`Profile.weight_limit` of all matrices that feed the layer).
    """
    step = 2.0 if coarse else 1.0
    each = np.broadcast_to(scale, len(weight)).reshape(-1, *(1,) * (weight.ndim - 1))
    return np.asarray(np.clip(step * np.rint(weight.astype(np.float64) * each / step), -limit, limit))


def quantised_decay(profile: Profile, decay: Array) -> Array:
    """Return whole numbers, in float64: the nearest to 2^decay_bits times each decay, half to even."""
    return np.rint(np.asarray(decay, np.float64) * 2.0**profile.decay_bits)


def quantised_threshold(
    profile: Profile, threshold: Array, scale: Array, fires: Fires, *, whole: bool = False
) -> Array:
    """Return the whole numbers above which membranes scale u fire, in float64: multiples of the profile's unit.

    u >= theta is u_int > ceil(K theta) - 1 between whole numbers, and u > theta is u_int > floor(K theta). Where the
    unit is more than 1 this is the nearest multiple; but of membranes that are multiples of it themselves (`whole`) it
    is the exact one, in units.
    """
    exact = np.asarray(threshold, np.float64) * scale
    unit = float(profile.unit)
    if whole or unit == 1:
        level = np.ceil(exact / unit) - 1 if fires == ">=" else np.floor(exact / unit)
    else:
        level = np.rint(exact / unit)
    return np.asarray(np.clip(level, 0, 2.0**profile.threshold_bits - 1) * unit)


def quantised_bias(profile: Profile, bias: Array, scale: Array) -> Array:
    """Return the nearest multiples of the profile's unit to scale times each bias, half to even, in float64."""
    largest = Fixed(profile.bias_bits).max
    level = np.rint(np.asarray(bias, np.float64) * scale / profile.unit)
    return np.asarray(np.clip(level, -largest, largest) * profile.unit)


def input_fraction(
    profile: Profile,
    weight: Array,
    largest: Array | float,
    *,
    threshold: Array | float,
    bias: Array | float | None = None,
    ceiling: Array | float = np.inf,
) -> int:
    """Return the fraction of a real input that feeds neurons directly, where no rescaling stands between.

    A neuron has room for q U units alone (membranes, bias and threshold bound it), which its weights (q) and its input
    (U = 2^f) share: the finer one, the coarser the other. The result is the f for which the mean over rows of

        (sum x^2 (step / q)^2 + sum w^2 / U^2) / theta^2

    is least, the noise of both in units of the threshold, with x half as large as the largest.

    Args:
        profile: the widths.
        weight: (rows, inputs), with the input gain in it.
        largest: (inputs,) or one number: the largest |x|.
        threshold, bias: as in `weight_scale`.
        ceiling: (rows,) or one number: the largest q U for which membranes fit.
    """
    rows, columns = weight.shape
    x = np.broadcast_to(np.asarray(largest, np.float64) / 2, columns)
    step = 2.0 if profile.coarse([weight]) else 1.0
    finest = fraction(float(np.max(largest)), profile.signal_bits, signed=False)
    noise = []
    for f in range(finest + 1):
        unit = 2.0**f
        q = weight_scale(profile, [weight], threshold=threshold, bias=bias, unit=unit, ceiling=ceiling / unit)
        each = (x**2).sum() * (step / q) ** 2 + (weight.astype(np.float64) ** 2).sum(axis=1) / unit**2
        noise.append(float(np.mean(each / np.broadcast_to(threshold, rows) ** 2)))
    return int(np.argmin(noise)) if noise else finest


def fraction(largest: float, bits: int, *, signed: bool = True) -> int:
    """Return the largest f for which `largest` times 2^f fits in so many bits; 0 where largest is 0."""
    return 0 if largest <= 0 else max(-31, min(31, floor(log2(Fixed(bits, signed=signed).max / largest))))

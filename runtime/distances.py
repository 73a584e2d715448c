"""How far apart two executions are where not every spike is the same: distances between spike trains.

A train is one neuron in one sample, spikes at whole steps t in 0 .. T - 1 of a recording [0, T]. F1 forgives no shift;
these say how large it is. They are extras beside it, and no gate.

van Rossum, Neural Computation 13 (2001) 751: each spike becomes an exponential of time constant tau, and

    D^2 = 1/tau integral_0^inf (f - g)^2 dt,    f(t) = sum over spikes t_i <= t of e^(-(t - t_i) / tau)

so that a spike more costs D^2 = 1/2, and one that comes d steps later 1 - e^(-d/tau). With d_t = f - g at the steps,
d_t = e^(-1/tau) d_(t-1) + a_t - b_t and q = e^(-2/tau), the integral is, without any approximation,

    D^2 = 1/2 ((1 - q) sum over t of d_t^2 + q d_(T-1)^2)

ISI, Kreuz et al., Journal of Neuroscience Methods 165 (2007) 151: the intervals between spikes that are under way at
time t are compared, and the two ends of the recording count as spikes:

    D = 1/T integral_0^T |I| dt,    |I(t)| = 1 - min(x, y) / max(x, y),    x and y the intervals of A and of B at t

Spike count: |n_A - n_B| of a train. Rate correlation: Pearson's, of the rates of all neurons of a layer on both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, TypeVar

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array
from unscan.runtime.agreement import finite
from unscan.runtime.executors.base import Execution

TAU = 10.0
"""Steps: the time constant of van Rossum's kernel by default."""
NUMBERS = 2**22
"""How many numbers of several trains are held at once."""
T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Distance:
    """Distances between all trains of one layer, or of several.

    Attributes:
        trains: neurons times samples.
        van_rossum: D, summed over trains, and the largest.
        isi: likewise.
        count: |n_A - n_B|, likewise.
        fired: spikes of each neuron, over steps and samples, of A and of B.
    """

    trains: int
    van_rossum: tuple[float, float]
    isi: tuple[float, float]
    count: tuple[int, int]
    fired: tuple[Array, Array] = field(repr=False)

    def __add__(self, other: Distance) -> Distance:
        """Join with the same layer on further samples."""
        return self._joined(other, (self.fired[0] + other.fired[0], self.fired[1] + other.fired[1]))

    def beside(self, other: Distance) -> Distance:
        """Join with another layer."""
        pairs = zip(self.fired, other.fired, strict=True)
        left, right = (np.concatenate([mine.ravel(), its.ravel()]) for mine, its in pairs)
        return self._joined(other, (left, right))

    def _joined(self, other: Distance, fired: tuple[Array, Array]) -> Distance:
        return Distance(
            self.trains + other.trains,
            _sum_and_largest(self.van_rossum, other.van_rossum),
            _sum_and_largest(self.isi, other.isi),
            _sum_and_largest(self.count, other.count),
            fired,
        )

    @property
    def rate_correlation(self) -> float:
        """Pearson's correlation of the neurons' rates; nan where they are alike on one side."""
        left, right = (counts.ravel() - counts.mean() for counts in self.fired)
        scale = float(np.sqrt((left @ left) * (right @ right)))
        return float(left @ right) / scale if scale else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return means over trains, the largest, and the rate correlation, as JSON."""
        measured = {"van_rossum": self.van_rossum, "isi": self.isi, "count": self.count}
        return finite(
            {"trains": self.trains}
            | {name: total / self.trains for name, (total, _) in measured.items()}
            | {f"{name}_largest": largest for name, (_, largest) in measured.items()}
            | {"rate_correlation": self.rate_correlation}
        )


def _sum_and_largest(a: tuple[T, T], b: tuple[T, T]) -> tuple[T, T]:
    return a[0] + b[0], max(a[1], b[1])


@dataclass(frozen=True)
class Distances:
    """Distances of every layer, with the time constant of van Rossum's kernel in steps."""

    layers: Mapping[str, Distance]
    tau: float = TAU

    def __add__(self, other: Distances) -> Distances:
        """Join with the same layers on further samples."""
        joined = {name: layer + other.layers[name] for name, layer in self.layers.items()}
        return Distances(joined, self.tau)

    @property
    def total(self) -> Distance | None:
        """All layers together; None where there is none."""
        return reduce(Distance.beside, self.layers.values()) if self.layers else None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "tau": self.tau,
            "total": self.total and self.total.to_json(),
            "layers": {name: layer.to_json() for name, layer in self.layers.items()},
        }


def distances(a: Execution, b: Execution, names: Collection[str], tau: float = TAU) -> Distances:
    """Return the distances between the spike trains of two executions.

    Args:
        a: one execution, recorded.
        b: the other, on the same input.
        names: layers that both recorded with the same shapes.
        tau: van Rossum's time constant in steps.

    Raises:
        InvalidInput: tau is not above 0.
    """
    if not tau > 0:
        raise InvalidInput(
            f"The time constant of the van Rossum distance is {tau:g}; it has to be above 0 steps."
        )
    return Distances({name: distance(a.spikes[name], b.spikes[name], tau) for name in names}, tau)


def distance(a: Array, b: Array, tau: float = TAU) -> Distance:
    """Return the distances between the trains of spikes a and b, (T, B, ...) of 0 and 1."""
    steps = len(a)
    left, right = a.reshape(steps, -1), b.reshape(steps, -1)
    differs = np.flatnonzero((left != right).any(axis=0))
    rossum, interval = np.zeros((2, len(differs)))
    size = max(1, NUMBERS // steps)
    for start in range(0, len(differs), size):
        part = slice(start, start + size)
        pair = left[:, differs[part]], right[:, differs[part]]
        rossum[part], interval[part] = van_rossum(*pair, tau), isi(*pair)
    apart = np.abs(left.sum(axis=0, dtype=np.int64) - right.sum(axis=0, dtype=np.int64))
    return Distance(
        left.shape[1],
        (float(rossum.sum()), float(rossum.max(initial=0.0))),
        (float(interval.sum()), float(interval.max(initial=0.0))),
        (int(apart.sum()), int(apart.max())),
        (a.sum(axis=(0, 1), dtype=np.int64), b.sum(axis=(0, 1), dtype=np.int64)),
    )


def van_rossum(a: Array, b: Array, tau: float) -> Array:
    """Return (n,) the van Rossum distances D of trains a and b, (T, n); see the head of the file."""
    kept, q = np.exp(-1 / tau), np.exp(-2 / tau)
    d, squares = np.zeros(a.shape[1]), np.zeros(a.shape[1])
    for more in a.astype(np.float64) - b:
        d = kept * d + more
        squares += d * d
    return np.asarray(np.sqrt(((1 - q) * squares + q * d * d) / 2))


def isi(a: Array, b: Array) -> Array:
    """Return (n,) the ISI distances of trains a and b, (T, n); see the head of the file."""
    x, y = intervals(a), intervals(b)
    return np.asarray(1 - (np.minimum(x, y) / np.maximum(x, y)).mean(axis=0))


def intervals(spikes: Array) -> Array:
    """Return (T, n) how long the interval is that is under way from each step to the next."""
    steps = len(spikes)
    at = np.arange(steps)[:, None]
    last = np.maximum.accumulate(np.where(spikes, at, 0), axis=0)
    ahead = np.full(spikes.shape, steps)
    ahead[:-1] = np.where(spikes[1:], at[1:], steps)
    following = np.minimum.accumulate(ahead[::-1], axis=0)[::-1]
    return np.asarray(following - last)

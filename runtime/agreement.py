"""Do two executions of one model fire the same spikes, and where do they part?

Plain equality is shown and never used: with 5 % spikes, silence agrees 95 %. The measure is F1 over spikes. Two
float executions may part where rounding decides on which side of its threshold a membrane falls; from there on the
sample runs on another history. So each sample that differs is judged by its first mismatch alone: a tie, or not.

A tie is a difference that rounding can make: `unscan.runtime.rounding` says how large that is, for every spiking node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.runtime.executors.base import Execution
from unscan.runtime.rounding import TIE, Rounding, explained

OUTPUTS = 1e-3
"""Outputs of samples that do not part differ where they do so by more than this, relatively."""


@dataclass(frozen=True)
class LayerAgreement:
    """Spikes of one layer in executions A and B, and in both; membranes before the reset."""

    spikes_a: int = 0
    spikes_b: int = 0
    both: int = 0
    slots: int = 0
    membrane_absolute: float = 0.0
    membrane_relative: float = 0.0

    def __add__(self, other: LayerAgreement) -> LayerAgreement:
        return LayerAgreement(
            self.spikes_a + other.spikes_a,
            self.spikes_b + other.spikes_b,
            self.both + other.both,
            self.slots + other.slots,
            max(self.membrane_absolute, other.membrane_absolute),
            max(self.membrane_relative, other.membrane_relative),
        )

    @property
    def precision(self) -> float:
        """Share of B's spikes that A fired too; nan where B is silent."""
        return self.both / self.spikes_b if self.spikes_b else float("nan")

    @property
    def recall(self) -> float:
        """Share of A's spikes that B fired too; nan where A is silent."""
        return self.both / self.spikes_a if self.spikes_a else float("nan")

    @property
    def f1(self) -> float:
        """2 both / (A + B); nan where both are silent."""
        spikes = self.spikes_a + self.spikes_b
        return 2 * self.both / spikes if spikes else float("nan")

    @property
    def mismatches(self) -> int:
        """Spikes of one side alone."""
        return self.spikes_a + self.spikes_b - 2 * self.both

    @property
    def mismatches_per_spike(self) -> float:
        """Spikes of one side alone for each of A's; nan where A is silent."""
        return self.mismatches / self.spikes_a if self.spikes_a else float("nan")

    @property
    def equality(self) -> float:
        """Share of equal bins; what silence scores against A is 1 - A's rate. Shown, never a gate."""
        return 1 - self.mismatches / self.slots if self.slots else float("nan")

    @property
    def silence(self) -> float:
        """The plain equality that an execution without any spike would reach."""
        return 1 - self.spikes_a / self.slots if self.slots else float("nan")

    @property
    def silent(self) -> bool:
        """Whether one of the two fired nothing at all: an error of its own."""
        return self.spikes_a == 0 or self.spikes_b == 0

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        names = (
            "precision",
            "recall",
            "f1",
            "mismatches",
            "mismatches_per_spike",
            "equality",
            "silence",
            "silent",
        )
        return finite({name: getattr(self, name) for name in (*self.__dataclass_fields__, *names)})


@dataclass(frozen=True)
class Mismatch:
    """Where one sample parts: the first bin in which one side fires and the other does not.

    `rounding` is how far apart rounding can have brought the two membranes. A membrane or a threshold that is not known
    is nan, and then so are the distances that need it.
    """

    step: int
    sample: int
    node: str
    neuron: tuple[int, ...]
    membrane_a: float
    membrane_b: float
    threshold: float
    rounding: float

    @property
    def _distances(self) -> list[float]:
        away = (abs(u - self.threshold) for u in (self.membrane_a, self.membrane_b))
        return [distance for distance in away if distance == distance]

    @property
    def distance(self) -> float:
        """Distance to the threshold of the nearer of the two membranes."""
        return min(self._distances, default=float("nan"))

    @property
    def apart(self) -> float:
        """How far the membranes are apart; at least the distance to the threshold, where one of them is not known."""
        apart = abs(self.membrane_a - self.membrane_b)
        return apart if apart == apart else self.distance

    @property
    def tie(self) -> bool:
        """Whether rounding explains it: the membranes are close to each other, and both to the threshold."""
        return all(away <= self.rounding for away in (self.apart, *self._distances))

    def __str__(self) -> str:
        neuron = self.neuron[0] if len(self.neuron) == 1 else self.neuron
        place = f"step {self.step}, sample {self.sample}, layer {self.node}, neuron {neuron}"
        if self.distance != self.distance:
            return f"{place}: membranes or threshold unknown"
        known = [f"{u:.7g}" if u == u else "one unknown" for u in (self.membrane_a, self.membrane_b)]
        return (
            f"{place}: membranes {' and '.join(known)}, {self.distance:.2g} from the threshold {self.threshold:g} and "
            f"{self.apart:.2g} apart, where rounding explains {self.rounding:.2g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        names = (*self.__dataclass_fields__, "distance", "apart", "tie")
        return finite({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Agreement:
    """How far executions A and B of one model agree.

    Attributes:
        layers: spiking layer -> its agreement, in topological order.
        output_absolute: largest absolute difference of outputs.
        output_relative: the same over samples that do not part, relative to the larger of the two and 1.
        samples: how many were compared.
        partings: the first mismatch of every sample that differs, by step.
    """

    layers: Mapping[str, LayerAgreement]
    output_absolute: float = 0.0
    output_relative: float = 0.0
    samples: int = 0
    partings: tuple[Mismatch, ...] = field(default=())

    def __add__(self, other: Agreement) -> Agreement:
        """Join with the agreement on further samples."""
        moved = (Mismatch(**{**vars(m), "sample": m.sample + self.samples}) for m in other.partings)
        names = [*self.layers, *(name for name in other.layers if name not in self.layers)]
        empty = LayerAgreement()
        return Agreement(
            {name: self.layers.get(name, empty) + other.layers.get(name, empty) for name in names},
            max(self.output_absolute, other.output_absolute),
            max(self.output_relative, other.output_relative),
            self.samples + other.samples,
            tuple(sorted((*self.partings, *moved), key=lambda m: (m.step, m.sample))),
        )

    @property
    def total(self) -> LayerAgreement:
        """All layers together."""
        return sum(self.layers.values(), LayerAgreement())

    @property
    def first(self) -> Mismatch | None:
        """The earliest mismatch that is no tie, or else the earliest; None where all spikes are equal."""
        return next((m for m in self.partings if not m.tie), next(iter(self.partings), None))

    @property
    def ties(self) -> tuple[Mismatch, ...]:
        """The samples that part at a tie."""
        return tuple(m for m in self.partings if m.tie)

    @property
    def near(self) -> int:
        """How many samples part with a membrane within `TIE` of its threshold: the narrow meaning of a tie."""
        return sum(m.distance <= TIE for m in self.partings)

    @property
    def silent(self) -> list[str]:
        """The layers in which one side, or both, fired nothing."""
        return [name for name, layer in self.layers.items() if layer.silent]

    @property
    def holds(self) -> bool:
        """Whether every layer fires, and every sample that differs parts at a tie."""
        return not self.silent and all(m.tie for m in self.partings)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "holds": self.holds,
            "samples": self.samples,
            "samples_that_differ": len(self.partings),
            "samples_within_1e-6_of_threshold": self.near,
            "ties": [m.to_json() for m in self.ties],
            "first_mismatch": self.first.to_json() if self.first else None,
            "silent_layers": self.silent,
            "output_absolute": self.output_absolute,
            "output_relative": self.output_relative,
            "total": self.total.to_json(),
            "layers": {name: layer.to_json() for name, layer in self.layers.items()},
        }


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers as JSON has them: None where one is nan or infinite."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in numbers.items()
    }


def compare(
    graph: Graph | None,
    a: Execution,
    b: Execution,
    *,
    x: Array | None = None,
    rounding: Rounding = Rounding(),  # noqa: B008 (it is immutable)
    without: Collection[str] = (),
) -> Agreement:
    """Compare two recorded executions of one model on the same input.

    Args:
        graph: gives the order of the layers, their thresholds, and what feeds them. Without it the layers are those
            that A recorded, no threshold is known, and no mismatch is a tie.
        a: the truth.
        b: what is judged.
        x: the input (T, B, ...); it sharpens what rounding explains in the layers that it feeds.
        rounding: what rounding is granted; by default that of float32.
        without: layers that are left out, as one side cannot be listened to there.

    Raises:
        InvalidInput: the two did not record the same layers with the same shapes.
    """
    fired = a.spikes if graph is None else graph.of(*SPIKING)
    names = [name for name in fired if name not in without]
    for name in names:
        shapes = [execution.spikes[name].shape if name in execution.spikes else None for execution in (a, b)]
        if shapes[0] is None or shapes[0] != shapes[1]:
            raise InvalidInput(
                f"Layer {name!r} cannot be compared: one side recorded {shapes[0]}, the other {shapes[1]}; run both "
                "on the same input, and record."
            )
    layers = {name: _layer(name, a, b) for name in names}
    partings = tuple(_partings(graph, names, (a, b), rounding, x))
    together = np.ones(a.outputs.shape[1], bool)
    together[[mismatch.sample for mismatch in partings]] = False
    return Agreement(
        layers,
        _largest(a.outputs, b.outputs)[0],
        _largest(a.outputs[:, together], b.outputs[:, together])[1],
        a.outputs.shape[1],
        partings,
    )


def _layer(name: str, a: Execution, b: Execution) -> LayerAgreement:
    left, right = a.spikes[name], b.spikes[name]
    known = name in a.membranes and name in b.membranes
    absolute, relative = _largest(a.membranes[name], b.membranes[name]) if known else (0.0, 0.0)
    return LayerAgreement(
        int(np.count_nonzero(left)),
        int(np.count_nonzero(right)),
        int(np.count_nonzero(left & right)),
        left.size,
        absolute,
        relative,
    )


def _largest(a: Array, b: Array) -> tuple[float, float]:
    """Return the largest absolute difference, and the largest relative to the larger of the two and 1."""
    difference = np.abs(a.astype(np.float64) - b)
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1.0)
    return float(difference.max(initial=0.0)), float((difference / scale).max(initial=0.0))


def _partings(
    graph: Graph | None,
    names: list[str],
    sides: tuple[Execution, Execution],
    rounding: Rounding,
    x: Array | None,
) -> list[Mismatch]:
    """Return the first mismatch of each sample that differs: earliest step, then first layer."""
    first: dict[int, tuple[int, str]] = {}
    for name in names:
        differs = sides[0].spikes[name] != sides[1].spikes[name]
        steps_differ = differs.reshape(*differs.shape[:2], -1).any(axis=2)
        for sample in map(int, np.flatnonzero(steps_differ.any(axis=0))):
            step = int(steps_differ[:, sample].argmax())
            if sample not in first or step < first[sample][0]:
                first[sample] = (step, name)
    found = [_mismatch(graph, name, sides, (t, sample), rounding, x) for sample, (t, name) in first.items()]
    return sorted(found, key=lambda m: (m.step, m.sample))


def _mismatch(
    graph: Graph | None,
    name: str,
    sides: tuple[Execution, Execution],
    place: tuple[int, int],
    rounding: Rounding,
    x: Array | None,
) -> Mismatch:
    """Return the neuron of one layer, step and sample that differs and that rounding explains least."""
    at = np.nonzero(sides[0].spikes[name][place] != sides[1].spikes[name][place])
    left, right = (
        side.membranes[name][place][at].astype(np.float64)
        if name in side.membranes
        else np.full(len(at[0]), np.nan)
        for side in sides
    )
    if graph is None or not any(name in side.membranes for side in sides):
        thresholds, granted = np.full(len(at[0]), np.nan), np.zeros(len(at[0]))
    else:
        thresholds, granted = explained(graph, name, sides, place, at, rounding, x)
    apart = np.abs(left - right)
    apart = np.where(np.isnan(apart), np.fmin(np.abs(left - thresholds), np.abs(right - thresholds)), apart)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = int(np.argmax(np.where(apart > 0, apart / granted, 0.0)))
    return Mismatch(
        *place,
        name,
        tuple(int(axis[least]) for axis in at),
        float(left[least]),
        float(right[least]),
        float(thresholds[least]),
        float(granted[least]),
    )


def in_units_of(graph: Graph, other: Graph | None, execution: Execution) -> Execution:
    """Return an execution of `other` (None: of a model as trained) with its membranes in the units that `graph` has.

    fold-threshold multiplies a membrane along with its threshold and all that feeds it; `meta["units"]` says by what.
    """
    new, old = (held.meta.get("units", {}) if held else {} for held in (graph, other))
    scaled = {
        name: membrane * (np.asarray(new.get(name, 1.0)) / np.asarray(old.get(name, 1.0)))
        if name in new or name in old
        else membrane
        for name, membrane in execution.membranes.items()
    }
    return replace(execution, membranes=scaled)

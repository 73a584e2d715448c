"""Do two executions of one model fire the same spikes, and where do they part?

Plain equality is shown and never used: with 5 % spikes, silence agrees 95 %. The measure is F1 over spikes. Two
float executions may part where rounding decides on which side of its threshold a membrane falls; from there on the
sample runs on another history. So each sample that differs is judged by its first mismatch alone: a tie, or not.

A tie is a difference that rounding can make. In float32 each step of u_t = beta u_{t-1} + I_t rounds a product and a
sum, each by up to 2^-24 of its size, and the sum I_t = sum_j w_j x_j of n terms before it by about sqrt(n) times 2^-24
of G_t = sum_j |w_j x_j|; what was rounded at step s is still there, times beta^(t-s), at step t. So two executions may
come to differ by 2^-23 sum_s beta^(t-s) (2 |u_s| + sqrt(n) G_s). At least `TIE` of the threshold is granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Linear
from unscan.compiler.nodes.neurons import Spiking
from unscan.runtime.executors.base import SPIKING, Execution

TIE = 1e-6
UNIT = 2.0**-23
"""Two executions, each off by half a unit in the last place of float32."""


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
        names = ("precision", "recall", "f1", "mismatches", "equality", "silence", "silent")
        return {name: getattr(self, name) for name in (*self.__dataclass_fields__, *names)}


@dataclass(frozen=True)
class Mismatch:
    """Where one sample parts: the first bin in which one side fires and the other does not.

    `rounding` is how far apart rounding can have brought the two membranes.
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
    def distance(self) -> float:
        """Distance to the threshold of the nearer of the two membranes."""
        return min(abs(self.membrane_a - self.threshold), abs(self.membrane_b - self.threshold))

    @property
    def tie(self) -> bool:
        """Whether rounding explains it."""
        return abs(self.membrane_a - self.membrane_b) <= self.rounding

    def __str__(self) -> str:
        neuron = self.neuron[0] if len(self.neuron) == 1 else self.neuron
        apart = abs(self.membrane_a - self.membrane_b)
        return (
            f"step {self.step}, sample {self.sample}, layer {self.node}, neuron {neuron}: membranes "
            f"{self.membrane_a:.7g} and {self.membrane_b:.7g}, {self.distance:.2g} from the threshold "
            f"{self.threshold:g} and {apart:.2g} apart, where rounding explains {self.rounding:.2g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {name: getattr(self, name) for name in (*self.__dataclass_fields__, "distance", "tie")}


@dataclass(frozen=True)
class Agreement:
    """How far executions A and B of one model agree.

    Attributes:
        layers: spiking layer -> its agreement, in topological order.
        output_absolute: largest absolute difference of outputs.
        samples: how many were compared.
        partings: the first mismatch of every sample that differs, by step.
    """

    layers: Mapping[str, LayerAgreement]
    output_absolute: float = 0.0
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
            "total": self.total.to_json(),
            "layers": {name: layer.to_json() for name, layer in self.layers.items()},
        }


def compare(graph: Graph, a: Execution, b: Execution) -> Agreement:
    """Compare two recorded executions of one model on the same input.

    Args:
        graph: gives the order of the layers and their thresholds.
        a: the truth.
        b: what is judged.

    Raises:
        InvalidInput: the two did not record the same layers with the same shapes.
    """
    names = graph.of(*SPIKING)
    for name in names:
        shapes = [execution.spikes[name].shape if name in execution.spikes else None for execution in (a, b)]
        if shapes[0] is None or shapes[0] != shapes[1]:
            raise InvalidInput(
                f"Layer {name!r} cannot be compared: one side recorded {shapes[0]}, the other {shapes[1]}; run both "
                "on the same input, and record."
            )
    layers = {name: _layer(name, a, b) for name in names}
    return Agreement(
        layers, _largest(a.outputs, b.outputs)[0], a.outputs.shape[1], tuple(_partings(graph, names, a, b))
    )


def _layer(name: str, a: Execution, b: Execution) -> LayerAgreement:
    left, right = a.spikes[name], b.spikes[name]
    absolute, relative = _largest(a.membranes[name], b.membranes[name])
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


def _partings(graph: Graph, names: list[str], a: Execution, b: Execution) -> list[Mismatch]:
    """Return the first mismatch of each sample that differs: earliest step, then first layer.

    Of the neurons of that layer and step that differ, the one is named that rounding explains least.
    """
    first: dict[int, Mismatch] = {}
    for name in names:
        differs = a.spikes[name] != b.spikes[name]
        steps_differ = differs.reshape(*differs.shape[:2], -1).any(axis=2)
        for sample in map(int, np.flatnonzero(steps_differ.any(axis=0))):
            step = int(steps_differ[:, sample].argmax())
            if sample in first and first[sample].step <= step:
                continue
            places = [tuple(map(int, place)) for place in np.argwhere(differs[step, sample])]
            found = [_mismatch(graph, a, b, name, step, sample, place) for place in places]
            first[sample] = max(found, key=lambda m: abs(m.membrane_a - m.membrane_b) / m.rounding)
    return sorted(first.values(), key=lambda m: (m.step, m.sample))


def _mismatch(
    graph: Graph, a: Execution, b: Execution, name: str, step: int, sample: int, neuron: tuple[int, ...]
) -> Mismatch:
    node = cast(Spiking, graph.nodes[name])
    past: Any = (slice(step + 1), sample, *neuron)
    left, right = (e.membranes[name][past].astype(np.float64) for e in (a, b))
    beta, threshold = (
        float(np.broadcast_to(p, a.spikes[name].shape[2:])[neuron]) for p in (node.beta, node.threshold)
    )
    reached = np.maximum(np.abs(left), np.abs(right))
    lost = 2 * reached
    for edge in graph.into(name):
        source = graph.nodes[edge.source]
        if isinstance(source, Linear):
            weights = np.abs(source.weight[neuron], dtype=np.float64)
            senders = [a.spikes.get(e.source) for e in graph.into(edge.source)]
            added = sum(
                (weights @ sent[: step + 1, sample].T for sent in senders if sent is not None), reached
            )
            lost = lost + len(weights) ** 0.5 * added
    rounding = max(TIE * threshold, UNIT * float(beta ** np.arange(step, -1, -1) @ lost))
    return Mismatch(step, sample, name, neuron, float(left[-1]), float(right[-1]), threshold, rounding)

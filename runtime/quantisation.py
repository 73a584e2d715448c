"""What rounding to whole numbers cost: a graph of whole numbers against the model that it was made of.

Between the executors of one such graph nothing rounds, so they have to agree bit for bit (`EXACT`). Against the model
they never do: what counts is the decision, and what explains it, layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.runtime.agreement import LayerAgreement
from unscan.runtime.decision import decide
from unscan.runtime.executors.base import Execution
from unscan.runtime.rounding import Rounding

EXACT = Rounding(unit=0.0, least=0.0)
"""What executors of one graph of whole numbers are granted: nothing."""


def decoded(graph: Graph, outputs: Array) -> Array:
    """Return outputs of a graph in the units of the model, whether it computes with whole numbers or not."""
    return np.asarray(outputs / graph.meta.get("quantised", {}).get("output", 1.0))


def largest_difference(a: Array, b: Array) -> float:
    """Return the largest absolute difference, 0 of nothing."""
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0))


@dataclass(frozen=True)
class LayerCost:
    """What rounding did to one layer that fires.

    Attributes:
        agreement: of its spikes, model and whole numbers.
        fired: how often each neuron did, of the model and of whole numbers.
        steps: how often each could have.
        saturated: numbers that its format could not hold; None where the executor counts none.
    """

    agreement: LayerAgreement
    fired: tuple[Array, Array] = field(repr=False)
    steps: int
    saturated: int | None

    def __add__(self, other: LayerCost) -> LayerCost:
        known = self.saturated is not None and other.saturated is not None
        return LayerCost(
            self.agreement + other.agreement,
            (self.fired[0] + other.fired[0], self.fired[1] + other.fired[1]),
            self.steps + other.steps,
            (self.saturated or 0) + (other.saturated or 0) if known else None,
        )

    @property
    def rates(self) -> tuple[float, float]:
        """Spikes per neuron and step, of both."""
        return float(self.fired[0].mean() / self.steps), float(self.fired[1].mean() / self.steps)

    @property
    def dead(self) -> tuple[int, int]:
        """Neurons that never fired, of both."""
        return int((self.fired[0] == 0).sum()), int((self.fired[1] == 0).sum())

    @property
    def always(self) -> tuple[int, int]:
        """Neurons that fired at every step, of both."""
        return int((self.fired[0] == self.steps).sum()), int((self.fired[1] == self.steps).sum())

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        pairs = {"rate": self.rates, "dead": self.dead, "always_firing": self.always}
        sides = {
            f"{name}{side}": pair[place]
            for name, pair in pairs.items()
            for place, side in enumerate(("_model", ""))
        }
        f1 = self.agreement.f1
        return {
            "f1": None if f1 != f1 else f1,
            "neurons": int(self.fired[0].size),
            "saturated": self.saturated,
            **sides,
        }


@dataclass(frozen=True)
class Cost:
    """What rounding to whole numbers cost.

    Attributes:
        profile: the name of the widths; None where the graph does not say.
        samples: how many were compared.
        right: samples that model and whole numbers decided right; None without labels.
        decided_alike: samples with one decision on both sides; None without a way to decide.
        output: the largest difference of an output, in the model's units.
        layers: layer that fires -> what rounding did to it.
        saturated: node that does not fire -> numbers that its format could not hold.
    """

    profile: str | None
    samples: int
    right: tuple[int, int] | None
    decided_alike: int | None
    output: float
    layers: Mapping[str, LayerCost]
    saturated: Mapping[str, int]

    def __add__(self, other: Cost) -> Cost:
        """Join with what it cost on further samples."""
        alike = (self.decided_alike, other.decided_alike)
        return replace(
            self,
            samples=self.samples + other.samples,
            right=(self.right[0] + other.right[0], self.right[1] + other.right[1])
            if self.right and other.right
            else None,
            decided_alike=None if None in alike else sum(n or 0 for n in alike),
            output=max(self.output, other.output),
            layers={name: layer + other.layers[name] for name, layer in self.layers.items()},
            saturated={
                name: self.saturated.get(name, 0) + other.saturated.get(name, 0)
                for name in {**self.saturated, **other.saturated}
            },
        )

    @property
    def total(self) -> LayerAgreement:
        """All layers together."""
        return sum((layer.agreement for layer in self.layers.values()), LayerAgreement())

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Accuracy of the model and of whole numbers."""
        return None if self.right is None else (self.right[0] / self.samples, self.right[1] / self.samples)

    @property
    def gap(self) -> float | None:
        """Accuracy of whole numbers minus that of the model."""
        return None if self.accuracy is None else self.accuracy[1] - self.accuracy[0]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        f1 = self.total.f1
        return {
            "profile": self.profile,
            "samples": self.samples,
            "accuracy_model": self.accuracy and self.accuracy[0],
            "accuracy": self.accuracy and self.accuracy[1],
            "gap": self.gap,
            "decided_alike": self.decided_alike,
            "f1": None if f1 != f1 else f1,
            "output_absolute": self.output,
            "layers": {name: layer.to_json() for name, layer in self.layers.items()},
            "saturated_elsewhere": dict(self.saturated),
        }


def cost_of_rounding(
    graph: Graph,
    model: Execution,
    whole: Execution,
    *,
    labels: Array | None = None,
    decision: str | None = None,
) -> Cost:
    """Compare an execution of a model with one of the graph of whole numbers that was made of it.

    Args:
        graph: the graph of whole numbers.
        model: the model's, with membranes in the units of the graph (`agreement.in_units_of`).
        whole: the graph's, recorded.
        labels: (B,) classes.
        decision: how outputs become a class.
    """
    tallies = whole.counts.tallies if whole.counts else None
    lost = (
        None if tallies is None else {name: t["saturated"] for name, t in tallies.items() if "saturated" in t}
    )
    layers = {}
    for name in graph.of(*SPIKING):
        if name in model.spikes and name in whole.spikes:
            a, b = model.spikes[name], whole.spikes[name]
            fired = (a.sum(axis=(0, 1)), b.sum(axis=(0, 1)))
            layers[name] = LayerCost(
                agreement_of(name, model, whole),
                fired,
                a.shape[0] * a.shape[1],
                None if lost is None else lost.get(name, 0),
            )
    chosen = None if decision is None else [decide(side.outputs, decision) for side in (model, whole)]
    right = None
    if labels is not None and chosen is not None:
        right = (int(np.sum(chosen[0] == labels)), int(np.sum(chosen[1] == labels)))
    return Cost(
        profile=graph.meta.get("quantised", {}).get("profile"),
        samples=whole.outputs.shape[1],
        right=right,
        decided_alike=None if chosen is None else int(np.sum(chosen[0] == chosen[1])),
        output=largest_difference(model.outputs, decoded(graph, whole.outputs)),
        layers=layers,
        saturated={name: count for name, count in (lost or {}).items() if count and name not in layers},
    )


def agreement_of(name: str, a: Execution, b: Execution) -> LayerAgreement:
    """Return the agreement of one layer that both recorded."""
    left, right = a.spikes[name], b.spikes[name]
    return LayerAgreement(
        int(np.count_nonzero(left)),
        int(np.count_nonzero(right)),
        int(np.count_nonzero(left & right)),
        left.size,
    )


def states_apart(a: Execution, b: Execution) -> tuple[str, ...]:
    """Return the states that two executions of one graph do not leave alike, bit for bit."""
    return tuple(name for name in {**a.state, **b.state} if not np.array_equal(a.state[name], b.state[name]))

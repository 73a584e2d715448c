"""Is the deployed graph still the model that was trained? Every executor against the parallel form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import LIF
from unscan.runtime.agreement import Agreement, compare
from unscan.runtime.batches import batches
from unscan.runtime.counts import Counts
from unscan.runtime.decision import decide
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import Execution, check_input
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference

if TYPE_CHECKING:
    from torch import nn

AGAINST = ("reference", "event", "onnx", "onnx-scan")
PRECISIONS = (64, 32)


@dataclass(frozen=True)
class Comparison:
    """One executor in one number format against the trained model in the same format.

    Attributes:
        executor: its name.
        precision: bits of the floating-point format in which both ran; the reference always runs in 64.
        agreement: of their spikes and membranes.
        right: samples that each decided right (model, executor); None without labels.
        decided_alike: samples with the same decision on both sides; None without a way to decide.
        counts: operations of the executor, where it counts.
    """

    executor: str
    precision: int
    agreement: Agreement
    right: tuple[int, int] | None
    decided_alike: int | None
    counts: Counts | None = field(repr=False)

    @property
    def holds(self) -> bool:
        """Whether every layer fires, and the spikes are the same but for ties."""
        return self.agreement.holds

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Accuracy of the model and of the executor."""
        if self.right is None:
            return None
        return self.right[0] / self.agreement.samples, self.right[1] / self.agreement.samples

    @property
    def gap(self) -> float | None:
        """Accuracy of the executor minus that of the model."""
        return None if self.accuracy is None else self.accuracy[1] - self.accuracy[0]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "executor": self.executor,
            "precision": self.precision,
            "holds": self.holds,
            "accuracy_model": self.accuracy and self.accuracy[0],
            "accuracy": self.accuracy and self.accuracy[1],
            "gap": self.gap,
            "decided_alike": self.decided_alike,
            "agreement": self.agreement.to_json(),
        }


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        comparisons: one for each executor and precision.
        restored: LIF nodes that are deployed with another reset than they were trained with: name -> (trained,
            deployed).
        digest: of the deployed graph.
    """

    comparisons: Sequence[Comparison]
    restored: Mapping[str, tuple[str, str]]
    digest: str

    @property
    def holds(self) -> bool:
        """Whether every comparison holds."""
        return all(comparison.holds for comparison in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "holds": self.holds,
            "graph": self.digest,
            "resets_restored": {
                name: {"trained": trained, "deployed": deployed}
                for name, (trained, deployed) in self.restored.items()
            },
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }


def verify(
    model: nn.Module | Graph,
    deployed: Graph,
    x: Array,
    against: Sequence[str] = AGAINST,
    *,
    labels: Array | None = None,
    decision: str | None = None,
    precisions: Sequence[int] = PRECISIONS,
    progress: Callable[[str, float], None] | None = None,
) -> Verification:
    """Run the trained model and the deployed graph on the same input, and compare every spike.

    Args:
        model: the trained torch module, or a graph that stands for it (then run by the reference).
        deployed: the iterative graph.
        x: input (T, B, ...).
        against: names of executors that run the deployed graph.
        labels: (B,) classes; gives accuracies and the gap.
        decision: how outputs become a class, "last" or "mean"; None takes what the graph's meta says.
        precisions: 64 casts model and graph to float64, which leaves no rounding but that of folded weights;
            32 runs them as they are shipped.
        progress: called with what is running and the share done.

    Raises:
        InvalidInput: an unknown executor or precision, or inputs and labels that do not fit.
    """
    x = check_input(deployed, x)
    decision = decision or deployed.meta.get("decision")
    if labels is not None and (np.shape(labels) != x.shape[1:2] or decision is None):
        raise InvalidInput(
            f"Got labels of shape {np.shape(labels)} for {x.shape[1]} samples and the decision {decision!r}; wanted "
            "one label for each sample, and the decision 'last' or 'mean'."
        )
    if not set(precisions) <= set(PRECISIONS):
        raise InvalidInput(f"Got the precisions {list(precisions)}; choose from {list(PRECISIONS)}.")
    total, done = len(precisions) * x.shape[1], 0
    comparisons: list[Comparison] = []
    for precision in precisions:
        truth = _truth(model, deployed, precision)
        graph = deployed.astype(np.float64 if precision == 64 else np.float32)
        judged = {name: executor(name, graph) for name in against}
        found: dict[str, Comparison] = {}
        for part in batches(graph, *x.shape[:2]):
            expected = truth.run(x[:, part])
            for name, runner in judged.items():
                if progress:
                    progress(f"{name}, {precision} bits", done / total)
                got = runner.run(x[:, part])
                piece = _comparison(name, precision, graph, expected, got, labels, decision, part)
                found[name] = _join(found[name], piece) if name in found else piece
            done += part.stop - part.start
        comparisons += found.values()
    restored = {
        name: (node.trained_reset, node.reset)
        for name in deployed.of(LIF)
        if (node := cast(LIF, deployed.nodes[name])).trained_reset != node.reset
    }
    return Verification(comparisons, restored, deployed.digest)


def _truth(model: nn.Module | Graph, deployed: Graph, precision: int) -> Model | Reference:
    if isinstance(model, Graph):
        return Reference(model)
    module = copy.deepcopy(model)
    return Model(module.double() if precision == 64 else module, deployed)


def _comparison(
    name: str,
    precision: int,
    graph: Graph,
    expected: Execution,
    got: Execution,
    labels: Array | None,
    decision: str | None,
    part: slice,
) -> Comparison:
    chosen = None if decision is None else [decide(e.outputs, decision) for e in (expected, got)]
    right = None
    if labels is not None and chosen is not None:
        right = (int(np.sum(chosen[0] == labels[part])), int(np.sum(chosen[1] == labels[part])))
    alike = None if chosen is None else int(np.sum(chosen[0] == chosen[1]))
    return Comparison(name, precision, compare(graph, expected, got), right, alike, got.counts)


def _join(a: Comparison, b: Comparison) -> Comparison:
    return Comparison(
        a.executor,
        a.precision,
        a.agreement + b.agreement,
        (a.right[0] + b.right[0], a.right[1] + b.right[1]) if a.right and b.right else None,
        a.decided_alike + b.decided_alike
        if a.decided_alike is not None and b.decided_alike is not None
        else None,
        a.counts + b.counts if a.counts and b.counts else None,
    )

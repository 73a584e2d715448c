"""Any two executions compared: of one graph in two executors, of two graphs, or as files hold them.

What they are compared in is what both recorded under one name in one shape; what only one of them has is listed, and
never left out in silence.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.runtime.agreement import OUTPUTS, Agreement, Mismatch, compare, finite, in_units_of
from unscan.runtime.agreement_account import EVENTS
from unscan.runtime.agreement_replay import Side
from unscan.runtime.batches import batches
from unscan.runtime.decision import decide
from unscan.runtime.distances import TAU, Distances, distances
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import Execution, check_input
from unscan.runtime.explain import Explanation, explain
from unscan.runtime.quantisation import EXACT, decoded
from unscan.runtime.rounding import Rounding


@dataclass(frozen=True)
class Compared:
    """What was found of two executions on the same input.

    Attributes:
        agreement: of spikes, membranes and outputs; outputs in the units of the model.
        distances: between spike trains, of the same layers.
        alone: layers that were not compared, as only one side has them or their shapes differ: of A and of B.
        right: samples that A and B decided right; None without labels.
        decided_alike: samples with one decision on both sides; None without a way to decide.
        rounding: what float executions were granted.
        parted: the first mismatch that is no tie, else the first, and the sample in which it lies on both sides.
    """

    agreement: Agreement
    distances: Distances
    alone: tuple[tuple[str, ...], tuple[str, ...]]
    right: tuple[int, int] | None
    decided_alike: int | None
    rounding: Rounding
    parted: tuple[Mismatch, Side, Side] | None

    def __add__(self, other: Compared) -> Compared:
        """Join with what was found on further samples."""
        shift = self.agreement.samples
        agreement = self.agreement + other.agreement
        parted = self.parted
        if other.parted is not None:
            mismatch, *sides = other.parted
            later = replace(mismatch, sample=mismatch.sample + shift)
            if parted is None or agreement.first == later:
                parted = (later, sides[0], sides[1])
        alike = (self.decided_alike, other.decided_alike)
        return replace(
            self,
            agreement=agreement,
            distances=self.distances + other.distances,
            right=(self.right[0] + other.right[0], self.right[1] + other.right[1])
            if self.right and other.right
            else None,
            decided_alike=None if None in alike else sum(count or 0 for count in alike),
            parted=parted,
        )

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Accuracy of A and of B."""
        samples = self.agreement.samples
        return None if self.right is None else (self.right[0] / samples, self.right[1] / samples)

    @property
    def gap(self) -> float | None:
        """Accuracy of B minus that of A."""
        return None if self.accuracy is None else self.accuracy[1] - self.accuracy[0]

    @property
    def output_off(self) -> bool:
        """Whether outputs differ by more than rounding in samples whose spikes are the same."""
        return self.agreement.output_relative > (0.0 if self.rounding == EXACT else OUTPUTS)

    @property
    def same(self) -> bool:
        """Whether all layers of both sides fire, and fire the same but for ties, and so do their outputs agree."""
        return self.agreement.holds and not self.output_off and not any(self.alone)

    def explained(self, *, most: int = EVENTS) -> Explanation | None:
        """Explain the first mismatch; None where there is none, or where a side's graph or input is not known."""
        if self.parted is None:
            return None
        mismatch, a, b = self.parted
        if any(side.graph is None or side.x is None for side in (a, b)):
            return None
        return explain(a, b, mismatch, most=most)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        reasons = self.explained()
        agreement = self.agreement.to_json()
        apart = self.distances.to_json()
        return {
            "same": self.same,
            "samples": self.agreement.samples,
            "accuracy_a": self.accuracy and self.accuracy[0],
            "accuracy_b": self.accuracy and self.accuracy[1],
            "gap": self.gap,
            "decided_alike": self.decided_alike,
            "only_in_a": self.alone[0],
            "only_in_b": self.alone[1],
            "rounding": finite({"unit": self.rounding.unit, "weights": self.rounding.weights}),
            "agreement": agreement,
            "distances": apart,
            "explanation": reasons and reasons.to_json(),
        }


def compare_sides(
    a: Side,
    b: Side,
    *,
    labels: Array | None = None,
    decision: str | None = None,
    rounding: Rounding | None = None,
    tau: float = TAU,
) -> Compared:
    """Compare two executions on the same input.

    Membranes are compared in the units of B's graph. Thresholds are those of B's graph, or of A's where that is not
    known.

    Args:
        a: one side, the truth if either is.
        b: the other.
        labels: (B,) classes.
        decision: how outputs become a class; None takes what a graph's meta says.
        rounding: what the two are granted; None takes what follows from their number formats.
        tau: the time constant of the van Rossum distance, in steps.

    Raises:
        InvalidInput: the two did not run equally many steps and samples, no layer was recorded on both sides, or labels
            do not fit, or come without a decision.
    """
    shapes = [side.execution.outputs.shape for side in (a, b)]
    if shapes[0] != shapes[1]:
        raise InvalidInput(
            f"The outputs of {a.name or 'A'} have the shape {shapes[0]}, those of {b.name or 'B'} {shapes[1]}; compare "
            "executions on the same input, and models with the same outputs."
        )
    graph = b.graph or a.graph
    common, alone = _layers(a, b)
    if not common:
        raise InvalidInput(
            f"No layer was recorded on both sides: {a.name or 'A'} has {', '.join(alone[0]) or 'none'}, "
            f"{b.name or 'B'} has {', '.join(alone[1]) or 'none'}. Record both, and give layers that belong together "
            "one name."
        )
    left, right = (_decoded(side) for side in (a, b))
    if a.graph is not None and b.graph is not None:
        left = in_units_of(b.graph, a.graph, left)
    granted = rounding_of(a, b) if rounding is None else rounding
    without = () if graph is None else [name for name in graph.of(*SPIKING) if name not in common]
    if graph is None:
        left = replace(left, spikes={name: left.spikes[name] for name in common})
    x = b.x if b.x is not None else a.x
    found = compare(graph, left, right, x=x, rounding=granted, without=without)
    how = decision or decision_of(b.graph, a.graph)
    check_labels(labels, how, a.execution.outputs.shape[1])
    chosen = None if how is None else [decide(side.outputs, how) for side in (left, right)]
    first = found.first
    return Compared(
        found,
        distances(left, right, common, tau),
        alone,
        None
        if labels is None or chosen is None
        else (int(np.sum(chosen[0] == labels)), int(np.sum(chosen[1] == labels))),
        None if chosen is None else int(np.sum(chosen[0] == chosen[1])),
        granted,
        None if first is None else (first, a.only(first.sample), b.only(first.sample)),
    )


def compare_graphs(
    a: Graph,
    b: Graph,
    x: Array,
    *,
    using: tuple[str, str] = ("reference", "reference"),
    names: tuple[str, str] = ("A", "B"),
    labels: Array | None = None,
    decision: str | None = None,
    tau: float = TAU,
    progress: Callable[[float], None] | None = None,
) -> Compared:
    """Run two graphs, or one in two executors, on x (T, B, ...) in parts that fit into memory, and compare them.

    Args:
        a: one graph.
        b: the other.
        x: the input of both.
        using: the executors of A and of B.
        names: what to call them.
        labels, decision, tau: see `compare_sides`.
        progress: called with the share of samples done.

    Raises:
        InvalidInput: an unknown executor, an input or labels that do not fit, or what `compare_sides` raises.
    """
    x = check_input(a, check_input(b, x))
    check_labels(labels, decision or decision_of(b, a), x.shape[1])
    runners = [executor(name, graph) for name, graph in zip(using, (a, b), strict=True)]
    found: Compared | None = None
    for part in batches(max((a, b), key=lambda graph: len(graph.nodes)), *x.shape[:2]):
        sides = [
            Side(runner.run(x[:, part]), graph, x[:, part], name, is_exact(graph, how))
            for runner, graph, name, how in zip(runners, (a, b), names, using, strict=True)
        ]
        piece = compare_sides(
            *sides, labels=None if labels is None else labels[part], decision=decision, tau=tau
        )
        found = piece if found is None else found + piece
        if progress:
            progress(part.stop / x.shape[1])
    assert found is not None
    return found


def check_labels(labels: Array | None, decision: str | None, samples: int) -> None:
    """Raise InvalidInput unless there is one label for each sample, and a decision; or no label."""
    if labels is not None and (np.shape(labels) != (samples,) or decision is None):
        raise InvalidInput(
            f"Got labels of shape {np.shape(labels)} for {samples} samples and the decision {decision!r}; wanted one "
            "label for each sample, and the decision 'last' or 'mean'."
        )


def decision_of(*graphs: Graph | None) -> str | None:
    """Return how the outputs of graphs become a class, as the first says that says it."""
    said = (graph.meta.get("decision") for graph in graphs if graph is not None)
    return next((how for how in said if how is not None), None)


def is_exact(graph: Graph, using: str) -> bool:
    """Say whether an executor computes a graph in float64."""
    return using == "reference" or graph.dtype == np.float64


def rounding_of(a: Side, b: Side) -> Rounding:
    """Return what two executions are granted: nothing between whole numbers, and what their format rounds else.

    Two graphs in float64 are granted numbers that were computed on the way from one to the other, and rounded to
    float32.
    """
    graphs = [side.graph for side in (a, b)]
    if any(graph is not None and graph.integer for graph in graphs):
        return EXACT
    if not (a.exact and b.exact):
        return Rounding()
    same = graphs[0] is not None and graphs[0] == graphs[1]
    return Rounding(2.0**-52, 0.0 if same else 2.0**-24, 0.0)


def _layers(a: Side, b: Side) -> tuple[list[str], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return the layers that both recorded in one shape, and those of each side that are not compared."""
    fired = a.execution.spikes, b.execution.spikes
    order = list(dict.fromkeys((*fired[1], *fired[0])))
    common = [
        name
        for name in order
        if all(name in f for f in fired) and fired[0][name].shape == fired[1][name].shape
    ]
    rest = [tuple(name for name in each if name not in common) for each in fired]
    return common, (rest[0], rest[1])


def _decoded(side: Side) -> Execution:
    """Return an execution with its outputs in the units of the model."""
    if side.graph is None:
        return side.execution
    return replace(side.execution, outputs=decoded(side.graph, side.execution.outputs))


def read_execution(path: Path) -> Execution:
    """Read what `unscan simulate --output` wrote: outputs, spikes/NAME, state/NAME, and membranes/NAME where they are.

    Raises:
        InvalidInput: there is no such file.
        DamagedFile: it is no complete .npz file, or holds no outputs and spikes (T, B, ...).
    """
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; `unscan simulate --output FILE.npz` writes one.")
    groups: dict[str, dict[str, Array]] = {"spikes": {}, "membranes": {}, "state": {}}
    try:
        with np.load(path, allow_pickle=False) as archive:
            outputs = archive["outputs"]
            for key in archive.files:
                group, _, name = key.partition("/")
                if group in groups:
                    groups[group][name] = archive[key]
    except (ValueError, EOFError, OSError, KeyError, AttributeError, TypeError, zipfile.BadZipFile):
        raise DamagedFile(
            f"{path} is not a complete .npz file with outputs and spikes: it is truncated, altered, or something else. "
            "Write it again with `unscan simulate --output`."
        ) from None
    lead = outputs.shape[:2]
    for group in ("spikes", "membranes"):
        for name, recorded in groups[group].items():
            if recorded.ndim < 3 or recorded.shape[:2] != lead:
                raise DamagedFile(
                    f"{path} holds {group} of {name!r} in the shape {recorded.shape} beside outputs "
                    f"{outputs.shape}; steps and samples come first in both. Write it again with "
                    "`unscan simulate --output`."
                )
    spikes = {name: recorded != 0 for name, recorded in groups["spikes"].items()}
    return Execution(outputs, spikes, groups["membranes"], groups["state"], None)

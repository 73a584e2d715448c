"""Is the deployed graph still the model that was trained? Every executor against the parallel form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unscan.compiler.errors import InvalidInput, UnscanError
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import RESETTING, SPIKING, Diagonal, Input, IntegerLIF, IntegerMemory
from unscan.runtime.agreement import OUTPUTS, Agreement, compare, in_units_of
from unscan.runtime.batches import batches
from unscan.runtime.counts import Counts
from unscan.runtime.decision import decide
from unscan.runtime.doubled import doubled
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import Execution, check_input
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.runtime.localise import SAMPLES, Localisation, localise
from unscan.runtime.measured import measure
from unscan.runtime.quantisation import EXACT, Cost, cost_of_rounding, states_apart
from unscan.runtime.rounding import Rounding, double

if TYPE_CHECKING:
    from torch import nn

AGAINST = ("reference", "event", "onnx", "onnx-scan")
PRECISIONS = (64, 32)


FOREIGN = ("snntorch", "spikingjelly", "norse")
"""Packages whose layers compute their decays from other numbers."""


@dataclass(frozen=True)
class Comparison:
    """One executor in one number format against the trained model in the same format.

    A graph of whole numbers is no model as trained: there, each executor stands against the reference, which says what
    the graph means, and is to equal it bit for bit.

    Attributes:
        executor: its name.
        precision: bits of the floating-point format in which both ran; the reference always runs in 64. "int" where
            the graph computes with whole numbers.
        agreement: of their spikes and membranes.
        right: samples that each decided right (model, executor); None without labels.
        decided_alike: samples with the same decision on both sides; None without a way to decide.
        unheard: layers of the model that cannot be listened to; the outputs speak for them.
        counts: operations of the executor, where it counts.
        states: of a graph of whole numbers, the final states that differ.
    """

    executor: str
    precision: int | Literal["int"]
    agreement: Agreement
    right: tuple[int, int] | None
    decided_alike: int | None
    unheard: tuple[str, ...] = ()
    counts: Counts | None = field(default=None, repr=False)
    states: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every layer fires, spikes are the same but for ties, and where they are, so are the outputs.

        Of a graph of whole numbers, besides: whether all membranes, outputs and final states are the same.
        """
        alike = self.precision != "int" or not (self.agreement.total.membrane_absolute or self.states)
        return self.agreement.holds and not self.output_off and alike

    @property
    def output_off(self) -> bool:
        """Whether the outputs differ where no spike does; of a graph of whole numbers, anywhere."""
        if self.precision == "int":
            return self.agreement.output_absolute > 0
        return self.agreement.output_relative > OUTPUTS

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
            "unheard": self.unheard,
            "states_that_differ": self.states,
            "agreement": self.agreement.to_json(),
        }


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        comparisons: one for each executor and precision.
        restored: nodes that are deployed with another reset than they were trained with: name -> (trained, deployed).
        digest: of the deployed graph.
        localised: which parallel layers of the model leave their own recurrence; None where all agrees, or where the
            model is a graph.
        rounding: what whole numbers cost against the model; None where the deployed graph has none.
    """

    comparisons: Sequence[Comparison]
    restored: Mapping[str, tuple[str, str]]
    digest: str
    localised: Localisation | None = None
    rounding: Cost | None = None

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
            "localised": self.localised and self.localised.to_json(),
            "rounding": self.rounding and self.rounding.to_json(),
        }


def verify(
    model: nn.Module | Graph,
    deployed: Graph,
    x: Array,
    against: Sequence[str] = AGAINST,
    *,
    traced: Graph | None = None,
    labels: Array | None = None,
    decision: str | None = None,
    precisions: Sequence[int] = PRECISIONS,
    progress: Callable[[str, float], None] | None = None,
) -> Verification:
    """Run the trained model and the deployed graph on the same input, and compare every spike.

    Where they do not agree, each parallel layer of the model is held against its own recurrence, fed by what it got in
    the model's own run: `localised` says which of them leaves it, where, and why.

    A graph of whole numbers is another model, so its executors are compared with the reference, bit for bit, and
    `rounding` says what whole numbers cost against the trained model.

    Args:
        model: the trained torch module, or a graph that stands for it (then run by the reference).
        deployed: the iterative graph.
        x: input (T, B, ...).
        against: names of executors that run the deployed graph.
        traced: the graph that was read from the module, before any pass; None reads it again where it is needed.
        labels: (B,) classes; gives accuracies and the gap.
        decision: how outputs become a class, "last" or "mean"; None takes what the graph's meta says.
        precisions: 64 casts model and graph to float64, which leaves no rounding but that of folded weights;
            32 runs them as they are shipped. A graph of whole numbers has but one.
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
    if deployed.integer:
        return _whole(model, deployed, x, against, traced, labels, decision, progress)
    truth = Truth(model, deployed, traced)
    if any(line.startswith("fold-threshold") for line in deployed.history):
        with suppress(
            UnscanError
        ):  # then membranes are compared in other units, which the spikes do not mind
            truth.traced(x)
    graphs = {bits: deployed.astype(np.float64 if bits == 64 else np.float32) for bits in precisions}
    runners = {(bits, name): executor(name, graphs[bits]) for bits in precisions for name in against}
    found: dict[tuple[int, str], Comparison] = {}
    parts = list(batches(deployed, *x.shape[:2]))
    for i, part in enumerate(parts):
        expected, granted = truth.run(x[:, part])
        for j, ((bits, name), runner) in enumerate(runners.items()):
            if progress:
                progress(f"{name}, {bits} bits", (i + j / len(runners)) / len(parts))
            got = runner.run(x[:, part])
            agreement = compare(
                graphs[bits], expected[bits], got, x=x[:, part], rounding=granted[bits], without=truth.unheard
            )
            piece = _comparison(name, bits, agreement, (expected[bits], got), labels, decision, part)
            piece = replace(piece, unheard=truth.unheard)
            found[bits, name] = _join(found[bits, name], piece) if (bits, name) in found else piece
    made = Verification(list(found.values()), dict(_restored(deployed)), deployed.digest)
    parted = sorted({m.sample for c in found.values() for m in c.agreement.partings if not m.tie})
    if isinstance(model, Graph) or not (parted or any(c.output_off for c in found.values())):
        return made
    try:
        return replace(made, localised=localise(model, truth.traced(x), x, parted[:SAMPLES] or None))
    except UnscanError as fault:
        return replace(made, localised=Localisation((), (), reason=str(fault)))


def _whole(
    model: nn.Module | Graph,
    deployed: Graph,
    x: Array,
    against: Sequence[str],
    traced: Graph | None,
    labels: Array | None,
    decision: str | None,
    progress: Callable[[str, float], None] | None,
) -> Verification:
    """Verify a graph of whole numbers. The model is heard by the nodes of its own graph, in real numbers."""
    known = model if isinstance(model, Graph) else None
    truth = (
        Reference(model) if isinstance(model, Graph) else Model(model, traced or _trace(model, deployed, x))
    )
    reference = Reference(deployed)
    runners = {name: executor(name, deployed) for name in against}
    found: dict[str, Comparison] = {}
    cost: Cost | None = None
    parts = list(batches(deployed, *x.shape[:2]))
    for i, part in enumerate(parts):
        wanted = reference.run(x[:, part])
        piece = cost_of_rounding(
            deployed,
            in_units_of(deployed, known, truth.run(x[:, part])),
            wanted,
            labels=None if labels is None else labels[part],
            decision=decision,
        )
        cost = piece if cost is None else cost + piece
        for j, (name, runner) in enumerate(runners.items()):
            if progress:
                progress(f"{name}, whole numbers", (i + j / len(runners)) / len(parts))
            got = wanted if name == "reference" else runner.run(x[:, part])
            agreement = compare(deployed, wanted, got, x=x[:, part], rounding=EXACT)
            row = _comparison(name, "int", agreement, (wanted, got), labels, decision, part)
            row = replace(row, states=states_apart(wanted, got))
            found[name] = _join(found[name], row) if name in found else row
    return Verification(list(found.values()), dict(_restored(deployed)), deployed.digest, rounding=cost)


def _restored(deployed: Graph) -> Iterator[tuple[str, tuple[str, str]]]:
    for name in deployed.of(*RESETTING, IntegerLIF, IntegerMemory):
        node: Any = deployed.nodes[name]
        if isinstance(node, IntegerLIF) and not np.any(node.beta):
            continue  # its current is the membrane, and weights of its own spikes are the reset
        if node.trained_reset != node.reset:
            yield name, (node.trained_reset, node.reset)


class Truth:
    """The trained model, run in each precision, and what rounding it grants to those that are compared with it."""

    def __init__(self, model: nn.Module | Graph, deployed: Graph, traced: Graph | None) -> None:
        self.model, self.deployed = model, deployed
        self._traced = model if isinstance(model, Graph) else traced
        self._runners: dict[int, Reference | Model]
        if isinstance(model, Graph):
            self._runners = dict.fromkeys(PRECISIONS, Reference(model))
        else:
            self._runners = {64: Model(doubled(model), deployed), 32: Model(model, deployed)}

    @property
    def unheard(self) -> tuple[str, ...]:
        """The layers that fire of which nothing was heard, in any run so far."""
        lost = {name for runner in self._runners.values() for name in getattr(runner, "unheard", ())}
        return tuple(name for name in self.deployed.of(*SPIKING) if name in lost)

    def run(self, x: Array) -> tuple[Mapping[int, Execution], Mapping[int, Rounding]]:
        """Run x in both precisions; return executions, and what rounding grants to others at each."""
        runs = {runner: runner.run(x) for runner in set(self._runners.values())}
        made = {bits: runs[runner] for bits, runner in self._runners.items()}
        known = self.model if isinstance(self.model, Graph) else None
        made = {bits: in_units_of(self.deployed, known, run) for bits, run in made.items()}
        measured = {} if isinstance(self.model, Graph) else measure(self.deployed, made[64], made[32])
        return made, {64: double(rounded=self._rounded(), measured=measured), 32: Rounding(measured=measured)}

    def _rounded(self) -> bool:
        """Say whether numbers were computed on the way into the graph, and rounded to float32."""
        if self.deployed.dtype != np.float32 or isinstance(self.model, Graph):
            return False
        folded = any(line.startswith(("fold-", "fuse-")) for line in self.deployed.history)
        packages = {type(module).__module__.partition(".")[0] for module in self.model.modules()}
        return folded or bool(self.deployed.of(Diagonal)) or not packages.isdisjoint(FOREIGN)

    def traced(self, x: Array) -> Graph:
        """Return the graph that was read from the model."""
        if self._traced is None:
            assert not isinstance(self.model, Graph)
            self._traced = _trace(self.model, self.deployed, x)
        return self._traced


def _trace(model: nn.Module, deployed: Graph, x: Array) -> Graph:
    """Read a module again, as it was read when the deployed graph was made of it."""
    from unscan.compiler.frontends.trace import trace

    (entry,) = deployed.of(Input)
    kind, sample = deployed.signals[entry].kind, x[:1, :1]
    if kind is Kind.INDEX:
        sample = sample[..., 0].astype(np.int64)
    asked = ("stepwise", "static", "steps", "output")
    known = {key: deployed.meta[key] for key in asked if key in deployed.meta}
    return trace(model, sample, kind=kind, **known)


def _comparison(
    name: str,
    precision: int | Literal["int"],
    agreement: Agreement,
    sides: tuple[Execution, Execution],
    labels: Array | None,
    decision: str | None,
    part: slice,
) -> Comparison:
    chosen = None if decision is None else [decide(side.outputs, decision) for side in sides]
    right = None
    if labels is not None and chosen is not None:
        right = (int(np.sum(chosen[0] == labels[part])), int(np.sum(chosen[1] == labels[part])))
    alike = None if chosen is None else int(np.sum(chosen[0] == chosen[1]))
    return Comparison(name, precision, agreement, right, alike, counts=sides[1].counts)


def _join(a: Comparison, b: Comparison) -> Comparison:
    return replace(
        a,
        agreement=a.agreement + b.agreement,
        right=(a.right[0] + b.right[0], a.right[1] + b.right[1]) if a.right and b.right else None,
        decided_alike=a.decided_alike + b.decided_alike
        if a.decided_alike is not None and b.decided_alike is not None
        else None,
        counts=a.counts + b.counts if a.counts and b.counts else None,
        states=tuple(dict.fromkeys((*a.states, *b.states))),
    )

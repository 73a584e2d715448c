"""What a report shows of a deployed graph, measured: every execution of it, and each against each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from unscan.compiler.errors import InvalidInput, MissingDependency, Unsupported
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.runtime.agreement import Agreement, compare, in_units_of
from unscan.runtime.batches import batches
from unscan.runtime.counts import Counts
from unscan.runtime.decision import decide
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import Execution, Executor, check_input
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.runtime.quantisation import (
    EXACT,
    Cost,
    agreement_of,
    cost_of_rounding,
    decoded,
    largest_difference,
)
from unscan.runtime.rounding import Rounding
from unscan.runtime.verify import Truth

if TYPE_CHECKING:
    from torch import nn

MODEL = "model"
"""What the execution of the model as it was trained is called."""
AGAINST = ("reference", "event", "onnx", "onnx-scan", "c")


@dataclass(frozen=True)
class Evidence:
    """Executions of one deployed graph on the same samples, and how they compare.

    Attributes:
        name: of the graph, as its reader knows it.
        graph: what ran.
        runs: the executions, the one that the others are held against first.
        missing: executor -> why it could not run.
        pairs: two executions, in the order of `runs` -> how far they agree.
        right: execution -> samples that it decided right; empty without labels.
        alike: execution -> samples that it decided as the first does; empty without a way to decide.
        fired: execution -> layer -> how often each neuron fired, over steps and samples.
        samples, steps: how much ran.
        shown: execution -> its record of the first samples, from which rasters and traces are drawn.
        counts: operations, where an executor counts.
        rounding: what whole numbers cost against the model.
    """

    name: str
    graph: Graph
    runs: tuple[str, ...]
    missing: Mapping[str, str]
    pairs: Mapping[tuple[str, str], Agreement]
    right: Mapping[str, int]
    alike: Mapping[str, int]
    fired: Mapping[str, Mapping[str, Array]]
    samples: int
    steps: int
    shown: Mapping[str, Execution]
    counts: Counts | None
    rounding: Cost | None

    def __add__(self, other: Evidence) -> Evidence:
        """Join with what was measured on further samples."""
        return replace(
            self,
            pairs={pair: agreement + other.pairs[pair] for pair, agreement in self.pairs.items()},
            right={run: number + other.right[run] for run, number in self.right.items()},
            alike={run: number + other.alike[run] for run, number in self.alike.items()},
            fired={
                run: {layer: times + other.fired[run][layer] for layer, times in layers.items()}
                for run, layers in self.fired.items()
            },
            samples=self.samples + other.samples,
            counts=self.counts + other.counts if self.counts and other.counts else None,
            rounding=self.rounding + other.rounding if self.rounding and other.rounding else None,
        )

    @property
    def trained(self) -> bool:
        """Whether the model itself ran, too."""
        return self.runs[0] == MODEL

    @property
    def deployed(self) -> str:
        """The execution that stands for the deployed graph: event by event where that ran."""
        of_graph = self.runs[1:] if self.trained else self.runs
        return "event" if "event" in of_graph else of_graph[0]

    @property
    def other(self) -> str:
        """The execution that is laid over the first: the deployed one, or the next where that is the first."""
        return self.deployed if self.deployed != self.runs[0] else self.runs[-1]

    def between(self, a: str, b: str) -> Agreement | None:
        """Return how far two executions agree; None for one and the same."""
        return self.pairs.get((a, b)) or self.pairs.get((b, a))

    def rate(self, run: str, layer: str) -> float:
        """Return spikes per neuron and step of one layer; nan where it was not heard."""
        fired = self.fired[run].get(layer)
        return float("nan") if fired is None else float(fired.mean() / (self.steps * self.samples))

    def rate_in_all(self, run: str) -> float:
        """Return spikes per neuron and step of all layers that were heard."""
        layers = self.fired[run].values()
        neurons = sum(times.size for times in layers)
        return sum(int(times.sum()) for times in layers) / (neurons * self.steps * self.samples or 1)

    def accuracy(self, run: str) -> float | None:
        """Return the share of samples that an execution decided right; None without labels."""
        return self.right[run] / self.samples if run in self.right else None


def gather(
    name: str,
    graph: Graph,
    x: Array,
    against: Sequence[str] = AGAINST,
    *,
    model: nn.Module | Graph | None = None,
    traced: Graph | None = None,
    labels: Array | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Run a deployed graph with every executor, and the model it was made of, and compare each with each.

    Args:
        name: of the graph.
        graph: an iterative graph.
        x: (T, B, ...).
        against: names of executors; one that cannot run this graph here is listed with its reason.
        model: the trained module, or a graph that stands for it; None where there is none.
        traced: the graph that was read from the module, before any pass; a graph of whole numbers needs it, whose
            neurons need not be named as the module's.
        labels: (B,) classes.
        progress: called with what is running and the share done.

    Raises:
        InvalidInput: an unknown executor, inputs or labels that do not fit, or no executor that can run.
    """
    x = check_input(graph, x)
    if labels is not None and np.shape(labels) != x.shape[1:2]:
        raise InvalidInput(
            f"Got labels of shape {np.shape(labels)} for {x.shape[1]} samples; give one class for each sample."
        )
    runners: dict[str, Executor] = {}
    missing: dict[str, str] = {}
    for each in dict.fromkeys(against):
        try:
            runners[each] = executor(each, graph)
        except (MissingDependency, Unsupported) as fault:
            missing[each] = str(fault)
    if not runners:
        reasons = " ".join(f"{each}: {why}" for each, why in missing.items())
        raise InvalidInput(f"No executor can run {name}; name another with --against. {reasons}".rstrip())
    origin = None if model is None else Origin(model, graph, traced)
    found: Evidence | None = None
    for part in batches(graph, x.shape[0] * (len(runners) + 2), x.shape[1]):
        piece = _part(
            name, graph, x[:, part], runners, missing, origin, None if labels is None else labels[part],
            within(progress, part.start / x.shape[1], (part.stop - part.start) / x.shape[1]),
        )  # fmt: skip
        found = piece if found is None else found + piece
    assert found is not None  # `check_input` lets no empty batch through
    return found


Progress = Callable[[str, float], None]
"""Called with what is running and the share done."""


def within(progress: Progress | None, start: float, size: float) -> Progress:
    """Return what tells `progress` of a part of the whole, from the share `start` on and `size` of it."""

    def told(now: str, share: float) -> None:
        if progress is not None:
            progress(now, start + size * share)

    return told


class Origin:
    """The model that a graph was made of: how it runs as it is shipped, and what rounding it grants to others."""

    def __init__(self, model: nn.Module | Graph, deployed: Graph, traced: Graph | None) -> None:
        self.deployed = deployed
        self.graph = model if isinstance(model, Graph) else None
        self.truth: Truth | None = None
        if not deployed.integer:
            self.truth = Truth(model, deployed, traced)
        elif isinstance(model, Graph):
            self.heard: Reference | Model = Reference(model)
        elif traced is None:
            raise InvalidInput(
                "A graph of whole numbers is compared with a module by the module's own graph; give it as `traced`."
            )
        else:
            self.heard = Model(model, traced)

    @property
    def unheard(self) -> tuple[str, ...]:
        """The layers that fire of which nothing was heard."""
        return self.truth.unheard if self.truth else ()

    def run(self, x: Array) -> tuple[Execution, Rounding]:
        """Run x (T, B, ...): the execution, with membranes in the units of the deployed graph, and what is granted."""
        if self.truth is None:
            return in_units_of(self.deployed, self.graph, self.heard.run(x)), EXACT
        made, granted = self.truth.run(x)
        return made[32], granted[32]


def _part(
    name: str,
    graph: Graph,
    x: Array,
    runners: Mapping[str, Executor],
    missing: Mapping[str, str],
    origin: Origin | None,
    labels: Array | None,
    progress: Progress,
) -> Evidence:
    made: dict[str, Execution] = {}
    granted = EXACT if graph.integer else Rounding()
    if origin is not None:
        progress(MODEL, 0.0)
        made[MODEL], granted = origin.run(x)
    for i, (each, runner) in enumerate(runners.items(), 1):
        progress(each, i / (1 + len(runners)))
        made[each] = runner.run(x)
    decision = graph.meta.get("decision")
    chosen = {} if decision is None else {run: decide(it.outputs, decision) for run, it in made.items()}
    first = next(iter(made))
    unheard = origin.unheard if origin else ()
    whole = graph.integer and origin is not None
    return Evidence(
        name=name,
        graph=graph,
        runs=tuple(made),
        missing=missing,
        pairs={
            (a, b): _rounded(graph, made[a], made[b])
            if whole and a == MODEL
            else compare(
                graph, made[a], made[b], x=x, rounding=granted, without=unheard if a == MODEL else ()
            )
            for a, b in combinations(made, 2)
        },
        right={run: int(np.sum(them == labels)) for run, them in chosen.items()}
        if labels is not None
        else {},
        alike={run: int(np.sum(them == chosen[first])) for run, them in chosen.items()},
        fired={
            run: {layer: spikes.sum(axis=(0, 1)).ravel() for layer, spikes in it.spikes.items()}
            for run, it in made.items()
        },
        samples=x.shape[1],
        steps=x.shape[0],
        shown=made,
        counts=next((it.counts for it in made.values() if it.counts is not None), None),
        rounding=cost_of_rounding(
            graph, made[MODEL], next(made[run] for run in runners), labels=labels, decision=decision
        )
        if whole
        else None,
    )


def _rounded(graph: Graph, model: Execution, whole: Execution) -> Agreement:
    """Return how far a graph of whole numbers agrees with its model; no sample's parting is excused or sought."""
    layers = {name: agreement_of(name, model, whole) for name in graph.of(*SPIKING) if name in model.spikes}
    off = largest_difference(model.outputs, decoded(graph, whole.outputs))
    return Agreement(layers, output_absolute=off, samples=whole.outputs.shape[1])

"""Which pass of a compilation changed what a model does: each stage's graph is run, and held against the one before.

A pass may change the model on purpose (`Pass.changes`): a reset that is restored, keys that are dropped, whole numbers.
Its difference is a figure; any other pass that makes one is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Dialect, Graph
from unscan.compiler.pipeline import Stage
from unscan.runtime.agreement_replay import Side
from unscan.runtime.agreement_runs import Compared, check_labels, compare_sides, decision_of, is_exact
from unscan.runtime.batches import batches
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import check_input
from unscan.runtime.judge import compile_on


@dataclass(frozen=True)
class Step:
    """One pass that rewrote the graph.

    Attributes:
        name: of the pass.
        on_purpose: whether it makes another model on purpose.
        found: its graph against the one it was given.
        since: its graph against the source.
    """

    name: str
    on_purpose: bool
    found: Compared
    since: Compared

    @property
    def verdict(self) -> str:
        """Exact, within rounding, or changed."""
        agreement = self.found.agreement
        if not agreement.partings and not agreement.total.membrane_absolute and not agreement.output_absolute:
            return "exact"
        if self.found.output_off or not all(mismatch.tie for mismatch in agreement.partings):
            return "changed"
        return "within rounding"

    @property
    def changed(self) -> bool:
        """Whether spikes or outputs differ by more than rounding."""
        return self.verdict == "changed"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "pass": self.name,
            "changes_on_purpose": self.on_purpose,
            "verdict": self.verdict,
            "against_the_stage_before": self.found.to_json(),
            "against_the_source": {
                "same": self.since.same,
                "agreement": self.since.agreement.to_json(),
                "decided_alike": self.since.decided_alike,
            },
        }


@dataclass(frozen=True)
class Bisection:
    """What each pass changed on samples.

    Attributes:
        steps: the passes that rewrote the graph, in order.
        idle: the passes that left it as it was.
        graph: what the last one made.
    """

    steps: tuple[Step, ...]
    idle: tuple[str, ...]
    graph: Graph

    @property
    def changed(self) -> tuple[Step, ...]:
        """The passes that changed spikes or outputs by more than rounding: the first is where to look."""
        return tuple(step for step in self.steps if step.changed)

    @property
    def faults(self) -> tuple[Step, ...]:
        """Those of them that do not do so on purpose."""
        return tuple(step for step in self.changed if not step.on_purpose)

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON."""
        return {
            "first_that_changed": self.changed[0].name if self.changed else None,
            "changed": [step.name for step in self.changed],
            "not_on_purpose": [step.name for step in self.faults],
            "left_the_graph": self.idle,
            "passes": [step.to_json() for step in self.steps],
        }


def bisect(
    graph: Graph,
    x: Array,
    *,
    using: str = "reference",
    labels: Array | None = None,
    progress: Callable[[float], None] | None = None,
    **options: Any,
) -> Bisection:
    """Compile a graph, run each stage on x (T, B, ...), and say which pass changed spikes or outputs.

    Args:
        graph: as `unscan.trace` or `unscan.read_nir` gives it.
        x: the input; whole numbers are fitted to it, too.
        using: the executor of the stages that are iterative; the reference runs the others, as it alone can.
        labels: (B,) classes, for accuracies.
        progress: called with the share of the runs done.
        options: of `unscan.compile`.

    Raises:
        InvalidInput: options that `unscan.compile` refuses, an unknown executor, or an input that does not fit.
    """
    x = check_input(graph, x)
    check_labels(labels, decision_of(graph), x.shape[1])
    stages: list[Stage] = []
    watch = options.pop("watch", None)

    def noted(stage: Stage) -> None:
        stages.append(stage)
        if watch:
            watch(stage)

    compiled = compile_on(graph, samples=x, watch=noted, **options)
    rewrote = [stage for stage in stages if stage.after != stage.before]
    idle = tuple(stage.step.name for stage in stages if stage.after == stage.before)
    if not stages:
        raise InvalidInput("There is no pass to look at; name some, or leave the option passes.")
    steps = _steps(graph, rewrote, x, using, labels, progress)
    return Bisection(tuple(steps), idle, compiled)


def _steps(
    graph: Graph,
    stages: Sequence[Stage],
    x: Array,
    using: str,
    labels: Array | None,
    progress: Callable[[float], None] | None,
) -> list[Step]:
    graphs = [graph, *(stage.after for stage in stages)]
    kinds = [using if _iterative(each) else "reference" for each in graphs]
    runners = [executor(kind, each) for kind, each in zip(kinds, graphs, strict=True)]
    names = ["the source", *(f"after {stage.step.name}" for stage in stages)]
    found: list[tuple[Compared, Compared] | None] = [None] * len(stages)
    for part in batches(max(graphs, key=lambda each: len(each.nodes)), *x.shape[:2]):
        y = None if labels is None else labels[part]
        sides: list[Side] = []
        for i, (kind, each) in enumerate(zip(kinds, graphs, strict=True)):
            run = runners[i].run(x[:, part])
            now = Side(run, each, x[:, part], names[i], is_exact(each, kind))
            if sides:
                pair = (compare_sides(sides[-1], now, labels=y), compare_sides(sides[0], now, labels=y))
                known = found[i - 1]
                found[i - 1] = pair if known is None else (known[0] + pair[0], known[1] + pair[1])
            sides = [*sides[:1], now]
            if progress:
                progress((part.start + (part.stop - part.start) * (i + 1) / len(graphs)) / x.shape[1])
    return [
        Step(stage.step.name, stage.step.changes, *each)
        for stage, each in zip(stages, found, strict=True)
        if each is not None
    ]


def _iterative(graph: Graph) -> bool:
    return all(node.dialect is not Dialect.PARALLEL for node in graph.nodes.values())

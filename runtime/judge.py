"""What passes need to know of a graph at work: what one changed, how often neurons fire, how far numbers reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.compiler.passes import Pass, Range, Ranges, Rates
from unscan.compiler.pipeline import Change, Judge, compile_graph
from unscan.runtime.agreement import compare, in_units_of
from unscan.runtime.executors.base import Execution, State, check_input, check_state
from unscan.runtime.executors.reference import Reference
from unscan.runtime.executors.steps import Stepped
from unscan.runtime.quantisation import cost_of_rounding

Progress = Callable[[str, float], None]
"""Called with what is measured, and the share of it that is done."""


def unseen(what: str, share: float) -> None:
    """Show nothing."""


class Watched(Reference):
    """The reference, which says how far it is: steps from `first` on, of so many in all."""

    def __init__(self, graph: Graph, what: str, progress: Progress, *, steps: int, first: int = 0) -> None:
        super().__init__(graph)
        self._what, self._progress, self._steps, self._done = what, progress, steps, first

    def advance(self, x: Array, kept: State) -> tuple[dict[str, Stepped], dict[str, Array]]:
        """Run one step; see `Reference.advance`."""
        made = super().advance(x, kept)
        self._done += 1
        self._progress(self._what, self._done / self._steps)
        return made


def judge(x: Array, progress: Progress = unseen) -> Judge:
    """Return a judge for `compiler.pipeline.run` that runs x (T, B, ...) before and after each pass.

    Membranes are compared in units of their thresholds. Neurons that only one of the two graphs has are left out.
    """

    def measured(step: Pass, before: Graph, after: Graph) -> Change:
        what = f"what {step.name} changes"
        first = Watched(before, what, progress, steps=2 * len(x)).run(x)
        second = Watched(after, what, progress, steps=2 * len(x), first=len(x)).run(x)
        given = in_units_of(after, before, first)
        new = [name for name in after.of(*SPIKING) if name not in given.spikes]
        if after.integer:
            return rounded(after, given, second)
        found = compare(after, given, second, x=x, without=new)
        return Change(
            samples=found.samples,
            apart=len(found.partings),
            f1=found.total.f1,
            membranes=found.total.membrane_relative,
            outputs=found.output_absolute,
            explained=all(m.tie for m in found.partings),
        )

    return measured


def rounded(graph: Graph, a: Execution, b: Execution) -> Change:
    """Return what rounding to whole numbers changed, from executions before and after; nothing explains it away."""
    cost = cost_of_rounding(graph, a, b)
    apart = np.zeros(cost.samples, bool)
    furthest = [0.0]
    for name in cost.layers:
        differs = a.spikes[name] != b.spikes[name]
        apart |= differs.any(axis=(0, *range(2, differs.ndim)))
        scale = np.maximum(np.maximum(np.abs(a.membranes[name]), np.abs(b.membranes[name])), 1.0)
        furthest.append(float((np.abs(a.membranes[name] - b.membranes[name]) / scale).max()))
    return Change(cost.samples, int(apart.sum()), cost.total.f1, max(furthest), cost.output, explained=False)


def rates(x: Array, progress: Progress = unseen) -> Rates:
    """Return what `compiler.passes.Calibrate` measures with: firing rates over x (T, B, ...), by the reference."""

    def measured(graph: Graph) -> dict[str, Array]:
        fired = Watched(graph, "how often neurons fire", progress, steps=len(x)).run(x).spikes
        return {name: spikes.mean(axis=(0, 1)) for name, spikes in fired.items()}

    return measured


def ranges(x: Array, progress: Progress = unseen) -> Ranges:
    """Return what `compiler.passes.Quantize` measures with: how far all numbers reach over x (T, B, ...).

    In the reference, all samples at once.
    """

    def measured(graph: Graph) -> dict[str, Range]:
        runner = Watched(graph, "how far numbers reach", progress, steps=len(x))
        found: dict[str, Range] = {}
        sequence = check_input(graph, x)
        state = check_state(graph, None, sequence.shape[1], np.float64)
        for x_t in sequence:
            made, state = runner.advance(x_t, state)
            reached = {name: each.value for name, each in made.items()}
            reached |= {f"{n}.membrane": e.membrane for n, e in made.items() if e.membrane is not None}
            for name, values in {**reached, **state}.items():
                now = Range(values.min(axis=0), values.max(axis=0))
                found[name] = now if name not in found else found[name] | now
        return found

    return measured


def compile_on(graph: Graph, *, samples: Array | None = None, **options: Any) -> Graph:
    """Turn a traced graph into the iterative graph that is deployed; see `compiler.pipeline.compile_graph`.

    Args:
        graph: as `unscan.trace` or `unscan.read_nir` gives it.
        samples: x (T, B, ...), on which `quantize` measures how far numbers reach.
        options: of `compile_graph`: reset, phase, memory_reset, top_k, calibrate, scalar_decay, threshold, quantize,
            soft_reset, passes, judge, watch.

    Raises:
        InvalidInput, InvalidGraph, Unsupported: as `compile_graph` does.
    """
    if samples is not None and options.get("quantize") is not None:
        options.setdefault("ranges", ranges(samples))
    return compile_graph(graph, **options)

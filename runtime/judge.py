"""What passes need to know of a graph at work: what one of them changed, and how often neurons fire."""

from __future__ import annotations

from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.compiler.passes import Pass, Rates
from unscan.compiler.pipeline import Change, Judge
from unscan.runtime.agreement import compare, in_units_of
from unscan.runtime.executors.reference import Reference


def judge(x: Array) -> Judge:
    """Return a judge for `compiler.pipeline.run` that runs x (T, B, ...) before and after each pass.

    Membranes are compared in units of their thresholds. Neurons that only one of the two graphs has are left out.
    """

    def measured(step: Pass, before: Graph, after: Graph) -> Change:
        given = in_units_of(after, before, Reference(before).run(x))
        new = [name for name in after.of(*SPIKING) if name not in given.spikes]
        found = compare(after, given, Reference(after).run(x), x=x, without=new)
        return Change(
            samples=found.samples,
            apart=len(found.partings),
            f1=found.total.f1,
            membranes=found.total.membrane_relative,
            outputs=found.output_absolute,
            explained=all(m.tie for m in found.partings),
        )

    return measured


def rates(x: Array) -> Rates:
    """Return what `compiler.passes.Calibrate` measures with: firing rates over x (T, B, ...), by the reference."""

    def measured(graph: Graph) -> dict[str, Array]:
        fired = Reference(graph).run(x).spikes
        return {name: spikes.mean(axis=(0, 1)) for name, spikes in fired.items()}

    return measured

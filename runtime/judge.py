"""What a pass changed, measured: sample inputs through the reference before and after it."""

from __future__ import annotations

from unscan.compiler.ir import Array, Graph
from unscan.compiler.passes import Pass
from unscan.compiler.pipeline import Judge
from unscan.runtime.agreement import compare
from unscan.runtime.executors.reference import Reference


def judge(x: Array) -> Judge:
    """Return a judge for `compiler.pipeline.run` that runs x (T, B, ...) before and after each pass."""

    def measured(step: Pass, before: Graph, after: Graph) -> str:
        found = compare(after, Reference(before).run(x), Reference(after).run(x))
        if not found.partings and found.output_absolute == 0:
            return "changes nothing on the samples"
        return (
            f"on the samples, F1 of spikes {found.total.f1:.6f}, {len(found.partings)} of {found.samples} samples "
            f"differ, outputs by at most {found.output_absolute:.3g}"
        )

    return measured

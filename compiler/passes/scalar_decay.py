"""Let a matrix memory decay by one number a column, so that a step touches only what is written.

Every entry of column j decays by the same alpha_j, so S_ij = M_ij A_j with A_j the product of the decays so far: a step
multiplies A (n numbers, or one of a delta memory) in place of S (d x n), and writes v_i k_j / A_j into M. Where A_j has
fallen below a bound, the column is multiplied by it once and A_j is 1 again. S_ij >= theta is M_ij >= theta / A_j, so
an entry that is not written can only stop firing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph
from unscan.compiler.nodes import StoredMemory
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class ScalarDecay(Pass):
    """Store every matrix memory as M and its accumulators A instead of S.

    Option `bound` in (0, 1): an accumulator that falls below it is worked into its column. The lower it is, the rarer
    that is; 1 / bound times the largest |S| must stay within the number format.

    Given and result: iterative nodes. Preserves: spikes and membranes to rounding.

    Raises:
        InvalidInput: a bound outside (0, 1).
    """

    name: ClassVar[str] = "scalar-decay"
    bound: float = 2.0**-60

    def __post_init__(self) -> None:
        if not 0 < self.bound < 1:
            raise InvalidInput(f"scalar-decay got the bound {self.bound}; it takes a number between 0 and 1.")

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with scalar decays."""
        changed, notes = {}, []
        if not graph.of(StoredMemory):
            notes.append("the graph has no matrix memory, so nothing decays by one number")
        for name in graph.of(StoredMemory):
            memory = cast(StoredMemory, graph.nodes[name])
            if memory.decay == "dense":
                changed[name] = replace(memory, decay="scalar", bound=float(self.bound))
                rows, columns = memory.membrane(graph.inputs(name))
                decaying = memory.width("alpha", columns)
                notes.append(f"{name}: {decaying} accumulators decay in place of {rows} x {columns} entries")
        return Rewrite(graph.with_nodes(changed), notes)

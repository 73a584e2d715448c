"""Fold BatchNorm, as trained, into the weights beside it.

At inference y = w (x - m) / sqrt(v + e) + b is y = g x + c with g = w / sqrt(v + e) and c = b - g m.
Behind a Linear, x = W z + d:          y = (diag(g) W) z + (g d + c).
In front of a Linear, z = W y + d:     z = (W diag(g)) x + (W c + d).
A convolution is a Linear at each place, so the same holds where g and c are one number per channel. But where it pads
with zeros, the zeros stand behind the norm: folded into it they would have to be -c / g. So in front of a padded
convolution only a norm with c = 0 can be folded.
The first is possible where the norm is all that the weighted node feeds and it all that feeds the norm; the second
where the norm feeds nothing but such nodes and is all that feeds them. Folded in float64, rounded once.
LayerNorm and RMSNorm divide by what the numbers of the moment are: they are no fixed factor, and stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unscan.compiler.ir import Graph
from unscan.compiler.nodes import BatchNorm, LayerNorm, RMSNorm
from unscan.compiler.passes.base import Pass, Rewrite
from unscan.compiler.passes.weighted import folded


@dataclass(frozen=True)
class FoldNorm(Pass):
    """Fold every BatchNorm into weights before or after it.

    Given and result: iterative nodes. Preserves: all signals behind the fold, to rounding of the weights. What cannot
    be folded stays, and the note says why.
    """

    name: ClassVar[str] = "fold-norm"

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its norms folded."""
        graph, notes = folded(graph, BatchNorm, BatchNorm.affine)
        notes += [
            f"{name}: stays, because it divides by a spread of the numbers of each step, which is no fixed factor"
            for name in graph.of(LayerNorm, RMSNorm)
        ]
        return Rewrite(graph, notes)

"""Fold BatchNorm, as trained, into the weights beside it.

At inference y = w (x - m) / sqrt(v + e) + b is y = g x + c with g = w / sqrt(v + e) and c = b - g m.
Behind a Linear, x = W z + d:          y = (diag(g) W) z + (g d + c).
In front of a Linear, z = W y + d:     z = (W diag(g)) x + (W c + d).
The first is possible where the norm is all that the Linear feeds and the Linear all that feeds the norm; the
second where the norm feeds nothing but Linears and is all that feeds them. Folded in float64, rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from unscan.compiler.ir import Array, Graph, Node
from unscan.compiler.nodes import BatchNorm, Linear
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class FoldNorm(Pass):
    """Fold every BatchNorm into a Linear before or after it; leave it, with the reason, where none is free.

    Given and result: iterative nodes. Preserves: all signals behind the fold, to rounding of the weights.
    """

    name: ClassVar[str] = "fold-norm"

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its norms folded."""
        notes = []
        for name in graph.of(BatchNorm):
            before, after = only_linear_before(graph, name), only_linears_after(graph, name)
            gain, offset = cast(BatchNorm, graph.nodes[name]).affine()
            changed: dict[str, Node] = {}
            if before:
                linear = cast(Linear, graph.nodes[before])
                changed[before] = scaled_rows(linear, gain, offset)
                notes.append(f"{name}: folded into {before}")
            elif after:
                for target in after:
                    changed[target] = scaled_columns(cast(Linear, graph.nodes[target]), gain, offset)
                notes.append(f"{name}: folded into {', '.join(after)}")
            else:
                notes.append(f"{name}: stays, because no Linear stands alone before or after it")
                continue
            graph = graph.with_nodes(changed).bypass(name)
        return Rewrite(graph, notes)


def only_linear_before(graph: Graph, name: str) -> str | None:
    """Return the Linear that alone feeds a node and feeds nothing else, or None."""
    into = graph.into(name)
    if len(into) == 1 and len(graph.out_of(into[0].source)) == 1:
        source = into[0].source
        return source if isinstance(graph.nodes[source], Linear) else None
    return None


def only_linears_after(graph: Graph, name: str) -> list[str]:
    """Return the Linears that a node feeds, where it feeds nothing else and alone feeds them; else none."""
    targets = [edge.target for edge in graph.out_of(name)]
    free = all(isinstance(graph.nodes[t], Linear) and len(graph.into(t)) == 1 for t in targets)
    return targets if free else []


def scaled_rows(linear: Linear, gain: Array, offset: Array | None = None) -> Linear:
    """Return the Linear followed by y = gain x + offset, in its own number format."""
    weight = (linear.weight.astype(np.float64).T * gain).T
    bias = None if linear.bias is None else linear.bias.astype(np.float64) * gain
    if offset is not None:
        bias = np.broadcast_to(offset if bias is None else bias + offset, linear.weight.shape[:1])
    return replace(
        linear,
        weight=weight.astype(linear.weight.dtype),
        bias=None if bias is None else bias.astype(linear.weight.dtype),
    )


def scaled_columns(linear: Linear, gain: Array, offset: Array | None = None) -> Linear:
    """Return the Linear preceded by y = gain x + offset, in its own number format."""
    dtype, weight = linear.weight.dtype, linear.weight.astype(np.float64)
    bias = linear.bias
    if offset is not None:
        through = weight @ np.broadcast_to(offset, weight.shape[1:])
        bias = (through if bias is None else bias.astype(np.float64) + through).astype(dtype)
    return replace(linear, weight=(weight * gain).astype(dtype), bias=bias)

"""Join two Linears that stand behind each other into one.

W2 (W1 x + b1) + b2 is (W2 W1) x + (W2 b1 + b2). That is fewer multiplications unless the signal between the two is
narrow: a bottleneck, W2 (p, m) and W1 (m, n) with m < p n / (p + n), is cheaper as it stands. What counts are the
weights that are not 0, as only those are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Linear
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class FuseLinear(Pass):
    """Join each Linear that feeds nothing but one Linear, and alone feeds it, with that, under the name of the second.

    Given and result: iterative nodes. Preserves: all signals behind the second, to rounding of the weights; computed in
    float64, rounded once. Two whose product has more weights than they have together stay, and the note says so.
    """

    name: ClassVar[str] = "fuse-linear"

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its Linears joined."""
        notes: list[str] = []
        joined: dict[str, Any] = {}
        for name in graph.of(Linear):
            first = linear_before(graph, name)
            if first is None:
                continue
            inner, outer = (cast(Linear, graph.nodes[each]) for each in (first, name))
            product = times(outer, inner)
            before, after = weights(inner) + weights(outer), weights(product)
            if after > before:
                notes.append(
                    f"{first} and {name}: stay two, of {before} weights, as their product has {after}"
                )
                continue
            notes.append(f"{first} and {name}: joined, {after} weights in place of {before}")
            joined[name] = outer.weight.dtype
            joined.pop(first, None)
            graph = graph.with_nodes({name: product}).bypass(first)
        rounded = {
            name: graph.nodes[name].map_arrays(partial(np.asarray, dtype=dtype))
            for name, dtype in joined.items()
        }
        return Rewrite(graph.with_nodes(rounded), notes)


def linear_before(graph: Graph, name: str) -> str | None:
    """Return the Linear that feeds a node and nothing else, where nothing else feeds that, or None."""
    into = graph.into(name)
    source = into[0].source
    alone = len(into) == 1 and len(graph.out_of(source)) == 1
    return source if alone and isinstance(graph.nodes[source], Linear) else None


def times(outer: Linear, inner: Linear) -> Linear:
    """Return the two behind each other as one, in float64."""
    weight = outer.weight.astype(np.float64)
    bias: Array | None = None if outer.bias is None else outer.bias.astype(np.float64)
    if inner.bias is not None:
        through = weight @ inner.bias.astype(np.float64)
        bias = through if bias is None else bias + through
    return Linear(weight @ inner.weight.astype(np.float64), bias)


def weights(linear: Linear) -> int:
    """Count the weights that are not 0."""
    return int(np.count_nonzero(linear.weight))

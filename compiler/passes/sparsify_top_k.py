"""Keep only the largest keys and values that are written into a matrix memory.

The write v k^T touches every pair of a row where v is not 0 and a column where k is not 0. With only the largest |v_i|
and |k_j| kept, a step touches (values x keys) entries instead of (d x n), and the memory's neurons elsewhere need no
look at all. Of a delta memory a step reads the kept columns, too. It changes the model unless it was trained so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Dialect, Edge, Graph, Node
from unscan.compiler.nodes import Memory, TopK
from unscan.compiler.passes.base import Pass, Rewrite

Count = int | float
"""How many are kept, from 1 up; or, as a float in (0, 1], the share of the row, to the nearest count, at least 1."""


class Kept(NamedTuple):
    """How many keys and how many values of one memory are kept; None leaves them as they are."""

    keys: Count | None = None
    values: Count | None = None


@dataclass(frozen=True)
class SparsifyTopK(Pass):
    """Put a TopK in front of the keys and values of every matrix memory.

    Options: `keys` and `values` for every memory; `layers` for those that it names, in place of the two. A TopK that
    stands there already keeps fewer where fewer are wanted, and stays as it is otherwise.

    Given and result: any graph. Preserves: everything where the model was trained with as few; else nothing, and only
    a run on data says how much it changes. The notes say how many were kept in training.

    Raises:
        InvalidInput: nothing to keep, a count below 1 or above the row, a share outside (0, 1], or a layer that is no
            matrix memory.
    """

    name: ClassVar[str] = "sparsify-top-k"
    changes: ClassVar[bool] = True
    given: ClassVar[Dialect | None] = None
    result: ClassVar[Dialect | None] = None
    keys: Count | None = None
    values: Count | None = None
    layers: Mapping[str, Kept] | None = None

    def __post_init__(self) -> None:
        asked = [Kept(self.keys, self.values), *(self.layers or {}).values()]
        for count in (count for kept in asked for count in kept if count is not None):
            whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
            if not (whole or (isinstance(count, float) and 0 < count <= 1)):
                raise InvalidInput(
                    f"sparsify-top-k got {count!r}; it takes a whole number from 1 up, how many it keeps, or a share "
                    "of them as a decimal number above 0 and up to 1.0."
                )
        if all(kept == Kept() for kept in asked):
            raise InvalidInput(
                "sparsify-top-k was not told what to keep; give it keys, values, or both, as counts or as shares."
            )

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its memories' writes made sparse."""
        memories = graph.of(Memory)
        unknown = [name for name in self.layers or {} if name not in memories]
        if unknown:
            raise InvalidInput(
                f"sparsify-top-k was told of the layer {unknown[0]!r}, which is no matrix memory of this graph; its "
                f"matrix memories are: {', '.join(memories) or 'none'}."
            )
        notes: list[str] = (
            [] if memories else ["the graph has no matrix memory, so nothing is kept or left out"]
        )
        for name, port, count in self._wanted(memories):
            graph = keep(graph, name, port, count, notes)
        return Rewrite(graph, notes)

    def _wanted(self, memories: list[str]) -> Iterator[tuple[str, str, Count]]:
        """Yield memory, port, and what it is to keep there."""
        for name in memories:
            kept = (self.layers or {}).get(name, Kept(self.keys, self.values))
            for port, count in zip(("k", "v"), kept, strict=True):
                if count is not None:
                    yield name, port, count


def keep(graph: Graph, name: str, port: str, wanted: Count, notes: list[str]) -> Graph:
    """Return the graph with no more than so many numbers at one port of a memory."""
    (width,) = graph.inputs(name)[port].shape
    count = max(1, round(wanted * width)) if isinstance(wanted, float) else wanted
    if count > width:
        raise InvalidInput(
            f"sparsify-top-k cannot keep {count} numbers at port {port} of {name!r}, which has {width}; ask for fewer, "
            "or for a share."
        )
    feeding = [edge for edge in graph.into(name) if edge.port == port]
    source = feeding[0].source
    trained = graph.nodes[source] if len(feeding) == 1 else None
    before = trained.count if isinstance(trained, TopK) else width
    if count >= before:
        notes.append(f"{name}: port {port} keeps {before} of {width}, as trained")
        return graph
    notes.append(f"{name}: port {port} keeps {count} of {width}, trained with {before}")
    if isinstance(trained, TopK) and len(graph.out_of(source)) == 1:
        return graph.with_nodes({source: replace(trained, count=count)})
    added = f"{name}.top_{port}"
    while added in graph.nodes:
        added += "_"
    edges = [Edge(e.source, added) if e in feeding else e for e in graph.edges]
    nodes: dict[str, Node] = {}
    for key, node in graph.nodes.items():
        if key == name:
            nodes[added] = TopK(count)
        nodes[key] = node
    return Graph(nodes, [*edges, Edge(added, name, port)], history=graph.history, meta=graph.meta)

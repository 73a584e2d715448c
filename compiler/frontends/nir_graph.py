"""The graph of a NIR file of others: subgraphs opened, loops found, and where each loop is read one step later.

NIR is continuous in time, so its loops need no delay; a step in which nodes feed each other does. A loop is closed
by the edge that leads back to a node on the way from the input to it. It is read one step later, as every framework
runs it; where a loop can be entered at several nodes, the first in the order of the file's edges is taken for its
entry. Where the edge back comes from a neuron by way of nodes without memory that nothing else feeds and that feed
nothing else, what is delayed is the neuron's spikes: the same numbers, but that a bias on the way acts from the first
step on, as in snnTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import nir

from unscan.compiler.errors import DamagedFile, Unsupported

SPIKING = (nir.LIF, nir.IF, nir.CubaLIF, nir.Threshold)
MEMORY = (*SPIKING, nir.LI, nir.CubaLI, nir.I, nir.Delay)
Link = tuple[str, str]


class Opened:
    """The primitives and edges of a file, those of its subgraphs among them under `subgraph.name`.

    The Input and Output of a subgraph stand in it as primitives that hand on what they get (`inner`).
    """

    def __init__(self, path: Path, read: nir.NIRGraph) -> None:
        self.path = path
        self.primitives: dict[str, Any] = {}
        self.edges: list[Link] = []
        self.inner: set[str] = set()
        self.input, self.output = self._open(read, "")

    def _open(self, graph: nir.NIRGraph, prefix: str) -> Link:
        """Add a graph and return the names of its input and output."""
        where = f"the subgraph {prefix[:-1]!r} of {self.path}" if prefix else str(self.path)
        ends: dict[str, Link] = {}
        for short, primitive in graph.nodes.items():
            name = prefix + short
            if isinstance(primitive, nir.NIRGraph):
                ends[short] = self._open(primitive, f"{name}.")
                continue
            if name in self.primitives:
                raise Unsupported(
                    f"{self.path} has two nodes {name!r}, one of them in a subgraph; rename one."
                )
            self.primitives[name] = primitive
            ends[short] = (name, name)
        for edge in graph.edges:
            for end in edge:
                if end not in ends:
                    raise DamagedFile(
                        f"The edge {' -> '.join(edge)} in {where} names a node {end!r} that is not there; "
                        f"its nodes are {', '.join(ends)}. Export the model again."
                    )
            link = (ends[edge[0]][1], ends[edge[1]][0])
            if link in self.edges:
                raise Unsupported(
                    f"The edge {' -> '.join(edge)} stands twice in {where}, and NIR does not say whether the signal "
                    "counts once or twice; remove one, or put a Scale into it."
                )
            self.edges.append(link)
        boundary = []
        for primitive_class in (nir.Input, nir.Output):
            found = [prefix + n for n, p in graph.nodes.items() if isinstance(p, primitive_class)]
            if len(found) != 1:
                raise Unsupported(
                    f"{where[:1].upper()}{where[1:]} has {len(found)} {primitive_class.__name__} nodes "
                    f"({', '.join(found) or 'none'}), and a graph of unscan has exactly one."
                )
            boundary += found
        if prefix:
            self.inner.update(boundary)
        return boundary[0], boundary[1]


class Loops:
    """Which edges are read one step later, and the orders in which the rest can be read.

    late: edges into a Delay of a loop, which holds that loop: what leaves it is known without them.
    cuts: edge -> the edge back that it stands for, the same one or one before it.
    shape_order: every primitive behind what feeds it, but for the edges back. order: likewise, but for the cuts.
    """

    def __init__(self, opened: Opened, held: Iterable[str]) -> None:
        """Find the loops that the Delays `held`, of one step or more, do not hold already."""
        self._opened = opened
        every: nx.DiGraph[str] = nx.DiGraph()
        every.add_nodes_from(opened.primitives)
        every.add_edges_from(opened.edges)
        looped = {a for a, b in every.edges if a == b}
        looped.update(*(part for part in nx.strongly_connected_components(every) if len(part) > 1))
        holding = looped.intersection(held)
        self.late = frozenset(edge for edge in opened.edges if edge[1] in holding)
        forward = every.copy()
        forward.remove_edges_from(self.late)
        back = tuple(self._back(forward))
        self.cuts = {self._cut(every, edge): edge for edge in back}
        self.shape_order = self._sorted(forward, back)
        self.order = self._sorted(forward, self.cuts)

    def _sorted(self, forward: nx.DiGraph[str], without: Iterable[Link]) -> tuple[str, ...]:
        rank = {name: i for i, name in enumerate(self._opened.primitives)} | {self._opened.input: -1}
        rest = forward.copy()
        rest.remove_edges_from(list(without))
        return tuple(nx.lexicographical_topological_sort(rest, key=rank.__getitem__))

    def _back(self, forward: nx.DiGraph[str]) -> Iterator[Link]:
        """Yield every edge to a node from which the search, first from the input, is still on its way."""
        done: set[str] = set()
        for root in (self._opened.input, *self._opened.primitives):
            if root in done:
                continue
            done.add(root)
            way: dict[str, Iterator[str]] = {root: iter(forward.successors(root))}
            while way:
                name, following = next(reversed(way.items()))
                for successor in following:
                    if successor in way:
                        yield name, successor
                    elif successor not in done:
                        done.add(successor)
                        way[successor] = iter(forward.successors(successor))
                        break
                else:
                    del way[name]

    def _cut(self, every: nx.DiGraph[str], back: Link) -> Link:
        source, target = back
        while not isinstance(self._opened.primitives[source], MEMORY):
            before = list(every.predecessors(source))
            if len(before) != 1 or every.out_degree(source) != 1 or source == back[1]:
                break
            source, target = before[0], source
        return (source, target) if isinstance(self._opened.primitives[source], SPIKING) else back

    def notes(self) -> Iterator[str]:
        """Say which edges are read one step later."""
        for (source, target), back in self.cuts.items():
            place = "" if (source, target) == back else f", by a delay of what {source} sends to {target}"
            yield f"the edge {back[0]} -> {back[1]} closes a loop and is read one step later{place}"

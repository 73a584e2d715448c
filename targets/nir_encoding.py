"""A graph while it is written as NIR: primitives, edges, the ways back, what is changed, and our own document of it.

A Delay that closes a loop is no primitive. NIR adds what comes back to what goes forward, a step late, so the edge into
the node where the two meet is the delay: what stands between Delay and that node is written behind what feeds the
Delay. That is the same as long as it gives 0 for 0, which is what frameworks take for the first step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import networkx as nx
import nir
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.nir import FORMAT
from unscan.compiler.ir import Array, Graph, Node
from unscan.compiler.nodes import Delay, Input, Linear, Output, Spiking
from unscan.compiler.nodes.integer import Integer
from unscan.compiler.spec import whole_node
from unscan.targets.base import facts, no_rule, producer_version
from unscan.targets.nir_profile import Change, ChangeKind, Profile

ROWS = 2048
"""Rows of the largest matrix that stands in for states: 32 MB in float64."""
DEPLOY = "deploy with the target onnx"


class Encoding:
    """The primitives of a graph while they are written.

    Attributes:
        order: the nodes as they are written; what feeds a Delay of a loop stands before it.
        leaves: node -> the primitive that its output leaves.
        changes: what the file does otherwise than the graph says, in data-flow order.
    """

    def __init__(self, graph: Graph, profile: Profile) -> None:
        self.graph = graph
        self.profile = profile
        self.changes: list[Change] = []
        self.primitives: dict[str, Any] = {}
        self.leaves: dict[str, str] = {}
        self.reaching = {
            name for sink in graph.of(Output) for name in (sink, *nx.ancestors(graph.topology, sink))
        }
        self._forward: list[tuple[str, str]] = []
        self._back: list[tuple[str, str]] = []
        self._sums: dict[str, str] = {}
        self._paths: dict[str, tuple[str, ...]] = {}
        self._meets: dict[str, str] = {}
        self._waiting: list[tuple[str, str]] = []
        self._hopeless: dict[str, str] = {}
        self.order = self._trace()
        self._behind = {name for path in self._paths.values() for name in path}
        self._now = self._forward
        self._digits = len(str(12 * len(graph.nodes)))
        self._written = 0

    @property
    def edges(self) -> list[tuple[str, str]]:
        """The edges, those of the ways back first: norse takes what it ran last for the output."""
        return [*self._back, *self._forward]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return what leaves a node at one step."""
        return self.graph.signals[name].shape

    def fed(self, name: str) -> tuple[int, ...]:
        """Return what arrives at a node of one port at one step."""
        return self.graph.inputs(name)["x"].shape

    def lag(self, node: Delay, name: str) -> Array:
        """Return the steps of a Delay that no edge back stands for."""
        return np.broadcast_to(node.steps, node.shape).astype(np.int64) - (name in self._paths)

    def change(self, name: str, kind: ChangeKind, text: str) -> None:
        """Take down what the file does otherwise than a node says."""
        self.changes.append(Change(name, kind, text))

    def add(self, primitive: Any, role: str, fed_by: str) -> str:
        """Write a primitive, fed by another, under the next name in order, and return that name."""
        name = f"n{self._written:0{self._digits}d}_{role}"
        self._written += 1
        self.primitives[name] = primitive
        if fed_by:
            self.connect(fed_by, name)
        return name

    def linear(self, weight: Array, bias: Array | None = None) -> Any:
        """Return the primitive W x + b, an Affine where b is given or the framework knows no other."""
        held = weight if weight.dtype == self.graph.dtype else weight.astype(self.graph.dtype)
        if bias is None and self.profile.linear:
            return nir.Linear(weight=held)
        zeros = np.zeros(len(held), self.graph.dtype)
        return nir.Affine(weight=held, bias=zeros if bias is None else bias.astype(zeros.dtype, copy=False))

    def connect(self, source: str, target: str) -> None:
        """Write an edge."""
        self._now.append((source, target))

    def diagonal(self, values: Array, shape: tuple[int, ...]) -> Any:
        """Return the primitive that multiplies each neuron by its own number: a Linear, a Conv2d for an image."""
        full = np.broadcast_to(values, shape)
        if len(shape) == 1:
            return self.linear(np.diag(full))
        if len(shape) != 3:
            raise Unsupported(
                f"its signal has shape {shape}, and without a NIR primitive for it a Linear over one axis stands in, "
                "or a Conv2d over an image; put a Flatten before it in the model"
            )
        if np.any(full != full[:, :1, :1]):
            raise Unsupported(
                "its numbers differ between the places of an image, which no NIR primitive that frameworks share can "
                "say; put a Flatten before it in the model"
            )
        return self.conv2d(np.diag(full[:, 0, 0])[:, :, None, None], shape)

    def identity(self, shape: tuple[int, ...]) -> Any:
        """Return the primitive in which signals of a shape meet."""
        if self.profile.ways_back:
            return self.diagonal(np.ones(()), shape)
        return nir.Scale(np.ones(shape, self.graph.dtype))

    def conv2d(
        self, weight: Array, shape: tuple[int, ...], bias: Array | None = None, **settings: Any
    ) -> Any:
        """Return the NIR Conv2d over an image of a shape; it must have a bias."""
        defaults: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
        return nir.Conv2d(
            input_shape=shape[1:],
            weight=weight if weight.dtype == self.graph.dtype else weight.astype(self.graph.dtype),
            bias=np.zeros(len(weight), self.graph.dtype) if bias is None else bias,
            groups=1,
            **(defaults | settings),
        )

    def emit(self, name: str) -> None:
        """Write one node. Raises Unsupported with the reason."""
        if name in self._hopeless:
            raise Unsupported(self._hopeless[name])
        node = self.graph.nodes[name]
        if isinstance(node, Integer) or whole_node(node):
            raise Unsupported(
                "it computes with whole numbers, and those of NIR are real; write NIR from the graph before quantize, "
                "or deploy this one with the target onnx, c or lava"
            )
        if name not in self.reaching:
            raise Unsupported("it does not lead to the output; run prune-dead")
        self._now = self._back if name in self._behind else self._forward
        self.leaves[name] = self.profile.emit(node, self, name, self._fed_by(name, node))
        if name in self._meets:
            self._return(name, node)
        self._now = self._forward
        for source, delay in [link for link in self._waiting if link[0] == name]:
            self.connect(self.leaves[source], self.leaves[delay])

    def _fed_by(self, name: str, node: Node) -> str:
        """Return the primitive that feeds a node: one that adds, where several do. Raises Unsupported."""
        if len(node.ports) != 1:
            return ""
        if not self.profile.sums:
            self.own_spikes(name)
        sources = [edge.source for edge in self.graph.into(name) if self._meets.get(edge.source) != name]
        if len(sources) > 1 and not self.profile.joins:
            raise Unsupported(
                f"it adds {' and '.join(sources)}, and {self.profile.joins_wrongly} runs a branch that joins again "
                f"wrongly; no pass removes a join, so {DEPLOY}, or train without it"
            )
        if not self.profile.ways_back:
            self._waiting += [(source, name) for source in sources if source not in self.leaves]
            sources = [source for source in sources if source in self.leaves]
        x, *others = [self.leaves.get(source, "input") for source in sources] or [""]
        if len({x, *others}) <= len(others):
            raise Unsupported(
                f"it adds {' and '.join(sources)}, which are one signal, and NIR has no edge that stands twice; write "
                "a Scale instead"
            )
        if others or (name in self._meets.values() and self.profile.sums):
            x = self._sums[name] = self.add(self.identity(self.fed(name)), "sum", x)
        for other in others:
            self.connect(other, x)
        return x

    def _return(self, name: str, node: Node) -> None:
        target = self._meets[name]
        leaf, meets = (
            self.leaves[name],
            self._sums.get(target) if self.profile.sums else self.leaves.get(target),
        )
        if meets is None or meets == leaf:
            return
        if (leaf, meets) in self._back:
            raise Unsupported(
                "it adds a signal that comes back twice; write a Scale where it is to be doubled"
            )
        self.connect(leaf, meets)
        if isinstance(node, Linear) and node.bias is not None:
            held = self.primitives[meets]
            bias = node.bias + getattr(held, "bias", np.zeros_like(node.bias))
            self.primitives[meets] = nir.Affine(weight=held.weight, bias=bias)

    def own_spikes(self, name: str) -> Linear | None:
        """Return the Linear by which a node's output of the step before comes back to it, None where nothing does.

        Raises Unsupported where anything else comes back: what runs layer by layer has no other loop.
        """
        ways = [path for path in self._paths.values() if self._meets[path[-1]] == name]
        if not ways:
            return None
        held, nodes = self.graph.nodes[name], [self.graph.nodes[node] for node in ways[0]]
        alone = len(ways) == 1 and self.graph.into(ways[0][0])[0].source == name and len(nodes) == 2
        fires = isinstance(held, Spiking) and held.reset != "none"
        if alone and fires and isinstance(nodes[-1], Linear) and nodes[-1].bias is None:
            return nodes[-1]
        raise Unsupported(
            f"{self.profile.name} runs one loop alone: from a neuron with a reset, by a Delay of one step and a "
            f"Linear without bias, to itself; write the profile portable, or {DEPLOY}"
        )

    def comes_back(self, name: str) -> bool:
        """Say whether a node is the last of a way back, whose bias belongs to the node where it meets the rest."""
        return name in self._meets

    def _trace(self) -> tuple[str, ...]:
        """Find the ways back and return the order that follows from them."""
        nodes = self.graph.nodes
        if not self.profile.ways_back:
            return self.graph.order
        self._paths = {name: path for name in delays_in_loops(self.graph) if (path := self._follow(name))}
        for inner in [name for path in self._paths.values() for name in path[1:] if name in self._paths]:
            del self._paths[inner]
        for path in self._paths.values():
            self._meets[path[-1]] = self.graph.out_of(path[-1])[0].target
            last = path[-1] if isinstance(nodes[path[-1]], Linear) else None
            biased = [
                name for name in path if name != last and getattr(nodes[name], "bias", None) is not None
            ]
            if biased:
                self._hopeless[path[0]] = (
                    f"the bias of {biased[0]}, behind it, would be missing in the first step; {DEPLOY}"
                )
        cut = nx.DiGraph(self.graph.topology)
        cut.remove_edges_from(self._meets.items())
        rank = {name: i for i, name in enumerate(nodes)}
        try:
            return tuple(nx.lexicographical_topological_sort(cut, key=rank.__getitem__))
        except nx.NetworkXUnfeasible:
            for name in delays_in_loops(self.graph):
                if name not in self._paths:
                    self._hopeless[name] = (
                        "its loop has no single way from a Delay back to one node that the input reaches, too, as an "
                        f"edge back of NIR is; {DEPLOY}"
                    )
            return self.graph.order

    def _follow(self, start: str) -> tuple[str, ...]:
        """Return the nodes from a Delay to the last before what else the input reaches; none where they branch."""
        path = [start]
        while len(feeding := self.graph.out_of(path[-1])) == 1:
            target = feeding[0].target
            if len(self.graph.into(target)) > 1:
                (source,) = self.graph.of(Input)
                without = nx.restricted_view(self.graph.topology, [start], [])
                return tuple(path) if nx.has_path(without, source, target) else ()
            if target in path:
                break
            path.append(target)
        return ()

    def document(self) -> tuple[str, dict[str, Array]]:
        """Return our graph as JSON, and the arrays that stand in no primitive."""
        arrays: dict[str, Array] = {}
        places: dict[str, Mapping[str, Any]] = {}
        for name, node in self.graph.nodes.items():
            held = self.primitives[self.leaves[name]]
            found: dict[str, Any] = {}
            for field, value in node.arrays():
                if getattr(held, field, None) is value:
                    found[field] = {"primitive": self.leaves[name], "field": field}
                else:
                    key = f"a{len(arrays)}"
                    arrays[key] = value.reshape(-1)
                    found[field] = {"array": key, "shape": value.shape}
            places[name] = found
        nodes = [[name, type(node).__name__, node.settings()] for name, node in self.graph.nodes.items()]
        known = facts(self.graph) | {
            "format": FORMAT,
            "producer": f"unscan {producer_version()}",
            "dt": self.profile.dt,
            "profile": self.profile.name,
            "changes": [[change.node, change.kind, change.text] for change in self.changes],
            "nodes": nodes,
            "edges": self.graph.edges,
            "arrays": places,
            "primitives": self.leaves,
        }
        return json.dumps(known), arrays


def delays_in_loops(graph: Graph) -> list[str]:
    """Return the Delays that feed themselves."""
    loops = {
        name
        for part in nx.strongly_connected_components(graph.topology)
        for name in part
        if len(part) > 1 or graph.topology.has_edge(name, name)
    }
    return [name for name in graph.of(Delay) if name in loops]


@singledispatch
def emit_node(node: Node, to: Encoding, name: str, x: str) -> str:
    """Write the primitives of one node that the primitive x feeds and return the one that its output leaves."""
    raise no_rule(node)

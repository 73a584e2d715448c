"""NIR, in the portable profile: one file that gives the same spikes in several frameworks.

NIR holds no time step, no reset but the one to a voltage, and fires on v > v_threshold. Frameworks differ in how
they read it, so the profile keeps to what they agree on. With dt = 1e-4 s, r = 1 and v_leak = v_reset = 0:

- A LIF with reset zero is a NIR LIF of tau = dt / (1 - beta), whose gain is 1 - beta: its threshold is
  theta (1 - beta) where our gain is 1, and theta where ours is 1 - beta. beta = 1 has tau = 2^40 dt, a leak below
  what float32 and float64 sums can hold.
- Every other membrane is a Linear(1) M with a Linear(beta) from it to itself. A threshold behind it is a LIF of
  tau = dt (1 + 2e-6): it forgets all but 2e-6 of its last voltage.
- Reset subtract is a Linear from the threshold to M: -beta theta at phase now, -theta at phase next.
- A tie that fires (>=) is a threshold one float32 lower: the frameworks run in float32.

Names are `input < n... < output` in data-flow order, because readers run nodes in alphabetical order; an edge back
stands before the edge forward. One chain only: norse gives what it ran last, and drops what it does not know.

The metadata holds our graph as JSON with what NIR cannot say, so that `read_nir` gives the same graph back.
"""

from __future__ import annotations

import json
from functools import singledispatch
from pathlib import Path
from typing import Any

import networkx as nx
import nir
import numpy as np

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.frontends.nir import ARRAYS, CHECKSUM, DOCUMENT, FORMAT, fingerprint
from unscan.compiler.ir import Array, Graph, Node
from unscan.compiler.nodes import LI, LIF, Activation, BatchNorm, Flatten, Input, Linear, Output, Scale
from unscan.compiler.nodes.neurons import Leaky
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets.base import Target, collect, facts, insist, no_rule, producer_version

DT = 1e-4
"""Seconds per step: what snnTorch assumes, and what norse is to be given."""
FORGETFUL = DT * (1 + 2e-6)
"""tau of a LIF that only compares: spikingjelly takes no tau of dt itself."""
LEAKLESS = DT * 2.0**40
"""tau of a LIF with beta = 1."""
BLURRED = 1e-5
"""snnTorch takes a beta up to here for 0 when it scales the threshold."""
PROFILES: dict[str, tuple[str, ...]] = {"portable": ("snnTorch 1.0.0", "norse 1.1.0 with dt = 1e-4")}
"""Profile -> the frameworks whose spikes our tests hold against the reference."""


class Encoding:
    """The primitives of a graph while they are written."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.primitives: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.leaves: dict[str, str] = {}
        self.reaching = {
            name for sink in graph.of(Output) for name in (sink, *nx.ancestors(graph.topology, sink))
        }
        self._digits = len(str(5 * len(graph.nodes)))
        self._written = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """Return what leaves a node at one step."""
        return self.graph.signals[name].shape

    def add(self, primitive: Any, role: str, fed_by: str) -> str:
        """Write a primitive, fed by another, under the next name in order, and return that name."""
        name = f"n{self._written:0{self._digits}d}_{role}"
        self._written += 1
        self.primitives[name] = primitive
        self.connect(fed_by, name)
        return name

    def connect(self, source: str, target: str) -> None:
        """Write an edge."""
        self.edges.append((source, target))

    def diagonal(self, values: Array, name: str) -> Any:
        """Return a NIR Linear that multiplies each neuron of a node by its own number."""
        shape = self.shape(name)
        if len(shape) != 1:
            raise Unsupported(
                f"its signal has shape {shape}, and without a NIR primitive for it a Linear over one axis stands in; "
                "put a Flatten before it in the model"
            )
        return nir.Linear(weight=np.diag(np.broadcast_to(values, shape)).astype(self.graph.dtype))

    def emit(self, name: str) -> None:
        """Write one node. Raises Unsupported with the reason."""
        sources = [edge.source for edge in self.graph.into(name)]
        if len(sources) > 1:
            raise Unsupported(
                f"it adds {' and '.join(sources)}, and norse runs a branch that joins again wrongly; no pass removes "
                "a join, so deploy with the target onnx, or train without it"
            )
        if name not in self.reaching:
            raise Unsupported("it does not lead to the output; run prune-dead")
        self.leaves[name] = emit_node(
            self.graph.nodes[name], self, name, self.leaves.get(sources[0], "input") if sources else ""
        )

    def document(self) -> tuple[str, dict[str, Array]]:
        """Return our graph as JSON, and the arrays that stand in no primitive."""
        arrays: dict[str, Array] = {}
        places: dict[str, dict[str, Any]] = {}
        for name, node in self.graph.nodes.items():
            places[name] = {}
            for field, value in node.arrays():
                if isinstance(node, Linear):
                    places[name][field] = {"primitive": self.leaves[name], "field": field}
                else:
                    key = f"a{len(arrays)}"
                    arrays[key] = value.reshape(-1)
                    places[name][field] = {"array": key, "shape": value.shape}
        nodes = [[name, type(node).__name__, node.settings()] for name, node in self.graph.nodes.items()]
        known = facts(self.graph) | {
            "format": FORMAT,
            "producer": f"unscan {producer_version()}",
            "dt": DT,
            "nodes": nodes,
            "edges": self.graph.edges,
            "arrays": places,
            "primitives": self.leaves,
        }
        return json.dumps(known), arrays


@singledispatch
def emit_node(node: Node, to: Encoding, name: str, x: str) -> str:
    """Write the primitives of one node that the primitive x feeds and return the one that its output leaves."""
    raise no_rule(node)


@emit_node.register
def _(node: Input, to: Encoding, name: str, x: str) -> str:
    to.primitives["input"] = nir.Input(np.array(to.shape(name)))
    return "input"


@emit_node.register
def _(node: Output, to: Encoding, name: str, x: str) -> str:
    to.primitives["output"] = nir.Output(np.array(to.shape(name)))
    to.connect(x, "output")
    return "output"


@emit_node.register
def _(node: Linear, to: Encoding, name: str, x: str) -> str:
    if node.bias is None:
        return to.add(nir.Linear(weight=node.weight), "linear", x)
    return to.add(nir.Affine(weight=node.weight, bias=node.bias), "affine", x)


@emit_node.register
def _(node: Scale, to: Encoding, name: str, x: str) -> str:
    return to.add(to.diagonal(node.scale, name), "scale", x)


@emit_node.register
def _(node: Flatten, to: Encoding, name: str, x: str) -> str:
    (before,) = to.graph.inputs(name).values()
    if before.shape != to.shape(name):
        raise Unsupported(
            f"it flattens {before.shape}, and frameworks disagree which axis of a NIR Flatten is the first; give the "
            "graph an input of one axis"
        )
    return x


@emit_node.register
def _(node: BatchNorm, to: Encoding, name: str, x: str) -> str:
    raise Unsupported("NIR has no normalisation; run fold-norm, which moves it into the weights before it")


@emit_node.register
def _(node: Activation, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(
        f"NIR has no {node.function}, and no pass replaces it; deploy with the target onnx, or train without it"
    )


@emit_node.register
def _(node: LI, to: Encoding, name: str, x: str) -> str:
    return membrane(node, to, name, x)


@emit_node.register
def _(node: LIF, to: Encoding, name: str, x: str) -> str:
    if np.unique(node.threshold).size > 1:
        raise Unsupported(
            f"its threshold differs between neurons ({node.threshold.min():g} to {node.threshold.max():g}), and "
            "snnTorch takes one for a layer; run fold-threshold"
        )
    # The float32 compared against: u >= theta is u > the next number below theta.
    theta = np.float32(node.threshold.flat[0])
    if node.fires == ">=":
        theta = np.nextafter(theta, np.float32(-np.inf))
    if node.reset == "zero":
        if node.phase == "next":
            raise Unsupported(
                "its reset to zero acts one step late, and no primitive multiplies a voltage by a spike of the step "
                "before; run restore-reset with phase now"
            )
        return native(node, to, name, x, float(theta))
    u = membrane(node, to, name, x)
    spikes = to.add(compare(to.shape(name), float(theta)), "threshold", u)
    if node.reset == "subtract":
        kept = node.beta.astype(np.float64) if node.phase == "now" else np.ones(())
        drop = -kept * node.threshold.astype(np.float64)
        if np.any(drop):
            to.connect(to.add(to.diagonal(drop, name), "subtract", spikes), u)
    return spikes


def native(node: LIF, to: Encoding, name: str, x: str, theta: float) -> str:
    """Write a LIF with reset zero at once as one NIR LIF."""
    if np.unique(node.beta).size > 1:
        raise Unsupported(
            f"its decay differs between neurons ({node.beta.min():g} to {node.beta.max():g}), and a NIR LIF takes one "
            "for a layer in some frameworks; restore-reset with none or subtract has a form that keeps it"
        )
    beta = float(node.beta.flat[0])
    if beta == 0:
        return to.add(compare(to.shape(name), theta), "lif", x)
    if beta <= BLURRED:
        raise Unsupported(
            f"its decay {beta:g} lies between 0 and {BLURRED:g}, where snnTorch scales its threshold wrongly"
        )
    if beta == 1 and node.gain != "1":
        raise Unsupported("its decay 1 with gain 1 - beta shuts its input out")
    tau = LEAKLESS if beta == 1 else DT / (1 - beta)
    return to.add(lif(to.shape(name), tau, theta * (DT / tau) if node.gain == "1" else theta), "lif", x)


def membrane(node: Leaky, to: Encoding, name: str, x: str) -> str:
    """Write u = beta u + g x and return the primitive that holds u."""
    beta = node.beta.astype(np.float64)
    if node.gain == "1-beta":
        x = to.add(to.diagonal(1 - beta, name), "gain", x)
    u = to.add(to.diagonal(np.ones(()), name), "membrane", x)
    if np.any(beta):
        to.connect(to.add(to.diagonal(beta, name), "decay", u), u)
    return u


def compare(shape: tuple[int, ...], theta: float) -> Any:
    """Return the NIR LIF that fires where its input is greater than theta, and remembers nothing."""
    return lif(shape, FORGETFUL, theta)


def lif(shape: tuple[int, ...], tau: float, theta: float) -> Any:
    """Return a NIR LIF with r = 1, v_leak = v_reset = 0 and parameters of the full shape, in float64."""
    zeros = np.zeros(shape)
    return nir.LIF(
        tau=zeros + tau, r=zeros + 1, v_leak=zeros, v_threshold=zeros + theta, v_reset=zeros.copy()
    )


def encode(graph: Graph, profile: str = "portable") -> nir.NIRGraph:
    """Return the NIR graph of an iterative graph; see the head of this file.

    Raises:
        Unsupported: a node cannot be said in NIR, with its name, the reason, and the pass that helps.
        InvalidInput: there is no such profile.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    _profile(profile)
    to = Encoding(check(graph))
    insist(graph, "nir", collect(graph, to.emit))
    document, arrays = to.document()
    written = nir.NIRGraph(to.primitives, to.edges, metadata={DOCUMENT: document})
    if arrays:
        written.metadata[ARRAYS] = arrays
    written.metadata[CHECKSUM] = fingerprint(written)
    return written


def emit(graph: Graph, path: Path | str, **options: Any) -> None:
    """Write an iterative graph as a NIR file. Option: `profile`; see `encode`, also for what it raises."""
    written = encode(graph, **options)
    with writing(path) as temporary:
        nir.write(temporary, written)


def refusals(graph: Graph, **options: Any) -> dict[str, str]:
    """Return node -> reason for every node that the profile cannot say, in data-flow order."""
    _profile(options.get("profile", "portable"))
    return collect(check(graph), Encoding(graph).emit)


def _profile(profile: str) -> None:
    if profile not in PROFILES:
        raise InvalidInput(f"There is no NIR profile {profile!r}; the profiles are {', '.join(PROFILES)}.")


TARGET = Target(
    "nir", ".nir", f"the portable profile, for {' and '.join(PROFILES['portable'])}", emit, refusals
)

__all__ = ["DT", "PROFILES", "TARGET", "Encoding", "emit", "encode", "refusals"]

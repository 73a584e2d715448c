"""Parallel form to iterative form.

Both forms of a leaky neuron come from one recurrence, u_t = beta u_{t-1} + g x_t. Unrolled over t it is the
convolution with beta^t that a scan or an FFT evaluates for the whole sequence; kept as a recurrence it is one
step with the state u. So the step node takes over every parameter as it is, and nothing is fitted or rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import singledispatch
from typing import ClassVar

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Dialect, Graph, Node
from unscan.compiler.nodes import LI, LIF, LIConvolution, LIFConvolution, LIFScan
from unscan.compiler.nodes.neurons import Spiking
from unscan.compiler.passes.base import Pass, Rewrite


@singledispatch
def iterative(node: Node) -> Node:
    """Return the step form of a parallel node."""
    raise Unsupported(f"unroll has no step form for {type(node).__name__}.")


@iterative.register(LIFScan)
@iterative.register(LIFConvolution)
def _(node: Spiking) -> Node:
    return LIF(**{f.name: getattr(node, f.name) for f in fields(node)}, trained_reset=node.reset)


@iterative.register
def _(node: LIConvolution) -> Node:
    return LI(beta=node.beta, gain=node.gain)


@dataclass(frozen=True)
class Unroll(Pass):
    """Exchange every parallel node for its step.

    Given: any graph. Result: iterative nodes only. Preserves: spikes and membranes exactly, as far as the
    parallel form computed its own recurrence.
    """

    name: ClassVar[str] = "unroll"
    given: ClassVar[Dialect | None] = None

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its parallel nodes unrolled."""
        parallel = {name: n for name, n in graph.nodes.items() if n.dialect is Dialect.PARALLEL}
        changed = {name: iterative(node) for name, node in parallel.items()}
        notes = [
            f"{name}: {type(node).__name__} -> {type(changed[name]).__name__}"
            for name, node in parallel.items()
        ]
        return Rewrite(graph.with_nodes(changed), notes)

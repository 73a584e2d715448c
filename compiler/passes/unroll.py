"""Parallel form to iterative form.

Both forms of a node come from one recurrence. A leaky neuron's is u_t = beta u_{t-1} + g x_t: unrolled over t it is the
convolution with beta^t that a scan or an FFT evaluates for the whole sequence; kept as a recurrence it is one step with
the state u. A state-space layer's kernel K_l = 2 Re sum c_m a_m^l is h_m <- a_m h_m + x read through c; a matrix
memory's scan is its own update of S. So the step takes over every parameter as it is; nothing is fitted or rounded.

An annealed neuron is another matter. Its rounds repeat spikes -> resets -> spikes; converged in full strength, its
membrane m_t = u0_t - sum over j < t of beta^(t-j) theta s_j is that of the neuron that resets at once by subtracting
theta, u'_t = beta (u'_{t-1} - theta s_{t-1}) + g x_t. Of fewer rounds or less strength no neuron with one state is the
step, and that neuron is deployed all the same: the note says that it is another one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import singledispatch
from typing import Any, ClassVar

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Dialect, Graph, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    RESETTING,
    AdaptiveLIF,
    AdaptiveLIFScan,
    AssociativeMemory,
    AssociativeScan,
    CubaLIF,
    CubaLIFScan,
    DeltaMemory,
    DeltaScan,
    DiagonalConvolution,
    DiagonalSSM,
    LIConvolution,
    LIFAnnealed,
    LIFConvolution,
    LIFScan,
    LIFSurrogate,
)
from unscan.compiler.nodes.neurons import Spiking
from unscan.compiler.passes.base import Pass, Rewrite

STEPS: dict[type[Node], type[Node]] = {
    LIFScan: LIF,
    LIFConvolution: LIF,
    LIConvolution: LI,
    CubaLIFScan: CubaLIF,
    AdaptiveLIFScan: AdaptiveLIF,
    AssociativeScan: AssociativeMemory,
    DeltaScan: DeltaMemory,
    DiagonalConvolution: DiagonalSSM,
}
"""Parallel nodes whose step has the same parameters."""


@singledispatch
def unrolled(node: Node, name: str) -> tuple[Node, str]:
    """Return the step form of a parallel node, and a clause on what differs ("" where nothing does)."""
    raise Unsupported(
        f"{type(node).__name__} {name!r} has no step form that unroll knows. Exchange it for one of "
        f"{', '.join(kind.__name__ for kind in STEPS)}, or leave the graph in its parallel form."
    )


def same(node: Node, name: str) -> tuple[Node, str]:
    """Return the step that has the parameters of its parallel form, and remembers the reset that was trained."""
    kind: Any = STEPS[type(node)]
    parameters = {field.name: getattr(node, field.name) for field in fields(node)}
    if issubclass(kind, RESETTING):
        parameters["trained_reset"] = parameters["reset"]
    return kind(**parameters), ""


for kind_of_scan in STEPS:
    unrolled.register(kind_of_scan)(same)


@unrolled.register
def _(node: LIFAnnealed, name: str) -> tuple[Node, str]:
    strength = float(node.strength)
    shared = {field.name: getattr(node, field.name) for field in fields(Spiking)}
    shared |= {"reset": "subtract", "phase": "now", "trained_reset": "subtract" if strength else "none"}
    step = LIF(**shared)
    if strength == 1 and node.rounds is None:
        return step, ""
    beyond = f" beyond {node.rounds + 1} steps" if strength == 1 and node.rounds is not None else ""
    rounds = (
        "as many rounds as it took"
        if node.rounds is None
        else f"{node.rounds} round{'s' * (node.rounds > 1)}"
    )
    return step, (
        f" with reset subtract: another neuron than the trained one{beyond}, which put resets back in {rounds} with "
        f"the strength {strength:g}; verify measures the gap"
    )


@unrolled.register
def _(node: LIFSurrogate, name: str) -> tuple[Node, str]:
    if node.exact:
        raise Unsupported(
            f"LIFSurrogate {name!r} is a network that only training needs. Run drop-surrogate first, which puts the "
            "neuron in its place that the network was trained to follow."
        )
    raise Unsupported(
        f"LIFSurrogate {name!r} stands for no neuron: its network learned with the task, not from a leaky neuron, so "
        "there is none to put in its place. Train again with a network that follows one (SurrogateLeaky's "
        "network=None, or a file of unscan train-sdn), and compile that."
    )


@dataclass(frozen=True)
class Unroll(Pass):
    """Exchange every parallel node for its step.

    Given: any graph. Result: iterative nodes only. Preserves: spikes and membranes exactly, as far as the parallel form
    computed its own recurrence; of a LIFAnnealed only where it converged in the strength 1 (over the first K + 1 steps
    of K rounds too), else the note says that another neuron is deployed.

    Raises:
        Unsupported: a node without a step, by name: a LIFSurrogate, which drop-surrogate takes away before.
    """

    name: ClassVar[str] = "unroll"
    given: ClassVar[Dialect | None] = None

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its parallel nodes unrolled."""
        changed, notes = {}, []
        for name in graph.nodes:
            node = graph.nodes[name]
            if node.dialect is Dialect.PARALLEL:
                changed[name], differs = unrolled(node, name)
                notes.append(f"{name}: {type(node).__name__} -> {type(changed[name]).__name__}{differs}")
        return Rewrite(graph.with_nodes(changed), notes)

"""Put the exact neuron in the place of the network that it was trained with.

A surrogate network guesses from the last inputs what a leaky neuron with a reset still holds, so that a whole sequence
trains at once. It stands for one neuron, of a decay and a reset that it was trained on, and that neuron is deployed:
its step costs two operations where the network's costs 153. What the network guesses wrong is the gap.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, cast

from unscan.compiler.ir import Dialect, Graph
from unscan.compiler.nodes import LIFScan, LIFSurrogate
from unscan.compiler.nodes.neurons import Spiking
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class DropSurrogate(Pass):
    """Exchange every LIFSurrogate that stands for a neuron for that neuron, as LIFScan.

    Given and result: any graph. Preserves: nothing exactly; where the spikes part, the surrogate guessed wrong, and
    only a run on data says how often. A surrogate that stands for no neuron stays, and the note says so.
    """

    name: ClassVar[str] = "drop-surrogate"
    changes: ClassVar[bool] = True
    given: ClassVar[Dialect | None] = None
    result: ClassVar[Dialect | None] = None

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with exact neurons."""
        changed, notes = {}, []
        for name in graph.of(LIFSurrogate):
            node = cast(LIFSurrogate, graph.nodes[name])
            if not node.exact:
                notes.append(f"{name}: stays, because its surrogate stands for no neuron")
                continue
            changed[name] = LIFScan(**{f.name: getattr(node, f.name) for f in fields(Spiking)})
            notes.append(
                f"{name}: LIFSurrogate -> LIFScan with reset {node.reset}, which its network approximates"
            )
        return Rewrite(graph.with_nodes(changed), notes)

"""The interface behind which every way to run a graph stands: a sequence, or one step with its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Embedding, Input
from unscan.runtime.counts import Counts
from unscan.runtime.energy import Energy

State = Mapping[str, Array]
"""`node.state` -> (B, ...), for every state of the graph."""


@dataclass(frozen=True)
class Execution:
    """What one run of a graph over a sequence gave.

    Attributes:
        outputs: (T, B, ...) what the Output node gave at each step.
        spikes: spiking node -> (T, B, ...) bool, for the nodes that were recorded; of a memory (T, B, d, n).
        membranes: node -> (T, B, ...) before the reset, in the shape of `Graph.membranes`, likewise.
        state: what a next run continues from.
        counts: operations, by node.
    """

    outputs: Array
    spikes: Mapping[str, Array]
    membranes: Mapping[str, Array]
    state: State
    counts: Counts | None = field(repr=False)

    @property
    def energy(self) -> Energy:
        """The modelled energy of the counted operations, from the table of the graph's numbers."""
        if self.counts is None:
            raise InvalidInput(
                "This executor counts no operations; run the event executor for counts and energy."
            )
        return Energy.of(self.counts)


class Executor(Protocol):
    """One way to run a graph."""

    graph: Graph

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run a sequence x (T, B, ...) from a state (zeros where None); `record` keeps spikes and membranes."""

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...): outputs (B, ...) and the next state."""


def check_input(graph: Graph, x: Array, *, steps: bool = True) -> Array:
    """Return x as an array if it fits the graph's Input: (T, B, ...) for a sequence, (B, ...) for one step.

    Raises:
        InvalidInput: another shape, no step or sample, anything but real numbers, a number that is not finite, or one
            other than 0 and 1 where the graph takes spikes.
    """
    (name,) = graph.of(Input)
    wanted = graph.signals[name]
    leading = "(T, B" if steps else "(B"
    x = np.asarray(x)
    if x.ndim != len(wanted.shape) + (2 if steps else 1) or x.shape[-len(wanted.shape) :] != wanted.shape:
        shape = ", ".join(map(str, wanted.shape))
        order = "time first, then batch, then neurons" if steps else "one step"
        raise InvalidInput(
            f"The input {name!r} got an array of shape {x.shape}, wanted {leading}, {shape}): {order}."
        )
    if 0 in x.shape:
        raise InvalidInput(
            f"The input {name!r} got an array of shape {x.shape}: at least one step and one sample are needed."
        )
    if x.dtype.kind not in "biuf":
        raise InvalidInput(
            f"The input {name!r} got an array of {x.dtype}, wanted real numbers, whole ones or truth values; convert "
            "it with numpy's astype."
        )
    if not np.isfinite(x).all():
        wrong = ~np.isfinite(x)
        at = [
            f"{axis} {place}"
            for axis, place in zip(("step", "sample")[not steps :], np.argwhere(wrong)[0], strict=False)
        ]
        raise InvalidInput(
            f"The input {name!r} holds {np.count_nonzero(wrong)} numbers that are not finite, the first at "
            f"{', '.join(at)}; clean the data."
        )
    if wanted.kind is Kind.SPIKE and x.dtype != bool and not ((x == 0) | (x == 1)).all():
        raise InvalidInput(
            f"The input {name!r} takes spikes (0 or 1) and got other numbers, from {x.min():g} to {x.max():g}; "
            "encode the data as spikes, or trace the model with a real-valued input."
        )
    if wanted.kind is Kind.INDEX:
        _check_index(graph, name, x)
    return x


def _check_index(graph: Graph, name: str, x: Array) -> None:
    """Raise InvalidInput unless each number of x names a row of every Embedding that the input feeds."""
    rows = [
        len(node.weight)
        for edge in graph.out_of(name)
        if isinstance(node := graph.nodes[edge.target], Embedding)
    ]
    most = min(rows, default=0)
    if (x != np.floor(x)).any() or x.min() < 0 or (rows and x.max() >= most):
        raise InvalidInput(
            f"The input {name!r} takes whole numbers from 0 to {most - 1}, which name rows of an Embedding, and got "
            f"numbers from {x.min():g} to {x.max():g}; check the vocabulary that the data was encoded with."
        )


def check_state(graph: Graph, state: State | None, batch: int, dtype: Any) -> dict[str, Array]:
    """Return a fresh copy of a state if it fits the graph and batch, zeros where it is None.

    Raises:
        InvalidInput: a state is missing, unknown, or of another shape.
    """
    wanted = {name: (batch, *shape) for name, shape in graph.states.items()}
    if state is None:
        return {name: np.zeros(shape, dtype) for name, shape in wanted.items()}
    got = {name: np.shape(value) for name, value in state.items()}
    if got != wanted:
        wrong = sorted(set(wanted.items()) ^ set(got.items()))
        raise InvalidInput(
            f"The carried state does not fit: {', '.join(f'{name} {shape}' for name, shape in wrong)} differ; "
            f"wanted {wanted}. Pass the state of a run of the same graph with the same batch."
        )
    return {name: np.array(state[name], dtype) for name in wanted}

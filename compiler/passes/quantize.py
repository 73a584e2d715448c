"""Write a graph in whole numbers of the widths that a chip has.

A neuron's recurrence and each of its resets are homogeneous: with input, threshold and bias multiplied by K, the
membrane is multiplied by K and the spikes stay. So each neuron has a K of its own, as large as the widths allow, and
all weights that feed it are multiplied by it and rounded (`quantize_layers`, `quantize_neurons`). Between neurons,
signals that are no spikes count powers of two (`quantize_lowering`, `quantize_signals`), and filters and memories
theirs (`quantize_filters`). What is rounded away only a run on data tells; what it cost, `runtime.quantisation`.

The compiler runs nothing itself, so ranges are measured by a function that is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import (
    LI,
    LIF,
    Activation,
    AvgPool2d,
    Convolution,
    CubaLIF,
    Delay,
    DiagonalSSM,
    Embedding,
    Flatten,
    Linear,
    Output,
    Pool2d,
    Reshape,
    Scale,
    Threshold,
)
from unscan.compiler.passes import quantize_filters, quantize_neurons, quantize_signals
from unscan.compiler.passes.base import Pass, Rewrite
from unscan.compiler.passes.quantize_lowering import (
    SOFT_RESETS,
    Leaf,
    Lowering,
    Range,
    Ranges,
    SoftReset,
    compact,
)
from unscan.compiler.passes.quantize_signals import close, lower
from unscan.compiler.passes.quantize_weights import rows
from unscan.compiler.profiles import input_fraction, profile, share

MEANINGS = (quantize_filters, quantize_neurons, quantize_signals)
"""Where it is written what becomes of each node."""
READERS = (LIF, CubaLIF, LI, Threshold, Output)
"""What gives the weights before it units of its own."""
THREADED = (Delay, Flatten, Reshape, Pool2d)
"""What may stand between weights and their reader, besides relu."""


@dataclass(frozen=True)
class Quantize(Pass):
    """Round every number to the whole ones of a profile, in ranges that were measured on samples.

    Options: `profile`, loihi2, int8 or int16 (`unscan.compiler.profiles`). `ranges` measures. `headroom`: how many
    times what was measured has room, from 1 up; what goes beyond saturates, and runs count it. `soft_reset`: "node"
    keeps the reset of neurons that subtract their threshold; "recurrent" writes it as weights of their own spikes, one
    step later, after the leak, as Lava's netx can have it (exact for a phase next; another model for a phase now).

    Given: iterative nodes, real numbers. Result: the same graph in whole numbers; a real input is made whole behind the
    Input. Preserves: the names of what fires, and nothing exactly, except where all numbers already are on the grid.
    `meta["units"]` says what a membrane of 1 counts, `meta["quantised"]` the profile and what an output of 1 counts.

    Raises:
        InvalidInput: an unknown profile or option; ranges that were not measured, or are not finite.
        Unsupported: a node that has no meaning in whole numbers, with what to do.
    """

    name: ClassVar[str] = "quantize"
    changes: ClassVar[bool] = True
    profile: str
    ranges: Ranges
    headroom: float = 1.25
    soft_reset: SoftReset = "node"

    def __post_init__(self) -> None:
        profile(self.profile)
        if not (np.isfinite(self.headroom) and self.headroom >= 1):
            raise InvalidInput(f"quantize got the headroom {self.headroom}; it takes a number from 1 up.")
        if self.soft_reset not in SOFT_RESETS:
            raise InvalidInput(
                f"quantize got the soft reset {self.soft_reset!r}; choose from {', '.join(SOFT_RESETS)}."
            )

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph in whole numbers."""
        if graph.integer:
            raise InvalidInput("quantize got a graph that computes with whole numbers already.")
        refuse(graph)
        widths = profile(self.profile)
        measured = self.ranges(graph)
        check_ranges(measured)
        leaves, folded = plan(graph)
        made = Lowering(graph, widths, measured, self.headroom, leaves, folded, self.soft_reset)
        if widths.shift is not None:
            balance(made)
        for name in graph.order:
            if name not in folded:
                lower(graph.nodes[name], name, made)
        if graph.recurrent:
            for name in graph.of(Delay):
                close(name, made)
        (output,) = graph.of(Output)
        written = Graph(made.nodes, made.edges, history=graph.history, meta=graph.meta)
        meta = {
            "units": {**graph.meta.get("units", {}), **in_units(graph, made.units)},
            "quantised": {"profile": widths.name, "output": float(made.carried[output].unit.flat[0])},
        }
        notes = [
            f"profile {widths.name}, with room for {self.headroom:g} times what was measured",
            *made.notes,
        ]
        return Rewrite(written.annotate(meta=meta), notes)


def refuse(graph: Graph) -> None:
    """Raise Unsupported where nodes have no meaning in whole numbers, naming all of them."""
    found = [
        str(quantize_signals.refused(graph.nodes[name], name))
        for name in graph.order
        if isinstance(graph.nodes[name], tuple(quantize_signals.REFUSED))
    ]
    if found:
        raise Unsupported(" ".join(found))


def check_ranges(measured: Mapping[str, Range]) -> None:
    """Raise InvalidInput where a range is not finite."""
    for name, found in measured.items():
        if not (np.isfinite(found.low).all() and np.isfinite(found.high).all()):
            raise InvalidInput(
                f"quantize: {name} reached numbers that are not finite on the samples; check them."
            )


def in_units(graph: Graph, units: Mapping[str, Array]) -> dict[str, Any]:
    """Return what a membrane of the model as trained counts, for meta: multiplied by what stood there before."""
    before = graph.meta.get("units", {})
    return {
        name: (compact(each) * np.asarray(before.get(name, 1.0))).tolist() for name, each in units.items()
    }


def plan(graph: Graph) -> tuple[dict[str, list[list[Leaf] | None]], set[str]]:
    """Return the leaves behind each edge of each reader, and all nodes that are folded into readers."""
    rank = {name: place for place, name in enumerate(graph.order)}
    found: dict[str, list[list[Leaf] | None]] = {}
    folded: set[str] = set()
    for name in graph.of(*READERS):
        paths = [leaves_behind(graph, edge.source, rank, rank[name]) for edge in graph.into(name)]
        if isinstance(graph.nodes[name], Output) and any(path is None for path in paths):
            paths = [None] * len(paths)
        found[name] = [None if path is None else path[0] for path in paths]
        folded |= {node for path in paths if path is not None for node in path[1]}
    return found, folded


def leaves_behind(
    graph: Graph, name: str, rank: Mapping[str, int], reader: int
) -> tuple[list[Leaf], set[str]] | None:
    """Return the leaves that a node passes on, and all nodes from them to it; None where it has units of its own."""
    node = graph.nodes[name]
    if len(graph.out_of(name)) > 1 or graph.signals[name].kind is Kind.SPIKE:
        return None
    if isinstance(node, Linear | Convolution | Embedding | Scale | DiagonalSSM):
        return (
            ([Leaf(name)], {name})
            if all(ready(graph, e.source, rank, reader) for e in graph.into(name))
            else None
        )
    if not isinstance(node, THREADED) and not (isinstance(node, Activation) and node.function == "relu"):
        return None
    paths = [leaves_behind(graph, edge.source, rank, reader) for edge in graph.into(name)]
    known = [path for path in paths if path is not None]
    if len(known) < len(paths):
        return None
    divisor = prod(node.kernel) if isinstance(node, AvgPool2d) and isinstance(node.kernel, tuple) else 1
    straight = not isinstance(node, Flatten | Reshape)
    leaves = [
        Leaf(leaf.name, leaf.divisor * divisor, leaf.straight and straight, alone=False)
        for found, _ in known
        for leaf in found
    ]
    return leaves, {name}.union(*(nodes for _, nodes in known))


def ready(graph: Graph, source: str, rank: Mapping[str, int], reader: int) -> bool:
    """Say whether the units of a signal are known before its reader is written."""
    return graph.signals[source].kind is Kind.SPIKE or rank[source] < reader


def balance(made: Lowering) -> None:
    """Choose the fractions of real inputs that neurons read directly; see `profiles.input_fraction`."""
    graph, widths = made.graph, made.profile
    readers = {
        leaf.name: name for name, paths in made.leaves.items() for path in paths for leaf in path or ()
    }
    for entry in [name for name in made.fractions if not graph.into(name)]:
        targets = [edge.target for edge in graph.out_of(entry)]
        neurons = [readers.get(target, entry) for target in targets]
        if not all(isinstance(graph.nodes[name], LIF | CubaLIF) for name in neurons):
            continue
        found = []
        for target, name in zip(targets, neurons, strict=True):
            neuron: Any = graph.nodes[name]
            weight = rows(graph.nodes[target])
            gain = 1.0 - float(np.mean(neuron.beta)) if neuron.gain != "1" else 1.0
            reached = made.largest(f"{name}.membrane")
            each = (
                reached.reshape(len(weight), -1).max(axis=1) if len(reached) == len(weight) else reached.max()
            )
            found.append(
                input_fraction(
                    widths,
                    weight * gain,
                    made.largest(entry).max(),
                    threshold=float(np.mean(neuron.threshold)),
                    bias=getattr(graph.nodes[target], "bias", None),
                    ceiling=share(2.0 ** (widths.state_bits - 1) / 2.0 ** (widths.shift or 0), each),
                )
            )
        made.fractions[entry] = min(found)
        units = int(np.ceil(made.largest(entry).max() * 2.0 ** min(found)))
        made.balanced[entry] = max(
            2, Fixed.holding(units, signed=bool(np.min(made.ranges[entry].low) < 0)).bits
        )

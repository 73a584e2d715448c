"""Membranes of chosen neurons, in two executions laid over one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.runtime.report.blocks import Figure
from unscan.runtime.report.evidence import Evidence
from unscan.runtime.report.plots import Line, lines

STEPS = 200
"""Steps that a trace draws at most."""
LAYERS = 6
"""Layers of which a neuron is drawn where nobody chose any."""


@dataclass(frozen=True)
class Chosen:
    """A neuron of one sample, why it is shown, and the step around which it is."""

    node: str
    neuron: tuple[int, ...]
    sample: int
    why: str
    step: int = 0


def named(asked: str, graphs: Sequence[Graph]) -> tuple[str, tuple[int, ...]]:
    """Return node and neuron of NODE:NEURON, or NODE:ROW,COLUMN for an entry of a memory.

    Raises:
        InvalidInput: it is written otherwise, or no graph has such a neuron.
    """
    node, colon, place = asked.rpartition(":")
    try:
        neuron = tuple(int(index) for index in place.split(","))
    except ValueError:
        colon = ""
    if not colon or not node:
        raise InvalidInput(
            f"Got the trace {asked!r}; write NODE:NEURON, as in layer1.neuron:5, or NODE:ROW,COLUMN for an entry of a "
            "memory."
        )
    shapes = [graph.membranes()[node] for graph in graphs if node in graph.membranes()]
    if not shapes:
        with_some = ", ".join(dict.fromkeys(name for graph in graphs for name in graph.membranes()))
        raise InvalidInput(
            f"No node {node!r} has membranes to trace; those that do are {with_some or 'none'}."
        )
    if not any(fits(neuron, shape) for shape in shapes):
        raise InvalidInput(
            f"Got the trace {asked!r}; the neurons of {node} are counted from 0 in the shape {shapes[0]}."
        )
    return node, neuron


def fits(neuron: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Say whether a place lies within a shape."""
    return len(neuron) == len(shape) and all(0 <= i < size for i, size in zip(neuron, shape, strict=True))


def choose(evidence: Evidence, asked: Sequence[str], graphs: Sequence[Graph]) -> list[Chosen]:
    """Return the neurons to show: those that were asked for, or one of each layer, where its executions first part or
    which fires most without firing always.
    """
    shapes = evidence.graph.membranes()
    if asked:
        places = [named(each, graphs) for each in asked]
        return [
            Chosen(node, neuron, 0, "asked for")
            for node, neuron in places
            if node in shapes and fits(neuron, shapes[node])
        ]
    agreement = evidence.between(evidence.runs[0], evidence.other)
    shown = evidence.shown[evidence.runs[0]]
    found: list[Chosen] = []
    for node in [name for name in shown.spikes if name in shapes][:LAYERS]:
        here = shown.spikes[node].shape[1]
        parting = next(
            (m for m in (agreement.partings if agreement else ()) if m.node == node and m.sample < here), None
        )
        if parting is not None:
            why = f"here the executions part, at step {parting.step}{' (a tie)' if parting.tie else ''}"
            found.append(Chosen(node, parting.neuron, parting.sample, why, parting.step))
            continue
        times = shown.spikes[node][:, 0].sum(axis=0)
        busy = np.where(times < evidence.steps, times, -1)
        neuron = tuple(int(i) for i in np.unravel_index(int(busy.argmax()), times.shape))
        found.append(
            Chosen(node, neuron, 0, "it fires most in this sample, of those that do not fire always")
        )
    return found


def figure(evidence: Evidence, chosen: Chosen) -> Figure | None:
    """Return membranes of a neuron before its reset, its threshold, and its spikes; None where none was recorded."""
    runs = [run for run in (evidence.runs[0], evidence.other) if chosen.node in evidence.shown[run].membranes]
    runs = list(dict.fromkeys(runs))
    if not runs:
        return None
    first = max(0, min(chosen.step - STEPS // 2, evidence.steps - STEPS))
    window = slice(first, min(first + STEPS, evidence.steps))
    at: tuple[slice | int, ...] = (window, chosen.sample, *chosen.neuron)
    steps = np.arange(window.start, window.stop)
    styles = ["under", "dashed"] if len(runs) == 2 else ["", ""]
    series = [
        Line(run, steps, evidence.shown[run].membranes[chosen.node][at], colour, style)
        for run, colour, style in zip(runs, (1, 2), styles, strict=False)
    ]
    fired = [
        (colour, window.start + np.flatnonzero(evidence.shown[run].spikes[chosen.node][at]))
        for run, colour in zip(runs, (1, 2), strict=False)
        if chosen.node in evidence.shown[run].spikes
    ]
    level = threshold(evidence.graph, chosen)
    place = str(chosen.neuron[0] if len(chosen.neuron) == 1 else chosen.neuron)
    what = f"{chosen.node}, neuron {place}, sample {chosen.sample}"
    times = ", ".join(f"{len(places)} of {run}" for run, (_, places) in zip(runs, fired, strict=False))
    part = "" if len(steps) == evidence.steps else f" of {evidence.steps}"
    svg = lines(
        series,
        f"Membrane of {what}, {' and '.join(runs)}: spikes {times or 'none, it does not fire'}",
        axes=("step", "membrane"),
        levels=[] if level is None else [("threshold", np.full(len(steps), level))],
        spikes=fired,
    )
    return Figure(
        svg,
        f"{what}: {chosen.why}. Membrane before the reset, steps {window.start} to {window.stop - 1}{part}"
        f"{'; ticks above are spikes, ' + times if fired else ''}.",
    )


def threshold(graph: Graph, chosen: Chosen) -> float | None:
    """Return the threshold of a neuron at rest; None where it has none."""
    node, shape = graph.nodes[chosen.node], graph.membranes()[chosen.node]
    held: Array | None = getattr(node, "threshold", None)
    if held is None or not prod(shape):
        return None
    return float(np.broadcast_to(held, shape)[chosen.neuron])

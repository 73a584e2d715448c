"""Move thresholds until neurons with their reset restored fire as often as they did in training.

A neuron that was trained without a reset fires at every step at which its membrane is up; with one it starts again from
below, so it fires less, and what reads it gets less. A lower threshold gives the rate back: not the same spikes, but as
many. The compiler runs nothing itself, so the rates are measured by a function that is handed in.

Rates fall as a threshold rises, so each is found by bisection of its logarithm, all channels of a layer at once, layer
after layer in the order of the flow, each behind layers that are calibrated already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Node
from unscan.compiler.nodes import RESETTING, Memory
from unscan.compiler.passes.base import Pass, Rewrite

Rates = Callable[[Graph], Mapping[str, Array]]
"""Runs a graph on samples and returns, for each node that fires, the share of steps and samples at which each neuron
did: numbers from 0 to 1, of the shape of its membranes."""

LOWEST, HIGHEST = 1 / 64, 4.0
"""Least and largest factor of a threshold."""
SHOWN = 8
"""Channels that a note names."""


@dataclass(frozen=True)
class Calibrate(Pass):
    """Set thresholds, one per channel (one for a matrix memory), so that layers fire at the rates that are wanted.

    Options: `wanted`, node -> rates per neuron, such as `rates` gives of the model as trained; of its nodes those that
    have a reset are calibrated. `rates` measures. `rounds` of bisection, between 1/64 and 4 times the threshold, of
    which the closest is kept. It measures the graph up to rounds + 1 times for each layer, and once before.

    Channels that were silent or always on in training stay as they are, and the note names them. A layer that comes no
    closer to its rates stays as it is. Not every rate can be had: a neuron that starts from 0 after each spike fires at
    most as often as its input alone is above 0; the note says how many channels stay below.

    Given and result: iterative nodes; thresholds change alone. Preserves: nothing but, about, the rates; what it does
    to spikes and to the gap only a run on data says. The same measurements give the same thresholds.

    Raises:
        InvalidInput: no rates wanted, rates of an unknown node, of another shape, or outside [0, 1]; no round.
    """

    name: ClassVar[str] = "calibrate"
    changes: ClassVar[bool] = True
    wanted: Mapping[str, Array]
    rates: Rates
    rounds: int = 12

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InvalidInput(f"calibrate got {self.rounds} rounds; it takes a whole number from 1 up.")
        if not self.wanted:
            raise InvalidInput(
                "calibrate got no rates that are wanted; hand in those of the model as it was trained."
            )

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with its thresholds set."""
        unknown = [name for name in self.wanted if name not in graph.nodes]
        if unknown:
            raise InvalidInput(
                f"calibrate was given rates for {unknown[0]!r}, which is no node of this graph; its nodes with a reset "
                f"are: {', '.join(graph.of(*RESETTING)) or 'none'}."
            )
        layers = [name for name in graph.of(*RESETTING) if name in self.wanted]
        for name in layers:
            check_rates(graph, name, self.wanted[name], "were wanted")
        measured = self._measure(graph, layers)
        notes: list[str] = []
        for name in layers:
            graph, measured = self._calibrate(graph, name, layers, measured, notes)
        return Rewrite(graph, notes)

    def _measure(self, graph: Graph, layers: list[str]) -> Mapping[str, Array]:
        """Measure rates, and see that those of the layers are some."""
        found = self.rates(graph)
        for name in layers:
            check_rates(graph, name, found.get(name), "were measured")
        return found

    def _calibrate(
        self, graph: Graph, name: str, layers: list[str], measured: Mapping[str, Array], notes: list[str]
    ) -> tuple[Graph, Mapping[str, Array]]:
        """Return the graph with one layer calibrated, and its rates."""
        node = graph.nodes[name]
        wanted, before = per_threshold(node, self.wanted[name]), per_threshold(node, measured[name])
        least = np.abs(before - wanted)
        moving = (wanted > 0) & (wanted < 1) & (least > 0)
        left = left_alone(wanted)
        if not moving.any():
            notes.append(f"{name}: stays, it fires at {before.mean():.4g} as is wanted{left}")
            return graph, measured
        best = np.zeros_like(wanted)
        low = np.where(before > wanted, 0.0, np.log(LOWEST))
        high = np.where(before > wanted, np.log(HIGHEST), 0.0)
        for _ in range(self.rounds):
            tried = np.where(moving, (low + high) / 2, 0.0)
            reached = per_threshold(node, self._measure(scaled(graph, name, tried), [name])[name])
            miss = np.abs(reached - wanted)
            closer = moving & (miss < least)
            best, least = np.where(closer, tried, best), np.where(closer, miss, least)
            low, high = np.where(reached > wanted, tried, low), np.where(reached > wanted, high, tried)
        calibrated = scaled(graph, name, best)
        now = self._measure(calibrated, layers)
        after = per_threshold(node, now[name])
        off, still = (float(np.abs(rate - wanted).mean()) for rate in (before, after))
        if still >= off:
            notes.append(
                f"{name}: stays, no threshold brings it nearer to {wanted.mean():.4g} than {before.mean():.4g}"
            )
            return graph, measured
        factors = np.exp(best[moving])
        short = np.count_nonzero((low == np.log(LOWEST)) & moving & (least > 0))
        if short:
            left = f"; {short} of {wanted.size} channels fire less than is wanted at any threshold from 1/64 up{left}"
        notes.append(
            f"{name}: fired at {before.mean():.4g}, fires at {after.mean():.4g}, wanted {wanted.mean():.4g} spikes per "
            f"neuron and step; channels were {off:.3g} off and are {still:.3g}, with thresholds times "
            f"{factors.min():.3g} to {factors.max():.3g}{left}"
        )
        return calibrated, now


def per_threshold(node: Node, rates: Array) -> Array:
    """Return rates averaged over the neurons that share a threshold: (C, 1, ...) of (C, ...), () of a memory."""
    rates = np.asarray(rates, np.float64)
    if isinstance(node, Memory):
        return np.asarray(rates.mean())
    return np.asarray(rates.mean(axis=tuple(range(1, rates.ndim)), keepdims=True))


def scaled(graph: Graph, name: str, logarithms: Array) -> Graph:
    """Return the graph with the thresholds of a node multiplied by e to the power of some numbers."""
    node: Any = graph.nodes[name]
    threshold = node.threshold.astype(np.float64) * np.exp(logarithms)
    return graph.with_nodes({name: replace(node, threshold=threshold.astype(node.threshold.dtype))})


def left_alone(wanted: Array) -> str:
    """Return a clause that names the channels that were silent or always on in training, "" where there are none."""
    clauses = []
    for rate, how in ((0, "silent"), (1, "always on")):
        channels = np.flatnonzero(wanted == rate)
        if len(channels):
            named = ", ".join(map(str, channels[:SHOWN])) + ", ..." * (len(channels) > SHOWN)
            clauses.append(f"; left alone, as {how} in training: channels {named}")
    return "".join(clauses)


def check_rates(graph: Graph, name: str, rates: Array | None, what: str) -> None:
    """Raise InvalidInput unless there are rates for a node, of the shape of its membranes, from 0 to 1."""
    shape = graph.membranes()[name]
    if rates is None or np.shape(rates) != shape:
        got = "none" if rates is None else f"an array of shape {np.shape(rates)}"
        raise InvalidInput(
            f"calibrate: of {name!r}, rates of shape {shape}, one for each neuron, are needed; {got} {what}."
        )
    if not np.all((np.asarray(rates) >= 0) & (np.asarray(rates) <= 1)):
        raise InvalidInput(
            f"calibrate: the rates of {name!r} that {what} reach from {np.min(rates):g} to {np.max(rates):g}; a rate "
            "is the share of steps at which a neuron fires, from 0 to 1."
        )

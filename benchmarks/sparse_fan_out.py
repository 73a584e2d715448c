"""Time a step of sparsely connected layers: what a step and an event cost by width, and where density breaks even.

    unscan bench sparse_fan_out [--quick] [--json FILE]

Two layers of LIF neurons whose every input reaches 16 neurons, one of them strongly enough to make it fire, so that a
layer sends about what arrives; then a dense layer of 10. Shown are microseconds a step at 8 input spikes a step, and
nanoseconds an event at 0.5 % of the input, from 64 to 8192 neurons a layer: as the event executor chooses, with no
neuron asleep, and with whole rows of weights, too. Then one layer, by the share of its weights that are not 0: the
time of whole rows over that of the others alone, into neurons that sleep in blocks, and into a buffer (they are read
twice); above 1 the weights alone are cheaper. All in float32, one thread, one sample; the ways take turns.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.table import Table

from unscan.benchmarks.measuring import Pass, figure, medians, options, screen, write
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import LI, LIF, Input, Linear, Output
from unscan.runtime.executors.event import EventDriven, fan_out

FAN_OUT, EVENTS, RATE, STEPS = 16, 8, 0.005, 256
RATES = (0.005, 0.02, 0.1)


def weights(width: int, reached: int, seed: int) -> Linear:
    """Draw weights by which every input reaches so many neurons, the first of them strongly."""
    draws = np.random.default_rng(seed)
    weight = np.zeros((width, width), np.float32)
    first = draws.permutation(width)
    for column in range(width):
        others = (first[column] + 1 + draws.choice(width - 1, reached - 1, replace=False)) % width
        weight[others, column] = draws.normal(0, 0.05, reached - 1)
    weight[first, np.arange(width)] = 1.2
    return Linear(weight)


def network(width: int, reached: int, layers: int, *, asleep: bool = True) -> Graph:
    """Return layers of neurons and a readout; not `asleep`, each layer's currents have a second reader."""
    beta, theta = (np.array(number, np.float32) for number in (0.9, 1.0))
    nodes: dict[str, Node] = {"in": Input((width,), Kind.SPIKE)}
    edges, last = [], "in"
    for k in range(layers):
        nodes |= {
            f"w{k}": weights(width, reached, k),
            f"n{k}": LIF(beta=beta, threshold=theta, trained_reset="zero"),
        }
        edges += [Edge(last, f"w{k}"), Edge(f"w{k}", f"n{k}")]
        last = f"n{k}"
        if not asleep:
            nodes[f"m{k}"] = LI(beta=beta)
            edges.append(Edge(f"w{k}", f"m{k}"))
    draws = np.random.default_rng(99)
    nodes |= {"read": Linear(draws.normal(size=(10, width)).astype(np.float32)), "out": Output()}
    return Graph(nodes, [*edges, Edge(last, "read"), Edge("read", "out")])


def spikes(width: int, rate: float) -> Array:
    """Draw an input that fires at a rate."""
    return np.random.default_rng(width).random((STEPS, 1, width)) < rate


Limits = dict[str, Any]
"""Limits of `fan_out` that differ from the executor's own."""
CHOSEN: dict[str, Limits] = {"chosen": {}, "awake": {"WIDE": np.inf}, "rows": {"DENSEST": -1.0}}
FORCED: dict[str, Limits] = {"sparse": {"DENSEST": 1.0, "WIDE": 0}, "rows": {"DENSEST": -1.0}}


def ways(graph: Graph, x: Array, limits: dict[str, Limits]) -> dict[str, Pass]:
    """Return the run of a graph under each set of limits."""
    found: dict[str, Pass] = {}
    for name, given in limits.items():
        with patch.multiple(fan_out, **given) if given else nullcontext():
            executor = EventDriven(graph, np.float32, threads=1)
        found[name] = partial(executor.run, x, record=False)
    return found


def scaling(widths: Iterable[int], budget: float) -> dict[str, dict[str, float]]:
    """Return width -> microseconds a step at a fixed number of events, nanoseconds an event at a fixed rate."""
    found = {}
    for width in widths:
        graph = network(width, FAN_OUT, 2)
        row = {}
        for rate, name, unit in ((EVENTS / width, "us a step", 1), (RATE, "ns an event", 0)):
            x = spikes(width, rate)
            made = ways(graph, x, CHOSEN)
            counts = EventDriven(graph, np.float32, threads=1).run(x, record=False).counts
            assert counts is not None
            events = sum(int(counts.events[node].sum()) for node in ("in", "n0", "n1"))
            for way, time in medians(made, budget).items():
                row[f"{name}, {way}"] = 1e3 * time / STEPS if unit else 1e6 * time / max(events, 1)
        found[str(width)] = row
    return found


def break_even(
    widths: Iterable[int], shares: Iterable[float], budget: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Return way -> width and rate -> share -> the time of whole rows over that of the weights that are not 0."""
    found: dict[str, dict[str, dict[str, float]]] = {"into blocks that sleep": {}, "into a buffer": {}}
    for way, rows in found.items():
        for width in widths:
            for share in shares:
                reached = round(share * width)
                if reached < 2:
                    continue
                graph = network(width, reached, 1, asleep=way == "into blocks that sleep")
                for rate in RATES:
                    times = medians(ways(graph, spikes(width, rate), FORCED), budget)
                    row = rows.setdefault(f"{width} at {rate:.1%}", {})
                    row[f"{share:.1%}"] = times["rows"] / times["sparse"]
    return found


def table(title: str, first: str, rows: dict[str, dict[str, float]]) -> Table:
    """Tabulate rows of numbers."""
    made = Table(title=title)
    made.add_column(first)
    columns = max(rows.values(), key=len)
    for column in columns:
        made.add_column(column, justify="right")
    for name, row in rows.items():
        made.add_row(name, *(figure(row[column]) if column in row else "-" for column in columns))
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the tables."""
    given = options(__doc__, quick="narrow layers, little time").parse_args(arguments)
    budget = 0.02 if given.quick else 1.0
    widths = (64, 256) if given.quick else (64, 128, 256, 512, 1024, 2048, 4096, 8192)
    few = (64,) if given.quick else (64, 256, 1024, 4096)
    shares = (0.1, 0.2) if given.quick else (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    scaled, even = scaling(widths, budget), break_even(few, shares, budget / 4)
    screen().print(table("By width", "neurons a layer", scaled))
    for way, rows in even.items():
        screen().print(table(f"Whole rows over weights alone, {way}, by their share", "neurons, rate", rows))
    write(given.json, scaling=scaled, break_even=even)


if __name__ == "__main__":
    main()

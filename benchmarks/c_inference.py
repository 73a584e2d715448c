"""A network of whole numbers in C, step by step, against the event executor and onnxruntime: steps a second.

    unscan bench c_inference

784-512-512-10, 8-bit weights, membranes of 16 bits, hard reset, one sample, 5 % of the inputs spike; thresholds by
which each layer fires at about 5 %. One thread. The methods run in turns; each is shown by its median, and as a ratio
to the C that gcc makes at -O2. All fire the same spikes, or the benchmark says so and fails.
"""

import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from rich.table import Table

from unscan.benchmarks.measuring import Pass, figure, medians, options, screen, write
from unscan.compiler.errors import UnscanError
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import Input, IntegerLIF, Linear, Output
from unscan.runtime.executors.c import C
from unscan.runtime.executors.event import EventDriven
from unscan.targets.c import sizes

WIDTHS = (784, 512, 512, 10)
RATE = 0.05
BETA = 3686
"""Decay of the membranes in units of 1/4096: 0.9."""
LAYERS = range(len(WIDTHS) - 1)
METHODS = (
    "C, gcc -O2",
    "C, gcc -O3 for this machine",
    "event executor",
    "onnxruntime, step",
    "onnxruntime, Scan",
)


def network(thresholds: list[int]) -> Graph:
    """Return the network with fixed random weights."""
    rng = np.random.default_rng(0)
    nodes: dict[str, Node] = {"in": Input((WIDTHS[0],), Kind.SPIKE)}
    for i in LAYERS:
        weight = rng.standard_normal((WIDTHS[i + 1], WIDTHS[i]))
        nodes[f"fc{i}"] = Linear(np.rint(weight * 127 / np.abs(weight).max()).astype(np.int8))
        nodes[f"lif{i}"] = IntegerLIF(
            beta=np.array(BETA),
            threshold=np.array(thresholds[i]),
            bits=16,
            reset="zero",
            trained_reset="zero",
        )
    return Graph({**nodes, "out": Output()}, [Edge(a, b) for a, b in pairwise([*nodes, "out"])])


def calibrated(x: Array) -> Graph:
    """Return the network with thresholds at which each layer fires at about the rate of the input."""
    thresholds = [2**15 - 1 for _ in LAYERS]
    for i in LAYERS:
        low, high = 0, 2**13
        while high - low > 8:
            thresholds[i] = (low + high) // 2
            fired = EventDriven(network(thresholds), threads=1).run(x).spikes[f"lif{i}"].mean()
            low, high = (thresholds[i], high) if fired > RATE else (low, thresholds[i])
    return network(thresholds)


def methods(graph: Graph) -> Iterator[tuple[str, Any]]:
    """Yield every way to run the graph that this machine has, by name."""
    yield METHODS[0], C(graph)
    yield METHODS[1], C(graph, flags=("-O3", "-march=native"))
    yield METHODS[2], EventDriven(graph, threads=1)
    try:
        from unscan.runtime.executors.onnx import OnnxScan, OnnxStep

        yield METHODS[3], OnnxStep(graph)
        yield METHODS[4], OnnxScan(graph)
    except (ImportError, UnscanError) as reason:
        screen().print(f"[dim]onnxruntime is left out: {reason}[/]")


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__, quick="100 steps and a short budget")
    chosen = parser.parse_args(arguments)
    steps, budget = (100, 2.0) if chosen.quick else (1000, 20.0)
    x = (np.random.default_rng(1).random((steps, 1, WIDTHS[0])) < RATE).astype(np.uint8)
    graph = calibrated(x[:200])
    found = dict(methods(graph))
    spikes = {name: executor.run(x).spikes for name, executor in found.items()}
    truth = spikes[METHODS[0]]
    for name, ours in spikes.items():
        for layer, fired in truth.items():
            if not np.array_equal(ours[layer], fired):
                raise SystemExit(f"{name} fires other spikes in {layer}.")
    passes: dict[str, Pass] = {
        name: partial(executor.run, x, record=False) for name, executor in found.items()
    }
    start = time.perf_counter()
    times = medians(passes, budget)
    rates = {layer: float(fired.mean()) for layer, fired in truth.items()}
    made = Table(title=f"{'-'.join(map(str, WIDTHS))}, int8, {steps} steps, layers fire at {shown(rates)}")
    for title in ("method", "steps a second", "us a step", "times C at -O2"):
        made.add_column(title, justify="left" if title == "method" else "right")
    for name, ms in times.items():
        each = ms / steps
        made.add_row(name, f"{1e3 / each:,.0f}", figure(each * 1e3), figure(ms / times[METHODS[0]]))
    screen().print(made)
    taken = sizes(graph)
    screen().print(
        f"Flash {taken.flash:,} bytes ({taken.weights:,} of weights), memory {taken.ram:,} bytes; measured for "
        f"{time.perf_counter() - start:.0f} s."
    )
    write(chosen.json, steps=steps, widths=WIDTHS, rates=rates, ms=times, sizes=taken.to_json())


def shown(rates: dict[str, float]) -> str:
    """Show firing rates."""
    return ", ".join(f"{rate:.1%}" for rate in rates.values())


if __name__ == "__main__":
    main()

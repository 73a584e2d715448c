"""Time exact inference of a convolutional network over 100 steps: the event executor, onnxruntime, torch.

    unscan bench convolution [--quick] [--json FILE]

An event camera's image of 2 x 34 x 34 -> 12 kernels of 5 x 5 -> neurons -> sums of 2 x 2 -> 32 kernels of 5 x 5 ->
neurons -> sums of 2 x 2 -> 10 neurons, hard reset. The input fires at the named rate, and so does every layer:
thresholds are calibrated on what is timed. Float32, one thread, the same arrays, in turns; medians over rounds. Spikes
are counted in each method, because a faster wrong answer is no answer; float32 methods may differ at ties.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch.nn import functional

from unscan.benchmarks.measuring import Pass, figure, options, screen, write
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import LIF, Conv2d, Flatten, Input, Linear, Output, SumPool2d
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.onnx import OnnxScan, OnnxStep

IMAGE = (2, 34, 34)
STEPS = 100
BETA = 0.9
LAYERS = ("lif1", "lif2", "lif3")
OURS = "event executor"


def network(thresholds: Mapping[str, float]) -> Graph:
    """Return the network with fixed random weights."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Array:
        made: Array = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return made

    def neurons(name: str) -> LIF:
        theta = np.array(thresholds[name], np.float32)
        return LIF(
            beta=np.array(BETA, np.float32), threshold=theta, reset="zero", fires=">", trained_reset="zero"
        )

    nodes: dict[str, Node] = {
        "in": Input(IMAGE, Kind.SPIKE),
        "conv1": Conv2d(weight=weight(12, 2, 5, 5)),
        "lif1": neurons("lif1"),
        "pool1": SumPool2d(kernel=2, stride=2),
        "conv2": Conv2d(weight=weight(32, 12, 5, 5)),
        "lif2": neurons("lif2"),
        "pool2": SumPool2d(kernel=2, stride=2),
        "flatten": Flatten(),
        "fc": Linear(weight(10, 800)),
        "lif3": neurons("lif3"),
        "out": Output(),
    }
    return Graph(nodes, [Edge(*pair) for pair in pairwise(nodes)])


def calibrated(rate: float, x: Array) -> Graph:
    """Return the network with thresholds at which each layer fires at about `rate` on x."""
    thresholds = dict.fromkeys(LAYERS, 1e30)
    for name in LAYERS:
        low, high = 1e-3, 20.0
        for _ in range(14):
            thresholds[name] = (low + high) / 2
            fired = EventDriven(network(thresholds), threads=1).run(x).spikes[name].mean()
            low, high = (thresholds[name], high) if fired > rate else (low, thresholds[name])
    return network(thresholds)


def torch_loop(graph: Graph, x: torch.Tensor) -> Callable[[], int]:
    """Return a loop over the steps of x in torch, which counts the spikes of all layers."""
    nodes: Any = graph.nodes
    first, second, last = (torch.from_numpy(nodes[name].weight.copy()) for name in ("conv1", "conv2", "fc"))
    thetas = [float(nodes[name].threshold) for name in LAYERS]
    pooled = partial(functional.avg_pool2d, kernel_size=2, divisor_override=1)

    @torch.inference_mode()
    def run() -> int:
        state: list[Any] = [0.0, 0.0, 0.0]
        fired = torch.zeros(())

        def neurons(layer: int, current: torch.Tensor) -> torch.Tensor:
            nonlocal fired
            membrane = BETA * state[layer] + current
            spikes: torch.Tensor = (membrane > thetas[layer]).to(membrane.dtype)
            state[layer] = membrane * (1 - spikes)
            fired = fired + spikes.sum(dtype=torch.float64)
            return spikes

        for x_t in x:
            inner = pooled(neurons(0, functional.conv2d(x_t, first)))
            inner = pooled(neurons(1, functional.conv2d(inner, second)))
            neurons(2, functional.linear(inner.flatten(1), last))
        return int(fired)

    return run


def methods(graph: Graph, x: Array) -> dict[str, tuple[Pass, Callable[[], int]]]:
    """Return what is timed, and what counts spikes, by name."""

    def counted(executor: Any) -> tuple[Pass, Callable[[], int]]:
        def spikes() -> int:
            return sum(int(fired.sum()) for fired in executor.run(x).spikes.values())

        return partial(executor.run, x, record=False), spikes

    loop = torch_loop(graph, torch.from_numpy(x))
    return {
        OURS: counted(EventDriven(graph, np.float32, threads=1)),
        "onnxruntime, Scan": counted(OnnxScan(graph)),
        "onnxruntime, step": counted(OnnxStep(graph)),
        "torch, step loop": (loop, loop),
    }


def measure(rate: float, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Time every method at one rate and batch, in turns; return a row for each, ours first."""
    x = (np.random.default_rng(1).random((STEPS, batch, *IMAGE)) < rate).astype(np.float32)
    graph = calibrated(rate, x[:, :2])
    found = methods(graph, x)
    spikes = {name: count() for name, (_, count) in found.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, (run, _) in found.items():
            run()
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    counts = EventDriven(graph, np.float32, threads=1).run(x, record=False).counts
    assert counts is not None
    return [
        {
            "rate": rate,
            "batch": batch,
            "method": name,
            "ms": statistics.median(times[name]),
            "ratio": statistics.median(a / b for a, b in zip(times[name], times[OURS], strict=True)),
            "spikes": spikes[name],
            "spike_difference": spikes[name] - spikes[OURS],
            "rates": {layer: counts.by_node[layer].rate for layer in LAYERS},
            "acs": counts.total.acs,
            "macs": counts.total.macs,
        }
        for name in found
    ]


def shown(rows: list[dict[str, Any]]) -> Table:
    """Return one rate and batch as a table."""
    first = rows[0]
    rates = ", ".join(f"{rate:.1%}" for rate in first["rates"].values())
    made = Table(
        title=f"batch {first['batch']}, input at {first['rate']:.0%}, layers at {rates}; "
        f"{first['acs'] / 1e6:.1f} M ACs and {first['macs'] / 1e6:.1f} M MACs in {STEPS} steps"
    )
    for title in ("method", "ms", "times ours", "spikes", "difference"):
        made.add_column(title, justify="left" if title == "method" else "right")
    for row in rows:
        difference = f"{row['spike_difference']:+d}" if row["spike_difference"] else "none"
        made.add_row(
            row["method"], figure(row["ms"]), f"{row['ratio']:.1f}", f"{row['spikes']:,}", difference
        )
    return made


def main(arguments: list[str] | None = None) -> None:
    chosen = options(__doc__, quick="5 %% and batch 1 only, three rounds").parse_args(arguments)
    settings = (
        [(1, 0.05)] if chosen.quick else [(batch, rate) for batch in (1, 16) for rate in (0.01, 0.05, 0.2)]
    )
    torch.set_num_threads(1)
    rows = []
    for batch, rate in settings:
        found = measure(rate, batch, 3 if chosen.quick else 7)
        rows += found
        screen().print(shown(found))
    write(chosen.json, steps=STEPS, image=IMAGE, rows=rows)


if __name__ == "__main__":
    main()

"""Time exact inference of a 784-512-512-10 network over 100 steps: the event executor against its peers.

    unscan bench inference [--quick] [--rates 1 5 20] [--batches 1 128] [--json FILE]

Every layer fires at the named rate: thresholds are calibrated, layer after layer, on the input that is timed.
All run in float32 on one thread, on the same arrays, and take turns in every round; medians of the rounds are
shown. Spikes are counted in each of them, because a faster wrong answer is no answer; float32 peers may differ at
ties. snnTorch and norse are used where they are installed. norse has no unit input gain, so its weights are
divided by 1 - beta.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import LIF, Input, Linear, Output
from unscan.runtime.executors.event import EventDriven

WIDTHS = (784, 512, 512, 10)
STEPS = 100
BETA = 0.9
LAYERS = range(len(WIDTHS) - 1)
INSTALL = {"snnTorch": "pip install --no-deps snntorch==1.0.0", "norse": "pip install norse==1.1.0"}

Array = Any
Peer = tuple[Callable[[], object], Callable[[], int]]
"""What is timed, and what counts the spikes of all layers."""


def network(thresholds: list[float]) -> Graph:
    """Return the network with fixed random weights, a hard reset at once, and > as its comparison."""
    rng = np.random.default_rng(0)
    nodes: dict[str, Node] = {"in": Input((WIDTHS[0],), Kind.SPIKE)}
    for i in LAYERS:
        weight = rng.standard_normal((WIDTHS[i + 1], WIDTHS[i])) / np.sqrt(WIDTHS[i])
        nodes[f"fc{i}"] = Linear(weight.astype(np.float32))
        nodes[f"lif{i}"] = LIF(
            beta=np.array(BETA, np.float32),
            threshold=np.array(thresholds[i], np.float32),
            reset="zero",
            fires=">",
            trained_reset="zero",
        )
    nodes["out"] = Output()
    names = list(nodes)
    return Graph(nodes, [Edge(a, b) for a, b in pairwise(names)])


def calibrated(rate: float, x: Array) -> Graph:
    """Return the network with thresholds at which each layer fires at about `rate` on x."""
    thresholds = [1e30 for _ in LAYERS]
    for i in LAYERS:
        low, high = 1e-3, 10.0
        for _ in range(14):
            thresholds[i] = (low + high) / 2
            fired = EventDriven(network(thresholds), threads=1).run(x).spikes[f"lif{i}"].mean()
            low, high = (thresholds[i], high) if fired > rate else (low, thresholds[i])
    return network(thresholds)


def peers(graph: Graph, x: Array) -> Iterator[tuple[str, Peer]]:
    """Yield every way to run the network on x (T, B, 784) that this machine has."""
    events = EventDriven(graph, np.float32, threads=1)
    yield (
        "unscan, event-driven",
        (
            lambda: events.run(x, record=False),
            lambda: sum(int(spikes.sum()) for spikes in events.run(x).spikes.values()),
        ),
    )
    from unscan.runtime.executors.onnx import OnnxScan, OnnxStep

    for name, executor in (("onnxruntime, Scan", OnnxScan(graph)), ("onnxruntime, step", OnnxStep(graph))):
        yield name, onnx(executor, x)
    weights = [torch.from_numpy(graph.nodes[f"fc{i}"].weight.copy()) for i in LAYERS]  # type: ignore[attr-defined]
    thetas = [float(graph.nodes[f"lif{i}"].threshold) for i in LAYERS]  # type: ignore[attr-defined]
    yield "torch, step loop", torch_loop(weights, thetas, torch.from_numpy(x))
    for name, make in (("snnTorch", snntorch), ("norse", norse)):
        try:
            yield name, make(weights, thetas, torch.from_numpy(x))
        except ImportError:
            Console().print(f"[dim]{name} is not installed and is left out: {INSTALL[name]}[/]")


def onnx(executor: Any, x: Array) -> Peer:
    return (
        lambda: executor.run(x, record=False),
        lambda: sum(int(spikes.sum()) for spikes in executor.run(x).spikes.values()),
    )


def looped(step: Callable[[torch.Tensor, list[Any]], list[torch.Tensor]], x: torch.Tensor) -> Peer:
    """Run `step` over x; it updates the list of states and returns the spikes of every layer."""

    @torch.inference_mode()
    def run() -> torch.Tensor:
        state: list[Any] = [None] * len(LAYERS)
        return torch.stack([step(x_t, state)[-1] for x_t in x])

    @torch.inference_mode()
    def count() -> int:
        state: list[Any] = [None] * len(LAYERS)
        return sum(int(spikes.sum()) for x_t in x for spikes in step(x_t, state))

    return run, count


def torch_loop(weights: list[torch.Tensor], thetas: list[float], x: torch.Tensor) -> Peer:
    def step(spikes: torch.Tensor, state: list[Any]) -> list[torch.Tensor]:
        sent = []
        for i in LAYERS:
            current = torch.nn.functional.linear(spikes, weights[i])
            membrane = current if state[i] is None else BETA * state[i] + current
            spikes = (membrane > thetas[i]).to(membrane.dtype)
            state[i] = membrane * (1 - spikes)
            sent.append(spikes)
        return sent

    return looped(step, x)


def snntorch(weights: list[torch.Tensor], thetas: list[float], x: torch.Tensor) -> Peer:
    import snntorch as snn

    cells = [snn.Leaky(BETA, threshold=theta, reset_mechanism="zero", reset_delay=False) for theta in thetas]

    def step(spikes: torch.Tensor, state: list[Any]) -> list[torch.Tensor]:
        sent = []
        for i, cell in enumerate(cells):
            membrane = cell.init_leaky() if state[i] is None else state[i]
            spikes, state[i] = cell(torch.nn.functional.linear(spikes, weights[i]), membrane)
            sent.append(spikes)
        return sent

    return looped(step, x)


def norse(weights: list[torch.Tensor], thetas: list[float], x: torch.Tensor) -> Peer:
    from norse.torch import LIFBoxCell, LIFBoxParameters

    rate = torch.tensor((1 - BETA) / 1e-3)
    cells = [LIFBoxCell(p=LIFBoxParameters(tau_mem_inv=rate, v_th=torch.tensor(theta))) for theta in thetas]
    scaled = [weight / (1 - BETA) for weight in weights]

    def step(spikes: torch.Tensor, state: list[Any]) -> list[torch.Tensor]:
        sent = []
        for i, cell in enumerate(cells):
            spikes, state[i] = cell(torch.nn.functional.linear(spikes, scaled[i]), state[i])
            sent.append(spikes)
        return sent

    return looped(step, x)


def timed(call: Callable[[], object], at_least: float) -> float:
    """Return the milliseconds of one call, the mean of as many as fill `at_least` seconds."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < at_least:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls * 1e3


def measure(rate: float, batch: int, rounds: int, at_least: float) -> list[dict[str, Any]]:
    """Time every peer at one rate and batch; return one row for each, ours first."""
    x = (np.random.default_rng(1).random((STEPS, batch, WIDTHS[0])) < rate).astype(np.float32)
    graph = calibrated(rate, x[:, :16])
    found = dict(peers(graph, x))
    spikes = {name: count() for name, (_, count) in found.items()}
    for run, _ in found.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, (run, _) in found.items():
            times[name].append(timed(run, at_least))
    ours = next(iter(found))
    counts = EventDriven(graph, np.float32, threads=1).run(x, record=False).counts
    assert counts is not None
    layers = {f"lif{i}": counts.by_node[f"lif{i}"].rate for i in LAYERS}
    return [
        {
            "rate": rate,
            "batch": batch,
            "method": name,
            "ms": statistics.median(times[name]),
            "ratio": statistics.median(a / b for a, b in zip(times[name], times[ours], strict=True)),
            "spikes": spikes[name],
            "spike_difference": spikes[name] - spikes[ours],
            "rates": layers,
            "acs": counts.total.acs,
        }
        for name in found
    ]


def shown(rows: list[dict[str, Any]]) -> Table:
    """Return one rate and batch as a table."""
    first = rows[0]
    rates = ", ".join(f"{rate:.1%}" for rate in first["rates"].values())
    table = Table(
        title=f"batch {first['batch']}, layers fire at {rates}; {first['acs'] / 1e6:.2f} M ACs in {STEPS} steps"
    )
    for title in ("method", "ms", "times ours", "spikes", "difference"):
        table.add_column(title, justify="left" if title == "method" else "right")
    for row in rows:
        difference = f"{row['spike_difference']:+d}" if row["spike_difference"] else "none"
        table.add_row(
            row["method"], f"{row['ms']:.3f}", f"{row['ratio']:.1f}", f"{row['spikes']:,}", difference
        )
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 5, 20], help="firing rates in percent")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="5 %% only, three short rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here as well")
    options = parser.parse_args(arguments)
    rates, rounds, at_least = ([5.0], 3, 0.01) if options.quick else (options.rates, options.rounds, 0.05)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console, rows = Console(), []
    for batch in options.batches:
        for rate in rates:
            found = measure(rate / 100, batch, rounds, at_least)
            rows += found
            console.print(shown(found))
    if options.json:
        facts = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        options.json.write_text(
            json.dumps({**facts, "steps": STEPS, "widths": WIDTHS, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()

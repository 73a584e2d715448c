"""Time exact inference of a 784-512-512-10 network over 100 steps: the event executor against its peers.

    unscan bench inference [--quick] [--rates 1 5 20] [--batches 1 128] [--json FILE]

Every layer fires at the named rate: thresholds are calibrated, layer after layer, on the input that is timed.
All run in float32 on one thread, on the same arrays, and take turns in every round; medians of the rounds are
shown. Spikes are counted in each of them, because a faster wrong answer is no answer; float32 peers may differ at
ties. Other frameworks run in processes of their own (`frameworks`), in the environments under .envs/ that
`make foreign-envs` makes, or in this one where they are installed here; they wait while another is timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from unscan.benchmarks import frameworks
from unscan.benchmarks.frameworks import timed
from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import LIF, Input, Linear, Output
from unscan.compiler.storage import writable
from unscan.runtime.executors.base import Executor
from unscan.runtime.executors.event import EventDriven

WIDTHS = (784, 512, 512, 10)
STEPS = 100
BETA = 0.9
LAYERS = range(len(WIDTHS) - 1)
OTHERS = {
    "torch, step loop": "torch",
    "snnTorch": "snntorch",
    "norse": "norse",
    "sinabs": "sinabs",
    "SpikingJelly": "spikingjelly",
}
ENVIRONMENTS = Path(__file__).resolve().parent.parent / ".envs"

Array = Any


class Peer(NamedTuple):
    """One way to run the network.

    Attributes:
        time: the milliseconds of a call, from as many as fill the seconds given.
        spikes: counts those of all layers.
    """

    time: Callable[[float], float]
    spikes: Callable[[], int]


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


def in_process(graph: Graph, x: Array) -> Iterator[tuple[str, Peer]]:
    """Yield the executors that run the network on x (T, B, 784) here."""
    from unscan.runtime.executors.onnx import OnnxScan, OnnxStep

    executors: dict[str, Executor] = {
        "unscan, event-driven": EventDriven(graph, np.float32, threads=1),
        "onnxruntime, Scan": OnnxScan(graph),
        "onnxruntime, step": OnnxStep(graph),
    }
    for name, executor in executors.items():
        yield name, Peer(partial(timed, partial(executor.run, x, record=False)), partial(total, executor, x))


def total(executor: Executor, x: Array) -> int:
    """Return the spikes of all layers."""
    return sum(int(spikes.sum()) for spikes in executor.run(x).spikes.values())


def elsewhere(graph: Graph, x: Array, stack: ExitStack) -> Iterator[tuple[str, Peer]]:
    """Yield the frameworks of others, each in a process that ends with the stack."""
    archive = Path(stack.enter_context(TemporaryDirectory())) / "network.npz"
    weights = {f"w{i}": graph.nodes[f"fc{i}"].weight for i in LAYERS}  # type: ignore[attr-defined]
    thresholds = [graph.nodes[f"lif{i}"].threshold for i in LAYERS]  # type: ignore[attr-defined]
    np.savez(archive, x=x, beta=BETA, thresholds=np.array(thresholds), **weights)
    for title, name in OTHERS.items():
        python = interpreter(name)
        if python is None:
            Console().print(
                f"[dim]{title} is left out: there is no .envs/{name}; `python tests/foreign/environments.py {name}` in "
                "the repository makes it.[/]"
            )
            continue
        ask = asking(title, [str(python), "-W", "ignore", frameworks.__file__, name, str(archive)], stack)
        yield title, Peer(*answers(ask))


def answers(ask: Callable[[str], float]) -> tuple[Callable[[float], float], Callable[[], int]]:
    """Return what asks a process for its time and for its spikes."""
    return lambda seconds: ask(f"time {seconds}"), lambda: int(ask("count"))


def interpreter(name: str) -> Path | None:
    """Return what runs a framework: its own environment, or this one where it is installed here; None without both."""
    own = ENVIRONMENTS / name / "bin" / "python"
    if own.exists():
        return own
    return Path(sys.executable) if find_spec(name) else None


def asking(title: str, command: list[str], stack: ExitStack) -> Callable[[str], float]:
    """Start a process that answers each line with a number; return what asks it."""
    process = stack.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    assert process.stdin
    assert process.stdout
    given, answered = process.stdin, process.stdout

    def ask(line: str) -> float:
        try:
            given.write(line + "\n")
            given.flush()
        except BrokenPipeError:
            pass
        answer = answered.readline()
        if not answer:
            raise RuntimeError(f"{title} ended without an answer to {line!r}; its own message stands above.")
        return float(answer)

    return ask


def measure(rate: float, batch: int, rounds: int, at_least: float) -> list[dict[str, Any]]:
    """Time every peer at one rate and batch; return one row for each, ours first."""
    x = (np.random.default_rng(1).random((STEPS, batch, WIDTHS[0])) < rate).astype(np.float32)
    graph = calibrated(rate, x[:, :16])
    with ExitStack() as stack:
        found = dict(chain(in_process(graph, x), elsewhere(graph, x, stack)))
        spikes = {name: peer.spikes() for name, peer in found.items()}
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, peer in found.items():
                times[name].append(peer.time(at_least))
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
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the rows here as well")
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

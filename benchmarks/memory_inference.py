"""Time a step of a sparse matrix memory, event by event, against dense steps of the same memory.

    unscan bench memory_inference [--quick] [--json FILE]

Each step writes 4 values along 4 keys into a memory of d x n neurons, whose columns decay, and reads what fires with
one query. A table gives v, k, alpha and q of each step, so that nothing but the memory is measured. All run in float32
on one thread, one sample, and take turns; shown are microseconds a step. "scalar" keeps decays as one number per
column, "dense" multiplies all of them. The spikes are those of the reference in each but for ties.
"""

from typing import Any

import numpy as np
import torch

from unscan.benchmarks.measuring import Pass, comparison, medians, options, screen, write
from unscan.compiler.ir import Array, Edge, Graph, Kind
from unscan.compiler.nodes import AssociativeMemory, Embedding, Input, Output
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.onnx import OnnxScan
from unscan.trainer.recurrence.matrix.naive import memory_step
from unscan.trainer.recurrence.naive import Firing

WRITTEN, WORDS, STEPS = 4, 64, 512
THRESHOLD = 1.5


def tables(side: int) -> dict[str, Array]:
    """Draw v, k (4 entries each that are not 0), alpha and q of every word."""
    draws = np.random.default_rng(side)
    found = {}
    for name in ("v", "k"):
        rows = np.zeros((WORDS, side))
        for row in rows:
            row[draws.choice(side, WRITTEN, replace=False)] = draws.normal(0, 1.5, WRITTEN)
        found[name] = rows
    found["alpha"], found["q"] = draws.uniform(0.8, 0.999, (WORDS, side)), draws.normal(size=(WORDS, side))
    return {name: rows.astype(np.float32) for name, rows in found.items()}


def graph(drawn: dict[str, Array], decay: Any) -> Graph:
    """Return the memory, fed by the tables."""
    memory = AssociativeMemory(
        threshold=np.array(THRESHOLD, np.float32), queries=1, trained_reset="none", decay=decay, fires=">="
    )
    nodes = {"word": Input((1,), Kind.INDEX), **{name: Embedding(rows) for name, rows in drawn.items()}}
    edges = [edge for name in drawn for edge in (Edge("word", name), Edge(name, "memory", name))]
    return Graph({**nodes, "memory": memory, "output": Output()}, [*edges, Edge("memory", "output")])


def loop(drawn: dict[str, Array], words: Array) -> Pass:
    """Return the steps of the trainer's own recurrence, in torch."""
    rows = {name: torch.from_numpy(table[words[:, 0, 0].astype(int)]) for name, table in drawn.items()}
    side, threshold, how = rows["v"].shape[1], torch.tensor(THRESHOLD), Firing("none")

    @torch.inference_mode()
    def run() -> None:
        S = torch.zeros(1, side, side)
        for v, k, alpha, q in zip(*(rows[name] for name in ("v", "k", "alpha", "q")), strict=True):
            _, S = memory_step(v[None], k[None], alpha[None], q[None, :, None], S, threshold, how)

    return run


def peers(side: int, words: Array) -> dict[str, Pass]:
    """Return every way to run a memory of side x side."""
    drawn = tables(side)
    events = {decay: EventDriven(graph(drawn, decay), np.float32, threads=1) for decay in ("scalar", "dense")}
    scan = OnnxScan(graph(drawn, "dense"))
    fired = {decay: events[decay].run(words[:64]).spikes["memory"] for decay in events}
    both = np.count_nonzero(fired["scalar"] & fired["dense"])
    assert both
    assert both > 0.999 * max(np.count_nonzero(spikes) for spikes in fired.values())
    return {
        "event, scalar decay": lambda: events["scalar"].run(words, record=False),
        "event, dense decay": lambda: events["dense"].run(words, record=False),
        "onnxruntime, Scan": lambda: scan.run(words, record=False),
        "torch, step loop": loop(drawn, words),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    given = options(__doc__, quick="small memories, little time").parse_args(arguments)
    torch.set_num_threads(1)
    sides, budget = ((16, 32), 0.1) if given.quick else ((64, 128, 256, 512, 1024), 4.0)
    words = np.random.default_rng(0).integers(0, WORDS, (STEPS, 1, 1)).astype(np.float32)
    results = {}
    for side in sides:
        found = medians(peers(side, words), budget)
        results[f"d = n = {side}"] = {name: 1e3 * value / STEPS for name, value in found.items()}
    screen().print(
        comparison(
            "Microseconds a step (and times those of event, scalar decay)", results, "event, scalar decay"
        )
    )
    write(given.json, microseconds=results)


if __name__ == "__main__":
    main()

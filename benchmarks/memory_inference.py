"""Time a step of a sparse matrix memory, event by event, against dense steps of the same memory.

    unscan bench memory_inference [--quick] [--json FILE]

Each step writes 4 values along 4 keys into a memory of d x n neurons, whose columns decay, and reads what fires with
one query. A table gives v, k, alpha and q of each step. All run in float64 on one thread, one sample, and take turns;
shown are microseconds a step, starting a run and zeroing its memory included, with the read. "scalar" keeps decays as
one number per column, "dense" multiplies all of them. "numba, dense cell" is a compiled loop over all entries, fed
without any of the executor's rows. The last row is a part of the first: what is around the memory, which
reads the tables itself, as the counts of what they send. The spikes are those of the reference in each but for ties.
"""

from typing import Any

import numpy as np
import torch

from unscan.benchmarks.counting import without
from unscan.benchmarks.measuring import Pass, comparison, medians, options, screen, write
from unscan.compiler.ir import Array, Edge, Graph, Kind
from unscan.compiler.nodes import AssociativeMemory, Embedding, Input, Output
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.program import Op
from unscan.runtime.executors.event.vector import kernel
from unscan.runtime.executors.onnx import OnnxScan
from unscan.trainer.recurrence.matrix.naive import memory_step
from unscan.trainer.recurrence.naive import Firing

WRITTEN, WORDS, STEPS = 4, 16, 4096
THRESHOLD = 1.5
BOUND = 2.0**-500
"""Below it an accumulator is worked into its column: what float64 allows, where float32 needs 2^-60."""


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
    return found


def graph(drawn: dict[str, Array], decay: Any) -> Graph:
    """Return the memory, fed by the tables."""
    memory = AssociativeMemory(
        threshold=np.array(THRESHOLD), queries=1, trained_reset="none", decay=decay, fires=">=", bound=BOUND
    )
    nodes = {"word": Input((1,), Kind.INDEX), **{name: Embedding(rows) for name, rows in drawn.items()}}
    edges = [edge for name in drawn for edge in (Edge("word", name), Edge(name, "memory", name))]
    return Graph({**nodes, "memory": memory, "output": Output()}, [*edges, Edge("memory", "output")])


@kernel
def dense_cell(
    words: Array, v: Array, k: Array, alpha: Array, q: Array, theta: float, S: Array, Y: Array
) -> None:
    """Run S <- S diag(alpha) + v k^T and Y = H(S - theta) q over all entries, step by step; S (n, d) holds columns.

    With the columns stored one after another neither the write nor the read is a sum along a vector, so all of it runs
    in vectors without reordering a sum.
    """
    for t in range(len(words)):
        w, y = words[t], Y[t]
        value = v[w]
        y[:] = 0
        for j in range(len(S)):
            column, decay, key, query = S[j], alpha[w, j], k[w, j], q[w, j]
            for i in range(len(column)):
                membrane = column[i] * decay + value[i] * key
                column[i] = membrane
                y[i] += query if membrane >= theta else 0.0


def dense(drawn: dict[str, Array], words: Array) -> Array:
    """Run the compiled cell from an empty memory; return what is read, (T, d)."""
    side = drawn["v"].shape[1]
    S, Y = np.zeros((side, side)), np.empty((len(words), side))
    dense_cell(words, drawn["v"], drawn["k"], drawn["alpha"], drawn["q"], THRESHOLD, S, Y)
    return Y


def loop(drawn: dict[str, Array], words: Array) -> Pass:
    """Return the steps of the trainer's own recurrence, in torch."""
    rows = {name: torch.from_numpy(table[words[:, 0, 0].astype(int)]) for name, table in drawn.items()}
    side, threshold = rows["v"].shape[1], torch.tensor(THRESHOLD, dtype=torch.float64)
    how = Firing("none")

    @torch.inference_mode()
    def run() -> None:
        S = torch.zeros(1, side, side, dtype=torch.float64)
        for v, k, alpha, q in zip(*(rows[name] for name in ("v", "k", "alpha", "q")), strict=True):
            _, S = memory_step(v[None], k[None], alpha[None], q[None, :, None], S, threshold, how)

    return run


def peers(side: int, words: Array) -> dict[str, Pass]:
    """Return every way to run a memory of side x side."""
    drawn, index = tables(side), words[:, 0, 0].astype(np.int64)
    events = {decay: EventDriven(graph(drawn, decay), threads=1) for decay in ("scalar", "dense")}
    scan, rest = OnnxScan(graph(drawn, "dense")), without(graph(drawn, "scalar"), Op.MEMORY)
    fired = {decay: events[decay].run(words[:64]).spikes["memory"] for decay in events}
    both = np.count_nonzero(fired["scalar"] & fired["dense"])
    assert both
    assert both > 0.999 * max(np.count_nonzero(spikes) for spikes in fired.values())
    assert np.allclose(dense(drawn, index), events["dense"].run(words, record=False).outputs[:, 0])
    return {
        "event, scalar decay": lambda: events["scalar"].run(words, record=False),
        "event, dense decay": lambda: events["dense"].run(words, record=False),
        "numba, dense cell": lambda: dense(drawn, index),
        "onnxruntime, Scan": lambda: scan.run(words, record=False),
        "torch, step loop": loop(drawn, words),
        "(event, scalar decay: all but the memory)": lambda: rest.run(words, record=False),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    given = options(__doc__, quick="small memories, little time").parse_args(arguments)
    torch.set_num_threads(1)
    sides, budget = ((16, 32), 0.1) if given.quick else ((64, 128, 256, 512), 4.0)
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

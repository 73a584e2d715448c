"""Make a trained matrix memory sparse, step by step, and measure what is left of it.

    unscan bench sparsity [--data-dir DIR] [--sequences N] [--quick] [--json FILE]

The model is the network of examples/associative_recall.py with the weights of snnTorch's authors, which stand in DIR
(or UNSCAN_DATA) as snntorch/associative_recall_gen2.pt. It is compiled as it was trained, then with decays kept as
scalars, then with only the largest 16, 8, 4 and 2 keys and values written, and run event by event on newly drawn
sequences of 2 to 6 pairs. F1 compares the spikes of all memories with those of the model as trained; operations are
those of one sequence, on average. The post-training cut is not trained for.
"""

import os
import runpy
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from unscan.benchmarks.measuring import options, screen, write
from unscan.compiler.errors import InvalidInput
from unscan.compiler.frontends.load import load_graph
from unscan.compiler.ir import Array, Graph
from unscan.compiler.pipeline import compile_graph
from unscan.runtime.agreement import compare
from unscan.runtime.executors.base import Execution
from unscan.runtime.simulate import simulate

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "associative_recall.py"
CHECKPOINT = "snntorch/associative_recall_gen2.pt"
PAIRS = (2, 3, 4, 5, 6)
KEPT = (16, 8, 4, 2)


def accuracy(run: Execution, bits: Array) -> float:
    """Return the share of bits that are right at the last step."""
    return float(np.mean((run.outputs[-1] > 0.5) == bits))


def row(graph: Graph, parts: dict[int, tuple[Array, Array]], whole: dict[int, Execution]) -> dict[str, Any]:
    """Run a graph on every part, and measure it against the runs of the model as trained."""
    runs = {pairs: simulate(graph, x) for pairs, (x, _) in parts.items()}
    whole.update({pairs: run for pairs, run in runs.items() if pairs not in whole})
    agreed = [compare(graph, whole[pairs], run).total for pairs, run in runs.items()]
    both, fired = sum(a.both for a in agreed), sum(a.spikes_a + a.spikes_b for a in agreed)
    totals = [run.counts.total for run in runs.values() if run.counts]
    sequences = sum(x.shape[1] for x, _ in parts.values())
    updates = sum(sum(total.updates.values()) for total in totals)
    by_pairs = {str(pairs): accuracy(run, parts[pairs][1]) for pairs, run in runs.items()}
    return {
        "bit_accuracy": by_pairs,
        "mean": statistics.mean(by_pairs.values()),
        "acs": sum(total.acs for total in totals) / sequences,
        "macs": sum(total.macs for total in totals) / sequences,
        "state_updates": updates / sequences,
        "writes": sum(total.updates.get("write", 0) for total in totals) / sequences,
        "f1": 2 * both / fired,
    }


def main(arguments: list[str] | None = None) -> None:
    """Compile, run and print the table."""
    parser = options(__doc__, quick="50 sequences of each number of pairs")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", default=os.environ.get("UNSCAN_DATA"))
    parser.add_argument("--sequences", type=int, default=2000, metavar="N", help="of each number of pairs")
    given = parser.parse_args(arguments)
    weights = given.data_dir and Path(given.data_dir) / CHECKPOINT
    if not weights or not weights.is_file():
        raise InvalidInput(
            f"The benchmark needs {CHECKPOINT}, the weights that snnTorch's authors published; give the folder that "
            "holds it with --data-dir DIR, or name it in UNSCAN_DATA."
        )
    count = 50 if given.quick else given.sequences
    sequences = runpy.run_path(str(EXAMPLE))["sequences"]
    parts = {pairs: sequences(pairs, count, seed=pairs) for pairs in PAIRS}
    traced = load_graph(f"{EXAMPLE}:RecallNet", shape=(9,), weights=weights, kind="spike")
    forms = {"as trained": compile_graph(traced), "scalar decay": compile_graph(traced, scalar_decay=True)}
    for kept in KEPT:
        forms[f"{kept} of 16"] = compile_graph(traced, top_k=kept, scalar_decay=True)
    whole: dict[int, Execution] = {}
    results = {name: row(graph, parts, whole) for name, graph in forms.items()}
    table = Table(
        title=f"Associative recall, {count:,} new sequences for each number of pairs; operations per sequence"
    )
    table.add_column("keys and values")
    columns = ("mean 2-6", *map(str, PAIRS), "ACs", "MACs", "state updates", "of them writes", "F1")
    for title in columns:
        table.add_column(title, justify="right")
    for name, found in results.items():
        table.add_row(
            name,
            f"{found['mean']:.4f}",
            *(f"{value:.3f}" for value in found["bit_accuracy"].values()),
            *(f"{found[key]:,.0f}" for key in ("acs", "macs", "state_updates", "writes")),
            f"{found['f1']:.4f}",
        )
    screen().print(table)
    write(given.json, sequences=count, forms=results)


if __name__ == "__main__":
    main()

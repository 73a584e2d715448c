"""What counting costs: a run of the event executor, and one of the same program without the rows that only count.

    unscan bench counting [--quick] [--json FILE]

784-512-512-10, T = 100, float32, one thread, every layer firing at the named rate. The second run leaves out what
counts the numbers that weights bring, the counts of each sample, and what a run makes of its counts; those that fire
still add to their counters, as they are listed. Both take turns; shown are milliseconds and the share of the full run
that counting takes.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from unscan.benchmarks.inference import STEPS, WIDTHS, calibrated
from unscan.benchmarks.measuring import figure, medians, options, screen, write
from unscan.compiler.ir import Array, Graph
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.program import Column, Op


def without(graph: Graph, op: Op, dtype: Any = None) -> EventDriven:
    """Return an executor of one thread whose rows of an operation do nothing: for measuring what they take."""
    executor = EventDriven(graph, dtype, threads=1)
    code = executor._program.code
    table = code.table.copy()
    table[table[:, Column.OP] == op, Column.OP] = len(Op)
    executor._program = replace(executor._program, code=code._replace(table=table))
    return executor


def bare(executor: EventDriven, x: Array) -> None:
    """Run x (T, B, C) to outputs and states, without telling samples apart or returning counts."""
    room = executor._packed(None, x.shape[1])
    executor._run(x, room, *executor._unrecorded, False)
    executor._unpacked(room)


def measure(rate: float, batch: int, budget: float) -> dict[str, float]:
    """Return the milliseconds of both runs at one rate and batch."""
    x = (np.random.default_rng(1).random((STEPS, batch, WIDTHS[0])) < rate).astype(np.float32)
    graph = calibrated(rate, x[:, :8])
    full, rest = EventDriven(graph, np.float32, threads=1), without(graph, Op.COUNT, np.float32)
    return medians({"all": lambda: full.run(x, record=False), "uncounted": lambda: bare(rest, x)}, budget)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    given = options(__doc__, quick="batch 1, little time").parse_args(arguments)
    batches, budget = ((1,), 0.3) if given.quick else ((1, 32), 6.0)
    made = Table(title=f"{'-'.join(map(str, WIDTHS))}, {STEPS} steps, milliseconds")
    for title in ("batch, rate", "full run", "without counting", "share of counting"):
        made.add_column(title, justify="left" if title == "batch, rate" else "right")
    rows = []
    for batch in batches:
        for rate in (0.01, 0.05, 0.2):
            found = measure(rate, batch, budget)
            share = 1 - found["uncounted"] / found["all"]
            made.add_row(
                f"{batch}, {rate:.0%}", figure(found["all"]), figure(found["uncounted"]), f"{share:.1%}"
            )
            rows.append({"batch": batch, "rate": rate, "ms": found, "share": share})
    screen().print(made)
    write(given.json, rows=rows)


if __name__ == "__main__":
    main()

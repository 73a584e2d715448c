"""Events a second of the kernel that adds the weights of those that fired, against the limit of the machine.

    unscan bench gather [--quick] [--json FILE]

Rows of 512 weights, as the fan-out of one neuron, are added into one sum of 512 numbers; the weights take 1.6, 4 and
32 MiB in float32. The limit is a kernel that is handed multiples of 8 rows and adds 8 in one pass, with no rest, no
program and no counters: what can be had of this machine at this size. It adds as many rows as fit into the events that
a step has. Rows are drawn anew for every step, beforehand. One thread; both take turns; shown are 10^9 events a second,
one being a weight that is added, and the share of the limit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from unscan.benchmarks.measuring import Pass, figure, medians, options, screen, write
from unscan.compiler.ir import Array
from unscan.runtime.executors.event.narrow import add_narrow
from unscan.runtime.executors.event.synapses import add_events
from unscan.runtime.executors.event.vector import LANES, kernel

WIDTH, STEPS = 512, 200
MEBIBYTES = (1.6, 4.0, 32.0)
EVENTS = (10, 26, 39, 100, 157)


@kernel
def eight_rows(weights: Array, ids: Array, totals: Array, target: Array) -> None:
    """Add the rows that each step names to target, 8 in one pass: the limit. ids (steps, events); totals: of each."""
    for t in range(len(ids)):
        named = ids[t]
        for k in range(0, totals[t], 8):
            a, b, c, d = (
                weights[named[k]],
                weights[named[k + 1]],
                weights[named[k + 2]],
                weights[named[k + 3]],
            )
            e, f, g, h = (
                weights[named[k + 4]],
                weights[named[k + 5]],
                weights[named[k + 6]],
                weights[named[k + 7]],
            )
            for i in range(WIDTH):
                target[i] += ((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i]))


@kernel
def executor_rows(weights: Array, ids: Array, totals: Array, target: Array) -> None:
    """Add the rows that each step names to target, as the event executor does."""
    for t in range(len(ids)):
        add_events(weights, ids[t], totals[t], True, target, target)


@kernel
def narrow_rows(weights: Array, ids: Array, totals: Array, target: Array) -> None:
    """Add the rows of 8 or 16 bits that each step names to target, as the event executor does."""
    for t in range(len(ids)):
        for at in range(0, WIDTH, LANES):
            add_narrow(weights, ids[t], totals[t], target, at)


class Column(NamedTuple):
    """A kernel and the format of the weights and of the sum that it is given."""

    kernel: Callable[..., None]
    weights: type[Any]
    sums: type[Any]


LIMIT = Column(eight_rows, np.float32, np.float32)
COLUMNS = {
    "executor, float32": Column(executor_rows, np.float32, np.float32),
    "float64": Column(executor_rows, np.float64, np.float64),
    "int16": Column(narrow_rows, np.int16, np.float64),
    "int8": Column(narrow_rows, np.int8, np.float64),
}
"""What is measured beside the limit: another format is another line."""


def aligned(shape: tuple[int, ...], dtype: type[Any]) -> Array:
    """Return zeros that start on a 64-byte line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    line: Array = room[start : start + size].view(dtype)
    return line.reshape(shape)


def adding(column: Column, rows: int, ids: Array, total: int) -> Pass:
    """Return a pass that adds the first `total` rows of every step's ids."""
    weights, target = aligned((rows, WIDTH), column.weights), aligned((WIDTH,), column.sums)
    weights[:] = np.random.default_rng(0).integers(-5, 6, weights.shape)
    totals = np.full(len(ids), total, np.int32)
    column.kernel(weights, ids, totals, target)
    wanted = weights.astype(np.int64)[ids[:, :total].ravel()].sum(axis=0)
    assert np.array_equal(target, wanted), "the kernel adds other rows"
    return partial(column.kernel, weights, ids, totals, target)


def measure(mebibytes: float, events: int, budget: float) -> dict[str, float]:
    """Return 10^9 events a second of the limit and of every column; the sizes are those of float32 weights."""
    rows = round(mebibytes * 2**20 / (4 * WIDTH))
    ids = np.random.default_rng(1).integers(0, rows, (STEPS, max(8, events))).astype(np.int32)
    totals = {"limit": max(8, events // 8 * 8), **dict.fromkeys(COLUMNS, events)}
    columns = {"limit": LIMIT, **COLUMNS}
    passes = {name: adding(columns[name], rows, ids, total) for name, total in totals.items()}
    found = medians(passes, budget)
    return {name: totals[name] * WIDTH * STEPS / (found[name] * 1e6) for name in found}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    given = options(__doc__, quick="1.6 MiB and little time").parse_args(arguments)
    sizes, budget = (MEBIBYTES[:1], 0.05) if given.quick else (MEBIBYTES, 1.5)
    made = Table(title=f"Weights added, 10^9 a second (share of the limit); rows of {WIDTH}")
    for title in ("MiB of float32", "events a step", "limit", *COLUMNS):
        made.add_column(title, justify="right")
    found = []
    for size in sizes:
        for events in EVENTS:
            rates = measure(size, events, budget)
            shares = {name: rates[name] / rates["limit"] for name in COLUMNS}
            made.add_row(
                f"{size:g}",
                str(events),
                figure(rates["limit"]),
                *(f"{figure(rates[name])}  ({shares[name]:.0%})" for name in COLUMNS),
            )
            found.append({"MiB": size, "events": events, "giga": rates, "shares": shares})
    screen().print(made)
    write(given.json, width=WIDTH, steps=STEPS, rows=found)


if __name__ == "__main__":
    main()

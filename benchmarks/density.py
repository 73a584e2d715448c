"""The share of neurons that send from which a dense product is cheaper than adding what is sent, event by event.

    unscan bench density [--quick] [--json FILE]

The event executor takes the product for a group of 8 steps where more than a share of the inputs of a layer sends
(`dense.SHARE`; never where weights take less than `dense.NEAREST` bytes): this shows where both break even here. They
add weights in the same order, so their results have the same bits, which is checked. Shown is the time of the events
over that of the product, at the same 8 steps; above 1 the product is cheaper. float32, one thread; they take turns.
"""

from functools import partial
from typing import Any

import numpy as np
from rich.table import Table

from unscan.benchmarks.gather import aligned
from unscan.benchmarks.measuring import Pass, figure, medians, options, screen, write
from unscan.compiler.ir import Array
from unscan.runtime.executors.event.dense import GROUP, NEAREST, SHARE, multiply
from unscan.runtime.executors.event.synapses import add_events
from unscan.runtime.executors.event.vector import kernel

SHAPES = ((64, 64), (128, 512), (784, 512), (2048, 512), (2048, 2048), (8192, 1024))
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
GROUPS = 4


@kernel
def by_events(weights: Array, ids: Array, sent: Array, target: Array) -> None:
    """Add what is sent in every step, event by event."""
    for t in range(len(ids)):
        add_events(weights, ids[t], sent[t], True, target[t], target[t])


@kernel
def by_product(weights: Array, ids: Array, sent: Array, block: Array, target: Array) -> None:
    """Add what is sent in every step, a group of steps at once."""
    for first in range(0, len(ids), GROUP):
        last = first + GROUP
        multiply(
            weights, ids[first:last], sent[first:last], True, target[first:last], block, target[first:last]
        )


def passes(inputs: int, outputs: int, share: float) -> dict[str, Pass]:
    """Return both ways to add what a share of the inputs sends in some groups of steps."""
    draws, steps = np.random.default_rng(0), GROUPS * GROUP
    weights = aligned((inputs, outputs), np.float32)
    weights[:] = draws.standard_normal(weights.shape)
    many = max(1, round(share * inputs))
    ids = np.zeros((steps, inputs), np.int32)
    for row in ids:
        row[:many] = np.sort(draws.choice(inputs, many, replace=False))
    sent, block = np.full(steps, many, np.int32), aligned((inputs * GROUP,), np.float32)
    first, second = (aligned((steps, outputs), np.float32) for _ in range(2))
    by_events(weights, ids, sent, first)
    by_product(weights, ids, sent, block, second)
    assert np.array_equal(first, second), "the product has other bits"
    return {
        "events": partial(by_events, weights, ids, sent, first),
        "product": partial(by_product, weights, ids, sent, block, second),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    given = options(__doc__, quick="two sizes and little time").parse_args(arguments)
    shapes, budget = (SHAPES[:2], 0.02) if given.quick else (SHAPES, 1.0)
    made = Table(title="Time of events over that of the product, by the share of inputs that send")
    for title in ("weights", "MiB", *(f"{share:.0%}" for share in SHARES), "product from"):
        made.add_column(title, justify="right")
    rows: list[dict[str, Any]] = []
    for inputs, outputs in shapes:
        size = 4 * inputs * outputs
        ratios = {}
        for share in SHARES:
            found = medians(passes(inputs, outputs, share), budget)
            ratios[share] = found["events"] / found["product"]
        cells = [figure(ratio) for ratio in ratios.values()]
        made.add_row(
            f"{inputs} x {outputs}",
            f"{size / 2**20:.2g}",
            *cells,
            f"{SHARE:.0%}" if size > NEAREST else "never",
        )
        rows.append({"inputs": inputs, "outputs": outputs, "ratios": ratios})
    screen().print(made)
    write(given.json, rows=rows)


if __name__ == "__main__":
    main()

"""Rows of a table that a number names: what they hold is known beforehand, so that they are counted without a look."""

from __future__ import annotations

from typing import Any

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.program import Column
from unscan.runtime.executors.event.vector import loops

WIDTH, SOURCE, INPUTS, COUNTER, WHOLE = (
    int(column) for column in (Column.WIDTH, Column.SOURCE, Column.INPUTS, Column.COUNTER, Column.WHOLE)
)


@loops
def count_rows(
    whole: Array, first: int, rows: int, width: int, values: Array, at: int, pitch: int, steps: int, counts: Array,
    counter: int,
) -> None:  # fmt: skip
    """Count what is not 0 in the row of a table that is named at each step, by values[at], values[at + pitch], ...

    From `first` on, whole holds for each row whether most of it is not 0; then, as in `assembly.Table`, lists of the
    others: of what is 0 where most is not, else of what is not. The counters start at `counter`.
    """
    full, lists = 0, first + rows
    for t in range(steps):
        word = int(values[at + t * pitch])
        most = whole[first + word]
        full += most
        for k in range(lists + whole[lists + word], lists + whole[lists + word + 1]):
            counts[counter + whole[k]] += 1 - 2 * most
    if full > 0:
        for i in range(width):
            counts[counter + i] += full


def tell(
    code: Any, room: Any, row: Array, state: Array, spikes: Array, membranes: Array, recording: int,
    slots: int, slot: int, samples: int, steps: int, last: int,
) -> None:  # fmt: skip
    """Run TELL for a chunk of steps, as `others.others` does the rest; compiled by `apart.address`."""
    at, pitch = code.buffers[row[SOURCE], 0], code.buffers[row[SOURCE], 1]
    first, rows, counter = row[WHOLE], row[INPUTS], row[COUNTER]
    count_rows(code.whole, first, rows, row[WIDTH], room.values, at, pitch, steps, room.counts, counter)

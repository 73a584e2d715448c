"""What a run of a program writes: the room that one worker needs, and what it counted there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.program import Program, Tally, aligned


class Performed(NamedTuple):
    """Events of every counter, what nodes tallied, and the most events in one step (the last number: of all)."""

    events: Array
    tallies: Array
    peaks: Array

    def of(self, tally: Tally) -> dict[str, int]:
        """Return the tallies of one node by their names."""
        return {name: int(self.tallies[tally.start + k]) for k, name in enumerate(tally.names)}


class Workspace(NamedTuple):
    """What one worker writes while it runs; kept between runs.

    Attributes:
        values, live (buffers x chunk): numbers, and whether a step's row may hold one that is not 0.
        ids, sent (lists x chunk): neurons that fired, and how many.
        pending: what a node does without input (whether a membrane can fire, or is still to be reset; for whole
            numbers see `integers`); whether the bitmap of a memory is still to be built.
        turns: the row of a delay line that holds its newest input.
        firing: bitmaps of what may fire in memories.
        entries: what fires in one memory at one step.
        history, late: the decays and the entries of memories that decay late (`late`); what arrives at neurons that
            do, and when they were looked at (`sparse`).
        reached: membranes before the reset, and other numbers of one row.
        block: what arrives at a layer in a group of steps; see `dense`.
        counts: events of a sample. totals: those of all samples. tallies: likewise.
        peaks: the most events in one step of every watched list, and of those together that events come from.
        flow: how many events come from the latter in each step of a chunk.
        each, told: (B, ...) events and tallies of each sample; none where samples are not told apart.
    """

    values: Array
    live: Array
    ids: Array
    sent: Array
    pending: Array
    turns: Array
    firing: Array
    entries: Array
    history: Array
    late: Array
    reached: Array
    block: Array
    counts: Array
    totals: Array
    tallies: Array
    peaks: Array
    flow: Array
    each: Array
    told: Array

    @classmethod
    def for_program(cls, program: Program) -> Workspace:
        """Make the room that a program needs."""
        sizes, code = program.sizes, program.code
        ends = np.cumsum([sizes.counters, sizes.tallies, len(code.watched) + 1])
        counted = np.zeros(ends[-1], np.int64)
        return cls(
            values=aligned(np.zeros(sizes.values, code.params.dtype)),
            live=np.zeros(len(code.buffers) * code.chunk, np.uint8),
            ids=np.zeros(sizes.ids, np.int32),
            sent=np.zeros(len(code.lists) * code.chunk, np.int32),
            pending=np.zeros(sizes.units, np.uint8),
            turns=np.zeros(sizes.units, np.int64),
            firing=np.zeros(sizes.firing, np.uint64),
            entries=np.zeros(sizes.entries, np.int32),
            history=np.zeros(sizes.history, code.params.dtype),
            late=np.zeros(sizes.late, np.int32),
            reached=aligned(np.zeros(sizes.scratch, code.params.dtype)),
            block=aligned(np.zeros(sizes.block, code.params.dtype)),
            counts=aligned(np.zeros(sizes.counters, np.int32)),
            totals=counted[: ends[0]],
            tallies=counted[ends[0] : ends[1]],
            peaks=counted[ends[1] :],
            flow=np.zeros(code.chunk, np.int64),
            each=np.zeros((0, sizes.counters), np.int32),
            told=np.zeros((0, sizes.tallies), np.int64),
        )

    def collect(self) -> Performed:
        """Return what was counted since the last call."""
        counted, first, second = self.totals.base, len(self.totals), len(self.totals) + len(self.tallies)
        assert counted is not None
        done = counted.copy()
        counted[:] = 0
        return Performed(done[:first], done[first:second], done[second:])

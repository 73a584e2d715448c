"""A graph as a flat program: what `kernels.advance` interprets, without a Python object at run time.

A node becomes rows of one integer table (`Column`), its numbers a stretch of one parameter array. What a node
sends lives in a buffer (numbers, for a chunk of steps), in a list (the indices of the neurons that fired), or in
both where different readers want different forms. `rules` and `stateful` say which rows a node becomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.counts import Each, Peaks


class Op(IntEnum):
    """What one row of the table does."""

    SPREAD = 0
    """buffer = 1 where the list names the neuron, else 0."""
    FIND = 1
    """list = the neurons whose number in the source is not 0."""
    START = 2
    """buffer = bias, or 0."""
    GATHER = 3
    """buffer += the weights of every neuron that the list names (AC)."""
    MULTIPLY = 4
    """buffer += weights times the source's number, for every neuron that the list names (MAC)."""
    JOIN = 5
    """buffer = source + second."""
    AFFINE = 6
    """buffer = g source + c."""
    ACTIVATE = 7
    """buffer = f(source)."""
    FIRE = 8
    """One LIF: list = the neurons that fire."""
    LEAK = 9
    """One LI: buffer = membrane."""
    COUNT = 10
    """Count the numbers of the source that are not 0, per neuron; where a variant is asked for, at each step too."""
    STORE = 11
    """Write the source to the outputs."""
    CONVOLVE = 12
    """buffer += the weights of every neuron that the list names, at the places that it reaches; a number, or AC."""
    POOL = 13
    """buffer += every neuron that the list names, at the windows that see it."""
    LARGEST = 14
    """buffer = the largest number of the source in each window; of spikes, 1 where one is seen."""
    DIVIDE = 15
    """buffer = itself / a number."""
    EMBED = 16
    """buffer = the row of the weights that the source names."""
    NORM = 17
    """buffer = the source, normalised."""
    GATE = 18
    """buffer = the first half of the source times the sigmoid of the second."""
    PRODUCT = 19
    """buffer = source x second."""
    KEEP = 20
    """buffer = the largest of the source, else 0."""
    PLACE = 21
    """A part of the buffer = source."""
    CROSS = 22
    """One Threshold: list = the neurons that fire."""
    TIRE = 23
    """One AdaptiveLIF: list = the neurons that fire."""
    FILTER = 24
    """One DiagonalSSM: buffer = its output."""
    DELAY = 25
    """buffer = what a delay line gives, or the line takes the source, or both."""
    MEMORY = 26
    """One matrix memory: list = the entries that fire, or buffer = what is read of them."""
    RESCALE = 27
    """buffer = the source in other units: whole numbers, saturated."""
    LOOKUP = 28
    """buffer = the number of a table that the source names."""
    TABLE_GATE = 29
    """buffer = the first half of the source times the number of a table that the second names, in other units."""
    INTEGRATE = 30
    """One layer of neurons of whole numbers: list = the neurons that fire, or buffer = their membranes."""
    TURN = 31
    """One IntegerSSM: buffer = its output."""
    RECALL = 32
    """One IntegerMemory: as a matrix memory."""
    NARROW = 33
    """buffer += the weights, whole numbers of 8 or 16 bits, of every neuron that the list names (AC)."""
    SCATTER = 34
    """buffer += the weights that are not 0 of every neuron that the list names; times a number, or AC."""
    WAKE = 35
    """One LIF that only such weights feed, in blocks that sleep: list = the neurons that fire."""
    TELL = 36
    """Count the numbers that are not 0 in the row of a table that the source names."""
    LAYER = 37
    """The START, GATHER or MULTIPLY, COUNT and FIRE that follow it, at once: what passes stays in registers."""
    WHOLE_LAYER = 38
    """The START, NARROW, COUNT and INTEGRATE that follow it, at once."""


class Column(IntEnum):
    """The columns of the table; a row leaves those that its operation does not read at 0."""

    OP = 0
    WIDTH = 1
    SOURCE = 2
    """The buffer that is read."""
    SECOND = 3
    """A second one."""
    TARGET = 4
    """The buffer that is written."""
    LIST = 5
    """The list that is read or written."""
    PARAMS = 6
    """Where its numbers start in the parameter array."""
    PITCH = 7
    """Distance of two rows, or of two vectors, there."""
    INPUTS = 8
    """Rows of its weights, numbers of a row of the signal that is worked on by itself, whether neurons are alike, or
    where the rows of a LAYER start."""
    STATE = 9
    """Where its membranes start in a sample's state."""
    COUNTER = 10
    """Where its event counters start."""
    VARIANT = 11
    """What `Op` leaves open: bias or none; a function; a reset and its phase."""
    UNIT = 12
    """The number of a node that has a flag: a LIF, a delay line, a memory."""
    SPIKES = 13
    """Neurons of the recorded spiking nodes before it."""
    MEMBRANES = 14
    """Neurons of the recorded integrating nodes before it."""
    WHOLE = 15
    """Where its whole numbers start: shapes, tables, and what has no column of its own."""
    HELD = 16
    """Where a second state starts."""
    TALLY = 17
    """Where its tallies start."""


VARIANTS: dict[tuple[str, str], int] = {
    ("none", "now"): 0,
    ("none", "next"): 0,
    ("subtract", "now"): 1,
    ("zero", "now"): 2,
    ("subtract", "next"): 3,
    ("zero", "next"): 4,
}
"""Reset and phase -> the LIF loop that computes them."""

STEPS = 64
"""Steps of which a memory that decays late keeps the decays."""


class Tally(NamedTuple):
    """Where a node counts what events do not tell: from `start` on, a number for each name (`runtime.counts`)."""

    start: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where the neurons of a node stand in a flat array: `start` and shape."""

    start: int
    shape: tuple[int, ...]

    @cached_property
    def width(self) -> int:
        """How many there are."""
        return prod(self.shape)

    @cached_property
    def span(self) -> slice:
        """Where they stand."""
        return slice(self.start, self.start + self.width)

    def of(self, flat: Array) -> Array:
        """Return the numbers of these neurons out of an array whose last axis is flat."""
        return flat[..., self.span]


class Held(Mapping[str, Array]):
    """The numbers of every place, (..., shape), out of an array whose last axis is flat; cut out when asked for."""

    def __init__(self, places: dict[str, Place], flat: Array) -> None:
        self._places, self._flat = places, flat

    def __getitem__(self, name: str) -> Array:
        place = self._places[name]
        return place.of(self._flat).reshape(*self._flat.shape[:-1], *place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Code(NamedTuple):
    """What the kernels read of a program.

    Attributes:
        entry: the list (spikes) or buffer (numbers) that the input is loaded into.
        spiking: whether the input is loaded as a list.
        table: (rows, columns) int64, in the order in which rows run.
        params: every number of the graph, in one array.
        narrow: the bytes of weights that have 8 or 16 bits.
        whole: every whole number that has no column, int32.
        buffers: (buffers, 2) start and pitch; a buffer holds `chunk` rows.
        lists: (lists, 2) start and pitch, likewise.
        chunk: how many steps a row of the table runs before the next.
        watched: (n, 2) the lists whose longest step is looked for, and whether events come from there
            (`counts.origins`).
    """

    entry: int
    spiking: bool
    table: Array
    params: Array
    narrow: Array
    whole: Array
    buffers: Array
    lists: Array
    chunk: int
    watched: Array


class Sizes(NamedTuple):
    """Elements of what a run needs.

    Attributes:
        values, ids, state, counters: of the buffers, lists, states of a sample and event counters.
        units: nodes that have a flag.
        firing: words of the bitmaps of what fires in memories.
        entries: of the largest memory.
        tallies: numbers that nodes tally.
        history, late: numbers, and whole ones, of what decays late: memories and neurons.
        block: numbers that arrive at one layer in a group of steps.
        scratch: of what one row keeps while it runs.
    """

    values: int
    ids: int
    state: int
    counters: int
    units: int
    firing: int
    entries: int
    tallies: int
    history: int
    late: int
    block: int
    scratch: int


@dataclass(frozen=True)
class Program:
    """A compiled graph.

    Attributes:
        code: what the kernels read.
        states: `node.state` -> its place in a sample's state.
        counters: node -> its place in the event counters.
        tallies: node -> what it tallies, and where.
        watched: node -> its row in `Code.watched`.
        touched: node -> where a memory counts the entries that it looks at, and their decays.
        spikes, membranes: node -> its place among the recorded ones.
        sizes: of what a run needs.
    """

    code: Code
    states: dict[str, Place]
    counters: dict[str, Place]
    tallies: dict[str, Tally]
    watched: dict[str, int]
    touched: dict[str, int]
    spikes: dict[str, Place]
    membranes: dict[str, Place]
    sizes: Sizes

    def peaks(self, found: Array) -> Peaks:
        """Return the most events in one step, as a workspace found them."""
        *nodes, together = found.tolist()
        return Peaks(dict(zip(self.watched, nodes, strict=True)), together)

    def each(self, events: Array, told: Array) -> Each:
        """Return what happened in each sample: its events (B, counters), and what its nodes tallied (B, tallies)."""
        return Each(
            Held(self.counters, events),
            {
                name: {kind: told[:, tally.start + k] for k, kind in enumerate(tally.names)}
                for name, tally in self.tallies.items()
            },
        )

    @cached_property
    def ops(self) -> frozenset[int]:
        """What its rows do."""
        return frozenset(self.code.table[:, Column.OP].tolist())


def padded(width: int, unit: int) -> int:
    """Return the next multiple of `unit`."""
    return -(-width // unit) * unit


def extent(places: dict[str, Place]) -> int:
    """Return the elements of the array that holds all places."""
    return max((place.start + place.width for place in places.values()), default=0)


def laid_out(pitches: list[int], chunk: int) -> Array:
    """Return (n, 2): where each of n stretches of `chunk` rows starts, and its pitch."""
    starts = np.concatenate([[0], np.cumsum(pitches)[:-1]]) * chunk
    return np.stack([starts, np.array(pitches)], axis=1).astype(np.int64)


def aligned(values: Array) -> Array:
    """Return a copy that starts on a 64-byte line."""
    room = np.empty(values.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy

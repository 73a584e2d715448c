"""A graph as a flat program: what `kernels.advance` interprets, without a Python object at run time.

A node becomes rows of one integer table (`Column`), its numbers a stretch of one parameter array. What a node
sends lives in a buffer (numbers, for a chunk of steps), in a list (the indices of the neurons that fired), or in
both where different readers want different forms. `rules` says which rows a node becomes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Input
from unscan.runtime.executors.event.vector import LANES

LINE = 16
"""Rows of weights are padded to this many numbers, 64 bytes of float32; other rows to `vector.LANES`."""
CHUNK_BYTES = 1 << 18
LONGEST_CHUNK = 32


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
    """Count the numbers of the source that are not 0, per neuron."""
    STORE = 11
    """Write the source to the outputs."""


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
    """Rows of its weights."""
    STATE = 9
    """Where its membranes start in a sample's state."""
    COUNTER = 10
    """Where its event counters start."""
    VARIANT = 11
    """Bias or none; a function; a reset and its phase."""
    UNIT = 12
    """The number of a LIF: its pending flag."""
    SPIKES = 13
    """Neurons of the recorded spiking nodes before it."""
    MEMBRANES = 14
    """Neurons of the recorded integrating nodes before it."""


VARIANTS: dict[tuple[str, str], int] = {
    ("none", "now"): 0,
    ("none", "next"): 0,
    ("subtract", "now"): 1,
    ("zero", "now"): 2,
    ("subtract", "next"): 3,
    ("zero", "next"): 4,
}
"""Reset and phase -> the LIF loop that computes them."""


@dataclass(frozen=True)
class Value:
    """What a node sends at run time.

    Attributes:
        width: its neurons.
        counter: where its event counters start.
        buffer: the buffer that holds its numbers, or None.
        events: the list that names the neurons that fired, or None.
    """

    width: int
    counter: int
    buffer: int | None = None
    events: int | None = None


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


@dataclass(frozen=True)
class Program:
    """A compiled graph.

    Attributes:
        table: (rows, columns) int64, in the order in which rows run.
        params: every number of the graph, in one array.
        buffers: (buffers, 2) start and pitch; a buffer holds `chunk` rows.
        lists: (lists, 2) start and pitch, likewise.
        entry: the list (spikes) or buffer (numbers) that the input is loaded into.
        spiking: whether the input is loaded as a list.
        chunk: how many steps a row of the table runs before the next.
        states: `node.state` -> its place in a sample's state.
        counters: node -> its place in the event counters.
        spikes, membranes: node -> its place among the recorded ones.
        sizes: elements of values, ids, state and counters, and how many LIF nodes there are.
    """

    table: Array
    params: Array
    buffers: Array
    lists: Array
    entry: int
    spiking: bool
    chunk: int
    states: dict[str, Place]
    counters: dict[str, Place]
    spikes: dict[str, Place]
    membranes: dict[str, Place]
    sizes: dict[str, int]

    @cached_property
    def arguments(self) -> tuple[Any, ...]:
        """What `kernels.run_samples` takes of it, in that order."""
        return (self.entry, self.spiking, self.table, self.params, self.buffers, self.lists, self.chunk)


@dataclass
class Assembly:
    """A program while it is written. A rule calls its methods; each adds rows or reserves room."""

    graph: Graph
    dtype: np.dtype[Any]
    sent: dict[str, Value] = field(default_factory=dict)
    rows: list[list[int]] = field(default_factory=list)
    numbers: list[Array] = field(default_factory=list)
    buffers: list[int] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)
    dense: dict[int, int] = field(default_factory=dict)
    """List -> the buffer into which it is spread, where a reader needs numbers."""
    sparse: dict[int, int] = field(default_factory=dict)
    """Buffer -> the list of its numbers that are not 0, where a reader wants them."""
    states: dict[str, Place] = field(default_factory=dict)
    counters: dict[str, Place] = field(default_factory=dict)
    spikes: dict[str, Place] = field(default_factory=dict)
    membranes: dict[str, Place] = field(default_factory=dict)
    params: int = 0
    units: int = 0

    def emit(self, op: Op, width: int, **columns: int) -> None:
        """Add a row to the table."""
        row = [0] * len(Column)
        row[Column.OP], row[Column.WIDTH] = op, width
        for name, value in columns.items():
            row[Column[name.upper()]] = value
        self.rows.append(row)

    def buffer(self, width: int) -> int:
        """Reserve a buffer and return its number."""
        self.buffers.append(padded(width, LANES))
        return len(self.buffers) - 1

    def events(self, width: int) -> int:
        """Reserve a list and return its number."""
        self.lists.append(padded(width, LANES))
        return len(self.lists) - 1

    def reserve(self, places: dict[str, Place], name: str, shape: tuple[int, ...], unit: int = 1) -> int:
        """Reserve room for the neurons of a node behind those already in `places`; return where it starts."""
        start = padded(extent(places), unit)
        places[name] = Place(start, shape)
        return start

    def constants(self, vectors: Array, name: str, unit: int = LANES) -> tuple[int, int]:
        """Hold the rows of a matrix, each padded to a multiple of `unit`; return their start and pitch.

        Raises:
            Unsupported: a number is too large for the format.
        """
        with np.errstate(over="ignore"):
            cast = vectors.astype(self.dtype)
        if not np.isfinite(cast).all():
            raise Unsupported(
                f"{type(self.graph.nodes[name]).__name__} {name!r} holds numbers beyond the range of {self.dtype}; "
                "run the event executor in float64."
            )
        pitch = padded(vectors.shape[1], unit)
        rows = np.zeros((len(vectors), pitch), self.dtype)
        rows[:, : vectors.shape[1]] = cast
        start = self.params
        self.numbers.append(rows.ravel())
        self.params += rows.size
        return start, pitch

    def counter(self, name: str) -> int:
        """Reserve the event counters of a node."""
        return self.reserve(self.counters, name, self.graph.signals[name].shape, LANES)

    def numbers_of(self, value: Value) -> int:
        """Return the buffer that holds a value, spreading its events where it has none."""
        if value.buffer is not None:
            return value.buffer
        assert value.events is not None
        if value.events not in self.dense:
            self.dense[value.events] = self.buffer(value.width)
            self.emit(Op.SPREAD, value.width, list=value.events, target=self.dense[value.events])
        return self.dense[value.events]

    def found(self, buffer: int, width: int) -> int:
        """Return the list of the neurons whose number in a buffer is not 0."""
        if buffer not in self.sparse:
            self.sparse[buffer] = self.events(width)
            self.emit(Op.FIND, width, source=buffer, list=self.sparse[buffer])
        return self.sparse[buffer]

    def joined(self, arriving: list[Value]) -> int:
        """Return the buffer that holds the sum of what arrives, added from left to right."""
        total = self.numbers_of(arriving[0])
        for value in arriving[1:]:
            second, target = self.numbers_of(value), self.buffer(value.width)
            self.emit(Op.JOIN, value.width, source=total, second=second, target=target)
            total = target
        return total

    def counted(self, name: str, buffer: int) -> Value:
        """Count what stands in a node's buffer, and return it as what the node sends."""
        width, counter = prod(self.graph.signals[name].shape), self.counter(name)
        self.emit(Op.COUNT, width, source=buffer, counter=counter)
        return Value(width, counter, buffer=buffer)

    def passed(self, name: str, arriving: list[Value]) -> Value:
        """Return what a node sends that computes nothing: what arrives, shared where it comes from one node."""
        if len(arriving) > 1:
            return self.counted(name, self.joined(arriving))
        self.counters[name] = Place(arriving[0].counter, self.graph.signals[name].shape)
        return arriving[0]

    def program(self) -> Program:
        """Return the finished program."""
        step_bytes = sum(self.buffers) * self.dtype.itemsize + 4 * sum(self.lists)
        chunk = max(1, min(LONGEST_CHUNK, CHUNK_BYTES // step_bytes))
        buffers, lists = (pitches or [LANES] for pitches in (self.buffers, self.lists))
        entry = self.sent[self.graph.of(Input)[0]]
        return Program(
            table=np.array(self.rows, np.int64).reshape(-1, len(Column)),
            params=aligned(np.concatenate([*self.numbers, np.zeros(LANES, self.dtype)])),
            buffers=laid_out(buffers, chunk),
            lists=laid_out(lists, chunk),
            entry=entry.buffer if entry.events is None else entry.events,  # type: ignore[arg-type]
            spiking=entry.events is not None,
            chunk=chunk,
            states=self.states,
            counters=self.counters,
            spikes=self.spikes,
            membranes=self.membranes,
            sizes={
                "values": chunk * sum(buffers),
                "ids": chunk * sum(lists),
                "state": padded(extent(self.states), LANES),
                "counters": padded(extent(self.counters), LANES),
                "units": self.units,
            },
        )


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

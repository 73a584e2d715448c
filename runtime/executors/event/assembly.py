"""A program while it is written: the rules of the nodes add rows, and reserve room, through an `Assembly`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.counts import origins, senders
from unscan.runtime.executors.event.dense import GROUP
from unscan.runtime.executors.event.program import (
    Code,
    Column,
    Op,
    Place,
    Program,
    Sizes,
    Tally,
    aligned,
    extent,
    laid_out,
    padded,
)
from unscan.runtime.executors.event.vector import LANES

LINE = 16
"""Rows of weights are padded to this many numbers, 64 bytes of float32; other rows to `vector.LANES`."""
CHUNK_BYTES = 1 << 18
LONGEST_CHUNK = 32


class Fan(NamedTuple):
    """Sparse weights that spikes meet: the list of the spikes, where the pairs stand (`sparse`), neurons, weights."""

    events: int
    pairs: int
    inputs: int
    weights: int


class Table(NamedTuple):
    """The rows of an Embedding: the buffer that names one at each step, how many there are, and where they stand.

    entries: where what is not 0 in each of them is listed among the whole numbers, or -1 where it is not: there stands,
    for each row, how far behind that its list starts, and, behind the last, how far the last list reaches.
    """

    words: int
    rows: int
    start: int
    pitch: int
    entries: int


@dataclass(frozen=True)
class Value:
    """What a node sends at run time.

    Attributes:
        width: its neurons.
        counter: where its event counters start.
        buffer: the buffer that holds its numbers, or None.
        events: the list that names the neurons that fired, or None where it sends other numbers than spikes.
        fans: sparse weights that its reader meets itself; it has neither buffer nor list then.
        table: the rows that its numbers are copied from where a reader wants them in a buffer.
    """

    width: int
    counter: int
    buffer: int | None = None
    events: int | None = None
    fans: tuple[Fan, ...] = ()
    table: Table | None = None


Ports = dict[str, list[Value]]
"""What arrives at each port of a node."""


@dataclass
class Assembly:
    """Rows and room so far. A rule calls the methods; each adds rows or reserves room."""

    graph: Graph
    dtype: np.dtype[Any]
    sent: dict[str, Value] = field(default_factory=dict)
    rows: list[list[int]] = field(default_factory=list)
    numbers: list[Array] = field(default_factory=list)
    buffers: list[int] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)
    dense: dict[int, int] = field(default_factory=dict)
    """List -> the buffer into which it is spread, where a reader needs numbers."""
    copied: dict[Table, int] = field(default_factory=dict)
    """Table -> the buffer into which the rows that are named are copied, where a reader needs them there."""
    sparse: dict[int, int] = field(default_factory=dict)
    """Buffer -> the list of its numbers that are not 0, where a reader wants them."""
    states: dict[str, Place] = field(default_factory=dict)
    counters: dict[str, Place] = field(default_factory=dict)
    spikes: dict[str, Place] = field(default_factory=dict)
    membranes: dict[str, Place] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    touched: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    """Node -> the list that holds how many numbers of its buffer are not 0, where they travel as events."""
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    """Delay -> the columns that name its line."""
    whole: list[Array] = field(default_factory=list)
    params: int = 0
    wholes: int = 0
    units: int = 0
    firing: int = 0
    entries: int = 0
    tallied: int = 0
    history: int = 0
    late: int = 0
    narrow: list[Array] = field(default_factory=list)
    widest: int = 0
    """The most inputs of a matrix of weights."""
    scratch: int = 0

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

    @cached_property
    def senders(self) -> frozenset[str]:
        """The nodes whose numbers travel as events."""
        return frozenset(senders(self.graph))

    def watched(self) -> dict[str, int]:
        """Return node -> the list that holds how many events it sends at each step, for those that send some."""
        found = {}
        for name in self.graph.order:
            if name not in self.senders:
                continue
            value = self.sent[name]
            if name in self.lengths:
                found[name] = self.lengths[name]
            elif value.events is not None:
                found[name] = value.events
            else:
                found[name] = next(
                    self.lengths[other]
                    for other, made in self.sent.items()
                    if made is value and other in self.lengths
                )
        return found

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

    def narrow_weights(self, weights: Array) -> tuple[int, int, int] | None:
        """Hold a matrix whose numbers are whole and have 8 or 16 bits; return where it starts, its pitch and its bits.

        None where it is no such matrix, or float64, which holds the sums, is not what is computed in.
        """
        most = np.abs(weights).max(initial=0)
        if self.dtype != np.float64 or (weights != np.rint(weights)).any() or most > np.iinfo(np.int16).max:
            return None
        kind = np.dtype(np.int8 if most <= np.iinfo(np.int8).max else np.int16)
        rows = np.zeros((len(weights), padded(weights.shape[1], LANES)), kind)
        rows[:, : weights.shape[1]] = weights
        start = sum(map(len, self.narrow))
        self.narrow.append(rows.ravel().view(np.int8))
        return start, rows.shape[1], 8 * kind.itemsize

    def whole_numbers(self, *numbers: int | Array) -> int:
        """Hold whole numbers behind each other; return where they start."""
        start, held = self.wholes, np.concatenate([np.ravel(each) for each in numbers]).astype(np.int32)
        self.whole.append(held)
        self.wholes += held.size
        return start

    def unit(self) -> int:
        """Reserve a flag and return its number."""
        self.units += 1
        return self.units - 1

    def bitmap(self, entries: int) -> tuple[int, int]:
        """Reserve the bitmap of a memory's entries, and that of its words; return where it starts and its words."""
        start, words = self.firing, -(-entries // 64)
        self.firing += words + -(-words // 64)
        self.entries = max(self.entries, entries)
        return start, words

    def may_fire(self, entries: int) -> int:
        """Reserve two lists of a memory's entries, each with an end; return where they start in `late`."""
        start = self.late
        self.late += 2 * (entries + 1)
        self.entries = max(self.entries, entries + 1)
        return start

    def tally(self, name: str, *names: str) -> int:
        """Reserve what a node tallies by these names; return where it starts."""
        start = self.tallied
        self.tallies[name] = Tally(start, names)
        self.tallied += len(names)
        return start

    def decays_late(self, name: str, numbers: int, wholes: int) -> tuple[int, int]:
        """Reserve numbers, and whole ones, of a node that does not look at all of its states in every step.

        Return where they start. It counts what it does behind what it tallies.
        """
        self.touched[name] = self.tallied
        self.tallied += 1
        history, late = self.history, self.late
        self.history += numbers
        self.late += wholes
        return history, late

    def counter(self, name: str) -> int:
        """Reserve the event counters of a node."""
        return self.reserve(self.counters, name, self.graph.signals[name].shape, LANES)

    def numbers_of(self, value: Value) -> int:
        """Return the buffer that holds a value, spreading its events, or copying from its table, where it has none."""
        if value.buffer is not None:
            return value.buffer
        if value.table is not None:
            if value.table not in self.copied:
                self.copied[value.table] = self.buffer(value.width)
                words, rows, start, pitch, _ = value.table
                columns = {"source": words, "inputs": rows, "params": start, "pitch": pitch}
                self.emit(Op.EMBED, value.width, target=self.copied[value.table], **columns)
            return self.copied[value.table]
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

    def listed(self, value: Value) -> int:
        """Return the list of the neurons of a value that are not 0."""
        return self.found(self.numbers_of(value), value.width) if value.events is None else value.events

    def together(self, arriving: list[Value]) -> Value:
        """Return the sum of what arrives as one value, as it stands where it comes from one node."""
        return arriving[0] if len(arriving) == 1 else Value(arriving[0].width, -1, self.joined(arriving))

    def port(self, arriving: list[Value], *, listed: bool) -> tuple[int, int, int, int, int]:
        """Return where a row that reads tables itself finds what arrives at a port, and what of it is not 0.

        The buffer of its numbers, -1, 0, their list where it is wanted, -1; or, of a table, the buffer of its words,
        where its rows start, their pitch, 0, and where their entries are listed.
        """
        value = self.together(arriving)
        table = value.table
        if table is not None and (table.entries >= 0 or not listed):
            words, rows, start, pitch, entries = table
            if start + rows * pitch <= np.iinfo(np.int32).max:
                return words, start, pitch, 0, entries
        return self.numbers_of(value), -1, 0, self.listed(value) if listed else 0, -1

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
        signal = self.graph.signals[name]
        width, counter = prod(signal.shape), self.tell(name, buffer)
        events = self.found(buffer, width) if signal.kind is Kind.SPIKE else None
        return Value(width, counter, buffer=buffer, events=events)

    def tell(self, name: str, buffer: int) -> int:
        """Count what stands in a node's buffer, at each step too where it travels as events; return its counters."""
        counter, columns = self.counter(name), {}
        if name in self.senders:
            self.lengths[name] = self.events(LANES)
            columns = {"list": self.lengths[name], "variant": 1}
        width = prod(self.graph.signals[name].shape)
        self.emit(Op.COUNT, width, source=buffer, counter=counter, **columns)
        return counter

    def passed(self, name: str, arriving: list[Value]) -> Value:
        """Return what a node sends that computes nothing: what arrives, shared where it comes from one node."""
        if len(arriving) > 1:
            return self.counted(name, self.joined(arriving))
        self.counters[name] = Place(arriving[0].counter, self.graph.signals[name].shape)
        return arriving[0]

    def program(self) -> Program:
        """Return the finished program."""
        step_bytes = sum(self.buffers) * self.dtype.itemsize + 4 * sum(self.lists)
        chunk = 1 if self.graph.recurrent else max(1, min(LONGEST_CHUNK, CHUNK_BYTES // step_bytes))
        buffers, lists = (pitches or [LANES] for pitches in (self.buffers, self.lists))
        entry = self.sent[self.graph.of(Input)[0]]
        watched, sources = self.watched(), origins(self.graph)
        return Program(
            code=Code(
                entry=entry.buffer if entry.events is None else entry.events,  # type: ignore[arg-type]
                spiking=entry.events is not None,
                table=np.array(self.rows, np.int64).reshape(-1, len(Column)),
                params=aligned(np.concatenate([*self.numbers, np.zeros(LANES, self.dtype)])),
                narrow=aligned(np.concatenate([*self.narrow, np.zeros(LANES, np.int8)])),
                whole=np.concatenate([*self.whole, np.zeros(1, np.int32)]),
                buffers=laid_out(buffers, chunk),
                lists=laid_out(lists, chunk),
                chunk=chunk,
                watched=np.array(
                    [(events, name in sources) for name, events in watched.items()], np.int64
                ).reshape(-1, 2),
            ),
            states=self.states,
            counters={name: self.counters[name] for name in self.graph.signals},
            tallies=self.tallies,
            watched={name: row for row, name in enumerate(watched)},
            touched=self.touched,
            spikes=self.spikes,
            membranes=self.membranes,
            sizes=Sizes(
                values=chunk * sum(buffers),
                ids=chunk * sum(lists),
                state=padded(extent(self.states), LANES),
                counters=padded(extent(self.counters), LANES),
                units=self.units,
                firing=self.firing,
                entries=self.entries,
                tallies=self.tallied,
                history=self.history,
                late=self.late,
                block=self.widest * GROUP,
                scratch=max([self.scratch, *buffers]),
            ),
        )

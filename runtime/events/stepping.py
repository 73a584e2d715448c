"""Events that come bit by bit, binned step after step in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array
from unscan.runtime.events.binning import Binning, Tally, lengthy
from unscan.runtime.events.events import Events


class Step(NamedTuple):
    """One step: its number, which neurons got events (ascending, each once), and how many each."""

    number: int
    neurons: Array
    counts: Array


class Stepped:
    """The steps of a recording that is read in parts; walked once.

    A step is given when an event of a later one has come, or the recording has ended; no more than a part and the open
    step is held. Order within the open step does not matter; an event that comes when its step has been given is late:
    counted, and left out.

    Args:
        parts: the parts of one recording, as `chunks` reads them.
        into: how; see `Binning`. Its start None is the first event of the first part.
        steps: give so many, silent ones after the last event; up to the last event where None.

    Raises:
        InvalidInput: fewer than one step; while it is walked, events that do not fit, or that all fall outside.

    Attributes:
        tally: what became of the events so far.
        origin: the tick at which step 0 begins; None before the first part is read.
    """

    def __init__(self, parts: Iterable[Events], into: Binning, *, steps: int | None = None) -> None:
        self.into, self.steps, self.tally = into, lengthy(steps), Tally()
        self.origin: int | None = None
        self._parts = parts

    def __iter__(self) -> Iterator[Step]:
        """Give step after step, silent ones too."""
        following = 0
        open_step, open_neuron = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for part in self._parts:
            if self.origin is None and len(part):
                self.origin = self.into.origin(int(part.t.min()), part.tick)
            step, neuron = self.into.cells(part, self.origin or 0, self.tally)
            late = step < following
            self.tally.late += int(np.count_nonzero(late))
            step = np.concatenate([open_step, step[~late]])
            neuron = np.concatenate([open_neuron, neuron[~late]])
            if not step.size:
                continue
            newest = int(step.max())
            if self.steps is not None and newest >= self.steps:
                beyond = step >= self.steps
                self.tally.after += int(np.count_nonzero(beyond))
                step, neuron, newest = step[~beyond], neuron[~beyond], self.steps
            done = step < newest
            yield from self._given(step[done], neuron[done], following, newest)
            following, open_step, open_neuron = newest, step[~done], neuron[~done]
        end = following + bool(len(open_step)) if self.steps is None else self.steps
        yield from self._given(open_step, open_neuron, following, end)
        if not self.tally.kept:
            raise InvalidInput(f"No event falls into a step: {self.tally}. Check sensor, polarity and start.")

    def _given(self, step: Array, neuron: Array, first: int, end: int) -> Iterator[Step]:
        """Give the steps first .. end, whose events are here."""
        bins, counts = np.unique((step - first) * self.into.neurons + neuron, return_counts=True)
        numbers, starts = np.unique(bins // self.into.neurons, return_index=True)
        neurons, following = bins % self.into.neurons, first
        for number, start, stop in zip(
            numbers + first, starts, np.append(starts, len(bins))[1:], strict=True
        ):
            yield from self._silent(following, int(number))
            self.tally.steps += 1
            self.tally.merged += int(counts[start:stop].sum()) - int(stop - start)
            yield Step(int(number), neurons[start:stop], counts[start:stop])
            following = int(number) + 1
        yield from self._silent(following, end)

    def _silent(self, first: int, end: int) -> Iterator[Step]:
        """Give the steps first .. end, in which nothing fired."""
        nothing = np.zeros(0, np.int64)
        for number in range(first, end):
            self.tally.steps += 1
            self.tally.silent += 1
            yield Step(number, nothing, nothing)

    def dense(self, size: int = 256) -> Iterator[Array]:
        """Give arrays (t, 1, ...) of up to `size` steps, for `simulate_stream`; each is one of its own."""
        dtype = np.uint8 if self.into.several == "one" else np.float32
        x, filled = np.zeros((size, 1, self.into.neurons), dtype), 0
        for step in self:
            x[filled, 0, step.neurons] = 1 if self.into.several == "one" else step.counts
            filled += 1
            if filled == size:
                yield x.reshape(size, 1, *self.into.shape)
                x, filled = np.zeros_like(x), 0
        if filled:
            yield x[:filled].reshape(filled, 1, *self.into.shape)

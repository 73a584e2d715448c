"""Loops over single steps whose state stays where the executor writes it, so that a step moves its input alone."""

from __future__ import annotations

from math import prod
from typing import Protocol, cast

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.counts import Counts
from unscan.runtime.executors.base import Executor, State, check_input
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.apart import addresses
from unscan.runtime.executors.event.kernels import run_samples
from unscan.runtime.executors.event.simulator import NOTHING


class Resident(Protocol):
    """One step after another of a fixed batch B, the state kept."""

    def step(self, x: Array) -> Array:
        """Run one step x (B, ...), in the shape that the graph takes: outputs (B, ...), in a buffer that is reused."""

    @property
    def state(self) -> State:
        """The state after the last step."""


def resident(runner: Executor, batch: int, state: State | None) -> Resident:
    """Return the fastest loop that an executor has, from a state (zeros where None)."""
    if isinstance(runner, EventDriven):
        return EventLoop(runner, batch, state)
    if hasattr(runner, "resident"):
        return Checked(runner.graph, cast(Resident, runner.resident(batch, state)))
    return Handed(runner, state)


class Handed:
    """The loop of an executor that takes a state and gives the next one."""

    def __init__(self, runner: Executor, state: State | None) -> None:
        self._runner, self._state = runner, state

    def step(self, x: Array) -> Array:
        """Run one step; see `Resident.step`."""
        y, self._state = self._runner.step(x, self._state)
        return y

    @property
    def state(self) -> State:
        """The state after the last step; none where there was no step and none was given."""
        return self._state or {}


class Checked:
    """A loop that looks at its numbers before they enter another, which does not."""

    def __init__(self, graph: Graph, inner: Resident) -> None:
        self._graph, self._inner = graph, inner
        self._spikes = graph.signals[graph.of(Input)[0]].kind is Kind.SPIKE

    def step(self, x: Array) -> Array:
        """Run one step; see `Resident.step`. Spikes in bytes are checked in a fraction of the time of the rest."""
        if not (self._spikes and (x.dtype == np.bool_ or (x.dtype == np.uint8 and x.max() <= 1))):
            check_input(self._graph, x, steps=False)
        return self._inner.step(x)

    @property
    def state(self) -> State:
        """The state after the last step."""
        return self._inner.state


class EventLoop:
    """The loop of the event executor: its state, workspace and input stay in place between steps."""

    def __init__(self, runner: EventDriven, batch: int, state: State | None) -> None:
        self._runner, self._batch, self._steps = runner, batch, 0
        graph, program = runner.graph, runner._program
        signal = graph.signals[graph.of(Input)[0]]
        self._shape, self._index = (batch, *signal.shape), signal.kind is Kind.INDEX
        self._room, (self._space, held) = runner._packed(state, batch), runner._workspace()
        self._outputs = np.empty((1, batch, *runner._output.shape), runner.dtype)
        size = (1, batch, prod(signal.shape))
        self._bits, single, double = (np.zeros(size, dtype) for dtype in (np.uint8, np.float32, np.float64))
        code = program.code
        rest = (
            0, batch, addresses(program, self._space), code.entry, code.spiking, code.chunk, held, code.params,
            self._room, self._outputs.reshape(1, batch, -1), *runner._unrecorded, False,
        )  # fmt: skip
        whole, narrow, wide = NOTHING
        self._calls = {
            np.dtype(np.uint8): (self._bits, narrow, wide, *rest),
            np.dtype(np.float32): (whole, single, wide, *rest),
            np.dtype(np.float64): (whole, narrow, double, *rest),
        }
        self._entries = {
            dtype: next(each for each in call[:3] if each.size).reshape(self._shape)
            for dtype, call in self._calls.items()
        }

    def step(self, x: Array) -> Array:
        """Run one step; see `Resident.step`. Numbers are checked as they are read, those of a batch before."""
        dtype = BYTES if x.dtype == np.bool_ else x.dtype if x.dtype in self._calls else DOUBLES
        if self._index or x.dtype.kind not in "biuf" or (self._batch > 1 and x.dtype != np.bool_):
            check_input(self._runner.graph, x, steps=False)
        self._entries[dtype][...] = x
        return self._advance(dtype, x)

    def _advance(self, dtype: np.dtype[np.generic], x: Array) -> Array:
        if not run_samples(*self._calls[dtype]):
            check_input(self._runner.graph, x.reshape(self._shape), steps=False)
            raise InvalidInput(
                f"The input holds numbers beyond the range of {self._runner.dtype}, from {x.min():g} to {x.max():g}; "
                "scale it, or run the event executor in float64. A stream of several samples has to be reset then."
            )
        self._steps += 1
        outputs: Array = self._outputs[0]
        return outputs

    @property
    def state(self) -> State:
        """A copy of the state after the last step."""
        return self._runner._unpacked(self._room.copy())

    @property
    def counts(self) -> Counts:
        """What all steps since the start cost."""
        program, space = self._runner._program, self._space
        tallies = {
            name: {kind: int(space.tallies[tally.start + k]) for k, kind in enumerate(tally.names)}
            for name, tally in program.tallies.items()
        }
        events = {
            name: place.of(space.totals.copy()).reshape(place.shape)
            for name, place in program.counters.items()
        }
        peaks = program.peaks(space.peaks)
        return Counts(self._runner.graph, events, self._steps, self._batch, tallies, peaks)


BYTES, DOUBLES = np.dtype(np.uint8), np.dtype(np.float64)

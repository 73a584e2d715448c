"""One step at a time with the state kept: the loop of a sensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.counts import Counts
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import State, check_input, check_state
from unscan.runtime.resident import EventLoop, Resident, resident


class Stream:
    """Feed a graph one step after another; the state stays in the executor's own buffers between steps.

    A step costs what the executor's loop costs and a few microseconds. Every input is checked: its shape here, its
    numbers as they are read.

    Args:
        graph: an iterative graph.
        using: name of the executor that runs it.
        state: what the first step continues from, of as many samples as the steps that follow; zeros where None.

    Raises:
        InvalidInput: an unknown executor.
    """

    def __init__(self, graph: Graph, *, using: str = "event", state: State | None = None) -> None:
        self.graph = graph
        (name,) = graph.of(Input)
        self._runner, self._signal = executor(using, graph), graph.signals[name]
        self._given = state
        self._loop: Resident | None = None
        self._shape: tuple[int, ...] = ()
        self._spikes = np.zeros((1, *self._signal.shape), np.bool_)

    def step(self, x: Array) -> Array:
        """Run one step: x (...) of one sample or (B, ...) of a batch; returns outputs of the same leading axis.

        Raises:
            InvalidInput: another shape, another batch than that of the steps before, or numbers that do not fit.
        """
        x = np.asarray(x)
        if self._loop is not None and x.shape == self._shape[1:] and self._shape[0] == 1:
            only: Array = self._loop.step(x[None])[0].copy()
            return only
        single = x.ndim == len(self._signal.shape)
        batch = x[None] if single else x
        y = self._at(batch).step(batch)
        return y[0].copy() if single else y.copy()

    def step_events(self, neurons: Array | Sequence[int]) -> Array:
        """Run one step of one sample that is given by its events: the neurons that fired, each once.

        Args:
            neurons: whole numbers (E,) from 0 up, in any order; of an input with several axes, counted in C order
                over its shape. None of them is a step without spikes.

        Returns:
            The outputs of the sample, without a leading axis.

        Raises:
            InvalidInput: the graph does not take spikes; a neuron that it does not have, or one that is named twice;
                a stream of more samples than one.
        """
        where = np.asarray(neurons)
        if where.size == 0:
            where = where.astype(np.intp)
        self._check_events(where)
        spikes = self._spikes.ravel()
        spikes[where] = True
        once = np.count_nonzero(spikes) == len(where)
        try:
            if not once:
                named = np.bincount(where)
                raise InvalidInput(
                    f"step_events got neuron {named.argmax()} {named.max()} times in one step, and a neuron fires once "
                    "a step; unscan.runtime.events bins events and counts those that it merges."
                )
            y: Array = self._at(self._spikes).step(self._spikes)[0].copy()
        finally:
            spikes[where] = False
        return y

    def _check_events(self, where: Array) -> None:
        """Raise InvalidInput unless the numbers name neurons of a graph that takes spikes."""
        if self._signal.kind is not Kind.SPIKE:
            raise InvalidInput(
                f"step_events sends spikes, and the input of this graph carries {self._signal}; give its numbers to "
                "step instead."
            )
        if where.ndim != 1 or where.dtype.kind not in "iu":
            raise InvalidInput(
                f"step_events got an array of shape {where.shape} and dtype {where.dtype}, wanted whole numbers (E,): "
                "the neurons that fired; numpy.flatnonzero finds them in an array of spikes."
            )
        if where.size and (where.min() < 0 or where.max() >= self._spikes.size):
            raise InvalidInput(
                f"step_events got neurons from {where.min()} to {where.max()}; the input {self._signal} has 0 to "
                f"{self._spikes.size - 1}. Check the sensor's size, or bin with unscan.runtime.events."
            )

    def _at(self, x: Array) -> Resident:
        """Return the loop of the batch that x (B, ...) has; made at the first step."""
        if x.shape != self._shape or self._loop is None:
            if x.ndim != len(self._signal.shape) + 1 or x.shape[1:] != self._signal.shape or x.size == 0:
                check_input(self.graph, x, steps=False)
            if self._loop is not None:
                raise InvalidInput(
                    f"The stream got {len(x)} samples after steps of {self._shape[0]}, whose state it keeps; reset it "
                    "first, or use a stream for each batch."
                )
            if self._given is not None:
                check_state(self.graph, self._given, len(x), np.float64)
            self._loop, self._shape = resident(self._runner, len(x), self._given), x.shape
        return self._loop

    @property
    def state(self) -> State | None:
        """A copy of the state after the last step, for a later stream or run; None before the first step."""
        return self._given if self._loop is None else self._loop.state

    @property
    def counts(self) -> Counts | None:
        """What all steps since the start cost; None where the executor counts nothing, or before the first step."""
        return self._loop.counts if isinstance(self._loop, EventLoop) else None

    def reset(self, state: State | None = None) -> None:
        """Go back to a state, the zero state where None; the next step may have another batch."""
        self._loop, self._shape, self._given = None, (), state

"""Run a graph by its events: work is done for the spikes that occur, not for the neurons that are there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numba import config
from numpy.typing import DTypeLike

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Input, Output
from unscan.runtime.counts import Counts
from unscan.runtime.executors.base import Execution, State, check_input, check_state
from unscan.runtime.executors.event.kernels import run_samples
from unscan.runtime.executors.event.program import Place, Program, aligned, extent
from unscan.runtime.executors.event.rules import compile_graph


class EventDriven:
    """Run a graph of the iterative dialect by its events, the whole sequence in one compiled call.

    Exact: the sums over presynaptic neurons are taken in another order than the reference's, and every other
    operation is rounded as it rounds it. A sample's result does not depend on its batch, a sequence cut in two with
    carried state gives what one run gives, and memory does not grow with T beyond what is returned.

    Args:
        graph: what is run.
        dtype: the number format, float32 or float64; the graph's own where None.
        threads: the most samples that run at once; as many as the machine has cores where None.

    Raises:
        Unsupported: a node of the parallel dialect (run the pass `unroll` first), or numbers that float32 cannot hold.
        InvalidGraph: the graph breaks an invariant.
        InvalidInput: another dtype, or fewer than one thread.
    """

    def __init__(self, graph: Graph, dtype: DTypeLike | None = None, *, threads: int | None = None) -> None:
        self.graph = graph
        self.dtype = np.dtype(graph.dtype if dtype is None else dtype)
        if self.dtype not in (np.float32, np.float64):
            raise InvalidInput(f"The event executor got dtype {self.dtype}, wanted float32 or float64.")
        if threads is not None and threads < 1:
            raise InvalidInput(f"The event executor got {threads} threads, wanted 1 or more.")
        self.threads = threads or int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        self._program = compile_graph(graph, self.dtype)
        (source,), (sink,) = graph.of(Input), graph.of(Output)
        self._input, self._output = graph.signals[source], graph.signals[sink]
        self._arguments = self._program.arguments
        self._spikes, self._membranes = extent(self._program.spikes), extent(self._program.membranes)
        self._unrecorded = (np.zeros(0, np.uint8), np.empty(0, self.dtype))
        self._idle: list[Workspace] = []

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...); see `Executor.run`.

        Outputs, membranes and state are in the executor's number format. Without `record`, only outputs and event
        counts are kept.
        """
        x = np.asarray(x)
        if x.ndim != len(self._input.shape) + 2 or x.shape[2:] != self._input.shape or x.size == 0:
            check_input(self.graph, x)
        room, lead = self._packed(state, x.shape[1]), x.shape[:2]
        slots = lead[0] * lead[1] if record else 0
        spikes = np.zeros(slots * self._spikes, np.uint8)
        membranes = np.empty(slots * self._membranes, self.dtype)
        outputs, events = self._run(x, room, spikes, membranes, record)
        program = self._program
        return Execution(
            outputs=outputs,
            spikes=views(program.spikes, spikes.view(bool), lead) if record else {},
            membranes=views(program.membranes, membranes, lead) if record else {},
            state=self._unpacked(room),
            counts=Counts(
                self.graph,
                {name: place.of(events).reshape(place.shape) for name, place in program.counters.items()},
                steps=lead[0],
                samples=lead[1],
            ),
        )

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...); see `Executor.step`."""
        x = np.asarray(x)
        if x.ndim != len(self._input.shape) + 1 or x.shape[1:] != self._input.shape or x.size == 0:
            check_input(self.graph, x, steps=False)
        room = self._packed(state, len(x))
        outputs, _ = self._run(x[None], room, *self._unrecorded, False)
        return outputs[0], self._unpacked(room)

    def _run(
        self, x: Array, room: Array, spikes: Array, membranes: Array, record: bool
    ) -> tuple[Array, Array]:
        """Return outputs and events (flat); write the next states over room (B, S), and what is recorded."""
        steps, samples = x.shape[:2]
        outputs = np.empty((steps, samples, *self._output.shape), self.dtype)
        given, written = flattened(x), (room, outputs.reshape(steps, samples, -1), spikes, membranes, record)
        if self.threads == 1 or samples == 1:
            space = self._workspace()
            valid = run_samples(*given, 0, samples, *self._arguments, *space.arguments, *written)
            events = space.collect()
            self._idle.append(space)
        else:
            valid, events = self._spread(samples, given, written)
        if not valid:
            check_input(self.graph, x)
            raise InvalidInput(
                f"The input holds numbers beyond the range of {self.dtype}, from {x.min():g} to {x.max():g}; "
                "scale it, or run the event executor in float64."
            )
        return outputs, events

    def _spread(self, samples: int, given: tuple[Array, ...], written: tuple[Any, ...]) -> tuple[bool, Array]:
        """Run the samples on several threads; return whether the input is valid, and the events."""
        workers = min(self.threads, samples)
        spaces = [self._workspace() for _ in range(workers)]

        def work(k: int) -> bool:
            span = (k * samples // workers, (k + 1) * samples // workers)
            return bool(run_samples(*given, *span, *self._arguments, *spaces[k].arguments, *written))

        others = [pool(self.threads).submit(work, k) for k in range(1, workers)]
        valid = [work(0), *(other.result() for other in others)]
        events = np.sum([space.collect() for space in spaces], axis=0)
        self._idle += spaces
        return all(valid), events

    def _workspace(self) -> Workspace:
        """Return room that no other run writes to."""
        return self._idle.pop() if self._idle else Workspace.for_program(self._program)

    def _packed(self, state: State | None, samples: int) -> Array:
        """Return a state as one array (B, S), zeros where it is None."""
        room = np.zeros((samples, self._program.sizes["state"]), self.dtype)
        if state is None:
            return room
        places = self._program.states
        if state.keys() != places.keys() or any(
            np.shape(state[name]) != (samples, *place.shape) for name, place in places.items()
        ):
            check_state(self.graph, state, samples, self.dtype)
        for name, place in places.items():
            place.of(room)[:] = np.reshape(state[name], (samples, -1))
        return room

    def _unpacked(self, room: Array) -> State:
        places, samples = self._program.states, len(room)
        return {name: place.of(room).reshape(samples, *place.shape) for name, place in places.items()}


@dataclass(frozen=True)
class Workspace:
    """What one worker writes while it runs; kept between runs. The names are those of `kernels.advance`."""

    values: Array
    live: Array
    ids: Array
    sent: Array
    pending: Array
    reached: Array
    counts: Array
    totals: Array

    @classmethod
    def for_program(cls, program: Program) -> Workspace:
        """Make the room that a program needs."""
        sizes = program.sizes
        return cls(
            values=aligned(np.zeros(sizes["values"], program.params.dtype)),
            live=np.zeros(len(program.buffers) * program.chunk, np.uint8),
            ids=np.zeros(sizes["ids"], np.int32),
            sent=np.zeros(len(program.lists) * program.chunk, np.int32),
            pending=np.zeros(sizes["units"], np.uint8),
            reached=aligned(np.zeros(max(program.buffers[:, 1]), program.params.dtype)),
            counts=aligned(np.zeros(sizes["counters"], np.int32)),
            totals=np.zeros(sizes["counters"], np.int64),
        )

    @cached_property
    def arguments(self) -> tuple[Array, ...]:
        """The arrays in the order in which the kernel takes them."""
        return (
            self.values,
            self.live,
            self.ids,
            self.sent,
            self.pending,
            self.reached,
            self.counts,
            self.totals,
        )

    def collect(self) -> Array:
        """Return the events counted since the last call."""
        events = self.totals.copy()
        self.totals[:] = 0
        return events


def flattened(x: Array) -> tuple[Array, Array, Array]:
    """Return x (T, B, ...) as (T, B, C) in one of the formats that the kernel reads, and the others empty."""
    if x.dtype == bool:
        x = np.ascontiguousarray(x).view(np.uint8)
    elif x.dtype not in (np.uint8, np.float32, np.float64):
        x = x.astype(np.float64)
    if not (x.flags.c_contiguous and x.flags.aligned and x.flags.writeable):
        x = x.copy()
    x = x.reshape(*x.shape[:2], -1)
    return (
        x if x.dtype == np.uint8 else NOTHING[0],
        x if x.dtype == np.float32 else NOTHING[1],
        x if x.dtype == np.float64 else NOTHING[2],
    )


NOTHING = tuple(np.empty((0, 0, 0), dtype) for dtype in (np.uint8, np.float32, np.float64))


def views(places: dict[str, Place], flat: Array, lead: tuple[int, ...]) -> dict[str, Array]:
    """Return node -> (T, B, ...) out of one array that holds the nodes one after the other."""
    found, slots = {}, lead[0] * lead[1]
    for name, place in places.items():
        first, last = slots * place.start, slots * (place.start + place.width)
        found[name] = flat[first:last].reshape(*lead, *place.shape)
    return found


@lru_cache(maxsize=1)
def pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads that run samples beside the calling one."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="unscan-event")


os.register_at_fork(after_in_child=pool.cache_clear)  # threads do not survive a fork, and the cache would

"""Run a graph by its events: work is done for the spikes that occur, not for the neurons that are there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numba import config
from numpy.typing import DTypeLike

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Input, Integer, Output
from unscan.runtime.counts import Counts
from unscan.runtime.executors.base import Execution, State, check_input, check_state
from unscan.runtime.executors.event.apart import addresses
from unscan.runtime.executors.event.compile import compile_graph
from unscan.runtime.executors.event.frames import frame, placed
from unscan.runtime.executors.event.kernels import run_samples
from unscan.runtime.executors.event.program import Held, Place, extent
from unscan.runtime.executors.event.workspace import Performed, Workspace

Space = tuple[Workspace, Array]
"""What one worker writes to, and the frame by which compiled code finds it."""


class EventDriven:
    """Run a graph of the iterative dialect by its events, the whole sequence in one compiled call.

    Exact: sums (over presynaptic neurons, windows, the rows of a norm, modes of a filter, what a key or query reads of
    a memory) are taken in another order than the reference's, with products fused into those over presynaptic neurons;
    functions are those of the C library, and every other operation is rounded as the reference rounds it. A sample's
    result does not depend on its batch, a sequence cut in two with carried state gives what one run gives, and memory
    does not grow with T beyond what is returned.

    A matrix memory with scalar decay is looked through once, at the start of a run, for what may fire; a step then
    touches what it writes, what fires, and the accumulators. So one run is cheaper than as many calls of `step`.

    A LIF that only sparse weights feed sleeps in blocks of 64 neurons: a block is looked at where a spike reaches it,
    and takes the decays that it missed as it would have taken them awake.

    Whole numbers are computed in float64, which holds them exactly: bit for bit what the reference computes. A layer
    whose states have all decayed to 0 costs nothing until something arrives, and an entry of a memory is decayed when
    it is next looked at, step by step; an entry that is 0 is not looked at.

    Args:
        graph: what is run.
        dtype: the number format, float32 or float64; the graph's own where None, float64 where it holds whole numbers.
        threads: the most samples that run at once; as many as the machine has cores where None.

    Raises:
        Unsupported: a node of the parallel dialect (run the pass `unroll` first), or numbers that float32 cannot hold.
        InvalidGraph: the graph breaks an invariant.
        InvalidInput: another dtype, float32 for whole numbers, or fewer than one thread.
    """

    def __init__(self, graph: Graph, dtype: DTypeLike | None = None, *, threads: int | None = None) -> None:
        self.graph = graph
        whole = graph.integer or bool(graph.of(Integer))
        own = np.float64 if whole else graph.dtype
        self.dtype = np.dtype(own if dtype is None else dtype)
        if self.dtype not in (np.float32, np.float64):
            raise InvalidInput(f"The event executor got dtype {self.dtype}, wanted float32 or float64.")
        if whole and self.dtype == np.float32:
            raise InvalidInput(
                "The event executor got dtype float32 for a graph of whole numbers, which float32 holds only up to "
                "2^24; leave dtype out, or ask for float64, in which they are exact."
            )
        if threads is not None and threads < 1:
            raise InvalidInput(f"The event executor got {threads} threads, wanted 1 or more.")
        self.threads = threads or int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        self._program = compile_graph(graph, self.dtype)
        (source,), (sink,) = graph.of(Input), graph.of(Output)
        self._input, self._output = graph.signals[source], graph.signals[sink]
        self._spikes, self._membranes = extent(self._program.spikes), extent(self._program.membranes)
        self._unrecorded = (np.zeros(0, np.uint8), np.empty(0, self.dtype))
        self._places = [(name, place.span, place.shape) for name, place in self._program.states.items()]
        self._idle: list[Space] = []
        self._apart: Array | None = None

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
        program = self._program
        apart = None
        if lead[1] > 1:
            apart = (
                np.zeros((lead[1], program.sizes.counters), np.int32),
                np.zeros((lead[1], program.sizes.tallies), np.int64),
            )
        outputs, work = self._run(x, room, spikes, membranes, record, apart)
        return Execution(
            outputs=outputs,
            spikes=views(program.spikes, spikes.view(bool), lead) if record else {},
            membranes=views(program.membranes, membranes, lead) if record else {},
            state=self._unpacked(room),
            counts=Counts(
                self.graph,
                Held(program.counters, work.events),
                steps=lead[0],
                samples=lead[1],
                tallies={name: work.of(tally) for name, tally in program.tallies.items()},
                peaks=program.peaks(work.peaks),
                each=apart and program.each(*apart),
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
        self,
        x: Array,
        room: Array,
        spikes: Array,
        membranes: Array,
        record: bool,
        apart: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Performed]:
        """Return outputs and what was done; write the next states over room (B, S), and what is recorded.

        What each sample did is added to `apart`, its events and tallies (B, ...), where it is given.
        """
        if self._input.kind is Kind.INDEX:
            check_input(self.graph, x)
        steps, samples = x.shape[:2]
        outputs = np.empty((steps, samples, *self._output.shape), self.dtype)
        given, written = flattened(x), (room, outputs.reshape(steps, samples, -1), spikes, membranes, record)
        if self.threads == 1 or samples == 1:
            space = self._workspace()
            valid = self._walk(space, (0, samples), given, written, apart)
            done = space[0].collect()
            self._idle.append(space)
        else:
            valid, done = self._spread(samples, given, written, apart)
        if not valid:
            check_input(self.graph, x)
            raise InvalidInput(
                f"The input holds numbers beyond the range of {self.dtype}, from {x.min():g} to {x.max():g}; "
                "scale it, or run the event executor in float64."
            )
        return outputs, done

    def _spread(
        self,
        samples: int,
        given: tuple[Array, ...],
        written: tuple[Any, ...],
        apart: tuple[Array, Array] | None,
    ) -> tuple[bool, Performed]:
        """Run the samples on several threads; return whether the input is valid, and what was done."""
        workers = min(self.threads, samples)
        spaces = [self._workspace() for _ in range(workers)]

        def work(k: int) -> bool:
            span = (k * samples // workers, (k + 1) * samples // workers)
            return self._walk(spaces[k], span, given, written, apart)

        others = [pool(self.threads).submit(work, k) for k in range(1, workers)]
        valid = [work(0), *(other.result() for other in others)]
        done = [room.collect() for room, _ in spaces]
        self._idle += spaces
        events, tallies, peaks = map(np.array, zip(*done, strict=True))
        return all(valid), Performed(events.sum(axis=0), tallies.sum(axis=0), peaks.max(axis=0))

    def _walk(
        self,
        space: Space,
        span: tuple[int, int],
        given: tuple[Array, ...],
        written: tuple[Any, ...],
        apart: tuple[Array, Array] | None,
    ) -> bool:
        """Run some of the samples in one workspace; return whether their input is valid."""
        code, (room, held) = self._program.code, space
        if self._apart is None:
            self._apart = addresses(self._program, room)
        if apart is not None:
            held = held.copy()
            held[-2:] = [placed(array) for array in apart]
        fixed = (self._apart, code.entry, code.spiking, code.chunk, held, code.params)
        return bool(run_samples(*given, *span, *fixed, *written))

    def _workspace(self) -> Space:
        """Return room that no other run writes to."""
        if self._idle:
            return self._idle.pop()
        room = Workspace.for_program(self._program)
        return room, frame(self._program.code, room)

    def _packed(self, state: State | None, samples: int) -> Array:
        """Return a state as one array (B, S), zeros where it is None."""
        room = np.zeros((samples, self._program.sizes.state), self.dtype)
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
        samples = len(room)
        return {name: room[:, span].reshape(samples, *shape) for name, span, shape in self._places}


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

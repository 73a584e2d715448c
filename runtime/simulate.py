"""Run a deployed graph over sequences with one executor, in parts that fit into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from math import inf, prod

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Input
from unscan.runtime.batches import RECORDED_BYTES, batches
from unscan.runtime.counts import Counts
from unscan.runtime.energy import Energy
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import Execution, Executor, State, check_input

STRETCH = 1024
"""How many steps at least are run before the state is carried on, where memory cuts samples and steps."""


def simulate(
    graph: Graph,
    x: Array,
    state: State | None = None,
    *,
    using: str = "event",
    record: bool = True,
    progress: Callable[[float], None] | None = None,
) -> Execution:
    """Run a graph over x (T, B, ...) and count every operation.

    Without `record`, samples and steps are cut into parts, so that beside x and the outputs memory does not grow with
    T; x may then be a `numpy.memmap`. What is larger than memory is run by `simulate_stream`.

    Args:
        graph: an iterative graph.
        x: input sequence; 0 and 1 where the graph takes spikes.
        state: continue from the state of an earlier run with the same batch; zeros where None.
        using: name of an executor: event, reference, onnx, onnx-scan.
        record: keep spikes and membranes of every layer; without it only outputs and counts.
        progress: called with the share of samples done.

    Raises:
        InvalidInput: an unknown executor, an input or state that does not fit, or a record larger than the machine's
            memory.
    """
    if isinstance(x, Iterator):
        raise InvalidInput(
            f"simulate got the iterator {type(x).__name__}, wanted an array (T, B, ...); simulate_stream runs parts of "
            "a sequence as they come."
        )
    if state is not None and set(state) != set(graph.states):
        raise InvalidInput(
            f"The state names {sorted(state)}; the graph has the states {sorted(graph.states)}."
        )
    runner = executor(using, graph)
    if record:
        x = check_input(graph, x)
        check_memory(graph, *x.shape[:2])
        run = runner.run(x, state)
        if progress:
            progress(1.0)
        return run
    x = fitting(graph, x)
    outputs: list[Array] = []
    runs: list[Streamed] = []
    for part in batches(graph, min(len(x), STRETCH), x.shape[1]):
        carried = None if state is None else {name: value[part] for name, value in state.items()}
        kept: list[Array] = []
        runs.append(streamed(runner, parts(graph, x[:, part]), carried, keeping(kept)))
        outputs.append(joined(kept, axis=0))
        if progress:
            progress(sum(run.samples for run in runs) / x.shape[1])
    return Execution(
        outputs=joined(outputs, axis=1),
        spikes={},
        membranes={},
        state={name: joined([run.state[name] for run in runs], axis=0) for name in runs[0].state},
        counts=reduce(beside, [run.counts for run in runs]),
    )


@dataclass(frozen=True)
class Streamed:
    """What a run over parts of a sequence gave; none of it grows with the number of steps.

    Attributes:
        steps, samples: T and B.
        last: (B, ...) the outputs of the last step.
        mean: (B, ...) of the outputs over all steps, summed in float64.
        state: what a next run continues from.
        counts: operations, by node; None where the executor counts nothing.
    """

    steps: int
    samples: int
    last: Array
    mean: Array
    state: State
    counts: Counts | None = field(repr=False)

    @property
    def energy(self) -> Energy:
        """The modelled energy of the counted operations; see `Execution.energy`."""
        return Execution(self.last[None], {}, {}, self.state, self.counts).energy


def simulate_stream(
    graph: Graph,
    chunks: Iterable[Array],
    state: State | None = None,
    *,
    using: str = "event",
    each: Callable[[Execution], None] | None = None,
) -> Streamed:
    """Run a graph over a sequence that comes in parts, in memory that does not grow with its length.

    Args:
        graph: an iterative graph.
        chunks: the parts (t, B, ...), one after the other, of any lengths t and one B: an iterator, a generator that
            reads a file, or a `numpy.memmap` (T, B, ...) cut by `parts`.
        state: continue from the state of an earlier run with the same batch; zeros where None.
        using: name of an executor; whole sequences are what a run of `lava` starts its environment for.
        each: called with what each part gave, to keep of its outputs what is needed: nothing else is kept.

    Raises:
        InvalidInput: an unknown executor, no part at all, or one that does not fit the graph or those before.
    """
    if isinstance(chunks, np.ndarray):
        raise InvalidInput(
            f"simulate_stream got one array {chunks.shape}, wanted parts (t, B, ...) of a sequence; give "
            "parts(graph, x), or run it whole with simulate."
        )
    return streamed(executor(using, graph), chunks, state, each)


def parts(graph: Graph, x: Array) -> Iterator[Array]:
    """Yield x (T, B, ...) in stretches of time that fit into memory; of a `numpy.memmap` no more is read."""
    x = fitting(graph, x)
    size = stretch(graph, x.shape[1])
    for first in range(0, len(x), size):
        yield x[first : first + size]


def streamed(
    runner: Executor, chunks: Iterable[Array], state: State | None, each: Callable[[Execution], None] | None
) -> Streamed:
    """Run parts (t, B, ...) of a sequence one after the other, the state carried from each to the next."""
    steps, counts, total = 0, None, np.zeros(())
    last: Array | None = None
    for chunk in chunks:
        x = check_input(runner.graph, chunk)
        if last is not None and x.shape[1] != len(last):
            raise InvalidInput(
                f"The part of the sequence after step {steps} has {x.shape[1]} samples, those before have {len(last)}."
            )
        run = runner.run(x, state, record=False)
        counts = after(counts, run.counts) if steps else run.counts
        state, last = run.state, run.outputs[-1].copy()
        total = total + run.outputs.sum(axis=0, dtype=np.float64)
        steps += len(x)
        if each:
            each(run)
    if last is None or state is None:
        raise InvalidInput("simulate_stream got no part of a sequence; at least one step is needed.")
    return Streamed(steps, len(last), last, total / steps, state, counts)


def stretch(graph: Graph, samples: int) -> int:
    """Return how many steps of so many samples an executor is given at once."""
    signals = [prod(signal.shape) for signal in graph.signals.values()]
    return max(
        1, RECORDED_BYTES // (8 * samples * (sum(signals) + sum(map(prod, graph.membranes().values()))))
    )


def check_memory(graph: Graph, steps: int, samples: int) -> None:
    """Raise InvalidInput if the spikes (a byte) and membranes (four) of a sequence cannot fit into memory."""
    needed = 5 * steps * samples * sum(map(prod, graph.membranes().values()))
    there = memory()
    if needed > there:
        raise InvalidInput(
            f"Recording {samples} samples of {steps} steps takes {needed / 2**30:,.1f} GiB at least, and this machine "
            f"has {there / 2**30:,.1f} GiB; record fewer samples, or outputs and counts alone (record=False; without "
            "--output)."
        )


def memory() -> float:
    """Return the bytes of the machine's memory; infinity where it does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return inf
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def fitting(graph: Graph, x: Array) -> Array:
    """Return x as an array if its shape fits the graph; its numbers are looked at when they are run."""
    x = x if isinstance(x, np.ndarray) else np.asarray(x)
    shape = graph.signals[graph.of(Input)[0]].shape
    if x.ndim != len(shape) + 2 or x.shape[2:] != shape or x.size == 0:
        check_input(graph, x)
    return x


def keeping(kept: list[Array]) -> Callable[[Execution], None]:
    """Return a function that keeps the outputs of runs."""
    return lambda run: kept.append(run.outputs)


def joined(arrays: list[Array], axis: int) -> Array:
    """Concatenate arrays; one alone is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)


def after(first: Counts | None, second: Counts | None) -> Counts | None:
    """Join the counts of one sequence cut in two."""
    return None if first is None or second is None else first.then(second)


def beside(first: Counts | None, second: Counts | None) -> Counts | None:
    """Join the counts of equally long sequences."""
    return None if first is None or second is None else first.beside(second)

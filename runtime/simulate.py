"""Run a deployed graph over a data set with one executor, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.runtime.batches import batches
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import Execution, State, check_input


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

    Args:
        graph: an iterative graph.
        x: input sequence; 0 and 1 where the graph takes spikes.
        state: continue from the state of an earlier run with the same batch; zeros where None.
        using: name of an executor: event, reference, onnx, onnx-scan.
        record: keep spikes and membranes of every layer; without it only outputs and counts.
        progress: called with the share of samples done.

    Raises:
        InvalidInput: an unknown executor, or an input or state that does not fit.
    """
    x = check_input(graph, x)
    runner = executor(using, graph)
    parts = [slice(None)] if record else list(batches(graph, *x.shape[:2]))
    if state is not None and set(state) != set(graph.states):
        raise InvalidInput(
            f"The state names {sorted(state)}; the graph has the states {sorted(graph.states)}."
        )
    runs: list[Execution] = []
    for part in parts:
        carried = None if state is None else {name: value[part] for name, value in state.items()}
        runs.append(runner.run(x[:, part], carried, record=record))
        if progress:
            progress(sum(r.outputs.shape[1] for r in runs) / x.shape[1])
    if len(runs) == 1:
        return runs[0]
    counts = runs[0].counts
    for run in runs[1:]:
        counts = counts + run.counts if counts and run.counts else None
    return Execution(
        outputs=np.concatenate([run.outputs for run in runs], axis=1),
        spikes={},
        membranes={},
        state={name: np.concatenate([run.state[name] for run in runs]) for name in graph.states},
        counts=counts,
    )

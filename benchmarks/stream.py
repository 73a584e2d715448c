"""A sensor's loop: what `Stream` takes for a step, beside the step that it runs; microseconds.

    unscan bench stream

784-512-512-10, float32, one sample, 5 % of the inputs and of the neurons spike. For each executor: a step inside one
call over the whole sequence, its own `step` with the state handed in and out, `Stream.step`, and `Stream.step_events`,
which is given the neurons that spiked. The methods run in turns, one thread; each is shown by its median over rounds.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table

from unscan.benchmarks.inference import calibrated
from unscan.benchmarks.measuring import Pass, figure, medians, options, screen, write
from unscan.compiler.errors import UnscanError
from unscan.compiler.ir import Array, Graph
from unscan.runtime.executors import executor
from unscan.runtime.stream import Stream

RATE = 0.05
EXECUTORS = ("event", "c", "onnx")
FORMS = ("one call", "own step", "Stream.step", "Stream.step_events")


def own(runner: Any, x: Array) -> None:
    """Run every step of x through an executor's own step."""
    state = None
    for x_t in x:
        _, state = runner.step(x_t, state)


def fed(step: Callable[[Array], Array], inputs: list[Array]) -> None:
    """Run a stream over its inputs."""
    for given in inputs:
        step(given)


def methods(graph: Graph, x: Array) -> Iterator[tuple[tuple[str, str], Pass]]:
    """Yield every pass over the steps of x, by executor and form."""
    rows, events = list(x[:, 0]), [np.flatnonzero(x_t) for x_t in x[:, 0]]
    for name in EXECUTORS:
        try:
            runner = executor(name, graph)
        except (ImportError, UnscanError) as reason:
            screen().print(f"[dim]{name} is left out: {reason}[/]")
            continue
        yield (name, FORMS[0]), partial(runner.run, x, record=False)
        yield (name, FORMS[1]), partial(own, runner, x)
        yield (name, FORMS[2]), partial(fed, Stream(graph, using=name).step, rows)
        yield (name, FORMS[3]), partial(fed, Stream(graph, using=name).step_events, events)


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__, quick="100 steps and a short budget")
    chosen = parser.parse_args(arguments)
    steps, budget = (100, 3.0) if chosen.quick else (1000, 40.0)
    x = (np.random.default_rng(1).random((steps, 1, 784)) < RATE).astype(np.float32)
    graph = calibrated(RATE, x[:100])
    start = time.perf_counter()
    passes = dict(methods(graph, x))
    times = medians({" ".join(key): run for key, run in passes.items()}, budget)
    made = Table(title=f"784-512-512-10, {steps} steps at {RATE:.0%}, microseconds a step")
    for title in ("executor", *FORMS):
        made.add_column(title, justify="left" if title == "executor" else "right")
    found: dict[str, dict[str, float]] = {}
    for name, form in passes:
        found.setdefault(name, {})[form] = times[f"{name} {form}"] / steps * 1e3
    for name, each in found.items():
        made.add_row(name, *(figure(each[form]) for form in FORMS))
    screen().print(made)
    screen().print(f"Measured for {time.perf_counter() - start:.0f} s.")
    write(chosen.json, steps=steps, rate=RATE, us=found)


if __name__ == "__main__":
    main()

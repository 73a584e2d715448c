"""The order of the passes, and what is checked between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from unscan.compiler.errors import UnscanError
from unscan.compiler.ir import Graph
from unscan.compiler.nodes.neurons import Phase, Reset
from unscan.compiler.passes import FoldNorm, FoldThreshold, Pass, PruneDead, RestoreReset, Unroll
from unscan.compiler.spec import check

Judge = Callable[[Pass, Graph, Graph], str]
"""Says in a clause what a pass changed, from the graphs before and after it."""


def passes_for(
    *, reset: Reset | None = None, phase: Phase | None = None, threshold: float | None = None
) -> list[Pass]:
    """Return the passes that compile a traced model with the given options, in order.

    Args:
        reset: the reset to deploy with (none, subtract, zero); None keeps the trained one.
        phase: when it acts (now, next); None keeps the trained one. Needs `reset`.
        threshold: fold every threshold to this number; None keeps them.
    """
    passes: list[Pass] = [Unroll()]
    if reset is not None:
        passes.append(RestoreReset(reset, phase))
    passes.append(FoldNorm())
    if threshold is not None:
        passes.append(FoldThreshold(threshold))
    return [*passes, PruneDead()]


def run(
    graph: Graph,
    passes: Iterable[Pass],
    *,
    judge: Judge | None = None,
    watch: Callable[[Pass, Graph], None] | None = None,
) -> Graph:
    """Run passes in order; the graph's history gets a line for everything that each did.

    Args:
        graph: a valid graph.
        passes: what to run.
        judge: asked after each pass what it changed; the answer goes into the history.
        watch: called with each pass and what it made.

    Raises:
        InvalidGraph: what a pass was given or made breaks an invariant or is of the wrong dialect; the message
            names the pass and those before it.
    """
    check(graph)
    done: list[str] = []
    for step in passes:
        behind = f" (after {', '.join(done)})" if done else ""
        check(graph, step.given, where=f"What the pass {step.name} got{behind}")
        try:
            made, notes = step.rewrite(graph)
        except UnscanError as fault:
            raise type(fault)(f"In the pass {step.name}{behind}: {fault}") from None
        check(made, step.result, where=f"What the pass {step.name} made{behind}")
        lines = [f"{step.name}: {note}" for note in notes]
        if judge and made != graph:
            lines.append(f"{step.name}: {judge(step, graph, made)}")
        graph = made.annotate(history=lines)
        if watch:
            watch(step, graph)
        done.append(step.name)
    return graph


def compile_graph(
    graph: Graph,
    *,
    reset: Reset | None = None,
    phase: Phase | None = None,
    threshold: float | None = None,
    judge: Judge | None = None,
    watch: Callable[[Pass, Graph], None] | None = None,
) -> Graph:
    """Turn a traced graph into the iterative graph that is deployed; options as in `passes_for`."""
    return run(graph, passes_for(reset=reset, phase=phase, threshold=threshold), judge=judge, watch=watch)

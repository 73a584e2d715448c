"""The order of the passes, and what is checked, measured and timed between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from unscan.compiler.errors import InvalidInput, UnscanError
from unscan.compiler.ir import Graph
from unscan.compiler.nodes.neurons import Phase, Reset
from unscan.compiler.options import TopK, parse_top_k
from unscan.compiler.passes import (
    PASSES,
    Calibrate,
    DropSurrogate,
    FoldNorm,
    FoldThreshold,
    FuseLinear,
    Pass,
    PruneDead,
    Quantize,
    Ranges,
    Rates,
    RestoreReset,
    ScalarDecay,
    SoftReset,
    SparsifyTopK,
    Unroll,
)
from unscan.compiler.spec import check


@dataclass(frozen=True)
class Change:
    """What a pass changed on samples, measured.

    Attributes:
        samples: how many ran.
        apart: in how many of them any spike differs.
        f1: of all spikes.
        membranes: largest difference of a membrane, relative to the larger of the two and 1.
        outputs: largest difference of an output.
        explained: whether every sample that parts, parts where rounding decides.
    """

    samples: int
    apart: int
    f1: float
    membranes: float
    outputs: float
    explained: bool

    @property
    def verdict(self) -> str:
        """Exact, within rounding, or changed."""
        if not self.apart and self.membranes == 0 and self.outputs == 0:
            return "exact"
        return "within rounding" if self.explained and self.membranes <= ROUNDING else "changed"

    def __str__(self) -> str:
        if self.verdict == "exact":
            return "changes nothing on the samples"
        return (
            f"{self.verdict} on the samples: F1 of spikes {self.f1:.6f}, {self.apart} of {self.samples} samples "
            f"differ, membranes by at most {self.membranes:.3g} relatively, outputs by at most {self.outputs:.3g}"
        )


ROUNDING = 1e-6
"""Membranes that differ by more, relatively, differ by more than float32 rounds."""

Judge = Callable[[Pass, Graph, Graph], Change]
"""Measures what a pass changed, from the graphs before and after it."""


@dataclass(frozen=True)
class Stage:
    """One pass that ran: what it was given, what it made, how long it took, and what it changed if that was asked."""

    step: Pass
    before: Graph
    after: Graph
    seconds: float
    change: Change | None


Watch = Callable[[Stage], None]


NEEDS = {
    SparsifyTopK.name: "a count or share of keys and values (top_k)",
    RestoreReset.name: "a reset (reset or memory_reset)",
    Calibrate.name: "samples to calibrate on (calibrate)",
    FoldThreshold.name: "a threshold",
    Quantize.name: "a profile of whole numbers, and samples (quantize)",
}
"""The passes that run only where an option asks for them and says how, and that option."""


def passes_for(
    *,
    reset: Reset | None = None,
    phase: Phase | None = None,
    memory_reset: Reset | None = None,
    top_k: TopK | None = None,
    calibrate: Calibrate | None = None,
    scalar_decay: bool = False,
    threshold: float | None = None,
    quantize: Quantize | None = None,
    passes: Sequence[str] | None = None,
) -> list[Pass]:
    """Return the passes that compile a traced graph as asked, in order.

    1. drop-surrogate, then unroll: what is deployed is the neuron, not its guess, and only a step can be changed.
    2. sparsify-top-k, restore-reset: what changes the model on purpose.
    3. calibrate: it gives the rates back that those two took, so it comes after them, and before the folds, which leave
       rates as they are.
    4. fold-norm, then fuse-linear: a norm between two layers would keep them apart.
    5. scalar-decay, fold-threshold: how a memory is stored, and in which units a neuron counts; each leaves the spikes.
       Folded last, a threshold goes into weights that nothing scales any more.
    6. prune-dead: what the others left behind.
    7. quantize: the numbers that are left become whole ones, which no other pass rewrites.

    Args:
        reset: the reset to deploy with (none, subtract, zero); None keeps the trained one.
        phase: when it acts (now, next); None keeps the trained one. Needs `reset`.
        memory_reset: the reset of the entries of matrix memories; None keeps the trained one.
        top_k: what matrix memories keep of keys and values, see `options.parse_top_k`; None keeps all.
        calibrate: a pass that moves thresholds until layers fire at given rates; None keeps them.
        scalar_decay: let the columns of matrix memories decay by one number each.
        threshold: fold every threshold to this number; None keeps them.
        quantize: a pass that writes the graph in whole numbers; None keeps real ones.
        passes: the names of those that run, in this order, in place of all that are asked for.

    Raises:
        InvalidInput: options that are not values of theirs; a name that is no pass, or one of a pass that lacks its
            option; an option whose pass is not named.
    """
    if phase is not None and reset is None:
        raise InvalidInput("The phase says when a reset acts; name the reset, too.")
    asked: list[Pass | None] = [
        DropSurrogate(),
        Unroll(),
        None if top_k is None else parse_top_k(top_k),
        None if reset is None and memory_reset is None else RestoreReset(reset, phase, memory_reset),
        calibrate,
        FoldNorm(),
        FuseLinear(),
        ScalarDecay() if scalar_decay else None,
        None if threshold is None else FoldThreshold(threshold),
        PruneDead(),
        quantize,
    ]
    offered = {step.name: step for step in asked if step is not None}
    if passes is None:
        return list(offered.values())
    for name in passes:
        if name not in PASSES:
            raise InvalidInput(f"There is no pass {name!r}; choose from {', '.join(PASSES)}.")
        if name in NEEDS and name not in offered:
            raise InvalidInput(
                f"The pass {name} is named and was not told what to do; give {NEEDS[name]}, too."
            )
    for name in (ScalarDecay.name, *NEEDS):
        if name in offered and name not in passes:
            raise InvalidInput(
                f"An option asks for the pass {name}, which is not among those named; name it, or leave the option."
            )
    return [offered.get(name, ScalarDecay()) for name in passes]


def run(
    graph: Graph, passes: Iterable[Pass], *, judge: Judge | None = None, watch: Watch | None = None
) -> Graph:
    """Run passes in order; the graph's history gets a line for everything that each did.

    Args:
        graph: a valid graph.
        passes: what to run.
        judge: asked after each pass that changed the graph what that changed; the answer goes into the history.
        watch: called with each stage.

    Raises:
        InvalidGraph: what a pass was given or made breaks an invariant or is of the wrong dialect; the message
            names the pass and those before it.
    """
    check(graph)
    done: list[str] = []
    for step in passes:
        behind = f" (after {', '.join(done)})" if done else ""
        check(graph, step.given, where=f"What the pass {step.name} got{behind}")
        began = time.perf_counter()
        try:
            made, notes = step.rewrite(graph)
        except UnscanError as fault:
            raise type(fault)(f"In the pass {step.name}{behind}: {fault}") from None
        seconds = time.perf_counter() - began
        check(made, step.result, where=f"What the pass {step.name} made{behind}")
        lines = [f"{step.name}: {note}" for note in notes]
        change = judge(step, graph, made) if judge and made != graph else None
        if change:
            lines.append(f"{step.name}: {change}")
        before, graph = graph, made.annotate(history=lines)
        if watch:
            watch(Stage(step, before, graph, seconds, change))
        done.append(step.name)
    return graph


def compile_graph(
    graph: Graph,
    *,
    reset: Reset | None = None,
    phase: Phase | None = None,
    memory_reset: Reset | None = None,
    top_k: TopK | None = None,
    calibrate: Rates | None = None,
    scalar_decay: bool = False,
    threshold: float | None = None,
    quantize: str | None = None,
    ranges: Ranges | None = None,
    soft_reset: SoftReset = "node",
    passes: Sequence[str] | None = None,
    judge: Judge | None = None,
    watch: Watch | None = None,
) -> Graph:
    """Turn a traced graph into the iterative graph that is deployed.

    Options as in `passes_for`, but `calibrate` measures firing rates on samples: every layer with a reset is to fire
    as often as in the model as trained. `quantize` names a profile of whole numbers, `ranges` measures on samples how
    far numbers reach, and `soft_reset` says how neurons that subtract their threshold do (`passes.Quantize`).
    `unscan.runtime.judge` makes `calibrate`, `ranges` and `judge` from samples. Raises what `passes_for` and `run`
    raise, and InvalidInput for a profile without ranges.
    """
    if quantize is not None and ranges is None:
        raise InvalidInput(
            f"Whole numbers of the profile {quantize} need samples, on which it is measured how far numbers reach; "
            "hand in ranges, or samples to unscan.compile."
        )
    calibration = None
    if calibrate is not None:
        calibration = Calibrate(calibrate(run(graph, [DropSurrogate(), Unroll()])), calibrate)
    chosen = passes_for(
        reset=reset,
        phase=phase,
        memory_reset=memory_reset,
        top_k=top_k,
        calibrate=calibration,
        scalar_decay=scalar_decay,
        threshold=threshold,
        quantize=None
        if quantize is None or ranges is None
        else Quantize(quantize, ranges, soft_reset=soft_reset),
        passes=passes,
    )
    return run(graph, chosen, judge=judge, watch=watch)

"""Who fires, and when: rates by layer, rasters, membranes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.runtime.report.blocks import Block, Figure, Section, Table, Text
from unscan.runtime.report.evidence import Evidence
from unscan.runtime.report.plots import Bar, bars, raster, runs
from unscan.runtime.report.traces import choose, figure
from unscan.runtime.report.words import count, share

ROWS, STEPS, MARKS = 48, 800, 4000
"""Neurons, steps and runs of spikes that a raster draws at most."""


def activity_section(evidence: Evidence) -> Section:
    """Return rates by layer, and a raster for each."""
    first, other = evidence.runs[0], evidence.other
    both = [first] if first == other else [first, other]
    names = list(evidence.fired[first])
    if not names:
        return Section("Activity", [Text("No layer of this graph fires.")])
    rows = [
        Bar(f"{name}, {run}" if run == first else run, [(colour, rate)], share(rate))
        for name in names
        for colour, run in enumerate(both, 1)
        if (rate := evidence.rate(run, name)) == rate
    ]
    label = "Firing rates: " + ", ".join(f"{bar.name} {bar.said}" for bar in rows)
    caption = f"Spikes per neuron and step over {evidence.samples} samples, {' and '.join(both)}."
    blocks: list[Block] = [Figure(bars(rows, label), caption), rates_table(evidence, both)]
    blocks += [raster_figure(evidence, name, both) for name in names]
    return Section("Activity", blocks)


def rates_table(evidence: Evidence, both: Sequence[str]) -> Table:
    """Return how evenly the neurons of each layer fire."""
    rows = []
    for name in evidence.fired[both[0]]:
        for run in both:
            if (fired := evidence.fired[run].get(name)) is not None:
                turns = evidence.steps * evidence.samples
                low, middle, high = np.quantile(fired / turns, [0.05, 0.5, 0.95])
                rows.append(
                    [
                        name,
                        run,
                        count(fired.size),
                        share(float(fired.mean() / turns)),
                        share(float(middle)),
                        f"{share(float(low))} to {share(float(high))}",
                        count(int((fired == 0).sum())),
                        count(int((fired == turns).sum())),
                    ]
                )
    columns = [
        "layer",
        "execution",
        "neurons",
        "mean rate",
        "median",
        "90 % lie in",
        "never fire",
        "always fire",
    ]
    return Table("Rates of single neurons", columns, rows, words=["execution"])


def raster_figure(evidence: Evidence, name: str, both: Sequence[str]) -> Figure:
    """Return who fired when in the first sample: in both executions, and in one alone."""
    spikes = [evidence.shown[run].spikes[name][:, 0].reshape(evidence.steps, -1) for run in both]
    kept, steps = window(np.logical_or.reduce(spikes))
    a, b = (side[:steps, kept] for side in (spikes[0], spikes[-1]))
    apart = [int((a & ~b).sum()), int((b & ~a).sum())]
    meaning = [(0, "both" if len(both) == 2 else both[0])]
    fired = [(0, a & b)]
    for colour, alone, run in ((1, a & ~b, both[0]), (2, b & ~a, both[-1])):
        if alone.any():
            fired.append((colour, alone))
            meaning.append((colour, f"{run} alone"))
    total = spikes[0].shape[1]
    drawn = f"{len(kept)} of {total} neurons, evenly chosen" if len(kept) < total else f"all {total} neurons"
    when = f"steps 0 to {steps - 1} of {evidence.steps}" if steps < evidence.steps else f"all {steps} steps"
    differs = f" {apart[0]} spikes of {both[0]} alone, {apart[1]} of {both[-1]} alone." if any(apart) else ""
    alike = " Both executions fire the same spikes here." if len(both) == 2 and not any(apart) else ""
    return Figure(
        raster(
            fired, f"Raster of {name}: {int(a.sum())} spikes drawn.{differs}", neurons=kept, meaning=meaning
        ),
        f"{name}, sample 0: {drawn}, {when}.{differs}{alike}",
    )


def window(spikes: Array) -> tuple[Array, int]:
    """Return which neurons of (T, neurons) are drawn, and up to which step, so that a drawing stays small."""
    total = spikes.shape[1]
    kept = np.unique(np.linspace(0, total - 1, min(ROWS, total)).round().astype(int))
    steps = min(STEPS, len(spikes))
    while steps > 50 and sum(1 for _ in runs(spikes[:steps, kept])) > MARKS:
        steps = max(50, steps * 3 // 4)
    return kept, steps


def traces_section(evidence: Evidence, asked: Sequence[str], graphs: Sequence[Graph]) -> Section:
    """Return the membranes of chosen neurons."""
    chosen = choose(evidence, asked, graphs)
    blocks: list[Block] = [drawn for each in chosen if (drawn := figure(evidence, each)) is not None]
    if len(blocks) < len(asked):
        blocks.append(
            Text(
                f"Of {len(asked)} neurons that were asked for, {len(blocks)} belong to this graph and were recorded."
            )
        )
    left = [
        name for name in evidence.shown[evidence.runs[0]].spikes if name not in {it.node for it in chosen}
    ]
    if left and not asked:
        blocks.append(
            Text(f"Not drawn are neurons of {', '.join(left)}; ask for them with --trace NODE:NEURON.")
        )
    return Section("Membranes", blocks or [Text("No neuron of this graph was recorded.")])

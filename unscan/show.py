"""Tables and paragraphs for the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from unscan.columns import fitted
from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Graph
from unscan.compiler.nodes import (
    Delay,
    IntegerLIF,
    IntegerMemory,
    Memory,
    Spiking,
    StoredMemory,
    Threshold,
)
from unscan.compiler.passes import PASSES
from unscan.compiler.pipeline import Stage
from unscan.compiler.storage import writing
from unscan.compiler.text import diff, feeds
from unscan.runtime import energy_tables
from unscan.runtime.counts import Counts
from unscan.runtime.energy import Energy, break_even
from unscan.runtime.report.words import affordable, joules, score, share

console = Console()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console = Console(width=120)  # a pipe or file has no width of its own


@contextmanager
def progress(what: str) -> Iterator[Callable[[str, float], None]]:
    """Show a progress bar on stderr, and yield a function of (what runs now, share done)."""
    stderr = Console(stderr=True)
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda now, share: bar.update(task, description=now, completed=share)


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write a result where `--json FILE` asked for it."""
    if path is not None:
        with writing(path) as temporary:
            temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def table(title: str, *columns: str, numbers: str = "") -> Table:
    """Return an empty table; `numbers` lists the columns that are aligned right."""
    made = Table(title=title, header_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        right = column in numbers.split(",")
        made.add_column(
            column, justify="right" if right else "left", overflow="fold", no_wrap=right or place == 0
        )
    return made


def show(made: Table) -> None:
    """Print a table under its title, which may be wider than the table; what the terminal cannot hold comes below."""
    title, made.title = made.title, None
    console.print(f"\n[bold]{title}[/bold]", highlight=False)
    for number, part in enumerate(fitted(made, console.width)):
        if number:
            console.print()
        console.print(part)


def settings(graph: Graph, name: str) -> str:
    """Return what distinguishes a node: its parameters' values or shapes, and its settings."""
    node = graph.nodes[name]
    parts = [
        f"{field} {value.item():.6g}" if value.shape == () else f"{field} {'x'.join(map(str, value.shape))}"
        for field, value in node.arrays()
    ]
    parts += [
        f"{key} {f'{value:.6g}' if isinstance(value, float) else value}"
        for key, value in node.settings().items()
        if value is not None and key != "shape"
    ]
    return ", ".join(parts)


def graph_table(graph: Graph, title: str) -> Table:
    """Return the nodes of a graph in data-flow order."""
    made = table(
        title, "node", "operator", "fed by", "sends", "shape", "parameters", "state", "settings",
        numbers="parameters,state",
    )  # fmt: skip
    for name in graph.order:
        node, signal = graph.nodes[name], graph.signals[name]
        kept = sum(prod(size) for size in node.state(graph.inputs(name)).values())
        made.add_row(
            name,
            type(node).__name__,
            ", ".join(feeds(graph, name)),
            str(signal.kind),
            "x".join(map(str, signal.shape)),
            f"{sum(value.size for _, value in node.arrays()):,}",
            f"{kept:,}" if kept else "",
            settings(graph, name),
        )
    return made


def neurons_line(graph: Graph) -> str:
    """Say with which resets, phases and inequality the neurons of a graph fire."""
    kinds = {said for name in graph.order if (said := neuron(graph, name))}
    return "; ".join(sorted(kinds)) or "no spiking neurons"


def neuron(graph: Graph, name: str) -> str:
    """Say how one node fires; "" where it does not."""
    node = graph.nodes[name]
    if isinstance(node, Spiking):
        return f"reset {node.reset} ({node.phase}), fires at u {node.fires} threshold"
    if isinstance(node, Threshold):
        return f"no memory, fires at x {node.fires} threshold"
    if isinstance(node, IntegerLIF):
        return f"reset {node.reset} ({node.phase}), fires at u > threshold, {Fixed(node.bits)}"
    if isinstance(node, IntegerMemory):
        rows, columns = node.membrane(graph.inputs(name))
        return f"memory of {rows} x {columns}, reset {node.reset}, fires at S > threshold, {Fixed(node.bits)}"
    if isinstance(node, Memory):
        rows, columns = node.membrane(graph.inputs(name))
        stored = f", decay {node.decay}" if isinstance(node, StoredMemory) else ""
        return f"memory of {rows} x {columns}{stored}, reset {node.reset}, fires at S {node.fires} threshold"
    return ""


def counts_table(counts: Counts, title: str) -> Table:
    """Return operations by node, and in all."""
    made = table(
        title, "node", "operator", "spikes", "rate", "ACs", "MACs", "dense MACs", "state updates",
        numbers="spikes,rate,ACs,MACs,dense MACs,state updates",
    )  # fmt: skip
    rows = [(n, type(counts.graph.nodes[n]).__name__, o) for n, o in counts.by_node.items()]
    for name, kind, done in [*rows, ("in all", "", counts.total)]:
        made.add_row(
            name,
            kind,
            f"{done.spikes:,}" if done.slots else "",
            f"{done.rate:.2%}" if done.slots else "",
            f"{done.acs:,}",
            f"{done.macs:,}",
            f"{done.dense_macs:,}",
            f"{sum(done.updates.values()):,}",
        )
    return made


def traffic_table(counts: Counts, title: str) -> Table:
    """Return what travels and what is fetched, by node and in all: events, peaks, zeros, weights and states."""
    numbers = "events in,events out,peak,zeros sent,0 weights,weights read,states read,written"
    made = table(title, "node", *numbers.split(","), numbers=numbers)
    peaks = {} if counts.peaks is None else counts.peaks.nodes
    whole = "" if counts.peaks is None else f"{counts.peaks.graph:,}"
    for name, done in [*counts.by_node.items(), ("in all", counts.total)]:
        sent, weights = counts.activation_sparsity.get(name), counts.weight_sparsity.get(name)
        made.add_row(
            name,
            f"{done.events_in:,}",
            f"{done.events_out:,}",
            whole if name == "in all" else f"{peaks[name]:,}" if name in peaks else "",
            "" if sent is None else f"{sent:.2%}",
            "" if weights is None else f"{weights:.2%}",
            f"{done.weight_reads:,}",
            f"{done.state_reads:,}",
            f"{done.state_writes:,}",
        )
    return made


def break_even_table(counts: Counts, energy: energy_tables.Table) -> Table:
    """Return the rates of inputs at which events cost as much as the dense network's products, by node and in all."""
    made = table(
        f"Break-even, by {energy.name}: dense work pays where inputs are more often not 0", "node", "inputs not 0",
        "without memory", "with memory", numbers="inputs not 0,without memory,with memory",
    )  # fmt: skip
    nodes, whole = break_even(counts, energy)
    for name, found in [*nodes.items(), ("in all", whole)]:
        made.add_row(name, share(found.rate), affordable(found.compute), affordable(found.memory))
    return made


def energy_table(energy: Energy, samples: int) -> Table:
    """Return modelled energy for each sample, beside the dense network's."""
    made = table(
        f"Energy per sample, modelled with {energy.table}", "", "this network", "dense network",
        numbers="this network,dense network",
    )  # fmt: skip
    made.add_row("synaptic operations", joules(energy.synaptic / samples), joules(energy.dense / samples))
    made.add_row("state updates", joules(energy.updates / samples), "")
    made.add_row("without memory", joules(energy.compute / samples), joules(energy.dense / samples))
    made.add_row("memory accesses", joules(energy.memory / samples), joules(energy.dense_memory / samples))
    made.add_row(
        "in all", joules(energy.total / samples), joules((energy.dense + energy.dense_memory) / samples)
    )
    return made


def saturated(counts: Counts) -> dict[str, int]:
    """Return node -> numbers that its format could not hold, where there were some."""
    return {name: found["saturated"] for name, found in counts.tallies.items() if found.get("saturated")}


def saturation_lines(saturated: Mapping[str, int]) -> list[str]:
    """Return a line on numbers that did not fit, none where all did."""
    named = ", ".join(f"{name} {count:,}" for name, count in saturated.items() if count)
    return [f"Numbers that did not fit and were clipped or wrapped: {named}."] if named else []


def changes(graph: Graph) -> list[str]:
    """Return the lines of a graph's history that tell of another model than was read."""
    return [
        f"Changed after reading: {line}"
        for line in graph.history
        if (step := PASSES.get(line.partition(":")[0])) and step.changes
    ]


def states_line(graph: Graph) -> str:
    """Say how many numbers a graph keeps between steps, and through which delays its loops run."""
    numbers = sum(prod(size) for size in graph.states.values())
    loops = [name for name in graph.of(Delay) if graph.recurrent]
    through = f", with loops through {', '.join(loops)}" if loops else ""
    return f"{numbers:,} numbers of state in {len(graph.states)} arrays{through}"


def stages_table(stages: Sequence[Stage], *, timed: bool, judged: bool) -> Table:
    """Return one row for each pass that ran: its time, the nodes it left, and what it changed on samples."""
    figures = ["on samples", "F1", "apart", "membranes", "outputs"]
    columns = ["rewrites", *(["seconds", "nodes"] if timed else []), *(figures if judged else [])]
    made = table("Passes", "pass", *columns, numbers=",".join(columns))
    for stage in stages:
        row = [stage.step.name, str(len(diff(stage.before, stage.after)))]
        if timed:
            row += [f"{stage.seconds:.4f}", f"{len(stage.before.nodes)} -> {len(stage.after.nodes)}"]
        if judged and (change := stage.change) is not None:
            row += [
                change.verdict,
                score(change.f1),
                f"{change.apart} of {change.samples}",
                f"{change.membranes:.2g}",
                f"{change.outputs:.2g}",
            ]
        made.add_row(*row)
    return made

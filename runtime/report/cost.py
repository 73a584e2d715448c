"""What a deployed graph costs: its operations and modelled energy, beside the dense network's, and where both meet."""

from __future__ import annotations

from collections.abc import Iterator

from unscan.runtime.costs import Operations
from unscan.runtime.counts import Counts
from unscan.runtime.energy import Choice, Energy, break_even
from unscan.runtime.report.blocks import Block, Figure, Section, Table, Text
from unscan.runtime.report.evidence import Evidence
from unscan.runtime.report.plots import Bar, bars
from unscan.runtime.report.words import affordable, count, joules, share


def cost_section(evidence: Evidence, energy: Choice) -> Section:
    """Return operations and energy, beside those of the dense network for the same work."""
    counts = evidence.counts
    if counts is None:
        return Section(
            "Operations and energy",
            [Text("No executor that ran counts operations; the event executor does, --against event.")],
        )
    return Section("Operations and energy", list(costs(counts, evidence.samples, energy)))


def costs(counts: Counts, samples: int, chosen: Choice) -> Iterator[Block]:
    """Yield what one sample costs, on average."""
    done = counts.total
    yield Text(
        f"On average over {samples} samples of {counts.steps} steps. An AC adds a weight because of a spike, a MAC "
        "multiplies and adds because of a number; the dense network does every MAC at every step."
    )
    rows = [
        Bar("ACs of this network", [(1, done.acs / samples)], count(done.acs / samples)),
        Bar("MACs of this network", [(2, done.macs / samples)], count(done.macs / samples)),
        Bar("state updates", [(3, updates(done) / samples)], count(updates(done) / samples)),
        Bar("MACs, dense", [(4, done.dense_macs / samples)], count(done.dense_macs / samples)),
    ]
    said = ", ".join(f"{bar.name} {bar.said}" for bar in rows)
    yield Figure(bars(rows, f"Operations per sample: {said}"), "Operations per sample.")
    yield operations_table(counts, samples)
    yield from energies(counts, samples, chosen)
    yield from break_evens(counts, chosen)


def energies(counts: Counts, samples: int, chosen: Choice) -> Iterator[Block]:
    """Yield the modelled energy of one sample, beside the dense network's."""
    energy, name = Energy.of(counts, chosen.table), chosen.table.name
    each = [energy.synaptic, energy.updates, energy.memory, energy.dense, energy.dense_memory]
    synaptic, state, memory, dense, dense_memory = (value / samples for value in each)
    network = [
        Bar("this network", [(1, synaptic), (3, state), (2, memory)], joules(synaptic + state + memory)),
        Bar("dense network", [(1, dense), (2, dense_memory)], joules(dense + dense_memory)),
        Bar("this one, without memory", [(1, synaptic), (3, state)], joules(synaptic + state)),
        Bar("dense, without memory", [(1, dense)], joules(dense)),
    ]
    said = ", ".join(f"{bar.name} {bar.said}" for bar in network)
    meaning = [(1, "synaptic operations"), (3, "state updates"), (2, "memory accesses")]
    share_of = energy.total / energy.dense_total if energy.dense_total else float("nan")
    yield Figure(
        bars(network, f"Energy per sample: {said}", meaning=meaning),
        f"Energy per sample, modelled from the counts with the table {name}: {share(share_of)} of the dense network's "
        f"with memory accesses. It is a model, not a measurement.",
    )
    yield Text(str(chosen))
    yield Table(
        f"Energy per sample, {name}",
        ["", "this network", "dense network"],
        [
            ["synaptic operations", joules(synaptic), joules(dense)],
            ["state updates", joules(state), "–"],
            ["memory accesses", joules(memory), joules(dense_memory)],
            ["in all", joules(synaptic + state + memory), joules(dense + dense_memory)],
        ],
    )


def break_evens(counts: Counts, chosen: Choice) -> Iterator[Block]:
    """Yield how often inputs of weights are not 0, and how often they might be before dense work is cheaper."""
    nodes, whole = break_even(counts, chosen.table)
    if not nodes:
        return
    rows = [
        Bar(name, [(colour, min(1.0, rate))], said)
        for name, colour, rate, said in (
            ("inputs that are not 0", 1, whole.rate, share(whole.rate)),
            ("break-even, with memory", 2, whole.memory, affordable(whole.memory)),
            ("break-even, without memory", 4, whole.compute, affordable(whole.compute)),
        )
    ]
    label = "Break-even rates: " + ", ".join(f"{bar.name} {bar.said}" for bar in rows)
    yield Figure(
        bars(rows, label),
        "Where dense work becomes cheaper: how often an input of a weight is not 0, over all weights, and how often it "
        f"might be until this network costs as much as the dense one, by {chosen.table.name}. Updates, biases and "
        "states are paid whatever fires.",
    )
    yield Table(
        "Break-even by layer: its events and weights alone, against its dense products",
        ["node", "inputs not 0", "break-even, with memory", "without memory"],
        [
            [name, share(each.rate), affordable(each.memory), affordable(each.compute)]
            for name, each in [*nodes.items(), ("in all, with updates", whole)]
        ],
    )


def updates(done: Operations) -> int:
    """Return how many updates of states there were, of any kind."""
    return sum(done.updates.values())


def works(done: Operations) -> bool:
    """Say whether a node does anything that the table of operations has a column for."""
    return bool(
        done.slots
        or done.macs
        or done.dense_macs
        or done.acs
        or updates(done)
        or done.weight_reads
        or done.state_accesses
    )


def operations_table(counts: Counts, samples: int) -> Table:
    """Return operations by node, for one sample on average."""
    named = [(name, done) for name, done in counts.by_node.items() if works(done)]
    rows = [
        [
            name,
            share(done.rate) if done.slots else "",
            count(done.acs / samples),
            count(done.macs / samples),
            count(done.dense_macs / samples),
            count(updates(done) / samples),
            count(done.weight_reads / samples),
            count(done.state_accesses / samples),
        ]
        for name, done in [*named, ("in all", counts.total)]
    ]
    columns = ["node", "spike rate", "ACs", "MACs", "dense MACs", "updates", "weight reads", "state accesses"]
    return Table("Operations per sample, by node; nodes without any are left out", columns, rows)

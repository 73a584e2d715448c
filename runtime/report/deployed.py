"""What was deployed: how it was made, what it looks like, what it does and costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from unscan.compiler.ir import Graph
from unscan.compiler.nodes import IntegerMemory, Memory
from unscan.compiler.passes import PASSES
from unscan.compiler.text import text
from unscan.runtime.energy import Choice
from unscan.runtime.quantisation import Cost
from unscan.runtime.report.activity import activity_section, traces_section
from unscan.runtime.report.agreement import agreement_section
from unscan.runtime.report.blocks import Block, Code, Figure, Section, Table, Text
from unscan.runtime.report.cost import cost_section
from unscan.runtime.report.drawing import draw
from unscan.runtime.report.evidence import Evidence
from unscan.runtime.report.words import count, points, score, share

ALONE = ("task", "decision")
"""Facts of a graph that are told in words; others are listed by the graph's text."""


def deployed_section(
    evidence: Evidence, energy: Choice, asked: Sequence[str], graphs: Sequence[Graph], arrow: str
) -> Section:
    """Return the section on one deployed graph.

    Args:
        evidence: what was measured of it.
        energy: a table of energies, and why it is this one.
        asked: neurons to trace, NODE:NEURON.
        graphs: all graphs of the report, one of which has such a neuron.
        arrow: an id for the heads of arrows, which no other drawing has.
    """
    parts = [
        made_section(evidence.graph),
        drawing_section(evidence.graph, arrow),
        agreement_section(evidence),
    ]
    parts += [activity_section(evidence), traces_section(evidence, asked, graphs)]
    parts.append(cost_section(evidence, energy))
    parts += list(changed_sections(evidence))
    return Section(f"Deployed: {evidence.name}", within=parts)


def made_section(graph: Graph) -> Section:
    """Return what passes did, in their order, and whether each was to change the model."""
    rows: list[list[str]] = []
    for line in graph.history:
        name, _, said = line.partition(": ")
        step = PASSES.get(name)
        row = (
            ["read", "", line] if step is None else [name, "changes it" if step.changes else "keeps it", said]
        )
        if rows and rows[-1][0] == row[0]:
            rows[-1][2] += f"\n{row[2]}"
        else:
            rows.append(row)
    numbers = "whole numbers" if graph.integer else str(graph.dtype)
    size = sum(value.size for node in graph.nodes.values() for _, value in node.arrays())
    kept = sum(map(prod, graph.states.values()))
    decision = graph.meta.get("decision")
    blocks: list[Block] = [
        Text(
            f"{len(graph.nodes)} nodes, {count(size)} parameters in {numbers}, {count(kept)} numbers of state between "
            f"steps{f'; decides by the {decision} output' if decision else ''}. Its digest begins with "
            f"{graph.digest[:12]}."
        )
    ]
    if rows:
        columns = ["pass", "the model", "what it did"]
        blocks.append(Table("What was done to it, in order", columns, rows, words=columns[1:]))
    blocks.append(Code(text(graph), "Every node, with its settings"))
    return Section("How it was made", blocks)


def drawing_section(graph: Graph, arrow: str) -> Section:
    """Return the drawing of a graph."""
    caption = (
        "Data flows downwards. The key under the drawing says what each line carries. Orange boxes are neurons, blue "
        "ones hold weights, green ones are filters and delays."
    )
    return Section("The graph", [Figure(draw(graph, arrow), caption)])


def changed_sections(evidence: Evidence) -> Iterator[Section]:
    """Yield what quantisation, calibration and top-k did to the model, where they were used."""
    if evidence.graph.integer:
        yield rounding_section(evidence)
    for name, title in (("sparsify-top-k", "Top-k"), ("calibrate", "Calibration")):
        said = [line.partition(": ")[2] for line in evidence.graph.history if line.startswith(f"{name}: ")]
        if said:
            blocks: list[Block] = [Text(line if line.endswith(".") else f"{line}.") for line in said]
            if name == "sparsify-top-k":
                blocks += written(evidence)
            yield Section(title, [*blocks, *effect(evidence)])


def effect(evidence: Evidence) -> Iterator[Block]:
    """Yield what all passes together did to spikes and decisions."""
    if not evidence.trained:
        yield Text("The model as trained did not run here, so what this changed is not measured.")
        return
    found = evidence.between(evidence.runs[0], evidence.deployed)
    assert found is not None  # the model is not the deployed graph
    a, b = (evidence.rate_in_all(run) for run in (evidence.runs[0], evidence.deployed))
    said = [
        f"spikes agree with an F1 of {score(found.total.f1)}",
        f"the rate goes from {share(a)} to {share(b)}",
    ]
    before, after = evidence.accuracy(evidence.runs[0]), evidence.accuracy(evidence.deployed)
    if before is not None and after is not None:
        said.append(f"accuracy from {share(before)} to {share(after)}")
    yield Text(f"With everything else that was done to the model: {', '.join(said)}.")


def written(evidence: Evidence) -> Iterator[Block]:
    """Yield how many entries of its memories a step writes."""
    if evidence.counts is None:
        return
    turns = evidence.samples * evidence.steps
    rows = []
    for name in evidence.graph.of(Memory, IntegerMemory):
        entries = prod(evidence.graph.membranes()[name])
        writes = evidence.counts.tallies.get(name, {}).get("writes", 0) / turns
        rows.append([name, count(entries), count(writes), share(writes / entries)])
    if rows:
        yield Table(
            "Entries of the matrix memories that one step writes",
            ["memory", "entries", "written", "share"],
            rows,
        )


def rounding_section(evidence: Evidence) -> Section:
    """Return what whole numbers did to the model."""
    cost = evidence.rounding
    blocks: list[Block] = []
    if cost is None:
        blocks.append(Text("The model as trained did not run here, so what rounding cost is not measured."))
    else:
        blocks += rounding(cost)
    tallies = evidence.counts.tallies if evidence.counts else {}
    lost = {name: held["saturated"] for name, held in tallies.items() if held.get("saturated")}
    named = ", ".join(f"{name} {number:,}" for name, number in lost.items())
    if evidence.counts is not None:
        blocks.append(
            Text(f"Numbers that did not fit and were clipped or wrapped: {named}.")
            if lost
            else Text("Every number fitted in its bits.")
        )
    return Section("Quantisation", blocks)


def rounding(cost: Cost) -> Iterator[Block]:
    """Yield what rounding to whole numbers cost against the model."""
    said = [f"Profile {cost.profile or 'unknown'}."]
    if cost.accuracy is not None and cost.gap is not None:
        before, after = cost.accuracy
        said.append(
            f"Accuracy {share(after)} in whole numbers and {share(before)} of the model: {points(cost.gap)} points."
        )
    if cost.decided_alike is not None:
        said.append(f"{cost.decided_alike} of {cost.samples} samples are decided alike.")
    said.append(f"Outputs differ from the model's by at most {cost.output:.3g}, in its units.")
    yield Text(" ".join(said))
    rows = [
        [
            name,
            f"{layer.fired[0].size:,}",
            score(layer.agreement.f1),
            "{} → {}".format(*map(share, layer.rates)),
            "{:,} → {:,}".format(*layer.dead),
            "{:,} → {:,}".format(*layer.always),
            "–" if layer.saturated is None else f"{layer.saturated:,}",
        ]
        for name, layer in cost.layers.items()
    ]
    yield Table(
        "What rounding did to each layer: the model, then whole numbers",
        ["layer", "neurons", "F1", "rate", "never fire", "always fire", "saturated"],
        rows,
    )

"""The whole report: what was trained, what was deployed, how they compare, and the commands that made it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence

import numpy as np

import unscan
from unscan.runtime import energy_tables
from unscan.runtime.energy import Choice, Energy, table_for
from unscan.runtime.report.blocks import Block, Code, Figure, Page, Section, Table, Text
from unscan.runtime.report.deployed import deployed_section
from unscan.runtime.report.evidence import MODEL, Evidence
from unscan.runtime.report.plots import Bar, bars
from unscan.runtime.report.traces import named
from unscan.runtime.report.trained import Trained, trained_section
from unscan.runtime.report.words import count, interval, joules, points, score, share


def report(
    title: str,
    deployed: Sequence[Evidence],
    *,
    on: str,
    trained: Trained | None = None,
    energy: str | None = None,
    traces: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> str:
    """Return a report as one self-contained HTML file.

    Args:
        title: of the page.
        deployed: what was measured of each deployed graph, all on the same samples.
        on: what these samples are.
        trained: the training run; None where there is none.
        energy: the name or path of a table of energies; that of each graph's own numbers where None.
        traces: neurons whose membranes are drawn, NODE:NEURON; chosen where there are none.
        commands: what was typed, and what makes the rest again.

    Raises:
        InvalidInput: an unknown table, or a neuron that no graph has.
    """
    graphs = [evidence.graph for evidence in deployed]
    tables = [table_for(graph, energy) for graph in graphs]
    for asked in traces:
        named(asked, graphs)
    sections = [] if trained is None else [trained_section(trained)]
    sections.append(side_by_side(deployed, on, tables))
    sections += [
        deployed_section(evidence, chosen, traces, graphs, f"arrow-{number}")
        for number, (evidence, chosen) in enumerate(zip(deployed, tables, strict=True), 1)
    ]
    sections.append(commands_section(commands))
    subtitle = f"Measured on {on}, {deployed[0].steps} steps each."
    if len(deployed) > 1:
        subtitle += f" The figures here are of {deployed[0].name}."
    return Page(title, subtitle, list(figures(deployed[0], tables[0].table)), sections).html()


def figures(evidence: Evidence, energy: energy_tables.Table) -> list[tuple[str, str]]:
    """Return the figures that matter most of a deployed graph."""
    found: list[tuple[str, str]] = []
    right, trained = evidence.accuracy(evidence.deployed), evidence.accuracy(evidence.runs[0])
    if right is not None:
        found.append(("Accuracy, deployed", share(right)))
    if evidence.trained and right is not None and trained is not None:
        found.append(("Accuracy, as trained", share(trained)))
        found.append(("Gap in points", points(right - trained)))
    agreement = evidence.between(evidence.runs[0], evidence.other)
    if agreement is not None:
        found.append((f"F1, {evidence.runs[0]} against {evidence.other}", score(agreement.total.f1)))
    found.append(("Spikes per neuron and step", share(evidence.rate_in_all(evidence.deployed))))
    if evidence.counts is not None:
        spent = Energy.of(evidence.counts, energy)
        dense = spent.dense + spent.dense_memory
        if dense:
            found.append(("Energy, share of the dense network's", share(spent.total / dense)))
    return found


def side_by_side(deployed: Sequence[Evidence], on: str, tables: Sequence[Choice]) -> Section:
    """Return accuracies and gaps of every execution, and of several graphs what each costs."""
    blocks: list[Block] = []
    rows: list[list[str]] = []
    drawn: list[Bar] = []
    for number, evidence in enumerate(deployed):
        before = evidence.accuracy(evidence.runs[0]) if evidence.trained else None
        for who, run in alike(evidence, shown=number == 0):
            right = evidence.right[run] / evidence.samples
            low, high = interval(evidence.right[run], evidence.samples)
            rows.append(
                [
                    who,
                    f"{evidence.right[run]} of {evidence.samples}",
                    share(right),
                    f"{share(low)} to {share(high)}",
                    points(right - before) if before is not None and who != MODEL else "",
                    f"{evidence.alike[run]} of {evidence.samples}",
                ]
            )
            drawn.append(Bar(who, [(1 if who == MODEL else 2, right)], share(right)))
    if rows:
        label = "Accuracy: " + ", ".join(f"{bar.name} {bar.said}" for bar in drawn)
        blocks.append(Figure(bars(drawn, label), f"Accuracy on {on}."))
        columns = ["execution", "right", "accuracy", "95 % interval", "gap in points", "decided as the first"]
        blocks.append(Table("Accuracy on both sides, and the gap between them", columns, rows))
        blocks.append(
            Text(
                "The interval is of the accuracy on new samples of the same kind; the gap is between the same samples, "
                "so it is known more exactly than either."
            )
        )
    else:
        blocks.append(
            Text("There are no labels or no decision over time, so accuracies and their gap are not known.")
        )
    if len(deployed) > 1:
        blocks.append(graphs_table(deployed, [each.table for each in tables]))
    return Section("Accuracy and gap", blocks)


def alike(evidence: Evidence, *, shown: bool) -> Iterator[tuple[str, str]]:
    """Yield (what they are called, one of them) for the executions that decide alike; the model's where it is shown."""
    groups: dict[tuple[int, int], list[str]] = {}
    for run in evidence.runs if evidence.right else ():
        if run != MODEL:
            groups.setdefault((evidence.right[run], evidence.alike[run]), []).append(run)
        elif shown:
            yield MODEL, MODEL
    for group in groups.values():
        several = "every executor" if len(groups) == 1 and len(group) > 1 else ", ".join(group)
        yield f"{evidence.name}, {several}", group[0]


def graphs_table(deployed: Sequence[Evidence], tables: Sequence[energy_tables.Table]) -> Table:
    """Return what distinguishes several deployed graphs."""
    rows = []
    names = list(dict.fromkeys(energy.name for energy in tables))
    for evidence, energy in zip(deployed, tables, strict=True):
        found = evidence.between(evidence.runs[0], evidence.deployed) if evidence.trained else None
        right, done = evidence.accuracy(evidence.deployed), evidence.counts
        rows.append(
            [
                evidence.name,
                "–" if right is None else share(right),
                "–" if found is None else score(found.total.f1),
                share(evidence.rate_in_all(evidence.deployed)),
                "–" if done is None else count(done.total.acs / evidence.samples),
                "–" if done is None else count(done.total.macs / evidence.samples),
                "–" if done is None else joules(Energy.of(done, energy).total / evidence.samples),
                "–" if done is None else joules(Energy.of(done, energy).dense_total / evidence.samples),
                *([energy.name] if len(names) > 1 else []),
            ]
        )
    columns = [
        "graph",
        "accuracy",
        "F1 with the model",
        "spike rate",
        "ACs",
        "MACs",
        "energy",
        "dense network",
    ]
    caption = "The deployed graphs side by side, per sample; energy by "
    if len(names) > 1:
        return Table(f"{caption}the table of each", [*columns, "table"], rows, words=["table"])
    return Table(f"{caption}{names[0]}", columns, rows)


def commands_section(commands: Sequence[str]) -> Section:
    """Return what was typed, and with which versions."""
    versions = f"unscan {unscan.__version__}, Python {platform.python_version()}, numpy {np.__version__}"
    machine = f"{platform.system()} on {platform.machine()}"
    return Section(
        "The commands that made it",
        [
            *([Code("\n".join(commands))] if commands else []),
            Text(
                f"Made with {versions}, {machine}. The same input on the same machine gives the same report."
            ),
        ],
    )

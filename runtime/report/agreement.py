"""Which executions agree, each with each."""

from __future__ import annotations

from collections.abc import Iterator

from unscan.runtime.agreement import Agreement
from unscan.runtime.report.blocks import Block, Cell, Section, Table, Text
from unscan.runtime.report.evidence import MODEL, Evidence
from unscan.runtime.report.words import count, score, share

NEAR = 0.99
"""An F1 from here up is marked as near."""


def agreement_section(evidence: Evidence) -> Section:
    """Return the matrix of executions, the layers of one pair, and where executions part."""
    first, deployed = evidence.runs[0], evidence.other
    blocks: list[Block] = []
    if len(evidence.runs) > 1:
        blocks.append(
            Text(
                f"Each execution against each, on the same {evidence.samples} samples: the F1 of all their spikes, and "
                "under it in how many places one of the two fired alone. Where it reads 1, all spikes are the same."
            )
        )
        blocks.append(matrix(evidence))
    blocks += [Text(f"{name} did not run: {why}") for name, why in evidence.missing.items()]
    found = evidence.between(first, deployed)
    if found is None:
        blocks.append(Text(f"Only {first} ran, so there is nothing to compare it with."))
    else:
        blocks += [layers(first, deployed, found), *partings(evidence)]
    return Section("Agreement", blocks)


def matrix(evidence: Evidence) -> Table:
    """Return each execution against each."""
    rows: list[list[str | Cell]] = []
    for a in evidence.runs:
        row: list[str | Cell] = [a]
        for b in evidence.runs:
            found = evidence.between(a, b)
            row.append("–" if found is None else cell(found))
        rows.append(row)
    return Table("F1 of spikes, and mismatches where there are some", ["", *evidence.runs], rows)


def cell(found: Agreement) -> Cell:
    """Return the F1 of a pair, its mismatches, and how many of the samples that part do so at a tie."""
    total = found.total
    said = score(total.f1)
    if total.mismatches:
        said += f"\n{count(total.mismatches)}"
    if found.ties and len(found.ties) == len(found.partings):
        said += "\nties alone"
    mark = "good" if total.f1 == 1 else "near" if total.f1 >= NEAR else "off"
    return Cell(said, mark)


def layers(a: str, b: str, found: Agreement) -> Table:
    """Return the agreement of two executions layer by layer, beside what silence would score."""
    rows = [
        [
            name,
            count(layer.spikes_a),
            count(layer.spikes_b),
            score(layer.precision),
            score(layer.recall),
            score(layer.f1),
            count(layer.mismatches),
            share(layer.equality),
            share(layer.silence),
            f"{layer.membrane_absolute:.2g}",
        ]
        for name, layer in found.layers.items()
    ]
    columns = [
        "layer", f"spikes, {a}", f"spikes, {b}", "precision", "recall", "F1", "mismatches", "equal bins",
        "silence would score", "membranes off by",
    ]  # fmt: skip
    return Table(f"{a} against {b}, by layer", columns, rows)


def partings(evidence: Evidence) -> Iterator[Block]:
    """Yield where executions first part from the first one, and which layers are silent."""
    first = evidence.runs[0]
    said: dict[str, list[str]] = {}
    for run in evidence.runs[1:]:
        found = evidence.pairs[first, run]
        if found.silent:
            line = f"{', '.join(found.silent)} fired no spike on a side; a silent layer proves nothing."
            said.setdefault(line, []).append(run)
        if found.first is not None:
            line = (
                f"{len(found.partings)} of {found.samples} samples part, {len(found.ties)} of them at a tie. "
                f"{'A tie' if found.first.tie else 'The first that is none'}: {found.first}."
            )
            said.setdefault(line, []).append(run)
    for line, others in said.items():
        yield Text(f"Between {first} and {', '.join(others)}: {line}")
    if evidence.graph.integer and first == MODEL:
        yield Text(
            f"The graph computes in whole numbers and {MODEL} in real ones: another model, whose difference is under "
            "Quantisation. Its executors have to equal each other bit for bit."
        )

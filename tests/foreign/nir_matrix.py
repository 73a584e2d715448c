"""Write the tables of docs/nir.md from a run: node x profile x framework -> F1.

`python -m tests.foreign.nir_matrix`, or `make nir-matrix`, runs every row in every framework and writes what it found
between the markers of the page. What a profile refuses is not run; the reason stands below.
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from tests.foreign.nir_networks import SHOWN
from tests.foreign.nir_rows import BATCH, REFUSED, ROWS, STEPS
from tests.foreign.nir_running import PLACES, PORTABLE, Outcome, Place, compared, run_all
from tests.targets.networks import drive
from unscan.compiler.ir import Graph
from unscan.targets.nir import PROFILES, changes, refusals

PAGE = Path(__file__).resolve().parents[2] / "docs" / "nir.md"
BEGIN, END = "<!-- written by tests/foreign/nir_matrix.py -->", "<!-- end of what is written -->"
RATE = 0.1
"""Spikes per input and step that drive the five networks."""
Cells = Mapping[tuple[str, str], str]
"""(row, place) -> what was measured there."""


def measure(
    rows: Mapping[str, tuple[Graph, Any]], places: tuple[Place, ...]
) -> dict[tuple[str, str], Outcome]:
    """Run rows, a graph and its input each, in places, and return how their spikes compare."""
    found = {}
    for place in places:
        said = {name: row for name, row in rows.items() if not refusals(row[0], profile=place.profile)}
        files = {f"f{i:02d}": name for i, name in enumerate(said)}
        with tempfile.TemporaryDirectory() as folder:
            given = run_all(place, {file: said[name] for file, name in files.items()}, Path(folder))
        for file, name in files.items():
            found[name, place.name] = compared(place, *said[name], given[file])
    return found


def rows() -> dict[str, tuple[Graph, Any]]:
    """Return every row of the matrix, and what drives it."""
    made = {name: make() for name, make in ROWS.items()}
    return {name: (graph, drive(graph, STEPS, BATCH)) for name, graph in made.items()}


def networks() -> dict[str, tuple[Graph, Any]]:
    """Return the five networks, and what drives them."""
    found = {}
    for name, (make, steps, batch) in SHOWN.items():
        graph = make()
        found[name] = graph, drive(graph, steps, batch, rate=RATE)
    return found


def cell(outcome: Outcome) -> str:
    """Return an F1 that is 1 only where it is, cut to four digits."""
    late = f", {outcome.late} late" if outcome.late else ""
    return f"{floor(outcome.f1 * 1e4) / 1e4:.4f}{late}"


def mismatches(outcome: Outcome) -> str:
    """Return the slots that differ, of how many."""
    return f"{outcome.mismatches} of {outcome.slots:,}"


def table(head: list[str], lines: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(line)} |" for line in lines)
    yield ""


def written(measured: Cells) -> str:
    """Return the part of the page that is written, with the measured cells in their places."""
    notes: dict[str, int] = {}
    lines = []
    stated: dict[tuple[str, str], list[str]] = {}
    for name, make in ROWS.items():
        graph, line = make(), [name]
        for profile in PROFILES:
            refused = refusals(graph, profile=profile)
            for change in () if refused else changes(graph, profile):
                stated.setdefault((profile, re.sub(r"[\d.]+ to [\d.]+", "...", change.text)), []).append(name)
            for place in (place for place in PLACES if place.profile == profile):
                if refused:
                    reason = list(refused.values())[-1 if name in REFUSED else 0]
                    line.append(f"no ({notes.setdefault(reason, len(notes) + 1)})")
                else:
                    line.append(measured.get((name, place.name), "not measured"))
        lines.append(line)
    places = [place for profile in PROFILES for place in PLACES if place.profile == profile]
    known = [
        [p.name, f"{p.dt:g} s" if p.dt < 1 else "1", "; ".join(p.proven), p.summary]
        for p in PROFILES.values()
    ]
    shown = [[name, *(measured.get((name, p.name), "not measured") for p in PORTABLE)] for name in SHOWN]
    said = [[profile, text, "; ".join(dict.fromkeys(names))] for (profile, text), names in stated.items()]
    return "\n".join(
        [
            "## Profiles",
            "",
            *table(["profile", "dt", "spikes held against the reference in", "what it is"], known),
            "## Five networks in the portable profile: slots that differ",
            "",
            *table(["network", *(place.label for place in PORTABLE)], shown),
            "## Every node in every profile and framework: F1",
            "",
            *table(["", *(place.name for place in places)], lines),
            *(f"{number}. {reason}" for reason, number in notes.items()),
            "",
            "## What files change",
            "",
            *table(["profile", "change", "in the rows"], said),
        ]
    )


def measured_in(page: str) -> dict[tuple[str, str], str]:
    """Return the measured cells that stand on a page."""
    found = {}
    for block in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE):
        head, _, *lines = (
            [part.strip() for part in line.strip("|").split("|")] for line in block.splitlines()
        )
        for line in lines:
            for column, text in zip(head[1:], line[1:], strict=True):
                name = f"portable, {column}" if head[0] == "network" else column
                found[line[0], name] = text
    return found


def inside(page: str) -> str:
    """Return what stands between the markers of a page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """Measure everything and write the page."""
    found = {key: cell(outcome) for key, outcome in measure(rows(), PLACES).items()}
    found |= {key: mismatches(outcome) for key, outcome in measure(networks(), PORTABLE).items()}
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{written(found)}\n{END}{rest.partition(END)[2]}")
    print(f"Written: {PAGE}, {len(found)} cells", file=sys.stderr)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()

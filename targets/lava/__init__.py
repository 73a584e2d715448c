"""Lava, Intel's framework for Loihi 2: a netx HDF5 file where the graph is a chain of its layers, else a folder.

A file (`model.net`) is what `lava.lib.dl.netx.hdf5.Network` builds (see `unscan.targets.lava.netx`); a folder holds
graph, weights, the processes of our own that the graph needs, and a script that runs them (see
`unscan.targets.lava.folder`). Both are of whole numbers: compile with `quantize="loihi2"` first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph
from unscan.targets.base import Report, Target

FILES = (".net", ".hdf5", ".h5")
"""Suffixes of netx files."""


def emit(graph: Graph, path: Path | str, **_: Any) -> None:
    """Write a graph as a netx file where the path has the suffix of one, as a folder where it has none.

    Raises:
        InvalidInput: another suffix.
        Unsupported: a node that the file, or the folder, cannot say; nothing is written.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    from unscan.targets.lava import folder, netx

    path = Path(path)
    if path.suffix in FILES:
        netx.emit(graph, path)
    elif path.suffix == "":
        folder.emit(graph, path)
    else:
        raise InvalidInput(
            f"Got the output {path} for Lava; give it the suffix .net (one HDF5 file for netx), or none (a folder with "
            "processes and a script)."
        )


def report(graph: Graph, **_: Any) -> Report:
    """Return what a graph needs of a Loihi 2 chip, population by population."""
    from unscan.targets.lava.resources import HEADER, resources, rows

    found = resources(graph)
    fits = () if found.problems else (f"It fits on one {found.chip.name} chip.",)
    return Report(
        f"On {found.chip.name}: an estimate",
        HEADER,
        tuple(rows(found)),
        fits,
        found.problems,
        found.to_json(),
    )


def refusals(graph: Graph, **_: Any) -> dict[str, str]:
    """Return node -> reason for every node that neither a netx file nor a folder can say."""
    from unscan.targets.lava import folder, netx

    return folder.refusals(graph) if netx.refusals(graph) else {}


TARGET = Target(
    name="lava",
    suffix=".net",
    summary="Lava (Loihi 2): a netx HDF5 file (.net), or a folder with processes and a script (no suffix)",
    emit=emit,
    refusals=refusals,
    report=report,
)

__all__ = ["FILES", "TARGET", "emit", "refusals", "report"]

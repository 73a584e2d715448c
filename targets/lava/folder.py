"""A folder that runs in Lava by itself: graph, weights, the processes of our own that it needs, and a script.

    graph.json     nodes (process, ports, settings, states), edges, and the facts by which a reader knows the graph
    weights.npz    N/NAME: the arrays of node N of graph.json, whole numbers
    run.py         python run.py --input x.npy --output y.npz; it needs Lava and numpy, and nothing of unscan
    start.py       makes Lava importable, and its failures visible
    processes/     the processes and their integer models
    README.txt     how it is run, and what goes in and comes out

Every node becomes one process, or a part of one: functions without memory that feed each other alone share it. Within
a step a process receives before it sends, and a Delay sends before it receives:
so the run has the timing of the graph itself, where a synapse of Lava's costs a step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.formats import formats
from unscan.compiler.ir import Graph
from unscan.compiler.nodes import Input, Quantize
from unscan.compiler.spec import check
from unscan.targets.base import collect, facts, insist, producer_version
from unscan.targets.lava import processes, scripts
from unscan.targets.lava.cells import Cell, cells
from unscan.targets.lava.wiring import wiring

PROCESSES = Path(processes.__file__).parent
START = Path(scripts.__file__).with_name("start.py")
FOLDERS = {"LI": "neuron", "LIF": "neuron"}
"""Where a process stands whose folder is not named after it."""
README = """\
{model}
in Lava (lava-nc 0.10.0), whole numbers on a CPU, written by unscan {version}.

    python run.py --input x.npy --output y.npz [--record]

x.npy   {entrance}
y.npz   outputs (T, B, ...); state/NODE.STATE (B, ...) after the last step; with --record also spikes/NODE and
        membranes/NODE (T, B, ...), the membranes before the reset.

All samples run after each other in one run of Lava, each from zeros. A signal passes through the whole model within one
step; what a Delay holds arrives as many steps later as it says.

Lava in an environment of its own (0.3 GB; it asks for an old Python and for torch, and needs neither):

    python -m venv lava && lava/bin/pip install numpy scipy networkx asteval
    lava/bin/pip install --ignore-requires-python --no-deps lava-nc==0.10.0
    lava/bin/python run.py --input x.npy --output y.npz
"""


def emit(graph: Graph, path: Path | str) -> None:
    """Write a graph as a folder; see the head of this file. A folder of this kind that stands there is replaced.

    Raises:
        Unsupported: a node that no process says; nothing is written.
        InvalidGraph: the graph breaks an invariant of the IR.
        InvalidInput: something else stands at `path`, or it cannot be written.
    """
    insist(graph, "lava (folder)", refusals(graph))
    wires = wiring(graph)
    (entrance,) = graph.of(Input)
    document = {
        **facts(graph),
        "input": graph.signals[entrance].shape,
        "nodes": {name: described(cell) for name, cell in wires.cells.items()},
        "edges": wires.edges,
    }
    weights = {
        f"{number}/{name}": array
        for number, cell in enumerate(wires.cells.values())
        for name, array in cell.arrays.items()
    }
    with replacing(Path(path)) as folder:
        (folder / "graph.json").write_text(json.dumps(document, indent=1))
        np.savez(folder / "weights.npz", **weights)  # type: ignore[arg-type]
        shutil.copy(START, folder / "start.py")
        copy_sources(folder, {module(cell.process) for cell in wires.cells.values()})
        (folder / "README.txt").write_text(readme(graph))


def refusals(graph: Graph) -> dict[str, str]:
    """Return node -> reason for every node that no process says, in data-flow order; empty where all can be said."""
    check(graph, where="The graph for Lava")
    known = formats(graph)

    def made(name: str) -> None:
        cells(graph, name, known)

    return collect(graph.order, made)


def described(cell: Cell) -> Mapping[str, Any]:
    """Return what `run.py` reads of a process, without its arrays."""
    return {
        "process": cell.process,
        "module": f"processes.{module(cell.process)}.process",
        "inputs": dict(cell.inputs or {}),
        "shape": cell.shape,
        "states": dict(cell.states),
        "tells": cell.tells,
        "settings": dict(cell.settings),
    }


def module(process: str) -> str:
    """Return the folder in which a process stands."""
    return FOLDERS.get(process, process.lower())


def copy_sources(folder: Path, needed: set[str]) -> None:
    """Copy `run.py`, what all processes share, and the folders of those that are needed, as a package of their own."""
    for source in [
        *PROCESSES.glob("*.py"),
        *(file for name in needed for file in (PROCESSES / name).glob("*.py")),
    ]:
        within = folder if source.name == "run.py" else folder / "processes"
        copy = within / source.relative_to(PROCESSES)
        copy.parent.mkdir(exist_ok=True, parents=True)
        copy.write_text(source.read_text().replace("unscan.targets.lava.processes", "processes"))


def readme(graph: Graph) -> str:
    """Return what the folder says of itself."""
    (name,) = graph.of(Input)
    entrance = graph.signals[name]
    shape = ", ".join(map(str, entrance.shape))
    said = f"(T, {shape}), one sample, or (T, B, {shape}), time first: "
    quantized = [
        node for node in map(graph.nodes.__getitem__, graph.of(Quantize)) if isinstance(node, Quantize)
    ]
    if quantized:
        units = " and ".join(sorted({str(node.format) for node in quantized}))
        said += f"real numbers,\n        which run.py makes {units}: to the nearest, half to even, saturated."
    else:
        said += "spikes, 0 or 1." if entrance.kind == "spike" else "whole numbers from 0 up."
    model = f"A model of {len(graph.nodes)} nodes ({graph.digest[:12]})"
    return README.format(model=model, version=producer_version(), entrance=said)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it on failure.

    Raises:
        InvalidInput: something else than a folder of ours stands there, or it cannot be written.
    """
    if path.exists() and not (path / "graph.json").is_file():
        raise InvalidInput(
            f"Cannot write {path}: something else stands there; name a path where nothing does."
        )
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        draft.mkdir()
        yield draft
        if path.exists():
            path.rename(old)
        draft.rename(path)
    except (PermissionError, FileNotFoundError) as fault:
        raise InvalidInput(
            f"Cannot write {path}: {fault.strerror}; choose a folder that exists and that you may write to."
        ) from None
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


__all__ = ["emit", "refusals"]

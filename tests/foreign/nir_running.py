"""Write graphs as NIR files of a profile, run them all in one framework, and count how far its spikes are ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.foreign.running import run
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import PROFILES, changes, emit


@dataclass(frozen=True)
class Place:
    """Where a file of a profile is run: a label, an environment with the script run_ENVIRONMENT.py, and arguments."""

    profile: str
    label: str
    environment: str
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.profile}, {self.label}"


EQUATIONS = "equations"
PORTABLE = (
    Place("portable", "snnTorch", "snntorch"),
    Place("portable", "norse", "norse", ("1e-4",)),
    Place("portable", "SpikingJelly", "spikingjelly"),
    Place("portable", "nirtorch", "nirtorch"),
)
PLACES = (
    *PORTABLE,
    Place("nir", "NIR's equations", EQUATIONS),
    Place("norse", "norse", "norse"),
    Place("snntorch", "snnTorch", "snntorch"),
    Place("spikingjelly", "SpikingJelly", "spikingjelly"),
    Place("sinabs", "sinabs", "sinabs"),
    Place("rockpool", "Rockpool", "rockpool"),
    Place("spyx", "spyx", "spyx"),
)
"""Every profile, in every framework that it is for."""
assert {place.profile for place in PLACES} == set(PROFILES)


@dataclass(frozen=True)
class Outcome:
    """How the spikes of a framework compare with the reference, `late` steps apart.

    Slots are steps x samples x neurons; several: the profile states that a neuron may fire more than once in a step.
    """

    f1: float
    mismatches: int
    slots: int
    late: int
    several: bool


def run_all(place: Place, driven: Mapping[str, tuple[Graph, Any]], folder: Path) -> dict[str, Any]:
    """Return what each graph gives on its input, (T, B, ...), as a file of a place's profile, run in that place."""
    for name, (graph, x) in driven.items():
        emit(graph, folder / f"{name}.nir", profile=place.profile)
        np.save(folder / f"{name}.x.npy", x.astype(np.float32))
    if place.environment == EQUATIONS:
        return {name: by_equations(folder / f"{name}.nir", graph, x) for name, (graph, x) in driven.items()}
    run(place.environment, f"run_{place.environment}.py", folder, *place.arguments)
    failures = json.loads((folder / "failures.json").read_text())
    if failures:
        raise AssertionError(f"{place.name} fails on {failures}")
    return {name: np.load(folder / f"{name}.y.npy") for name in driven}


def by_equations(path: Path, graph: Graph, x: Any) -> Any:
    """Run a file as NIR's equations say, without what our own reader knows of it."""
    with h5py.File(path, "r+") as file:
        del file["node/metadata"]
    (name,) = graph.of(Input)
    read = read_nir(path, kind=Kind(graph.signals[name].kind), dt=PROFILES["nir"].dt)
    return Reference(read).run(x, record=False).outputs


def compared(place: Place, graph: Graph, x: Any, given: Any) -> Outcome:
    """Compare what a framework gave with the reference; what is stated to be late is looked for that much later."""
    truth = Reference(graph).run(x, record=False).outputs
    stated = [change.kind for change in changes(graph, place.profile)]
    late = stated.count("late")
    truth, given = truth[: len(truth) - late], given[late:]
    both = np.count_nonzero((truth > 0) & (given > 0))
    return Outcome(
        f1=2 * both / max(1, np.count_nonzero(truth) + np.count_nonzero(given)),
        mismatches=int(np.count_nonzero(truth != given)),
        slots=truth.size,
        late=late,
        several="several" in stated,
    )

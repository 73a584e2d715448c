"""The same NIR file in other frameworks gives the spikes of the reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.foreign.running import run
from tests.targets.networks import DEPLOYED, chain, drive, feed_forward, lif, weight
from tests.targets.test_nir_loops import looped_chains
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Flatten, Input, Linear, Output, Scale
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import emit

pytestmark = pytest.mark.slow


def network(**settings: Any) -> Graph:
    return feed_forward(dtype=np.float32, sizes=(20, 64, 64, 10), **settings)


def takes_numbers(graph: Graph) -> Graph:
    return graph.with_nodes({"in": Input((20,), kind=Kind.REAL)})


def scaled() -> Graph:
    rng = np.random.default_rng(0)
    nodes = {
        "in": Input((20,), kind=Kind.SPIKE),
        "flat": Flatten(),
        "scale": Scale(rng.uniform(0.5, 2, 20).astype(np.float32)),
        "w": Linear(weight(rng, 10, 20, np.float32, 3)),
        "lif": lif(np.float32, rng.uniform(0.5, 0.95, 10), reset="subtract"),
        "out": Output(),
    }
    return chain(nodes)


CASES: dict[str, Callable[[], Graph]] = {
    "none": lambda: network(reset="none", threshold=0.8137),
    "subtract-now": lambda: network(reset="subtract", threshold=0.8137),
    "subtract-next": lambda: network(reset="subtract", phase="next", threshold=0.8137),
    "zero": lambda: network(reset="zero", threshold=0.8137),
    "per-channel": scaled,
    **DEPLOYED,
}
for reset in ("none", "subtract", "zero"):
    CASES |= {
        f"{reset}-forgets": lambda reset=reset: network(reset=reset, beta=0.0),
        f"{reset}-no-leak": lambda reset=reset: network(reset=reset, beta=1.0, threshold=2.0137),
        f"{reset}-real-input": lambda reset=reset: takes_numbers(
            network(reset=reset, gain="1-beta", threshold=0.1137, fires=">")
        ),
        f"{reset}-readout": lambda reset=reset: network(reset=reset, readout=True, threshold=0.8137),
    }

Ran = tuple[dict[str, Execution], dict[str, Any]]


@pytest.fixture(scope="module", params=["snntorch", "norse"])
def ran(request, tmp_path_factory) -> Ran:
    """Run every case in the reference and, all in one process, in a framework."""
    folder = tmp_path_factory.mktemp(request.param)
    truths = {}
    for name, make in CASES.items():
        graph = make()
        x = drive(graph, 100, 8).astype(np.float32)
        emit(graph, folder / f"{name}.nir")
        np.save(folder / f"{name}.x.npy", x)
        truths[name] = Reference(graph).run(x)
        assert read_nir(folder / f"{name}.nir") == graph
    run(request.param, f"run_{request.param}.py", folder)
    return truths, {name: np.load(folder / f"{name}.y.npy") for name in CASES}


def f1(got: Any, truth: Any) -> float:
    return 2 * np.count_nonzero(got & truth) / (np.count_nonzero(got) + np.count_nonzero(truth))


@pytest.mark.parametrize("case", [case for case in CASES if "readout" not in case])
def test_spikes_are_those_of_the_reference(ran, case):
    truths, given = ran
    truth = truths[case].outputs > 0
    assert 0.005 < truth.mean() < 0.5
    assert all(spikes.any() for spikes in truths[case].spikes.values())
    assert f1(given[case] > 0, truth) == 1.0


@pytest.mark.parametrize("case", [case for case in CASES if "readout" in case])
def test_a_readout_gives_the_same_numbers(ran, case):
    truths, given = ran
    assert all(spikes.any() for spikes in truths[case].spikes.values())
    np.testing.assert_allclose(given[case], truths[case].outputs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("framework", ["snntorch", "norse"])
def test_ways_back_give_the_same_numbers(tmp_path, framework):
    graphs: list[Graph] = []

    @given(looped_chains())
    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    def collect(graph: Graph) -> None:
        graphs.append(graph.astype(np.float32))

    collect()
    truths = {}
    for i, graph in enumerate(graphs):
        x = drive(graph, 60, 4).astype(np.float32)
        emit(graph, tmp_path / f"{i}.nir")
        np.save(tmp_path / f"{i}.x.npy", x)
        truths[i] = Reference(graph).run(x, record=False).outputs
    assert sum(graph.recurrent for graph in graphs) > 20
    run(framework, f"run_{framework}.py", tmp_path)
    for i, truth in truths.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.y.npy"), truth, atol=1e-3, rtol=1e-3)

"""The same NIR file, in the portable profile, gives the spikes of the reference in four frameworks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.foreign.nir_matrix import measure, networks
from tests.foreign.nir_networks import SHOWN
from tests.foreign.nir_running import PLACES, PORTABLE, run_all
from tests.targets.networks import DEPLOYED, chain, drive, feed_forward, lif, weight
from tests.targets.test_nir_loops import looped_chains
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import Flatten, Input, Linear, Output, Scale
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.reference import Reference

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
BY_LABEL = {place.label: place for place in PORTABLE}


@pytest.fixture(scope="module", params=BY_LABEL)
def ran(request, tmp_path_factory) -> Ran:
    """Run every case in the reference and, all in one process, in a framework."""
    driven = {}
    for name, make in CASES.items():
        graph = make()
        driven[name] = graph, drive(graph, 100, 8).astype(np.float32)
    given = run_all(BY_LABEL[request.param], driven, tmp_path_factory.mktemp(request.param))
    return {name: Reference(graph).run(x) for name, (graph, x) in driven.items()}, given


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


def drawn_chains() -> list[Graph]:
    """Return 60 chains with ways back."""
    graphs: list[Graph] = []

    @given(looped_chains())
    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    def collect(graph: Graph) -> None:
        graphs.append(graph.astype(np.float32))

    collect()
    return graphs


@pytest.mark.parametrize("place", PORTABLE, ids=BY_LABEL)
def test_ways_back_give_the_same_numbers(tmp_path, place):
    graphs = drawn_chains()
    assert sum(graph.recurrent for graph in graphs) > 20
    driven = {str(i): (graph, drive(graph, 60, 4).astype(np.float32)) for i, graph in enumerate(graphs)}
    given_back = run_all(place, driven, tmp_path)
    for name, (graph, x) in driven.items():
        truth = Reference(graph).run(x, record=False).outputs
        np.testing.assert_allclose(given_back[name], truth, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("profile", ["snntorch", "spikingjelly"])
def test_signals_that_meet_give_the_same_spikes(tmp_path, profile):
    """Chains with ways back, and a way past two of their nodes, in the profiles of who adds signals."""
    (place,) = (place for place in PLACES if place.profile == profile)
    driven = {}
    for i, graph in enumerate(drawn_chains()):
        forward = [name for name in graph.order if name[0] in "wn"]
        if len(forward) > 2:
            past = Graph(graph.nodes, [*graph.edges, Edge(forward[0], forward[2])])
            driven[str(i)] = past, drive(past, 60, 4).astype(np.float32)
    assert sum(graph.recurrent for graph, _ in driven.values()) > 10
    given_back = run_all(place, driven, tmp_path)
    for name, (graph, x) in driven.items():
        truth = Reference(graph).run(x, record=False).outputs
        np.testing.assert_allclose(given_back[name], truth, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("place", PORTABLE, ids=BY_LABEL)
def test_five_networks_have_no_mismatch(place):
    driven = networks()
    found = measure(driven, (place,))
    assert {name for name, _ in found} == driven.keys() == SHOWN.keys()
    assert all(outcome.mismatches == 0 and outcome.f1 == 1 for outcome in found.values())
    assert {outcome.slots for (name, _), outcome in found.items() if name.startswith("3 x")} == {256_000}

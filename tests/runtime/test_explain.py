import json
from dataclasses import replace

import numpy as np
import pytest

from tests.graphs import chain, lif, linear, sequence, two_layers
from tests.integers import integer_network, spikes_for
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import SPIKING, Activation, AssociativeMemory, Input, Linear, Output
from unscan.runtime.agreement import Mismatch, compare
from unscan.runtime.agreement_replay import Side
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.reference import Reference
from unscan.runtime.explain import Explanation, explain


def ran(graph: Graph, x: np.ndarray, name: str = "") -> Side:
    return Side(Reference(graph).run(x), graph, x, name, exact=True)


def first(a: Side, b: Side) -> Mismatch:
    found = compare(b.graph, a.execution, b.execution, x=a.x).first
    assert found is not None
    return found


def tampered(side: Side, layer: str, place: tuple[int, ...], membrane: float) -> Side:
    """The side with one spike turned, and its membrane."""
    spikes = {name: each.copy() for name, each in side.execution.spikes.items()}
    membranes = {name: each.copy() for name, each in side.execution.membranes.items()}
    spikes[layer][place] = ~spikes[layer][place]
    membranes[layer][place] = membrane
    return replace(side, execution=replace(side.execution, spikes=spikes, membranes=membranes))


def with_threshold(graph: Graph, layer: str, threshold: float) -> Graph:
    return graph.with_nodes({layer: replace(graph.nodes[layer], threshold=np.float64(threshold))})


def lines(found: Explanation) -> str:
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["cause"] == found.cause
    return "\n".join(found.lines())


def test_graphs_that_differ_are_the_cause_where_they_do():
    graph = two_layers()
    other = with_threshold(graph, "lif2", 0.45)
    x = sequence(graph, 40, 4)
    a, b = ran(graph, x, "before"), ran(other, x, "after")
    mismatch = first(a, b)
    found = explain(a, b, mismatch)
    assert found.cause == "graph"
    assert [(link.node, link.step) for link in found.links] == [("lif2", mismatch.step)]
    assert (found.origin.a.threshold, found.origin.b.threshold) == (0.6, 0.45)
    assert found.origin.a.membrane == found.origin.b.membrane == found.origin.a.follows
    assert (found.origin.a.fired, found.origin.b.fired) == (False, True)
    assert found.reasons[1:] == ("lif2: threshold float64 0.6 -> float64 0.45",)
    text = lines(found)
    assert f"sample {mismatch.sample}, step {mismatch.step}, layer lif2, neuron {mismatch.neuron[0]}:" in text
    assert "before does not fire" in text
    assert "after fires" in text


def test_the_events_are_the_spikes_that_arrived_times_weights():
    graph = two_layers("none")
    x = sequence(graph, 30, 1)
    a, b = ran(graph, x), ran(with_threshold(graph, "lif2", 0.3), x)
    mismatch = first(a, b)
    link = explain(a, b, mismatch, most=10_000).origin
    spikes = a.execution.spikes["lif1"][: mismatch.step + 1, 0]
    weight = graph.nodes["fc2"].weight[mismatch.neuron[0]]
    wanted = {
        (s, j): weight[j] * 0.8 ** (mismatch.step - s) for s, j in zip(*np.nonzero(spikes), strict=True)
    }
    assert {(e.step, e.place[0]) for e in link.a.events} == set(wanted)
    assert link.a.arrived == len(wanted)
    for event in link.a.events:
        assert (event.sender, event.value) == ("lif1", 1.0)
        assert event.weight == weight[event.place]
        assert event.left == pytest.approx(wanted[event.step, event.place[0]])
    sizes = [abs(event.left) for event in link.a.events]
    assert sizes == sorted(sizes, reverse=True)


def test_a_late_mismatch_is_traced_back_to_the_layer_where_it_began():
    graph = two_layers()
    moved = graph.nodes["fc1"].weight.copy()
    moved[3] += 0.2
    other = graph.with_nodes({"fc1": replace(graph.nodes["fc1"], weight=moved)})
    x = sequence(graph, 60, 1)
    a, b = ran(graph, x), ran(other, x)
    differs = a.execution.spikes["lif2"][:, 0] != b.execution.spikes["lif2"][:, 0]
    step, neuron = (int(i) for i in np.argwhere(differs)[-1])
    mismatch = Mismatch(step, 0, "lif2", (neuron,), 0.0, 0.0, 0.6, 0.0)
    found = explain(a, b, mismatch)
    assert found.cause == "graph"
    assert found.links[0].node == "lif2"
    assert (found.origin.node, found.origin.neuron) == ("lif1", (3,))
    at = a.execution.spikes["lif1"][:, 0, 3] != b.execution.spikes["lif1"][:, 0, 3]
    assert found.origin.step == int(at.argmax())
    assert any(reason.startswith("fc1: weight") for reason in found.reasons)
    assert "It came from" in lines(found)
    steps = [link.step for link in found.links]
    assert steps == sorted(steps, reverse=True)


def test_an_execution_that_leaves_its_graph_is_the_cause():
    graph = two_layers()
    faster = graph.with_nodes({"lif1": replace(graph.nodes["lif1"], beta=np.float64(0.87))})
    x = sequence(graph, 40, 3)
    a, wrong = ran(graph, x, "reference"), replace(ran(faster, x, "suspect"), graph=graph)
    for sides in ((a, wrong), (wrong, a)):
        found = explain(*sides, first(*sides))
        assert found.cause == "executor"
        assert found.origin.node == "lif1"
        assert len(found.reasons) == 1
        assert found.reasons[0].startswith("suspect does not compute what its graph says")
        assert "suspect does not compute" in lines(found)


def test_a_spike_that_its_own_membrane_does_not_make_is_the_executions_fault():
    graph = two_layers()
    x = sequence(graph, 20, 2)
    a = ran(graph, x, "reference")
    place = (11, 1, 4)
    b = tampered(ran(graph, x, "suspect"), "lif2", place, a.execution.membranes["lif2"][place])
    found = explain(a, b, first(a, b))
    assert found.cause == "executor"
    assert (found.origin.step, found.origin.neuron) == (11, (4,))
    assert [link.off for link in (found.origin.a, found.origin.b)] == [False, True]


def test_a_tie_is_rounding():
    graph = chain(
        input=Input((1,), Kind.SPIKE), fc=Linear(np.array([[0.5]])), lif=lif(1.0, 1.5), output=Output()
    )
    x = np.ones((5, 1, 1))
    a = ran(graph, x)
    b = replace(tampered(a, "lif", (2, 0, 0), 1.5 - 1e-8), exact=False)
    found = explain(a, b, first(a, b))
    assert found.cause == "rounding"
    assert "Rounding decides" in lines(found)
    plain = replace(first(a, b), rounding=0.0)
    assert explain(a, b, plain).cause == "unexplained"


def test_a_neurons_own_spike_reaches_it_through_its_reset():
    graph = chain(
        input=Input((1,), Kind.SPIKE), fc=Linear(np.array([[0.5]])), lif=lif(1.0, 1.5), output=Output()
    )
    x = np.ones((8, 1, 1))
    a = ran(graph, x)
    b = ran(with_threshold(graph, "lif", 1.0), x)
    assert np.flatnonzero(a.execution.spikes["lif"]).tolist() == [2, 5]
    assert np.flatnonzero(b.execution.spikes["lif"]).tolist() == [1, 3, 5, 7]
    found = explain(a, b, Mismatch(7, 0, "lif", (0,), 1.0, 1.0, 1.0, 0.0))
    assert [(link.node, link.step) for link in found.links] == [("lif", 7), ("lif", 1)]
    assert found.cause == "graph"
    assert found.origin.b.arrived == 2


def memory(threshold: float, reset: str = "subtract") -> Graph:
    rng = np.random.default_rng(4)
    nodes = {
        "in": Input((4,)),
        **{port: linear(rng, 4, width) for port, width in (("v", 5), ("k", 3), ("a", 3), ("q", 6))},
        "alpha": Activation("sigmoid"),
        "memory": AssociativeMemory(
            threshold=np.float64(threshold), queries=2, reset=reset, trained_reset="none", decay="scalar"
        ),
        "last": lif(0.5, 0.3),
        "out": Output(),
    }
    edges = [Edge("in", port) for port in ("v", "k", "a", "q")]
    edges += [Edge("a", "alpha"), *(Edge(port, "memory", port) for port in ("v", "k", "alpha", "q"))]
    return Graph(nodes, [*edges, Edge("memory", "last"), Edge("last", "out")])


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
def test_a_memory_is_explained_by_what_was_written(reset):
    x = sequence(memory(0.5), 30, 2)
    a, b = ran(memory(0.5, reset), x), ran(memory(0.4, reset), x)
    found = explain(a, b, first(a, b))
    assert (found.origin.node, found.cause) == ("memory", "graph")
    assert set(found.origin.a.state) == {"M", "A"}
    row, column = found.origin.neuron
    step, sample = found.origin.step, found.sample
    left, right = (
        Reference(chain(input=Input((4,)), fc=memory(0.5).nodes[port], output=Output())).run(x).outputs
        for port in ("v", "k")
    )
    last = next(event for event in found.origin.a.events if event.step == step)
    assert last.value == pytest.approx(left[step, sample, row] * right[step, sample, column])


def test_what_a_memory_reads_is_traced_back_to_its_entries():
    x = sequence(memory(0.5), 30, 1)
    a, b = ran(memory(0.5), x), ran(memory(0.4), x)
    differs = a.execution.spikes["last"][:, 0] != b.execution.spikes["last"][:, 0]
    step, neuron = (int(i) for i in np.argwhere(differs)[-1])
    found = explain(a, b, Mismatch(step, 0, "last", (neuron,), 0.0, 0.0, 0.3, 0.0))
    assert found.origin.node == "memory"
    entries = a.execution.spikes["memory"][:, 0] != b.execution.spikes["memory"][:, 0]
    assert found.origin.step == int(entries.any(axis=(1, 2)).argmax())


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_whole_numbers_are_explained_bit_for_bit(seed):
    graph = integer_network(seed, stress=False)
    x = spikes_for(graph, 30, 3, seed)
    a = ran(graph, x, "reference")
    layer = graph.of(*SPIKING)[-1]
    place = tuple(int(i) for i in np.argwhere(a.execution.spikes[layer])[-1])
    membrane = float(graph.nodes[layer].threshold.flat[0])
    b = tampered(replace(a, name="chip"), layer, place, membrane)
    found = explain(a, b, first(a, b))
    assert found.cause == "executor"
    assert found.reasons[0].startswith("chip does not compute")
    assert not found.origin.a.off


def test_membranes_that_were_not_recorded_are_those_of_the_reference():
    graph = two_layers()
    x = sequence(graph, 30, 2)
    a, b = ran(graph, x), ran(with_threshold(graph, "lif1", 0.6), x)
    bare = [replace(side, execution=replace(side.execution, membranes={})) for side in (a, b)]
    mismatch = compare(None, bare[0].execution, bare[1].execution).first
    assert np.isnan(mismatch.distance)
    assert not mismatch.tie
    assert "unknown" in str(mismatch)
    found = explain(*bare, mismatch)
    assert found.cause == "graph"
    assert found.origin.a.to_json()["membrane"] is None
    assert found.origin.a.follows == found.origin.b.follows
    assert "unknown (reference" in lines(found)


def test_what_cannot_be_explained_is_refused():
    graph = two_layers()
    x = sequence(graph, 20, 2)
    a, b = ran(graph, x, "one"), ran(with_threshold(graph, "lif1", 0.5), x, "two")
    mismatch = first(a, b)
    with pytest.raises(InvalidInput, match="of two the graph or the input is not known"):
        explain(a, replace(b, graph=None), mismatch)
    with pytest.raises(InvalidInput, match="'other' was not recorded on one"):
        explain(a, b, replace(mismatch, node="other"))
    with pytest.raises(InvalidInput, match="there is no mismatch to explain"):
        explain(a, a, mismatch)


def test_one_sample_alone_explains_as_all_do():
    graph = two_layers()
    x = sequence(graph, 20, 5)
    a, b = ran(graph, x), ran(with_threshold(graph, "lif1", 0.5), x)
    mismatch = first(a, b)
    cut = [side.only(mismatch.sample) for side in (a, b)]
    assert isinstance(cut[0].execution, Execution)
    assert explain(*cut, mismatch) == explain(a, b, mismatch)

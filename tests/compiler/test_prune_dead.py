"""What no output depends on goes, and what does nothing; everything else computes exactly what it did."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import (
    assert_same,
    executed,
    memory_graph,
    memory_graphs,
    recurrent_graph,
    spatial_graphs,
)
from tests.graphs import chain, graphs, lif, linear, sequence
from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    AssociativeMemory,
    Delay,
    DeltaMemory,
    Flatten,
    Input,
    Multiply,
    Output,
    Reshape,
    Scale,
    TopK,
)
from unscan.compiler.passes import PruneDead
from unscan.compiler.pipeline import run

RNG = np.random.default_rng(0)


def test_what_no_output_needs_and_what_does_nothing_goes():
    graph = chain(
        input=Input((5,)), fc=linear(RNG, 5, 3), one=Scale(np.ones(3)), flat=Flatten(), shape=Reshape((3,)),
        top=TopK(3), lif=lif(), output=Output(),
    )  # fmt: skip
    dead = {"dead1": linear(RNG, 5, 2), "dead2": lif()}
    before = Graph({**graph.nodes, **dead}, [*graph.edges, Edge("input", "dead1"), Edge("dead1", "dead2")])
    after, notes = PruneDead().rewrite(before)
    assert list(after.nodes) == ["input", "fc", "lif", "output"]
    assert len(notes) == 6
    np.testing.assert_array_equal(executed(after).outputs, executed(before).outputs)


def test_what_changes_something_stays():
    graph = chain(
        input=Input((2, 3)), twice=Scale(np.float64(2)), shape=Reshape((3, 2)), top=TopK(1), flat=Flatten(),
        output=Output(),
    )  # fmt: skip
    assert PruneDead().rewrite(graph) == (graph, [])


def test_a_scale_whose_removal_would_make_a_double_edge_stays():
    nodes = {"input": Input((3,)), "one": Scale(np.float64(1)), "output": Output()}
    before = Graph(nodes, [Edge("input", "one"), Edge("one", "output"), Edge("input", "output")])
    assert PruneDead().rewrite(before).graph == before


def test_a_scale_that_adds_signals_before_another_is_added_stays():
    nodes = {f"fc{i}": linear(RNG, 3, 3) for i in range(3)}
    nodes = {"input": Input((3,)), **nodes, "one": Scale(np.float64(1)), "output": Output()}
    edges = [Edge("input", "fc0"), Edge("input", "fc1"), Edge("input", "fc2"), Edge("fc0", "output")]
    sums = [Edge("fc1", "one"), Edge("fc2", "one"), Edge("one", "output")]
    before = Graph(nodes, [*edges, *sums])
    assert PruneDead().rewrite(before) == (before, [])
    alone = Graph(nodes, [*edges[1:3], *sums])
    assert "one" not in PruneDead().rewrite(alone).graph.nodes


def test_a_loop_that_no_output_needs_goes_and_one_that_it_needs_stays():
    alive = recurrent_graph(RNG, lif(threshold=0.5), 4)
    assert PruneDead().rewrite(alive) == (alive, [])
    edges = [e for e in alive.edges if e.target != "output"]
    dead = Graph(alive.nodes, [*edges, Edge("fc", "output")])
    after, notes = PruneDead().rewrite(dead)
    assert list(after.nodes) == ["input", "fc", "output"]
    assert len(notes) == 3


def test_what_does_nothing_in_a_loop_goes():
    graph = recurrent_graph(RNG, lif(threshold=0.5), 4)
    nodes = {**graph.nodes, "one": Scale(np.float64(1))}
    edges = [Edge("one", "neuron") if e.source == "back" else e for e in graph.edges]
    before = Graph(nodes, [*edges, Edge("back", "one")])
    after = PruneDead().rewrite(before).graph
    assert after == graph
    assert_same(before, after, sequence(before, 30, 2))


def test_a_scale_that_makes_the_kind_that_a_delay_states_stays():
    before = chain(
        input=Input((3,), Kind.SPIKE), one=Scale(np.float64(1)),
        past=Delay(steps=np.float64(1), shape=(3,), kind=Kind.GRADED), output=Output(),
    )  # fmt: skip
    assert PruneDead().rewrite(before) == (before, [])


def test_nodes_with_several_ports_keep_what_feeds_each():
    nodes: dict[str, Node] = {
        "input": Input((3,)), "a": linear(RNG, 3, 4), "one": Scale(np.float64(1)), "both": Multiply(),
        "output": Output(),
    }  # fmt: skip
    edges = [
        Edge("input", "a"), Edge("a", "one"), Edge("a", "both", "a"), Edge("one", "both", "b"), Edge("both", "output"),
    ]  # fmt: skip
    before = Graph(nodes, edges)
    after = PruneDead().rewrite(before).graph
    assert [(e.source, e.port) for e in after.into("both")] == [("a", "a"), ("a", "b")]
    assert_same(before, after, sequence(before, 5, 2))


@pytest.mark.parametrize("count", [5, 6])
def test_a_top_k_goes_where_it_keeps_the_row(count):
    before = memory_graph(RNG, top={"k": count})
    assert ("top_k" in PruneDead().rewrite(before).graph.nodes) == (count == 5)


@settings(deadline=None, max_examples=80)
@given(
    graph=st.one_of(graphs(), spatial_graphs(), memory_graphs((AssociativeMemory, DeltaMemory))),
    seed=st.integers(0, 99),
)
def test_on_random_graphs_the_reference_after_is_the_reference_before(graph, seed):
    after = run(graph, [PruneDead()])
    assert run(after, [PruneDead()]) == after
    assert_same(graph, after, sequence(graph, 12, 2, seed))

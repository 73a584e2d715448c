"""Only the largest keys and values are written, where they were written as such in training nothing changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import MEMORIES, assert_same, executed, memory_graph, memory_graphs
from tests.graphs import sequence, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Edge, Graph
from unscan.compiler.nodes import AssociativeMemory, Input, Output, Scale, TopK
from unscan.compiler.passes import Kept, SparsifyTopK
from unscan.compiler.pipeline import run


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_top_k_stands_on_keys_and_values_and_writes_become_sparse(kind):
    before = memory_graph(rng(), kind)
    after, notes = SparsifyTopK(keys=2, values=3).rewrite(before)
    assert notes == [
        "memory: port k keeps 2 of 6, trained with 6",
        "memory: port v keeps 3 of 4, trained with 4",
    ]
    for port, count in (("k", 2), ("v", 3)):
        (edge,) = [e for e in after.into("memory") if e.port == port]
        assert after.nodes[edge.source].count == count
        assert [e.source for e in after.into(edge.source)] == [f"to_{port}"]
    writes = [executed(graph).counts.tallies["memory"]["writes"] for graph in (before, after)]
    rows = (4, 3) if kind in MEMORIES[:2] else (4, 4)
    assert writes == [40 * 3 * rows[0] * 6, 40 * 3 * rows[1] * 2]


@pytest.mark.parametrize(("wanted", "count"), [(1.0, 6), (0.5, 3), (0.05, 1), (0.34, 2), (1, 1), (6, 6)])
def test_a_count_is_whole_and_a_share_is_a_decimal_number(wanted, count):
    graph = SparsifyTopK(keys=wanted).rewrite(memory_graph(rng(), top={"k": 6})).graph
    assert graph.nodes["top_k"].count == count


def test_what_was_trained_sparser_stays_and_what_was_trained_denser_shrinks():
    graph = memory_graph(rng(), top={"k": 4, "v": 2})
    after, notes = SparsifyTopK(keys=3, values=3).rewrite(graph)
    assert (after.nodes["top_k"].count, after.nodes["top_v"].count) == (3, 2)
    assert list(after.nodes) == list(graph.nodes)
    assert notes == [
        "memory: port k keeps 3 of 6, trained with 4",
        "memory: port v keeps 2 of 4, as trained",
    ]
    assert SparsifyTopK(keys=4, values=2).rewrite(graph).graph == graph


def test_a_top_k_that_others_read_is_left_to_them():
    graph = memory_graph(rng(), top={"k": 4}, queries=1)
    edges = [Edge("top_k", "memory", "q") if e.port == "q" else e for e in graph.edges]
    after, _ = SparsifyTopK(keys=2).rewrite(Graph(graph.nodes, edges).without(["to_q"]))
    assert after.nodes["top_k"].count == 4
    assert after.nodes["memory.top_k"].count == 2
    assert Edge("top_k", "memory", "q") in after.edges


def test_several_edges_into_a_port_are_added_first():
    graph = memory_graph(rng())
    nodes = {**graph.nodes, "more": graph.nodes["to_k"]}
    graph = Graph(nodes, [*graph.edges, Edge("input", "more"), Edge("more", "memory", "k")])
    after = SparsifyTopK(keys=2).rewrite(graph).graph
    assert [e.source for e in after.into("memory.top_k")] == ["to_k", "more"]
    assert [e.source for e in after.into("memory") if e.port == "k"] == ["memory.top_k"]


def test_layers_are_set_one_by_one_and_the_others_by_what_holds_for_all():
    one, two = memory_graph(rng()), memory_graph(rng())
    nodes = {
        **one.nodes,
        **{f"second_{n}": node for n, node in two.nodes.items() if n not in ("input", "output")},
    }
    edges = [
        *one.edges,
        *(
            Edge("input" if e.source == "input" else f"second_{e.source}", f"second_{e.target}", e.port)
            for e in two.edges
            if e.target != "output"
        ),
        Edge("second_memory", "output"),
    ]
    both = Graph(nodes, edges)
    after = SparsifyTopK(keys=3, layers={"second_memory": Kept(values=0.5)}).rewrite(both).graph
    assert after.nodes["memory.top_k"].count == 3
    assert after.nodes["second_memory.top_v"].count == 2
    assert len(after.of(TopK)) == 2


@pytest.mark.parametrize("wrong", [0, -1, 0.0, 1.5, -0.5, float("nan"), True])
def test_a_count_that_is_none_is_refused(wrong):
    with pytest.raises(InvalidInput, match=r"whole number from 1 up.*share"):
        SparsifyTopK(keys=wrong)
    with pytest.raises(InvalidInput, match="whole number from 1 up"):
        SparsifyTopK(layers={"memory": Kept(values=wrong)})


def test_asking_for_nothing_more_than_there_is_or_an_unknown_layer_is_refused():
    graph = memory_graph(rng())
    with pytest.raises(InvalidInput, match="not told what to keep"):
        SparsifyTopK()
    with pytest.raises(InvalidInput, match=r"cannot keep 7 numbers at port k of 'memory', which has 6"):
        SparsifyTopK(keys=7).rewrite(graph)
    with pytest.raises(InvalidInput, match=r"'gone'.*matrix memories are: memory"):
        SparsifyTopK(layers={"gone": Kept(1)}).rewrite(graph)
    with pytest.raises(InvalidInput, match="matrix memories are: none"):
        SparsifyTopK(layers={"lif1": Kept(1)}).rewrite(two_layers())


def test_a_graph_without_memories_is_left_as_it_is():
    after, (note,) = SparsifyTopK(keys=1).rewrite(two_layers())
    assert after == two_layers()
    assert note.startswith("the graph has no matrix memory")


@settings(deadline=None, max_examples=40)
@given(graph=memory_graphs(), share=st.floats(0.05, 1), seed=st.integers(0, 99))
def test_on_random_graphs_a_model_that_writes_as_few_is_the_same(graph, share, seed):
    sparse = run(graph, [SparsifyTopK(keys=share, values=share)])
    again = run(sparse, [SparsifyTopK(keys=share, values=share)])
    assert again == sparse
    for port in ("k", "v"):
        (source,) = [e.source for e in sparse.into("memory") if e.port == port]
        width = sparse.inputs("memory")[port].shape[0]
        count = getattr(sparse.nodes[source], "count", width)
        assert count <= max(1, round(share * width))
    if sparse == graph:
        return
    # sparse already: to keep as many once more is the same model
    assert_same(sparse, run(sparse, [SparsifyTopK(keys=share)]), sequence(graph, 6, 2, seed))


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_step_writes_the_largest_keys_and_nothing_else(count, seed):
    before = memory_graph(np.random.default_rng(seed), AssociativeMemory, queries=None)
    after = SparsifyTopK(keys=count).rewrite(before).graph
    x = sequence(before, 1, 4, seed)
    written = [executed(graph, x).membranes["memory"][0] for graph in (before, after)]
    keys = x[0] @ before.nodes["to_k"].weight.T + before.nodes["to_k"].bias
    largest = np.abs(keys) >= np.sort(np.abs(keys), axis=1)[:, [-count]]
    np.testing.assert_array_equal(written[1], written[0] * largest[:, None, :])


def test_a_top_k_on_a_port_that_the_input_feeds():
    memory = AssociativeMemory(threshold=np.float64(0.5), trained_reset="none")
    nodes = {"input": Input((3,)), "half": Scale(np.float64(0.5)), "memory": memory, "output": Output()}
    edges = [
        Edge("input", "half"),
        *(Edge("half", "memory", p) for p in ("v", "k", "alpha")),
        Edge("memory", "output"),
    ]
    after = SparsifyTopK(values=1).rewrite(Graph(nodes, edges)).graph
    assert executed(after).counts.tallies["memory"]["writes"] == 40 * 3 * 3

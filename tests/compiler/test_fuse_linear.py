"""Two Linears behind each other become one, unless that takes more multiplications."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import assert_same, recurrent_graph
from tests.graphs import chain, graphs, lif, linear, sequence
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import LIF, Delay, Input, Linear, Output
from unscan.compiler.passes import FuseLinear
from unscan.compiler.pipeline import run

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)])
def test_two_become_one_under_the_name_of_the_second(biases):
    before = chain(
        input=Input((5,)), one=linear(RNG, 5, 8, bias=biases[0]), two=linear(RNG, 8, 4, bias=biases[1]),
        lif=lif(threshold=0.4), output=Output(),
    )  # fmt: skip
    after, notes = FuseLinear().rewrite(before)
    assert list(after.nodes) == ["input", "two", "lif", "output"]
    assert (after.nodes["two"].bias is not None) == any(biases)
    assert notes == ["one and two: joined, 20 weights in place of 72"]
    assert_same(before, after, sequence(before, 40, 3), tolerance=1e-12)


def test_a_chain_becomes_one_and_is_rounded_once():
    layers = {f"fc{i}": linear(RNG, 6, 6, dtype=np.float32) for i in range(4)}
    before = chain(input=Input((6,)), **layers, output=Output())
    after, notes = FuseLinear().rewrite(before)
    assert after.of(Linear) == ["fc3"]
    assert len(notes) == 3
    exact = np.eye(6)
    bias = np.zeros(6)
    for layer in layers.values():
        exact, bias = (
            layer.weight.astype(np.float64) @ exact,
            layer.weight.astype(np.float64) @ bias + layer.bias,
        )
    made = after.nodes["fc3"]
    assert made.weight.dtype == made.bias.dtype == np.float32
    np.testing.assert_allclose(made.weight, exact, rtol=2.0**-24, atol=1e-12)
    np.testing.assert_allclose(made.bias, bias, rtol=2.0**-24, atol=1e-12)


def test_a_bottleneck_stays_and_so_do_weights_whose_product_fills_up():
    narrow = chain(input=Input((9,)), one=linear(RNG, 9, 2), two=linear(RNG, 2, 8), output=Output())
    after, notes = FuseLinear().rewrite(narrow)
    assert after == narrow
    assert notes == ["one and two: stay two, of 34 weights, as their product has 72"]
    ring = Linear(np.eye(7) + np.roll(np.eye(7), 1, axis=0))
    rings = chain(input=Input((7,)), one=ring, two=ring, output=Output())
    assert FuseLinear().rewrite(rings).graph.of(Linear) == ["two"]
    row, column = np.eye(7), np.eye(7)
    row[0] = column[:, 0] = 1
    arrows = chain(input=Input((7,)), one=Linear(row), two=Linear(column), output=Output())
    after, notes = FuseLinear().rewrite(arrows)
    assert after == arrows
    assert notes == ["one and two: stay two, of 26 weights, as their product has 49"]


@pytest.mark.parametrize("extra", [Edge("one", "output"), Edge("input", "two")])
def test_one_that_feeds_others_or_is_not_alone_stays(extra):
    nodes = {"input": Input((5,)), "one": linear(RNG, 5, 5), "two": linear(RNG, 5, 5), "output": Output()}
    edges = [Edge("input", "one"), Edge("one", "two"), Edge("two", "output"), extra]
    before = Graph(nodes, edges)
    assert FuseLinear().rewrite(before) == (before, [])


def test_in_a_loop():
    graph = recurrent_graph(RNG, lif(threshold=0.5), 6)
    nodes = {**graph.nodes, "again": linear(RNG, 6, 6)}
    edges = [Edge("back", "again") if e.source == "back" else e for e in graph.edges]
    before = Graph(nodes, [*edges, Edge("again", "neuron")])
    after, _ = FuseLinear().rewrite(before)
    assert "back" not in after.nodes
    assert after.recurrent
    assert_same(before, after, sequence(before, 40, 3), tolerance=1e-12)
    assert isinstance(after.nodes["past"], Delay)
    assert after.signals["past"].kind is Kind.SPIKE


@st.composite
def linear_chains(draw: st.DrawFn) -> Graph:
    """Chains of Linears of any width, some with weights that are 0, with neurons and a side branch between them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width, nodes, edges = 4, {"input": Input((4,))}, []
    last = "input"
    for i in range(draw(st.integers(1, 7))):
        out = draw(st.sampled_from([1, 3, 4, 9]))
        layer = linear(rng, width, out, bias=draw(st.booleans()))
        nodes[f"fc{i}"] = Linear(layer.weight * (rng.random(layer.weight.shape) < 0.6), layer.bias)
        edges.append(Edge(last, f"fc{i}"))
        last, width = f"fc{i}", out
        if draw(st.integers(0, 3)) == 0:
            nodes[f"lif{i}"] = lif(0.8, 0.3)
            edges.append(Edge(last, f"lif{i}"))
            last = f"lif{i}" if draw(st.booleans()) else last
    nodes["output"] = Output()
    return Graph(nodes, [*edges, Edge(last, "output")])


@settings(deadline=None, max_examples=60)
@given(graph=st.one_of(linear_chains(), graphs()), seed=st.integers(0, 99))
def test_on_random_graphs_the_reference_after_is_the_reference_before(graph, seed):
    after = run(graph, [FuseLinear()])
    weights = [sum(np.count_nonzero(g.nodes[name].weight) for name in g.of(Linear)) for g in (graph, after)]
    assert weights[1] <= weights[0]
    assert after.of(LIF) == graph.of(LIF)
    assert_same(graph, after, sequence(graph, 12, 2, seed), tolerance=1e-9)

import numpy as np
import pytest

from tests.graphs import chain, lif, linear, two_layers
from unscan.compiler.errors import InvalidGraph
from unscan.compiler.ir import Dialect, Edge, Graph, Kind, Signal
from unscan.compiler.nodes import LIF, Activation, Flatten, Input, LIFScan, Linear, Output, Scale
from unscan.compiler.spec import RULES, check

RNG = np.random.default_rng(0)


def test_arrays_cannot_be_written_to():
    node = linear(RNG, 3, 2)
    with pytest.raises(ValueError, match="read-only"):
        node.weight[0, 0] = 1


def test_a_node_does_not_share_memory_with_what_it_was_made_from():
    weight = np.ones((2, 3))
    node = Linear(weight)
    weight[:] = 5
    assert (node.weight == 1).all()


def test_order_follows_the_edges_not_the_listing():
    graph = Graph(
        {"output": Output(), "fc": linear(RNG, 3, 2), "input": Input((3,))},
        [Edge("fc", "output"), Edge("input", "fc")],
    )
    assert graph.order == ("input", "fc", "output")


def test_kinds_and_shapes_are_inferred():
    graph = chain(
        input=Input((2, 3), Kind.SPIKE), flat=Flatten(), twice=Scale(np.float64(2)), fc=linear(RNG, 6, 4),
        neuron=lif(), output=Output(),
    )  # fmt: skip
    assert graph.signals["flat"] == Signal(Kind.SPIKE, (6,))
    assert graph.signals["twice"] == Signal(Kind.GRADED, (6,))
    assert graph.signals["fc"] == Signal(Kind.REAL, (4,))
    assert graph.signals["output"] == Signal(Kind.SPIKE, (4,))
    assert graph.states == {"neuron.u": (4,)}


def test_spikes_added_to_spikes_are_graded_and_to_numbers_real():
    nodes = {"input": Input((3,)), "a": lif(), "b": lif(), "sum": Activation("relu"), "output": Output()}
    edges = [
        Edge("input", "a"),
        Edge("input", "b"),
        Edge("a", "sum"),
        Edge("b", "sum"),
        Edge("sum", "output"),
    ]
    assert Graph(nodes, edges).inputs("sum")["x"].kind is Kind.GRADED
    assert Graph(nodes, [*edges, Edge("input", "sum")]).inputs("sum")["x"].kind is Kind.REAL


def test_shapes_that_do_not_fit_name_both_ends():
    graph = chain(input=Input((3,)), fc=linear(RNG, 4, 2), output=Output())
    with pytest.raises(
        InvalidGraph, match=r"Linear 'fc' does not fit what feeds it, input \(real \(3,\)\).*\(4,\)"
    ):
        _ = graph.signals


def test_a_sum_of_different_shapes_names_its_parts():
    nodes = {"input": Input((3,)), "fc": linear(RNG, 3, 2), "output": Output()}
    graph = Graph(nodes, [Edge("input", "fc"), Edge("fc", "output"), Edge("input", "output")])
    with pytest.raises(InvalidGraph, match=r"added at 'output': fc \(real \(2,\)\), input"):
        _ = graph.signals


def test_edges_to_nowhere_and_double_edges_are_refused():
    nodes = {"input": Input((3,)), "output": Output()}
    with pytest.raises(InvalidGraph, match="'ghost'"):
        Graph(nodes, [Edge("input", "ghost")])
    with pytest.raises(InvalidGraph, match="'k'"):
        Graph(nodes, [Edge("input", "output", "k")])
    with pytest.raises(InvalidGraph, match="stands twice"):
        Graph(nodes, [Edge("input", "output"), Edge("input", "output")])


def test_a_loop_is_named():
    nodes = {"input": Input((3,)), "a": lif(), "b": lif(), "output": Output()}
    graph = Graph(nodes, [Edge("input", "a"), Edge("a", "b"), Edge("b", "a"), Edge("b", "output")])
    with pytest.raises(InvalidGraph, match="a -> b feed each other"):
        _ = graph.order


def test_digest_sees_numbers_settings_and_edges_but_not_the_listing():
    graph = two_layers()
    assert graph == Graph(dict(reversed(graph.nodes.items())), reversed(graph.edges))
    assert graph != graph.with_nodes({"lif1": lif(0.9, 0.7, reset="subtract", trained_reset="zero")})
    assert graph != graph.with_nodes({"lif1": lif(np.nextafter(0.9, 1), 0.7)})
    assert graph != graph.astype(np.float32)
    assert graph == graph.annotate(history=["seen"], meta={"a": 1})


def test_float32_to_float64_and_back_is_the_same_graph():
    graph = two_layers(dtype=np.float32)
    assert graph.astype(np.float64).astype(np.float32) == graph
    assert graph.astype(np.float64).dtype == np.float64


def test_bypass_joins_what_stood_around_a_node():
    graph = chain(input=Input((3,)), s=Scale(np.float64(1)), output=Output()).bypass("s")
    assert graph.edges == (Edge("input", "output"),)
    assert "s" not in graph.nodes


BROKEN = {
    "every number is finite": Linear(np.array([[np.nan]])),
    "its arrays share one number format": Linear(np.ones((1, 1)), np.ones(1, np.float32)),
    "its weight has two axes": Linear(np.ones(1)),
    "its bias has one number per row of the weight": Linear(np.ones((1, 1)), np.ones(2)),
    "beta lies in [0, 1]": lif(1.01),
    "gain is one of": lif(gain="2"),
    "threshold is greater than 0": lif(threshold=0.0),
    "reset is one of": lif(reset="hard"),
    "phase is one of": lif(phase="later"),
    "fires is one of": lif(fires="<"),
    "its function is one of": Activation("step"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named_with_its_node(rule):
    graph = chain(input=Input((1,)), broken=BROKEN[rule], output=Output())
    with pytest.raises(InvalidGraph) as caught:
        check(graph)
    assert "'broken'" in str(caught.value)
    assert rule in str(caught.value)


def test_every_rule_is_kept_by_a_good_graph():
    graph = two_layers()
    assert check(graph) is graph
    assert all(
        holds(node) for node in graph.nodes.values() for owner, _, holds in RULES if isinstance(node, owner)
    )


def test_one_input_and_one_output_are_wanted():
    with pytest.raises(InvalidGraph, match="0 Output nodes"):
        check(Graph({"input": Input((3,))}, []))


def test_the_dialect_is_checked():
    graph = chain(
        input=Input((3,)), n=LIFScan(beta=np.float64(0.9), threshold=np.float64(1)), output=Output()
    )
    check(graph, Dialect.PARALLEL)
    with pytest.raises(InvalidGraph, match="LIFScan 'n' is parallel, wanted iterative"):
        check(graph, Dialect.ITERATIVE)
    assert LIF.dialect is Dialect.ITERATIVE

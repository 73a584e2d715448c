"""The whole numbers that leave each node, and the graphs of them that are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integers import (
    integer_network,
    memory_network,
    numbers_for,
    spikes_for,
    state_space_network,
)
from unscan.compiler.errors import InvalidGraph
from unscan.compiler.fixed import SPIKES, Fixed
from unscan.compiler.formats import formats
from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    LIF,
    Concatenate,
    Conv2d,
    Delay,
    Embedding,
    Flatten,
    Input,
    IntegerLIF,
    Linear,
    Multiply,
    Output,
    Quantize,
    Scale,
    Shift,
    SumPool2d,
)
from unscan.compiler.spec import check
from unscan.compiler.storage import load
from unscan.runtime.executors.reference import Reference
from unscan.runtime.executors.steps import step

BYTES = np.array([[1, -2, 3], [100, 100, 27]], np.int8)


def chain(*nodes: Node) -> Graph:
    named = {f"n{i}": node for i, node in enumerate(nodes)}
    return Graph(named, [Edge(f"n{i}", f"n{i + 1}") for i in range(len(nodes) - 1)])


def sent(*nodes: Node) -> Fixed | None:
    graph = chain(*nodes)
    return formats(graph)[f"n{len(nodes) - 1}"]


@pytest.mark.parametrize("seed", range(12))
def test_no_node_ever_sends_more_than_its_format_holds(seed: int):
    graphs = [(integer_network(seed), spikes_for), (memory_network(seed), numbers_for)]
    graphs += [(state_space_network(seed), numbers_for), (memory_network(seed, queries=None), numbers_for)]
    for graph, drawn in graphs:
        known, runner = formats(check(graph)), Reference(graph)
        state = {name: np.zeros((2, *shape)) for name, shape in graph.states.items()}
        for x in drawn(graph, 30, 2, seed):
            made, state = runner.advance(x, state)
            for name, each in made.items():
                held = known[name]
                assert held is None or held.allowed(each.value), (name, held)


def test_sums_are_as_wide_as_their_weights_can_make_them():
    spikes, numbers = Input((3,), Kind.SPIKE), Input((3,))
    assert sent(spikes, Linear(BYTES)) == Fixed.holding(227)
    assert sent(spikes, Linear(BYTES, np.array([0, 30], np.int16))) == Fixed.holding(257)
    assert sent(numbers, Quantize(bits=8, fraction=3), Linear(BYTES)) == Fixed.holding(227 * 127, 3)
    kernel = np.full((1, 1, 2, 2), 7, np.int8)
    images = Input((1, 4, 4), Kind.SPIKE)
    assert sent(images, Conv2d(weight=kernel)) == Fixed.holding(28)
    assert sent(images, SumPool2d(kernel=2, stride=2)) == Fixed.holding(4, signed=False)
    assert sent(numbers, Quantize(bits=8, fraction=3), Scale(np.int8(5))) == Fixed.holding(635, 3)
    assert sent(Input((1,), Kind.INDEX), Embedding(BYTES)) == Fixed.holding(100)


def test_real_numbers_have_no_format():
    assert sent(Input((3,)), Linear(BYTES.astype(np.float32))) is None
    assert sent(Input((3,), Kind.SPIKE), Linear(BYTES.astype(np.float32))) is None


def test_products_and_parts_are_as_wide_as_both():
    nodes: dict[str, Node] = {
        "input": Input((3,)),
        "a": Quantize(bits=8, fraction=3),
        "b": Quantize(bits=4, fraction=2, signed=False),
        "product": Multiply(),
        "both": Concatenate(2),
        "output": Output(),
    }
    edges = [Edge("input", "a"), Edge("input", "b"), Edge("a", "product", "a"), Edge("b", "product", "b")]
    edges += [Edge("product", "both", "x0"), Edge("a", "both", "x1"), Edge("both", "output")]
    found = formats(Graph(nodes, edges))
    assert found["product"] == Fixed.holding(127 * 15, 5)
    assert found["both"] == Fixed.holding(127 * 15, 5)


def lif(**settings: Any) -> IntegerLIF:
    return IntegerLIF(
        **{"beta": np.int32(4000), "threshold": np.int32(640), "trained_reset": "zero", **settings}
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": np.int32(4097)}, "beta lies in 0 .. 2\\^decay_bits"),
        ({"threshold": np.int32(-1)}, "threshold is not negative"),
        ({"threshold": np.int32(200), "bits": 8}, "fits in its bits"),
        ({"bits": 33}, "from 2 to 32 bits"),
        ({"shift": 16}, "shifted by 0 to 15"),
        ({"decay_bits": 16}, "from 1 to 15 bits"),
        ({"reset": "hard"}, "reset is one of"),
    ],
)
def test_settings_beyond_their_range_are_refused(settings: dict[str, Any], said: str):
    graph = chain(Input((3,), Kind.SPIKE), Linear(BYTES), lif(**settings), Output())
    with pytest.raises(InvalidGraph, match=said):
        check(graph)


def test_whole_numbers_are_not_computed_from_real_ones():
    with pytest.raises(InvalidGraph, match="port x gets real ones; put a Quantize"):
        check(chain(Input((3,)), Linear(BYTES), lif(), Output()))
    with pytest.raises(InvalidGraph, match="port x gets real ones"):
        check(chain(Input((3,), Kind.SPIKE), Linear(BYTES.astype(np.float32)), lif(), Output()))


def test_a_float_neuron_does_not_hold_whole_numbers():
    neuron = LIF(beta=np.int32(1), threshold=np.int32(3), trained_reset="zero")
    with pytest.raises(InvalidGraph, match="its numbers are floating-point ones"):
        check(chain(Input((3,), Kind.SPIKE), neuron, Output()))


def test_sums_beyond_32_bits_are_refused():
    wide = Linear(np.full((1, 3), 2**30, np.int32))
    with pytest.raises(InvalidGraph, match="numbers of 33 bits, wanted at most 32"):
        check(chain(Input((3,), Kind.SPIKE), wide, Output()))


def test_numbers_that_float64_cannot_hold_within_a_step_are_refused():
    filters = state_space_network()
    node: Any = filters.nodes["ssm"]
    check(filters)
    with pytest.raises(InvalidGraph, match=r"IntegerSSM 'ssm' may reach numbers of \d\d bits within a step"):
        check(filters.with_nodes({"ssm": replace(node, c=np.full_like(node.c, 2**30))}))
    memories = memory_network()
    wide = Shift(shift=np.int8(-15), bits=30)
    with pytest.raises(InvalidGraph, match="IntegerMemory 'memory' may reach numbers"):
        check(memories.with_nodes({"v": wide, "k": wide}))


def test_a_loop_in_which_nothing_bounds_the_numbers_is_refused():
    nodes: dict[str, Node] = {
        "input": Input((2,), Kind.SPIKE),
        "fc": Linear(np.eye(2, dtype=np.int8)),
        "back": Delay(steps=np.ones(()), shape=(2,), kind=Kind.REAL),
        "output": Output(),
    }
    edges = [Edge("input", "fc"), Edge("fc", "back"), Edge("back", "fc"), Edge("fc", "output")]
    with pytest.raises(InvalidGraph, match="nothing bounds the numbers"):
        check(Graph(nodes, edges))
    bounded = {**nodes, "back": nodes["back"], "sum": Shift(shift=np.int8(0), bits=8)}
    edges = [Edge("input", "fc"), Edge("fc", "sum"), Edge("sum", "back"), Edge("back", "fc")]
    check(Graph(bounded, [*edges, Edge("sum", "output")]))


def test_fractions_are_no_whole_numbers():
    with pytest.raises(ValueError, match="no whole numbers"):
        lif(beta=np.float32(0.5))


def test_a_graph_of_whole_numbers_comes_back_from_its_file(tmp_path: Path):
    for i, graph in enumerate([*map(integer_network, range(4)), memory_network(), state_space_network()]):
        graph.save(tmp_path / f"{i}.unscan")
        back = load(tmp_path / f"{i}.unscan")
        assert back == graph
        assert back.integer
        assert back.dtype == np.float64
        assert back.astype(np.float32) == graph


def test_flattened_spikes_stay_spikes():
    assert sent(Input((1, 2, 2), Kind.SPIKE), Flatten()) == SPIKES


def test_a_neuron_of_whole_numbers_is_the_float_neuron_times_its_scale():
    """Where every number is exact in both, u of the one is K times u of the other."""
    K, rng = 64, np.random.default_rng(0)
    x = rng.integers(0, 8, (50, 1, 5)).astype(np.float64) / 8
    for reset in ("none", "subtract", "zero"):
        for phase in ("now", "next"):
            real = LIF(
                beta=np.float64(1), threshold=np.float64(1.5), fires=">", reset=reset, phase=phase, trained_reset=reset
            )  # fmt: skip
            whole = lif(beta=np.int32(4096), threshold=np.int32(96), reset=reset, phase=phase)
            kept, held = np.zeros((1, 5)), np.zeros((1, 5))
            for x_t in x:
                a = step(real, {"u": kept}, x=x_t)
                b = step(whole, {"u": held}, x=x_t * K)
                kept, held = a.state["u"], b.state["u"]
                np.testing.assert_array_equal(a.value, b.value)
                np.testing.assert_array_equal(kept * K, held)


def test_replacing_an_array_keeps_a_node_whole():
    assert replace(lif(), beta=np.int64(7)).beta.dtype == np.int32

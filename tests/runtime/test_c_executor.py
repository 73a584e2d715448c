"""The C of a graph, compiled and run: whole numbers bit for bit, real ones to rounding."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from tests.graphs import graphs, sequence
from tests.integers import integer_network, memory_network, numbers_for, spikes_for, state_space_network
from tests.targets.every_node import CASES
from tests.targets.networks import chain, drive, feed_forward, lif, zoo
from unscan.compiler.errors import InvalidGraph, InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    Activation,
    Concatenate,
    Conv2d,
    Delay,
    Embedding,
    Flatten,
    Input,
    IntegerLI,
    IntegerLIF,
    LIFScan,
    Linear,
    Lookup,
    MaxPool2d,
    Multiply,
    Output,
    Quantize,
    Scale,
    Shift,
    SumPool2d,
    TopK,
)
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.c import C
from unscan.runtime.executors.reference import Reference

QUICK = ("-O1",)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def same(got: Execution, truth: Execution) -> None:
    np.testing.assert_array_equal(got.outputs, truth.outputs)
    for kind in ("spikes", "membranes", "state"):
        ours, theirs = getattr(got, kind), getattr(truth, kind)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=f"{kind} of {name}")


def close(got: Execution, truth: Execution, size: float = 1e-12) -> None:
    np.testing.assert_allclose(got.outputs, truth.outputs, atol=size, rtol=size)
    assert got.spikes.keys() == truth.spikes.keys()
    for name, spikes in truth.spikes.items():
        np.testing.assert_array_equal(got.spikes[name], spikes, err_msg=name)
    for kind in ("membranes", "state"):
        ours, theirs = getattr(got, kind), getattr(truth, kind)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, atol=size, rtol=size, err_msg=name)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_forty_networks_of_whole_numbers_are_the_reference_bit_for_bit(first):
    fired = 0
    for seed in range(first, first + 10):
        graph = integer_network(seed, "loihi2" if seed % 2 else "any")
        x = spikes_for(graph, 200, 1, seed)
        truth = Reference(graph).run(x)
        same(C(graph, flags=QUICK).run(x), truth)
        fired += sum(int(spikes.sum()) for spikes in truth.spikes.values())
    assert fired > 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("flavour", ["any", "loihi2"])
def test_every_flavour_of_forty_networks(seed, flavour):
    graph = integer_network(seed, flavour)
    x = spikes_for(graph, 200, 2, seed)
    same(C(graph).run(x), Reference(graph).run(x))


@pytest.mark.parametrize("seed", [4, 9, 14, 2])
def test_the_form_that_is_delivered_gives_the_same(seed):
    graph = integer_network(seed)
    x = spikes_for(graph, 100, 2, seed)
    got, truth = C(graph).run(x, record=False), Reference(graph).run(x)
    assert not got.spikes
    assert got.counts is None
    np.testing.assert_array_equal(got.outputs, truth.outputs)
    for name, value in truth.state.items():
        np.testing.assert_array_equal(got.state[name], value)


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("queries", [None, 2])
def test_a_memory_of_whole_numbers_is_the_reference_bit_for_bit(reset, queries):
    graph = memory_network(3, reset=reset, queries=queries, top_k=2 if queries else None)
    x = numbers_for(graph, 100, 2)
    truth = Reference(graph).run(x)
    assert truth.spikes["memory"].any()
    same(C(graph, flags=QUICK).run(x), truth)


@pytest.mark.parametrize("steps", [1, 63, 100])
def test_a_filter_of_whole_numbers_is_the_reference_bit_for_bit(steps):
    graph = state_space_network(1)
    x = numbers_for(graph, steps, 3)
    same(C(graph, flags=QUICK).run(x), Reference(graph).run(x))


@pytest.mark.parametrize("bits", [2, 8, 16, 24, 25, 32])
@pytest.mark.parametrize("signed", [True, False])
def test_numbers_are_quantised_as_the_reference_does(bits, signed):
    quantize = Quantize(bits=bits, fraction=3, signed=signed)
    x = np.concatenate([np.arange(-8, 8) / 16, [1e30, -1e30, 2.0**20 + 0.5, -3e5]]).astype(np.float32)
    graph = chain({"in": Input((20,)), "q": quantize, "out": Output()})
    same(C(graph, flags=QUICK).run(x[None, None]), Reference(graph).run(x[None, None]))


@pytest.mark.parametrize("shift", [[0], [3], [-4], [3, -2, 0, 5, 31]])
@pytest.mark.parametrize("bits", [4, 16, 32])
def test_numbers_are_shifted_as_the_reference_does(shift, bits):
    graph = chain(
        {
            "in": Input((5,)),
            "q": Quantize(bits=32, fraction=0),
            "shift": Shift(shift=np.array(shift, np.int32), bits=bits),
            "out": Output(),
        }
    )
    x = np.random.default_rng(0).integers(-(2**20), 2**20, (30, 1, 5)) * 2.0 ** np.arange(-8, 12, 4)
    x = x.astype(np.float32)
    same(C(graph, flags=QUICK).run(x), Reference(graph).run(x))


def whole_zoo(seed: int) -> Graph:
    """Every operator that carries whole numbers, images of them, sums of signals, numbers per channel."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, largest: int = 100, kind=np.int16):
        return rng.integers(-largest, largest, shape).astype(kind)

    nodes = {
        "in": Input((2, 6, 6)),
        "q": Quantize(bits=8, fraction=4),
        "scale": Scale(draw(2, 1, 1, largest=9, kind=np.int8)),
        "conv": Conv2d(weight=draw(4, 1, 3, 3), bias=draw(4, kind=np.int32), padding=1, stride=2, groups=2),
        "most": MaxPool2d(kernel=2, stride=1, padding=1),
        "sum": SumPool2d(kernel=2, stride=1),
        "relu": Activation("relu"),
        "shift": Shift(shift=draw(4, 1, 1, largest=9, kind=np.int8), bits=9),
        "neuron": IntegerLIF(
            beta=draw(1, 1, 3, largest=1, kind=np.int32) + 3000, threshold=np.int32(40), bias=draw(4, 1, 1, largest=9),
            trained_reset="zero", reset="subtract",
        ),
        "sum2": SumPool2d(kernel=2, stride=2, padding=1),
        "flat": Flatten(),
        "flat2": Flatten(),
        "both": Concatenate(2),
        "times": Multiply(),
        "kept": TopK(5),
        "w": Linear(draw(6, 52), draw(6, kind=np.int32)),
        "li": IntegerLI(beta=np.int32(2000), bias=draw(6), bits=32, decay_bits=11, wraps=True),
        "late": Delay(steps=np.asarray([1.0, 2, 3, 1, 2, 3]), shape=(6,), kind=Kind.REAL),
        "lookup": Lookup(table=draw(64), shift=18),
        "out": Output(),
    }  # fmt: skip
    chained = ["in", "q", "scale", "conv", "most", "sum", "relu", "shift", "neuron", "sum2", "flat"]
    edges = [
        *pairwise(chained),
        ("q", "conv"),
        ("shift", "flat2"),
        ("kept", "w"),
        ("w", "li"),
        ("li", "late"),
    ]
    edges += [("late", "lookup"), ("lookup", "out"), ("li", "out"), ("times", "kept")]
    ports = [("flat", "both", "x0"), ("flat2", "both", "x1"), ("both", "times", "a"), ("both", "times", "b")]
    return Graph(nodes, [*(Edge(*pair) for pair in edges), *(Edge(*each) for each in ports)])


@pytest.mark.parametrize("seed", range(3))
def test_every_operator_on_whole_numbers_is_the_reference_bit_for_bit(seed):
    graph = whole_zoo(seed)
    x = numbers_for(graph, 63, 2, seed)
    truth = Reference(graph).run(x)
    assert truth.spikes["neuron"].any()
    assert truth.outputs.any()
    same(C(graph, flags=QUICK).run(x), truth)


def test_words_of_whole_numbers():
    rng = np.random.default_rng(0)
    nodes = {
        "in": Input((1,), Kind.INDEX),
        "embed": Embedding(rng.integers(-300, 300, (9, 5)).astype(np.int16)),
        "glu": Lookup(table=rng.integers(-99, 99, 16).astype(np.int8), shift=5),
        "n": IntegerLIF(beta=np.int32(3000), threshold=np.int32(60), trained_reset="zero", phase="next"),
        "out": Output(),
    }
    graph = chain(nodes)
    x = rng.integers(0, 9, (50, 3, 1))
    truth = Reference(graph).run(x)
    assert truth.outputs.any()
    same(C(graph, flags=QUICK).run(x), truth)


@pytest.mark.parametrize("case", CASES)
def test_every_node_agrees_with_the_reference(case):
    graph = CASES[case]()
    x = sequence(graph, 30, 2)
    whole, runner = Reference(graph).run(x), C(graph, flags=("-O0",))
    close(runner.run(x), whole)
    moved = [whole.outputs, *whole.membranes.values()]
    assert any(values.any() for values in moved) or case == "delta-silent"
    first = runner.run(x[:13])
    close(runner.run(x[13:], first.state), Reference(graph).run(x[13:], Reference(graph).run(x[:13]).state))


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("batch", [1, 3])
def test_lengths_and_batches(steps, batch):
    graph = zoo(gelu=True)
    x = drive(graph, steps, batch)
    close(C(graph, flags=QUICK).run(x), Reference(graph).run(x))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(graphs())
def test_random_graphs_agree_with_the_reference(graph):
    assume(graph.dtype == np.float64)
    x = sequence(graph, 12, 2)
    close(C(graph, flags=("-O0",)).run(x), Reference(graph).run(x), 1e-9)


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("phase", ["now", "next"])
@pytest.mark.parametrize("fires", [">=", ">"])
def test_float32_differs_at_ties_only(reset, phase, fires):
    graph = feed_forward(dtype=np.float32, reset=reset, phase=phase, fires=fires)
    x = drive(graph, 100)
    got, truth = C(graph, flags=QUICK).run(x), Reference(graph).run(x)
    assert got.outputs.dtype == np.float32
    for name, spikes in truth.spikes.items():
        assert spikes.any()
        differ = got.spikes[name] != spikes
        distance = np.abs(truth.membranes[name] - graph.nodes[name].threshold)
        assert distance[differ].max(initial=0) < 1e-5
        assert differ.sum() <= 2


@pytest.mark.parametrize("fires", [">=", ">"])
def test_a_tie_fires_as_the_node_says(fires):
    graph = chain({"in": Input((1,)), "l": lif(beta=0.5, threshold=1.0, fires=fires), "out": Output()})
    x = np.array([1.0, 0.5, 0.75, 2.0]).reshape(4, 1, 1)
    np.testing.assert_array_equal(C(graph).run(x).spikes["l"], Reference(graph).run(x).spikes["l"])


def test_a_sequence_cut_in_two_equals_one_run():
    graph = integer_network(7)
    x, runner = spikes_for(graph, 60, 2), C(graph)
    whole, first = runner.run(x), runner.run(x[:23])
    second = runner.run(x[23:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    for name, value in whole.state.items():
        np.testing.assert_array_equal(second.state[name], value)
    state, outputs = None, []
    for x_t in x:
        y, state = runner.step(x_t, state)
        outputs.append(y)
    np.testing.assert_array_equal(np.stack(outputs), whole.outputs)


def test_runs_leave_the_state_that_they_were_given_alone():
    graph = integer_network(1)
    runner = C(graph)
    state = runner.run(spikes_for(graph, 5, 3)).state
    before = {name: value.copy() for name, value in state.items()}
    runner.run(spikes_for(graph, 5, 3), state)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32, np.float64, np.int64])
def test_spikes_may_come_in_any_number_format(kind):
    graph = integer_network(0)
    x = spikes_for(graph, 20, 2)
    np.testing.assert_array_equal(C(graph).run(x.astype(kind)).outputs, C(graph).run(x).outputs)


def test_input_that_does_not_fit_is_refused():
    graph = integer_network(0)
    runner, x = C(graph), spikes_for(graph, 3, 2)
    for wrong in (x[0], x[..., :-1], x[:0], x + 1, (x * 2).astype(np.uint8), x * np.nan):
        with pytest.raises(InvalidInput, match="The input 'input'"):
            runner.run(wrong)
    with pytest.raises(InvalidInput, match="carried state"):
        runner.run(x, {})
    real = chain({"in": Input((4,)), "s": Scale(np.float32(2)), "out": Output()})
    with pytest.raises(InvalidInput, match="beyond the range of float32"):
        C(real).run(np.full((1, 1, 4), 1e300))
    words = chain(
        {"in": Input((1,), Kind.INDEX), "e": Embedding(np.eye(3, dtype=np.float32)), "out": Output()}
    )
    with pytest.raises(InvalidInput, match="whole numbers from 0 to 2"):
        C(words).run(np.full((1, 1, 1), 3))


def test_delay_lines_behind_each_other_and_one_that_nothing_reads():
    rng = np.random.default_rng(3)
    late = {"shape": (7,), "kind": Kind.SPIKE}
    nodes = {
        "in": Input((7,), Kind.SPIKE),
        "near": Delay(steps=np.asarray(2.0), **late),
        "far": Delay(steps=np.asarray(3.0), **late),
        "each": Delay(steps=np.arange(1.0, 8), **late),
        "unread": Delay(steps=np.asarray(2.0), **late),
        "w": Linear(rng.normal(size=(4, 7))),
        "out": Output(),
    }
    pairs = [("in", "near"), ("near", "far"), ("far", "each"), ("far", "unread"), ("each", "w"), ("w", "out")]
    graph = Graph(nodes, [Edge(*pair) for pair in pairs])
    x = drive(graph, 40)
    close(C(graph).run(x), Reference(graph).run(x))


def test_spikes_that_are_read_one_by_one_and_all_at_once():
    rng = np.random.default_rng(5)
    nodes = {
        "in": Input((5,), Kind.SPIKE),
        "w": Linear(rng.normal(size=(5, 5))),
        "n": lif(beta=0.5, threshold=0.4),
        "gate": Activation("sigmoid"),
        "late": Activation("sigmoid"),
        "v": Linear(rng.normal(size=(5, 5))),
        "out": Output(),
    }
    pairs = [("in", "w"), ("w", "n"), ("in", "gate"), ("n", "late"), ("n", "v")]
    pairs += [(name, "out") for name in ("gate", "late", "v")]
    graph = Graph(nodes, [Edge(*pair) for pair in pairs])
    x = drive(graph, 40, rate=0.1)
    assert not x.any(axis=2).all()
    close(C(graph).run(x), Reference(graph).run(x))


def test_the_spikes_of_a_memory_may_be_late():
    graph = CASES["associative-zero-None-dense"]()
    late = Delay(steps=np.asarray(2.0), shape=graph.signals["memory"].shape, kind=Kind.SPIKE)
    edges = [edge for edge in graph.edges if edge.target != "out"]
    edges += [Edge("memory", "late"), Edge("late", "out")]
    graph = Graph({**graph.nodes, "late": late}, edges)
    x = drive(graph, 40)
    truth = Reference(graph).run(x)
    assert truth.outputs.any()
    close(C(graph).run(x), truth)


def test_a_graph_without_state_runs():
    graph = chain({"in": Input((4,)), "s": Scale(np.float64(2)), "out": Output()})
    x = drive(graph, 5)
    got = C(graph).run(x)
    np.testing.assert_array_equal(got.outputs, 2 * x)
    assert not got.state


def test_parallel_nodes_are_refused():
    neuron = LIFScan(beta=np.float64(0.9), threshold=np.float64(1))
    with pytest.raises(InvalidGraph, match="run unroll"):
        C(chain({"in": Input((4,)), "n": neuron, "out": Output()}))

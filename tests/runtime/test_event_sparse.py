"""Sparse weights, and neurons that decay when they are next looked at: what those that decay at every step give."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import lif, sequence
from tests.runtime.test_event import assert_bits, assert_same, assert_same_counts
from tests.runtime.test_event_memory import joined
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import LI, Delay, Input, Linear, Output
from unscan.compiler.nodes.neurons import FIRES, GAINS, RESETS
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.event import EventDriven, fan_out
from unscan.runtime.executors.event.program import Op
from unscan.runtime.executors.reference import Reference


@pytest.fixture(autouse=True)
def _narrow_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take layers as sparse that are too narrow to gain by it."""
    monkeypatch.setattr(fan_out, "DENSEST", 0.2)
    monkeypatch.setattr(fan_out, "WIDE", 0)


def thin(rng: np.random.Generator, outputs: int, inputs: int, share: float = 0.08, **settings: Any) -> Linear:
    """Draw weights of which only a share is not 0."""
    weight = rng.normal(0.5, 0.7, (outputs, inputs))
    weight[rng.random(weight.shape) >= share] = 0
    return Linear(weight, **settings)


def rowed(graph: Graph, *arguments: Any, **settings: Any) -> EventDriven:
    """Return the executor that adds whole rows of weights and decays every neuron at every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_out, "DENSEST", -1.0)
        executor = EventDriven(graph, *arguments, **settings)
    assert not {Op.WAKE, Op.SCATTER} & executor._program.ops
    return executor


def rows_of(executor: EventDriven, op: Op) -> int:
    return int((executor._program.code.table[:, 0] == op).sum())


def chained(*nodes: Node, width: int = 130) -> Graph:
    """Return Input -> nodes -> Output, the nodes named a, b, c, ..."""
    named: dict[str, Node] = {"in": Input((width,), Kind.SPIKE)}
    named |= {chr(ord("a") + i): node for i, node in enumerate(nodes)}
    named["out"] = Output()
    return Graph(named, [Edge(a, b) for a, b in pairwise(named)])


def deep(reset: Any = "zero", seed: int = 0, **neuron: Any) -> Graph:
    """Return sparse - sparse - dense - sparse layers behind each other, and a readout."""
    rng = np.random.default_rng(seed)
    return chained(
        thin(rng, 200, 130), lif(0.9, 1.0, reset, **neuron),
        thin(rng, 150, 200, 0.05), lif(rng.uniform(0, 1, 150), rng.uniform(0.5, 1.5, 150), reset, **neuron),
        Linear(rng.normal(0, 0.3, (70, 150))), lif(0.8, 1.0, reset, **neuron),
        thin(rng, 90, 70), lif(rng.choice([0.0, 0.5, 0.99, 1.0], 90), 0.7, reset, **neuron),
        Linear(rng.normal(size=(10, 90))), LI(beta=np.array(0.9)),
    )  # fmt: skip


def agreed(graph: Graph, x: Array, state: Any = None) -> Execution:
    """Run a graph recorded, quietly, as whole rows, and by the reference; return what all of them gave."""
    executor = EventDriven(graph, np.float64)
    got = executor.run(x, state)
    assert_same(got, Reference(graph).run(x, state))
    quiet = executor.run(x, state, record=False)
    np.testing.assert_array_equal(quiet.outputs, got.outputs)
    for name, value in got.state.items():
        np.testing.assert_array_equal(quiet.state[name], value)
    same_account(quiet, got)
    awake = rowed(graph, np.float64).run(x, state)
    assert_bits(got, awake)
    same_account(got, awake)
    return got


def same_account(got: Execution, wanted: Execution) -> None:
    """Assert that all counts are equal, peaks and those of each sample too."""
    assert_same_counts(got, wanted)
    assert got.counts is not None
    assert wanted.counts is not None
    assert got.counts.to_json(samples=True) == wanted.counts.to_json(samples=True)


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("reset", RESETS)
def test_layers_in_a_chain(reset: str, gain: Any, steps: int) -> None:
    graph = deep(reset, gain=gain)
    executor = EventDriven(graph, np.float64)
    assert rows_of(executor, Op.WAKE) == 3
    got = agreed(graph, sequence(graph, steps, 2, rate=0.1))
    assert steps == 1 or gain != "1" or all(spikes.any() for spikes in got.spikes.values())


@pytest.mark.parametrize("reset", RESETS)
def test_twenty_thousand_steps(reset: str) -> None:
    """Neurons that nothing reaches for long."""
    rng = np.random.default_rng(1)
    graph = chained(
        thin(rng, 40, 60, 0.1), lif(0.9995, 1.5, reset), thin(rng, 30, 40), lif(0.9, 0.4, reset), width=60
    )
    x = sequence(graph, 20_000, 1, rate=0.0002)
    idle = np.diff(np.flatnonzero(x[:, 0] @ (graph.nodes["a"].weight[0] != 0)))  # type: ignore[attr-defined]
    assert idle.max() > 1000
    got = agreed(graph, x)
    assert got.spikes["d"].any()


@pytest.mark.parametrize("fires", FIRES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_and_what_a_reset_leaves(reset: str, fires: Any, dtype: Any) -> None:
    """Numbers of few bits and a decay that is a power of 2: every sum is exact, and so is every power."""
    rng = np.random.default_rng(4)
    weight = rng.integers(-4, 20, (40, 70)) / 4 * (rng.random((40, 70)) < 0.15)
    graph = chained(Linear(weight), lif(0.5, 0.5, reset, fires=fires), width=70)
    x = sequence(graph, 20, 3, rate=0.03)
    wanted = Reference(graph).run(x)
    assert (wanted.membranes["b"] == 0.5).any(), "no tie was tested"
    got = EventDriven(graph, dtype).run(x)
    assert Op.WAKE in EventDriven(graph, dtype)._program.ops
    assert_bits(got, wanted)
    assert_same_counts(got, wanted)


@pytest.mark.parametrize("reset", RESETS)
def test_a_carried_membrane_above_threshold_fires_without_input(reset: str) -> None:
    rng = np.random.default_rng(5)
    graph = chained(thin(rng, 80, 60), lif(0.95, 1.0, reset), width=60)
    state = {"b.u": rng.normal(0, 3, (2, 80))}
    got = agreed(graph, np.zeros((30, 2, 60), bool), state)
    assert got.spikes["b"].any()


def test_several_linears_into_one_layer_and_several_sources_of_one_linear() -> None:
    rng = np.random.default_rng(6)
    nodes: dict[str, Node] = {
        "in": Input((80,), Kind.SPIKE),
        "a": thin(rng, 80, 80),
        "n": lif(0.9, 0.8),
        "b": thin(rng, 70, 80),
        "c": thin(rng, 70, 80),
        "m": lif(0.7, 1.0, "subtract"),
        "out": Output(),
    }
    pairs = [
        ("in", "a"),
        ("a", "n"),
        ("in", "b"),
        ("n", "b"),
        ("n", "c"),
        ("b", "m"),
        ("c", "m"),
        ("m", "out"),
    ]
    graph = Graph(nodes, [Edge(*pair) for pair in pairs])
    assert rows_of(EventDriven(graph), Op.WAKE) == 2
    got = agreed(graph, sequence(graph, 100, 2, rate=0.1))
    assert got.counts is not None
    assert got.counts.events["b"].any()
    assert got.spikes["m"].any()


def test_a_loop_through_a_delay() -> None:
    rng = np.random.default_rng(7)
    nodes: dict[str, Node] = {
        "in": Input((60,), Kind.SPIKE),
        "a": thin(rng, 90, 60),
        "n": lif(0.9, 1.0, "subtract"),
        "delay": Delay(steps=np.array(2.0), shape=(90,), kind=Kind.SPIKE),
        "back": thin(rng, 90, 90, 0.03),
        "out": Output(),
    }
    pairs = [("in", "a"), ("a", "n"), ("n", "delay"), ("delay", "back"), ("back", "n"), ("n", "out")]
    graph = Graph(nodes, [Edge(*pair) for pair in pairs])
    assert rows_of(EventDriven(graph), Op.WAKE) == 1
    assert agreed(graph, sequence(graph, 100, 2, rate=0.05)).spikes["n"].any()


def test_other_readers_take_the_ordinary_path() -> None:
    rng = np.random.default_rng(8)
    linear, neuron = thin(rng, 50, 60), lif(0.9, 0.8)
    biased = thin(rng, 50, 60, bias=rng.normal(0, 0.1, 50))
    beside = Graph(
        {
            "in": Input((60,), Kind.SPIKE),
            "a": linear,
            "b": neuron,
            "c": LI(beta=np.array(0.5)),
            "out": Output(),
        },
        [Edge("in", "a"), Edge("a", "b"), Edge("a", "c"), Edge("c", "out")],
    )
    others = [
        beside,
        chained(linear, width=60),
        chained(biased, neuron, width=60),
        chained(linear, LI(beta=np.array(0.9)), width=60),
    ]
    for graph in others:
        executor = EventDriven(graph)
        assert (rows_of(executor, Op.WAKE), rows_of(executor, Op.SCATTER)) == (0, 1)
        agreed(graph, sequence(graph, 63, 2, rate=0.1))


@pytest.mark.parametrize("kind", [Kind.REAL, Kind.GRADED])
def test_sparse_weights_of_numbers(kind: Kind) -> None:
    rng = np.random.default_rng(9)
    graph = Graph(
        {"in": Input((60,), kind), "a": thin(rng, 50, 60), "b": lif(0.9, 0.8), "out": Output()},
        [Edge("in", "a"), Edge("a", "b"), Edge("b", "out")],
    )
    assert rows_of(EventDriven(graph), Op.SCATTER) == 1
    agreed(graph, sequence(graph, 63, 2, rate=0.1))


@pytest.mark.parametrize("reset", RESETS)
def test_a_sequence_cut_in_two_equals_one_run(reset: str) -> None:
    x, executor = sequence(deep(reset), 300, 2, rate=0.02), EventDriven(deep(reset))
    whole = executor.run(x)
    for cut in (1, 63, 150):
        first = executor.run(x[:cut])
        second = executor.run(x[cut:], first.state)
        assert_bits(joined(first, second), whole)
        assert first.counts is not None
        assert second.counts is not None
        assert whole.counts is not None
        assert first.counts.then(second.counts).by_node == whole.counts.by_node


def test_threads_and_batches_change_nothing() -> None:
    graph = deep("none")
    x = sequence(graph, 80, 5, rate=0.03)
    one, three = EventDriven(graph, threads=1).run(x), EventDriven(graph, threads=3).run(x)
    assert_bits(three, one)
    same_account(three, one)
    for b in range(5):
        np.testing.assert_array_equal(
            EventDriven(graph).run(x[:, b : b + 1]).outputs[:, 0], one.outputs[:, b]
        )


def test_float32_is_as_close_as_its_roundings() -> None:
    """What arrived k steps ago was rounded by k decays on either side: eps |I| (0 + beta + 2 beta^2 + ...), twice."""
    rng = np.random.default_rng(11)
    beta, most = 0.9, 0.5
    weight = rng.uniform(-most, most, (80, 60)) * (rng.random((80, 60)) < 0.1)
    graph = chained(Linear(weight), lif(beta, 1e6, "none"), width=60)
    x = sequence(graph, 500, 2, rate=0.05)
    got, wanted = EventDriven(graph, np.float32).run(x), Reference(graph).run(x)
    assert got.membranes["b"].dtype == np.float32
    fan_in = np.count_nonzero(weight, axis=1).max()
    bound = 2 * np.finfo(np.float32).eps * most * fan_in * (beta / (1 - beta) ** 2 + fan_in / (1 - beta))
    assert np.abs(got.membranes["b"] - wanted.membranes["b"]).max() < bound


@given(
    st.integers(0, 10_000), st.sampled_from(RESETS), st.sampled_from(FIRES), st.sampled_from(GAINS),
    st.lists(st.sampled_from([1, 5, 64, 65, 130]), min_size=2, max_size=5), st.sampled_from([1, 2, 63, 130]),
    st.sampled_from([0.0, 0.02, 0.3]),
)  # fmt: skip
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_chain_agrees(
    seed: int, reset: str, fires: Any, gain: Any, widths: list[int], steps: int, rate: float
) -> None:
    rng = np.random.default_rng(seed)
    nodes: list[Node] = []
    for inputs, outputs in pairwise(widths):
        beta = rng.uniform(0, 1, [(), (outputs,)][rng.integers(2)])
        nodes += [
            thin(rng, outputs, inputs, rng.uniform(0, 0.3)),
            lif(beta, 0.6, reset, fires=fires, gain=gain),
        ]
    graph = chained(*nodes, width=widths[0])
    agreed(graph, sequence(graph, steps, 2, seed, rate=rate))


def test_layers_are_taken_as_sparse_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rng = np.random.default_rng(12)
    for outputs, share, ops in ((2048, 0.015, (1, 0)), (100, 0.01, (0, 1)), (100, 0.1, (0, 0))):
        graph = chained(thin(rng, outputs, 800, share), lif(), width=800)
        executor = EventDriven(graph)
        assert (rows_of(executor, Op.WAKE), rows_of(executor, Op.SCATTER)) == ops


def touched(width: int, steps: int) -> int:
    """Return the weights and blocks that a run looks at, of a layer into which 8 inputs send to 16 neurons each."""
    rng = np.random.default_rng(width)
    weight = np.zeros((width, 8))
    for column in weight.T:
        column[rng.choice(width, 16, replace=False)] = rng.normal(0, 0.1, 16)
    executor = EventDriven(chained(Linear(weight), lif(0.9, 1.0), Linear(np.ones((1, width))), width=8))
    room = executor._packed(None, 1)
    _, done = executor._run(np.ones((steps, 1, 8)), room, *executor._unrecorded, False)
    return int(done.tallies[executor._program.touched["b"]])


def test_a_step_touches_what_is_reached_and_not_what_is_there() -> None:
    """8 x 16 weights a step, and at most as many blocks of neurons again; all blocks in the first step."""
    work = {width: touched(width, 100) for width in (256, 4096, 65536)}
    for width, operations in work.items():
        assert 100 * 8 * 16 < operations <= 100 * 2 * 8 * 16 + width / 64


def test_silence_touches_nothing() -> None:
    """But for the first step, which looks for neurons that may fire in the state that it was given."""
    executor = EventDriven(deep("zero"))
    room = executor._packed(None, 1)
    _, done = executor._run(np.zeros((1000, 1, 130)), room, *executor._unrecorded, False)
    blocks = {"b": 4, "d": 3, "h": 2}
    assert {name: done.tallies[place] for name, place in executor._program.touched.items()} == blocks

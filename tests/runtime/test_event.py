"""The event executor against the reference: same spikes, same membranes, same counts, whatever the graph."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import PARTS, graphs, lif, sequence
from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    LI,
    AdaptiveLIF,
    AssociativeMemory,
    DeltaMemory,
    Input,
    LayerNorm,
    LIConvolution,
    LIFConvolution,
    LIFScan,
    Linear,
    Output,
    RMSNorm,
    Scale,
    TopK,
)
from unscan.compiler.nodes.neurons import FIRES, GAINS
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.program import VARIANTS
from unscan.runtime.executors.reference import Reference

RESET_AND_PHASE = sorted(VARIANTS)


def chain(*nodes: Node, shape: tuple[int, ...] = (1,), kind: Kind = Kind.REAL) -> Graph:
    """Return Input -> nodes -> Output, the nodes named a, b, c, ..."""
    named: dict[str, Node] = {"in": Input(shape, kind)}
    named |= {chr(ord("a") + i): node for i, node in enumerate(nodes)}
    named["out"] = Output()
    names = list(named)
    return Graph(named, [Edge(a, b) for a, b in pairwise(names)])


def assert_close(got: Any, wanted: Any) -> None:
    assert got.shape == wanted.shape
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12 * scale)


def assert_same(got: Execution, wanted: Execution) -> None:
    """Assert that two executions agree: spikes exactly, numbers to rounding, counts exactly."""
    assert list(got.spikes) == list(wanted.spikes)
    assert list(got.membranes) == list(wanted.membranes)
    for name, spikes in wanted.spikes.items():
        assert got.spikes[name].dtype == bool
        np.testing.assert_array_equal(got.spikes[name], spikes, err_msg=name)
    for name, membranes in wanted.membranes.items():
        assert_close(got.membranes[name], membranes)
    assert_close(got.outputs, wanted.outputs)
    assert got.state.keys() == wanted.state.keys()
    for name, state in wanted.state.items():
        assert_close(got.state[name], state)
    assert_same_counts(got, wanted)


def assert_same_counts(got: Execution, wanted: Execution) -> None:
    assert got.counts is not None
    assert wanted.counts is not None
    assert list(got.counts.events) == list(wanted.counts.events)
    for name, events in wanted.counts.events.items():
        np.testing.assert_array_equal(got.counts.events[name], events, err_msg=name)
    assert got.counts.tallies == wanted.counts.tallies
    assert got.counts.by_node == wanted.counts.by_node
    assert (got.counts.steps, got.counts.samples) == (wanted.counts.steps, wanted.counts.samples)


def assert_bits(got: Execution, wanted: Execution) -> None:
    """Assert that two executions are equal bit for bit."""
    np.testing.assert_array_equal(got.outputs, wanted.outputs)
    for held, other in ((got.spikes, wanted.spikes), (got.membranes, wanted.membranes)):
        for name, value in other.items():
            np.testing.assert_array_equal(held[name], value)
    for name, value in wanted.state.items():
        np.testing.assert_array_equal(got.state[name], value)


@given(graphs(), st.sampled_from([1, 2, 63, 100]), st.integers(1, 3), st.sampled_from([0.0, 0.05, 0.5, 1.0]))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_graph_agrees_with_the_reference(graph: Graph, steps: int, samples: int, rate: float) -> None:
    x = sequence(graph, steps, samples, rate=rate)
    executor = EventDriven(graph, np.float64)
    whole = executor.run(x)
    assert_same(whole, Reference(graph).run(x))
    quiet = executor.run(x, record=False)
    np.testing.assert_array_equal(quiet.outputs, whole.outputs)
    assert (quiet.spikes, quiet.membranes) == ({}, {})
    assert_same_counts(quiet, whole)
    if steps > 1:
        first = executor.run(x[: steps // 2])
        second = executor.run(x[steps // 2 :], first.state)
        np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
        for name, spikes in whole.spikes.items():
            np.testing.assert_array_equal(np.concatenate([first.spikes[name], second.spikes[name]]), spikes)
        for name, state in whole.state.items():
            np.testing.assert_array_equal(second.state[name], state)
    for b in range(samples):
        alone = executor.run(x[:, b : b + 1])
        np.testing.assert_array_equal(alone.outputs[:, 0], whole.outputs[:, b])
        for name, membranes in whole.membranes.items():
            np.testing.assert_array_equal(alone.membranes[name][:, 0], membranes[:, b])


NEAR = tuple(
    part
    for part in PARTS
    if part not in (TopK, AdaptiveLIF, LayerNorm, RMSNorm, AssociativeMemory, DeltaMemory)
)
"""Nodes of fixed thresholds that put no numbers in order and magnify no difference."""


@given(graphs(NEAR))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_float32_differs_from_the_reference_only_at_ties(graph: Graph) -> None:
    graph = graph.astype(np.float32)
    x = sequence(graph, 63, 2, rate=0.2)
    got, wanted = EventDriven(graph).run(x), Reference(graph).run(x)
    assert got.outputs.dtype == np.float32
    firsts = []
    for name, spikes in wanted.spikes.items():
        differs = got.spikes[name] != spikes
        if differs.any():
            where = tuple(np.argwhere(differs)[0])
            theta = np.broadcast_to(graph.nodes[name].threshold, spikes.shape[2:])[where[2:]]  # type: ignore[attr-defined]
            firsts.append((where[0], abs(wanted.membranes[name][where] - theta)))
    if firsts:
        assert min(firsts)[1] < 1e-5
    else:
        scale = max(1.0, float(np.abs(wanted.outputs).max()))
        np.testing.assert_allclose(got.outputs, wanted.outputs, rtol=1e-3, atol=1e-3 * scale)


def deep(kind: Kind = Kind.SPIKE, seed: int = 0) -> Graph:
    """Return 130-96-70-10 with a residual connection, one neuron of every reset."""
    rng = np.random.default_rng(seed)

    def linear(rows: int, columns: int) -> Linear:
        return Linear(rng.standard_normal((rows, columns)) * 2 / np.sqrt(columns))

    nodes: dict[str, Node] = {
        "in": Input((130,), kind),
        "f1": linear(96, 130),
        "n1": lif(0.9, 1.0, "subtract"),
        "f2": linear(70, 96),
        "n2": lif(0.8, rng.uniform(0.5, 1.5, 70), "zero", phase="next"),
        "f3": linear(70, 70),
        "n3": lif(0.5, 1.0, "none", fires=">"),
        "f4": linear(10, 70),
        "n4": LI(beta=np.array(0.9)),
        "out": Output(),
    }
    names = list(nodes)
    return Graph(nodes, [*(Edge(a, b) for a, b in pairwise(names)), Edge("n2", "n3")])


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
@pytest.mark.parametrize("kind", [Kind.SPIKE, Kind.GRADED, Kind.REAL])
def test_lengths(steps: int, kind: Kind) -> None:
    graph = deep(kind)
    x = sequence(graph, steps, 2, rate=0.1)
    assert_same(EventDriven(graph, np.float64).run(x), Reference(graph).run(x))


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("fires", FIRES)
@pytest.mark.parametrize(("reset", "phase"), RESET_AND_PHASE)
def test_a_neuron_on_the_input_is_equal_bit_for_bit(reset: str, phase: Any, fires: Any, gain: Any) -> None:
    rng = np.random.default_rng(3)
    neuron = lif(rng.uniform(0, 1, 130), rng.uniform(0.2, 2, 130), reset, phase=phase, fires=fires, gain=gain)
    graph = chain(neuron, shape=(130,))
    x = sequence(graph, 100, 2, rate=0.5)
    assert_bits(EventDriven(graph).run(x), Reference(graph).run(x))


@pytest.mark.parametrize("fires", FIRES)
@pytest.mark.parametrize(("reset", "phase"), RESET_AND_PHASE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_and_what_a_reset_leaves(reset: str, phase: Any, fires: Any, dtype: Any) -> None:
    """Numbers of few bits, so that every sum is exact, ties are frequent and all formats must agree."""
    rng = np.random.default_rng(4)
    weight = rng.integers(-4, 9, (40, 70)) / 4
    graph = chain(
        Linear(weight), lif(0.5, 0.5, reset, phase=phase, fires=fires), shape=(70,), kind=Kind.SPIKE
    )
    x = sequence(graph, 12, 3, rate=0.03)
    wanted = Reference(graph).run(x)
    assert (wanted.membranes["b"] == 0.5).any(), "no tie was tested"
    got = EventDriven(graph, dtype).run(x)
    np.testing.assert_array_equal(got.spikes["b"], wanted.spikes["b"])
    np.testing.assert_array_equal(got.membranes["b"], wanted.membranes["b"])
    assert_same_counts(got, wanted)


def test_a_soft_reset_fires_on_without_input() -> None:
    graph = chain(Linear(np.full((1, 1), 8.0)), lif(0.9, 1.0, "subtract"), kind=Kind.SPIKE)
    x = np.zeros((40, 1, 1), bool)
    x[0] = True
    got, wanted = EventDriven(graph).run(x), Reference(graph).run(x)
    assert wanted.spikes["b"].sum() > 3
    assert_same(got, wanted)


@pytest.mark.parametrize(("reset", "phase"), RESET_AND_PHASE)
def test_a_carried_membrane_above_threshold_fires_without_input(reset: str, phase: Any) -> None:
    graph = chain(Linear(np.ones((2, 1))), lif(0.9, 1.0, reset, phase=phase), kind=Kind.SPIKE)
    x = np.zeros((30, 2, 1), bool)
    state = {"b.u": np.array([[5.0, 0.5], [1.2, -3.0]])}
    got, wanted = EventDriven(graph).run(x, state), Reference(graph).run(x, state)
    assert wanted.spikes["b"].any() or (reset, phase) == ("zero", "next")
    assert_same(got, wanted)
    np.testing.assert_array_equal(state["b.u"], [[5.0, 0.5], [1.2, -3.0]])


def test_silence_costs_nothing_and_says_nothing() -> None:
    graph = deep()
    got = EventDriven(graph).run(np.zeros((63, 2, 130), bool))
    assert got.counts is not None
    assert (got.counts.total.acs, got.counts.total.macs, got.counts.total.spikes) == (0, 0, 0)
    assert not got.outputs.any()
    assert not any(spikes.any() for spikes in got.spikes.values())


def test_a_layer_with_bias_is_never_without_input() -> None:
    graph = chain(Linear(np.zeros((3, 2)), np.array([0.4, 0.0, -1.0])), lif(), shape=(2,), kind=Kind.SPIKE)
    x = np.zeros((20, 1, 2), bool)
    got, wanted = EventDriven(graph).run(x), Reference(graph).run(x)
    assert wanted.spikes["b"].any()
    assert_same(got, wanted)


def test_linears_in_a_row_and_a_linear_with_two_readers() -> None:
    rng = np.random.default_rng(8)
    nodes: dict[str, Node] = {
        "in": Input((66,), Kind.SPIKE),
        "a": Linear(rng.standard_normal((40, 66))),
        "b": Linear(rng.standard_normal((30, 40)), rng.standard_normal(30)),
        "n": lif(),
        "m": lif(0.3, 0.7, "subtract"),
        "out": Output(),
    }
    pairs = [("in", "a"), ("a", "b"), ("b", "n"), ("b", "m"), ("n", "out"), ("m", "out")]
    graph = Graph(nodes, [Edge(*pair) for pair in pairs])
    x = sequence(graph, 63, 2, rate=0.3)
    assert_same(EventDriven(graph).run(x), Reference(graph).run(x))


def test_step_by_step_equals_the_run() -> None:
    graph = deep()
    x = sequence(graph, 20, 3, rate=0.2)
    executor = EventDriven(graph)
    whole, state = executor.run(x), None
    for t, x_t in enumerate(x):
        y, state = executor.step(x_t, state)
        np.testing.assert_array_equal(y, whole.outputs[t])
    assert state is not None
    for name, value in whole.state.items():
        np.testing.assert_array_equal(state[name], value)


def test_threads_change_nothing() -> None:
    graph = deep()
    x = sequence(graph, 40, 7, rate=0.2)
    one, three = EventDriven(graph, threads=1).run(x), EventDriven(graph, threads=3).run(x)
    assert_bits(three, one)
    assert_same_counts(three, one)


@pytest.mark.parametrize("layout", ["bool", "int64", "uint8", "float32", "read-only", "strided", "fortran"])
def test_any_array_is_read(layout: str) -> None:
    graph = deep()
    x = sequence(graph, 10, 2, rate=0.2)
    wanted = EventDriven(graph).run(x)
    if layout == "strided":
        wide = np.zeros((20, 2, 130))
        wide[::2] = x
        x = wide[::2]
    elif layout == "fortran":
        x = np.asfortranarray(x)
    elif layout == "read-only":
        x = x.astype(np.float64)
        x.setflags(write=False)
    else:
        x = x.astype(layout)
    assert_bits(EventDriven(graph).run(x), wanted)


@pytest.mark.parametrize("cut", [63, 64, 130])
def test_bad_spikes_are_found_wherever_they_stand(cut: int) -> None:
    graph = chain(lif(), shape=(cut,), kind=Kind.SPIKE)
    executor = EventDriven(graph)
    for at in (0, cut - 1, min(64, cut - 1)):
        for bad in (0.5, -1.0, 2.0):
            x = np.zeros((50, 2, cut))
            x[49, 1, at] = bad
            with pytest.raises(InvalidInput, match="takes spikes"):
                executor.run(x)
    with pytest.raises(InvalidInput, match="takes spikes"):
        executor.run(np.full((1, 1, cut), 2, np.uint8))


@pytest.mark.parametrize("kind", [Kind.SPIKE, Kind.GRADED, Kind.REAL])
def test_bad_input_is_refused(kind: Kind) -> None:
    graph = chain(lif(), shape=(3,), kind=kind)
    executor = EventDriven(graph)
    for shape in [(5, 3), (5, 1, 4), (5, 1, 3, 1), (0, 1, 3), (5, 0, 3)]:
        with pytest.raises(InvalidInput, match="array of shape"):
            executor.run(np.zeros(shape))
    with pytest.raises(InvalidInput, match="array of shape"):
        executor.step(np.zeros((1, 1, 3)))
    for bad in (np.nan, np.inf):
        x = np.zeros((5, 1, 3))
        x[4, 0, 2] = bad
        with pytest.raises(InvalidInput, match="not finite"):
            executor.run(x)
        with pytest.raises(InvalidInput, match="not finite"):
            executor.step(x[4])
    np.testing.assert_array_equal(executor.run(np.zeros((2, 1, 3))).outputs, 0)


@pytest.mark.parametrize("state", [{}, {"a.u": np.zeros((2, 3))}, {"a.v": np.zeros((1, 3))}])
def test_a_state_that_does_not_fit_is_refused(state: Any) -> None:
    executor = EventDriven(chain(lif(), shape=(3,)))
    with pytest.raises(InvalidInput, match="carried state"):
        executor.run(np.zeros((2, 1, 3)), state)


def test_numbers_beyond_float32_are_refused() -> None:
    graph = chain(lif(threshold=1e-60))
    with pytest.raises(Unsupported, match="rounds to 0"):
        EventDriven(graph, np.float32)
    with pytest.raises(Unsupported, match="beyond the range"):
        EventDriven(chain(Scale(np.array(1e300))), np.float32)
    with pytest.raises(InvalidInput, match="beyond the range"):
        EventDriven(chain(lif()), np.float32).run(np.full((1, 1, 1), 1e300))


@pytest.mark.parametrize("node", [LIFScan, LIFConvolution, LIConvolution])
def test_parallel_nodes_are_refused(node: Any) -> None:
    beta, threshold = np.array(0.9), np.array(1.0)
    spiking = node is not LIConvolution
    made = node(beta=beta, threshold=threshold, reset="none") if spiking else node(beta=beta)
    with pytest.raises(Unsupported, match="unroll"):
        EventDriven(chain(made))


def test_other_faults_are_refused() -> None:
    with pytest.raises(InvalidGraph, match="beta lies in"):
        EventDriven(chain(lif(beta=1.5)))
    with pytest.raises(InvalidInput, match="wanted float32 or float64"):
        EventDriven(chain(lif()), np.float16)
    with pytest.raises(InvalidInput, match="threads"):
        EventDriven(chain(lif()), threads=0)


def test_operations_grow_with_the_events() -> None:
    graph = chain(Linear(np.ones((50, 400))), lif(threshold=1e9), shape=(400,), kind=Kind.SPIKE)
    executor = EventDriven(graph)
    for rate in (0.01, 0.1, 0.5):
        x = sequence(graph, 50, 1, rate=rate)
        counts = executor.run(x, record=False).counts
        assert counts is not None
        assert counts.total.acs == 50 * x.sum()
        assert counts.total.macs == 0

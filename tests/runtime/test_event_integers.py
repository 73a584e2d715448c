"""Whole numbers on the event executor: bit for bit what the reference computes, for work that follows the events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integers import (
    integer_network,
    numbers_for,
    sigmoid_table,
    spikes_for,
    state_space_network,
)
from tests.runtime.test_event import assert_bits, assert_same_counts, chain
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Activation,
    Concatenate,
    Conv1d,
    Conv2d,
    Delay,
    Embedding,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLI,
    IntegerLIF,
    IntegerSSM,
    Linear,
    Lookup,
    MaxPool2d,
    Multiply,
    Output,
    Quantize,
    Reshape,
    Scale,
    Shift,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.neurons import PHASES, RESETS
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.integers import ASLEEP
from unscan.runtime.executors.reference import Reference


def assert_equal(got: Execution, wanted: Execution) -> None:
    """Assert that two executions are equal in everything, the final states and the tallies too."""
    assert list(got.spikes) == list(wanted.spikes)
    assert list(got.membranes) == list(wanted.membranes)
    assert got.state.keys() == wanted.state.keys()
    assert_bits(got, wanted)
    assert_same_counts(got, wanted)


def agreed(graph: Graph, x: Array, state: Any = None) -> Execution:
    """Run a sequence recorded, unrecorded and cut in two, hold each against the reference, and return the run."""
    executor, wanted = EventDriven(graph), Reference(graph).run(x, state)
    whole = executor.run(x, state)
    assert_equal(whole, wanted)
    quiet = executor.run(x, state, record=False)
    np.testing.assert_array_equal(quiet.outputs, wanted.outputs)
    for name, value in wanted.state.items():
        np.testing.assert_array_equal(quiet.state[name], value)
    assert_same_counts(quiet, wanted)
    if len(x) > 1:
        cut = len(x) // 3 or 1
        first = executor.run(x[:cut], state, record=False)
        second = executor.run(x[cut:], first.state)
        assert_bits(second, Execution(wanted.outputs[cut:], {}, {}, wanted.state, None))
        for got, told in ((second.spikes, wanted.spikes), (second.membranes, wanted.membranes)):
            for name, value in told.items():
                np.testing.assert_array_equal(got[name], value[cut:])
        assert_same_counts(Execution(whole.outputs, {}, {}, {}, joined(first, second)), wanted)
    return whole


def joined(first: Execution, second: Execution) -> Any:
    assert first.counts is not None
    assert second.counts is not None
    total = first.counts + second.counts
    if first.counts.steps != second.counts.steps:
        return total
    return type(total)(total.graph, total.events, 2 * first.counts.steps, first.counts.samples, total.tallies)


@given(
    st.integers(0, 10_000),
    st.sampled_from(["any", "loihi2"]),
    st.sampled_from([None, True]),
    st.sampled_from([1, 2, 63, 100]),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_network_is_equal_bit_for_bit(
    seed: int, flavour: Any, stress: bool | None, steps: int, samples: int
) -> None:
    graph = integer_network(seed, flavour, stress=stress)
    agreed(graph, spikes_for(graph, steps, samples, seed))


@pytest.mark.parametrize("flavour", ["any", "loihi2"])
def test_long_runs(flavour: Any) -> None:
    fired = saturated = 0
    for seed in range(5):
        graph = integer_network(seed, flavour)
        got = agreed(graph, spikes_for(graph, 500, 2, seed))
        fired += sum(int(spikes.sum()) for spikes in got.spikes.values())
        assert got.counts is not None
        saturated += sum(tally["saturated"] for tally in got.counts.tallies.values())
    assert fired > 1000
    assert saturated > 0


def test_samples_threads_and_steps_change_nothing() -> None:
    graph = integer_network(3)
    x = spikes_for(graph, 40, 5)
    whole = EventDriven(graph, threads=1).run(x)
    assert_equal(EventDriven(graph, threads=3).run(x), whole)
    for b in range(5):
        alone = EventDriven(graph).run(x[:, b : b + 1])
        np.testing.assert_array_equal(alone.outputs[:, 0], whole.outputs[:, b])
    executor, state = EventDriven(graph), None
    for t, x_t in enumerate(x):
        y, state = executor.step(x_t, state)
        np.testing.assert_array_equal(y, whole.outputs[t])
    assert state is not None
    for name, value in whole.state.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize("steps", [1, 63, 100, 500])
@pytest.mark.parametrize("seed", range(3))
def test_state_space_networks(seed: int, steps: int) -> None:
    graph = state_space_network(seed)
    agreed(graph, numbers_for(graph, steps, 2, seed))


def driven(
    node: Node, seed: int, steps: int = 100, rate: float = 0.3, width: int = 70
) -> tuple[Graph, Array]:
    """Return a node behind weights, and spikes, with two long silences among them."""
    rng = np.random.default_rng(seed)
    graph = chain(
        Linear(rng.integers(-60, 80, (width, 30)).astype(np.int8)), node, shape=(30,), kind=Kind.SPIKE
    )
    x = rng.random((steps, 2, 30)) < rate
    x[steps // 4 : steps // 2] = x[-steps // 4 :] = False
    return graph, x


@pytest.mark.parametrize("kind", [IntegerLIF, IntegerCubaLIF])
@pytest.mark.parametrize("bias", [None, 0, 9, -9])
@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("reset", RESETS)
def test_neurons_of_every_setting(reset: Any, phase: Any, wraps: bool, bias: int | None, kind: Any) -> None:
    rng = np.random.default_rng(1)
    more = {"alpha": np.int32(900)} if kind is IntegerCubaLIF else {}
    node = kind(
        beta=rng.integers(0, 1025, 70), threshold=rng.integers(0, 500, 70), reset=reset, phase=phase, wraps=wraps,
        bias=None if bias is None else np.int32(bias), bits=11, shift=1, decay_bits=10, trained_reset=reset, **more,
    )  # fmt: skip
    graph, x = driven(node, 2)
    got = agreed(graph, x)
    assert 0 < got.spikes["b"].mean() < 1
    assert got.counts is not None
    assert got.counts.tallies["b"]["saturated"] > 0


@pytest.mark.parametrize("kind", [IntegerLIF, IntegerCubaLIF, IntegerLI])
@pytest.mark.parametrize("beta", [0, 900, 1024])
def test_carried_states_of_any_size(kind: Any, beta: int) -> None:
    """Membranes above the threshold and beyond what a format holds, and nothing that arrives."""
    more: dict[str, Any] = {} if kind is IntegerLI else {"threshold": np.int32(40), "trained_reset": "none"}
    more |= {"alpha": np.int32(700)} if kind is IntegerCubaLIF else {}
    for reset, phase in [(reset, phase) for reset in RESETS for phase in PHASES]:
        more |= {} if kind is IntegerLI else {"reset": reset, "phase": phase}
        node = kind(beta=np.int32(beta), bits=10, decay_bits=10, **more)
        graph = chain(Linear(np.eye(5, dtype=np.int8)), node, shape=(5,), kind=Kind.SPIKE)
        u = np.array([[900.0, 511, 41, 40, 39], [-900, -511, -41, -1, 1]])
        state = {name: u if name == "b.u" else -u[:, ::-1] for name in graph.states}
        agreed(graph, np.zeros((80, 2, 5), bool), state)


@pytest.mark.parametrize("kind", [IntegerLIF, IntegerCubaLIF])
def test_silent_neurons_fall_asleep(kind: Any) -> None:
    more = {"alpha": np.int32(3000)} if kind is IntegerCubaLIF else {}
    node = kind(beta=np.int32(4000), threshold=np.int32(300), trained_reset="zero", **more)
    graph, x = driven(node, 0, steps=1000)
    agreed(graph, x)
    executor = EventDriven(graph, threads=1)
    executor.run(x)
    ((space, _),) = executor._idle
    assert space.pending.tolist() == [ASLEEP]


@pytest.mark.parametrize(("bits", "out_bits"), [(24, 24), (10, 6)])
def test_filters_of_whole_numbers(bits: int, out_bits: int) -> None:
    rng = np.random.default_rng(0)
    a = np.trunc(1024 * rng.uniform(0.3, 0.6, (70, 3, 2)))
    node = IntegerSSM(
        a=a, c=rng.integers(-90, 90, (70, 3, 2)), d=rng.integers(-90, 90, 70), shift=2, bits=bits, decay_bits=10,
        out_shift=3, out_bits=out_bits,
    )  # fmt: skip
    graph, x = driven(node, 3, steps=400)
    got = agreed(graph, x)
    assert got.counts is not None
    assert (got.counts.tallies["b"]["saturated"] > 0) == (bits == 10)
    executor = EventDriven(graph, threads=1)
    executor.run(x)
    ((space, _),) = executor._idle
    assert space.pending.tolist() == [ASLEEP], "an impulse response has an end"


@pytest.mark.parametrize(
    "nodes",
    [
        [Quantize(bits=6, fraction=2)],
        [Quantize(bits=3, fraction=-1, signed=False)],
        [Quantize(bits=16, fraction=8), Shift(shift=np.array([3, 0, -2, 9] * 17 + [1, 2]), bits=12)],
        [Quantize(bits=16, fraction=8), Shift(shift=np.int32(4), bits=5, signed=False)],
        [Quantize(bits=16, fraction=8), Lookup(table=sigmoid_table(999), shift=2)],
        [Quantize(bits=16, fraction=8), Lookup(table=np.arange(-8, 8), shift=-1)],
        [Quantize(bits=16, fraction=8), IntegerGLU(table=sigmoid_table(256), index_shift=2, shift=6, bits=9)],
        [
            Quantize(bits=8, fraction=3),
            Reshape(shape=(5, 14)),
            IntegerGLU(table=sigmoid_table(64), index_shift=0, shift=-2, bits=12),
            Shift(shift=np.arange(5)[:, None], bits=6),
        ],
        [Quantize(bits=8, fraction=3), Scale(np.array([3, -2] * 35, np.int8)), Activation(function="relu")],
        [Quantize(bits=8, fraction=3), TopK(7), Linear(np.arange(-70, 70).reshape(2, 70).astype(np.int16))],
        [Quantize(bits=8, fraction=3), Threshold(threshold=np.int32(3)), Scale(np.int8(5))],
        [Quantize(bits=8, fraction=3), Delay(steps=np.arange(1, 71) % 9 + 1, shape=(70,), kind=Kind.REAL)],
    ],
    ids=lambda nodes: "-".join(type(node).__name__ for node in nodes),
)
def test_elementwise_nodes(nodes: list[Node]) -> None:
    graph = chain(*nodes, shape=(70,))
    rng = np.random.default_rng(6)
    x = np.round(rng.normal(0, 3, (100, 2, 70)) * 32) / 32 * (rng.random((100, 2, 1)) < 0.7)
    assert EventDriven(graph).dtype == np.float64
    agreed(graph, x)


def whole(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.int8)


@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        ((2, 7, 6), [Conv2d(weight=whole(4, 1, 3, 2), bias=whole(4), groups=2, stride=2, padding=1)]),
        ((2, 7, 6), [SumPool2d(kernel=2, stride=2), Conv2d(weight=whole(3, 2, 2, 2)), Flatten()]),
        ((2, 7, 6), [MaxPool2d(kernel=3, stride=2), Conv2d(weight=whole(3, 2, 2, 2)), Flatten()]),
        ((3, 20), [Conv1d(weight=whole(5, 3, 4), dilation=2, padding=3), IntegerLI(beta=np.int32(4000))]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("graded", [False, True])
def test_images(shape: tuple[int, ...], nodes: list[Node], graded: bool) -> None:
    first: list[Node] = [Quantize(bits=5, fraction=1)] if graded else []
    graph = chain(*first, *nodes, shape=shape, kind=Kind.REAL if graded else Kind.SPIKE)
    agreed(graph, numbers_for(graph, 63, 2) if graded else spikes_for(graph, 63, 2))


def test_tables_products_and_parts() -> None:
    nodes: dict[str, Node] = {
        "in": Input((1,), Kind.INDEX),
        "rows": Embedding(whole(9, 6)),
        "f": Linear(whole(6, 6, seed=1), whole(6, seed=2)),
        "product": Multiply(),
        "parts": Concatenate(2),
        "neuron": IntegerLIF(beta=np.int32(2000), threshold=np.int32(90), trained_reset="zero"),
        "out": Output(),
    }
    edges = [
        Edge("in", "rows"),
        Edge("rows", "f"),
        Edge("rows", "product", "a"),
        Edge("f", "product", "b"),
        *(
            Edge(source, "parts", port)
            for source, port in zip(("product", "f"), nodes["parts"].ports, strict=True)
        ),
        Edge("parts", "neuron"),
        Edge("neuron", "out"),
    ]
    x = np.random.default_rng(0).integers(0, 9, (100, 2, 1))
    assert agreed(Graph(nodes, edges), x).spikes["neuron"].any()


def test_float32_is_refused() -> None:
    graph = integer_network(0)
    assert EventDriven(graph).dtype == EventDriven(graph, np.float64).dtype == np.float64
    for refused in (graph, chain(Quantize(bits=8, fraction=0))):
        with pytest.raises(InvalidInput, match="ask for float64"):
            EventDriven(refused, np.float32)

"""Memories of whole numbers whose entries decay late: the numbers of those that decay at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integers import memory_network, numbers_for
from tests.runtime.test_event_integers import agreed
from unscan.compiler.ir import Array, Edge, Graph, Node
from unscan.compiler.nodes import Input, IntegerMemory, Linear, Lookup, Output, Quantize
from unscan.compiler.nodes.neurons import RESETS
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.program import STEPS


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("queries", [None, 1, 3])
@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("reset", RESETS)
def test_memories(reset: str, top_k: int | None, queries: int | None, steps: int) -> None:
    graph = memory_network(5, reset=reset, queries=queries, top_k=top_k)
    got = agreed(graph, numbers_for(graph, steps, 2, 5))
    assert got.spikes["memory"].any() or steps == 1


@given(
    st.integers(0, 10_000),
    st.sampled_from(RESETS),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 1, 3]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1, 2, 40, 130]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_memories_of_every_size(
    seed: int, reset: str, queries: int | None, top_k: int | None, d: int, n: int, steps: int
) -> None:
    top_k = None if top_k is None else min(top_k, d, n)
    graph = memory_network(seed, reset=reset, queries=queries, top_k=top_k, d=d, n=n)
    agreed(graph, numbers_for(graph, steps, 2, seed))


def fed(node: IntegerMemory, d: int, n: int, decay: int = 4095) -> Graph:
    """Return a memory whose values and keys are the input, and whose decay is `decay` at every step."""
    total = d + n
    eye = np.eye(total, dtype=np.int8)
    nodes: dict[str, Node] = {
        "in": Input((total,)),
        "whole": Quantize(bits=12, fraction=0),
        "v": Linear(eye[:d]),
        "k": Linear(eye[d:]),
        "alpha": Lookup(table=np.full(2, decay), shift=0),
        "memory": node,
        "out": Output(),
    }
    edges = [Edge("in", "whole"), Edge("whole", "v"), Edge("whole", "k"), Edge("k", "alpha")]
    edges += [Edge(port, "memory", port) for port in ("v", "k", "alpha")]
    return Graph(nodes, [*edges, Edge("memory", "out")])


def remembering(reset: Any = "none", threshold: int = 9000, bits: int = 24) -> IntegerMemory:
    return IntegerMemory(threshold=np.int32(threshold), bits=bits, reset=reset, trained_reset="none")


def rare(d: int, n: int, steps: int, every: int, seed: int = 0) -> Array:
    """Return an input in which one value meets two keys every so many steps, and else nothing."""
    rng = np.random.default_rng(seed)
    x = np.zeros((steps, 2, d + n))
    for t in range(0, steps, every):
        for b in range(2):
            x[t, b, rng.integers(d)] = rng.integers(50, 200)
            x[t, b, d + rng.choice(n, 2, replace=False)] = rng.integers(-99, 200, 2)
    return x


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS, STEPS + 1, 500])
@pytest.mark.parametrize("decay", [0, 2048, 4095])
@pytest.mark.parametrize("reset", RESETS)
def test_entries_decayed_late_equal_those_decayed_at_every_step(reset: str, decay: int, steps: int) -> None:
    graph = fed(remembering(reset), 5, 7, decay)
    got = agreed(graph, rare(5, 7, steps, every=40))
    assert got.spikes["memory"].any()
    if decay == 4095:
        assert np.count_nonzero(got.state["memory.S"]), "nothing had to be decayed late"


@pytest.mark.parametrize("bits", [9, 24])
def test_a_carried_memory_of_any_size(bits: int) -> None:
    """Entries above the threshold and beyond what the format holds, some written at once, some left alone."""
    rng = np.random.default_rng(4)
    for reset in RESETS:
        graph = fed(remembering(reset, threshold=100, bits=bits), 5, 7, 3900)
        S = rng.integers(-600, 600, (2, 5, 7)).astype(np.float64)
        got = agreed(graph, rare(5, 7, 90, every=30), {"memory.S": S})
        assert got.counts is not None
        assert (got.counts.tallies["memory"]["saturated"] > 30) == (bits == 9)


def touched(graph: Graph, x: Array) -> int:
    """Return how many entries a run of the first sample looked at, with their decays."""
    executor = EventDriven(graph)
    state = executor._packed(None, 1)
    _, done = executor._run(np.ascontiguousarray(x[:, :1]), state, *executor._unrecorded, False)
    return int(done.tallies[executor._program.touched["memory"]])


def test_a_memory_touches_what_is_written_and_not_what_is_there() -> None:
    x = {size: rare(size, size, 1000, every=10) for size in (8, 32, 96)}
    work = {size: touched(fed(remembering("zero"), size, size, 2048), x[size]) for size in x}
    writes = 2 * 100
    for size, operations in work.items():
        # Each entry is written, may fire or wait for the end of the history, and halves from at most 200 x 200 to 0.
        assert writes < operations < writes * (2 + 1 + 17)
        assert operations < 1000 * size * size / 10
    assert work[96] < 1.1 * work[32]


def test_silence_costs_a_memory_nothing() -> None:
    graph = fed(remembering(), 32, 32, 2048)
    x = rare(32, 32, 3000, every=10)
    x[100:] = 0
    assert touched(graph, x) == touched(graph, x[:300]) > 0
    assert touched(graph, np.zeros_like(x)) == 0


def test_readers_in_floating_point_do_not_see_the_order_of_the_entries() -> None:
    graph = fed(remembering("subtract", threshold=3000), 9, 9, 4000)
    weight = np.random.default_rng(1).standard_normal((20, 81))
    graph = Graph(
        {**graph.nodes, "read": Linear(weight)},
        [
            *(edge for edge in graph.edges if edge.target != "out"),
            Edge("memory", "read"),
            Edge("read", "out"),
        ],
    )
    executor, x = EventDriven(graph), rare(9, 9, 120, every=2)
    one = executor.run(x)
    first = executor.run(x[:50])
    second = executor.run(x[50:], first.state, record=False)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), one.outputs)
    assert one.spikes["memory"].any(axis=(2, 3)).sum() > 50

"""Matrix memories on the event executor: what fires in the reference, for work that follows the writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import random_memory
from tests.runtime.test_event import assert_bits, assert_same, assert_same_counts
from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    AssociativeMemory,
    DeltaMemory,
    Embedding,
    Input,
    Linear,
    Output,
    StoredMemory,
)
from unscan.compiler.nodes.memory import DECAYS
from unscan.compiler.nodes.neurons import FIRES, RESETS
from unscan.runtime.costs import Operations
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.reference import Reference

KINDS = [AssociativeMemory, DeltaMemory]


def memory(kind: Any = AssociativeMemory, **settings: Any) -> StoredMemory:
    given: dict[str, Any] = {"threshold": np.array(0.5), "decay": "scalar", "trained_reset": "none"}
    return kind(**given | settings)  # type: ignore[no-any-return]


def widths(node: StoredMemory, d: int, n: int) -> dict[str, int]:
    """Return how many numbers each port of a memory takes."""
    wide = {"v": d, "k": n, "alpha": node.width("alpha", n), "beta": 1, "q": n * (node.queries or 0)}
    return {port: wide[port] for port in node.ports}


def fed(node: StoredMemory, d: int, n: int) -> Graph:
    """Return a graph whose input holds what each port of the memory gets, one behind the other."""
    wide = widths(node, d, n)
    total, start = sum(wide.values()), 0
    nodes: dict[str, Node] = {"in": Input((total,))}
    edges = []
    for port, width in wide.items():
        nodes[port] = Linear(np.eye(total)[start : start + width])
        edges += [Edge("in", port), Edge(port, "memory", port)]
        start += width
    nodes |= {"memory": node, "out": Output()}
    return Graph(nodes, [*edges, Edge("memory", "out")])


def driven(
    node: StoredMemory,
    d: int,
    n: int,
    steps: int,
    batch: int = 2,
    *,
    seed: int = 0,
    kept: int | None = None,
    **given: Any,
) -> Array:
    """Return an input of `fed`: values and keys of which `kept` are not 0, and decays log-uniform in (0.005, 1)."""
    rng = np.random.default_rng(seed)
    parts = []
    for port, width in widths(node, d, n).items():
        part = rng.standard_normal((steps, batch, width))
        if port in ("v", "k"):
            rank = np.argsort(rng.random(part.shape), axis=-1)
            part = part * (rank < (max(1, width // 3) if kept is None else kept))
        elif port == "alpha":
            part = np.exp(rng.uniform(np.log(0.005), 0, part.shape))
        elif port == "beta":
            part = rng.uniform(0, 1, part.shape)
        parts.append(np.broadcast_to(given[port], part.shape) if port in given else part)
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("queries", [None, 2])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_agrees_with_the_reference(
    kind: Any, decay: Any, reset: Any, queries: Any, steps: int
) -> None:
    node = memory(kind, decay=decay, reset=reset, queries=queries, bound=1e-3)
    graph = fed(node, 9, 7)
    x = driven(node, 9, 7, steps)
    executor = EventDriven(graph)
    whole = executor.run(x)
    assert_same(whole, Reference(graph).run(x))
    assert whole.membranes["memory"].shape == whole.spikes["memory"].shape == (steps, 2, 9, 7)
    if steps > 1:
        assert whole.spikes["memory"].any()
        first = executor.run(x[: steps // 3])
        second = executor.run(x[steps // 3 :], first.state)
        assert_bits(joined(first, second), whole)


def joined(first: Execution, second: Execution) -> Execution:
    """Return two runs as one."""
    return Execution(
        outputs=np.concatenate([first.outputs, second.outputs]),
        spikes={name: np.concatenate([value, second.spikes[name]]) for name, value in first.spikes.items()},
        membranes={
            name: np.concatenate([value, second.membranes[name]]) for name, value in first.membranes.items()
        },
        state=second.state,
        counts=None,
    )


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 4),
    st.sampled_from([1, 2, 40]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_memories_of_every_size(seed: int, kind: Any, d: int, n: int, kept: int, steps: int) -> None:
    node = random_memory(np.random.default_rng(seed), kind)
    graph = fed(node, d, n)
    x = driven(node, d, n, steps, seed=seed, kept=kept)
    assert_same(EventDriven(graph).run(x), Reference(graph).run(x))


@pytest.mark.parametrize("fires", FIRES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties(fires: Any, decay: Any, dtype: Any) -> None:
    """Numbers of few bits, so that every product is exact and all formats must agree."""
    node = memory(decay=decay, fires=fires, reset="subtract", bound=2.0**-4)
    graph = fed(node, 8, 8)
    rng = np.random.default_rng(2)
    sparse = rng.random((2, 30, 2, 8)) < 0.2
    v, k = rng.choice([-1, 0.5, 1], (2, 30, 2, 8)) * sparse
    x = driven(node, 8, 8, 30, v=v, k=k, alpha=rng.choice([0.5, 1], (30, 2, 8)))
    wanted = Reference(graph).run(x)
    assert (wanted.membranes["memory"] == 0.5).any(), "no tie was tested"
    got = EventDriven(graph, dtype).run(x)
    np.testing.assert_array_equal(got.spikes["memory"], wanted.spikes["memory"])
    np.testing.assert_array_equal(got.membranes["memory"], wanted.membranes["memory"])
    assert_same_counts(got, wanted)


@pytest.mark.parametrize("queries", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_fires_alike(kind: Any, queries: Any) -> None:
    node = memory(kind, queries=queries)
    graph = fed(node, 12, 20)
    x = driven(node, 12, 20, 100)
    got, wanted = EventDriven(graph, np.float32).run(x), Reference(graph).run(x)
    assert got.outputs.dtype == np.float32
    near = abs(wanted.membranes["memory"] - 0.5) < 1e-5
    np.testing.assert_array_equal(got.spikes["memory"][~near], wanted.spikes["memory"][~near])
    np.testing.assert_allclose(got.membranes["memory"], wanted.membranes["memory"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_scalar_decay_equals_dense_decay_over_20000_steps(kind: Any) -> None:
    """A product that is written at step s is worth A_t / A_s of itself at t, t - s roundings away from its decay.

    Decays lie in (0.9, 1), but for some down to 0.005. What is older than 100 steps counts for little, so S differs
    by some 100 roundings of 1.1e-16.
    """
    rng = np.random.default_rng(9)
    size = (20_000, 1, memory(kind).width("alpha", 16))
    fast = np.exp(rng.uniform(np.log(0.005), 0, size))
    alpha = np.where(rng.random(size) < 0.02, fast, rng.uniform(0.9, 1, size))
    runs = []
    for decay in DECAYS:
        node = memory(kind, decay=decay, threshold=np.array(1.0))
        graph = fed(node, 16, 16)
        runs.append(EventDriven(graph).run(driven(node, 16, 16, 20_000, 1, kept=3, alpha=alpha)))
    dense, scalar = runs
    spikes = dense.spikes["memory"]
    assert 0.001 < spikes.mean() < 0.5
    np.testing.assert_array_equal(scalar.spikes["memory"], spikes)
    S, found = dense.membranes["memory"], scalar.membranes["memory"]
    difference = (abs(found - S) / np.maximum(1, abs(S))).max()
    assert difference < 1e-12
    assert tallies(scalar)["rescaled"] > 10
    assert "rescaled" not in tallies(dense)


def tallies(execution: Execution) -> Any:
    assert execution.counts is not None
    return execution.counts.tallies["memory"]


def work(node: StoredMemory, size: int, kept: int) -> tuple[Operations, Any]:
    graph = fed(node, size, size)
    x = driven(node, size, size, 200, 1, kept=kept, alpha=0.9)
    run = EventDriven(graph).run(x, record=False)
    assert run.counts is not None
    return run.counts.by_node["memory"], tallies(run)


def test_work_grows_with_what_is_written_and_not_with_the_memory() -> None:
    """200 steps, k_v = k_k = k: k^2 writes and n decays a step, and a comparison for each entry that fires."""
    node = memory(threshold=np.array(2.5))
    for size, kept in [(16, 2), (64, 2), (128, 2), (128, 4), (128, 8)]:
        done, tally = work(node, size, kept)
        assert tally["writes"] == 200 * kept**2
        assert tally["fired"] < 3 * tally["writes"]
        assert done.updates["decay"] == 200 * size
        assert done.updates["compare"] == tally["writes"] + tally["fired"]
        # 0.9^t falls below 2^-60 after 395 steps
        assert tally["rescaled"] == 0
        moved = 2 * (tally["writes"] + 200 * size) + tally["fired"]
        assert done.state_accesses == moved
        assert moved < 200 * size**2 / 2 or size == 16
    dense, _ = work(memory(threshold=np.array(2.5), decay="dense"), 128, 2)
    assert dense.state_accesses == 2 * 200 * 128**2


def test_a_delta_memory_writes_the_columns_of_the_key() -> None:
    node = memory(DeltaMemory)
    for size, kept in [(16, 2), (64, 2), (64, 4)]:
        _, tally = work(node, size, kept)
        assert tally["writes"] == 200 * size * kept


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_entries_go_on_firing_in_silence_and_after_a_cut(kind: Any, reset: Any) -> None:
    node = memory(kind, reset=reset, queries=2)
    graph = fed(node, 5, 70)
    x = driven(node, 5, 70, 40, alpha=0.97, v=3.0, beta=0.9)
    wide = widths(node, 5, 70)
    x[5:, :, : wide["v"] + wide["k"]] = 0
    executor = EventDriven(graph)
    whole = executor.run(x)
    assert_same(whole, Reference(graph).run(x))
    fired = whole.spikes["memory"].sum(axis=(1, 2, 3))
    assert fired[5] > fired[-1] or reset == "zero"
    for cut in (1, 5, 6, 33):
        first = executor.run(x[:cut])
        assert_bits(joined(first, executor.run(x[cut:], first.state)), whole)


@pytest.mark.parametrize("gate", [0.0, 1.0, 1.2, -0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_gates_at_the_ends_and_beyond(kind: Any, gate: float) -> None:
    """An entry that no decay shrinks may start to fire without being written."""
    node = memory(kind)
    graph = fed(node, 6, 8)
    alpha = np.where(np.random.default_rng(1).random((30, 1, 1)) < 0.5, gate, 0.8)
    x = driven(node, 6, 8, 30, kept=2, alpha=alpha)
    got = EventDriven(graph).run(x)
    assert_same(got, Reference(graph).run(x))
    assert got.spikes["memory"].any()


def test_a_key_without_length_writes_nothing() -> None:
    node = memory(DeltaMemory)
    graph = fed(node, 4, 4)
    x = driven(node, 4, 4, 10, k=1e-13)
    got = EventDriven(graph).run(x)
    assert_same(got, Reference(graph).run(x))
    assert tallies(got)["writes"] == 0
    assert not got.membranes["memory"].any()


def test_spiking_values_and_keys_write_and_what_fires_is_gathered() -> None:
    rng = np.random.default_rng(5)
    nodes: dict[str, Node] = {
        "in": Input((20,), Kind.SPIKE),
        "alpha": Linear(np.zeros((20, 20)), np.full(20, 0.8)),
        "memory": memory(),
        "read": Linear(rng.standard_normal((3, 400))),
        "out": Output(),
    }
    ports = [("in", "alpha", "x"), ("in", "memory", "v"), ("in", "memory", "k"), ("alpha", "memory", "alpha")]
    graph = Graph(nodes, [Edge(*each) for each in [*ports, ("memory", "read", "x"), ("read", "out", "x")]])
    x = rng.random((50, 3, 20)) < 0.1
    executor = EventDriven(graph)
    whole = executor.run(x)
    assert_same(whole, Reference(graph).run(x))
    assert whole.counts is not None
    assert whole.counts.by_node["read"].acs == 3 * tallies(whole)["fired"] > 0
    assert_same_counts(EventDriven(graph, threads=3).run(x), whole)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("kept", [0, 2, 9])
@pytest.mark.parametrize("width", [12, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_read_where_they_stand(kind: Any, width: int, kept: int, copied: bool) -> None:
    """Rows with few numbers that are not 0 and with many; where another node reads a table too, it is copied."""
    node, words = memory(kind, queries=1, bound=1e-3), 5
    tables = driven(node, width, width, words, 1, kept=kept, alpha=np.linspace(0.02, 1, words)[:, None, None])
    nodes: dict[str, Node] = {"word": Input((1,), Kind.INDEX)}
    edges, start = [], 0
    for port, wide in widths(node, width, width).items():
        nodes[port] = Embedding(tables[:, 0, start : start + wide])
        edges += [Edge("word", port), Edge(port, "memory", port)]
        start += wide
    nodes |= {"memory": node, "out": Output()}
    edges.append(Edge("memory", "out"))
    if copied:
        nodes["beside"] = Linear(np.eye(width))
        edges += [Edge("v", "beside"), Edge("beside", "out")]
    graph = Graph(nodes, edges)
    x = np.random.default_rng(kept).integers(0, words, (100, 2, 1)).astype(float)
    executor = EventDriven(graph)
    whole = executor.run(x)
    assert_same(whole, Reference(graph).run(x))
    assert whole.spikes["memory"].any() == (kept > 0)
    first = executor.run(x[:37])
    assert_bits(joined(first, executor.run(x[37:], first.state)), whole)


def test_a_column_that_holds_zeros_is_rescaled_alike() -> None:
    """Many columns fall below the bound at once, some written in few rows: as in the reference, bit for bit."""
    node = memory(bound=0.3, fires=">", reset="subtract")
    graph = fed(node, 40, 33)
    x = driven(node, 40, 33, 60, 1, kept=2)
    got, wanted = EventDriven(graph).run(x), Reference(graph).run(x)
    for name, state in wanted.state.items():
        np.testing.assert_array_equal(got.state[name], state)
    assert tallies(got) == tallies(wanted)
    assert tallies(got)["rescaled"] > 60


def test_a_bound_that_float32_cannot_hold_is_refused() -> None:
    graph = fed(memory(bound=1e-60), 3, 3)
    EventDriven(graph, np.float64)
    with pytest.raises(Unsupported, match="raise its bound"):
        EventDriven(graph, np.float32)

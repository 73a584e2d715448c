"""Scalar decay accumulators: the same memory to rounding, however long it runs and however fast it forgets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import assert_same, executed, memory_graph, memory_graphs
from tests.graphs import sequence, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import AssociativeMemory, DeltaMemory, Input, Linear, Output
from unscan.compiler.passes import ScalarDecay
from unscan.compiler.pipeline import run
from unscan.runtime.executors.reference import Reference

STORED = (AssociativeMemory, DeltaMemory)


@pytest.mark.parametrize(("kind", "accumulators"), [(AssociativeMemory, 6), (DeltaMemory, 1)])
def test_the_memory_and_its_accumulators_are_kept_instead_of_the_matrix(kind, accumulators):
    before = memory_graph(np.random.default_rng(0), kind)
    after, notes = ScalarDecay(bound=1e-9).rewrite(before)
    kept = before.nodes["memory"].settings()
    assert after.nodes["memory"].settings() == {**kept, "decay": "scalar", "bound": 1e-9}
    assert notes == [f"memory: {accumulators} accumulators decay in place of 4 x 6 entries"]
    assert dict(after.states) == {"memory.M": (4, 6), "memory.A": (accumulators,)}
    assert ScalarDecay().rewrite(after) == (after, [])


@pytest.mark.parametrize("wrong", [0.0, 1.0, -1.0, float("nan")])
def test_a_bound_that_is_none_is_refused(wrong):
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        ScalarDecay(wrong)


def test_a_graph_without_memories_is_left_as_it_is():
    after, (note,) = ScalarDecay().rewrite(two_layers())
    assert after == two_layers()
    assert note.startswith("the graph has no matrix memory")


@settings(deadline=None, max_examples=60)
@given(graph=memory_graphs(STORED), bound=st.sampled_from([2.0**-60, 1e-3, 0.5]), seed=st.integers(0, 99))
def test_on_random_graphs_the_reference_after_is_the_reference_before(graph, bound, seed):
    after = run(graph, [ScalarDecay(bound)])
    assert after.nodes["memory"].decay == "scalar"
    # S = M A is rounded once a step more than S is: 40 steps of 2^-53, on S within a few times the threshold
    assert_same(graph, after, sequence(graph, 40, 2, seed), tolerance=1e-12)


@pytest.mark.parametrize("kind", STORED)
def test_a_sequence_cut_in_two_is_one_run(kind):
    before = memory_graph(np.random.default_rng(2), kind)
    after = Reference(ScalarDecay(0.1).rewrite(before).graph)
    x = sequence(before, 63, 2)
    whole, first = after.run(x), after.run(x[:20])
    np.testing.assert_array_equal(after.run(x[20:], first.state).outputs, whole.outputs[20:])


def driven(kind: type, rows: int, columns: int) -> Graph:
    """Input -> one memory, every port of which is a part of the input."""
    memory = kind(threshold=np.float64(0.4), trained_reset="none")
    widths = {"v": rows, "k": columns, **{gate: memory.width(gate, columns) for gate in memory.gates}}
    nodes = {"input": Input((sum(widths.values()),), Kind.REAL)}
    start, eye = 0, np.eye(sum(widths.values()))
    for port, width in widths.items():
        nodes[f"to_{port}"] = Linear(eye[start : start + width])
        start += width
    edges = [e for port in widths for e in (Edge("input", f"to_{port}"), Edge(f"to_{port}", "memory", port))]
    return Graph({**nodes, "memory": memory, "output": Output()}, [*edges, Edge("memory", "output")])


@pytest.mark.parametrize("kind", STORED)
def test_twenty_thousand_steps_with_decays_down_to_one_in_two_hundred(kind):
    rng, steps, batch, rows, columns = np.random.default_rng(0), 20_000, 1, 3, 4
    graph = driven(kind, rows, columns)
    decays = columns if kind is AssociativeMemory else 1
    # some columns forget within a step, some over thousands
    fastest = np.geomspace(0.005, 0.9995, decays) if decays > 1 else np.array([0.005])
    alpha = rng.uniform(fastest, 1.0, (steps, batch, decays))
    parts = [rng.normal(0, 1, (steps, batch, rows)), rng.normal(0, 1, (steps, batch, columns)), alpha]
    if kind is DeltaMemory:
        parts.append(rng.uniform(0, 1, (steps, batch, 1)))
    x = np.concatenate(parts, axis=2)
    a, b = executed(graph, x), executed(ScalarDecay().rewrite(graph).graph, x)
    assert 0.05 < a.spikes["memory"].mean() < 0.95
    assert b.counts.tallies["memory"]["rescaled"] > 100
    np.testing.assert_array_equal(a.spikes["memory"], b.spikes["memory"])
    left, right = a.membranes["memory"], b.membranes["memory"]
    assert (np.abs(left - right) / np.maximum(1, np.abs(left))).max() < 1e-12

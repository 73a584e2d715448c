"""The reset that neurons are deployed with, for every neuron that has one; memories only where they are named."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import assert_same, executed, memory_graph, memory_graphs
from tests.compiler.test_unroll import around
from tests.graphs import graphs, sequence, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.nodes import (
    RESETTING,
    AdaptiveLIF,
    AssociativeMemory,
    CubaLIF,
    DeltaMemory,
    StoredMemory,
)
from unscan.compiler.nodes.neurons import PHASES, RESETS
from unscan.compiler.passes import RestoreReset
from unscan.compiler.pipeline import run

SHARED: dict[str, Any] = {"beta": np.float64(0.9), "threshold": np.float64(0.6)}


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("phase", [None, *PHASES])
def test_every_neuron_gets_the_reset_and_remembers_the_trained_one(reset, phase):
    before = two_layers("none")
    after, notes = RestoreReset(reset, phase).rewrite(before)
    for name in ("lif1", "lif2"):
        node = after.nodes[name]
        assert (node.reset, node.phase, node.trained_reset) == (reset, phase or "now", "none")
    changes = reset != "none" or phase == "next"
    assert len(notes) == (2 if changes else 0)
    assert all("trained with reset none" in note for note in notes)
    assert before.nodes["lif1"].reset == "none"


def test_the_trained_reset_changes_nothing():
    graph = two_layers("subtract")
    assert RestoreReset("subtract").rewrite(graph) == (graph, [])


def test_what_does_not_exist_is_refused():
    with pytest.raises(InvalidInput, match="'hard'.*none, subtract, zero"):
        RestoreReset("hard")
    with pytest.raises(InvalidInput, match="'later'.*now, next"):
        RestoreReset("zero", "later")
    with pytest.raises(InvalidInput, match="memories 'soft'.*none, subtract, zero"):
        RestoreReset(memories="soft")


@pytest.mark.parametrize("reset", RESETS)
def test_a_neuron_behind_a_current_gets_reset_and_phase(reset):
    node = CubaLIF(**SHARED, alpha=np.float64(0.7), reset="none", trained_reset="none")
    made = RestoreReset(reset, "next").rewrite(around(node)).graph.nodes["node"]
    assert (made.reset, made.phase, made.trained_reset) == (reset, "next", "none")


@pytest.mark.parametrize("reset", RESETS)
def test_a_neuron_that_tires_gets_the_reset_and_stays_at_its_phase_with_a_note(reset):
    node = AdaptiveLIF(
        **SHARED, kappa=np.float64(0.3), rho=np.float64(0.9), reset="none", trained_reset="none"
    )
    after, notes = RestoreReset(reset, "next").rewrite(around(node))
    assert (after.nodes["node"].reset, after.nodes["node"].phase) == (reset, "now")
    assert "the phase stays now, the only one of an AdaptiveLIF" in notes[0]
    assert ("trained with reset none" in notes[0]) == (reset != "none")


@pytest.mark.parametrize("kind", [AssociativeMemory, DeltaMemory])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_memory_gets_a_reset_only_where_it_is_asked_for(kind, reset):
    before = memory_graph(np.random.default_rng(0), kind)
    assert RestoreReset(reset, "next").rewrite(before) == (before, [])
    after, notes = RestoreReset(memories=reset).rewrite(before)
    assert notes == [f"memory: reset of S none -> {reset}, trained with reset none"]
    assert (after.nodes["memory"].reset, after.nodes["memory"].trained_reset) == (reset, "none")
    assert executed(before).spikes["memory"].mean() > executed(after).spikes["memory"].mean() > 0


def test_no_reset_asked_for_leaves_the_neurons_alone():
    graph = two_layers("subtract")
    assert RestoreReset(None, memories="zero").rewrite(graph) == (graph, [])
    phased = RestoreReset(None, "next").rewrite(graph).graph.nodes["lif1"]
    assert (phased.reset, phased.phase) == ("subtract", "next")


@settings(deadline=None, max_examples=40)
@given(
    graph=st.one_of(graphs(), memory_graphs((AssociativeMemory, DeltaMemory))),
    reset=st.sampled_from(RESETS),
    memories=st.sampled_from([None, *RESETS]),
    seed=st.integers(0, 99),
)
def test_on_random_graphs_every_reset_is_set_and_only_what_was_set_changes(graph, reset, memories, seed):
    after = run(graph, [RestoreReset(reset, memories=memories)])
    for name in graph.of(*RESETTING):
        wanted = (
            (memories or graph.nodes[name].reset) if isinstance(graph.nodes[name], StoredMemory) else reset
        )
        assert after.nodes[name].reset == wanted
        assert after.nodes[name].trained_reset == graph.nodes[name].trained_reset
    first = run(graph, [RestoreReset("zero", memories="subtract")])
    assert memories is None or run(first, [RestoreReset(reset, memories=memories)]) == after
    assert_same(after, run(after, [RestoreReset(reset, memories=memories)]), sequence(graph, 12, 2, seed))

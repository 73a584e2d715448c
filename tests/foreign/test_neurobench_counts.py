"""NeuroBench's harness counts the operations of the same network as we do."""

import numpy as np
import pytest

from tests.foreign.counted import NETWORKS, counted, driven, sparse
from tests.targets.networks import drive, feed_forward
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.reference import Reference

pytestmark = pytest.mark.slow


def agree(graph: Graph, x, folder) -> None:
    ours = Reference(graph).run(x).counts.total
    theirs = counted("neurobench", graph, x, folder)
    assert theirs == {"Effective_ACs": ours.acs, "Effective_MACs": ours.macs, "Dense": ours.dense_macs}


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "conv and pool"])
def test_five_networks(tmp_path, name):
    graph = sparse(NETWORKS[name]())
    x = driven(graph)
    total = EventDriven(graph).run(x, record=False).counts.total
    assert total.acs > 0
    assert (total.macs > 0) == (name == "real input")
    agree(graph, x, tmp_path)


def test_after_a_pool_neurobench_judges_a_whole_call_by_its_values(tmp_path):
    """Sums of spikes are numbers to us; a call that happens to hold 0 and 1 alone is spikes to NeuroBench."""
    graph = sparse(NETWORKS["conv and pool"]())
    x = driven(graph)
    ours, theirs = Reference(graph).run(x).counts, counted("neurobench", graph, x, tmp_path)
    assert theirs["Dense"] == ours.total.dense_macs
    assert theirs["Effective_ACs"] + theirs["Effective_MACs"] == ours.total.acs + ours.total.macs
    assert ours.total.macs == ours.by_node["conv2"].macs > 0
    assert 0 < theirs["Effective_MACs"] <= ours.total.macs


def test_steps_without_any_event_cost_nothing(tmp_path):
    graph = feed_forward(reset="subtract")
    x = drive(graph, 50, 4)
    x[::2] = 0
    agree(graph, x, tmp_path)


def test_one_sample(tmp_path):
    graph = feed_forward(reset="zero")
    agree(graph, drive(graph, 20, 1), tmp_path)


def test_where_neurobench_judges_by_values_and_we_by_kind(tmp_path):
    """A real input of 0 and 1 is spikes to NeuroBench, call by call, and numbers to us: the sum is the same."""
    graph = feed_forward(reset="subtract").with_nodes({"in": Input((12,), kind=Kind.REAL)})
    x = drive(feed_forward(), 20, 2)
    ours, theirs = Reference(graph).run(x).counts.total, counted("neurobench", graph, x, tmp_path)
    assert theirs["Effective_MACs"] == 0
    assert ours.macs > 0
    assert theirs["Effective_ACs"] == ours.acs + ours.macs


def test_an_inhibitory_spike_of_minus_one_is_a_number_to_us(tmp_path):
    graph = feed_forward(reset="subtract").with_nodes({"in": Input((12,), kind=Kind.REAL)})
    x = drive(feed_forward(), 20, 2) * np.where(np.arange(12) % 2, 1.0, -1.0)
    ours, theirs = Reference(graph).run(x).counts.total, counted("neurobench", graph, x, tmp_path)
    assert (theirs["Effective_MACs"], theirs["Effective_ACs"]) == (0, ours.acs + ours.macs)

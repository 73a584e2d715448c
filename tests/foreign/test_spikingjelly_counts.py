"""SpikingJelly's counters find the operations of the same network that we do, where they can see them."""

import numpy as np
import pytest

from tests.foreign.counted import NETWORKS, counted, driven, sparse
from unscan.compiler.nodes import Linear
from unscan.runtime.executors.event import EventDriven

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["dense LIF", "recurrent", "deep"])
def test_spikes_into_dense_weights_are_the_same_number(tmp_path, name):
    graph = NETWORKS[name]()
    x = driven(graph)
    ours = EventDriven(graph).run(x, record=False).counts.total
    assert ours.acs > 0
    assert counted("spikingjelly", graph, x, tmp_path) == {"synops": ours.acs, "macs": 0}


def test_numbers_are_dense_macs_to_spikingjelly_however_many_are_zero(tmp_path):
    graph = NETWORKS["real input"]()
    x = driven(graph)
    ours = EventDriven(graph).run(x, record=False).counts
    first = ours.by_node["first"]
    assert counted("spikingjelly", graph, x, tmp_path) == {"synops": ours.total.acs, "macs": first.dense_macs}
    assert 0 < first.macs == np.count_nonzero(x) * 24 < first.dense_macs


def test_convolutions_and_what_follows_a_pool(tmp_path):
    """The same where spikes arrive; sums of spikes are numbers, dense to SpikingJelly, unless a call is all 0 and 1."""
    graph = NETWORKS["conv and pool"]()
    x = driven(graph)
    by_node = EventDriven(graph).run(x, record=False).counts.by_node
    theirs = counted("spikingjelly", graph, x, tmp_path)
    pooled = by_node["conv2"]
    turns = x.shape[0]
    dense = pooled.dense_macs // turns
    binary = turns - theirs["macs"] // dense
    assert theirs["macs"] == (turns - binary) * dense
    assert binary < turns
    seen = theirs["synops"] - by_node["conv1"].acs - by_node["read"].acs
    assert 0 <= seen <= pooled.macs
    assert (seen == 0) == (binary == 0)


def test_spikingjelly_counts_weights_that_are_zero(tmp_path):
    graph = NETWORKS["dense LIF"]()
    pruned = sparse(graph)
    x = driven(graph)
    run = EventDriven(pruned).run(x, record=False).counts
    whole = sum(
        run.by_node[name].events_in * pruned.nodes[name].weight.shape[0] for name in pruned.of(Linear)
    )
    assert counted("spikingjelly", pruned, x, tmp_path) == {"synops": whole, "macs": 0}
    assert run.total.acs < whole

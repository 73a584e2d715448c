import itertools

import numpy as np
import pytest

from tests.graphs import chain, lif, linear, sequence, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import LI, Activation, BatchNorm, Input, Linear, Output, Scale
from unscan.runtime.counts import Operations
from unscan.runtime.energy import TABLES, Energy
from unscan.runtime.executors.reference import Reference


def test_acs_and_macs_are_events_times_nonzero_weights():
    rng = np.random.default_rng(0)
    graph = two_layers()
    holes = graph.nodes["fc2"].weight * (rng.random((9, 12)) < 0.5)
    graph = graph.with_nodes({"fc2": Linear(holes)})
    x = sequence(graph, 30, 4) * (rng.random((30, 4, 6)) < 0.4)
    run = Reference(graph).run(x)
    acs = sum((holes[:, j] != 0).sum() for *_, j in np.argwhere(run.spikes["lif1"]))
    by_node = run.counts.by_node
    assert (by_node["fc1"].macs, by_node["fc1"].acs) == (np.count_nonzero(x) * 12, 0)
    assert (by_node["fc2"].acs, by_node["fc2"].macs) == (acs, 0)
    assert by_node["fc3"].acs == run.spikes["lif2"].sum() * 4
    assert by_node["fc2"].dense_macs == 30 * 4 * 12 * 9
    assert by_node["lif1"].spikes == run.spikes["lif1"].sum()
    assert by_node["lif1"].rate == run.spikes["lif1"].mean()
    assert run.counts.total.acs == acs + by_node["fc3"].acs


def test_spiking_input_costs_acs():
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 10, 2)
    done = Reference(graph).run(x).counts.by_node["fc1"]
    assert (done.acs, done.macs) == (x.sum() * 12, 0)


def test_state_updates_are_counted_apart():
    nodes = {
        "input": Input((3,)), "fc": linear(np.random.default_rng(0), 3, 3), "n": lif(0.5, 0.1, gain="1-beta"),
        "scale": Scale(np.float64(2)), "norm": BatchNorm(*np.ones((4, 3))), "f": Activation("tanh"),
        "li": LI(beta=np.float64(0.5)), "output": Output(),
    }  # fmt: skip
    names = list(nodes)
    edges = [Edge(a, b) for a, b in itertools.pairwise(names)] + [Edge("input", "n")]
    run = Reference(Graph(nodes, edges)).run(np.ones((5, 2, 3)))
    slots, spikes = 30, int(run.spikes["n"].sum())
    assert spikes > 0
    updates = {name: done.updates for name, done in run.counts.by_node.items()}
    assert updates["fc"] == {"bias": slots}
    assert updates["n"] == {
        "decay": slots, "integrate": slots, "scale": slots, "compare": slots, "reset": spikes, "join": slots,
    }  # fmt: skip
    assert updates["scale"] == {"scale": spikes}
    assert updates["norm"] == {"norm": slots}
    assert updates["f"] == {"activation": slots}
    assert updates["li"] == {"decay": slots, "integrate": slots}


def test_the_energy_example_of_the_spiking_ssm_paper():
    """003: 275.2 G MAC need 1.265 J; 72.66 G AC need 65.40 mJ."""
    dense = Energy.of(Operations(macs=275_200_000_000))
    sparse = Energy.of(Operations(acs=72_660_000_000))
    assert round(dense.synaptic, 3) == 1.266  # 4.6 pJ x 275.2 G; the paper prints it cut off, as 1.265
    assert f"{sparse.synaptic * 1e3:.2f}" == "65.39"
    assert abs(dense.synaptic - 1.265) < 1e-3
    assert abs(sparse.synaptic - 65.40e-3) < 1e-5


def test_energy_is_counts_times_the_table():
    done = Operations(
        acs=10, macs=3, dense_macs=100, updates={"decay": 4, "compare": 5}, weight_reads=13, state_accesses=7
    )
    energy = Energy.of(done, "horowitz-45nm-int8")
    cost = TABLES["horowitz-45nm-int8"]
    assert energy.synaptic == pytest.approx((10 * cost.add + 3 * (cost.add + cost.multiply)) * 1e-12)
    assert energy.updates == pytest.approx((4 * cost.multiply + 5 * cost.add) * 1e-12)
    assert energy.memory == pytest.approx(20 * cost.memory * 1e-12)
    assert energy.dense == pytest.approx(100 * (cost.add + cost.multiply) * 1e-12)
    assert energy.total == pytest.approx(energy.synaptic + energy.updates + energy.memory)


def test_an_unknown_table_lists_those_there_are():
    with pytest.raises(InvalidInput, match="horowitz-45nm-float32"):
        Energy.of(Operations(), "unobtainium")


def test_a_chain_of_linears_multiplies():
    rng = np.random.default_rng(0)
    graph = chain(input=Input((3,), Kind.SPIKE), a=linear(rng, 3, 5), b=linear(rng, 5, 2), output=Output())
    by_node = Reference(graph).run(np.ones((4, 2, 3))).counts.by_node
    assert (by_node["a"].acs, by_node["b"].macs) == (4 * 2 * 15, 4 * 2 * 10)

"""NeuroBench's harness counts the operations of the same network as we do."""

import json

import numpy as np
import pytest

from tests.foreign.running import run
from tests.targets.networks import drive, feed_forward
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import LIF, Input, Leaky, Linear
from unscan.runtime.executors.reference import Reference

pytestmark = pytest.mark.slow


def described(graph: Graph) -> tuple[list[dict], dict]:
    layers, arrays = [], {}
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, Linear):
            layer = {"kind": "linear"}
            for field, value in node.arrays():
                layer[field] = f"{name}/{field}"
                arrays[layer[field]] = value
            layers.append(layer)
        elif isinstance(node, Leaky):
            layer = {"kind": "li", "beta": float(node.beta)}
            if isinstance(node, LIF):
                layer |= {"kind": "lif", "threshold": float(node.threshold), "reset": node.reset}
            layers.append(layer)
    return layers, arrays


def counted(graph: Graph, x, folder) -> dict[str, int]:
    layers, arrays = described(graph)
    np.savez(folder / "network.npz", layers=json.dumps(layers), x=x, **arrays)
    run("neurobench", "neurobench_counts.py", folder / "network.npz", folder / "counts.json")
    return {name: round(value) for name, value in json.loads((folder / "counts.json").read_text()).items()}


def agree(graph: Graph, x, folder) -> None:
    ours = Reference(graph).run(x).counts.total
    theirs = counted(graph, x, folder)
    assert theirs == {"Effective_ACs": ours.acs, "Effective_MACs": ours.macs, "Dense": ours.dense_macs}


def sparse(graph: Graph) -> Graph:
    """Set a third of the weights to zero: an effective operation needs a weight too."""
    rng = np.random.default_rng(5)
    return graph.with_nodes(
        {
            name: Linear(node.weight * (rng.random(node.weight.shape) > 1 / 3), node.bias)
            for name, node in graph.nodes.items()
            if isinstance(node, Linear)
        }
    )


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_spiking_input_costs_acs(tmp_path, reset):
    graph = sparse(feed_forward(reset=reset, readout=True))
    x = drive(graph, 50, 4)
    assert Reference(graph).run(x).counts.total.macs == 0
    agree(graph, x, tmp_path)


def test_real_input_costs_macs_in_the_first_layer(tmp_path):
    graph = sparse(feed_forward(reset="subtract")).with_nodes({"in": Input((12,), kind=Kind.REAL)})
    x = drive(graph, 50, 4) * np.random.default_rng(6).normal(size=(50, 4, 12))
    total = Reference(graph).run(x).counts.total
    assert total.macs > 0
    assert total.acs > 0
    agree(graph, x, tmp_path)


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
    ours, theirs = Reference(graph).run(x).counts.total, counted(graph, x, tmp_path)
    assert theirs["Effective_MACs"] == 0
    assert ours.macs > 0
    assert theirs["Effective_ACs"] == ours.acs + ours.macs
